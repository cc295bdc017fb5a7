//! Bounds that a session or a process meets, and what happens there (docs/limits.md).

use super::bystanders::Bystanders;
use super::client::{Client, RawSocket, WebSocket, filler, hello, rawsocket_frame, upgrade, websocket_frame};
use super::router::{Router, eventually, reasons};

#[test]
fn connections_above_the_limit_are_told_so_and_room_is_used_again() {
    // All of them may be on one core.
    let router = Router::start("connections = 4\nhandshake_timeout_ms = 1000");
    let before = router.counters();
    let mut clients: Vec<_> = (0..4).map(|_| Client::join(&router.near, WebSocket)).collect();
    let answer = |bytes: &[u8]| {
        let mut refused = Client::socket(&router.near);
        refused.send_raw(bytes);
        let (said, is_end) = refused.read_to_end();
        assert!(is_end, "{said:?}");
        said
    };
    // Whatever stands behind the handshake, no session comes of it.
    let opening = [&[0x7f, 0xf1, 0, 0], &rawsocket_frame(0, hello("realm1").as_bytes())[..]].concat();
    assert_eq!(Client::socket(&router.far).read_to_end(), (Vec::new(), true), "on another core no more");
    for bytes in [&[0x7f][..], &[0x7f, 0xf1, 0, 0], &opening] {
        assert_eq!(answer(bytes), [0x7f, 0x40, 0, 0]);
    }
    for request in ["G", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &upgrade("wamp.2.json", "")] {
        let said = String::from_utf8(answer(request.as_bytes())).unwrap();
        assert!(said.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{said}");
        assert!(said.contains("\r\nRetry-After: 5\r\n") && said.ends_with("Try again later.\n"), "{said}");
    }
    assert!(answer(&[0x16, 3, 1]).is_empty(), "it would not be understood");
    // These say nothing, and one of them leaves.
    let mut silent = Client::socket(&router.near);
    assert_eq!(silent.read_to_end(), (Vec::new(), true));
    let mut leaving = Client::socket(&router.near);
    leaving.shutdown_write();
    assert_eq!(leaving.read_to_end(), (Vec::new(), true));
    let counters = router.wait_for("connections_refused", 10);
    assert_eq!(
        counters.closed_since(&before),
        reasons([("too_many_connections", 7)]),
        "whoever was there stays"
    );
    assert_eq!(counters.get("connections_accepted") - before.get("connections_accepted"), 4);
    drop((silent, leaving));
    clients.pop().unwrap().leave();
    eventually("the place is free again", || {
        let mut client = Client::socket(&router.near);
        client.try_send_raw(&[0x7f, 0xf1, 0, 0]) && client.read_exactly(4)[1] == 0xb1
    });
    for client in clients {
        client.leave();
    }
    router.stop();
}

#[test]
fn so_many_are_told_at_a_time_and_the_rest_is_cut_off() {
    let router = Router::start("connections = 1\nhandshake_timeout_ms = 20000");
    let holder = Client::join(&router.near, RawSocket);
    let told = |client: &mut Client| {
        client.try_send_raw(&[0x7f, 0xf1, 0, 0]);
        client.read_to_end().0 == [0x7f, 0x40, 0, 0]
    };
    let sockets = router.sockets();
    let mut silent: Vec<_> = (0..64).map(|_| Client::socket(&router.near)).collect();
    router.wait_for("connections_refused", 64);
    assert_eq!(router.sockets(), sockets + 64);
    for _ in 0..10 {
        assert!(!told(&mut Client::socket(&router.near)));
    }
    assert_eq!(router.sockets(), sockets + 64);
    // A place is free again with each that was told, or left.
    assert!(told(&mut silent.pop().unwrap()));
    eventually("there is a place", || told(&mut Client::socket(&router.near)));
    drop(silent);
    eventually("nobody is left", || router.sockets() == sockets);
    assert!(told(&mut Client::socket(&router.near)));
    holder.leave();
    router.stop();
}

#[test]
fn messages_before_welcome_are_small() {
    let router = Router::start("hello_bytes_max = \"2 KiB\"");
    let before = router.counters();
    let hello = |length: usize| {
        let hello = r#"[1,"realm1",{"roles":{"caller":{}},"x":""}]"#;
        hello.replace("\"\"", &format!("\"{}\"", "x".repeat(length - hello.len())))
    };
    for framing in [WebSocket, RawSocket] {
        let mut client = Client::connect(&router.near, framing);
        client.send(&hello(2048));
        assert_eq!(client.message()[0], 2);
        // A session is open: the bound is that of messages.
        let long = "x".repeat(100_000);
        client.publish_acknowledged("a.topic", &format!("{long:?}"));
        let mut client = Client::connect(&router.near, framing);
        client.send(&hello(2049));
        let farewell = client.farewell();
        assert!(farewell.messages.is_empty() && !farewell.reset, "{farewell:?}");
        assert_eq!(farewell.code, (framing == WebSocket).then_some(1009));
    }
    // Fragments do not get around it.
    let mut client = Client::connect(&router.far, WebSocket);
    client.send_raw(&websocket_frame(0x01, &[b' '; 2000]));
    client.send_raw(&websocket_frame(0x00, &[b' '; 49]));
    assert_eq!(client.farewell().code, Some(1009));
    router.expect_closed(&before, [("message_too_large", 3), ("end_of_stream", 2)]);
    drop(client);
    router.stop();
}

#[test]
fn calls_in_flight_of_a_caller_and_of_a_callee() {
    let router = Router::start("calls_per_session_max = 10\ninvocations_per_session_max = 15");
    let mut bystanders = Bystanders::join(&router);
    for (at, other) in [(&router.near, &router.far), (&router.far, &router.near)] {
        let mut callee = Client::join(other, RawSocket);
        callee.register("slow.procedure");
        let mut first = Client::join(at, WebSocket);
        for _ in 0..10 {
            first.call("slow.procedure", "1");
        }
        let refused = first.call("slow.procedure", "1");
        let error = first.message();
        assert_eq!((&error[2], &error[4]), (&refused.into(), &"wamp.error.unavailable".into()));
        // The callee has five places left for somebody else.
        let mut second = Client::join(at, WebSocket);
        let requests: Vec<_> = (0..6).map(|_| second.call("slow.procedure", "2")).collect();
        let error = second.message();
        assert_eq!((&error[2], &error[4]), (&requests[5].into(), &"wamp.error.unavailable".into()));
        bystanders.check();
        // It answers all that it has, and is as good as new.
        for _ in 0..15 {
            callee.echo_invocation();
        }
        for _ in 0..10 {
            assert_eq!(first.message()[0], 50);
        }
        for _ in 0..5 {
            assert_eq!(second.message()[0], 50);
        }
        first.call("slow.procedure", "3");
        let invocation = callee.echo_invocation();
        assert_eq!(invocation[1], 16, "what was refused left no gap in the callee's ids");
        assert_eq!(first.message()[3][0], 3);
        for client in [first, second, callee] {
            client.leave();
        }
    }
    bystanders.leave();
    router.stop();
}

#[test]
fn the_uris_of_one_session_are_counted_in_bytes() {
    let router = Router::start("uri_bytes_per_session_max = \"4 KiB\"");
    let mut client = Client::join(&router.near, WebSocket);
    let uri = |index: usize| format!("n{index:02}.{}", "x".repeat(1020));
    let answers: Vec<_> = (0..6)
        .map(|index| {
            // By turns: both count in one account.
            let kind = if index % 2 == 0 { 32 } else { 64 };
            client.ask(|request| format!(r#"[{kind},{request},{{}},"{}"]"#, uri(index)))
        })
        .collect();
    let codes: Vec<_> = answers.iter().map(|answer| answer[0].to_string()).collect();
    assert_eq!(codes, ["33", "65", "33", "65", "8", "8"]);
    for answer in &answers[4..] {
        assert_eq!(answer[4], "crosspoint.error.limit_reached");
    }
    // A registration that failed has taken nothing; one that was given back makes room for as much.
    let mut other = Client::join(&router.far, WebSocket);
    let answer = other.ask(|request| format!(r#"[64,{request},{{}},"{}"]"#, uri(1)));
    assert_eq!(answer[4], "wamp.error.procedure_already_exists");
    for index in 10..14 {
        other.register(&uri(index));
    }
    let registration = &answers[1][2];
    let answer = client.ask(|request| format!("[66,{request},{registration}]"));
    assert_eq!(answer[0], 67);
    client.subscribe(&uri(20));
    let answer = client.ask(|request| format!(r#"[32,{request},{{}},"x"]"#));
    assert_eq!(answer[4], "crosspoint.error.limit_reached", "it is full to the byte");
    client.leave();
    other.leave();
    router.stop();
}

#[test]
fn lists_in_options_are_bounded() {
    let router = Router::start("option_list_max = 100");
    let mut client = Client::join(&router.near, WebSocket);
    let list = |count: u64| (1..=count).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let publish = |request: u64, count: u64| {
        format!(r#"[16,{request},{{"acknowledge":true,"exclude":[{}]}},"a"]"#, list(count))
    };
    assert_eq!(client.ask(|request| publish(request, 100))[0], 17);
    client.send(&publish(2, 101));
    client.expect_violation("101 sessions to exclude");
    drop(client);
    router.stop();
}

#[test]
fn unfinished_messages_of_a_core_are_bounded() {
    let router = Router::start("partial_bytes_per_core_max = \"1 MiB\"\nmessage_bytes_max = \"1 MiB\"");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let mut largest = Client::join(&router.near, WebSocket);
    // All but the end of a long message, from several sessions of one core.
    let part = |bytes: usize| {
        let frame = websocket_frame(0x81, &vec![b' '; 1 << 20]);
        frame[..bytes].to_vec()
    };
    largest.send_raw(&part(500 << 10));
    let mut others: Vec<_> = (0..4).map(|_| Client::join(&router.near, WebSocket)).collect();
    for client in &mut others {
        client.send_raw(&part(200 << 10));
    }
    // Doubling buffers count as what they are; the largest goes, and the others may finish.
    largest.expect_abort("the largest", "crosspoint.error.out_of_memory", 1013);
    bystanders.check();
    let closed = router.counters().closed_since(&before);
    assert_eq!(closed.keys().collect::<Vec<_>>(), ["out_of_memory"]);
    drop((largest, others));
    bystanders.leave();
    router.stop();
}

#[test]
fn a_publication_is_transcoded_once_for_all_its_subscriptions() {
    let router = Router::start("");
    let mut subscriber = Client::connect_as(&router.far, WebSocket, "wamp.2.msgpack", 2);
    let mut ask = |message: &[&[u8]]| {
        subscriber.send_raw(&websocket_frame(0x82, &message.concat()));
        binary_message(&mut subscriber)
    };
    ask(&[&[0x93, 1, 0xa6], b"realm1", &[0x81, 0xa5], b"roles", &[0x81, 0xaa], b"subscriber", &[0x80]]);
    // A topic of 60 characters, and a prefix subscription for each beginning of it.
    let topic = "t".repeat(60);
    for length in 1..=60 {
        let prefix = &topic.as_bytes()[..usize::from(length)];
        ask(&[&[0x94, 32, length, 0x81, 0xa5], b"match", &[0xa6], b"prefix", &[0xd9, length], prefix]);
    }
    let before = router.counters();
    let mut publisher = Client::join(&router.near, WebSocket);
    for _ in 0..3 {
        publisher.publish_acknowledged(&topic, r#"[1,{"a":2.5}]"#);
    }
    for _ in 0..3 * 60 {
        let event = binary_message(&mut subscriber);
        assert_eq!(event[..2], [0x95, 36]);
        assert!(event.ends_with(&[0x92, 1, 0x81, 0xa1, b'a', 0xcb, 0x40, 4, 0, 0, 0, 0, 0, 0]), "{event:x?}");
    }
    let transcoded = router.counters().get("events_transcoded") - before.get("events_transcoded");
    assert_eq!(transcoded, 3);
    drop(subscriber);
    publisher.leave();
    router.stop();
}

/// A short one, or one of up to 64 KiB.
fn binary_message(client: &mut Client) -> Vec<u8> {
    let head = client.read_exactly(2);
    assert_eq!(head[0], 0x82);
    let length = match head[1] {
        126 => client.read_exactly(2).iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        length => usize::from(length),
    };
    client.read_exactly(length)
}

/// What no outbox takes is left out, whatever else is queued: its receiver is not slow because of it.
#[test]
fn an_event_that_becomes_too_large_costs_its_receiver_nothing_else() {
    let router = Router::start("ping_interval_ms = 0");
    let mut subscriber = Client::join_narrow(&router.near, RawSocket);
    subscriber.subscribe("t");
    let mut publisher = Client::join(&router.near, WebSocket);
    let filler = filler(10_000);
    // More than half of what may be queued.
    for number in 0..250 {
        publisher.publish_acknowledged("t", &format!("{number},{filler}"));
    }
    let before = router.counters();
    let mut other = Client::connect_as(&router.near, WebSocket, "wamp.2.msgpack", 2);
    let hello =
        [&[0x93, 1, 0xa6][..], b"realm1", &[0x81, 0xa5], b"roles", &[0x81, 0xa9], b"publisher", &[0x80]];
    other.send_raw(&websocket_frame(0x82, &hello.concat()));
    binary_message(&mut other);
    // A control character is one byte here, and six in JSON.
    let text = vec![1; 1_000_000];
    let publish = [&[0x95, 16, 1, 0x80, 0xa1, b't', 0x91, 0xdb][..], &1_000_000_u32.to_be_bytes(), &text];
    other.send_raw(&websocket_frame(0x82, &publish.concat()));
    let counters = router.wait_for("events_too_large", before.get("events_too_large") + 1);
    assert_eq!(counters.closed_since(&before), reasons([]));
    publisher.publish_acknowledged("t", "250");
    for number in 0..251 {
        assert_eq!(subscriber.message()[4][0], number);
    }
    drop(other);
    subscriber.leave();
    publisher.leave();
    router.stop();
}
