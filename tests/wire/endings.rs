//! Connections that end, or seem to: pings, FIN, RST, farewells, and the end of the router (reliability rows 28
//! to 30).

use std::time::Duration;

use super::bystanders::Bystanders;
use super::client::{
    Client, Framing, RawSocket, Received, WebSocket, filler, hello, upgrade, websocket_frame,
};
use super::router::{Router, Settings, eventually, reasons};

#[test]
fn what_comes_byte_by_byte_is_as_good() {
    let router = Router::start("");
    let mut subscriber = Client::join(&router.far, RawSocket);
    subscriber.subscribe("bytes");
    for framing in [WebSocket, RawSocket] {
        let mut all = match framing {
            WebSocket => upgrade("wamp.2.json", "").into_bytes(),
            RawSocket => vec![0x7f, 0xf1, 0, 0],
        };
        for message in [&hello("realm1"), r#"[16,1,{},"bytes",["byte by byte \u00e9 ü"]]"#] {
            all.extend(match framing {
                WebSocket => websocket_frame(0x81, message.as_bytes()),
                RawSocket => super::client::rawsocket_frame(0, message.as_bytes()),
            });
        }
        let mut client = Client::socket(&router.near);
        for byte in all {
            client.send_raw(&[byte]);
        }
        assert_eq!(subscriber.message()[4][0], "byte by byte é ü");
    }
    subscriber.leave();
    router.stop();
}

/// Everything that a publisher has to say in one packet: PUBLISH, GOODBYE, FIN.
#[test]
fn publish_goodbye_and_fin_in_one_packet_publish() {
    let router = Router::start("");
    let before = router.counters();
    let mut rounds = 0_u64;
    for framing in [WebSocket, RawSocket] {
        for place in [&router.near, &router.far, &router.unix] {
            let mut subscriber = Client::join(place, framing);
            subscriber.subscribe("last.words");
            for at in [&router.near, &router.far, &router.unix] {
                for (goodbye, close) in [(true, true), (true, false), (false, true), (false, false)] {
                    rounds += 1;
                    let mut publisher = Client::join(at, framing);
                    let mut packet = Vec::new();
                    for index in 1..=20 {
                        let message = format!(r#"[16,{index},{{}},"last.words",[{rounds},{index}]]"#);
                        packet.extend(publisher.frame(&message));
                    }
                    if goodbye {
                        packet.extend(publisher.frame(r#"[6,{},"wamp.close.close_realm"]"#));
                    }
                    if close && framing == WebSocket {
                        packet.extend(websocket_frame(0x88, b"\x03\xe8"));
                    }
                    publisher.send_raw(&packet);
                    publisher.shutdown_write();
                    for index in 1..=20 {
                        let event = subscriber.message();
                        assert_eq!(
                            (&event[4][0], &event[4][1]),
                            (&rounds.into(), &index.into()),
                            "{event:?}"
                        );
                    }
                    let farewell = publisher.farewell();
                    assert_eq!(farewell.goodbye.is_some(), goodbye, "{farewell:?}");
                    assert!(!farewell.reset);
                }
            }
            subscriber.leave();
        }
    }
    // A Close frame counts as GOODBYE, whatever came before it.
    router.expect_closed(&before, [("goodbye", 18), ("end_of_stream", rounds - 18 + 6)]);
    router.stop();
}

/// The same with far more than is handled in one turn, and more than may be under way: what waits when FIN comes
/// counts.
#[test]
fn a_long_speech_before_fin_is_heard_to_its_end() {
    let router = Router::start("credit_bytes_per_session = \"8 KiB\"\nturn_bytes_per_session = \"4 KiB\"");
    let before = router.counters();
    for framing in [WebSocket, RawSocket] {
        for (place, at) in
            [(&router.near, &router.far), (&router.near, &router.near), (&router.far, &router.unix)]
        {
            let mut subscriber = Client::join(place, framing);
            subscriber.subscribe("long.speech");
            let mut publisher = Client::join(at, framing);
            let filler = filler(500);
            let mut speech = Vec::new();
            for index in 1..=400 {
                speech.extend(
                    publisher.frame(&format!(r#"[16,{index},{{}},"long.speech",[{index},{filler}]]"#)),
                );
            }
            speech.extend(publisher.frame(r#"[6,{},"wamp.close.close_realm"]"#));
            publisher.send_raw(&speech);
            publisher.shutdown_write();
            for index in 1..=400 {
                assert_eq!(subscriber.message()[4][0], index);
            }
            let farewell = publisher.farewell();
            assert!(farewell.goodbye.is_some() && !farewell.reset, "{farewell:?}");
            subscriber.leave();
        }
    }
    assert!(router.counters().get("paused_credit") > 0, "nobody ever waited: no test");
    router.expect_closed(&before, [("end_of_stream", 12)]);
    router.stop();
}

#[test]
fn a_callee_that_vanishes_answers_its_callers_and_is_forgotten() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    type Vanish = fn(Client);
    let vanish: [(&str, Vanish); 4] = [
        ("FIN", drop),
        ("RST in the middle of a frame", |mut client| {
            client.send_raw(&websocket_frame(0x81, &[b' '; 1000])[..500]);
            client.reset();
        }),
        ("half a close", |mut client| {
            client.shutdown_write();
            assert!(!client.farewell().reset);
        }),
        ("a close frame alone", |mut client| {
            client.send_raw(&websocket_frame(0x88, b"\x03\xe8"));
            assert_eq!(client.farewell().code, Some(1000));
        }),
    ];
    for (what, vanish) in vanish {
        for (there, here) in
            [(&router.near, &router.far), (&router.far, &router.far), (&router.unix, &router.near)]
        {
            let mut callee = Client::join(there, WebSocket);
            callee.register("vanishing.procedure");
            callee.subscribe("vanishing.topic");
            let mut caller = Client::join(here, RawSocket);
            let requests: Vec<_> = (0..3).map(|_| caller.call("vanishing.procedure", "1")).collect();
            for _ in &requests {
                assert_eq!(callee.message()[0], 68);
            }
            vanish(callee);
            for request in requests {
                let error = caller.message();
                assert_eq!(
                    (&error[2], &error[4]),
                    (&request.into(), &"wamp.error.canceled".into()),
                    "{what}"
                );
            }
            eventually("the procedure is free again", || {
                let error = caller.ask(|request| format!(r#"[48,{request},{{}},"vanishing.procedure"]"#));
                error[4] == "wamp.error.no_such_procedure"
            });
            caller.publish_acknowledged("vanishing.topic", "1");
            caller.leave();
            bystanders.check();
        }
    }
    // There is no RST on a Unix socket. The callers said GOODBYE, and then closed without a Close frame.
    router.expect_closed(&before, [("reset", 2), ("goodbye", 3), ("end_of_stream", 7 + 12)]);
    bystanders.leave();
    router.stop();
}

#[test]
fn a_callee_is_interrupted_when_its_caller_vanishes() {
    let router = Router::start("");
    for (there, here) in
        [(&router.near, &router.far), (&router.far, &router.far), (&router.near, &router.near)]
    {
        let mut callee = Client::connect(there, WebSocket);
        let features = r#""callee":{"features":{"call_canceling":true}}"#;
        callee.send(&hello("realm1").replace(r#""callee":{}"#, features));
        assert_eq!(callee.message()[0], 2);
        callee.register("long.procedure");
        let mut caller = Client::join(here, WebSocket);
        for _ in 0..3 {
            caller.call("long.procedure", "1");
            assert_eq!(callee.message()[0], 68);
        }
        caller.reset();
        let mut interrupted: Vec<_> = (0..3)
            .map(|_| {
                let interrupt = callee.message();
                assert_eq!(interrupt[0], 69);
                interrupt[1].to_string()
            })
            .collect();
        interrupted.sort_unstable();
        assert_eq!(interrupted, ["1", "2", "3"]);
        callee.leave();
    }
    router.stop();
}

/// Reads until a ping comes; its payload.
fn next_ping(client: &mut Client) -> Vec<u8> {
    loop {
        match client.receive() {
            Received::Ping(payload) => return payload,
            Received::Message(_) => {}
            other => panic!("expected a ping, not {other:?}"),
        }
    }
}

#[test]
fn pings_keep_those_who_answer_and_close_those_who_do_not() {
    let router = Router::start("ping_interval_ms = 200\nping_timeout_ms = 2000");
    let before = router.counters();
    // RawSocket is left to the kernel's keepalive: some of its clients do not know PING.
    let mut quiet = Client::join(&router.near, RawSocket);
    // Who answers stays, and so does who says anything else.
    let mut answers = Client::join(&router.near, WebSocket);
    let mut talks = Client::join(&router.far, WebSocket);
    for _ in 0..8 {
        let payload = next_ping(&mut answers);
        answers.pong(&payload);
        next_ping(&mut talks);
        talks.publish("a.topic", "1");
    }
    assert!(router.wait_for("pongs", 8).get("pings") >= 16);
    // From here on neither says anything.
    for mut client in [answers, talks] {
        client.expect_abort("silence", "crosspoint.error.ping_timeout", 1001);
    }
    router.expect_closed(&before, [("ping_timeout", 2)]);
    quiet.subscribe("still.here");
    drop(quiet);
    router.stop();
}

/// A ping waits behind what is queued; that it is not answered before it could be read says nothing.
#[test]
fn a_slow_reader_is_not_taken_for_a_dead_one() {
    let router = Router::start(
        "ping_interval_ms = 200\nping_timeout_ms = 2000\noutbox_hard_bytes = \"8 MiB\"\npublisher_hold_ms = 0",
    );
    let before = router.counters();
    let mut subscriber = Client::join_narrow(&router.near, WebSocket);
    subscriber.subscribe("much");
    let mut publisher = Client::join(&router.far, WebSocket);
    let payload = filler(64 << 10);
    for index in 0..48 {
        publisher.publish_acknowledged("much", &format!("{index},{payload}"));
    }
    drop(publisher);
    // 3 MiB in steps of 32 KiB take more than twice the timeout, each of them far less.
    let mut received = 0;
    while received < 48 {
        assert_ne!(subscriber.read_some(32 << 10).unwrap(), 0, "closed after {received} events");
        while let Some(next) = subscriber.take_received() {
            match next {
                Received::Message(event) => {
                    assert_eq!(event[4][0], received);
                    received += 1;
                }
                Received::Ping(payload) => subscriber.pong(&payload),
                other => panic!("expected events, not {other:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let payload = next_ping(&mut subscriber);
    subscriber.pong(&payload);
    assert_eq!(router.counters().closed_since(&before), reasons([("end_of_stream", 1)]));
    drop(subscriber);
    router.stop();
}

#[test]
fn the_farewell_arrives_although_input_is_unread() {
    let router = Router::start("linger_timeout_ms = 10000");
    let before = router.counters();
    for framing in [WebSocket, RawSocket] {
        for at in [&router.near, &router.unix] {
            let mut client = Client::join(at, framing);
            let filler = client.frame(&format!(r#"[16,1,{{}},"a",["{}"]]"#, "x".repeat(1000)));
            client.send_raw(&[client.frame("rubbish"), filler.repeat(40)].concat());
            // It goes on sending for a while before it looks, and may: all of it is less than 64 KiB.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(10));
                client.send_raw(&filler);
            }
            client.expect_violation("rubbish in front of 50 KiB");
        }
    }
    // What comes without end is cut off.
    let mut endless = Client::join(&router.near, WebSocket);
    endless.send("rubbish");
    let mut sent = 0;
    while sent < 64 << 20 && endless.try_send_raw(&[b'x'; 64 << 10]) {
        sent += 64 << 10;
    }
    assert!(sent < 64 << 20, "the router listens to a client that it has closed");
    router.expect_closed(&before, [("protocol_violation", 5)]);
    drop(endless);
    router.stop();
}

#[test]
fn a_client_that_does_not_take_its_farewell_is_cut_off() {
    let router = Router::start("linger_timeout_ms = 300");
    let sockets = router.sockets();
    let mut clients: Vec<_> = [WebSocket, RawSocket, WebSocket, RawSocket]
        .map(|framing| Client::join(&router.near, framing))
        .into();
    for client in &mut clients {
        client.send("rubbish");
    }
    // Their sockets are open all the time.
    eventually("the router lets go of them", || router.sockets() == sockets);
    for client in &mut clients {
        client.expect_violation("rubbish");
    }
    drop(clients);
    router.stop();
}

#[test]
fn only_so_many_linger() {
    let router = Router::start("lingering_per_core_max = 3\nlinger_timeout_ms = 20000");
    let sockets = router.sockets();
    let mut clients: Vec<_> = (0..10).map(|_| Client::join(&router.near, WebSocket)).collect();
    for client in &mut clients {
        client.send("rubbish");
        client.expect_violation("rubbish");
    }
    eventually("all but three are cut off", || router.sockets() == sockets + 3);
    drop(clients);
    router.stop();
}

#[test]
fn a_router_that_stops_tells_everybody_and_waits_for_nobody() {
    let node = "shutdown_timeout_ms = 3000";
    let limits = "linger_timeout_ms = 1000\nhandshake_timeout_ms = 60000";
    let router = Router::start_with(Settings { node, limits, ..Settings::default() });
    let places: Vec<(_, Framing)> = [&router.near, &router.far, &router.unix, &router.ipv6]
        .into_iter()
        .flat_map(|at| [(at.clone(), WebSocket), (at.clone(), RawSocket)])
        .collect();
    let mut sessions: Vec<_> = places.iter().map(|(at, framing)| Client::join(at, *framing)).collect();
    let mut links: Vec<_> = places.iter().map(|(at, framing)| Client::connect(at, *framing)).collect();
    let mut begun = Client::socket(&router.near);
    begun.send_raw(b"GET /ws HTTP/1.1\r\n");
    let mut silent = Client::socket(&router.far);
    // A subscriber that does not read, and has something to read.
    let mut stalled = Client::join_narrow(&router.near, WebSocket);
    stalled.subscribe("much");
    for _ in 0..20 {
        sessions[0].publish_acknowledged("much", &filler(100_000));
    }
    router.stop_with_clients();
    for (client, (_, framing)) in sessions.iter_mut().zip(&places) {
        let farewell = client.farewell();
        assert_eq!(farewell.goodbye.as_deref(), Some("wamp.close.system_shutdown"), "{farewell:?}");
        assert_eq!((farewell.code, farewell.reset), ((*framing == WebSocket).then_some(1001), false));
    }
    for client in &mut links {
        let farewell = client.farewell();
        assert_eq!(farewell.abort.as_deref(), Some("wamp.close.system_shutdown"), "{farewell:?}");
    }
    let (said, _) = begun.read_to_end();
    assert!(said.starts_with(b"HTTP/1.1 503 "), "{said:?}");
    assert_eq!(silent.read_to_end(), (Vec::new(), true));
}

#[test]
fn a_process_that_was_stopped_closes_nobody() {
    let router =
        Router::start("ping_interval_ms = 300\nping_timeout_ms = 4000\nslow_consumer_timeout_ms = 4000");
    let before = router.counters();
    let mut clients: Vec<_> = (0..6)
        .map(|index| Client::join(if index % 2 == 0 { &router.near } else { &router.far }, WebSocket))
        .collect();
    for client in &mut clients {
        // A ping is out, and its answer cannot come in time by the clock on the wall.
        next_ping(client);
    }
    router.freeze(Duration::from_millis(6500));
    for client in &mut clients {
        client.subscribe("still.here");
    }
    assert_eq!(router.counters().closed_since(&before), reasons([]));
    drop(clients);
    router.stop();
}
