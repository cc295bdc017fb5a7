//! The first bytes of a connection, HTTP, and the opening handshake.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::config::ListenerPage;

/// The answer to a request, whichever way it is cut: status line and head, body, reason.
struct Answer {
    head: String,
    body: String,
    reason: CloseReason,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn answer_of(config: &LinkConfig, request: &[u8]) -> Answer {
    let seen = feed_every_way(Link::new, config, request);
    let [Seen::Close(reply, reason)] = &seen[..] else { panic!("not answered: {seen:?}") };
    let reply = std::str::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let answer = Answer { head: head.to_owned(), body: body.to_owned(), reason: *reason };
    assert!(head.starts_with("HTTP/1.1 "));
    assert!(answer.header("Connection").unwrap().split(", ").any(|option| option == "close"));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    if !request.starts_with(b"HEAD ") {
        assert_eq!(answer.header("Content-Length"), Some(body.len().to_string().as_str()));
    }
    let is_success = answer.status() == 200;
    assert_eq!(answer.reason, if is_success { CloseReason::HttpAnswered } else { CloseReason::HttpRefused });
    if !is_success {
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    answer
}

fn answered(request: impl AsRef<[u8]>) -> Answer {
    answer_of(&config(), request.as_ref())
}

/// The refusal of a handshake with these further headers.
fn refused(config: &LinkConfig, headers: &str) -> Answer {
    answer_of(config, &request(headers))
}

fn accepted(config: &LinkConfig, request: &[u8]) -> (Opened, String) {
    let seen = feed_every_way(Link::new, config, request);
    let [Seen::Opened(opened, reply)] = &seen[..] else { panic!("not opened: {seen:?}") };
    (opened.clone(), String::from_utf8(reply.clone()).unwrap())
}

#[test]
fn the_example_of_the_rfc() {
    let (opened, reply) = accepted(&config(), &request_for("wamp.2.json"));
    assert_eq!(
        reply,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: wamp.2.json\r\n\r\n"
    );
    let encoding = Encoding { serializer: Serializer::Json, framing: Framing::WebSocket };
    assert_eq!(
        opened,
        Opened { encoding: Some(encoding), deflate: None, peer_message_bytes_max: usize::MAX, cookie: None }
    );
    assert_eq!(open_websocket(&config(), "wamp.2.json").encoding(), Some(encoding));
}

#[test]
fn the_clients_first_subprotocol_that_is_offered() {
    let chosen = |config: &LinkConfig, offer: &str| {
        let (opened, reply) = accepted(config, &request_for(offer));
        let name = reply.split("Sec-WebSocket-Protocol: ").nth(1).unwrap().trim_end().to_owned();
        let encoding = opened.encoding.unwrap();
        (name, encoding.serializer, encoding.framing)
    };
    for (name, encoding) in handshake::SUBPROTOCOLS {
        assert_eq!(chosen(&config(), name), (name.to_owned(), encoding.serializer, encoding.framing));
    }
    let mut config = config();
    config.listener.serializers = vec![Serializer::Json, Serializer::Cbor];
    config.listener.batched = false;
    for offer in [
        "wamp.2.msgpack, wamp.2.cbor, wamp.2.json",
        "wamp.2.cbor.batched,wamp.2.cbor",
        "mqtt, wamp.2.msgpack\r\nSec-WebSocket-Protocol: wamp.2.cbor\r\nsec-websocket-protocol: wamp.2.json",
    ] {
        assert_eq!(chosen(&config, offer).0, "wamp.2.cbor", "{offer}");
    }
    for headers in ["", "Sec-WebSocket-Protocol: wamp.2.msgpack, WAMP.2.JSON\r\n"] {
        let answer = refused(&config, headers);
        assert_eq!(answer.status(), 400);
        assert!(answer.body.contains("wamp.2.json, wamp.2.cbor."), "{}", answer.body);
    }
}

#[test]
fn an_echo_listener_demands_no_subprotocol() {
    let mut config = config();
    config.listener.mode = ListenerMode::Echo;
    let (opened, reply) = accepted(&config, &request(""));
    assert_eq!(opened.encoding, None);
    assert!(!reply.contains("Sec-WebSocket-Protocol"));
    let (_, reply) = accepted(&config, &request_for("first, second"));
    assert!(reply.contains("Sec-WebSocket-Protocol: first\r\n"));
}

#[test]
fn header_names_and_values_in_any_case_and_on_several_lines() {
    let request = b"GET /ws?token=1 HTTP/1.1\r\nHOST: a\r\nconnection: keep-alive\r\nconnection: x,UPGRADE\r\n\
        upgrade: h2c, WebSocket\r\nsec-websocket-version: 13\r\nSEC-WEBSOCKET-KEY:dGhlIHNhbXBsZSBub25jZQ==  \r\n\
        Sec-WebSocket-Protocol:wamp.2.json\r\n\r\n";
    accepted(&config(), request);
    accepted(&config(), &String::from_utf8_lossy(request).replace("/ws?", "http://a/ws?").into_bytes());
    // Stray bits at the end of a key are no matter.
    let stray = String::from_utf8_lossy(request).replace("ZQ==", "ZR==");
    accepted(&config(), stray.as_bytes());
}

#[test]
fn frames_may_follow_the_request_at_once() {
    let mut bytes = request_for("wamp.2.json");
    bytes.extend(client_frame(FIN | TEXT, b"[1]"));
    let seen = feed_every_way(Link::new, &config(), &bytes);
    assert!(matches!(&seen[..], [Seen::Opened(..), Seen::Text(text)] if text == "[1]"), "{seen:?}");
}

#[test]
fn handshakes_against_the_rules() {
    let good = String::from_utf8(request_for("wamp.2.json")).unwrap();
    for (from, to, status, says) in [
        ("Version: 13", "Version: 8", 426, "version 13"),
        ("Sec-WebSocket-Version: 13\r\n", "", 426, "version 13"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 400, "more than one"),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: dGhlIHNhbXBsZSBub25j", 400, "16 bytes"),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: dGhlIHNhbXBsZSBub25jZQ!!", 400, "16 bytes"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "16 bytes"),
        ("keep-alive, Upgrade", "keep-alive", 400, "Connection: Upgrade"),
        ("HTTP/1.1", "HTTP/1.0", 400, "HTTP/1.1"),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", 400, "no body"),
        ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "no body"),
        ("/ws", "/wss", 404, "/ws"),
        ("/ws", "/", 404, "/ws"),
        ("/ws", "/ws/", 404, "/ws"),
        ("Upgrade: websocket\r\n", "", 426, "WAMP client"),
        ("Upgrade: websocket", "Upgrade: h2c", 426, "WAMP client"),
        ("GET", "POST", 405, "GET and HEAD"),
    ] {
        assert!(good.contains(from));
        let answer = answered(good.replacen(from, to, 1));
        assert_eq!(answer.status(), status, "{from} -> {to}");
        assert!(answer.body.contains(says), "{}", answer.body);
        if status == 426 {
            assert_eq!(answer.header("Upgrade"), Some("websocket"));
            assert_eq!(answer.header("Connection"), Some("close, Upgrade"));
        }
    }
    let answer = answered(good.replace("Version: 13", "Version: 8"));
    assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    accepted(&config(), good.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n").as_bytes());
}

#[test]
fn a_foreign_origin_is_told_what_to_configure() {
    let headers = |origin: &str| format!("Sec-WebSocket-Protocol: wamp.2.json\r\nOrigin: {origin}\r\n");
    let answer = refused(&config(), &headers("https://evil.example"));
    assert_eq!(answer.status(), 403);
    for says in ["`origins`", "[[listener]]", "\"https://evil.example\""] {
        assert!(answer.body.contains(says), "{}", answer.body);
    }
    accepted(&config(), &request(&headers("http://localhost:3000")));
    // The same host is one where a name cannot have been made to point at the browser's own machine.
    refused(&config(), &headers("https://router.example:8443"));
    let mut public = config();
    public.listener.address = ListenAddress::Tcp([192, 0, 2, 1].into(), 8080);
    accepted(&public, &request(&headers("https://router.example:8443")));
    let mut any = config();
    any.listener.origins = Origins::Any;
    accepted(&any, &request(&headers("https://evil.example")));

    let long = refused(&config(), &headers(&format!("https://{}", "\u{e9}".repeat(300))));
    assert!(long.body.len() < 500);
    let twice = refused(&config(), &headers("http://localhost\r\nOrigin: http://localhost"));
    assert_eq!(twice.status(), 400);
}

#[test]
fn heads_against_the_rules() {
    let head = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let bad: &[(u16, String)] = &[
        (400, head("X: a\r\n b\r\n")),
        (400, head("X: a\r\n\tb\r\n")),
        (400, head(" X: a\r\n")),
        (400, head("X: a\0b\r\n")),
        (400, head("X: a\rb\r\n")),
        (400, head("X: a\r\r\n")),
        (400, head("X: a\n")),
        (400, "GET / HTTP/1.1\nHost: a\n\n".to_owned()),
        (400, head("X : a\r\n")),
        (400, head(": a\r\n")),
        (400, head("X\r\n")),
        (400, head("X: a\u{7f}b\r\n")),
        (400, head("Content-Length: 1\r\nContent-Length: 1\r\n")),
        (400, head("Content-Length: 1\r\ncontent-length: 2\r\n")),
        (400, head("Content-Length: 1, 1\r\n")),
        (400, head("Content-Length: +1\r\n")),
        (400, head("Content-Length: \r\n")),
        (400, head("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
        (400, head("Host: b\r\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned()),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (400, "GET /\r\nHost: a\r\n\r\n".to_owned()),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (431, head(&"X: a\r\n".repeat(64))),
        (431, head(&format!("X: {}\r\n", "a".repeat(8192)))),
        (431, format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000))),
        (404, "GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (404, "GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (405, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ];
    for (status, request) in bad {
        assert_eq!(answered(request).status(), *status, "{request:?}");
    }
    assert_eq!(answered("PUT / HTTP/1.1\r\nHost: a\r\n\r\n").header("Allow"), Some("GET, HEAD"));
    assert_eq!(answered(head(&"X: a\r\n".repeat(63))).status(), 200);
}

#[test]
fn a_head_of_exactly_the_limit_is_taken() {
    let head = |len: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - rest))
    };
    assert_eq!(answered(head(8192)).status(), 200);
    assert_eq!(answered(head(8193)).status(), 431);
}

#[test]
fn the_page() {
    let page = answered("GET / HTTP/1.1\r\nHost: router.example:8080\r\n\r\n");
    assert_eq!(page.status(), 200);
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    // No script, no connection.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    assert_eq!(page.header("Content-Security-Policy"), Some(policy));
    assert_eq!(page.body.matches("ws://router.example:8080/ws").count(), 3);
    assert!(page.body.contains("wamp.2.json, wamp.2.msgpack, wamp.2.cbor, wamp.2.json.batched"));

    let head = answered("HEAD /?x HTTP/1.1\r\nHost: router.example:8080\r\n\r\n");
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    assert_eq!(head.header("Content-Length"), page.header("Content-Length"));

    // What a request says of itself is text.
    let odd = answered("GET / HTTP/1.1\r\nHost: a&b'c\r\n\r\n");
    assert!(odd.body.contains("ws://a&amp;b&#39;c/ws"));
    assert!(!odd.body.contains("a&b"));
    // HTTP/1.0 need not say its host.
    let old = answered("GET / HTTP/1.0\r\n\r\n");
    assert!(old.body.contains("ws://127.0.0.1:8080/ws"));
}

#[test]
fn the_page_of_the_demo() {
    let mut config = config();
    config.listener.page = ListenerPage::Demo;
    config.listener.path = "/a&b".to_owned();
    let page = answer_of(&config, b"GET / HTTP/1.1\r\nHost: a;script-src *\r\n\r\n");
    assert_eq!(page.status(), 400, "{}", page.body);
    let page = answer_of(&config, b"GET / HTTP/1.1\r\nHost: a;script-src,*\r\n\r\n");
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("data-path=\"/a&amp;b\""));
    // It runs what the policy has the hash of, and connects to its own host.
    let (_, script) = page.body.split_once("<script>").unwrap();
    let (script, _) = script.split_once("</script>").unwrap();
    let hash = BASE64_STANDARD.encode(Sha256::digest(script));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    assert_eq!(page.header("Content-Security-Policy"), Some(policy.as_str()));
    // Its endpoint is as closed to pages of others as any.
    let request = request_for("wamp.2.json");
    let request = String::from_utf8(request).unwrap().replace("/ws", "/a&b");
    let request = request.replacen("\r\n", "\r\nOrigin: https://elsewhere.example\r\n", 1);
    assert_eq!(answer_of(&config, request.as_bytes()).status(), 403);
}

#[test]
fn the_page_of_an_echo_listener() {
    let mut config = config();
    config.listener.mode = ListenerMode::Echo;
    let answer = answer_of(&config, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.body.contains("ws://a/ws"));
}

#[test]
fn an_endpoint_at_the_root_is_both() {
    let mut config = config();
    config.listener.path = "/".to_owned();
    let upgrade = String::from_utf8(request_for("wamp.2.json")).unwrap().replace("/ws", "/");
    accepted(&config, upgrade.as_bytes());
    assert_eq!(answer_of(&config, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
}

#[test]
fn a_listener_without_websocket_says_so() {
    let mut config = config();
    config.listener.websocket = false;
    for request in [request_for("wamp.2.json"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()] {
        let answer = answer_of(&config, &request);
        assert_eq!(answer.status(), 400);
        assert!(answer.body.contains("RawSocket only"));
    }
}

#[test]
fn other_first_bytes_are_refused_at_once() {
    for first in (0..=u8::MAX).filter(|byte| *byte != 0x7f && !byte.is_ascii_uppercase()) {
        let seen = feed_every_way(Link::new, &config(), &[first, 1, 2, 3]);
        assert_eq!(seen, [Seen::Close(Vec::new(), CloseReason::BadHandshake)], "byte {first}");
    }
}

#[test]
fn a_head_that_was_begun_is_answered_at_the_end() {
    for (reason, status) in [
        (CloseReason::HandshakeTimeout, "408 Request Timeout"),
        (CloseReason::TooManyConnections, "503 Service Unavailable"),
        (CloseReason::SystemShutdown, "503 Service Unavailable"),
        (CloseReason::Reset, ""),
    ] {
        let mut link = Link::new();
        assert_eq!(feed(&mut link, &config(), b"GET /ws HTTP/1.1\r\nHo"), []);
        assert!(link.partial_bytes() > 0);
        let mut out = Vec::new();
        link.close(reason, "why it ended", &mut out);
        let reply = String::from_utf8(out).unwrap();
        assert_eq!(reply.is_empty(), status.is_empty());
        assert!(reply.is_empty() || reply.ends_with("\r\n\r\nwhy it ended\n"));
        assert!(reply.is_empty() || reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{reply}");
        assert_is_over(&mut link, &config());
        // Nothing is known of a peer that said nothing.
        let (mut link, mut out) = (Link::new(), Vec::new());
        link.close(reason, "", &mut out);
        assert_eq!(out, b"");
    }
}

#[test]
fn whoever_is_turned_away_hears_it_in_his_protocol() {
    for first in 0..=u8::MAX {
        let (mut link, mut out) = (Link::new(), Vec::new());
        link.turn_away(first);
        link.close(CloseReason::TooManyConnections, "", &mut out);
        match first {
            0x7f => assert_eq!(out, [0x7f, 0x40, 0, 0]),
            b'A'..=b'Z' => {
                let reply = String::from_utf8(out).unwrap();
                assert!(reply.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{reply}");
                assert!(
                    reply.contains("Retry-After: 5\r\n") && reply.ends_with("Try again later.\n"),
                    "{reply}"
                );
            }
            _ => assert_eq!(out, b""),
        }
        assert_is_over(&mut link, &config());
    }
}
