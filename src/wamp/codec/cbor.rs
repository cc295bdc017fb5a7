//! CBOR (RFC 8949): a strict pull reader that sees through tags, and a writer.

use std::borrow::Cow;

use crate::wamp::options::Text;

use super::reader::{DEPTH_CEILING, Fault, Kind, Reader, utf_8, whole};
use super::writer::{Mark, Writer};
use super::{DecodeLimits, Serializer};

/// Tags whose content refers to other places of the same document (string references, shared values): spliced into
/// another message they would refer to something else.
const REFERRING_TAGS: [u64; 4] = [25, 28, 29, 256];

/// Reads one message.
pub(super) struct CborReader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    depth_max: u32,
}

/// How many elements (entries) of a list (map) are left; `None` where a break ends it.
pub(super) struct CborScope {
    left: Option<u64>,
}

/// One data item without what it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    List(Option<u64>),
    Map(Option<u64>),
    Text(&'a str),
    /// Chunks of definite length follow, up to a break.
    TextChunks,
    Bytes(&'a [u8]),
    /// As `TextChunks`.
    BytesChunks,
    Unsigned(u64),
    /// -1 - n
    Negative(u64),
    Float(f64),
    Boolean(bool),
    Null,
    Undefined,
    Simple,
    Tag(u64),
    Break,
}

impl<'a> CborReader<'a> {
    pub(super) fn new(bytes: &'a [u8], limits: DecodeLimits) -> Self {
        Self { bytes, at: 0, depth: 0, depth_max: limits.depth_max.min(DEPTH_CEILING) }
    }

    #[cold]
    fn fault<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault { what, at: self.at })
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let Some((end, taken)) = end.and_then(|end| Some((end, self.bytes.get(self.at..end)?))) else {
            return self.fault("CBOR: a length above what remains of the message");
        };
        self.at = end;
        Ok(taken)
    }

    /// The argument of a head; `None` for an indefinite length.
    #[inline]
    fn argument(&mut self, information: u8) -> Result<Option<u64>, Fault> {
        match information {
            0..=23 => Ok(Some(u64::from(information))),
            24..=27 => {
                let bytes = self.take(1 << (information - 24))?;
                Ok(Some(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))))
            }
            31 => Ok(None),
            _ => self.fault("CBOR: a reserved form of argument"),
        }
    }

    #[inline]
    fn definite(&self, argument: Option<u64>) -> Result<u64, Fault> {
        match argument {
            Some(argument) => Ok(argument),
            None => self.fault("CBOR: an indefinite length where there is none"),
        }
    }

    #[inline]
    fn str(&mut self, length: u64) -> Result<&'a str, Fault> {
        let start = self.at;
        match utf_8(self.take(length)?) {
            Some(text) => Ok(text),
            None => Err(Fault { what: "CBOR: a string that is not UTF-8", at: start }),
        }
    }

    /// A list or map of `count` elements or entries of at least `size` bytes each must be able to fit.
    #[inline]
    fn count(&self, count: Option<u64>, size: u64) -> Result<Option<u64>, Fault> {
        if count.is_some_and(|count| count > (self.bytes.len() - self.at) as u64 / size) {
            return self.fault("CBOR: a list or map of more elements than bytes remain");
        }
        Ok(count)
    }

    /// Reads one data item, of a list, map, tag or string of chunks only its head.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Fault> {
        let Some(&head) = self.bytes.get(self.at) else {
            return self.fault("CBOR: the message ends where a value is expected");
        };
        self.at += 1;
        let information = head & 0x1f;
        if head >> 5 == 7 {
            return self.simple(information);
        }
        let argument = self.argument(information)?;
        Ok(match head >> 5 {
            0 => Token::Unsigned(self.definite(argument)?),
            1 => Token::Negative(self.definite(argument)?),
            2 => match argument {
                Some(length) => Token::Bytes(self.take(length)?),
                None => Token::BytesChunks,
            },
            3 => match argument {
                Some(length) => Token::Text(self.str(length)?),
                None => Token::TextChunks,
            },
            4 => Token::List(self.count(argument, 1)?),
            5 => Token::Map(self.count(argument, 2)?),
            _ => Token::Tag(self.definite(argument)?),
        })
    }

    fn simple(&mut self, information: u8) -> Result<Token<'a>, Fault> {
        Ok(match information {
            20 => Token::Boolean(false),
            21 => Token::Boolean(true),
            22 => Token::Null,
            23 => Token::Undefined,
            0..=19 => Token::Simple,
            24 => match self.take(1)? {
                [value] if *value >= 32 => Token::Simple,
                _ => return self.fault("CBOR: a simple value that must have one byte has two"),
            },
            25 => {
                let bytes = self.take(2)?;
                Token::Float(half(u16::from(bytes[0]) << 8 | u16::from(bytes[1])))
            }
            26 => {
                let bits = self.take(4)?.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
                Token::Float(f64::from(f32::from_bits(bits)))
            }
            27 => {
                let bits = self.take(8)?.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
                Token::Float(f64::from_bits(bits))
            }
            31 => Token::Break,
            _ => return self.fault("CBOR: a reserved form of argument"),
        })
    }

    /// Whether a tag comes next.
    #[inline]
    fn is_tag(&self) -> bool {
        self.bytes.get(self.at).is_some_and(|head| head >> 5 == 6)
    }

    /// Passes the break that ends an indefinite length, if it is next.
    #[inline]
    fn is_break(&mut self) -> bool {
        let found = self.bytes.get(self.at) == Some(&0xff);
        self.at += usize::from(found);
        found
    }

    /// The next chunk of a string of indefinite length; `None` at its break.
    pub(super) fn text_chunk(&mut self) -> Result<Option<&'a str>, Fault> {
        if self.is_break() {
            return Ok(None);
        }
        match self.token()? {
            Token::Text(chunk) => Ok(Some(chunk)),
            _ => self.fault("CBOR: a chunk of a string that is not a string of definite length"),
        }
    }

    /// As `text_chunk`.
    pub(super) fn bytes_chunk(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        if self.is_break() {
            return Ok(None);
        }
        match self.token()? {
            Token::Bytes(chunk) => Ok(Some(chunk)),
            _ => self.fault("CBOR: a chunk of bytes that is not bytes of definite length"),
        }
    }

    /// All chunks of a string of indefinite length.
    pub(super) fn text_of_chunks(&mut self) -> Result<String, Fault> {
        let mut whole = String::new();
        while let Some(chunk) = self.text_chunk()? {
            whole.push_str(chunk);
        }
        Ok(whole)
    }

    /// Passes tags; how many. Each is a level of nesting to whoever decodes what is spliced.
    #[inline]
    fn pass_tags(&mut self) -> Result<u32, Fault> {
        let mut nested = self.depth;
        while self.is_tag() {
            let start = self.at;
            if let Token::Tag(tag) = self.token()?
                && REFERRING_TAGS.contains(&tag)
            {
                self.at = start;
                return self
                    .fault("CBOR: a tag that refers to other values of the message (25, 28, 29, 256)");
            }
            nested += 1;
            if nested > self.depth_max {
                return self.fault("CBOR: tags are nested too deeply");
            }
        }
        Ok(nested - self.depth)
    }

    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), Fault> {
        if self.depth >= self.depth_max {
            return self.fault("CBOR: lists and maps are nested too deeply");
        }
        self.depth += 1;
        Ok(())
    }

    /// Whether the list or map has another element or entry; leaves it if not.
    #[inline]
    pub(super) fn advance(&mut self, left: &mut Option<u64>) -> bool {
        let more = match left {
            None => !self.is_break(),
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        };
        if !more {
            self.depth -= 1;
        }
        more
    }

    #[inline]
    fn token_if<T>(&mut self, wanted: impl FnOnce(Token<'a>) -> Option<T>) -> Result<Option<T>, Fault> {
        let start = self.at;
        let found = wanted(self.token()?);
        if found.is_none() {
            self.at = start;
        }
        Ok(found)
    }

    #[inline]
    fn untagged_text(&mut self) -> Result<Option<Text<'a>>, Fault> {
        let start = self.at;
        match self.token()? {
            Token::Text(text) => Ok(Some(Cow::Borrowed(text))),
            Token::TextChunks => self.text_of_chunks().map(|text| Some(Cow::Owned(text))),
            _ => {
                self.at = start;
                Ok(None)
            }
        }
    }
}

/// The value of a binary16, which is exact in a double (RFC 8949 appendix D).
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match bits >> 10 & 0x1f {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (fraction + 1024.0) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

impl<'a> Reader<'a> for CborReader<'a> {
    const SERIALIZER: Serializer = Serializer::Cbor;
    type Scope = CborScope;

    fn kind(&mut self) -> Result<Kind, Fault> {
        self.pass_prefix()?;
        let start = self.at;
        let kind = match self.token()? {
            Token::List(_) => Kind::List,
            Token::Map(_) => Kind::Map,
            Token::Text(_) | Token::TextChunks => Kind::Text,
            Token::Bytes(_) | Token::BytesChunks => Kind::Bytes,
            Token::Unsigned(_) => Kind::Unsigned,
            Token::Negative(_) => Kind::OtherInteger,
            Token::Float(_) => Kind::Float,
            Token::Boolean(_) => Kind::Boolean,
            Token::Null | Token::Undefined => Kind::Null,
            Token::Simple | Token::Tag(_) => Kind::Other,
            Token::Break => return self.fault("CBOR: a break where a value is expected"),
        };
        self.at = start;
        Ok(kind)
    }

    /// Passes tags, whose content is what counts.
    #[inline]
    fn pass_prefix(&mut self) -> Result<(), Fault> {
        self.pass_tags().map(drop)
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
    fn list(&mut self) -> Result<Option<CborScope>, Fault> {
        self.pass_prefix()?;
        let left = self.token_if(|token| match token {
            Token::List(left) => Some(left),
            _ => None,
        })?;
        let Some(left) = left else { return Ok(None) };
        self.enter()?;
        Ok(Some(CborScope { left }))
    }

    #[inline]
    fn map(&mut self) -> Result<Option<CborScope>, Fault> {
        self.pass_prefix()?;
        let left = self.token_if(|token| match token {
            Token::Map(left) => Some(left),
            _ => None,
        })?;
        let Some(left) = left else { return Ok(None) };
        self.enter()?;
        Ok(Some(CborScope { left }))
    }

    #[inline]
    fn next(&mut self, scope: &mut CborScope) -> Result<bool, Fault> {
        Ok(self.advance(&mut scope.left))
    }

    #[inline]
    fn key(&mut self, scope: &mut CborScope) -> Result<Option<Text<'a>>, Fault> {
        if !self.advance(&mut scope.left) {
            return Ok(None);
        }
        match self.untagged_text()? {
            Some(key) => Ok(Some(key)),
            None => self.fault("CBOR: a key that is not a string"),
        }
    }

    #[inline]
    fn skip_key(&mut self, scope: &mut CborScope) -> Result<bool, Fault> {
        if !self.advance(&mut scope.left) {
            return Ok(false);
        }
        let start = self.at;
        match self.token()? {
            Token::Text(_) => {}
            Token::TextChunks => while self.text_chunk()?.is_some() {},
            _ => {
                self.at = start;
                return self.fault("CBOR: a key that is not a string");
            }
        }
        Ok(true)
    }

    #[inline]
    fn text(&mut self) -> Result<Option<Text<'a>>, Fault> {
        self.pass_prefix()?;
        self.untagged_text()
    }

    #[inline]
    fn unsigned(&mut self) -> Result<Option<u64>, Fault> {
        self.pass_prefix()?;
        self.token_if(|token| match token {
            Token::Unsigned(value) => Some(value),
            Token::Float(value) => whole(value),
            _ => None,
        })
    }

    #[inline]
    fn boolean(&mut self) -> Result<Option<bool>, Fault> {
        self.pass_prefix()?;
        self.token_if(|token| match token {
            Token::Boolean(value) => Some(value),
            _ => None,
        })
    }

    /// Recurses at most as deep as the limit.
    fn skip(&mut self) -> Result<(), Fault> {
        // Tags around lists around tags: all of them count together.
        let tags = self.pass_tags()?;
        self.depth += tags;
        match self.token()? {
            Token::List(mut left) => {
                self.enter()?;
                while self.advance(&mut left) {
                    self.skip()?;
                }
            }
            Token::Map(mut left) => {
                self.enter()?;
                while self.advance(&mut left) {
                    self.skip()?;
                    self.skip()?;
                }
            }
            Token::TextChunks => while self.text_chunk()?.is_some() {},
            Token::BytesChunks => while self.bytes_chunk()?.is_some() {},
            Token::Break => return self.fault("CBOR: a break where a value is expected"),
            _ => {}
        }
        self.depth -= tags;
        Ok(())
    }

    #[inline]
    fn absent(&mut self) -> Result<bool, Fault> {
        self.pass_prefix()?;
        let absent = matches!(self.bytes.get(self.at), Some(0xf6 | 0xf7));
        self.at += usize::from(absent);
        Ok(absent)
    }

    #[inline]
    fn end(&mut self) -> Result<(), Fault> {
        if self.at < self.bytes.len() {
            return self.fault("CBOR: bytes after the end of the message");
        }
        Ok(())
    }
}

/// Appends CBOR with definite lengths and the shortest heads.
pub(super) struct CborWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> CborWriter<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    #[inline]
    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        if argument < 24 {
            self.out.push(major | argument as u8);
        } else if let Ok(argument) = u8::try_from(argument) {
            self.out.extend_from_slice(&[major | 24, argument]);
        } else if let Ok(argument) = u16::try_from(argument) {
            self.out.push(major | 25);
            self.out.extend_from_slice(&argument.to_be_bytes());
        } else if let Ok(argument) = u32::try_from(argument) {
            self.out.push(major | 26);
            self.out.extend_from_slice(&argument.to_be_bytes());
        } else {
            self.out.push(major | 27);
            self.out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

impl Writer for CborWriter<'_> {
    const SERIALIZER: Serializer = Serializer::Cbor;

    #[inline]
    fn list(&mut self, count: usize) {
        self.head(4, count as u64);
    }

    #[inline]
    fn list_end(&mut self) {}

    #[inline]
    fn map(&mut self, count: usize) {
        self.head(5, count as u64);
    }

    #[inline]
    fn map_end(&mut self) {}

    #[inline]
    fn dict(&mut self) -> Mark {
        self.out.push(0xa0);
        Mark { start: self.out.len() - 1, count: 0 }
    }

    #[inline]
    fn dict_end(&mut self, mark: Mark) {
        if mark.count < 24 {
            self.out[mark.start] = 0xa0 | mark.count as u8;
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
        self.head(3, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        self.head(0, value);
    }

    fn negative(&mut self, value: i64) {
        // -1 - value, which is value with every bit turned.
        self.head(1, !value as u64);
    }

    fn float(&mut self, value: f64) {
        self.out.push(0xfb);
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.out.push(0xf4 | u8::from(value));
    }

    fn null(&mut self) {
        self.out.push(0xf6);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.head(2, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}
