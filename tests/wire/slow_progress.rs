//! Results and calls in parts whose receivers are slow, stand still, or are gone: bounded, and both sides are told
//! (reliability row 20).

use std::time::Duration;

use simd_json::prelude::*;

use super::bystanders::Bystanders;
use super::client::{Client, RawSocket, Received, WebSocket, filler};
use super::router::{Router, SMALL_OUTBOX, eventually, reasons};

/// Nobody is closed for the time it takes.
fn start() -> Router {
    Router::start(&format!(
        "{SMALL_OUTBOX}slow_consumer_timeout_ms = 600000\ncredit_bytes_per_session = \"64 KiB\""
    ))
}

const PROCEDURE: &str = "in.parts";

/// Parts of about 1 KiB each, several times more than an outbox holds.
const PARTS: usize = 6000;

/// YIELDs of one invocation, all but the last with progress.
fn yields(client: &Client, request: u64) -> Vec<u8> {
    let filler = filler(1000);
    let parts = (0..PARTS)
        .flat_map(|part| client.frame(&format!(r#"[70,{request},{{"progress":true}},[{part},{filler}]]"#)));
    parts.chain(client.frame(&format!(r#"[70,{request},{{}},["last"]]"#))).collect()
}

/// What a client that did not read has got by then: parts in order, and then what is no part.
fn read_parts(client: &mut Client, kind: u64, details_at: usize) -> (usize, simd_json::OwnedValue) {
    let mut parts = 0;
    loop {
        let message = client.message();
        let is_part = message[0] == kind && message[details_at].get("progress").is_some();
        if !is_part {
            return (parts, message);
        }
        assert_eq!(message[details_at + 1][0], parts, "in order");
        parts += 1;
    }
}

#[test]
fn a_stream_to_a_caller_at_half_speed_holds_its_callee_and_loses_nothing() {
    let router = start();
    let mut bystanders = Bystanders::join(&router);
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let before = router.counters();
        let mut callee = Client::join_for_parts(&router.near, framing, false);
        callee.register(PROCEDURE);
        let mut caller = Client::join_for_parts(place, framing, true);
        caller.send(&format!(r#"[48,1,{{"receive_progress":true}},"{PROCEDURE}"]"#));
        let invocation = callee.message();
        assert_eq!(invocation[3]["receive_progress"], true, "{invocation:?}");
        let frames = yields(&callee, 1);
        let streaming = std::thread::spawn(move || {
            callee.send_raw(&frames);
            callee
        });
        let mut parts = 0;
        'reading: loop {
            assert_ne!(caller.read_some(32 << 10).unwrap(), 0, "closed after {parts} parts");
            std::thread::sleep(Duration::from_millis(2));
            while let Some(received) = caller.take_received() {
                let Received::Message(result) = received else {
                    panic!("expected a RESULT, not {received:?}")
                };
                assert_eq!(result[0], 50, "after {parts} parts: {result:?}");
                if result[2].get("progress").is_none() {
                    assert_eq!(result[3][0], "last");
                    break 'reading;
                }
                assert_eq!(result[3][0], parts);
                parts += 1;
            }
        }
        assert_eq!(parts, PARTS);
        let counters = router.counters();
        assert!(counters.get("paused_hold") > before.get("paused_hold"), "nobody was ever held: no test");
        assert_eq!(counters.get("progressive_results") - before.get("progressive_results"), PARTS as u64);
        bystanders.check();
        streaming.join().unwrap().leave();
        caller.leave();
    }
    bystanders.leave();
    router.stop();
}

#[test]
fn a_stream_to_a_caller_that_stands_still_ends() {
    let router = start();
    let mut bystanders = Bystanders::join(&router);
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let (before, memory) = (router.counters(), router.memory_bytes());
        let mut callee = Client::join_for_parts(&router.near, framing, false);
        callee.register(PROCEDURE);
        let mut caller = Client::join_for_parts(place, framing, true);
        caller.send(&format!(r#"[48,1,{{"receive_progress":true}},"{PROCEDURE}"]"#));
        callee.message();
        // What comes after the end is ignored, so all of it is taken.
        let frames = yields(&callee, 1);
        callee.send_raw(&frames);
        let interrupt = callee.message();
        assert_eq!((&interrupt[0], &interrupt[1]), (&69.into(), &1.into()), "{interrupt:?}");
        assert_eq!(interrupt[2]["reason"], "wamp.error.unavailable");
        router.expect_memory_near(memory);
        bystanders.check();
        // Nobody was closed, and both go on.
        let (parts, rest) = read_parts(&mut caller, 50, 2);
        assert!(parts > 500 && parts < PARTS, "{parts}");
        assert_eq!(rest[4], "wamp.error.unavailable", "{rest:?}");
        caller.send(&format!(r#"[48,2,{{}},"{PROCEDURE}",[2]]"#));
        callee.echo_invocation();
        assert_eq!(caller.message()[3][0], 2);
        assert_eq!(router.counters().closed_since(&before), reasons([]));
        callee.leave();
        caller.leave();
    }
    bystanders.leave();
    router.stop();
}

#[test]
fn a_stream_to_a_caller_that_left_ends() {
    let router = start();
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let memory = router.memory_bytes();
        let mut callee = Client::join_for_parts(&router.near, framing, false);
        callee.register(PROCEDURE);
        let mut caller = Client::join_for_parts(place, framing, true);
        caller.send(&format!(r#"[48,1,{{"receive_progress":true}},"{PROCEDURE}"]"#));
        callee.message();
        callee.send(r#"[70,1,{"progress":true},[0]]"#);
        assert_eq!(caller.message()[3][0], 0);
        caller.reset();
        let interrupt = callee.message();
        assert_eq!((&interrupt[0], &interrupt[1]), (&69.into(), &1.into()), "{interrupt:?}");
        // It does not hear, and goes on.
        let before = router.counters();
        let frames = yields(&callee, 1);
        callee.send_raw(&frames);
        eventually("all of it is read", || {
            router.counters().get("messages_received") >= before.get("messages_received") + PARTS as u64
        });
        assert_eq!(router.counters().get("progressive_results"), before.get("progressive_results"));
        router.expect_memory_near(memory);
        callee.leave();
    }
    router.stop();
}

#[test]
fn a_call_in_parts_to_a_callee_that_stands_still_ends() {
    let router = start();
    let mut bystanders = Bystanders::join(&router);
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let (before, memory) = (router.counters(), router.memory_bytes());
        let mut callee = Client::join_for_parts(&router.near, framing, true);
        callee.register(PROCEDURE);
        let mut caller = Client::join_for_parts(place, framing, false);
        let filler = filler(1000);
        let frames: Vec<u8> = (0..PARTS)
            .flat_map(|part| {
                caller.frame(&format!(r#"[48,1,{{"progress":true}},"{PROCEDURE}",[{part},{filler}]]"#))
            })
            .collect();
        caller.send_raw(&frames);
        let error = caller.message();
        assert_eq!((&error[0], &error[4]), (&8.into(), &"wamp.error.unavailable".into()), "{error:?}");
        router.expect_memory_near(memory);
        bystanders.check();
        let (parts, rest) = read_parts(&mut callee, 68, 3);
        assert!(parts > 500 && parts < PARTS, "{parts}");
        assert_eq!((&rest[0], &rest[1]), (&69.into(), &1.into()), "{rest:?}");
        assert_eq!(rest[2]["reason"], "wamp.error.unavailable");
        caller.send(&format!(r#"[48,2,{{}},"{PROCEDURE}",[2]]"#));
        callee.echo_invocation();
        assert_eq!(caller.message()[3][0], 2);
        assert_eq!(router.counters().closed_since(&before), reasons([]));
        callee.leave();
        caller.leave();
    }
    bystanders.leave();
    router.stop();
}
