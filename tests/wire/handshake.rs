//! The first bytes of a connection: rubbish, slowness, silence, and HTTP (reliability rows 1 to 4).

use std::time::Duration;

use super::bystanders::Bystanders;
use super::client::{Address, Client, RawSocket, WebSocket, hello, upgrade};
use super::router::{Router, Settings};
use crate::harness::sockets_for;

/// A generator of rubbish that replays: xorshift64*.
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % 1500 + 1;
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }
}

fn listeners(router: &Router) -> [&Address; 4] {
    [&router.near, &router.far, &router.unix, &router.ipv6]
}

#[test]
fn rubbish_is_closed_on_every_listener_and_nobody_else() {
    let router = Router::start("handshake_timeout_ms = 4000");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let memory = router.memory_bytes();
    let mut rubbish = Rubbish(0x9e37_79b9_7f4a_7c15);
    let mut expected = [("bad_handshake", 0), ("handshake_timeout", 0), ("http_refused", 0)];
    // Those that the time has to end, all at once.
    let mut waiting = Vec::new();
    for round in 0..60 {
        for at in listeners(&router) {
            let mut bytes = rubbish.bytes();
            // Each way of telling the protocol has its share.
            match round % 3 {
                0 => bytes[0] |= 0x80,
                1 => bytes[0] = 0x7f,
                _ => bytes[0] = b'G',
            }
            if bytes[0] == 0x7f {
                bytes.resize(bytes.len().max(4), 0);
                bytes[1] &= 0xf0;
            }
            let ends_head = bytes.windows(2).any(|two| two == b"\n\n")
                || bytes.windows(3).any(|three| three == b"\n\r\n");
            let reason = match bytes[0] {
                b'G' if ends_head => 2,
                b'G' => 1,
                _ => 0,
            };
            expected[reason].1 += 1;
            let mut client = Client::socket(at);
            client.try_send_raw(&bytes);
            if reason == 1 {
                waiting.push(client);
                continue;
            }
            let (said, _) = client.read_to_end();
            match bytes[0] {
                b'G' => assert!(said.starts_with(b"HTTP/1.1 4"), "{said:?}"),
                0x7f => assert!(said == [0x7f, 0x10, 0, 0] || said == [0x7f, 0x30, 0, 0], "{said:?}"),
                _ => assert!(said.is_empty(), "nothing that could be said would be understood"),
            }
        }
        if round % 20 == 0 {
            bystanders.check();
        }
    }
    for mut client in waiting {
        let (said, _) = client.read_to_end();
        assert!(said.starts_with(b"HTTP/1.1 4"), "{said:?}");
    }
    bystanders.check();
    let closed = router.wait_for("closed_handshake_timeout", expected[1].1).closed_since(&before);
    for (reason, count) in expected {
        assert_eq!(closed.get(reason).copied().unwrap_or(0), count, "{reason}: {closed:?}");
    }
    assert_eq!(closed.values().sum::<u64>(), 240, "{closed:?}");
    assert!(router.memory_bytes() < memory + (8 << 20), "{memory} became {}", router.memory_bytes());
    bystanders.leave();
    router.stop();
}

#[test]
fn heads_that_drip_in_end_at_the_handshake_timeout() {
    let router = Router::start("handshake_timeout_ms = 2000");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let request = upgrade("wamp.2.json", "");
    let count = sockets_for(1000);
    let mut drips: Vec<_> = (0..count)
        .map(|index| {
            let mut drip = Client::socket(if index % 2 == 0 { &router.near } else { &router.far });
            drip.send_raw(&request.as_bytes()[..1]);
            drip
        })
        .collect();
    // Ten bytes in ten times an eighth of the timeout: each of them on its own would be in time.
    for at in 1..11 {
        for drip in &mut drips {
            drip.try_send_raw(&request.as_bytes()[at..=at]);
        }
        bystanders.check();
        std::thread::sleep(Duration::from_millis(250));
    }
    for drip in &mut drips {
        let (said, _) = drip.read_to_end();
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{said}");
    }
    router.expect_closed(&before, [("handshake_timeout", count as u64)]);
    drop(drips);
    bystanders.leave();
    router.stop();
}

#[test]
fn silent_connections_end_and_leave_nothing() {
    let router = Router::start("handshake_timeout_ms = 2000\nhello_timeout_ms = 2000");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let sockets = router.sockets();
    let count = sockets_for(1000);
    let silent: Vec<_> = (0..count)
        .map(|index| Client::socket(if index % 2 == 0 { &router.near } else { &router.far }))
        .collect();
    bystanders.check();
    for mut client in silent {
        assert_eq!(client.read_to_end(), (Vec::new(), true));
    }
    router.expect_closed(&before, [("handshake_timeout", count as u64)]);
    bystanders.check();
    // One byte of RawSocket's handshake is no handshake either.
    let mut begun = Client::socket(&router.near);
    begun.send_raw(&[0x7f]);
    assert_eq!(begun.read_to_end(), (Vec::new(), true));
    // A link without HELLO is told why, in the words of its protocol.
    for framing in [WebSocket, RawSocket] {
        let mut client = Client::connect(&router.far, framing);
        client.expect_abort("no HELLO", "crosspoint.error.handshake_timeout", 1008);
    }
    // After GOODBYE the link has as long again to say HELLO.
    let mut client = Client::join(&router.near, WebSocket);
    client.send(r#"[6,{},"wamp.close.close_realm"]"#);
    assert_eq!(client.message()[0], 6);
    client.expect_abort("no second HELLO", "crosspoint.error.handshake_timeout", 1008);
    router.expect_closed(&before, [("handshake_timeout", count as u64 + 1), ("hello_timeout", 3)]);
    drop((begun, client));
    crate::wire::router::eventually("sockets come back", || router.sockets() == sockets);
    bystanders.leave();
    router.stop();
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

#[test]
fn every_request_has_its_answer_and_then_the_end() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let many = "X-Header: 1\r\n".repeat(70);
    let long = format!("X-Long: {}\r\n", "a".repeat(9000));
    let table: &[(&str, String, &str)] = &[
        ("the page", get("/", ""), "200"),
        ("the page, by HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("the head of the page", get("/", "").replace("GET", "HEAD"), "200"),
        ("no such path", get("/nowhere", ""), "404"),
        ("no upgrade at the endpoint", get("/ws", ""), "426"),
        ("another method", get("/", "").replace("GET", "POST"), "405"),
        ("no subprotocol of WAMP", upgrade("chat", ""), "400"),
        ("no subprotocol at all", upgrade("", "").replace("Sec-WebSocket-Protocol: \r\n", ""), "400"),
        ("an old version", upgrade("wamp.2.json", "").replace("Version: 13", "Version: 8"), "426"),
        ("a short key", upgrade("wamp.2.json", "").replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), "400"),
        ("a page of elsewhere", upgrade("wamp.2.json", "Origin: https://evil.example\r\n"), "403"),
        ("a page without origin", upgrade("wamp.2.json", "Origin: null\r\n"), "403"),
        ("two origins", upgrade("wamp.2.json", "Origin: http://localhost\r\nOrigin: http://b\r\n"), "400"),
        ("a long head", get("/", &long), "431"),
        ("a long head without end", "GET / HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(9000), "431"),
        ("many headers", get("/", &many), "431"),
        ("a folded header", get("/", "X: a\r\n b\r\n"), "400"),
        ("NUL", get("/", "X: a\0b\r\n"), "400"),
        ("a bare CR", get("/", "X: a\rb\r\n"), "400"),
        ("bare LFs", "GET / HTTP/1.1\nHost: localhost\n\n".to_owned(), "400"),
        ("two lengths", get("/", "Content-Length: 1\r\nContent-Length: 2\r\n"), "400"),
        ("length and encoding", get("/", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), "400"),
        ("a negative length", get("/", "Content-Length: -1\r\n"), "400"),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("two hosts", get("/", "Host: elsewhere\r\n"), "400"),
        ("a host that is none", "GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n".to_owned(), "400"),
        ("another version of HTTP", get("/", "").replace("1.1", "2.0"), "505"),
        ("no version", "GET /\r\n\r\n".to_owned(), "400"),
        ("a body to an upgrade", upgrade("wamp.2.json", "Content-Length: 5\r\n"), "400"),
        ("a header name with a space", get("/", "X : a\r\n"), "400"),
    ];
    let (mut answered, mut refused) = (0, 0);
    for (what, request, status) in table {
        for at in [&router.near, &router.unix] {
            let mut client = Client::socket(at);
            // What is behind a request is never read as another one, and does not take the answer away.
            client.send_raw(format!("{request}GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            let (said, fin) = client.read_to_end();
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && fin, "{what}: {said}");
            assert_eq!(said.matches("\r\nContent-Length: ").count(), 1, "{what}: {said}");
            assert!(said.contains("\r\nConnection: close"), "{what}: {said}");
            *(if *status == "200" { &mut answered } else { &mut refused }) += 1;
        }
    }
    bystanders.check();
    router.expect_closed(&before, [("http_answered", answered), ("http_refused", refused)]);
    bystanders.leave();
    router.stop();
}

#[test]
fn the_page_and_the_refusals_help_people() {
    let router = Router::start("");
    let ask = |request: &str| {
        let mut client = Client::socket(&router.near);
        client.send_raw(request.as_bytes());
        String::from_utf8(client.read_to_end().0).unwrap()
    };
    let page = ask(&get("/", ""));
    assert!(page.contains("ws://localhost/ws") && page.contains("wamp.2.json"), "{page}");
    let head = ask(&get("/", "").replace("GET", "HEAD"));
    assert!(head.ends_with("\r\n\r\n") && page.starts_with(&head), "{head}");
    let origin = ask(&upgrade("wamp.2.json", "Origin: https://evil.example\r\n"));
    assert!(origin.contains("https://evil.example") && origin.contains("`origins`"), "{origin}");
    let subprotocol = ask(&upgrade("chat", ""));
    assert!(subprotocol.contains("wamp.2.json, wamp.2.msgpack, wamp.2.cbor"), "{subprotocol}");
    router.stop();
}

#[test]
fn origins_that_are_allowed_get_in_and_a_list_replaces_the_rule() {
    let opens = |router: &Router, headers: &str| {
        let mut client = Client::socket(&router.near);
        client.send_raw(upgrade("wamp.2.json", headers).as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 403 "), "{head}");
        head.starts_with("HTTP/1.1 101 ")
    };
    let router = Router::start("");
    for origin in ["http://localhost:3000", "https://localhost", "http://127.0.0.1", "http://[::1]:1"] {
        assert!(opens(&router, &format!("Origin: {origin}\r\n")), "{origin}");
    }
    assert!(opens(&router, ""), "whoever sends no Origin is no page");
    router.stop();
    let listener = r#"origins = ["https://app.example", "*.b.example", "null"]"#;
    let router = Router::start_with(Settings { listener, ..Settings::default() });
    assert!(opens(&router, "Origin: https://app.example\r\n"));
    assert!(opens(&router, "Origin: http://x.b.example:8080\r\n"));
    assert!(opens(&router, "Origin: null\r\n"), "what the 403 says to do helps");
    assert!(!opens(&router, "Origin: http://localhost\r\n"));
    assert!(!opens(&router, "Origin: https://app.example.evil.example\r\n"));
    router.stop();
}

#[test]
fn rawsocket_says_what_is_wrong_with_a_handshake() {
    let router = Router::start("");
    let before = router.counters();
    let table: [(&str, [u8; 4], u8); 5] = [
        ("no serializer", [0x7f, 0xf0, 0, 0], 1),
        ("an unknown serializer", [0x7f, 0xff, 0, 0], 1),
        ("flatbuffers", [0x7f, 0xf4, 0, 0], 1),
        ("a reserved octet", [0x7f, 0xf1, 1, 0], 3),
        ("the other reserved octet", [0x7f, 0xf1, 0, 1], 3),
    ];
    for (what, handshake, error) in table {
        let mut client = Client::socket(&router.far);
        client.send_raw(&handshake);
        assert_eq!(client.read_to_end(), (vec![0x7f, error << 4, 0, 0], true), "{what}");
    }
    router.expect_closed(&before, [("bad_handshake", 5)]);
    router.stop();
}

#[test]
fn a_listener_speaks_only_what_it_is_told_to() {
    let router = Router::start_with(Settings { listener: "rawsocket = false", ..Settings::default() });
    let mut client = Client::socket(&router.near);
    client.send_raw(&[0x7f, 0xf1, 0, 0]);
    assert_eq!(client.read_to_end(), (vec![0x7f, 0x10, 0, 0], true));
    Client::join(&router.near, WebSocket).leave();
    drop(client);
    router.stop();
    let listener = "websocket = false\nserializers = [\"json\"]";
    let router = Router::start_with(Settings { listener, ..Settings::default() });
    let mut client = Client::socket(&router.near);
    client.send_raw(upgrade("wamp.2.json", "").as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 400 "));
    let mut client = Client::socket(&router.near);
    client.send_raw(&[0x7f, 0xf2, 0, 0]);
    assert_eq!(client.read_to_end(), (vec![0x7f, 0x10, 0, 0], true), "MessagePack is not offered");
    Client::join(&router.near, RawSocket).leave();
    drop(client);
    router.stop();
}

#[test]
fn a_session_is_refused_with_the_reason() {
    let router = Router::start("");
    let before = router.counters();
    for framing in [WebSocket, RawSocket] {
        let mut client = Client::connect(&router.near, framing);
        client.send(&hello("nowhere"));
        client.expect_abort("an unknown realm", "wamp.error.no_such_realm", 1000);
        let mut client = Client::connect(&router.near, framing);
        client.send(&hello("realm1").replace(r#"{"roles""#, r#"{"authmethods":["ticket"],"roles""#));
        client.expect_abort("another method", "wamp.error.no_matching_auth_method", 1000);
    }
    router.expect_closed(&before, [("session_refused", 4)]);
    router.stop();
}
