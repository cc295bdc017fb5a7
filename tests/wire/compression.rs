//! permessage-deflate: who gets which bytes, what it costs, and bombs (reliability row 9).

use simd_json::prelude::*;

use super::bystanders::Bystanders;
use super::client::{Client, RawSocket, WebSocket, deflated, websocket_frame};
use super::router::{Router, Settings};
use crate::harness::sockets_for;

const COMPRESSED_TEXT: u8 = 0xc1;

fn start(limits: &str) -> Router {
    Router::start_with(Settings { limits, listener: "compression = true", ..Settings::default() })
}

/// A text of so many letters that becomes somewhat shorter.
fn text(length: usize) -> String {
    let letter = |n: u32| char::from(b'a' + (n.wrapping_mul(n ^ 0x9e37) >> 5) as u8 % 16);
    (0..length as u32).map(letter).collect()
}

fn subscribers(count: usize, topic: &str, join: impl Fn() -> Client) -> Vec<Client> {
    let subscriber = || {
        let mut client = join();
        client.subscribe(topic);
        client
    };
    std::iter::repeat_with(subscriber).take(count).collect()
}

#[test]
fn an_event_is_compressed_once_for_each_window() {
    let count = sockets_for(1000);
    let router = start("ping_interval_ms = 0");
    let mut publisher = Client::join(&router.near, WebSocket);
    let before = router.counters();
    let large = subscribers(count * 8 / 10, "news", || Client::join_compressed(&router.near, 15));
    let small = subscribers(count / 10, "news", || Client::join_compressed(&router.near, 9));
    let plain = subscribers(count / 20, "news", || Client::join(&router.near, WebSocket));
    let raw = subscribers(count / 20, "news", || Client::join(&router.near, RawSocket));
    let text = "a line that comes again and again; ".repeat(40);
    publisher.publish("news", &format!("\"{text}\""));
    publisher.publish("news", "\"too short to be compressed\"");
    let noise = self::text(300);
    for (mut clients, compressed) in [(large, true), (small, true), (plain, false), (raw, false)] {
        for client in &mut clients {
            let event = client.message();
            assert_eq!((&event[0], event[4][0].as_str()), (&36.into(), Some(&*text)));
            assert_eq!(client.compressed_frames, usize::from(compressed));
            assert_eq!(client.message()[4][0].as_str(), Some("too short to be compressed"));
            assert_eq!(client.compressed_frames, usize::from(compressed));
        }
        if !compressed {
            continue;
        }
        // A single receiver, of an event and of a result.
        let mut one = clients.swap_remove(0);
        one.subscribe("sole");
        publisher.publish("sole", &format!("\"{text}\""));
        assert_eq!(one.message()[4][0].as_str(), Some(&*text));
        assert_eq!(one.compressed_frames, 2);
        one.register("echo");
        publisher.call("echo", &format!("\"{noise}{text}\""));
        one.echo_invocation();
        assert_eq!(one.compressed_frames, 3);
        assert_eq!(publisher.message()[3][0].as_str(), Some(&*format!("{noise}{text}")));
        one.leave();
    }
    let after = router.counters();
    // One event in two windows, two of one receiver each, two invocations.
    assert_eq!(after.get("frames_compressed") - before.get("frames_compressed"), 6);
    assert_eq!(after.get("frames_incompressible"), before.get("frames_incompressible"));
    publisher.leave();
    router.stop();
}

#[test]
fn compressed_messages_come_and_go_between_cores() {
    let router = start("compression_bytes_min = 0");
    let mut subscriber = Client::join_compressed(&router.far, 10);
    subscriber.subscribe("there");
    let mut publisher = Client::join_compressed(&router.near, 15);
    for length in [1, 100, 5000, 300_000] {
        let text = text(length);
        let message = |request: u64| format!(r#"[16,{request},{{}},"there",["{text}"]]"#);
        let request = publisher.request();
        let payload = deflated(message(request).as_bytes());
        publisher.send_raw(&websocket_frame(COMPRESSED_TEXT, &payload));
        assert_eq!(subscriber.message()[4][0].as_str(), Some(&*text));
        // In fragments, with a ping between them.
        let request = publisher.request();
        let payload = deflated(message(request).as_bytes());
        let (begin, end) = payload.split_at(payload.len() / 2);
        publisher.send_raw(&websocket_frame(0x41, begin));
        publisher.send_raw(&websocket_frame(0x89, b"between"));
        publisher.send_raw(&websocket_frame(0x80, end));
        assert_eq!(subscriber.message()[4][0].as_str(), Some(&*text));
    }
    assert!(subscriber.compressed_frames >= 6, "{}", subscriber.compressed_frames);
    // Plain ones are taken as well.
    publisher.publish("there", "1");
    assert_eq!(subscriber.message()[4][0], 1);
    drop((publisher, subscriber));
    router.stop();
}

#[test]
fn bombs_end_their_own_connection_and_nothing_else() {
    let router = start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    // The scratch of both cores is there.
    for at in [&router.near, &router.far] {
        let mut client = Client::join_compressed(at, 15);
        let payload = deflated(format!(r#"[16,1,{{}},"a",["{}"]]"#, text(100_000)).as_bytes());
        client.send_raw(&websocket_frame(COMPRESSED_TEXT, &payload));
        client.leave();
    }
    let memory = router.memory_bytes();
    let bomb = deflated(&vec![0; 10 << 20]);
    assert!(bomb.len() < 20_000);
    let twice = deflated(&vec![b' '; 2 << 20]);
    let mut closed = 0;
    for at in [&router.near, &router.far] {
        for payload in [&bomb, &twice] {
            for _ in 0..20 {
                let mut client = Client::join_compressed(at, 15);
                client.send_raw(&websocket_frame(COMPRESSED_TEXT, payload));
                let farewell = client.farewell();
                assert_eq!((farewell.code, farewell.reset), (Some(1009), false), "{farewell:?}");
                // In fragments of few bytes, and before the session is open.
                let mut client = Client::join_compressed(at, 15);
                let (begin, end) = payload.split_at(9);
                client.send_raw(&websocket_frame(0x41, begin));
                client.send_raw(&websocket_frame(0x80, end));
                assert_eq!(client.farewell().code, Some(1009));
                closed += 2;
            }
        }
        bystanders.check();
    }
    let mut client = Client::join_compressed(&router.near, 15);
    client.send_raw(&websocket_frame(COMPRESSED_TEXT, b"this is no DEFLATE"));
    assert_eq!(client.farewell().code, Some(1002));
    let mut client = Client::join(&router.near, WebSocket);
    client.send_raw(&websocket_frame(COMPRESSED_TEXT, &deflated(b"[]")));
    assert_eq!(client.farewell().code, Some(1002), "it did not ask for compression");
    bystanders.check();
    router
        .expect_closed(&before, [("message_too_large", closed), ("link_violation", 2), ("end_of_stream", 2)]);
    assert!(router.memory_bytes() < memory + (16 << 20), "{memory} became {}", router.memory_bytes());
    bystanders.leave();
    router.stop();
}

#[test]
fn sessions_that_take_compressed_messages_hold_no_window() {
    let count = sockets_for(1000);
    // Who waits for its turn here does not answer pings.
    let router = start("ping_interval_ms = 0");
    let mut publisher = Client::join(&router.near, WebSocket);
    // What the first ones cost: compressors, buffers, tables.
    let mut first = subscribers(20, "news", || Client::join_compressed(&router.near, 15));
    let text = "a line that comes again and again; ".repeat(300);
    let mut round = |clients: &mut [Client]| {
        publisher.publish("news", &format!("\"{text}\""));
        for client in clients {
            assert_eq!(client.message()[4][0].as_str(), Some(&*text));
            let request = client.request();
            let message = format!(r#"[16,{request},{{}},"to.nobody",["{text}"]]"#);
            client.send_raw(&websocket_frame(COMPRESSED_TEXT, &deflated(message.as_bytes())));
        }
    };
    round(&mut first);
    let before = router.memory_bytes();
    let mut all = subscribers(count, "news", || Client::join_compressed(&router.near, 15));
    all.append(&mut first);
    round(&mut all);
    for client in &mut all {
        client.publish_acknowledged("to.nobody", "1");
    }
    let grown = router.memory_bytes().saturating_sub(before) as usize;
    // A window is 32 KiB.
    assert!(grown < count * 4096 + (4 << 20), "{grown} bytes for {count} sessions");
    drop((all, publisher));
    router.stop();
}
