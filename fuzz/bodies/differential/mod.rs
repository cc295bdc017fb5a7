//! Our readers beside well-kept libraries: both take the same bytes, and what is transcoded means the same to a library
//! of the other serializer. `libraries` has the differences that are meant, `value` what docs/serialization.md changes.

mod cbor;
mod json;
mod msgpack;
mod value;

use crosspoint::wamp::Message;
use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};

use value::Value;

/// As docs/serialization.md has it.
const DEPTH_MAX: usize = 64;

/// What a library makes of bytes that are one whole value.
struct Reading {
    /// Beyond [`DEPTH_MAX`] nobody may look at it.
    value: Value,
    /// Lists and maps within each other, and in CBOR tags.
    depth: usize,
    /// Has a tag of CBOR that refers to another place of the message: meant to be refused.
    refers: bool,
}

impl Reading {
    fn is_taken(&self, levels_around: usize) -> bool {
        self.depth + levels_around <= DEPTH_MAX && !self.refers
    }
}

pub(crate) fn differential_json(bytes: &[u8]) {
    check(Serializer::Json, bytes);
}

pub(crate) fn differential_msgpack(bytes: &[u8]) {
    check(Serializer::MsgPack, bytes);
}

pub(crate) fn differential_cbor(bytes: &[u8]) {
    check(Serializer::Cbor, bytes);
}

/// Tries the bytes as an argument and as a message. In how many other serializers the argument could be said; `None`
/// where it is no value that is taken.
pub(crate) fn check(serializer: Serializer, bytes: &[u8]) -> Option<usize> {
    check_message(serializer, bytes);
    let whole = publication(serializer, bytes);
    let said = check_message(serializer, &whole);
    if let Some(reading) = read(serializer, bytes) {
        // The message and its arguments are the two levels around.
        assert_eq!(said.is_some(), reading.is_taken(2), "{:?}", decoded(serializer, &whole));
    }
    said
}

/// A PUBLISH whose only argument is `bytes`.
fn publication(serializer: Serializer, bytes: &[u8]) -> Vec<u8> {
    let (before, after): (&[u8], &[u8]) = match serializer {
        Serializer::Json => (br#"[16,1,{},"a.b",["#, b"]]"),
        Serializer::MsgPack => (b"\x95\x10\x01\x80\xa3a.b\x91", b""),
        Serializer::Cbor => (b"\x85\x10\x01\xa0\x63a.b\x81", b""),
    };
    [before, bytes, after].concat()
}

fn read(serializer: Serializer, bytes: &[u8]) -> Option<Reading> {
    match serializer {
        Serializer::Json => json::read(bytes),
        Serializer::MsgPack => msgpack::read(bytes),
        Serializer::Cbor => cbor::read(bytes),
    }
}

fn decoded(serializer: Serializer, bytes: &[u8]) -> Result<Message<'_>, String> {
    decode(serializer, Input::Bytes(bytes), DecodeLimits::default()).map_err(|error| error.to_string())
}

/// The elements of a message that we took or wrote, as the library reads them.
fn elements(serializer: Serializer, bytes: &[u8]) -> Vec<Value> {
    let Some(reading) = read(serializer, bytes) else {
        panic!("the library for {serializer:?} refuses {:?}", String::from_utf8_lossy(bytes));
    };
    assert!(reading.is_taken(0), "{} levels, refers: {}", reading.depth, reading.refers);
    match reading.value {
        Value::List(elements) => elements,
        value => panic!("not a list: {value:?}"),
    }
}

/// What we take as a message, the library takes as a value, and it arrives in every other serializer as it should.
fn check_message(serializer: Serializer, bytes: &[u8]) -> Option<usize> {
    let message = decoded(serializer, bytes).ok()?;
    let mut encoder = Encoder::new();
    let mut spliced = Vec::new();
    encoder.encode(&message, serializer, &mut spliced).expect("a splice is always representable");
    let sent = elements(serializer, bytes);
    let spliced = elements(serializer, &spliced);
    let application = application_from(&spliced);
    compare_splice(&sent, &spliced, application);

    let mut said = 0;
    for other in Serializer::ALL.into_iter().filter(|other| *other != serializer) {
        let expected: Option<Vec<Value>> = spliced
            .iter()
            .enumerate()
            .map(|(at, element)| match at >= application {
                true => element.said_in(serializer, other),
                false => authextra_said_in(element, serializer, other),
            })
            .collect();
        let mut there = Vec::new();
        match (encoder.encode(&message, other, &mut there), expected) {
            (Ok(()), Some(expected)) => {
                let arrived = Value::List(elements(other, &there)).settled();
                assert_eq!(arrived, Value::List(expected).settled(), "from {serializer:?} to {other:?}");
                said += 1;
            }
            (Err(_), None) => {}
            (Ok(()), None) => panic!("not representable in {other:?}, and yet {there:?}"),
            (Err(_), Some(expected)) => panic!("representable in {other:?}: {expected:?}"),
        }
    }
    Some(said)
}

/// The place of the first element that belongs to the application: args and kwargs, or the extra of an authentication.
fn application_from(elements: &[Value]) -> usize {
    match elements.first() {
        Some(Value::Integer(4 | 5)) => 2,
        Some(Value::Integer(3 | 50 | 70)) => 3,
        Some(Value::Integer(16 | 36 | 48 | 68)) => 4,
        Some(Value::Integer(8)) => 5,
        _ => usize::MAX,
    }
}

/// Details as they are, but for their entry that belongs to the application.
fn authextra_said_in(element: &Value, from: Serializer, to: Serializer) -> Option<Value> {
    let Value::Map(entries) = element else { return Some(element.clone()) };
    let entry = |(key, value): &(Value, Value)| {
        let value = if *key == Value::text("authextra") { value.said_in(from, to)? } else { value.clone() };
        Some((key.clone(), value))
    };
    entries.iter().map(entry).collect::<Option<_>>().map(Value::Map)
}

/// What goes to a receiver of the same serializer is what was sent, without unknown options and an empty payload.
fn compare_splice(sent: &[Value], spliced: &[Value], application: usize) {
    for (at, element) in sent.iter().enumerate() {
        match (element, spliced.get(at)) {
            (sent, Some(spliced)) if at >= application => assert_eq!(sent, spliced),
            (Value::Map(sent), Some(Value::Map(spliced))) => compare_options(sent, spliced),
            (sent, Some(spliced)) => assert!(is_alike(sent, spliced), "{sent:?} became {spliced:?}"),
            (Value::List(left_out), None) => assert!(left_out.is_empty()),
            (Value::Map(left_out), None) => assert!(left_out.is_empty()),
            (left_out, None) => panic!("left out: {left_out:?}"),
        }
    }
    assert!(spliced.len() <= sent.len());
}

fn compare_options(sent: &[(Value, Value)], spliced: &[(Value, Value)]) {
    // Roles are written anew from the features that are known.
    for (key, value) in spliced.iter().filter(|(key, _)| *key != Value::text("roles")) {
        let given = sent.iter().rev().find(|(name, value)| name == key && *value != Value::Null);
        let Some((_, given)) = given else { panic!("an option that nobody gave: {key:?}") };
        assert!(is_alike(given, value), "{key:?}: {given:?} became {value:?}");
    }
}

/// The same, or an integer that JavaScript's libraries wrote as a float.
fn is_alike(sent: &Value, spliced: &Value) -> bool {
    match (sent, spliced) {
        (Value::Float(bits), Value::Integer(integer)) => f64::from_bits(*bits) == *integer as f64,
        (Value::List(sent), Value::List(spliced)) => {
            sent.len() == spliced.len() && sent.iter().zip(spliced).all(|(one, two)| is_alike(one, two))
        }
        (sent, spliced) => sent == spliced,
    }
}
