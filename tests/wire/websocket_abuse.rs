//! Frames against the rules of WebSocket and RawSocket (reliability rows 5 to 8).

use simd_json::prelude::*;

use super::bystanders::Bystanders;
use super::client::{Client, RawSocket, WebSocket, rawsocket_frame, websocket_frame};
use super::router::{Router, reasons};

const TEXT: u8 = 0x81;
const TEXT_BEGIN: u8 = 0x01;
const CONTINUE: u8 = 0x00;
const CONTINUE_END: u8 = 0x80;

/// Only the head of a frame whose payload never comes.
fn head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first, 0x80 | 127];
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    head
}

fn two(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
    [first, second].concat()
}

#[test]
fn frames_against_the_rules_close_with_the_right_code() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let memory = router.memory_bytes();
    let hello = br#"[1,"realm1",{"roles":{"caller":{}}}]"#;
    let table: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", two(vec![TEXT, hello.len() as u8], hello.to_vec()), 1002),
        ("RSV1", websocket_frame(TEXT | 0x40, b"[]"), 1002),
        ("RSV2", websocket_frame(TEXT | 0x20, b"[]"), 1002),
        ("RSV3", websocket_frame(TEXT | 0x10, b"[]"), 1002),
        ("reserved data opcode", websocket_frame(0x83, b"[]"), 1002),
        ("reserved control opcode", websocket_frame(0x8b, b"[]"), 1002),
        ("a ping of 126 bytes", websocket_frame(0x89, &[b'a'; 126]), 1002),
        ("a close of 126 bytes", websocket_frame(0x88, &[b'a'; 126]), 1002),
        ("a fragmented ping", websocket_frame(0x09, b"a"), 1002),
        ("a close code of one byte", websocket_frame(0x88, &[3]), 1002),
        ("close code 999", websocket_frame(0x88, &999_u16.to_be_bytes()), 1002),
        ("close code 1004", websocket_frame(0x88, &1004_u16.to_be_bytes()), 1002),
        ("close code 1005", websocket_frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close code 1006", websocket_frame(0x88, &1006_u16.to_be_bytes()), 1002),
        ("close code 2999", websocket_frame(0x88, &2999_u16.to_be_bytes()), 1002),
        ("close code 5000", websocket_frame(0x88, &5000_u16.to_be_bytes()), 1002),
        ("a close text that is no text", websocket_frame(0x88, b"\x03\xe8\xff"), 1007),
        ("a continuation of nothing", websocket_frame(CONTINUE_END, b"[]"), 1002),
        (
            "a message within another",
            two(websocket_frame(TEXT_BEGIN, b"["), websocket_frame(TEXT, b"[]")),
            1002,
        ),
        ("a length in too many bytes", two(vec![TEXT, 0x80 | 126, 0, 5], vec![0; 9]), 1002),
        ("a length of 2^63", head(TEXT, 1 << 63), 1002),
        ("a length of 2^63 - 1", head(TEXT, (1 << 63) - 1), 1009),
        ("a length of 2^32", head(TEXT, 1 << 32), 1009),
        ("a byte more than allowed", head(TEXT, (1 << 20) + 1), 1009),
        (
            "a byte more in two fragments",
            two(websocket_frame(TEXT_BEGIN, b"[ "), head(CONTINUE_END, (1 << 20) - 1)),
            1009,
        ),
        ("binary where text belongs", websocket_frame(0x82, b"[]"), 1003),
        ("no UTF-8", websocket_frame(TEXT, b"[16,1,{},\"a\",[\"\xff\"]]"), 1007),
        ("a surrogate", websocket_frame(TEXT, b"[16,1,{},\"a\",[\"\xed\xa0\x80\"]]"), 1007),
        ("an end within a character", websocket_frame(TEXT, b"[16,1,{},\"a\",[\"\xe2\x82"), 1007),
        (
            "text that cannot become UTF-8, in a message without end",
            websocket_frame(TEXT_BEGIN, b"\xc0"),
            1007,
        ),
        (
            "a character cut in two that does not go on",
            two(websocket_frame(TEXT_BEGIN, b"\xe2\x82"), websocket_frame(CONTINUE, b"a")),
            1007,
        ),
    ];
    let mut closed =
        [("link_violation", 0), ("unsupported_data", 0), ("invalid_utf8", 0), ("message_too_large", 0)];
    for (what, bytes, code) in &table {
        for at in [&router.near, &router.far] {
            let mut client = Client::join(at, WebSocket);
            client.send_raw(bytes);
            // More of the same does not change the answer, nor keeps it from arriving.
            client.try_send_raw(&websocket_frame(TEXT, b"[16,1,{},\"a\"]"));
            let farewell = client.farewell();
            assert_eq!((farewell.code, farewell.reset), (Some(*code), false), "{what}: {farewell:?}");
            assert!(
                farewell.messages.is_empty(),
                "{what}: a violation of the link is no ABORT: {farewell:?}"
            );
            let reason = match code {
                1003 => 1,
                1007 => 2,
                1009 => 3,
                _ => 0,
            };
            closed[reason].1 += 1;
        }
    }
    bystanders.check();
    router.expect_closed(&before, closed);
    // Nothing was made ready for what lengths promised.
    assert!(router.memory_bytes() < memory + (16 << 20), "{memory} became {}", router.memory_bytes());
    bystanders.leave();
    router.stop();
}

#[test]
fn rawsocket_frames_against_the_rules_close() {
    let router = Router::start("");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let table: [(&str, Vec<u8>, &str); 7] = [
        ("type 3", rawsocket_frame(3, b"[]"), "link_violation"),
        ("a reserved bit", rawsocket_frame(0x10, b"[]"), "link_violation"),
        ("the bit of 2^24 and a length", vec![8, 0, 0, 1, b'a'], "link_violation"),
        ("2^24 bytes", vec![8, 0, 0, 0], "message_too_large"),
        ("a byte more than allowed", vec![0, 0x10, 0, 1], "message_too_large"),
        ("a long ping", vec![1, 0x10, 0, 1], "message_too_large"),
        ("a long pong", vec![2, 0x10, 0, 1], "message_too_large"),
    ];
    for (what, bytes, _) in &table {
        for at in [&router.near, &router.far, &router.unix] {
            let mut client = Client::join(at, RawSocket);
            client.send_raw(bytes);
            let farewell = client.farewell();
            assert!(farewell.messages.is_empty() && !farewell.reset, "{what}: {farewell:?}");
        }
    }
    bystanders.check();
    let count = |reason| table.iter().filter(|(.., other)| *other == reason).count() as u64 * 3;
    let expected = ["link_violation", "message_too_large"].map(|reason| (reason, count(reason)));
    router.expect_closed(&before, expected);
    bystanders.leave();
    router.stop();
}

#[test]
fn fragments_are_counted_and_the_last_that_is_allowed_gets_through() {
    let router = Router::start("frames_per_message_max = 64");
    let mut bystanders = Bystanders::join(&router);
    let before = router.counters();
    let memory = router.memory_bytes();
    let mut subscriber = Client::join(&router.far, WebSocket);
    subscriber.subscribe("fragments");
    let message = br#"[16,1,{},"fragments",["  64  pieces  "]]"#;
    let mut client = Client::join(&router.near, WebSocket);
    let mut fragmented = websocket_frame(TEXT_BEGIN, &message[..1]);
    for byte in &message[1..] {
        fragmented.extend(websocket_frame(CONTINUE, &[*byte]));
    }
    for _ in message.len()..63 {
        fragmented.extend(websocket_frame(CONTINUE, b""));
    }
    // Control frames between fragments are allowed, and do not count.
    fragmented.extend(websocket_frame(0x89, b"between"));
    fragmented.extend(websocket_frame(CONTINUE_END, b""));
    client.send_raw(&fragmented);
    assert_eq!(subscriber.message()[4][0], "  64  pieces  ");

    // One more, of empty fragments and of single bytes of a message of any length.
    for piece in [&b""[..], b" "] {
        let mut endless = Client::join(&router.near, WebSocket);
        endless.send_raw(&websocket_frame(TEXT_BEGIN, b"["));
        let frame = websocket_frame(CONTINUE, piece);
        let mut sent = 0;
        while sent < 1_000_000 && endless.try_send_raw(&frame.repeat(1000)) {
            sent += 1000;
            if sent == 5000 {
                bystanders.check();
            }
        }
        assert!(sent < 1_000_000, "a message of a million fragments was taken");
    }
    let mut endless = Client::join(&router.far, WebSocket);
    let begin = websocket_frame(TEXT_BEGIN, b"[");
    endless.send_raw(&two(begin, websocket_frame(CONTINUE, b" ").repeat(64)));
    assert_eq!(endless.farewell().code, Some(1009));
    bystanders.check();
    let closed = router.counters().closed_since(&before);
    assert_eq!(closed, reasons([("message_too_large", 3)]));
    assert!(router.memory_bytes() < memory + (16 << 20));
    drop((client, subscriber, endless));
    bystanders.leave();
    router.stop();
}

#[test]
fn the_longest_message_gets_through_and_a_byte_more_does_not() {
    let bytes_max = 128 << 10;
    let router = Router::start("message_bytes_max = \"128 KiB\"");
    let before = router.counters();
    let mut subscriber = Client::join(&router.far, WebSocket);
    subscriber.subscribe("long");
    let message = |length: usize| {
        let frame = r#"[16,1,{},"long",[""]]"#;
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length.saturating_sub(frame.len()))))
    };
    for framing in [WebSocket, RawSocket] {
        let mut client = Client::join(&router.near, framing);
        client.send(&message(bytes_max));
        let event = subscriber.message();
        assert_eq!(event[4][0].as_str().unwrap().len(), bytes_max - message(0).len());
        let mut client = Client::join(&router.near, framing);
        client.try_send_raw(&client.frame(&message(bytes_max + 1)));
        let farewell = client.farewell();
        assert!(farewell.messages.is_empty(), "{farewell:?}");
        assert_eq!(farewell.code.is_some(), framing == WebSocket);
        assert!(farewell.code.is_none_or(|code| code == 1009), "{farewell:?}");
    }
    router.expect_closed(&before, [("message_too_large", 2), ("end_of_stream", 2)]);
    drop(subscriber);
    router.stop();
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    let router = Router::start("");
    let before = router.counters();
    for (payload, code) in
        [(&b""[..], 1005), (b"\x03\xe8bye", 1000), (b"\x0b\xb8", 3000), (b"\x03\xe9", 1001)]
    {
        let mut client = Client::join(&router.near, WebSocket);
        client.send_raw(&two(websocket_frame(0x88, payload), websocket_frame(TEXT, b"rubbish behind it")));
        let farewell = client.farewell();
        assert_eq!((farewell.code, farewell.reset), (Some(code), false), "{farewell:?}");
    }
    router.expect_closed(&before, [("goodbye", 4)]);
    router.stop();
}

#[test]
fn pings_are_answered_with_what_they_hold() {
    let router = Router::start("");
    let mut client = Client::connect(&router.near, WebSocket);
    client.send_raw(&two(websocket_frame(0x89, b""), websocket_frame(0x89, &[b'p'; 125])));
    assert_eq!(client.read_exactly(2), [0x8a, 0]);
    assert_eq!(client.read_exactly(127)[2..], [b'p'; 125]);
    let mut raw = Client::connect(&router.far, RawSocket);
    raw.send_raw(&rawsocket_frame(1, b"are you there"));
    assert_eq!(raw.read_exactly(17), rawsocket_frame(2, b"are you there"));
    drop((client, raw));
    router.stop();
}

#[test]
fn a_rawsocket_ping_as_long_as_was_announced_is_answered() {
    // No outbox is longer than the longest message here.
    let router = Router::start("outbox_hard_bytes = \"1 MiB\"\noutbox_soft_bytes = \"64 KiB\"");
    let mut client = Client::join(&router.near, RawSocket);
    let payload = vec![b'p'; 1 << 20];
    for _ in 0..3 {
        client.send_raw(&rawsocket_frame(1, &payload));
        assert!(client.read_exactly(4 + payload.len()) == rawsocket_frame(2, &payload));
    }
    client.send_raw(&rawsocket_frame(2, &payload));
    client.leave();
    // Before WELCOME nothing is longer than a HELLO may be.
    let mut client = Client::connect(&router.near, RawSocket);
    client.send_raw(&rawsocket_frame(1, &payload[..16 * 1024]));
    assert_eq!(client.read_exactly(4 + 16 * 1024).len(), 4 + 16 * 1024);
    client.send_raw(&[1, 0, 0x40, 1]);
    assert!(client.read_to_end().0.is_empty());
    drop(client);
    router.stop();
}
