//! What the clients of a run say to each other: a list of three numbers and a text, in each serializer.
//!
//! Written and read here by hand, so that what the router spliced or transcoded is judged by somebody else.

use crosspoint::wamp::Payload;
use crosspoint::wamp::codec::Serializer;

/// Whose message it is, its number, and how long it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub kind: u64,
    pub session: u64,
    pub number: u64,
    pub padding: usize,
}

/// What a content is part of.
pub const EVENT: u64 = 1;
pub const CALL: u64 = 2;
pub const RESULT: u64 = 3;
pub const ERROR: u64 = 4;
pub const TESTAMENT: u64 = 5;
pub const DATABASE: u64 = 6;

/// A kind is one of those, and the number of a part of a call or of a result.
const KINDS: u64 = 16;

/// Part `part` of something of this kind, counted from 0.
pub const fn part_of(kind: u64, part: u64) -> u64 {
    kind + KINDS * part
}

impl Content {
    /// Which part of its call or result it is.
    pub fn part(self) -> u64 {
        self.kind / KINDS
    }

    /// Without the part.
    pub fn base_kind(self) -> u64 {
        self.kind % KINDS
    }

    pub fn encode(self, serializer: Serializer) -> Vec<u8> {
        let text = self.text();
        let numbers = [self.kind, self.session, self.number];
        match serializer {
            Serializer::Json => {
                format!("[{},{},{},\"{text}\"]", self.kind, self.session, self.number).into_bytes()
            }
            Serializer::MsgPack => binary(0x94, 0xcf, 0xdb, numbers, &text),
            Serializer::Cbor => binary(0x84, 0x1b, 0x7a, numbers, &text),
        }
    }

    /// The list, as a value.
    pub fn to_value(self) -> serde_json::Value {
        serde_json::json!([self.kind, self.session, self.number, self.text()])
    }

    /// `None` when it is not as it was sent.
    pub fn of_value(value: &serde_json::Value) -> Option<Self> {
        let number = |place: usize| value[place].as_u64();
        let (kind, session, number) = (number(0)?, number(1)?, number(2)?);
        let content = Self { kind, session, number, padding: value[3].as_str()?.len() };
        (content.to_value() == *value).then_some(content)
    }

    fn text(self) -> String {
        let letter = char::from(b'a' + (self.number % 26) as u8);
        std::iter::repeat_n(letter, self.padding).collect()
    }

    /// `None` when a byte is not as it was sent.
    pub fn decode(payload: Payload<'_>) -> Option<Self> {
        let (numbers, text) = match payload.serializer {
            Serializer::Json => read_json(payload.args)?,
            Serializer::MsgPack => read_binary(payload.args, 0x94, msgpack_number, msgpack_text)?,
            Serializer::Cbor => read_binary(payload.args, 0x84, cbor_number, cbor_text)?,
        };
        let [kind, session, number] = numbers;
        let content = Self { kind, session, number, padding: text.len() };
        (content.text().as_bytes() == text && payload.kwargs.is_empty()).then_some(content)
    }
}

fn binary(list: u8, number_head: u8, text_head: u8, numbers: [u64; 3], text: &str) -> Vec<u8> {
    let mut bytes = vec![list];
    for number in numbers {
        bytes.push(number_head);
        bytes.extend(number.to_be_bytes());
    }
    bytes.push(text_head);
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn read_json(bytes: &[u8]) -> Option<([u64; 3], Vec<u8>)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_prefix('[')?.strip_suffix(']')?;
    let mut parts = text.splitn(4, ',').map(str::trim);
    let mut number = || parts.next()?.parse().ok();
    let numbers = [number()?, number()?, number()?];
    let text = parts.next()?.strip_prefix('"')?.strip_suffix('"')?;
    Some((numbers, text.as_bytes().to_vec()))
}

type Read<T> = fn(&mut &[u8]) -> Option<T>;

fn read_binary(
    mut bytes: &[u8],
    list: u8,
    number: Read<u64>,
    text_length: Read<u64>,
) -> Option<([u64; 3], Vec<u8>)> {
    if take(&mut bytes, 1)? != u64::from(list) {
        return None;
    }
    let numbers = [number(&mut bytes)?, number(&mut bytes)?, number(&mut bytes)?];
    let length = text_length(&mut bytes)?;
    (bytes.len() as u64 == length).then(|| (numbers, bytes.to_vec()))
}

/// A big-endian number of so many bytes.
fn take(bytes: &mut &[u8], count: usize) -> Option<u64> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn msgpack_number(bytes: &mut &[u8]) -> Option<u64> {
    match take(bytes, 1)? {
        small @ 0..=0x7f => Some(small),
        head @ 0xcc..=0xcf => take(bytes, 1 << (head - 0xcc)),
        _ => None,
    }
}

fn msgpack_text(bytes: &mut &[u8]) -> Option<u64> {
    match take(bytes, 1)? {
        short @ 0xa0..=0xbf => Some(short - 0xa0),
        head @ 0xd9..=0xdb => take(bytes, 1 << (head - 0xd9)),
        _ => None,
    }
}

fn cbor_number(bytes: &mut &[u8]) -> Option<u64> {
    match take(bytes, 1)? {
        small @ 0..=23 => Some(small),
        head @ 24..=27 => take(bytes, 1 << (head - 24)),
        _ => None,
    }
}

fn cbor_text(bytes: &mut &[u8]) -> Option<u64> {
    match take(bytes, 1)? {
        short @ 0x60..=0x77 => Some(short - 0x60),
        head @ 0x78..=0x7b => take(bytes, 1 << (head - 0x78)),
        _ => None,
    }
}
