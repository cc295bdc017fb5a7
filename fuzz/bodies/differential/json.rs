//! What serde_json says of JSON.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::value::{UNSAYABLE, Value};
use super::{DEPTH_MAX, Reading};

/// `None` where it refuses.
pub(super) fn read(bytes: &[u8]) -> Option<Reading> {
    // Without looking into strings and numbers: there it is stricter than the grammar, and than we are.
    let text = str::from_utf8(bytes).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let (text, depth) = without_differences(text);
    if depth > DEPTH_MAX {
        return Some(Reading { value: Value::Null, depth, refers: false });
    }
    let JsonValue(value) =
        serde_json::from_str(&text).expect("it knows the grammar, and no difference is left");
    Some(Reading { value, depth, refers: false })
}

/// The text without what serde_json and we mean to treat differently, and how deep it is:
/// - `lone_surrogates`: it refuses half of a surrogate pair, we carry it, and say U+FFFD in other serializers;
/// - `beyond_float64`: it refuses such numbers, we carry them, and cannot say them in other serializers;
/// - `minus_zero`: it takes `-0` for a float, we take every number without point and exponent for an integer.
fn without_differences(text: &str) -> (String, usize) {
    let (mut out, mut depth, mut deepest) = (String::new(), 0, 0);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let length = push_string(rest, &mut out);
                rest = &rest[length..];
                continue;
            }
            '-' | '0'..='9' => rest
                .find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'))
                .unwrap_or(rest.len()),
            '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
                1
            }
            ']' | '}' => {
                depth -= 1;
                1
            }
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        rest = behind;
        match token.parse::<f64>() {
            Ok(number) if number.is_infinite() => {
                out.push_str(&serde_json::to_string(UNSAYABLE).expect("a string"));
            }
            Ok(_) if token == "-0" => out.push('0'),
            _ => out.push_str(token),
        }
    }
    (out, deepest)
}

/// Copies the string at the beginning, U+FFFD for half of a surrogate pair; its length with both quotes.
fn push_string(text: &str, out: &mut String) -> usize {
    out.push('"');
    let mut at = 1;
    while !text[at..].starts_with('"') {
        let plain = text[at..].find(['\\', '"']).unwrap_or(text.len() - at);
        out.push_str(&text[at..at + plain]);
        at += plain;
        if !text[at..].starts_with('\\') {
            continue;
        }
        let length = match (code(&text[at..]), code(text.get(at + 6..).unwrap_or_default())) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                out.push_str("\\ufffd");
                at += 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        out.push_str(&text[at..at + length]);
        at += length;
    }
    out.push('"');
    at + 1
}

/// The number of the `\uXXXX` at the beginning, if there is one.
fn code(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

struct JsonValue(Value);

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(JsonValue(element)) = list.next_element()? {
            elements.push(element);
        }
        Ok(Value::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((JsonValue(key), JsonValue(value))) = map.next_entry()? {
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}
