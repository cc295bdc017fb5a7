//! RFC 6455 after the handshake.

use super::*;

fn fed(subprotocol: &str, frames: &[Vec<u8>]) -> Vec<Seen> {
    let config = config();
    feed_every_way(|| open_websocket(&config, subprotocol), &config, &frames.concat())
}

fn json(frames: &[Vec<u8>]) -> Vec<Seen> {
    fed("wamp.2.json", frames)
}

/// Asserts that the frames end the link for this reason, with its code on the wire.
fn assert_closed(frames: &[Vec<u8>], reason: CloseReason) {
    assert_closed_of("wamp.2.json", frames, reason);
}

fn assert_closed_of(subprotocol: &str, frames: &[Vec<u8>], reason: CloseReason) {
    let seen = fed(subprotocol, frames);
    let Some(Seen::Close(reply, seen_reason)) = seen.last() else { panic!("not closed: {seen:?}") };
    assert_eq!(*seen_reason, reason);
    let (code, text) = close_frame(reply);
    assert_eq!(code, reason.info().websocket_code);
    assert!(!text.is_empty());
}

#[test]
fn whole_messages_borrow_the_input() {
    let config = config();
    let mut inflater = Inflater::new();
    let mut link = open_websocket(&config, "wamp.2.json");
    let mut bytes = client_frame(FIN | TEXT, b"[1]");
    bytes.extend(client_frame(FIN | TEXT, b"[2]"));
    let len = bytes.len();
    let (consumed, step) = link.next(&config, 1024, &mut inflater, &mut bytes);
    assert_eq!((consumed, step), (len / 2, Step::Message(MessageBytes::Text("[1]"))));
    let (consumed, step) = link.next(&config, 1024, &mut inflater, &mut bytes[len / 2..]);
    assert_eq!((consumed, step), (len / 2, Step::Message(MessageBytes::Text("[2]"))));
    assert_eq!(link.next(&config, 1024, &mut inflater, &mut []), (0, Step::Idle));

    let mut link = open_websocket(&config, "wamp.2.cbor");
    let mut bytes = client_frame(FIN | BINARY, b"\x81\x01");
    let (_, step) = link.next(&config, 1024, &mut inflater, &mut bytes);
    assert_eq!(step, Step::Message(MessageBytes::Binary(b"\x81\x01")));
}

#[test]
fn lengths_of_all_three_forms() {
    for len in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
        let text = "x".repeat(len);
        assert_eq!(json(&[client_frame(FIN | TEXT, text.as_bytes())]), [Seen::Text(text)]);
    }
}

#[test]
fn fragments_with_control_frames_between_them() {
    let seen = json(&[
        client_frame(TEXT, b"[1,"),
        client_frame(FIN | PING, b"ping"),
        client_frame(CONTINUATION, b""),
        client_frame(FIN | PONG, b"nobody asked"),
        client_frame(FIN | CONTINUATION, b"2]"),
        client_frame(FIN | TEXT, b"[3]"),
    ]);
    assert_eq!(
        seen,
        [Seen::Reply(b"\x8a\x04ping".to_vec()), Seen::Pong, Seen::text("[1,2]"), Seen::text("[3]")]
    );
}

#[test]
fn close_is_answered_with_its_code() {
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    {
        let mut payload = u16::to_be_bytes(code).to_vec();
        payload.extend("tsch\u{fc}ss".as_bytes());
        let expected = [b"\x88\x02".to_vec(), u16::to_be_bytes(code).to_vec()].concat();
        let seen = json(&[client_frame(FIN | CLOSE, &payload), client_frame(FIN | TEXT, b"late")]);
        assert_eq!(seen, [Seen::Close(expected, CloseReason::Goodbye)], "code {code}");
    }
    let seen = json(&[client_frame(TEXT, b"begun"), client_frame(FIN | CLOSE, b"")]);
    assert_eq!(seen, [Seen::Close(b"\x88\x00".to_vec(), CloseReason::Goodbye)]);
}

#[test]
fn bad_closes() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        let payload = u16::to_be_bytes(code);
        assert_closed(&[client_frame(FIN | CLOSE, &payload)], CloseReason::LinkViolation);
    }
    assert_closed(&[client_frame(FIN | CLOSE, b"\x03")], CloseReason::LinkViolation);
    assert_closed(&[client_frame(FIN | CLOSE, b"\x03\xe8\xff")], CloseReason::InvalidUtf8);
}

#[test]
fn frames_against_the_rules() {
    let violations: &[&[Vec<u8>]] = &[
        &[b"\x81\x03[1]".to_vec()],                 // not masked
        &[client_frame(FIN | 0x40 | TEXT, b"[1]")], // RSV1
        &[client_frame(FIN | 0x20 | TEXT, b"[1]")], // RSV2
        &[client_frame(FIN | 0x10 | PING, b"")],    // RSV3
        &[client_frame(PING, b"")],                 // a fragmented control frame
        &[client_frame(CLOSE, b"")],
        &[client_frame(FIN | PING, &[0; 126])], // a long control frame
        &[client_frame(FIN | CLOSE, &[0; 126])],
        &[client_frame(FIN | CONTINUATION, b"x")], // nothing to continue
        &[client_frame(TEXT, b"["), client_frame(FIN | TEXT, b"]")], // a message within a message
        &[client_frame(TEXT, b"["), client_frame(FIN | BINARY, b"]")],
        &[client_frame(FIN | TEXT, b"[1]"), client_frame(CONTINUATION, b"")],
        &[b"\x81\xfe\x00\x7d\0\0\0\0".to_vec()], // 125 in two bytes
        &[b"\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0".to_vec()], // 65535 in eight bytes
        &[b"\x81\xff\x80\0\0\0\0\0\0\x01\0\0\0\0".to_vec()], // 2^63 and more
        &[b"\x89\xfe\x00\x05\0\0\0\0".to_vec()],
    ];
    for frames in violations {
        assert_closed(frames, CloseReason::LinkViolation);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_closed(&[client_frame(FIN | opcode, b"")], CloseReason::LinkViolation);
        assert_closed(&[client_frame(FIN | opcode, b"abc")], CloseReason::LinkViolation);
    }
}

#[test]
fn the_subprotocol_decides_between_text_and_binary() {
    assert_closed(&[client_frame(FIN | BINARY, b"[1]")], CloseReason::UnsupportedData);
    assert_closed(&[client_frame(BINARY, b"[1]")], CloseReason::UnsupportedData);
    for subprotocol in ["wamp.2.msgpack", "wamp.2.cbor", "wamp.2.cbor.batched"] {
        assert_closed_of(subprotocol, &[client_frame(FIN | TEXT, b"[1]")], CloseReason::UnsupportedData);
    }
    assert_eq!(
        fed("wamp.2.msgpack", &[client_frame(BINARY, b"\xff"), client_frame(FIN | CONTINUATION, b"\xfe")]),
        [Seen::binary(b"\xff\xfe")]
    );
}

#[test]
fn text_must_be_utf8() {
    for bad in [&b"\xff"[..], b"ab\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
        assert_closed(&[client_frame(FIN | TEXT, bad)], CloseReason::InvalidUtf8);
        assert_closed(
            &[client_frame(TEXT, b"ok "), client_frame(FIN | CONTINUATION, bad)],
            CloseReason::InvalidUtf8,
        );
    }
    // A character may be cut by a fragment, and by a control frame too.
    let seen = json(&[
        client_frame(TEXT, b"\xe2"),
        client_frame(FIN | PING, b"\xff"),
        client_frame(CONTINUATION, b"\x82"),
        client_frame(FIN | CONTINUATION, b"\xac"),
    ]);
    assert_eq!(seen, [Seen::Reply(b"\x8a\x01\xff".to_vec()), Seen::text("\u{20ac}")]);
}

#[test]
fn bad_text_ends_the_link_before_its_frame_does() {
    let config = config();
    let mut link = open_websocket(&config, "wamp.2.json");
    let mut bytes = client_frame(FIN | TEXT, b"[\"\xf5 and much more that never arrives");
    bytes.truncate(6 + 3);
    let seen = feed(&mut link, &config, &bytes);
    assert_eq!(seen[0].reason(), Some(CloseReason::InvalidUtf8));
}

#[test]
fn a_length_above_the_limit_is_refused_by_its_header() {
    let mut config = config();
    config.limits.message_bytes_max = 1000;
    for header in [
        &b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"[..], // 2^63 - 1
        b"\x81\xff\0\0\0\0\0\x10\0\x01\0\0\0\0",
        b"\x81\xfe\x03\xe9\0\0\0\0",
    ] {
        let seen = feed_every_way(|| open_websocket(&config, "wamp.2.json"), &config, header);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].reason(), Some(CloseReason::MessageTooLarge));
    }
    // All fragments count together, and exactly the limit passes.
    let halves = [client_frame(TEXT, &[b'a'; 500]), client_frame(FIN | CONTINUATION, &[b'b'; 500])];
    let seen = feed_every_way(|| open_websocket(&config, "wamp.2.json"), &config, &halves.concat());
    assert!(matches!(&seen[..], [Seen::Text(text)] if text.len() == 1000));
    let more = [client_frame(TEXT, &[b'a'; 500]), client_frame(FIN | CONTINUATION, &[b'b'; 501])];
    let seen = feed_every_way(|| open_websocket(&config, "wamp.2.json"), &config, &more.concat());
    assert_eq!(seen[0].reason(), Some(CloseReason::MessageTooLarge));
}

#[test]
fn the_limit_of_the_moment_counts() {
    let config = config();
    let mut link = open_websocket(&config, "wamp.2.json");
    let message = client_frame(FIN | TEXT, &[b' '; 200]);
    assert_eq!(feed_cut(&mut link, &config, 200, &message, []).len(), 1);
    let seen = feed_cut(&mut link, &config, 199, &message, []);
    assert_eq!(seen[0].reason(), Some(CloseReason::MessageTooLarge));
}

#[test]
fn promised_bytes_are_not_allocated() {
    let config = config();
    let mut link = open_websocket(&config, "wamp.2.json");
    let mut bytes = client_frame(FIN | TEXT, &[b' '; 1 << 20]);
    bytes.truncate(14 + 100);
    assert_eq!(feed(&mut link, &config, &bytes), []);
    assert!(link.partial_bytes() < 1000, "{}", link.partial_bytes());
}

#[test]
fn fragments_have_a_number() {
    let mut config = config();
    config.limits.frames_per_message_max = 5;
    let message = |frames: usize| {
        let mut bytes = client_frame(TEXT, b"");
        for _ in 2..frames {
            bytes.extend(client_frame(CONTINUATION, b""));
            bytes.extend(client_frame(FIN | PONG, b""));
        }
        bytes.extend(client_frame(FIN | CONTINUATION, b""));
        bytes
    };
    let seen = feed_every_way(|| open_websocket(&config, "wamp.2.json"), &config, &message(5));
    assert_eq!(seen.last(), Some(&Seen::text("")));
    let seen = feed_every_way(|| open_websocket(&config, "wamp.2.json"), &config, &message(6));
    assert_eq!(seen.last().and_then(Seen::reason), Some(CloseReason::MessageTooLarge));

    // A conformance suite may send as many as it likes.
    config.listener.mode = ListenerMode::Echo;
    let seen = feed_every_way(|| open_websocket(&config, "any"), &config, &message(2000));
    assert_eq!(seen.last(), Some(&Seen::text("")));
}

#[test]
fn a_million_empty_fragments_cost_no_memory() {
    let mut config = config();
    config.listener.mode = ListenerMode::Echo;
    let mut link = open_websocket(&config, "any");
    feed(&mut link, &config, &client_frame(BINARY, b""));
    let fragments = client_frame(CONTINUATION, b"").repeat(1000);
    for _ in 0..1000 {
        assert_eq!(feed(&mut link, &config, &fragments), []);
    }
    assert!(link.partial_bytes() < 1000);
    assert_eq!(feed(&mut link, &config, &client_frame(FIN | CONTINUATION, b"")), [Seen::binary(b"")]);
    assert_eq!(link.partial_bytes(), 0);
}

#[test]
fn an_idle_link_holds_no_heap() {
    let config = config();
    let mut link = open_websocket(&config, "wamp.2.json");
    for frames in [
        [client_frame(TEXT, b"[1"), client_frame(FIN | CONTINUATION, b"]")].concat(),
        client_frame(FIN | PING, b"hello"),
        client_frame(FIN | TEXT, b"[2]"),
    ] {
        feed_cut(&mut link, &config, 1024, &frames, std::iter::repeat(1));
        assert_eq!(link.partial_bytes(), 0);
    }
}

#[test]
fn batches_of_json() {
    let batch = [client_frame(FIN | TEXT, b"[1]\x1e[2]\x1e\x1e"), client_frame(FIN | TEXT, b"[3]\x1e")];
    let expected = [Seen::text("[1]"), Seen::text("[2]"), Seen::text(""), Seen::text("[3]")];
    assert_eq!(fed("wamp.2.json.batched", &batch), expected);
    let fragments =
        [client_frame(TEXT, b"[1]\x1e["), client_frame(FIN | CONTINUATION, b"2]\x1e\x1e"), batch[1].clone()];
    assert_eq!(fed("wamp.2.json.batched", &fragments), expected);

    let cut = fed("wamp.2.json.batched", &[client_frame(FIN | TEXT, b"[1]\x1e[2]")]);
    assert_eq!(cut[0], Seen::text("[1]"));
    let violation = |text: &str| Seen::Violation(format!("a batch: {text}"));
    assert_eq!(cut[1..], [violation("the last JSON message is not followed by 0x1e")]);
    let empty = fed("wamp.2.json.batched", &[client_frame(FIN | TEXT, b"")]);
    assert_eq!(empty, [Seen::Violation("an empty batch".to_owned())]);
    // Whatever follows it is not looked at.
    let fragments =
        [client_frame(TEXT, b"[1]\x1e["), client_frame(FIN | CONTINUATION, b"2]"), batch[1].clone()];
    assert_eq!(fed("wamp.2.json.batched", &fragments), cut);
    // Nothing of a batch with bad text is given out.
    let bad = fed("wamp.2.json.batched", &[client_frame(FIN | TEXT, b"[1]\x1e\"\xff\"\x1e")]);
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].reason(), Some(CloseReason::InvalidUtf8));
}

#[test]
fn batches_of_the_others() {
    for subprotocol in ["wamp.2.msgpack.batched", "wamp.2.cbor.batched"] {
        let seen = fed(subprotocol, &[client_frame(FIN | BINARY, b"\0\0\0\x01a\0\0\0\x02bc\0\0\0\0")]);
        assert_eq!(seen, [Seen::binary(b"a"), Seen::binary(b"bc"), Seen::binary(b"")]);
        for bad in [&b""[..], b"\0\0\0", b"\0\0\0\x02a", b"\xff\xff\xff\xffabc"] {
            let seen = fed(subprotocol, &[client_frame(FIN | BINARY, bad)]);
            assert!(matches!(seen[..], [Seen::Violation(_)]), "{seen:?}");
        }
    }
}

#[test]
fn what_is_framed_for_a_batch_is_read_as_one() {
    for (subprotocol, serializer) in
        [("wamp.2.json.batched", Serializer::Json), ("wamp.2.cbor.batched", Serializer::Cbor)]
    {
        let encoding = Encoding { serializer, framing: Framing::WebSocketBatched };
        let mut framed = Vec::new();
        frame(encoding, b"[1]", &mut framed);
        let echoed = fed(subprotocol, &[client_frame(framed[0], &framed[2..])]);
        let is_text = serializer == Serializer::Json;
        assert_eq!(echoed, [if is_text { Seen::text("[1]") } else { Seen::binary(b"[1]") }]);
    }
}

#[test]
fn an_echo_link_takes_both_kinds() {
    let mut config = config();
    config.listener.mode = ListenerMode::Echo;
    let bytes = [client_frame(FIN | TEXT, b"t"), client_frame(FIN | BINARY, b"\xff")].concat();
    let seen = feed_every_way(|| open_websocket(&config, "any"), &config, &bytes);
    assert_eq!(seen, [Seen::text("t"), Seen::binary(b"\xff")]);
}

#[test]
fn this_side_pings_and_closes() {
    let config = config();
    let mut link = open_websocket(&config, "wamp.2.json");
    let mut out = Vec::new();
    assert!(link.ping(&mut out));
    assert_eq!(out, b"\x89\x00");
    out.clear();
    link.close(CloseReason::SlowConsumer, "you do not read", &mut out);
    assert_eq!(close_frame(&out), (1008, "you do not read"));
    assert_is_over(&mut link, &config);

    out.clear();
    let mut link = open_websocket(&config, "wamp.2.json");
    link.close(CloseReason::Reset, "gone", &mut out);
    assert_eq!(out, b"", "1006 is never sent");
}
