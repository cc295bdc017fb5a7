//! Payloads as values: each serializer onto the tape.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use simd_json::{Buffers, StaticNode};

use super::cbor::{self, CborReader};
use super::msgpack::{self, MsgPackReader};
use super::reader::{DEPTH_CEILING, Fault};
use super::tape::{Node, Tape, VALUES_MAX};
use super::{DecodeLimits, NotRepresentable, timestamp};

/// Payloads were held to the real limits when they came in; these only bound the recursion here.
const LIMITS: DecodeLimits = DecodeLimits { depth_max: DEPTH_CEILING, list_max: 0 };

impl From<Fault> for NotRepresentable {
    /// Only for bytes that no decoder of ours let in.
    fn from(_: Fault) -> Self {
        Self
    }
}

/// What simd-json needs to be kept from payload to payload.
pub(super) struct JsonValues {
    buffers: Buffers,
    tape: simd_json::Tape<'static>,
}

impl Default for JsonValues {
    fn default() -> Self {
        Self { buffers: Buffers::default(), tape: simd_json::Tape(Vec::new()) }
    }
}

impl JsonValues {
    /// Reads a list or map. `copy` becomes a copy of `bytes` that simd-json unescapes into.
    pub(super) fn read<'t>(
        &mut self,
        bytes: &[u8],
        copy: &'t mut Vec<u8>,
        tape: &mut Tape<'t>,
    ) -> Result<(), NotRepresentable> {
        if has_too_many_values(bytes) {
            return Err(NotRepresentable);
        }
        copy.clear();
        copy.extend_from_slice(bytes);
        replace_lone_surrogates(copy);
        let mut simd = std::mem::replace(&mut self.tape, simd_json::Tape(Vec::new())).reset();
        let read = simd_json::fill_tape(copy, &mut self.buffers, &mut simd);
        if read.is_ok() {
            push_json(&simd.0, 0, tape);
        }
        self.tape = simd.reset();
        read.map_err(|_| NotRepresentable)
    }
}

/// Whether there are more than [`VALUES_MAX`] values: simd-json would make notes of them all.
fn has_too_many_values(json: &[u8]) -> bool {
    // Every value but the last has something behind it.
    if json.len() <= 2 * VALUES_MAX {
        return false;
    }
    let (mut values, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b':' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values > VALUES_MAX
}

/// Copies the value at `at`; the index behind it. As deep as the decoder let it be.
fn push_json<'t>(nodes: &[simd_json::Node<'t>], at: usize, tape: &mut Tape<'t>) -> usize {
    let Some(node) = nodes.get(at) else { return at };
    let mut next = at + 1;
    match *node {
        simd_json::Node::Array { len, .. } => {
            let opened = tape.open();
            for _ in 0..len {
                next = push_json(nodes, next, tape);
            }
            tape.close_list(opened, len);
        }
        simd_json::Node::Object { len, .. } => {
            let opened = tape.open();
            for _ in 0..len {
                if let Some(simd_json::Node::String(key)) = nodes.get(next) {
                    tape.push(Node::Text(Cow::Borrowed(key)));
                }
                next = push_json(nodes, next + 1, tape);
            }
            tape.close_map(opened, len);
        }
        simd_json::Node::String(text) => tape.push(text_or_bytes(text)),
        simd_json::Node::Static(value) => tape.push(match value {
            StaticNode::I64(value) => Node::signed(value),
            StaticNode::U64(value) => Node::Unsigned(value),
            StaticNode::F64(value) => Node::Float(value),
            StaticNode::Bool(value) => Node::Boolean(value),
            StaticNode::Null => Node::Null,
        }),
    }
    next
}

/// WAMP's bytes in JSON: a string of NUL and base64. What only begins with NUL stays a string.
pub(super) fn text_or_bytes(text: &str) -> Node<'_> {
    match text.strip_prefix('\0').and_then(|encoded| STANDARD.decode(encoded).ok()) {
        Some(bytes) => Node::Bytes(Cow::Owned(bytes)),
        None => Node::Text(Cow::Borrowed(text)),
    }
}

/// Writes `\uFFFD` over every escaped half of a surrogate pair that has no other half.
fn replace_lone_surrogates(json: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = json[at..].iter().position(|&byte| byte == b'\\') {
        at += found;
        match escaped_code(json, at) {
            Some(0xd800..0xdc00) if matches!(escaped_code(json, at + 6), Some(0xdc00..0xe000)) => at += 12,
            Some(0xd800..0xe000) => {
                json[at + 2..at + 6].copy_from_slice(b"FFFD");
                at += 6;
            }
            _ => at += 2,
        }
        if at >= json.len() {
            return;
        }
    }
}

/// The number of the `\uXXXX` at `at`, if there is one.
fn escaped_code(json: &[u8], at: usize) -> Option<u32> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

/// Reads one MessagePack value.
pub(super) fn read_msgpack<'t>(bytes: &'t [u8], tape: &mut Tape<'t>) -> Result<(), NotRepresentable> {
    push_msgpack(&mut MsgPackReader::new(bytes, LIMITS), tape)
}

fn push_msgpack<'t>(reader: &mut MsgPackReader<'t>, tape: &mut Tape<'t>) -> Result<(), NotRepresentable> {
    let node = match reader.token()? {
        msgpack::Token::List(count) => {
            let opened = tape.open();
            reader.enter(count)?;
            for _ in 0..count {
                push_msgpack(reader, tape)?;
            }
            reader.leave();
            tape.close_list(opened, count as usize);
            return Ok(());
        }
        msgpack::Token::Map(count) => {
            let opened = tape.open();
            reader.enter(count)?;
            for _ in 0..count {
                push_msgpack(reader, tape)?;
                push_msgpack(reader, tape)?;
            }
            reader.leave();
            tape.close_map(opened, count as usize);
            return Ok(());
        }
        msgpack::Token::Text(text) => Node::Text(Cow::Borrowed(text)),
        msgpack::Token::Bytes(bytes) => Node::Bytes(Cow::Borrowed(bytes)),
        msgpack::Token::Unsigned(value) => Node::Unsigned(value),
        msgpack::Token::Negative(value) => Node::Negative(value),
        msgpack::Token::Float(value) => Node::Float(value),
        msgpack::Token::Boolean(value) => Node::Boolean(value),
        msgpack::Token::Null => Node::Null,
        msgpack::Token::Extension(-1, data) => {
            Node::Text(Cow::Owned(timestamp::of_extension(data).ok_or(NotRepresentable)?))
        }
        // `undefined`, as JavaScript libraries write it.
        msgpack::Token::Extension(0, [0]) => Node::Null,
        msgpack::Token::Extension(..) => return Err(NotRepresentable),
    };
    tape.push(node);
    Ok(())
}

/// Reads one CBOR value.
pub(super) fn read_cbor<'t>(bytes: &'t [u8], tape: &mut Tape<'t>) -> Result<(), NotRepresentable> {
    push_cbor(&mut CborReader::new(bytes, LIMITS), tape)
}

fn push_cbor<'t>(reader: &mut CborReader<'t>, tape: &mut Tape<'t>) -> Result<(), NotRepresentable> {
    let mut innermost_tag = None;
    let token = loop {
        match reader.token()? {
            cbor::Token::Tag(tag) => innermost_tag = Some(tag),
            token => break token,
        }
    };
    let node = match token {
        cbor::Token::List(mut left) => {
            let opened = tape.open();
            let mut count = 0;
            reader.enter()?;
            while reader.advance(&mut left) {
                push_cbor(reader, tape)?;
                count += 1;
            }
            tape.close_list(opened, count);
            return Ok(());
        }
        cbor::Token::Map(mut left) => {
            let opened = tape.open();
            let mut count = 0;
            reader.enter()?;
            while reader.advance(&mut left) {
                push_cbor(reader, tape)?;
                push_cbor(reader, tape)?;
                count += 1;
            }
            tape.close_map(opened, count);
            return Ok(());
        }
        cbor::Token::Bytes(bytes) => cbor_bytes(innermost_tag, Cow::Borrowed(bytes))?,
        cbor::Token::BytesChunks => {
            let mut whole = Vec::new();
            while let Some(chunk) = reader.bytes_chunk()? {
                whole.extend_from_slice(chunk);
            }
            cbor_bytes(innermost_tag, Cow::Owned(whole))?
        }
        cbor::Token::Text(text) => Node::Text(Cow::Borrowed(text)),
        cbor::Token::TextChunks => Node::Text(Cow::Owned(reader.text_of_chunks()?)),
        cbor::Token::Unsigned(value) => Node::Unsigned(value),
        cbor::Token::Negative(value) => negative(value),
        cbor::Token::Float(value) => Node::Float(value),
        cbor::Token::Boolean(value) => Node::Boolean(value),
        cbor::Token::Null | cbor::Token::Undefined => Node::Null,
        cbor::Token::Simple | cbor::Token::Tag(_) | cbor::Token::Break => return Err(NotRepresentable),
    };
    tape.push(node);
    Ok(())
}

/// -1 - `value`: an integer where it fits, a double where not.
fn negative<'t>(value: u64) -> Node<'t> {
    match i64::try_from(value) {
        Ok(value) => Node::Negative(!value),
        Err(_) => Node::Float((-1 - i128::from(value)) as f64),
    }
}

/// Bytes, or the big integer that tags 2 and 3 make of them.
fn cbor_bytes(tag: Option<u64>, bytes: Cow<'_, [u8]>) -> Result<Node<'_>, NotRepresentable> {
    let below_zero = match tag {
        Some(2) => false,
        Some(3) => true,
        _ => return Ok(Node::Bytes(bytes)),
    };
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let significant = &bytes[zeros..];
    if significant.len() <= 8 {
        let value = significant.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        return Ok(if below_zero { negative(value) } else { Node::Unsigned(value) });
    }
    // The first eight bytes, whose last bit stands for all that is cut off, round as the whole would. Below zero the
    // whole is one more than the bytes say, because they are -1 - n.
    let (first, cut_off) = significant.split_at(8);
    let carried = below_zero && cut_off.iter().all(|&byte| byte == 0xff);
    let sticky = !carried && (below_zero || cut_off.iter().any(|&byte| byte != 0));
    let first = first.iter().fold(0, |value, &byte| value << 8 | u128::from(byte));
    let first = (first + u128::from(carried)) | u128::from(sticky);
    let magnitude = cut_off.iter().take(128).fold(first as f64, |value, _| value * 256.0);
    if !magnitude.is_finite() {
        return Err(NotRepresentable);
    }
    Ok(Node::Float(if below_zero { -magnitude } else { magnitude }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(json: &str) -> String {
        let mut bytes = json.as_bytes().to_vec();
        replace_lone_surrogates(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_not() {
        assert_eq!(replaced(r#""\uD83D\uDE00""#), r#""\uD83D\uDE00""#);
        assert_eq!(replaced(r#""\ud83d""#), r#""\uFFFD""#);
        assert_eq!(replaced(r#""\udE00x\ud83d\ud83d\ude00""#), r#""\uFFFDx\uFFFD\ud83d\ude00""#);
        assert_eq!(replaced(r#""\\ud83d \\\ud83d""#), r#""\\ud83d \\\uFFFD""#);
        assert_eq!(replaced(r#""\u0041\"""#), r#""\u0041\"""#);
    }

    #[test]
    fn big_integers_of_cbor_become_the_nearest_double() {
        let node = |tag, bytes: &[u8]| cbor_bytes(Some(tag), Cow::Owned(bytes.to_vec()));
        assert_eq!(node(2, &[]), Ok(Node::Unsigned(0)));
        assert_eq!(node(2, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 5]), Ok(Node::Unsigned(5)));
        assert_eq!(node(2, &[0xff; 8]), Ok(Node::Unsigned(u64::MAX)));
        assert_eq!(node(3, &[0]), Ok(Node::Negative(-1)));
        assert_eq!(node(3, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Ok(Node::Negative(i64::MIN)));
        assert_eq!(node(2, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Node::Float(18_446_744_073_709_551_616.0)));
        assert_eq!(node(3, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Node::Float(-18_446_744_073_709_551_616.0)));
        // 2^53 + 1 shifted up: exactly between two doubles, and decided by the last bit alone.
        let tie = |last| [0, 0x20, 0, 0, 0, 0, 0, 1, 0, 0, last];
        assert_eq!(node(2, &tie(0)), Ok(Node::Float(2f64.powi(77))));
        assert_eq!(node(2, &tie(1)), Ok(Node::Float((2f64.powi(53) + 2.0) * 2f64.powi(24))));
        // -1 - n, and n itself is on the other side of such a middle, or rounds to another one of the two.
        let below = |low: [u8; 2]| node(3, &[&[1, 0, 0, 0, 0, 0, 0][..], &low].concat());
        assert_eq!(below([0x07, 0xff]), Ok(Node::Float(-2f64.powi(64))));
        assert_eq!(below([0x08, 0x00]), Ok(Node::Float(-2f64.powi(64) - 2f64.powi(12))));
        assert_eq!(below([0x17, 0xff]), Ok(Node::Float(-2f64.powi(64) - 2f64.powi(13))));
        assert_eq!(node(3, &[0xff; 9]), Ok(Node::Float(-2f64.powi(72))));
        assert_eq!(negative(0x8000_0000_0000_0400), Node::Float(-2f64.powi(63) - 2048.0));
        assert_eq!(negative(0x8000_0000_0000_03ff), Node::Float(-2f64.powi(63)));
        assert_eq!(node(2, &[0xff; 129]), Err(NotRepresentable));
        assert_eq!(node(2, &[0xff; 4000]), Err(NotRepresentable));
        assert!(matches!(node(2, &[0x7f; 128]), Ok(Node::Float(value)) if value > 1e307));
    }
}
