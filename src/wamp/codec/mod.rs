//! Bytes to messages and back, for each serializer (docs/serialization.md).
//!
//! Decoding is strict and writes nothing: args and kwargs stay the sender's bytes and are spliced into what is sent
//! on. Only where the receiver speaks another serializer are they read as values and written anew.

mod batch;
mod cbor;
mod composer;
mod datum;
mod decode;
mod elements;
mod encode;
mod json;
mod msgpack;
mod reader;
mod scan;
mod tape;
mod timestamp;
mod transcode;
mod values;
mod writer;

use std::fmt;

use super::error::ProtocolError;
use super::message::{Event, Message, Value};
use super::payload::Payload;

pub use timestamp::timestamp_text;

pub use batch::{append_batched, batch_begin, batch_end, next_of_batch};
pub use composer::Composer;
pub use datum::{Datum, data, entries, to_json};
pub use elements::{first_elements, list_bytes, map_bytes};
pub use timestamp::{parse_rfc_3339, rfc_3339};

/// The serializers that the router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serializer {
    /// RFC 8259 in UTF-8.
    Json,
    /// MessagePack, the version with `str` and `bin` apart.
    MsgPack,
    /// RFC 8949.
    Cbor,
}

impl Serializer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::MsgPack, Self::Cbor];
}

/// Bounds that hold before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// How deep lists and maps may nest, the message itself counted; above 256 it counts as 256. In CBOR a tag within
    /// a tag is nesting too.
    pub depth_max: u32,
    /// How many entries a list in options may have (`exclude`, `eligible`, `authmethods`, …).
    pub list_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { depth_max: 64, list_max: 1000 }
    }
}

/// A payload that cannot be written in the receiver's serializer (docs/serialization.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRepresentable;

impl fmt::Display for NotRepresentable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payload has a value that the receiver's serializer cannot represent")
    }
}

impl std::error::Error for NotRepresentable {}

/// The bytes of one message as a transport hands them over.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// UTF-8 that was checked already, as in a WebSocket text message.
    Text(&'a str),
    /// Bytes that nobody looked at yet.
    Bytes(&'a [u8]),
}

/// Reads one message.
///
/// The whole of it is validated, the payload and unknown options too, so that what is spliced into a message to
/// another client is valid there. Nothing is allocated but lists in options and strings with escapes.
///
/// # Errors
/// What was wrong and where, for the people who wrote the peer.
pub fn decode<'a>(
    serializer: Serializer,
    input: Input<'a>,
    limits: DecodeLimits,
) -> Result<Message<'a>, ProtocolError> {
    let bytes = match (serializer, input) {
        (Serializer::Json, Input::Text(text)) => {
            return decode::decode(json::JsonReader::new(text, limits), limits);
        }
        (_, Input::Text(text)) => text.as_bytes(),
        (_, Input::Bytes(bytes)) => bytes,
    };
    match serializer {
        Serializer::Json => decode::decode(json::JsonReader::new(checked(bytes)?, limits), limits),
        Serializer::MsgPack => decode::decode(msgpack::MsgPackReader::new(bytes, limits), limits),
        Serializer::Cbor => decode::decode(cbor::CborReader::new(bytes, limits), limits),
    }
}

fn checked(bytes: &[u8]) -> Result<&str, ProtocolError> {
    if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
        return Ok(text);
    }
    let at = simdutf8::compat::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    Err(ProtocolError::new(format!("JSON: not UTF-8, at byte {at}")))
}

/// A payload in a serializer that it did not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPayload {
    serializer: Serializer,
    args: Vec<u8>,
    kwargs: Vec<u8>,
}

impl OwnedPayload {
    /// A list and a map in this serializer; none at all where they are empty.
    #[must_use]
    pub fn new(serializer: Serializer, args: Vec<u8>, kwargs: Vec<u8>) -> Self {
        Self { serializer, args, kwargs }
    }

    /// The payload, to be spliced into messages of its serializer.
    #[must_use]
    pub fn as_payload(&self) -> Payload<'_> {
        Payload { serializer: self.serializer, args: &self.args, kwargs: &self.kwargs }
    }
}

/// Writes messages. It keeps scratch for payloads that change serializers, so there is one for each core.
#[derive(Debug, Default)]
pub struct Encoder {
    transcoder: transcode::Transcoder,
}

impl Encoder {
    /// An encoder without scratch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one message to `out`. A payload in the same serializer is spliced, another is transcoded.
    ///
    /// # Errors
    /// The payload has a value that `serializer` cannot represent; `out` is then as it was.
    pub fn encode(
        &mut self,
        message: &Message<'_>,
        serializer: Serializer,
        out: &mut Vec<u8>,
    ) -> Result<(), NotRepresentable> {
        let start = out.len();
        let transcoder = &mut self.transcoder;
        let encoded = match serializer {
            Serializer::Json => encode::encode(message, &mut json::JsonWriter::new(out), transcoder),
            Serializer::MsgPack => encode::encode(message, &mut msgpack::MsgPackWriter::new(out), transcoder),
            Serializer::Cbor => encode::encode(message, &mut cbor::CborWriter::new(out), transcoder),
        };
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    /// Appends an EVENT with this payload instead of its own: the same one, written in another serializer.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_event(
        &mut self,
        event: &Event<'_>,
        payload: &Payload<'_>,
        serializer: Serializer,
        out: &mut Vec<u8>,
    ) -> Result<(), NotRepresentable> {
        let start = out.len();
        let transcoder = &mut self.transcoder;
        let encoded = match serializer {
            Serializer::Json => {
                encode::encode_event(event, payload, &mut json::JsonWriter::new(out), transcoder)
            }
            Serializer::MsgPack => {
                encode::encode_event(event, payload, &mut msgpack::MsgPackWriter::new(out), transcoder)
            }
            Serializer::Cbor => {
                encode::encode_event(event, payload, &mut cbor::CborWriter::new(out), transcoder)
            }
        };
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    /// Writes a payload in another serializer, so that many messages can be made of it and it is transcoded once.
    ///
    /// # Errors
    /// It has a value that `serializer` cannot represent, or more values than are transcoded.
    pub fn transcode(
        &mut self,
        payload: &Payload<'_>,
        serializer: Serializer,
    ) -> Result<OwnedPayload, NotRepresentable> {
        let mut one = |bytes: &[u8]| -> Result<Vec<u8>, NotRepresentable> {
            if bytes.is_empty() {
                return Ok(Vec::new());
            }
            self.transcode_value(Value { serializer: payload.serializer, bytes }, serializer)
        };
        Ok(OwnedPayload { serializer, args: one(payload.args)?, kwargs: one(payload.kwargs)? })
    }

    /// Writes one value in another serializer than its own.
    ///
    /// # Errors
    /// As [`Self::transcode`].
    pub fn transcode_value(
        &mut self,
        value: Value<'_>,
        serializer: Serializer,
    ) -> Result<Vec<u8>, NotRepresentable> {
        let mut out = Vec::new();
        let transcoder = &mut self.transcoder;
        match serializer {
            Serializer::Json => transcoder.transcode(value, &mut json::JsonWriter::new(&mut out)),
            Serializer::MsgPack => transcoder.transcode(value, &mut msgpack::MsgPackWriter::new(&mut out)),
            Serializer::Cbor => transcoder.transcode(value, &mut cbor::CborWriter::new(&mut out)),
        }?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
