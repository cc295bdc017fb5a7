//! MessagePack, the version with `str` and `bin` apart: a strict pull reader, and a writer.

use std::borrow::Cow;

use crate::wamp::options::Text;

use super::reader::{DEPTH_CEILING, Fault, Kind, Reader, utf_8, whole};
use super::writer::{Mark, Writer};
use super::{DecodeLimits, Serializer};

/// Reads one message.
pub(super) struct MsgPackReader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    depth_max: u32,
}

/// How many elements (entries) of a list (map) are left.
pub(super) struct MsgPackScope {
    left: u32,
}

/// One value without what a list or map holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    List(u32),
    Map(u32),
    Text(&'a str),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Boolean(bool),
    Null,
    Bytes(&'a [u8]),
    Extension(i8, &'a [u8]),
}

impl<'a> MsgPackReader<'a> {
    pub(super) fn new(bytes: &'a [u8], limits: DecodeLimits) -> Self {
        Self { bytes, at: 0, depth: 0, depth_max: limits.depth_max.min(DEPTH_CEILING) }
    }

    #[cold]
    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { what, at: self.at })
    }

    #[inline]
    fn peek(&self) -> Result<u8, Fault> {
        match self.bytes.get(self.at) {
            Some(&byte) => Ok(byte),
            None => self.fault("MessagePack: the message ends where a value is expected"),
        }
    }

    /// The next `length` bytes.
    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end));
        let Some(taken) = taken else {
            return self.fault("MessagePack: a length above what remains of the message");
        };
        self.at += length;
        Ok(taken)
    }

    /// A big-endian integer of `size` bytes.
    #[inline]
    fn big_endian(&mut self, size: usize) -> Result<u64, Fault> {
        Ok(self.take(size)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A big-endian length of `size` bytes, at most four.
    #[inline]
    fn length(&mut self, size: usize) -> Result<u32, Fault> {
        Ok(self.big_endian(size)? as u32)
    }

    #[inline]
    fn str(&mut self, length: u32) -> Result<&'a str, Fault> {
        let start = self.at;
        let bytes = self.take(length as usize)?;
        match utf_8(bytes) {
            Some(text) => Ok(text),
            None => Err(Fault { what: "MessagePack: a string that is not UTF-8", at: start }),
        }
    }

    /// A list or map of `count` elements or entries of at least `size` bytes each must be able to fit.
    #[inline]
    fn count(&self, count: u32, size: u64) -> Result<u32, Fault> {
        if u64::from(count) * size > (self.bytes.len() - self.at) as u64 {
            return self.fault("MessagePack: a list or map of more elements than bytes remain");
        }
        Ok(count)
    }

    /// Reads one value, of a list or map only its head.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Fault> {
        let head = self.peek()?;
        self.at += 1;
        Ok(match head {
            0x00..=0x7f => Token::Unsigned(u64::from(head)),
            0x80..=0x8f => Token::Map(self.count(u32::from(head & 0x0f), 2)?),
            0x90..=0x9f => Token::List(self.count(u32::from(head & 0x0f), 1)?),
            0xa0..=0xbf => Token::Text(self.str(u32::from(head & 0x1f))?),
            0xc0 => Token::Null,
            0xc1 => {
                self.at -= 1;
                return self.fault("MessagePack: the byte 0xc1, which is no value");
            }
            0xc2 => Token::Boolean(false),
            0xc3 => Token::Boolean(true),
            0xc4..=0xc6 => {
                let length = self.length(1 << (head - 0xc4))?;
                Token::Bytes(self.take(length as usize)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (head - 0xc7))?;
                self.extension(length)?
            }
            0xca => Token::Float(f64::from(f32::from_bits(self.big_endian(4)? as u32))),
            0xcb => Token::Float(f64::from_bits(self.big_endian(8)?)),
            0xcc..=0xcf => Token::Unsigned(self.big_endian(1 << (head - 0xcc))?),
            0xd0..=0xd3 => {
                let size = 1 << (head - 0xd0);
                let unused = 64 - 8 * size as u32;
                signed((self.big_endian(size)? << unused) as i64 >> unused)
            }
            0xd4..=0xd8 => self.extension(1 << (head - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (head - 0xd9))?;
                Token::Text(self.str(length)?)
            }
            0xdc | 0xdd => {
                let count = self.length(2 << (head - 0xdc))?;
                Token::List(self.count(count, 1)?)
            }
            0xde | 0xdf => {
                let count = self.length(2 << (head - 0xde))?;
                Token::Map(self.count(count, 2)?)
            }
            0xe0..=0xff => Token::Negative(i64::from(head as i8)),
        })
    }

    fn extension(&mut self, length: u32) -> Result<Token<'a>, Fault> {
        let kind = self.big_endian(1)? as u8 as i8;
        Ok(Token::Extension(kind, self.take(length as usize)?))
    }

    #[inline]
    pub(super) fn enter(&mut self, left: u32) -> Result<MsgPackScope, Fault> {
        if self.depth >= self.depth_max {
            return self.fault("MessagePack: lists and maps are nested too deeply");
        }
        self.depth += 1;
        Ok(MsgPackScope { left })
    }

    #[inline]
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    #[inline]
    fn advance(&mut self, scope: &mut MsgPackScope) -> bool {
        if scope.left == 0 {
            self.leave();
            return false;
        }
        scope.left -= 1;
        true
    }

    /// The next value if `wanted` takes it; otherwise the position stays.
    #[inline]
    fn token_if<T>(&mut self, wanted: impl FnOnce(Token<'a>) -> Option<T>) -> Result<Option<T>, Fault> {
        let start = self.at;
        let found = wanted(self.token()?);
        if found.is_none() {
            self.at = start;
        }
        Ok(found)
    }
}

fn signed<'a>(value: i64) -> Token<'a> {
    match u64::try_from(value) {
        Ok(value) => Token::Unsigned(value),
        Err(_) => Token::Negative(value),
    }
}

impl<'a> Reader<'a> for MsgPackReader<'a> {
    const SERIALIZER: Serializer = Serializer::MsgPack;
    type Scope = MsgPackScope;

    fn kind(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        let kind = match self.token()? {
            Token::List(_) => Kind::List,
            Token::Map(_) => Kind::Map,
            Token::Text(_) => Kind::Text,
            Token::Unsigned(_) => Kind::Unsigned,
            Token::Negative(_) => Kind::OtherInteger,
            Token::Float(_) => Kind::Float,
            Token::Boolean(_) => Kind::Boolean,
            Token::Null => Kind::Null,
            Token::Bytes(_) => Kind::Bytes,
            // `undefined`, as JavaScript libraries write it.
            Token::Extension(0, [0]) => Kind::Null,
            Token::Extension(..) => Kind::Other,
        };
        self.at = start;
        Ok(kind)
    }

    #[inline]
    fn pass_prefix(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    #[inline]
    fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn slice(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    #[inline]
    fn list(&mut self) -> Result<Option<MsgPackScope>, Fault> {
        let count = self.token_if(|token| match token {
            Token::List(count) => Some(count),
            _ => None,
        })?;
        count.map(|count| self.enter(count)).transpose()
    }

    #[inline]
    fn map(&mut self) -> Result<Option<MsgPackScope>, Fault> {
        let count = self.token_if(|token| match token {
            Token::Map(count) => Some(count),
            _ => None,
        })?;
        count.map(|count| self.enter(count)).transpose()
    }

    #[inline]
    fn next(&mut self, scope: &mut MsgPackScope) -> Result<bool, Fault> {
        Ok(self.advance(scope))
    }

    #[inline]
    fn key(&mut self, scope: &mut MsgPackScope) -> Result<Option<Text<'a>>, Fault> {
        if !self.advance(scope) {
            return Ok(None);
        }
        match self.text()? {
            Some(key) => Ok(Some(key)),
            None => self.fault("MessagePack: a key that is not a string"),
        }
    }

    #[inline]
    fn skip_key(&mut self, scope: &mut MsgPackScope) -> Result<bool, Fault> {
        Ok(self.key(scope)?.is_some())
    }

    #[inline]
    fn text(&mut self) -> Result<Option<Text<'a>>, Fault> {
        self.token_if(|token| match token {
            Token::Text(text) => Some(Cow::Borrowed(text)),
            _ => None,
        })
    }

    #[inline]
    fn unsigned(&mut self) -> Result<Option<u64>, Fault> {
        self.token_if(|token| match token {
            Token::Unsigned(value) => Some(value),
            Token::Float(value) => whole(value),
            _ => None,
        })
    }

    #[inline]
    fn boolean(&mut self) -> Result<Option<bool>, Fault> {
        self.token_if(|token| match token {
            Token::Boolean(value) => Some(value),
            _ => None,
        })
    }

    /// Recurses at most as deep as the limit.
    fn skip(&mut self) -> Result<(), Fault> {
        let values = match self.token()? {
            Token::List(count) => u64::from(count),
            Token::Map(count) => u64::from(count) * 2,
            _ => return Ok(()),
        };
        self.enter(0)?;
        for _ in 0..values {
            self.skip()?;
        }
        self.leave();
        Ok(())
    }

    #[inline]
    fn absent(&mut self) -> Result<bool, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = match *rest {
            [0xc0, ..] => 1,
            // `undefined`, as JavaScript libraries write it: an extension of type 0 and one byte, 0.
            [0xd4, 0, 0, ..] => 3,
            _ => 0,
        };
        self.at += length;
        Ok(length > 0)
    }

    #[inline]
    fn end(&mut self) -> Result<(), Fault> {
        if self.at < self.bytes.len() {
            return self.fault("MessagePack: bytes after the end of the message");
        }
        Ok(())
    }
}

/// Appends MessagePack in its shortest forms.
pub(super) struct MsgPackWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> MsgPackWriter<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A head with a big-endian length of two or four bytes.
    fn long(&mut self, head_16: u8, length: usize) {
        if let Ok(length) = u16::try_from(length) {
            self.out.push(head_16);
            self.out.extend_from_slice(&length.to_be_bytes());
        } else {
            // No message reaches 4 GiB, so no length in it does.
            self.out.push(head_16 + 1);
            self.out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

impl Writer for MsgPackWriter<'_> {
    const SERIALIZER: Serializer = Serializer::MsgPack;

    #[inline]
    fn list(&mut self, count: usize) {
        match count {
            0..16 => self.out.push(0x90 | count as u8),
            _ => self.long(0xdc, count),
        }
    }

    #[inline]
    fn list_end(&mut self) {}

    #[inline]
    fn map(&mut self, count: usize) {
        match count {
            0..16 => self.out.push(0x80 | count as u8),
            _ => self.long(0xde, count),
        }
    }

    #[inline]
    fn map_end(&mut self) {}

    #[inline]
    fn dict(&mut self) -> Mark {
        self.out.push(0x80);
        Mark { start: self.out.len() - 1, count: 0 }
    }

    #[inline]
    fn dict_end(&mut self, mark: Mark) {
        if mark.count < 16 {
            self.out[mark.start] = 0x80 | mark.count as u8;
            return;
        }
        let entries = self.out.split_off(mark.start + 1);
        self.out.pop();
        self.map(mark.count);
        self.out.extend_from_slice(&entries);
    }

    #[inline]
    fn key(&mut self, mark: &mut Mark, key: &str) {
        mark.count += 1;
        self.text(key);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        match text.len() {
            length @ 0..32 => self.out.push(0xa0 | length as u8),
            length @ 32..256 => self.out.extend_from_slice(&[0xd9, length as u8]),
            length => self.long(0xda, length),
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else if let Ok(value) = u8::try_from(value) {
            self.out.extend_from_slice(&[0xcc, value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.out.push(0xcd);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.out.push(0xce);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else {
            self.out.push(0xcf);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    fn negative(&mut self, value: i64) {
        if value >= -32 {
            self.out.push(value as u8);
        } else if let Ok(value) = i8::try_from(value) {
            self.out.extend_from_slice(&[0xd0, value as u8]);
        } else if let Ok(value) = i16::try_from(value) {
            self.out.push(0xd1);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.out.push(0xd2);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else {
            self.out.push(0xd3);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    fn float(&mut self, value: f64) {
        self.out.push(0xcb);
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.out.push(0xc2 | u8::from(value));
    }

    fn null(&mut self) {
        self.out.push(0xc0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match bytes.len() {
            length @ 0..256 => self.out.extend_from_slice(&[0xc4, length as u8]),
            length => self.long(0xc5, length),
        }
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}
