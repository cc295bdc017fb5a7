//! JSON (RFC 8259): a strict pull reader that writes nothing, and a writer.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::wamp::options::Text;

use super::reader::{DEPTH_CEILING, Fault, Kind, Reader};
use super::scan::end_of_plain;
use super::writer::{Mark, Writer};
use super::{DecodeLimits, Serializer};

/// Reads one message that is known to be UTF-8.
pub(super) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    depth_max: u32,
}

/// What is left of a list or map: only its first element has no comma before it.
pub(super) struct JsonScope {
    first: bool,
}

impl<'a> JsonReader<'a> {
    pub(super) fn new(text: &'a str, limits: DecodeLimits) -> Self {
        Self { text, at: 0, depth: 0, depth_max: limits.depth_max.min(DEPTH_CEILING) }
    }

    #[cold]
    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { what, at: self.at })
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space; `None` at the end.
    #[inline]
    fn peek_value(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline]
    fn enter(&mut self) -> Result<JsonScope, Fault> {
        if self.depth >= self.depth_max {
            return self.fault("JSON: lists and maps are nested too deeply");
        }
        self.depth += 1;
        self.at += 1;
        Ok(JsonScope { first: true })
    }

    /// Passes the comma before the next element, or `close`: whether there is a next element.
    #[inline]
    fn advance(&mut self, scope: &mut JsonScope, close: u8) -> Result<bool, Fault> {
        let first = std::mem::replace(&mut scope.first, false);
        match self.peek_value() {
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            Some(_) => self.fault("JSON: expected a comma or the end of the list or map"),
            None => self.fault("JSON: the message ends within a list or map"),
        }
    }

    #[inline]
    fn quote(&mut self) -> Result<(), Fault> {
        if self.peek_value() != Some(b'"') {
            return self.fault("JSON: expected a string as key");
        }
        Ok(())
    }

    #[inline]
    fn colon(&mut self) -> Result<(), Fault> {
        if self.peek_value() != Some(b':') {
            return self.fault("JSON: expected a colon after a key");
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a string, standing at its quote.
    #[inline]
    fn string(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at + 1;
        let end = end_of_plain(self.text.as_bytes(), start);
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or_default()));
        }
        self.string_with_escapes(start)
    }

    #[cold]
    fn string_with_escapes(&mut self, start: usize) -> Result<Text<'a>, Fault> {
        let mut unescaped = String::new();
        self.at = start;
        loop {
            let end = end_of_plain(self.text.as_bytes(), self.at);
            unescaped.push_str(self.text.get(self.at..end).unwrap_or_default());
            self.at = end;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => unescaped.push(self.escape()?),
                _ => return self.unplain(),
            }
        }
    }

    /// Passes a string, standing at its quote.
    #[inline]
    fn skip_string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            self.at = end_of_plain(self.text.as_bytes(), self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.skip_escape()?,
                _ => return self.unplain(),
            }
        }
    }

    #[cold]
    fn unplain<T>(&self) -> Result<T, Fault> {
        match self.peek() {
            None => self.fault("JSON: the message ends within a string"),
            Some(_) => self.fault("JSON: a control character in a string that is not escaped"),
        }
    }

    #[inline]
    fn skip_escape(&mut self) -> Result<(), Fault> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                self.hexadecimal()?;
            }
            _ => return self.fault("JSON: an escape that JSON does not have"),
        }
        Ok(())
    }

    /// The character of an escape; U+FFFD for one half of a surrogate pair.
    fn escape(&mut self) -> Result<char, Fault> {
        let plain = match self.text.as_bytes().get(self.at + 1) {
            Some(b'u') => return self.unicode_escape(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            _ => return self.fault("JSON: an escape that JSON does not have"),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let high = self.hexadecimal()?;
        if (0xd800..0xdc00).contains(&high) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            let before = self.at;
            let low = self.hexadecimal()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// The number of a `\uXXXX`, standing at its backslash.
    #[inline]
    fn hexadecimal(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at + 2..self.at + 6).unwrap_or_default();
        let mut code = 0;
        for &digit in digits {
            let Some(value) = char::from(digit).to_digit(16) else {
                return self.fault("JSON: \\u without four hexadecimal digits");
            };
            code = code << 4 | value;
        }
        if digits.len() < 4 {
            return self.fault("JSON: \\u without four hexadecimal digits");
        }
        self.at += 6;
        Ok(code)
    }

    /// Passes a number, standing at its first byte: whether it is an integer.
    #[inline]
    fn skip_number(&mut self) -> Result<bool, Fault> {
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.fault("JSON: a number that begins with a needless zero");
            }
        } else {
            self.skip_digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
            integer = false;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.skip_digits()?;
            integer = false;
        }
        Ok(integer)
    }

    #[inline]
    fn skip_digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return self.fault("JSON: expected a digit");
        }
        Ok(())
    }

    #[inline]
    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.fault("JSON: expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    fn number_kind(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        let integer = self.skip_number()?;
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.at = start;
        Ok(match integer {
            false => Kind::Float,
            true if text.parse::<u64>().is_ok() => Kind::Unsigned,
            true => Kind::OtherInteger,
        })
    }
}

/// The kinds of the lists and maps that are open, one bit each, so that nesting costs no stack.
struct Nesting {
    maps: [u64; DEPTH_CEILING as usize / 64],
    depth: usize,
}

impl Nesting {
    #[inline]
    fn push(&mut self, map: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        self.maps[word] = self.maps[word] & !(1 << bit) | u64::from(map) << bit;
        self.depth += 1;
    }

    #[inline]
    fn in_map(&self) -> bool {
        let innermost = self.depth - 1;
        self.maps[innermost / 64] >> (innermost % 64) & 1 == 1
    }
}

impl<'a> Reader<'a> for JsonReader<'a> {
    const SERIALIZER: Serializer = Serializer::Json;
    type Scope = JsonScope;

    #[inline]
    fn pass_prefix(&mut self) -> Result<(), Fault> {
        self.peek_value();
        Ok(())
    }

    fn kind(&mut self) -> Result<Kind, Fault> {
        Ok(match self.peek_value() {
            Some(b'[') => Kind::List,
            Some(b'{') => Kind::Map,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            Some(b'-' | b'0'..=b'9') => return self.number_kind(),
            Some(_) => return self.fault("JSON: expected a value"),
            None => return self.fault("JSON: the message ends where a value is expected"),
        })
    }

    #[inline]
    fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn slice(&self, start: usize) -> &'a [u8] {
        self.text.as_bytes().get(start..self.at).unwrap_or_default()
    }

    #[inline]
    fn list(&mut self) -> Result<Option<JsonScope>, Fault> {
        match self.peek_value() {
            Some(b'[') => self.enter().map(Some),
            _ => Ok(None),
        }
    }

    #[inline]
    fn map(&mut self) -> Result<Option<JsonScope>, Fault> {
        match self.peek_value() {
            Some(b'{') => self.enter().map(Some),
            _ => Ok(None),
        }
    }

    #[inline]
    fn next(&mut self, scope: &mut JsonScope) -> Result<bool, Fault> {
        self.advance(scope, b']')
    }

    #[inline]
    fn key(&mut self, scope: &mut JsonScope) -> Result<Option<Text<'a>>, Fault> {
        if !self.advance(scope, b'}')? {
            return Ok(None);
        }
        self.quote()?;
        let key = self.string()?;
        self.colon()?;
        Ok(Some(key))
    }

    #[inline]
    fn skip_key(&mut self, scope: &mut JsonScope) -> Result<bool, Fault> {
        if !self.advance(scope, b'}')? {
            return Ok(false);
        }
        self.quote()?;
        self.skip_string()?;
        self.colon()?;
        Ok(true)
    }

    #[inline]
    fn text(&mut self) -> Result<Option<Text<'a>>, Fault> {
        match self.peek_value() {
            Some(b'"') => self.string().map(Some),
            _ => Ok(None),
        }
    }

    #[inline]
    fn unsigned(&mut self) -> Result<Option<u64>, Fault> {
        let Some(b'0'..=b'9') = self.peek_value() else { return Ok(None) };
        let start = self.at;
        let mut value = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let length = self.at - start;
        if length > 1 && self.text.as_bytes()[start] == b'0' {
            return self.fault("JSON: a number that begins with a needless zero");
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            self.at = start;
            return Ok(None);
        }
        // Nineteen digits always fit; with more, the sum may have wrapped.
        if length > 19 && self.text.get(start..self.at).unwrap_or_default().parse() != Ok(value) {
            self.at = start;
            return Ok(None);
        }
        Ok(Some(value))
    }

    #[inline]
    fn boolean(&mut self) -> Result<Option<bool>, Fault> {
        match self.peek_value() {
            Some(b't') => self.word("true").map(|()| Some(true)),
            Some(b'f') => self.word("false").map(|()| Some(false)),
            _ => Ok(None),
        }
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let mut open = Nesting { maps: [0; DEPTH_CEILING as usize / 64], depth: 0 };
        let mut scope = JsonScope { first: true };
        loop {
            match self.peek_value() {
                Some(b'"') => self.skip_string()?,
                Some(b'-' | b'0'..=b'9') => {
                    self.skip_number()?;
                }
                Some(byte @ (b'[' | b'{')) => {
                    scope = self.enter()?;
                    open.push(byte == b'{');
                }
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(_) => return self.fault("JSON: expected a value"),
                None => return self.fault("JSON: the message ends where a value is expected"),
            }
            // A value is complete, or a list or map was entered: on to the next value, leaving what ends here.
            loop {
                if open.depth == 0 {
                    return Ok(());
                }
                let more = if open.in_map() { self.skip_key(&mut scope)? } else { self.next(&mut scope)? };
                if more {
                    break;
                }
                open.depth -= 1;
                scope.first = false;
            }
        }
    }

    #[inline]
    fn absent(&mut self) -> Result<bool, Fault> {
        if self.peek_value() != Some(b'n') {
            return Ok(false);
        }
        self.word("null").map(|()| true)
    }

    #[inline]
    fn end(&mut self) -> Result<(), Fault> {
        match self.peek_value() {
            None => Ok(()),
            Some(_) => self.fault("JSON: bytes after the end of the message"),
        }
    }
}

/// Appends JSON without white space.
pub(super) struct JsonWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
}

impl<'o> JsonWriter<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// Goes on with what lies in `out`, all of which is one value that is not complete.
    pub(super) fn continued(out: &'o mut Vec<u8>) -> Self {
        Self { out, start: 0 }
    }

    /// The comma before a value, unless it is the first: no complete value ends with one of these bytes.
    #[inline]
    fn comma(&mut self) {
        if self.out.len() > self.start && !matches!(self.out.last(), Some(b'[' | b'{' | b':')) {
            self.out.push(b',');
        }
    }

    #[inline]
    fn quoted(&mut self, text: &str) {
        let bytes = text.as_bytes();
        self.out.push(b'"');
        let mut at = 0;
        loop {
            let end = end_of_plain(bytes, at);
            self.out.extend_from_slice(&bytes[at..end]);
            let Some(&byte) = bytes.get(end) else { break };
            self.escaped(byte);
            at = end + 1;
        }
        self.out.push(b'"');
    }

    #[cold]
    fn escaped(&mut self, byte: u8) {
        let letter = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                self.out.extend_from_slice(b"\\u00");
                self.out.push(DIGITS[usize::from(byte >> 4)]);
                self.out.push(DIGITS[usize::from(byte & 15)]);
                return;
            }
        };
        self.out.extend_from_slice(&[b'\\', letter]);
    }

    #[inline]
    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

impl Writer for JsonWriter<'_> {
    const SERIALIZER: Serializer = Serializer::Json;

    #[inline]
    fn list(&mut self, _count: usize) {
        self.comma();
        self.out.push(b'[');
    }

    #[inline]
    fn list_end(&mut self) {
        self.out.push(b']');
    }

    #[inline]
    fn map(&mut self, _count: usize) {
        self.comma();
        self.out.push(b'{');
    }

    #[inline]
    fn map_end(&mut self) {
        self.out.push(b'}');
    }

    #[inline]
    fn dict(&mut self) -> Mark {
        self.map(0);
        Mark::default()
    }

    #[inline]
    fn dict_end(&mut self, _mark: Mark) {
        self.map_end();
    }

    #[inline]
    fn key(&mut self, _mark: &mut Mark, key: &str) {
        self.comma();
        self.quoted(key);
        self.out.push(b':');
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.comma();
        self.quoted(text);
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        self.comma();
        self.digits(value);
    }

    fn negative(&mut self, value: i64) {
        self.comma();
        self.out.push(b'-');
        self.digits(value.unsigned_abs());
    }

    fn float(&mut self, value: f64) {
        self.comma();
        if value.is_finite() {
            // Shortest digits that read back the same, with a point or an exponent; writing to a Vec cannot fail.
            let _ = write!(self.out, "{value:?}");
        } else {
            self.out.extend_from_slice(b"null");
        }
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.comma();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn null(&mut self) {
        self.comma();
        self.out.extend_from_slice(b"null");
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.comma();
        self.out.extend_from_slice(b"\"\\u0000");
        let start = self.out.len();
        let Some(length) = base64::encoded_len(bytes.len(), true) else { return };
        self.out.resize(start + length, b'=');
        // The room is exactly what the encoding takes.
        let _ = STANDARD.encode_slice(bytes, &mut self.out[start..]);
        self.out.push(b'"');
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.comma();
        self.out.extend_from_slice(bytes);
    }
}
