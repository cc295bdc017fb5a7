//! Messages as values: compared with what is expected of them, and written down.

use std::collections::BTreeMap;

use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};
use serde_json::Value;

/// What `$name` stands for, once it was met.
pub(crate) type Captures = BTreeMap<String, Value>;

/// What a `$name` becomes in JSON: a string that no message has.
const MARK: &str = "\u{10fffd}";

/// Puts what was captured into a line that is sent. Names that nobody met stay.
pub(crate) fn substitute(line: &str, captures: &Captures) -> String {
    let replace = |name: &str, quoted: bool| match captures.get(name) {
        Some(Value::String(text)) if quoted => text.clone(),
        Some(value) => value.to_string(),
        None => format!("${name}"),
    };
    with_names(line, replace)
}

/// An expected message. Unquoted names become marks.
///
/// # Errors
/// The line is not JSON.
pub(crate) fn expected(line: &str) -> Result<Value, serde_json::Error> {
    let mark = |name: &str, quoted: bool| {
        if quoted { format!("${name}") } else { format!("\"{MARK}{name}\"") }
    };
    serde_json::from_str(&with_names(line, mark))
}

fn with_names(line: &str, mut replace: impl FnMut(&str, bool) -> String) -> String {
    let mut output = String::new();
    let mut rest = line;
    let mut quoted = false;
    while let Some(at) = rest.find(['"', '$', '\\']) {
        let (before, from) = rest.split_at(at);
        output.push_str(before);
        let length = match from.as_bytes()[0] {
            b'\\' => 2.min(from.len()),
            b'"' => {
                quoted = !quoted;
                1
            }
            _ => {
                let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
                let name = &from[1..];
                let name = &name[..name.find(|character| !is_name(character)).unwrap_or(name.len())];
                output.push_str(&replace(name, quoted));
                rest = &from[1 + name.len()..];
                continue;
            }
        };
        output.push_str(&from[..length]);
        rest = &from[length..];
    }
    output + rest
}

/// Whether a list has these elements and no others, each taken by the first that it matches.
fn matches_in_any_order(expected: &[Value], actual: &[Value], captures: &mut Captures) -> bool {
    let mut left: Vec<&Value> = actual.iter().collect();
    expected.len() == actual.len()
        && expected.iter().all(|one| {
            let found = left.iter().position(|other| {
                let mut attempt = captures.clone();
                let is = matches(one, other, &mut attempt);
                if is {
                    *captures = attempt;
                }
                is
            });
            found.map(|place| left.remove(place)).is_some()
        })
}

/// Whether a message is the expected one. `$_` is anything; any other name is the same thing wherever it stands; a list
/// that begins with `"~"` may come in any order.
pub(crate) fn matches(expected: &Value, actual: &Value, captures: &mut Captures) -> bool {
    match (expected, actual) {
        (Value::String(text), _) if text.starts_with(MARK) => {
            let name = &text[MARK.len()..];
            if name == "_" {
                return true;
            }
            captures.entry(name.to_owned()).or_insert_with(|| actual.clone()) == actual
        }
        (Value::Array(expected), Value::Array(actual))
            if expected.first().is_some_and(|first| first == "~") =>
        {
            matches_in_any_order(&expected[1..], actual, captures)
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len()
                && expected.iter().zip(actual).all(|(left, right)| matches(left, right, captures))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            expected.len() == actual.len()
                && expected
                    .iter()
                    .all(|(key, left)| actual.get(key).is_some_and(|right| matches(left, right, captures)))
        }
        _ => expected == actual,
    }
}

/// How a message is written down when expectations are rewritten: ids that the router chose get names.
pub(crate) fn describe(message: &Value, captures: &mut Captures) -> String {
    let code = message.get(0).and_then(Value::as_u64).unwrap_or_default();
    if code == 2 {
        // basic_session_establishment.txt has all of it.
        return format!("[2, {}, $_]", name_of(&message[1], "session", captures));
    }
    let ids: &[(usize, &str)] = match code {
        17 => &[(2, "publication")],
        33 => &[(2, "subscription")],
        36 => &[(1, "subscription"), (2, "publication")],
        65 => &[(2, "registration")],
        68 => &[(2, "registration")],
        _ => &[],
    };
    let elements = message.as_array().into_iter().flatten().enumerate().map(|(index, element)| {
        match ids.iter().find(|(at, _)| *at == index) {
            Some((_, kind)) => name_of(element, kind, captures),
            None => pretty(element),
        }
    });
    format!("[{}]", elements.collect::<Vec<_>>().join(", "))
}

fn name_of(id: &Value, kind: &str, captures: &mut Captures) -> String {
    let known = captures.iter().find(|(name, value)| *value == id && name.starts_with(kind));
    if let Some((name, _)) = known {
        return format!("${name}");
    }
    let name = (1..).map(|n| format!("{kind}{n}")).find(|name| !captures.contains_key(name));
    let name = name.unwrap_or_default();
    captures.insert(name.clone(), id.clone());
    format!("${name}")
}

/// JSON with a space behind each comma and colon.
fn pretty(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(pretty).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries =
                map.iter().map(|(key, value)| format!("{}: {}", Value::from(&**key), pretty(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A message that a party got, as a value. What is not JSON is written as JSON first.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn value_of(bytes: &[u8], serializer: Serializer) -> Result<Value, String> {
    let message = decode(serializer, Input::Bytes(bytes), DecodeLimits::default());
    let message = message.map_err(|error| error.message)?;
    if serializer == Serializer::Json {
        return serde_json::from_slice(bytes).map_err(|error| error.to_string());
    }
    let mut json = Vec::new();
    Encoder::new().encode(&message, Serializer::Json, &mut json).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

/// A line of JSON in the serializer of the party that sends it.
///
/// # Errors
/// The line is no message, so it cannot be written otherwise; send it as `hex`.
pub(crate) fn bytes_of(line: &str, serializer: Serializer) -> Result<Vec<u8>, String> {
    if serializer == Serializer::Json {
        return Ok(line.as_bytes().to_vec());
    }
    let message = decode(Serializer::Json, Input::Text(line), DecodeLimits::default());
    let mut bytes = Vec::new();
    Encoder::new()
        .encode(&message.map_err(|error| error.message)?, serializer, &mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}
