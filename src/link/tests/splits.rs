//! Properties: however bytes are cut, they mean the same; and no bytes whatever break a link.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Which link the bytes go to.
const OPENINGS: &[&[u8]] = &[b"\x7f\xf1\0\0", b"\x7f\x01\0\0"];
const SUBPROTOCOLS: &[&str] =
    &["wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched", "wamp.2.cbor.batched"];

fn openings() -> impl Strategy<Value = Vec<u8>> {
    let requests = SUBPROTOCOLS.iter().map(|subprotocol| request_for(subprotocol));
    let all: Vec<_> =
        OPENINGS.iter().map(|bytes| bytes.to_vec()).chain(requests).chain([Vec::new()]).collect();
    prop::sample::select(all)
}

fn configs() -> impl Strategy<Value = LinkConfig> {
    (any::<bool>(), prop::sample::select(vec![64_usize, 1000, 1 << 20])).prop_map(|(is_echo, bytes_max)| {
        let mut config = config();
        config.limits.message_bytes_max = bytes_max;
        config.limits.frames_per_message_max = 6;
        config.limits.http_head_bytes_max = 400;
        if is_echo {
            config.listener.mode = ListenerMode::Echo;
        }
        config
    })
}

/// Mostly text with characters of all lengths, separators, and now and then a byte that spoils it.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[a-z\\[\\]\u{1e}\u{e9}\u{20ac}\u{1f600}]{0,40}".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..4),
        2 => vec(any::<u8>(), 0..8).prop_map(|bytes| {
            [(bytes.len() as u32).to_be_bytes().to_vec(), bytes].concat()
        }),
        1 => vec(b' '..b'z', 120..140),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => Just(FIN | TEXT),
        6 => Just(FIN | BINARY),
        3 => Just(TEXT),
        3 => Just(BINARY),
        6 => Just(CONTINUATION),
        6 => Just(FIN | CONTINUATION),
        3 => Just(FIN | PING),
        2 => Just(FIN | PONG),
        1 => Just(FIN | CLOSE),
        1 => any::<u8>(),
    ];
    prop_oneof![
        10 => (first, payloads()).prop_map(|(first, payload)| client_frame(first, &payload)),
        3 => (0..4_u8, payloads()).prop_map(|(kind, payload)| rawsocket_frame(kind, &payload)),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// A RawSocket frame of this type.
fn rawsocket_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &length, payload].concat()
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[A-Za-z-]{1,12}: [ -~]{0,30}\r\n",
        2 => "(Host|Content-Length|Transfer-Encoding|Connection|Upgrade|Origin|Sec-WebSocket-Key): [ -~]{0,20}\r\n",
        1 => "[\\x00-\\xff]{0,10}\r?\n?",
    ];
    ("(GET|HEAD|POST|PRI|A) (/|/ws|\\*|http://a/ws|[!-~]{1,10}) HTTP/[012]\\.[01]\r\n", vec(line, 0..8))
        .prop_map(|(first, lines)| {
            [first.into_bytes(), lines.concat().into_bytes(), b"\r\n".to_vec()].concat()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn frames_mean_the_same_however_they_are_cut(
        config in configs(),
        opening in openings(),
        frames in vec(frames(), 0..8),
        sizes in vec(1..40_usize, 1..60),
    ) {
        let bytes = [opening, frames.concat()].concat();
        let bytes_max = config.limits.message_bytes_max;
        let at_once = feed_cut(&mut Link::new(), &config, bytes_max, &bytes, []);
        let cut = feed_cut(&mut Link::new(), &config, bytes_max, &bytes, sizes);
        prop_assert_eq!(&cut, &at_once);
        let single = feed_cut(&mut Link::new(), &config, bytes_max, &bytes, std::iter::repeat(1));
        prop_assert_eq!(&single, &at_once);
    }

    #[test]
    fn heads_mean_the_same_however_they_are_cut(head in heads(), sizes in vec(1..40_usize, 1..60)) {
        let config = config();
        let at_once = feed_cut(&mut Link::new(), &config, 1000, &head, []);
        let cut = feed_cut(&mut Link::new(), &config, 1000, &head, sizes);
        prop_assert_eq!(&cut, &at_once);
        let single = feed_cut(&mut Link::new(), &config, 1000, &head, std::iter::repeat(1));
        prop_assert_eq!(&single, &at_once);
    }

    #[test]
    fn no_bytes_break_a_link(opening in openings(), bytes in vec(any::<u8>(), 0..300), cut in 1..300_usize) {
        let config = config();
        let bytes = [opening, bytes].concat();
        feed_cut(&mut Link::new(), &config, 1000, &bytes, std::iter::repeat(cut));
    }

    #[test]
    fn messages_come_through_whole(
        messages in vec(vec((payloads(), any::<bool>()), 1..5), 1..5),
        sizes in vec(1..60_usize, 1..60),
    ) {
        let mut config = config();
        config.listener.mode = ListenerMode::Echo;
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for fragments in &messages {
            for (number, (payload, is_interrupted)) in fragments.iter().enumerate() {
                let opcode = if number == 0 { BINARY } else { CONTINUATION };
                let fin = if number + 1 == fragments.len() { FIN } else { 0 };
                bytes.extend(client_frame(fin | opcode, payload));
                if *is_interrupted && fin == 0 {
                    bytes.extend(client_frame(FIN | PONG, b""));
                    expected.push(Seen::Pong);
                }
            }
            let whole: Vec<u8> = fragments.iter().flat_map(|(payload, _)| payload.clone()).collect();
            expected.push(Seen::Binary(whole));
        }
        let mut link = open_websocket(&config, "any");
        prop_assert_eq!(feed_cut(&mut link, &config, 1 << 20, &bytes, sizes), expected);
        prop_assert_eq!(link.partial_bytes(), 0);
    }
}
