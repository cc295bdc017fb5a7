//! Arguments one by one, as the bytes that they came in: for what the router keeps and sends on later.

use crate::wamp::message::Value;

use super::cbor::CborReader;
use super::json::JsonReader;
use super::msgpack::MsgPackReader;
use super::reader::{Fault, Reader};
use super::{DecodeLimits, Serializer};

/// The first elements of a list, at most so many; none at all where the value is no list.
#[must_use]
pub fn first_elements(list: Value<'_>, count_max: usize) -> Vec<Value<'_>> {
    let Value { serializer, bytes } = list;
    let all = with_reader(list, |reader| match reader {
        Any::Json(reader) => elements(reader, count_max),
        Any::MsgPack(reader) => elements(reader, count_max),
        Any::Cbor(reader) => elements(reader, count_max),
    });
    debug_assert!(all.as_ref().is_none_or(|all| all.iter().all(|element| element.len() <= bytes.len())));
    all.unwrap_or_default().into_iter().map(|bytes| Value { serializer, bytes }).collect()
}

/// The bytes of a list, none at all if it is empty; `None` where the value is another.
#[must_use]
pub fn list_bytes(value: Value<'_>) -> Option<&[u8]> {
    with_reader(value, |reader| match reader {
        Any::Json(mut reader) => reader.raw_list(),
        Any::MsgPack(mut reader) => reader.raw_list(),
        Any::Cbor(mut reader) => reader.raw_list(),
    })
    .flatten()
}

/// The bytes of a map with string keys, none at all if it is empty; `None` where the value is another.
#[must_use]
pub fn map_bytes(value: Value<'_>) -> Option<&[u8]> {
    with_reader(value, |reader| match reader {
        Any::Json(mut reader) => reader.raw_map(),
        Any::MsgPack(mut reader) => reader.raw_map(),
        Any::Cbor(mut reader) => reader.raw_map(),
    })
    .flatten()
}

/// A reader of any serializer.
pub(super) enum Any<'a> {
    Json(JsonReader<'a>),
    MsgPack(MsgPackReader<'a>),
    Cbor(CborReader<'a>),
}

/// Reads a value that was validated when its message was decoded.
pub(super) fn with_reader<'a, T>(
    value: Value<'a>,
    read: impl FnOnce(Any<'a>) -> Result<T, Fault>,
) -> Option<T> {
    // It kept to the limits of whoever decoded it, which may be wider than the usual ones.
    let limits = DecodeLimits { depth_max: u32::MAX, list_max: usize::MAX };
    let reader = match value.serializer {
        Serializer::Json => Any::Json(JsonReader::new(std::str::from_utf8(value.bytes).ok()?, limits)),
        Serializer::MsgPack => Any::MsgPack(MsgPackReader::new(value.bytes, limits)),
        Serializer::Cbor => Any::Cbor(CborReader::new(value.bytes, limits)),
    };
    read(reader).ok()
}

fn elements<'a, R: Reader<'a>>(mut reader: R, count_max: usize) -> Result<Vec<&'a [u8]>, Fault> {
    let mut found = Vec::new();
    let Some(mut scope) = reader.list()? else { return Ok(found) };
    while found.len() < count_max && reader.next(&mut scope)? {
        // A tag, or white space, belongs to nobody.
        reader.pass_prefix()?;
        let start = reader.position();
        reader.skip()?;
        found.push(reader.slice(start));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::codec::Encoder;
    use crate::wamp::payload::Payload;

    const LIST: &[u8] = br#" [ "a" , [1,[]], {"b": null}, [], {} , 1.5 ]"#;

    #[test]
    fn elements_are_the_bytes_that_came() {
        let payload = Payload { serializer: Serializer::Json, args: LIST, kwargs: &[] };
        for serializer in Serializer::ALL {
            let written = Encoder::new().transcode(&payload, serializer).unwrap();
            let args = if serializer == Serializer::Json { LIST } else { written.as_payload().args };
            let found = first_elements(Value { serializer, bytes: args }, 5);
            let as_json = |value: &Value<'_>| {
                let mut list = match value.serializer {
                    Serializer::Json => return value.bytes.to_vec(),
                    Serializer::MsgPack => vec![0x91],
                    Serializer::Cbor => vec![0x81],
                };
                list.extend_from_slice(value.bytes);
                let payload = Payload { serializer: value.serializer, args: &list, kwargs: &[] };
                let json = Encoder::new().transcode(&payload, Serializer::Json).unwrap();
                let bytes = json.as_payload().args;
                bytes[1..bytes.len() - 1].to_vec()
            };
            let texts: Vec<_> =
                found.iter().map(|value| String::from_utf8(as_json(value)).unwrap()).collect();
            let squeezed: Vec<_> = texts.iter().map(|text| text.replace(' ', "")).collect();
            assert_eq!(squeezed, [r#""a""#, "[1,[]]", r#"{"b":null}"#, "[]", "{}"], "{serializer:?}");
            let lists: Vec<_> = found.iter().map(|value| list_bytes(*value).map(<[u8]>::is_empty)).collect();
            assert_eq!(lists, [None, Some(false), None, Some(true), None], "{serializer:?}");
            let maps: Vec<_> = found.iter().map(|value| map_bytes(*value).map(<[u8]>::is_empty)).collect();
            assert_eq!(maps, [None, None, Some(false), None, Some(true)], "{serializer:?}");
        }
    }

    #[test]
    fn what_is_no_list_has_no_elements() {
        for bytes in [&b"{}"[..], b"1", b"", b"[1,"] {
            assert!(first_elements(Value { serializer: Serializer::Json, bytes }, 9).len() < 2);
        }
    }
}
