//! What rmpv says of MessagePack.

use chrono::{DateTime, Datelike as _};
use serde::de::IgnoredAny;

use super::Reading;
use super::value::Value;

/// Where rmpv stops: it counts two for each list or map, and would need more stack than a test has.
const RMPV_DEPTH_MAX: usize = 400;

/// `None` where it refuses, or where it takes what is not MessagePack:
/// - `strings_not_utf_8`: it hands them on as bytes;
/// - `reserved_byte`: it takes 0xc1 for nil, while rmp-serde refuses it.
pub(super) fn read(bytes: &[u8]) -> Option<Reading> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, RMPV_DEPTH_MAX).ok()?;
    if !rest.is_empty() || !is_utf_8(&value) || rmp_serde::from_slice::<IgnoredAny>(bytes).is_err() {
        return None;
    }
    Some(Reading { depth: depth(&value), value: value_of(value), refers: false })
}

fn is_utf_8(value: &rmpv::Value) -> bool {
    match value {
        rmpv::Value::String(text) => text.is_str(),
        rmpv::Value::Array(elements) => elements.iter().all(is_utf_8),
        rmpv::Value::Map(entries) => entries.iter().all(|(key, value)| is_utf_8(key) && is_utf_8(value)),
        _ => true,
    }
}

fn depth(value: &rmpv::Value) -> usize {
    match value {
        rmpv::Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        rmpv::Value::Map(entries) => {
            1 + entries.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn value_of(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => Value::Boolean(value),
        rmpv::Value::Integer(value) => {
            Value::Integer(value.as_u64().map_or_else(|| value.as_i64().unwrap_or(0).into(), i128::from))
        }
        rmpv::Value::F32(value) => Value::float(value.into()),
        rmpv::Value::F64(value) => Value::float(value),
        rmpv::Value::String(text) => Value::text(text.as_str().unwrap_or_default()),
        rmpv::Value::Binary(bytes) => Value::Bytes(bytes),
        rmpv::Value::Array(elements) => Value::List(elements.into_iter().map(value_of).collect()),
        rmpv::Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (value_of(key), value_of(value))).collect())
        }
        // `undefined` of JavaScript's libraries.
        rmpv::Value::Ext(0, data) if data == [0] => Value::Null,
        rmpv::Value::Ext(-1, data) => rfc_3339(&data).map_or(Value::Unsayable, Value::Text),
        rmpv::Value::Ext(..) => Value::Unsayable,
    }
}

/// The text of a timestamp, by chrono.
fn rfc_3339(data: &[u8]) -> Option<String> {
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let (seconds, nanoseconds) = match data.len() {
        4 => (number(data), 0),
        8 => (number(data) % (1 << 34), number(data) >> 34),
        12 => (number(&data[4..]), number(&data[..4])),
        _ => return None,
    };
    // chrono would take more for a leap second; the specification of MessagePack does not.
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    let moment = DateTime::from_timestamp(seconds as i64, nanoseconds)?;
    if !(0..=9999).contains(&moment.year()) {
        return None;
    }
    let text = moment.format("%Y-%m-%dT%H:%M:%S.%9f").to_string();
    Some(format!("{}Z", text.trim_end_matches('0').trim_end_matches('.')))
}
