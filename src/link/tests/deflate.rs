//! Compression (permessage-deflate): the examples of RFC 7692, and what is against its rules and our bounds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::link::frame::{frame_deflated, frame_echo_deflated};

/// RSV1: the message is compressed.
const COMPRESSED: u8 = 0x40;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

fn compressing() -> LinkConfig {
    let mut config = config();
    config.listener.compression = true;
    config
}

fn request_compressed(subprotocol: &str) -> Vec<u8> {
    request(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n{OFFER}"))
}

fn open_compressed(config: &LinkConfig, subprotocol: &str) -> Link {
    let mut link = Link::new();
    let seen = feed(&mut link, config, &request_compressed(subprotocol));
    let [Seen::Opened(opened, _)] = &seen[..] else { panic!("not opened: {seen:?}") };
    assert_eq!(opened.deflate, WindowBits::new(15));
    assert_eq!(link.partial_bytes(), 0);
    link
}

fn fed_of(config: &LinkConfig, subprotocol: &str, frames: &[Vec<u8>]) -> Vec<Seen> {
    feed_every_way(|| open_compressed(config, subprotocol), config, &frames.concat())
}

fn fed(frames: &[Vec<u8>]) -> Vec<Seen> {
    fed_of(&compressing(), "wamp.2.json", frames)
}

/// The payload of a compressed message, also where it does not become shorter.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut deflate = zlib_rs::Deflate::new(6, false, 15);
    let mut out = vec![0; payload.len() + payload.len() / 8 + 64];
    deflate.compress(payload, &mut out, zlib_rs::DeflateFlush::SyncFlush).unwrap();
    out.truncate(deflate.total_out() as usize);
    out.strip_suffix(b"\0\0\xff\xff").unwrap().to_vec()
}

fn assert_closed(config: &LinkConfig, frames: &[Vec<u8>], reason: CloseReason) -> String {
    let seen = fed_of(config, "wamp.2.json", frames);
    let Some(Seen::Close(reply, seen_reason)) = seen.last() else { panic!("not closed: {seen:?}") };
    assert_eq!(*seen_reason, reason);
    let (code, text) = close_frame(reply);
    assert_eq!(code, reason.info().websocket_code);
    text.to_owned()
}

#[test]
fn is_agreed_on_where_both_sides_want_it() {
    let answer = |config: &LinkConfig, headers: &str| {
        let seen = feed_every_way(Link::new, config, &request(headers));
        let [Seen::Opened(opened, reply)] = &seen[..] else { panic!("not opened: {seen:?}") };
        let reply = String::from_utf8(reply.clone()).unwrap();
        let line = reply.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        assert_eq!(line.is_some(), opened.deflate.is_some());
        line.map(str::to_owned)
    };
    let protocol = "Sec-WebSocket-Protocol: wamp.2.json\r\n";
    let offer = format!("{protocol}{OFFER}");
    assert_eq!(answer(&config(), &offer), None, "it is off by default");
    assert_eq!(answer(&compressing(), protocol), None);
    let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(answer(&compressing(), &offer).as_deref(), Some(plain));
    let mut config = compressing();
    config.limits.compression_window_bits = 12;
    assert_eq!(answer(&config, &offer).as_deref(), Some(plain));
    // In a second line, behind others that cannot be taken.
    let lines = "Sec-WebSocket-Extensions: a; b, permessage-deflate; server_max_window_bits=8\r\n\
                 sec-websocket-extensions: permessage-deflate; server_max_window_bits=14\r\n";
    let expected = format!("{plain}; server_max_window_bits=12");
    assert_eq!(answer(&config, &format!("{protocol}{lines}")).as_deref(), Some(&*expected));
    config.listener.mode = ListenerMode::Echo;
    assert_eq!(answer(&config, OFFER).as_deref(), Some(plain));
}

#[test]
fn the_examples_of_the_rfc() {
    let first = FIN | COMPRESSED | TEXT;
    let hello = || vec![Seen::text("Hello")];
    assert_eq!(fed(&[client_frame(first, b"\xf2\x48\xcd\xc9\xc9\x07\0")]), hello());
    assert_eq!(
        fed(&[
            client_frame(COMPRESSED | TEXT, b"\xf2\x48\xcd"),
            client_frame(FIN | CONTINUATION, b"\xc9\xc9\x07\0"),
        ]),
        hello()
    );
    assert_eq!(fed(&[client_frame(first, b"\0\x05\0\xfa\xffHello\0")]), hello(), "not compressed");
    assert_eq!(fed(&[client_frame(first, b"\xf3\x48\xcd\xc9\xc9\x07\0\0")]), hello(), "BFINAL");
    assert_eq!(
        fed(&[client_frame(first, b"\xf2\x48\x05\0\0\0\xff\xff\xca\xc9\xc9\x07\0")]),
        hello(),
        "two blocks"
    );
    assert_eq!(fed(&[client_frame(first, b"\0")]), [Seen::text("")], "an empty message");
    assert_eq!(fed(&[client_frame(first, b"\x02\0")]), [Seen::text("")], "an empty message in another way");
}

#[test]
fn what_is_understood_beyond_them() {
    let first = FIN | COMPRESSED | TEXT;
    assert_eq!(fed(&[client_frame(first, b"")]), [Seen::text("")], "nothing at all");
    assert_eq!(fed(&[client_frame(first, b"\xf3\x48\xcd\xc9\xc9\x07\0")]), [Seen::text("Hello")]);
    // It ends, and goes on.
    let twice = b"\xf3\x48\xcd\xc9\xc9\x07\0\xf3\x48\xcd\xc9\xc9\x07\0\0";
    assert_eq!(fed(&[client_frame(first, twice)]), [Seen::text("HelloHello")]);
}

#[test]
fn compressed_and_plain_messages_in_turn_with_control_frames_between_fragments() {
    let whole = deflated(b"[1,\"a message that repeats a message\"]");
    let (begin, end) = whole.split_at(7);
    let message = || Seen::text("[1,\"a message that repeats a message\"]");
    let seen = fed(&[
        client_frame(FIN | COMPRESSED | TEXT, &whole),
        client_frame(FIN | TEXT, b"[2]"),
        client_frame(COMPRESSED | TEXT, begin),
        client_frame(FIN | PING, b"ping"),
        client_frame(CONTINUATION, b""),
        client_frame(FIN | CONTINUATION, end),
        client_frame(TEXT, b"[3"),
        client_frame(FIN | CONTINUATION, b"]"),
    ]);
    let pong = Seen::Reply(b"\x8a\x04ping".to_vec());
    assert_eq!(seen, [message(), Seen::text("[2]"), pong, message(), Seen::text("[3]")]);
}

#[test]
fn rsv1_belongs_to_the_first_frame_of_a_message() {
    for frames in [
        vec![client_frame(FIN | COMPRESSED | PING, b"")],
        vec![client_frame(FIN | COMPRESSED | PONG, b"")],
        vec![client_frame(FIN | COMPRESSED | CLOSE, b"\x03\xe8")],
        vec![client_frame(TEXT, b"["), client_frame(FIN | COMPRESSED | CONTINUATION, b"]")],
        vec![client_frame(COMPRESSED | TEXT, b"\0"), client_frame(FIN | COMPRESSED | CONTINUATION, b"\0")],
        vec![client_frame(FIN | 0x20 | TEXT, b"[1]")],
        vec![client_frame(FIN | COMPRESSED | 0x10 | TEXT, b"\0")],
    ] {
        assert_closed(&compressing(), &frames, CloseReason::LinkViolation);
    }
}

#[test]
fn nothing_is_taken_over_from_the_message_before() {
    // The third example of RFC 7692 section 7.2.3.2: "Hello" again, out of the window.
    let frames = [
        client_frame(FIN | COMPRESSED | TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\0"),
        client_frame(FIN | COMPRESSED | TEXT, b"\xf2\0\x11\0\0"),
    ];
    assert_closed(&compressing(), &frames, CloseReason::LinkViolation);
    let seen = fed(&frames);
    assert_eq!(seen[0], Seen::text("Hello"));
}

#[test]
fn what_is_no_deflate() {
    for payload in [
        &b"\x07"[..],               // a reserved kind of block
        b"\xff\xff\xff",            // as above
        b"\0\x05\0\xfa\xfeHello\0", // a length that its check denies
        b"\0\x05\0\xfa\xffHell",    // cut off
        b"\xf2\x48\xcd\xc9",        // as above
        b"\xf2\x48\xcd\xc9\xc9\x07\0\0\x01",
        b"[1]",
    ] {
        let text = assert_closed(
            &compressing(),
            &[client_frame(FIN | COMPRESSED | TEXT, payload)],
            CloseReason::LinkViolation,
        );
        assert_eq!(text, "the compressed message cannot be inflated", "{payload:x?}");
    }
}

#[test]
fn inflated_text_must_be_utf8() {
    for bad in [&b"\xff"[..], b"ab\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"] {
        let payload = deflated(bad);
        let whole = client_frame(FIN | COMPRESSED | TEXT, &payload);
        assert_closed(&compressing(), &[whole], CloseReason::InvalidUtf8);
        let (begin, end) = payload.split_at(2);
        let cut = [client_frame(COMPRESSED | TEXT, begin), client_frame(FIN | CONTINUATION, end)];
        assert_closed(&compressing(), &cut, CloseReason::InvalidUtf8);
    }
    let whole = client_frame(FIN | COMPRESSED | BINARY, &deflated(b"\xff\xfe"));
    assert_eq!(fed_of(&compressing(), "wamp.2.cbor", &[whole]), [Seen::binary(b"\xff\xfe")]);
    let text = client_frame(FIN | COMPRESSED | TEXT, &deflated(b"[1]"));
    let seen = fed_of(&compressing(), "wamp.2.cbor", &[text]);
    assert_eq!(seen[0].reason(), Some(CloseReason::UnsupportedData));
}

#[test]
fn batches_are_inflated_whole() {
    for (subprotocol, opcode, batch, expected) in [
        ("wamp.2.json.batched", TEXT, &b"[1]\x1e[2]\x1e"[..], [Seen::text("[1]"), Seen::text("[2]")]),
        (
            "wamp.2.cbor.batched",
            BINARY,
            b"\0\0\0\x02ab\0\0\0\x01c",
            [Seen::binary(b"ab"), Seen::binary(b"c")],
        ),
    ] {
        let payload = deflated(batch);
        let whole = client_frame(FIN | COMPRESSED | opcode, &payload);
        assert_eq!(fed_of(&compressing(), subprotocol, &[whole.clone(), whole])[2..], expected);
        let (begin, end) = payload.split_at(3);
        let cut = [client_frame(COMPRESSED | opcode, begin), client_frame(FIN | CONTINUATION, end)];
        assert_eq!(fed_of(&compressing(), subprotocol, &cut), expected);
    }
    let bad = client_frame(FIN | COMPRESSED | TEXT, &deflated(b"[1]\x1e[2]"));
    let seen = fed_of(&compressing(), "wamp.2.json.batched", &[bad]);
    assert!(matches!(&seen[..], [Seen::Text(_), Seen::Violation(_)]), "{seen:?}");
    let empty = client_frame(FIN | COMPRESSED | TEXT, b"\0");
    let seen = fed_of(&compressing(), "wamp.2.json.batched", &[empty]);
    assert!(matches!(&seen[..], [Seen::Violation(_)]), "{seen:?}");
}

#[test]
fn the_inflated_length_is_bounded() {
    let mut config = compressing();
    config.limits.message_bytes_max = 1000;
    let of = |len: usize| deflated(&"[1]".bytes().cycle().take(len).collect::<Vec<_>>());
    let fits = client_frame(FIN | COMPRESSED | TEXT, &of(1000));
    assert!(matches!(&fed_of(&config, "wamp.2.json", &[fits])[..], [Seen::Text(text)] if text.len() == 1000));
    let too_long = "the message is longer than the limit of this router";
    for payload in [of(1001), of(100_000)] {
        let whole = [client_frame(FIN | COMPRESSED | TEXT, &payload)];
        assert_eq!(assert_closed(&config, &whole, CloseReason::MessageTooLarge), too_long);
        let (begin, end) = payload.split_at(5);
        let cut = [client_frame(COMPRESSED | TEXT, begin), client_frame(FIN | CONTINUATION, end)];
        assert_eq!(assert_closed(&config, &cut, CloseReason::MessageTooLarge), too_long);
    }
    // What cannot be a message that is short enough is not even collected.
    let collected = vec![0; 64 * 1024];
    assert_closed(
        &config,
        &[client_frame(FIN | COMPRESSED | TEXT, &collected)],
        CloseReason::MessageTooLarge,
    );
    // One that cannot become shorter fits all the same.
    let noise: Vec<u8> = (0..1000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x7f).collect();
    let stored = [b"\0\xe8\x03\x17\xfc".to_vec(), noise.clone(), b"\0".to_vec()].concat();
    let seen = fed_of(&config, "wamp.2.json", &[client_frame(FIN | COMPRESSED | TEXT, &stored)]);
    assert_eq!(seen, [Seen::Text(String::from_utf8(noise).unwrap())]);
}

#[test]
fn a_bomb_stops_early() {
    // 10 MiB of zeros in some 10 KiB.
    let payload = deflated(&vec![0; 10 << 20]);
    assert!(payload.len() < 20_000);
    let bomb = client_frame(FIN | COMPRESSED | BINARY, &payload);
    let mut config = compressing();
    let mut link = open_compressed(&config, "wamp.2.cbor");
    let seen = feed(&mut link, &config, &bomb);
    let [Seen::Close(reply, CloseReason::MessageTooLarge)] = &seen[..] else { panic!("{:?}", seen.len()) };
    assert_eq!(close_frame(reply), (1009, "the message is longer than the limit of this router"));

    // What may be so long must not be so much longer than it came.
    config.limits.message_bytes_max = 16 << 20;
    let mut link = open_compressed(&config, "wamp.2.cbor");
    let seen = feed(&mut link, &config, &bomb);
    let [Seen::Close(reply, CloseReason::MessageTooLarge)] = &seen[..] else { panic!("{:?}", seen.len()) };
    assert_eq!(close_frame(reply), (1009, "the message is compressed more than this router takes"));
    config.limits.inflate_ratio_max = 1032;
    let mut link = open_compressed(&config, "wamp.2.cbor");
    let seen = feed(&mut link, &config, &bomb);
    assert!(matches!(&seen[..], [Seen::Binary(zeros)] if zeros.len() == 10 << 20));
    // What repeats a lot is not therefore bad, as long as it is not too much.
    config.limits.inflate_ratio_max = 10;
    let small = client_frame(FIN | COMPRESSED | BINARY, &deflated(&vec![0; 1 << 20]));
    let mut link = open_compressed(&config, "wamp.2.cbor");
    assert!(matches!(&feed(&mut link, &config, &small)[..], [Seen::Binary(_)]));
}

#[test]
fn empty_blocks_are_bounded() {
    let surplus = "the compressed message has too many empty blocks";
    let first = FIN | COMPRESSED | TEXT;
    // An empty stored block after the other.
    let few = b"\0\0\0\xff\xff".repeat(1000);
    let few = [&few[..], b"\0"].concat();
    assert_eq!(fed(&[client_frame(first, &few)]), [Seen::text("")]);
    let many = [&b"\0\0\0\xff\xff".repeat(100_000)[..], b"\0"].concat();
    let mut link = open_compressed(&compressing(), "wamp.2.json");
    let seen = feed(&mut link, &compressing(), &client_frame(first, &many));
    let [Seen::Close(reply, CloseReason::LinkViolation)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(close_frame(reply), (1002, surplus));
    // And last ones.
    let many = [&b"\x03\0".repeat(1000)[..], b"\0"].concat();
    assert_eq!(
        assert_closed(&compressing(), &[client_frame(first, &many)], CloseReason::LinkViolation),
        surplus
    );
}

#[test]
fn an_open_link_holds_no_window() {
    let config = compressing();
    let mut link = open_compressed(&config, "wamp.2.json");
    let payload = deflated("[1,\"word after word after word\"]".repeat(1000).as_bytes());
    let (begin, end) = payload.split_at(40);
    assert_eq!(feed(&mut link, &config, &client_frame(COMPRESSED | TEXT, begin)), []);
    let held = link.partial_bytes();
    assert!((40..1024).contains(&held), "{held} bytes held of 40 that came");
    assert_eq!(feed(&mut link, &config, &client_frame(FIN | CONTINUATION, end)).len(), 1);
    assert_eq!(link.partial_bytes(), 0);
}

#[test]
fn what_is_sent_is_understood_in_every_window() {
    let message = format!("[36,1,2,{{}},[{}]]", "\"a reading\",273.15,".repeat(5000));
    for serializer in [Serializer::Json, Serializer::Cbor] {
        for framing in [Framing::WebSocket, Framing::WebSocketBatched] {
            let encoding = Encoding { serializer, framing };
            let mut plain = Vec::new();
            frame(encoding, message.as_bytes(), &mut plain);
            let mut deflater = Deflater::new(6);
            for bits in WindowBits::MIN..=WindowBits::MAX {
                let window = WindowBits::new(bits).unwrap();
                let mut out = b"before".to_vec();
                assert!(frame_deflated(encoding, window, message.as_bytes(), &mut deflater, &mut out));
                let (first, payload) = server_frame(&out[6..]);
                let text = u8::from(serializer != Serializer::Json) + TEXT;
                assert_eq!(first, FIN | COMPRESSED | text);
                // A receiver with this window and no more.
                assert_eq!(inflated(payload, bits), server_frame(&plain).1, "{bits} bits");
                // The same message, the same bytes: nothing is taken over.
                let mut again = b"before".to_vec();
                assert!(frame_deflated(encoding, window, message.as_bytes(), &mut deflater, &mut again));
                assert_eq!(again, out);
            }
        }
    }
    let rawsocket = Encoding { serializer: Serializer::Json, framing: Framing::RawSocket };
    let window = WindowBits::new(15).unwrap();
    assert!(!frame_deflated(rawsocket, window, message.as_bytes(), &mut Deflater::new(6), &mut Vec::new()));
}

#[test]
fn what_does_not_become_shorter_is_not_compressed() {
    let window = WindowBits::new(15).unwrap();
    let mut deflater = Deflater::new(9);
    let mut out = Vec::new();
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let noise: Vec<u8> =
        std::iter::successors(Some(1), next).map(|state| (state >> 24) as u8).take(5000).collect();
    for message in [&b""[..], b"a", b"[1]", &noise] {
        assert!(!frame_echo_deflated(false, window, message, &mut deflater, &mut out));
        assert!(out.is_empty());
    }
    assert!(frame_echo_deflated(false, window, &[0; 100], &mut deflater, &mut out));
    assert_eq!(inflated(server_frame(&out).1, 15), [0; 100]);
}

/// The first byte and the payload of a frame that is all of `bytes`.
fn server_frame(bytes: &[u8]) -> (u8, &[u8]) {
    let head = match bytes[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    (bytes[0], &bytes[head..])
}

/// Inflates as a client does that has no more than the agreed window, piece by piece so that it is the window that counts.
fn inflated(payload: &[u8], bits: u8) -> Vec<u8> {
    let mut inflate = zlib_rs::Inflate::new(false, bits);
    let mut all = Vec::new();
    for piece in payload.chunks(16).chain([&b"\0\0\xff\xff"[..]]) {
        let (mut piece, mut out) = (piece, [0; 32]);
        loop {
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            inflate.decompress(piece, &mut out, zlib_rs::InflateFlush::NoFlush).unwrap();
            piece = &piece[(inflate.total_in() - before_in) as usize..];
            let given = (inflate.total_out() - before_out) as usize;
            all.extend_from_slice(&out[..given]);
            if given < out.len() && piece.is_empty() {
                break;
            }
        }
    }
    all
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "([a-z\\[\\]\u{1e}\u{e9}\u{20ac}]{0,20}abcabcabc){0,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..300),
        1 => (any::<u8>(), 0..3000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_through_compressed(
        messages in vec((payloads(), any::<bool>(), 1..5_usize), 1..5),
        sizes in vec(1..60_usize, 1..60),
    ) {
        let config = compressing();
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (message, is_compressed, fragments) in messages {
            let payload = if is_compressed { deflated(&message) } else { message.clone() };
            let size = payload.len().div_ceil(fragments).max(1);
            let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
            if pieces.is_empty() {
                pieces.push(&[]);
            }
            for (number, piece) in pieces.iter().enumerate() {
                let fin = if number + 1 == pieces.len() { FIN } else { 0 };
                let first = if is_compressed { COMPRESSED | BINARY } else { BINARY };
                bytes.extend(client_frame(fin | if number == 0 { first } else { CONTINUATION }, piece));
            }
            expected.push(Seen::Binary(message));
        }
        let mut link = open_compressed(&config, "wamp.2.cbor");
        prop_assert_eq!(feed_cut(&mut link, &config, 1 << 20, &bytes, sizes), expected);
        prop_assert_eq!(link.partial_bytes(), 0);
    }

    #[test]
    fn damaged_messages_mean_the_same_however_they_are_cut(
        message in payloads(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        size in 1..40_usize,
    ) {
        let mut config = compressing();
        config.limits.message_bytes_max = 2000;
        let mut payload = deflated(&message);
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        payload.truncate(cut.index(payload.len()) + 1);
        let bytes = client_frame(FIN | COMPRESSED | TEXT, &payload);
        let open = || open_compressed(&config, "wamp.2.json");
        let at_once = feed_cut(&mut open(), &config, 2000, &bytes, []);
        let in_pieces = feed_cut(&mut open(), &config, 2000, &bytes, std::iter::repeat(size));
        prop_assert_eq!(at_once, in_pieces);
    }
}
