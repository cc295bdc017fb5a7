//! Sessions that do not read what they asked for, and callees that do not read what they are asked.

use super::bystanders::Bystanders;
use super::client::{Client, RawSocket, WebSocket, filler, websocket_frame};
use super::router::{Router, SMALL_OUTBOX, eventually, reasons};

/// Who takes nothing for a second is closed.
const IMPATIENT: &str = "slow_consumer_timeout_ms = 1000\n";

/// Nobody is closed for the time it takes.
const PATIENT: &str = "slow_consumer_timeout_ms = 600000\n";

/// More than this in one direction is not what buffers of the kernel hold, in bytes.
const KERNEL_BYTES_MAX: usize = 24 << 20;

/// Sends the same over and over, waiting for nothing, until the router closes; how much it took.
fn send_until_closed(
    router: &Router,
    client: &mut Client,
    bytes: &[u8],
    mut meanwhile: impl FnMut(),
) -> usize {
    let closed = router.counters().get("closed_slow_consumer");
    let mut sent = 0;
    loop {
        match client.send_some(&bytes[sent % bytes.len()..]) {
            Some(count) => sent += count,
            // It closes before it is asked whether it has.
            None => {
                router.wait_for("closed_slow_consumer", closed + 1);
            }
        }
        meanwhile();
        if router.counters().get("closed_slow_consumer") > closed {
            return sent;
        }
        assert!(sent < 64 << 20, "a session that does not read is not held back");
    }
}

#[test]
fn a_caller_that_reads_no_results_is_held_back_and_closed() {
    // What it has in flight fits into its outbox above the half where its requests begin to wait.
    let router = Router::start(&format!("{SMALL_OUTBOX}{IMPATIENT}calls_per_session_max = 30"));
    let mut bystanders = Bystanders::join(&router);
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let before = router.counters();
        let memory = router.memory_bytes();
        let mut callee = Client::join(&router.far, WebSocket);
        callee.register("long.answer");
        std::thread::scope(|scope| {
            let callee = scope.spawn(move || answer_at_length(callee));
            let mut other = Client::join(&router.near, WebSocket);
            let mut greedy = Client::join_narrow(place, framing);
            let calls: Vec<u8> = (1..=400_000)
                .flat_map(|request| greedy.frame(&format!(r#"[48,{request},{{}},"long.answer",[0]]"#)))
                .collect();
            let closed = before.get("closed_slow_consumer");
            let (mut sent, mut round) = (0, 0);
            while router.counters().get("closed_slow_consumer") == closed {
                match greedy.send_some(&calls[sent..]) {
                    Some(count) => sent += count,
                    // It closes before it is asked whether it has.
                    None => {
                        router.wait_for("closed_slow_consumer", closed + 1);
                    }
                }
                assert!(sent < calls.len(), "the router takes calls of somebody who takes no answers");
                round += 1;
                other.call("long.answer", &round.to_string());
                assert_eq!(other.message()[3][0], round, "the callee is there for others");
            }
            let counters = router.counters();
            assert!(counters.get("paused_outbox") > before.get("paused_outbox"));
            // Its calls began to wait before there was no room for results.
            assert_eq!(counters.get("results_refused"), 0);
            assert_eq!(counters.closed_since(&before), reasons([("slow_consumer", 1)]));
            router.expect_memory_near(memory);
            bystanders.check();
            other.call("long.answer", "-1");
            assert_eq!(other.message()[0], 50);
            callee.join().unwrap().leave();
            other.leave();
        });
    }
    bystanders.leave();
    router.stop();
}

#[test]
fn a_caller_that_reads_late_gets_every_answer() {
    let router = Router::start(&format!("{SMALL_OUTBOX}{PATIENT}calls_per_session_max = 30"));
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let before = router.counters();
        let mut callee = Client::join(&router.far, WebSocket);
        callee.register("long.answer");
        std::thread::scope(|scope| {
            let callee = scope.spawn(move || answer_at_length(callee));
            let mut other = Client::join(&router.near, WebSocket);
            let mut late = Client::join_narrow(place, framing);
            let mut calls = Vec::new();
            let filler = filler(1000);
            let ends: Vec<usize> = (1..=20_000)
                .map(|request| {
                    let call = format!(r#"[48,{request},{{}},"long.answer",[0,{filler}]]"#);
                    calls.extend(late.frame(&call));
                    calls.len()
                })
                .collect();
            // Until nothing of it is taken any more, whatever else goes on.
            let (mut sent, mut idle_rounds) = (0, 0);
            while idle_rounds < 50 {
                let taken = late.send_some(&calls[sent..]).expect("it is held back, not closed");
                sent += taken;
                assert!(sent < calls.len(), "the router takes calls of somebody who takes no answers");
                idle_rounds = if taken == 0 { idle_rounds + 1 } else { 0 };
                other.call("long.answer", "1");
                assert_eq!(other.message()[3][0], 1);
            }
            assert_eq!(router.counters().closed_since(&before), reasons([]), "it is held back, not closed");
            // The rest of the frame that was cut, and every answer.
            let asked = ends.partition_point(|end| *end < sent) + 1;
            let mut answered = vec![false; asked];
            for _ in 0..asked {
                sent += late.send_some(&calls[sent..ends[asked - 1]]).expect("it is not closed");
                let answer = late.message();
                let request = if answer[0] == 50 { &answer[1] } else { &answer[2] };
                let request: usize = request.to_string().parse().unwrap();
                assert!(!std::mem::replace(&mut answered[request - 1], true), "{request} is answered twice");
                if answer[0] != 50 {
                    assert_eq!(answer[5][0], "the session has as many calls in flight as it may have");
                }
            }
            late.leave();
            other.call("long.answer", "-1");
            assert_eq!(other.message()[0], 50);
            callee.join().unwrap().leave();
            other.leave();
        });
        assert_eq!(router.counters().get("results_refused"), 0);
    }
    router.stop();
}

/// Answers every call with its argument and 8 KiB, until one comes with -1.
fn answer_at_length(mut callee: Client) -> Client {
    let filler = filler(8000);
    loop {
        let invocation = callee.message();
        let (request, argument) = (&invocation[1], &invocation[4][0]);
        callee.send(&format!(r#"[70,{request},{{}},[{argument},{filler}]]"#));
        if *argument == -1 {
            return callee;
        }
    }
}

#[test]
fn whoever_reads_no_small_replies_is_closed_too() {
    let router = Router::start(&format!("{SMALL_OUTBOX}{IMPATIENT}"));
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let memory = router.memory_bytes();
    // Pongs, which nobody has to wait for.
    let mut pinging = Client::join_narrow(&router.near, WebSocket);
    let pings = websocket_frame(0x89, &[b'p'; 125]).repeat(5000);
    let sent = send_until_closed(&router, &mut pinging, &pings, || bystanders.check());
    assert!(sent < KERNEL_BYTES_MAX, "{sent} bytes of pings were taken");
    drop(pinging);
    // PUBLISHED, to requests that are together more than the kernel holds on their way.
    let mut asking = Client::join_narrow(&router.far, RawSocket);
    let filler = filler(200);
    let requests: Vec<u8> = (1..=100_000)
        .flat_map(|request| {
            asking.frame(&format!(r#"[16,{request},{{"acknowledge":true}},"a.topic",[{filler}]]"#))
        })
        .collect();
    let sent = send_until_closed(&router, &mut asking, &requests, || bystanders.check());
    assert!(sent < requests.len(), "{sent} bytes of requests were taken");
    drop(asking);
    assert_eq!(router.counters().closed_since(&before), reasons([("slow_consumer", 2)]));
    router.expect_memory_near(memory);
    bystanders.leave();
    router.stop();
}

#[test]
fn callers_of_a_callee_that_stops_reading_are_answered() {
    let router = Router::start(&format!("{SMALL_OUTBOX}{IMPATIENT}"));
    let mut bystanders = Bystanders::join(&router);
    for (there, here) in
        [(&router.near, &router.far), (&router.far, &router.near), (&router.near, &router.near)]
    {
        let before = router.counters();
        let mut callee = Client::join_narrow(there, WebSocket);
        callee.register("stalled.procedure");
        let mut caller = Client::join(here, RawSocket);
        let argument = filler(8000);
        let requests: Vec<_> = (0..300).map(|_| caller.call("stalled.procedure", &argument)).collect();
        bystanders.check();
        // First those for whom there was no room, and at the end those who waited for an answer in vain.
        let mut answers = [0, 0];
        let mut answered: Vec<u64> = Vec::new();
        for _ in &requests {
            let error = caller.message();
            assert_eq!(error[0], 8, "{error:?}");
            answered.push(error[2].to_string().parse().unwrap());
            if error[4] == "wamp.error.unavailable" {
                assert_eq!(answers[1], 0, "room came up although nobody read");
                answers[0] += 1;
            } else {
                assert_eq!(error[4], "wamp.error.canceled", "{error:?}");
                answers[1] += 1;
            }
        }
        answered.sort_unstable();
        assert_eq!(answered, requests, "each call has one answer");
        assert!(answers[0] > 0 && answers[1] > 100, "{answers:?}");
        router.expect_closed(&before, [("slow_consumer", 1)]);
        eventually("the procedure is free again", || {
            let error = caller.ask(|request| format!(r#"[48,{request},{{}},"stalled.procedure"]"#));
            error[4] == "wamp.error.no_such_procedure"
        });
        bystanders.check();
        caller.leave();
        drop(callee);
    }
    bystanders.leave();
    router.stop();
}
