//! Our readers beside serde_json, rmpv and ciborium, over values that proptest makes up and bytes that are broken a
//! little. The fuzz targets of the same names do the same over bytes that libFuzzer makes up.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../fuzz/bodies/differential/mod.rs"]
mod bodies;

use std::fs;
use std::path::Path;

use ciborium::Value as Cbor;
use crosspoint::wamp::codec::Serializer;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rmpv::Value as MsgPack;

/// Strings with what serializers trip over: NUL, base64, escapes, all of Unicode.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,3}",
        any::<String>(),
        "\0([A-D]{4}){0,2}(AA==|AAA=|AB==|A)?",
        select(vec!["1", "-1", "true", "null", "\u{1f600}", "\u{ffff}", "\u{7f}\u{2028}"])
            .prop_map(str::to_owned),
    ]
}

/// Of every size.
fn unsigned() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64).prop_map(|(value, shift)| value >> shift)
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits),
        any::<f32>().prop_map(f64::from),
        (-9..9i8).prop_map(f64::from),
    ]
}

/// JSON as text, in forms that no library writes.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        vec(r#"[a-c é😀]|\\["\\/bfnrt]|\\u(00[0-7][0-9A-Fa-f]|[dD][89a-fA-F][0-9]{2}|[0-9a-f]{4})"#, 0..4)
            .prop_map(|pieces| format!("\"{}\"", pieces.concat())),
    ]
    .boxed();
    let number = prop_oneof![
        unsigned().prop_map(|value| value.to_string()),
        unsigned().prop_map(|value| format!("-{value}")),
        float()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| format!("{value:e}")),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?",
    ];
    let leaf =
        prop_oneof![select(vec!["null", "true", "false"]).prop_map(str::to_owned), number, string.clone()];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        let space = "[ \t\r\n]{0,2}";
        let element =
            (space, inner.clone(), space).prop_map(|(before, value, behind)| before + &value + &behind);
        let entry = (space, string.clone(), space, inner)
            .prop_map(|(before, key, behind, value)| before + &key + &behind + ":" + &value);
        prop_oneof![
            vec(element, 0..8).prop_map(|elements| format!("[{}]", elements.join(","))),
            vec(entry, 0..20).prop_map(|entries| format!("{{{}}}", entries.join(","))),
        ]
    })
}

fn msgpack() -> impl Strategy<Value = MsgPack> {
    let extension = prop_oneof![
        (any::<i8>(), vec(any::<u8>(), 0..20)),
        Just((0, vec![0])),
        any::<u32>().prop_map(|seconds| (-1, seconds.to_be_bytes().to_vec())),
        (0..1_000_000_002u64, 0..1u64 << 34)
            .prop_map(|(nanoseconds, seconds)| (-1, (nanoseconds << 34 | seconds).to_be_bytes().to_vec())),
        (0..1_000_000_002u32, -70_000_000_000..300_000_000_000i64).prop_map(|(nanoseconds, seconds)| {
            (-1, [&nanoseconds.to_be_bytes()[..], &seconds.to_be_bytes()].concat())
        }),
    ];
    let leaf = prop_oneof![
        Just(MsgPack::Nil),
        any::<bool>().prop_map(MsgPack::Boolean),
        unsigned().prop_map(MsgPack::from),
        unsigned().prop_map(|value| MsgPack::from(!value as i64)),
        float().prop_map(MsgPack::F64),
        any::<u32>().prop_map(|bits| MsgPack::F32(f32::from_bits(bits))),
        text().prop_map(MsgPack::from),
        vec(any::<u8>(), 0..40).prop_map(MsgPack::Binary),
        extension.prop_map(|(kind, data)| MsgPack::Ext(kind, data)),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        let key = prop_oneof![4 => text().prop_map(MsgPack::from), 1 => inner.clone()];
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(MsgPack::Array),
            vec((key, inner), 0..20).prop_map(MsgPack::Map),
        ]
    })
}

fn cbor() -> impl Strategy<Value = Cbor> {
    let integer = (any::<bool>(), unsigned()).prop_map(|(below_zero, value)| {
        let value = if below_zero { -1 - i128::from(value) } else { value.into() };
        Cbor::Integer(value.try_into().unwrap())
    });
    // Half of them lie within a few of the middle between two floats.
    let big = (prop_oneof![Just(2), Just(3)], vec(any::<u8>(), 0..20), any::<bool>(), 0..4u8, 6..10usize)
        .prop_map(|(tag, mut bytes, middle, near, zeros)| {
            if middle {
                bytes = [&[1][..], &vec![0; zeros], &[0x08, near]].concat();
                if near > 1 {
                    bytes = [&[1][..], &vec![0; zeros], &[0x17, 0xfc + near]].concat();
                }
            }
            Cbor::Tag(tag, Box::new(Cbor::Bytes(bytes)))
        });
    let leaf = prop_oneof![
        Just(Cbor::Null),
        any::<bool>().prop_map(Cbor::Bool),
        integer,
        big,
        float().prop_map(Cbor::Float),
        text().prop_map(Cbor::Text),
        vec(any::<u8>(), 0..40).prop_map(Cbor::Bytes),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        let key = prop_oneof![4 => text().prop_map(Cbor::Text), 1 => inner.clone()];
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Cbor::Array),
            vec((key, inner.clone()), 0..20).prop_map(Cbor::Map),
            (select(vec![0, 1, 2, 3, 24, 30, 257, 55799]), inner)
                .prop_map(|(tag, content)| Cbor::Tag(tag, Box::new(content))),
        ]
    })
}

fn of_msgpack(value: &MsgPack) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

fn of_cbor(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// One byte another one, and perhaps the end cut off.
fn broken(mut bytes: Vec<u8>, place: Index, byte: u8, cut: Option<Index>) -> Vec<u8> {
    let length = bytes.len();
    bytes[place.index(length)] = byte;
    bytes.truncate(cut.map_or(length, |cut| cut.index(length)));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn values_of_json(text in json()) {
        prop_assert!(bodies::check(Serializer::Json, text.as_bytes()).is_some());
    }

    #[test]
    fn values_of_msgpack(value in msgpack()) {
        prop_assert!(bodies::check(Serializer::MsgPack, &of_msgpack(&value)).is_some());
    }

    #[test]
    fn values_of_cbor(value in cbor()) {
        prop_assert!(bodies::check(Serializer::Cbor, &of_cbor(&value)).is_some());
    }

    #[test]
    fn broken_values(
        values in (json(), msgpack(), cbor()),
        place in any::<Index>(),
        byte in any::<u8>(),
        cut in proptest::option::weighted(0.2, any::<Index>()),
    ) {
        let (json, msgpack, cbor) = values;
        bodies::differential_json(&broken(json.into_bytes(), place, byte, cut));
        bodies::differential_msgpack(&broken(of_msgpack(&msgpack), place, byte, cut));
        bodies::differential_cbor(&broken(of_cbor(&cbor), place, byte, cut));
    }
}

/// The corpora of the readers alone hold messages: good ones here, too.
#[test]
fn messages_of_the_corpora() {
    for (name, body) in [
        ("json", bodies::differential_json as fn(&[u8])),
        ("msgpack", bodies::differential_msgpack),
        ("cbor", bodies::differential_cbor),
    ] {
        let directory =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(format!("decode_{name}"));
        for file in fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            // Said before it is tried, so that a failure names its file.
            println!("{}", path.display());
            body(&fs::read(path).unwrap());
        }
    }
}

/// The comparison itself: what it must tell apart, it does.
#[test]
fn what_is_said_in_how_many_others() {
    let said = |serializer, bytes: &[u8]| bodies::check(serializer, bytes);
    assert_eq!(said(Serializer::Json, b"[1e308]"), Some(2));
    assert_eq!(said(Serializer::Json, b"[1e309]"), Some(0));
    assert_eq!(said(Serializer::Json, b"[NaN]"), None);
    assert_eq!(said(Serializer::MsgPack, b"\x81\xa1a\x01"), Some(2));
    assert_eq!(said(Serializer::MsgPack, b"\x81\xc0\x01"), Some(1));
    assert_eq!(said(Serializer::MsgPack, b"\xd4\x05\x00"), Some(0));
    assert_eq!(said(Serializer::MsgPack, b"\xc1"), None);
    assert_eq!(said(Serializer::Cbor, b"\xa1\xf6\x01"), Some(1));
    assert_eq!(said(Serializer::Cbor, b"\xe0"), Some(0));
    assert_eq!(said(Serializer::Cbor, b"\xd8\x1c\x80"), None);
}
