//! Arguments as values, one level deep: what databases bind to their parameters.

use std::borrow::Cow;

use crate::wamp::message::Value;
use crate::wamp::options::Text;

use super::cbor::CborReader;
use super::elements::{first_elements, with_reader};
use super::json::JsonReader;
use super::msgpack::MsgPackReader;
use super::reader::{Kind, Reader};
use super::tape::{Node, Tape};
use super::{DecodeLimits, Encoder, NotRepresentable, Serializer, values};

/// One value. Numbers that JSON writes with a point, an exponent or more digits than an integer holds stay the literals that
/// they are: whoever needs a double makes one, and a decimal loses nothing.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Datum<'a> {
    Null,
    Boolean(bool),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
    /// A number as JSON writes it.
    Literal(Cow<'a, str>),
    Text(Text<'a>),
    Bytes(Cow<'a, [u8]>),
    List(Value<'a>),
    Map(Value<'a>),
}

impl<'a> Datum<'a> {
    /// Reads one value, which was validated when its message was decoded.
    ///
    /// # Errors
    /// It is one that no other serializer has (docs/serialization.md).
    pub fn read(value: Value<'a>) -> Result<Self, NotRepresentable> {
        // It kept to the limits of whoever decoded it, which may be wider than the usual ones.
        let limits = DecodeLimits { depth_max: u32::MAX, list_max: usize::MAX };
        match value.serializer {
            Serializer::Json => {
                let text = std::str::from_utf8(value.bytes).map_err(|_| NotRepresentable)?;
                Self::read_json(value, JsonReader::new(text, limits))
            }
            Serializer::MsgPack => {
                let kind = MsgPackReader::new(value.bytes, limits).kind()?;
                Self::read_with(value, kind, values::read_msgpack)
            }
            Serializer::Cbor => {
                let kind = CborReader::new(value.bytes, limits).kind()?;
                Self::read_with(value, kind, values::read_cbor)
            }
        }
    }

    fn read_json(value: Value<'a>, mut reader: JsonReader<'a>) -> Result<Self, NotRepresentable> {
        Ok(match reader.kind()? {
            Kind::List => Self::List(value),
            Kind::Map => Self::Map(value),
            Kind::Null => Self::Null,
            Kind::Boolean => reader.boolean()?.map_or(Self::Null, Self::Boolean),
            Kind::Unsigned => reader.unsigned()?.map_or(Self::Null, Self::Unsigned),
            Kind::Text => match reader.text()?.ok_or(NotRepresentable)? {
                // Bytes begin with NUL, which is always escaped.
                Cow::Borrowed(text) => Self::Text(Cow::Borrowed(text)),
                Cow::Owned(text) => match values::text_or_bytes(&text) {
                    Node::Bytes(bytes) => Self::Bytes(Cow::Owned(bytes.into_owned())),
                    _ => Self::Text(Cow::Owned(text)),
                },
            },
            Kind::OtherInteger | Kind::Float => {
                let start = reader.position();
                reader.skip()?;
                let literal = std::str::from_utf8(reader.slice(start)).map_err(|_| NotRepresentable)?;
                match literal.parse::<i64>() {
                    Ok(value) if value < 0 => Self::Negative(value),
                    // Minus zero, too.
                    _ => Self::Literal(Cow::Borrowed(literal)),
                }
            }
            Kind::Bytes | Kind::Other => return Err(NotRepresentable),
        })
    }

    fn read_with(
        value: Value<'a>,
        kind: Kind,
        read: impl FnOnce(&'a [u8], &mut Tape<'a>) -> Result<(), NotRepresentable>,
    ) -> Result<Self, NotRepresentable> {
        match kind {
            Kind::List => return Ok(Self::List(value)),
            Kind::Map => return Ok(Self::Map(value)),
            _ => {}
        }
        let mut tape = Tape::default();
        read(value.bytes, &mut tape)?;
        tape.node(0).cloned().map(Self::of_node).ok_or(NotRepresentable)
    }

    fn of_node(node: Node<'a>) -> Self {
        match node {
            Node::Text(text) => Self::Text(text),
            Node::Bytes(bytes) => Self::Bytes(bytes),
            Node::Unsigned(value) => Self::Unsigned(value),
            Node::Negative(value) => Self::Negative(value),
            Node::Float(value) => Self::Float(value),
            Node::Boolean(value) => Self::Boolean(value),
            // Lists and maps do not get here.
            Node::Null | Node::List(_) | Node::Map(_) => Self::Null,
        }
    }

    /// What people call it.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Unsigned(_) | Self::Negative(_) => "an integer",
            Self::Float(_) | Self::Literal(_) => "a number",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

/// The elements of a list, at most so many; `None` where the value is no list or has one that cannot be read.
#[must_use]
pub fn data(list: Value<'_>, count_max: usize) -> Option<Vec<Datum<'_>>> {
    first_elements(list, count_max).into_iter().map(|value| Datum::read(value).ok()).collect()
}

/// The entries of a map with string keys, at most so many; `None` where the value is no such map.
#[must_use]
pub fn entries(map: Value<'_>, count_max: usize) -> Option<Vec<(Text<'_>, Datum<'_>)>> {
    let Value { serializer, .. } = map;
    let all = with_reader(map, |reader| match reader {
        super::elements::Any::Json(reader) => raw_entries(reader, count_max),
        super::elements::Any::MsgPack(reader) => raw_entries(reader, count_max),
        super::elements::Any::Cbor(reader) => raw_entries(reader, count_max),
    });
    let read = |(key, bytes)| Some((key, Datum::read(Value { serializer, bytes }).ok()?));
    all??.into_iter().map(read).collect()
}

type RawEntries<'a> = Vec<(Text<'a>, &'a [u8])>;

fn raw_entries<'a, R: Reader<'a>>(
    mut reader: R,
    count_max: usize,
) -> Result<Option<RawEntries<'a>>, super::reader::Fault> {
    let mut found = Vec::new();
    let Some(mut scope) = reader.map()? else { return Ok(None) };
    while found.len() < count_max
        && let Some(key) = reader.key(&mut scope)?
    {
        reader.pass_prefix()?;
        let start = reader.position();
        reader.skip()?;
        found.push((key, reader.slice(start)));
    }
    Ok(Some(found))
}

/// A value as JSON text.
///
/// # Errors
/// It has a value that JSON has not, or very many of them (docs/serialization.md).
pub fn to_json<'a>(value: Value<'a>, encoder: &mut Encoder) -> Result<Cow<'a, str>, NotRepresentable> {
    if value.serializer == Serializer::Json {
        return std::str::from_utf8(value.bytes).map(Cow::Borrowed).map_err(|_| NotRepresentable);
    }
    let json = encoder.transcode_value(value, Serializer::Json)?;
    String::from_utf8(json).map(Cow::Owned).map_err(|_| NotRepresentable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        r#"[null,true,7,-7,1.50,"grün","\u0000AQID",[1,{"a":2}],{"b":[]},18446744073709551615]"#;

    fn in_serializer(json: &str, serializer: Serializer) -> Vec<u8> {
        let value = Value { serializer: Serializer::Json, bytes: json.as_bytes() };
        if serializer == Serializer::Json {
            return json.as_bytes().to_vec();
        }
        Encoder::new().transcode_value(value, serializer).unwrap()
    }

    #[test]
    fn every_kind_of_value_in_every_serializer() {
        for serializer in Serializer::ALL {
            let bytes = in_serializer(LIST, serializer);
            let all = data(Value { serializer, bytes: &bytes }, 100).unwrap();
            assert_eq!(
                all[..4],
                [Datum::Null, Datum::Boolean(true), Datum::Unsigned(7), Datum::Negative(-7)],
                "{serializer:?}"
            );
            let fraction = match serializer {
                Serializer::Json => Datum::Literal("1.50".into()),
                _ => Datum::Float(1.5),
            };
            assert_eq!(all[4], fraction, "{serializer:?}");
            assert_eq!(all[5], Datum::Text("grün".into()), "{serializer:?}");
            assert_eq!(all[6], Datum::Bytes(Cow::Borrowed(&[1, 2, 3])), "{serializer:?}");
            let Datum::List(inner) = all[7] else { panic!("{serializer:?}: {:?}", all[7]) };
            assert_eq!(to_json(inner, &mut Encoder::new()).unwrap(), r#"[1,{"a":2}]"#, "{serializer:?}");
            assert_eq!(data(inner, 1).unwrap(), [Datum::Unsigned(1)], "{serializer:?}");
            let Datum::Map(inner) = all[8] else { panic!("{serializer:?}: {:?}", all[8]) };
            assert!(entries(inner, 9).unwrap()[0].1.describe() == "a list", "{serializer:?}");
            assert_eq!(all[9], Datum::Unsigned(u64::MAX), "{serializer:?}");
        }
    }

    #[test]
    fn numbers_of_json_that_no_integer_holds_stay_what_they_are() {
        for literal in ["-0", "1e3", "0.10", "-1.0", "18446744073709551616", "-9223372036854775809"] {
            let read = Datum::read(Value { serializer: Serializer::Json, bytes: literal.as_bytes() });
            assert_eq!(read, Ok(Datum::Literal(literal.into())));
        }
        let least = Datum::read(Value { serializer: Serializer::Json, bytes: b"-9223372036854775808" });
        assert_eq!(least, Ok(Datum::Negative(i64::MIN)));
    }

    #[test]
    fn entries_keep_their_order_and_what_is_no_map_has_none() {
        for serializer in Serializer::ALL {
            let bytes = in_serializer(r#"{"b":1,"a\n":"x"}"#, serializer);
            let value = Value { serializer, bytes: &bytes };
            let all = entries(value, 9).unwrap();
            assert_eq!(all[0], ("b".into(), Datum::Unsigned(1)), "{serializer:?}");
            assert_eq!(all[1], ("a\n".into(), Datum::Text("x".into())), "{serializer:?}");
            assert_eq!(entries(value, 1).unwrap().len(), 1);
            let list = in_serializer("[1]", serializer);
            assert_eq!(entries(Value { serializer, bytes: &list }, 9), None, "{serializer:?}");
        }
    }
}
