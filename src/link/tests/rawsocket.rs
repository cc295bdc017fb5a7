//! RawSocket: handshake and frames.

use super::*;

const PAYLOAD_BYTES_MAX: usize = 1 << 24;

fn fed(frames: &[&[u8]]) -> Vec<Seen> {
    let config = config();
    feed_every_way(|| open_rawsocket(&config, 1), &config, &frames.concat())
}

fn refused_with(config: &LinkConfig, handshake: [u8; 4], error: u8) {
    let seen = feed_every_way(Link::new, config, &handshake);
    assert_eq!(seen, [Seen::Close(vec![0x7f, error << 4, 0, 0], CloseReason::BadHandshake)], "{handshake:?}");
}

#[test]
fn every_serializer_and_every_limit_of_the_peer() {
    for (number, serializer) in [(1, Serializer::Json), (2, Serializer::MsgPack), (3, Serializer::Cbor)] {
        for nibble in 0..16 {
            let seen = feed_every_way(Link::new, &config(), &[0x7f, nibble << 4 | number, 0, 0]);
            let encoding = Encoding { serializer, framing: Framing::RawSocket };
            let opened = Opened {
                encoding: Some(encoding),
                deflate: None,
                peer_message_bytes_max: 512 << nibble,
                cookie: None,
            };
            assert_eq!(seen, [Seen::Opened(opened, vec![0x7f, 0xb0 | number, 0, 0])]);
            assert_eq!(open_rawsocket(&config(), number).encoding(), Some(encoding));
        }
    }
}

#[test]
fn the_announced_limit_is_never_above_ours() {
    for (bytes_max, nibble) in [
        (512, 0),
        (1023, 0),
        (1024, 1),
        (1 << 20, 11),
        ((1 << 20) + 1, 11),
        (PAYLOAD_BYTES_MAX - 1, 14),
        (PAYLOAD_BYTES_MAX, 15),
        (usize::MAX, 15),
    ] {
        let mut config = config();
        config.limits.message_bytes_max = bytes_max;
        let seen = feed(&mut Link::new(), &config, &[0x7f, 0xf1, 0, 0]);
        assert!(matches!(&seen[..], [Seen::Opened(_, reply)] if reply[1] == nibble << 4 | 1), "{bytes_max}");
    }
}

#[test]
fn handshakes_against_the_rules() {
    for number in [0, 4, 5, 15] {
        refused_with(&config(), [0x7f, 0xf0 | number, 0, 0], 1);
    }
    refused_with(&config(), [0x7f, 0xf1, 1, 0], 3);
    refused_with(&config(), [0x7f, 0xf1, 0, 0x80], 3);
    let mut only_json = config();
    only_json.listener.serializers = vec![Serializer::Json];
    refused_with(&only_json, [0x7f, 0xf2, 0, 0], 1);
    open_rawsocket(&only_json, 1);
    let mut off = config();
    off.listener.rawsocket = false;
    refused_with(&off, [0x7f, 0xf1, 0, 0], 1);
    let mut echo = config();
    echo.listener.mode = ListenerMode::Echo;
    refused_with(&echo, [0x7f, 0xf1, 0, 0], 1);
}

#[test]
fn messages_pings_and_pongs() {
    let seen = fed(&[
        b"\0\0\0\x03[1]",
        b"\x01\0\0\x04ping",
        b"\x02\0\0\x02hi",
        b"\0\0\0\0",
        b"\x01\0\0\0",
        b"\x02\0\0\0",
    ]);
    let pong = |bytes: &[u8]| Seen::Reply(bytes.to_vec());
    assert_eq!(
        seen,
        [
            Seen::binary(b"[1]"),
            pong(b"\x02\0\0\x04ping"),
            Seen::Pong,
            Seen::binary(b""),
            pong(b"\x02\0\0\0"),
            Seen::Pong,
        ]
    );
}

#[test]
fn whole_messages_borrow_the_input() {
    let config = config();
    let mut link = open_rawsocket(&config, 1);
    let mut bytes = b"\0\0\0\x03[1]\0".to_vec();
    let mut inflater = Inflater::new();
    let (consumed, step) = link.next(&config, 1024, &mut inflater, &mut bytes);
    assert_eq!((consumed, step), (7, Step::Message(MessageBytes::Binary(b"[1]"))));
    assert_eq!(link.next(&config, 1024, &mut inflater, &mut bytes[7..]), (1, Step::Idle));
    assert_eq!(link.partial_bytes(), 0, "the beginning of a header costs nothing");
}

#[test]
fn frames_against_the_rules() {
    let types = (3..=7_u8).chain([0x10, 0x20, 0x40, 0x80, 0x81, 0xff]);
    for first in types {
        assert_eq!(
            fed(&[&[first, 0, 0, 0]]),
            [Seen::Close(Vec::new(), CloseReason::LinkViolation)],
            "{first}"
        );
    }
    // The bit of 2^24 together with another length.
    assert_eq!(fed(&[&[8, 0, 0, 1]]), [Seen::Close(Vec::new(), CloseReason::LinkViolation)]);
}

#[test]
fn lengths_above_the_limit_are_refused_by_the_header() {
    let too_large = [Seen::Close(Vec::new(), CloseReason::MessageTooLarge)];
    assert_eq!(fed(&[&[0, 0x10, 0, 1]]), too_large);
    assert_eq!(fed(&[&[8, 0, 0, 0]]), too_large);
    assert_eq!(fed(&[&[1, 0x10, 0, 1]]), too_large);
    assert_eq!(fed(&[&[2, 0x10, 0, 1]]), too_large);
    let config = config();
    let mut link = open_rawsocket(&config, 1);
    assert_eq!(feed(&mut link, &config, &[0, 0x10, 0, 0, 1, 2, 3]), []);
    assert!(link.partial_bytes() < 100, "what arrived, not what was promised");
    // The answer to a ping is not longer than the peer takes.
    let mut link = Link::new();
    feed(&mut link, &config, &[0x7f, 0x01, 0, 0]);
    assert_eq!(feed(&mut link, &config, &[1, 0, 2, 1]), too_large);
}

#[test]
fn a_ping_may_be_as_long_as_was_announced() {
    let config = config();
    let payload = vec![b'p'; 1 << 20];
    let (ping, pong) = ([&[1, 0x10, 0, 0], &payload[..]].concat(), [&[2, 0x10, 0, 0], &payload[..]].concat());
    let mut link = open_rawsocket(&config, 1);
    let sizes = std::iter::repeat(1 << 16);
    let seen = feed_cut(&mut link, &config, 1 << 20, &ping, sizes.clone());
    assert!(seen == [Seen::Reply(pong.clone())]);
    // What a PONG holds is kept nowhere.
    assert_eq!(feed_cut(&mut link, &config, 1 << 20, &pong[..1 << 19], sizes.clone()), []);
    assert!(link.partial_bytes() < 100);
    assert_eq!(feed_cut(&mut link, &config, 1 << 20, &pong[1 << 19..], sizes), [Seen::Pong]);
}

#[test]
fn exactly_two_to_the_power_of_24() {
    let mut config = config();
    config.limits.message_bytes_max = PAYLOAD_BYTES_MAX;
    let message = vec![7; PAYLOAD_BYTES_MAX];
    let encoding = Encoding { serializer: Serializer::Cbor, framing: Framing::RawSocket };
    let mut framed = Vec::new();
    frame(encoding, &message, &mut framed);
    assert_eq!(&framed[..4], [8, 0, 0, 0]);
    assert_eq!(framed.len(), framed_len(encoding, message.len()));
    let mut link = open_rawsocket(&config, 3);
    assert!(feed(&mut link, &config, &framed) == [Seen::Binary(message.clone())]);
    let sizes = std::iter::repeat(1 << 20);
    assert!(
        feed_cut(&mut link, &config, PAYLOAD_BYTES_MAX, &framed, sizes) == [Seen::Binary(message.clone())]
    );
    assert_eq!(link.partial_bytes(), 0);

    framed.clear();
    frame(encoding, &[message, vec![7]].concat(), &mut framed);
    assert_eq!((framed.len(), framed_len(encoding, PAYLOAD_BYTES_MAX + 1)), (0, 0));
}

#[test]
fn this_side_pings_and_closes() {
    let config = config();
    let mut link = open_rawsocket(&config, 1);
    let mut out = Vec::new();
    assert!(link.ping(&mut out));
    assert_eq!(out, [1, 0, 0, 0]);
    out.clear();
    link.close(CloseReason::SlowConsumer, "you do not read", &mut out);
    assert_eq!(out, b"");
    assert_is_over(&mut link, &config);

    let mut link = Link::new();
    feed(&mut link, &config, &[0x7f]);
    assert!(!link.ping(&mut out));
    link.close(CloseReason::TooManyConnections, "", &mut out);
    assert_eq!(out, [0x7f, 0x40, 0, 0]);
}
