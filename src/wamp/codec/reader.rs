//! What `decode` asks of every serializer: a pull reader over one message.

use crate::wamp::error::ProtocolError;
use crate::wamp::options::Text;

use super::Serializer;

/// The deepest nesting that any limit can allow: what recursion over a payload may cost in stack.
pub(super) const DEPTH_CEILING: u32 = 256;

/// What the next value is, in words for the people who wrote the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Map,
    Text,
    Unsigned,
    /// An integer below zero, or beyond 64 bits.
    OtherInteger,
    Float,
    Boolean,
    Null,
    Bytes,
    /// A MessagePack extension, or an unassigned simple value of CBOR.
    Other,
}

impl Kind {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::List => "a list",
            Self::Map => "a map",
            Self::Text => "a string",
            Self::Unsigned => "an integer",
            Self::OtherInteger => "an integer that is negative or beyond 64 bits",
            Self::Float => "a float",
            Self::Boolean => "a boolean",
            Self::Null => "null",
            Self::Bytes => "bytes",
            Self::Other => "a value of an extension type",
        }
    }
}

/// Bytes that are not the grammar of their serializer, or above a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// For people; begins with the serializer's name.
    pub(super) what: &'static str,
    /// Where, counted in bytes from the beginning of the message.
    pub(super) at: usize,
}

impl From<Fault> for ProtocolError {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self::new(format!("{}, at byte {}", fault.what, fault.at))
    }
}

/// The integer that a float stands for exactly: JavaScript libraries for MessagePack and CBOR write those above 2^32
/// as floats, ids among them.
pub(super) fn whole(value: f64) -> Option<u64> {
    const EXACT_MAX: f64 = (1u64 << 53) as f64;
    ((0.0..=EXACT_MAX).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

/// Bytes as a string, if they are UTF-8.
#[inline]
pub(super) fn utf_8(bytes: &[u8]) -> Option<&str> {
    // Below this the call that picks the processor's best way costs more than it saves.
    const SHORT: usize = 64;
    if bytes.len() < SHORT { str::from_utf8(bytes).ok() } else { simdutf8::basic::from_utf8(bytes).ok() }
}

/// A pull reader over the bytes of one message, strict about the whole grammar of its serializer.
///
/// The typed functions return `Ok(None)`, and consume nothing but white space and tags, where the next value is of
/// another type. Entering a list or map beyond the depth limit is a fault, and so is every length above the bytes
/// that remain.
pub(super) trait Reader<'a> {
    /// The serializer that this reads.
    const SERIALIZER: Serializer;
    /// What is left of a list or map that was entered.
    type Scope;

    /// Passes white space, or tags, before the next value.
    fn pass_prefix(&mut self) -> Result<(), Fault>;
    /// The type of the next value; passes white space and tags before it.
    fn kind(&mut self) -> Result<Kind, Fault>;
    /// Where the next byte is read from.
    fn position(&self) -> usize;
    /// The bytes from `start` to the position.
    fn slice(&self, start: usize) -> &'a [u8];
    /// Enters a list.
    fn list(&mut self) -> Result<Option<Self::Scope>, Fault>;
    /// Enters a map.
    fn map(&mut self) -> Result<Option<Self::Scope>, Fault>;
    /// Whether the list has another element; leaves the list if not.
    fn next(&mut self, scope: &mut Self::Scope) -> Result<bool, Fault>;
    /// The key of the next entry of a map, which must be a string; leaves the map after the last.
    fn key(&mut self, scope: &mut Self::Scope) -> Result<Option<Text<'a>>, Fault>;
    /// As `key`, without the string.
    fn skip_key(&mut self, scope: &mut Self::Scope) -> Result<bool, Fault>;
    /// A string.
    fn text(&mut self) -> Result<Option<Text<'a>>, Fault>;
    /// An integer in 0..2^64, encoded as an integer.
    fn unsigned(&mut self) -> Result<Option<u64>, Fault>;
    /// true or false.
    fn boolean(&mut self) -> Result<Option<bool>, Fault>;
    /// Validates one value of any type, and passes it.
    fn skip(&mut self) -> Result<(), Fault>;
    /// Nothing but white space may be left.
    fn end(&mut self) -> Result<(), Fault>;

    /// Passes a value that says that there is none (null, undefined). JavaScript clients write the options that their
    /// user did not set like that.
    fn absent(&mut self) -> Result<bool, Fault>;

    /// The bytes of a list, validated; none at all if it is empty.
    fn raw_list(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        self.pass_prefix()?;
        let start = self.position();
        let Some(mut scope) = self.list()? else { return Ok(None) };
        if !self.next(&mut scope)? {
            return Ok(Some(&[]));
        }
        loop {
            self.skip()?;
            if !self.next(&mut scope)? {
                return Ok(Some(self.slice(start)));
            }
        }
    }

    /// The bytes of a map with string keys, validated; none at all if it is empty.
    fn raw_map(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        self.pass_prefix()?;
        let start = self.position();
        let Some(mut scope) = self.map()? else { return Ok(None) };
        if !self.skip_key(&mut scope)? {
            return Ok(Some(&[]));
        }
        loop {
            self.skip()?;
            if !self.skip_key(&mut scope)? {
                return Ok(Some(self.slice(start)));
            }
        }
    }
}
