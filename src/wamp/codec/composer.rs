//! Payloads made value by value, for what comes out of databases.

use super::cbor::CborWriter;
use super::json::{JsonReader, JsonWriter};
use super::msgpack::MsgPackWriter;
use super::reader::Reader as _;
use super::writer::{Mark, Writer};
use super::{DecodeLimits, Encoder, NotRepresentable, Serializer};
use crate::wamp::message::Value;

/// A list or map whose end has not come.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where its head lies.
    start: usize,
    count: u32,
    is_map: bool,
}

/// The head of a list or map in the binary serializers, whose count is written when it is known: always four bytes of it.
const HEAD_BYTES: usize = 5;

/// Writes one value: a list or a map, and what is in it. How many there will be need not be known.
#[derive(Debug)]
pub struct Composer {
    serializer: Serializer,
    bytes: Vec<u8>,
    open: Vec<Open>,
    encoder: Encoder,
}

/// Writes with the writer of the serializer.
macro_rules! write {
    ($self:ident, $writer:ident => $write:expr) => {
        match $self.serializer {
            Serializer::Json => {
                let $writer = &mut JsonWriter::continued(&mut $self.bytes);
                $write
            }
            Serializer::MsgPack => {
                let $writer = &mut MsgPackWriter::new(&mut $self.bytes);
                $write
            }
            Serializer::Cbor => {
                let $writer = &mut CborWriter::new(&mut $self.bytes);
                $write
            }
        }
    };
}

impl Composer {
    /// For one serializer.
    #[must_use]
    pub fn new(serializer: Serializer) -> Self {
        Self { serializer, bytes: Vec::new(), open: Vec::new(), encoder: Encoder::new() }
    }

    /// The serializer.
    #[must_use]
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// How much was written, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A list begins.
    pub fn open_list(&mut self) {
        self.open(false);
    }

    /// A map begins: [`Self::key`] before each of its values.
    pub fn open_map(&mut self) {
        self.open(true);
    }

    fn open(&mut self, is_map: bool) {
        self.count();
        match self.serializer {
            Serializer::Json => {
                let writer = &mut JsonWriter::continued(&mut self.bytes);
                if is_map { writer.map(0) } else { writer.list(0) }
            }
            Serializer::MsgPack => {
                self.bytes.extend_from_slice(&[if is_map { 0xdf } else { 0xdd }, 0, 0, 0, 0])
            }
            Serializer::Cbor => self.bytes.extend_from_slice(&[if is_map { 0xba } else { 0x9a }, 0, 0, 0, 0]),
        }
        let start = self.bytes.len().saturating_sub(HEAD_BYTES);
        self.open.push(Open { start, count: 0, is_map });
    }

    /// The innermost list or map ends.
    pub fn close(&mut self) {
        let Some(Open { start, count, is_map }) = self.open.pop() else {
            debug_assert!(false, "nothing is open");
            return;
        };
        match self.serializer {
            Serializer::Json => self.bytes.push(if is_map { b'}' } else { b']' }),
            _ => self.bytes[start + 1..start + HEAD_BYTES].copy_from_slice(&count.to_be_bytes()),
        }
    }

    /// The key of the next value, in a map.
    pub fn key(&mut self, key: &str) {
        debug_assert!(self.open.last().is_some_and(|open| open.is_map));
        if let Some(open) = self.open.last_mut() {
            open.count += 1;
        }
        write!(self, writer => writer.key(&mut Mark::default(), key));
    }

    /// One more value of a list. Those of maps were counted with their keys.
    fn count(&mut self) {
        if let Some(open) = self.open.last_mut()
            && !open.is_map
        {
            open.count += 1;
        }
    }

    /// Null.
    pub fn null(&mut self) {
        self.count();
        write!(self, writer => writer.null());
    }

    /// true or false.
    pub fn boolean(&mut self, value: bool) {
        self.count();
        write!(self, writer => writer.boolean(value));
    }

    /// An integer.
    pub fn signed(&mut self, value: i64) {
        self.count();
        match u64::try_from(value) {
            Ok(value) => write!(self, writer => writer.unsigned(value)),
            Err(_) => write!(self, writer => writer.negative(value)),
        }
    }

    /// An integer.
    pub fn unsigned(&mut self, value: u64) {
        self.count();
        write!(self, writer => writer.unsigned(value));
    }

    /// A double; null in JSON where it is no number.
    pub fn float(&mut self, value: f64) {
        self.count();
        write!(self, writer => writer.float(value));
    }

    /// A string.
    pub fn text(&mut self, text: &str) {
        self.count();
        write!(self, writer => writer.text(text));
    }

    /// Bytes; in JSON NUL and base64.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count();
        write!(self, writer => writer.bytes(bytes));
    }

    /// A value that is JSON text: as it stands in JSON, so that its numbers keep their digits.
    ///
    /// # Errors
    /// It is no JSON, or too large or deep to be said in another serializer; nothing is written then.
    pub fn json(&mut self, text: &str) -> Result<(), NotRepresentable> {
        let mut reader = JsonReader::new(text, DecodeLimits::default());
        reader.skip().and_then(|()| reader.end())?;
        let bytes = text.as_bytes();
        if self.serializer == Serializer::Json {
            self.count();
            JsonWriter::continued(&mut self.bytes).raw(bytes.trim_ascii());
            return Ok(());
        }
        let value = Value { serializer: Serializer::Json, bytes };
        let transcoded = self.encoder.transcode_value(value, self.serializer)?;
        self.count();
        self.bytes.extend_from_slice(&transcoded);
        Ok(())
    }

    /// What was written; nothing is left to be closed.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        debug_assert!(self.open.is_empty(), "a list or map was not closed");
        self.bytes
    }

    /// The same, and the next value may be written.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        debug_assert!(self.open.is_empty(), "a list or map was not closed");
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::codec::datum::to_json;

    fn composed(serializer: Serializer, compose: impl FnOnce(&mut Composer)) -> String {
        let mut composer = Composer::new(serializer);
        compose(&mut composer);
        let bytes = composer.finish();
        to_json(Value { serializer, bytes: &bytes }, &mut Encoder::new()).unwrap().into_owned()
    }

    #[test]
    fn every_value_in_every_serializer() {
        for serializer in Serializer::ALL {
            let json = composed(serializer, |composer| {
                composer.open_list();
                composer.null();
                composer.boolean(true);
                composer.signed(-5);
                composer.signed(5);
                composer.unsigned(u64::MAX);
                composer.float(1.5);
                composer.text("a\"b");
                composer.bytes(&[1, 2, 3]);
                composer.json(r#" {"a":[1,2,{}]} "#).unwrap();
                composer.open_map();
                composer.key("k");
                composer.open_list();
                composer.close();
                composer.key("l");
                composer.text("x");
                composer.close();
                composer.close();
            });
            assert_eq!(
                json,
                r#"[null,true,-5,5,18446744073709551615,1.5,"a\"b","\u0000AQID",{"a":[1,2,{}]},{"k":[],"l":"x"}]"#,
                "{serializer:?}"
            );
        }
    }

    #[test]
    fn long_lists_and_maps_have_their_count() {
        for serializer in Serializer::ALL {
            let json = composed(serializer, |composer| {
                composer.open_list();
                for number in 0..70_000 {
                    composer.unsigned(number);
                }
                composer.close();
            });
            assert_eq!(json.matches(',').count(), 69_999, "{serializer:?}");
        }
    }

    #[test]
    fn numbers_of_json_keep_their_digits_in_json() {
        let json = composed(Serializer::Json, |composer| {
            composer.open_list();
            composer.json("1.10").unwrap();
            composer.json("12345678901234567890123").unwrap();
            composer.close();
        });
        assert_eq!(json, "[1.10,12345678901234567890123]");
    }

    #[test]
    fn what_is_no_json_is_not_written() {
        for serializer in Serializer::ALL {
            for text in ["", "{", "1 2", "nul", "[1,]", "\u{1}"] {
                let json = composed(serializer, |composer| {
                    composer.open_list();
                    assert_eq!(composer.json(text), Err(NotRepresentable), "{text:?}");
                    composer.close();
                });
                assert_eq!(json, "[]", "{serializer:?}");
            }
        }
    }
}
