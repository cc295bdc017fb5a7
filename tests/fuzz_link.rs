//! The bodies of the link's fuzz targets, run over seeded bytes: what a fuzzer would call must hold here too.

#[path = "../fuzz/bodies/link.rs"]
mod bodies;

use proptest::prelude::*;

/// Bytes that look enough like frames and heads to get past the first rule.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..20),
        2 => prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89])
            .prop_flat_map(|first| (Just(first), 0..20_u8, any::<[u8; 24]>()))
            .prop_map(|(first, len, rest)| [&[first, 0x80 | len], &rest[..4 + usize::from(len)]].concat()),
        1 => "GET (/|/ws) HTTP/1.1\r\nHost: [a-z<&]{0,9}\r\n(Upgrade: websocket\r\n)?\r\n".prop_map(String::into_bytes),
        1 => Just(b"\x7f\xf2\0\0\0\0\0\x02ab".to_vec()),
    ];
    let head = proptest::collection::vec(any::<u8>(), 2..4);
    (head, proptest::collection::vec(piece, 0..6)).prop_map(|(head, pieces)| [head, pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn bodies_hold(data in data()) {
        bodies::first_bytes(&data);
        bodies::websocket(&data);
        bodies::deflate(&data);
        bodies::rawsocket(&data);
    }
}
