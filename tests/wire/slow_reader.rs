//! Subscribers that read slowly, or not at all: bounded, told why, and nobody else's trouble (reliability rows 26
//! and 27).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use simd_json::prelude::*;

use super::bystanders::Bystanders;
use super::client::{Address, Client, Framing, RawSocket, Received, WebSocket, filler};
use super::router::{Router, SMALL_OUTBOX, Settings, eventually, open_realm, reasons};

#[test]
fn a_reader_at_half_speed_holds_its_publishers_and_loses_nothing() {
    const PUBLISHERS: usize = 20;
    const EACH: usize = 140;
    // Of about 1.1 KB each: more than half of the outbox, and less than all of it.
    const BEHIND_MAX: usize = 1500;
    let limits = "message_bytes_max = \"64 KiB\"\noutbox_soft_bytes = \"512 KiB\"\noutbox_hard_bytes = \"2 MiB\"\n\
                  credit_bytes_per_session = \"64 KiB\"";
    let router = Router::start(limits);
    let mut bystanders = Bystanders::join(&router);
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let before = router.counters();
        let mut subscriber = Client::join_narrow(place, framing);
        subscriber.subscribe("half.speed");
        let published = AtomicUsize::new(0);
        let mut next = [0; PUBLISHERS];
        std::thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let at = if publisher % 2 == 0 { &router.near } else { &router.far };
                let published = &published;
                scope.spawn(move || {
                    let mut client = Client::join(at, framing);
                    let filler = filler(1000);
                    for index in 0..EACH {
                        // Acknowledged: what is in the sockets of a busy machine is not published yet.
                        client.publish_acknowledged("half.speed", &format!("{publisher},{index},{filler}"));
                        published.fetch_add(1, Ordering::Relaxed);
                    }
                    client.leave();
                });
            }
            let mut received = 0;
            while received < PUBLISHERS * EACH {
                // Half of what was published, but never so far behind that the outbox were full: held publishers still
                // publish. When all is published, as fast as it comes.
                let published = published.load(Ordering::Relaxed);
                let is_ahead = received > published / 2 && published.saturating_sub(received) < BEHIND_MAX;
                if is_ahead && published < PUBLISHERS * EACH {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                assert_ne!(subscriber.read_some(64 << 10).unwrap(), 0, "closed after {received} events");
                while let Some(event) = subscriber.take_received() {
                    let event = match event {
                        Received::Message(event) => event,
                        Received::Ping(payload) => {
                            subscriber.pong(&payload);
                            continue;
                        }
                        other => panic!("expected an event, not {other:?}"),
                    };
                    assert!(event[3].get("_lost").is_none(), "{event:?}");
                    let publisher = event[4][0].as_usize().unwrap();
                    assert_eq!(event[4][1], next[publisher], "in the order of its publisher");
                    next[publisher] += 1;
                    received += 1;
                }
            }
        });
        assert_eq!(next, [EACH; PUBLISHERS]);
        let counters = router.counters();
        assert!(counters.get("paused_hold") > before.get("paused_hold"), "nobody was ever held: no test");
        let events = counters.get("events") - before.get("events");
        assert_eq!(events, (PUBLISHERS * EACH) as u64);
        assert_eq!(counters.get("events_dropped"), 0);
        bystanders.check();
        subscriber.leave();
        let closed = router.counters().closed_since(&before);
        assert!(closed.keys().all(|reason| reason == "end_of_stream" || reason == "reset"), "{closed:?}");
    }
    bystanders.leave();
    router.stop();
}

/// A reader that takes next to nothing is not waited for, and goes when its outbox is full.
#[test]
fn a_reader_that_stands_still_delays_nobody() {
    let limits = format!("{SMALL_OUTBOX}slow_consumer_timeout_ms = 600000");
    let router = Router::start(&limits);
    let mut bystanders = Bystanders::join(&router);
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        let before = router.counters();
        let (memory, sockets) = (router.memory_bytes(), router.sockets());
        let mut slow = Client::join_narrow(place, framing);
        slow.subscribe("slow.topic");
        let mut healthy = [Client::join(&router.near, WebSocket), Client::join(&router.far, RawSocket)];
        let mut publishers = [Client::join(&router.near, RawSocket), Client::join(&router.far, WebSocket)];
        for client in &mut healthy {
            client.subscribe("slow.topic");
        }
        let filler = filler(4000);
        let mut count = 0;
        let mut publish = |times: usize| {
            for _ in 0..times {
                count += 1;
                publishers[count % 2].publish_acknowledged("slow.topic", &format!("{count},{filler}"));
                for client in &mut healthy {
                    assert_eq!(client.message()[4][0], count);
                }
            }
            count
        };
        // Until more than half of the outbox is full.
        while router.counters().get("paused_outbox") == before.get("paused_outbox") {
            assert!(publish(16) < 2000, "the outbox does not fill");
        }
        // Within the next second it takes one byte, which makes it nobody to wait for.
        assert_eq!(slow.read_some(1).unwrap(), 1);
        std::thread::sleep(Duration::from_millis(1500));
        let held = router.counters().get("paused_hold");
        publish(40);
        assert_eq!(slow.read_some(1).unwrap(), 1);
        let counters = router.counters();
        assert_eq!(counters.get("paused_hold"), held, "a publisher was held for a reader that stands still");
        assert_eq!(counters.closed_since(&before), reasons([]), "it is not full yet");
        // Until it is full.
        while router.counters().get("closed_slow_consumer") == before.get("closed_slow_consumer") {
            assert!(publish(16) < 2000, "the outbox has no bound");
        }
        let count = publish(16);
        assert_eq!(router.counters().get("paused_hold"), held);
        assert_eq!(router.counters().closed_since(&before), reasons([("slow_consumer", 1)]));
        router.expect_memory_near(memory);
        bystanders.check();
        // What it got before the end is whole and in order.
        let mut last = 0;
        while let Ok(read) = slow.read_some(64 << 10)
            && read > 0
        {
            while let Some(received) = slow.take_received() {
                if let Received::Message(event) = received
                    && event[0] == 36
                {
                    last += 1;
                    assert_eq!(event[4][0], last);
                }
            }
        }
        assert!(last > 0 && last < count);
        for client in healthy.into_iter().chain(publishers) {
            client.leave();
        }
        drop(slow);
        eventually("sockets come back", || router.sockets() == sockets);
    }
    bystanders.leave();
    router.stop();
}

#[test]
fn a_reader_that_is_closed_may_still_read_why() {
    let limits = format!("{SMALL_OUTBOX}slow_consumer_timeout_ms = 600000\nlinger_timeout_ms = 20000")
        .replacen("linger_timeout_ms = 500\n", "", 1);
    let router = Router::start(&limits);
    let before = router.counters();
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket), (&router.unix, WebSocket)] {
        let mut slow = Client::join_narrow(place, framing);
        slow.subscribe("slow.topic");
        let mut publisher = Client::join(&router.near, WebSocket);
        // Frames that do not fit into anything evenly, so that one of them is cut.
        let filler = filler(4999);
        let closed = router.counters().get("closed_slow_consumer");
        let mut count = 0;
        while router.counters().get("closed_slow_consumer") == closed {
            for _ in 0..50 {
                count += 1;
                publisher.publish("slow.topic", &format!("{count},{filler}"));
            }
            publisher.publish_acknowledged("another.topic", "1");
            assert!(count < 5000, "the outbox has no bound");
        }
        let farewell = slow.expect_abort("too slow", "crosspoint.error.slow_consumer", 1008);
        let events = &farewell.messages[..farewell.messages.len() - 1];
        assert!(!events.is_empty() && events.len() < count);
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event[4][0], index + 1);
        }
        publisher.leave();
    }
    router.expect_closed(&before, [("slow_consumer", 3), ("end_of_stream", 3)]);
    router.stop();
}

/// Below every bound of size there is still one of time.
#[test]
fn a_reader_that_takes_nothing_for_too_long_is_closed() {
    let limits = format!("{SMALL_OUTBOX}slow_consumer_timeout_ms = 500");
    let router = Router::start(&limits);
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let sockets = router.sockets();
    let mut publisher = Client::join(&router.near, WebSocket);
    let mut slow: Vec<_> = [(&router.near, WebSocket), (&router.far, RawSocket)]
        .into_iter()
        .map(|(place, framing)| {
            let mut client = Client::join_narrow(place, framing);
            client.subscribe("slow.topic");
            client
        })
        .collect();
    // Somebody who reads nothing, but has nothing to read either.
    let mut idle = Client::join_narrow(&router.near, WebSocket);
    idle.subscribe("quiet.topic");
    for _ in 0..10 {
        publisher.publish_acknowledged("slow.topic", &filler(60_000));
    }
    let counters = router.wait_for("closed_slow_consumer", 2);
    assert_eq!(counters.closed_since(&before), reasons([("slow_consumer", 2)]));
    assert_eq!(counters.get("events"), before.get("events") + 20, "both got all that there was");
    publisher.publish("quiet.topic", "1");
    assert_eq!(idle.message()[0], 36);
    bystanders.check();
    // They are let go of although they never close their side.
    eventually("sockets come back", || router.sockets() == sockets + 2);
    drop(slow.drain(..));
    idle.leave();
    publisher.leave();
    bystanders.leave();
    router.stop();
}

/// So many events of 1 KiB from a publisher on each core; `healthy` gets all of them in order.
fn flood(router: &Router, healthy: &mut Client, each: usize) {
    let heard = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (number, at) in [&router.near, &router.far].into_iter().enumerate() {
            let heard = &heard;
            scope.spawn(move || {
                let mut client = Client::join(at, WebSocket);
                let filler = filler(1000);
                for index in 0..each {
                    // Never so far ahead that the healthy one could be slow, however busy the machine is.
                    while 2 * index > heard.load(Ordering::Relaxed) + 200 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    client.publish("flood", &format!("{number},{index},{filler}"));
                }
                client.leave();
            });
        }
        let mut next = [0; 2];
        for _ in 0..2 * each {
            let event = healthy.message();
            let publisher = event[4][0].as_usize().unwrap();
            assert_eq!(event[4][1], next[publisher]);
            next[publisher] += 1;
            heard.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// 1 KiB events as fast as they come, to somebody who never reads.
#[test]
fn a_flood_to_a_stalled_reader_costs_no_more_than_its_bound() {
    let router = Router::start(&format!("{SMALL_OUTBOX}slow_consumer_timeout_ms = 600000"));
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let memory = router.memory_bytes();
    let mut stalled = Client::join_narrow(&router.near, WebSocket);
    stalled.subscribe("flood");
    let mut healthy = Client::join(&router.far, RawSocket);
    healthy.subscribe("flood");
    flood(&router, &mut healthy, 4000);
    let closed = router.wait_for("closed_slow_consumer", 1).closed_since(&before);
    assert_eq!(closed.get("slow_consumer"), Some(&1), "{closed:?}");
    // 8 MiB were said; 1 MiB is what may wait for one.
    router.expect_memory_near(memory);
    bystanders.check();
    healthy.leave();
    drop(stalled);
    bystanders.leave();
    router.stop();
}

/// All outboxes of a core together have a bound too: publishers wait there, until there is room again.
#[test]
fn publishers_wait_for_the_outboxes_of_a_core_and_go_on() {
    let limits = format!(
        "{SMALL_OUTBOX}slow_consumer_timeout_ms = 1000\noutbox_bytes_per_core_max = \"2 MiB\"\npublisher_hold_ms = 0"
    );
    let router = Router::start(&limits);
    let before = router.counters();
    let memory = router.memory_bytes();
    let mut stalled: Vec<_> = (0..8).map(|_| Client::join_narrow(&router.near, WebSocket)).collect();
    for client in &mut stalled {
        client.subscribe("flood");
    }
    let mut healthy = Client::join(&router.far, RawSocket);
    healthy.subscribe("flood");
    flood(&router, &mut healthy, 1500);
    let counters = router.counters();
    assert!(counters.get("paused_memory") > 0, "nobody ever waited: no test");
    let closed = counters.closed_since(&before);
    let stalled_closed =
        ["slow_consumer", "out_of_memory"].map(|reason| closed.get(reason).copied().unwrap_or(0));
    assert_eq!(stalled_closed.iter().sum::<u64>(), 8, "{closed:?}");
    router.expect_memory_near(memory);
    healthy.leave();
    drop(stalled);
    router.stop();
}

/// Who is not read for want of memory may vanish all the same.
#[test]
fn a_publisher_that_waits_and_is_reset_is_gone_at_once() {
    let limits = format!(
        "{SMALL_OUTBOX}slow_consumer_timeout_ms = 600000\noutbox_bytes_per_core_max = \"2 MiB\"\npublisher_hold_ms = 0"
    );
    let router = Router::start(&limits);
    let before = router.counters();
    // Three of them are above 2 MiB before any is above 1 MiB, and then stay so.
    let mut stalled: Vec<_> = (0..3).map(|_| Client::join_narrow(&router.near, WebSocket)).collect();
    for client in &mut stalled {
        client.subscribe("flood");
    }
    let filler = filler(1000);
    for (number, at) in [&router.near, &router.far].into_iter().enumerate() {
        let mut publisher = Client::join(at, WebSocket);
        let frames: Vec<u8> = (1..=20_000)
            .flat_map(|request| publisher.frame(&format!(r#"[16,{request},{{}},"flood",[{filler}]]"#)))
            .collect();
        let paused = before.get("paused_memory") + number as u64 + 1;
        let mut sent = 0;
        eventually("the publisher waits", || {
            sent += publisher.send_some(&frames[sent..]).expect("it waits, and is not closed");
            router.counters().get("paused_memory") >= paused
        });
        publisher.reset();
        router.expect_closed(&before, [("reset", number as u64 + 1)]);
    }
    drop(stalled);
    router.stop();
}

#[test]
fn a_reader_whose_role_drops_events_stays_and_learns_how_many() {
    let realms = open_realm("realm1", "", "slow = \"drop\"");
    let limits = format!("{SMALL_OUTBOX}slow_consumer_timeout_ms = 600000\npublisher_hold_ms = 10");
    let router = Router::start_with(Settings { realms: &realms, limits: &limits, ..Settings::default() });
    let before = router.counters();
    for (place, framing) in [(&router.near, WebSocket), (&router.far, RawSocket)] {
        lossy_rounds(&router, place, framing);
    }
    router.expect_closed(&before, [("end_of_stream", 4)]);
    router.stop();
}

/// Three times more than the reader's outbox holds, each time followed by one that gets through.
fn lossy_rounds(router: &Router, place: &Address, framing: Framing) {
    let mut slow = Client::join_narrow(place, framing);
    slow.subscribe("lossy");
    let mut publisher = Client::join(&router.near, RawSocket);
    let filler = filler(8000);
    let before = router.counters();
    let (mut published, mut received, mut lost) = (0, 0, 0);
    for _ in 0..3 {
        for _ in 0..250 {
            published += 1;
            publisher.publish_acknowledged("lossy", &format!("{published},{filler}"));
        }
        let mut dropped = 0;
        eventually("every event is queued or dropped", || {
            let counters = router.counters();
            dropped = counters.get("events_dropped") - before.get("events_dropped");
            counters.get("events") - before.get("events") + dropped == published
        });
        assert!(dropped > lost, "nothing was dropped: no test");
        let mut read = |client: &mut Client| {
            let event = client.message();
            lost += event[3].get("_lost").map_or(0, |told| told.as_u64().unwrap());
            received += 1;
            assert_eq!(event[4][0], received + lost, "what is missing is what was told: {}", event[3]);
            received
        };
        while read(&mut slow) < published - dropped {}
        published += 1;
        publisher.publish_acknowledged("lossy", &format!("{published},{filler}"));
        read(&mut slow);
        assert_eq!(lost, dropped, "every event that was dropped was told of");
        assert_eq!(received + lost, published);
    }
    slow.leave();
    publisher.leave();
}
