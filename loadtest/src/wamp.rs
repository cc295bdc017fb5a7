//! WAMP, the client's side: payloads of one text, and the messages that carry them.

use clap::ValueEnum;
use crosspoint::wamp::codec::{self, DecodeLimits, Encoder, Input};
use crosspoint::wamp::features::ClientFeatures;
use crosspoint::wamp::message::{Hello, Message};
use crosspoint::wamp::options::{HelloDetails, Text};
use crosspoint::wamp::{Payload, ProtocolError};
use serde::{Deserialize, Serialize};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Serializer {
    Json,
    Msgpack,
    Cbor,
}

impl Serializer {
    pub(crate) fn codec(self) -> codec::Serializer {
        match self {
            Self::Json => codec::Serializer::Json,
            Self::Msgpack => codec::Serializer::MsgPack,
            Self::Cbor => codec::Serializer::Cbor,
        }
    }

    /// The WebSocket subprotocol.
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "wamp.2.json",
            Self::Msgpack => "wamp.2.msgpack",
            Self::Cbor => "wamp.2.cbor",
        }
    }

    /// The number in the handshake of RawSocket.
    pub(crate) fn rawsocket(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::Msgpack => 2,
            Self::Cbor => 3,
        }
    }

    pub(crate) fn is_text(self) -> bool {
        self == Self::Json
    }
}

/// What every client says first.
pub(crate) fn hello(realm: &str) -> Message<'_> {
    let features = ClientFeatures::CALLER
        .with(ClientFeatures::CALLEE)
        .with(ClientFeatures::PUBLISHER)
        .with(ClientFeatures::SUBSCRIBER);
    let details = HelloDetails {
        features,
        agent: Some(Text::Borrowed("crosspoint-loadtest")),
        ..HelloDetails::default()
    };
    Message::Hello(Hello { realm: Text::Borrowed(realm), details })
}

/// Writes a message.
pub(crate) fn encode(
    message: &Message<'_>,
    serializer: Serializer,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) {
    out.clear();
    // A payload in the serializer that it is written in can always be represented.
    let encoded = encoder.encode(message, serializer.codec(), out);
    debug_assert!(encoded.is_ok());
}

/// Reads a message.
pub(crate) fn decode(bytes: &[u8], serializer: Serializer) -> Result<Message<'_>, ProtocolError> {
    codec::decode(serializer.codec(), Input::Bytes(bytes), DecodeLimits::default())
}

/// One text as the only argument, written into `scratch`. The text must not need escapes in JSON.
pub(crate) fn payload<'a>(text: &[u8], serializer: Serializer, scratch: &'a mut Vec<u8>) -> Payload<'a> {
    scratch.clear();
    match serializer {
        Serializer::Json => {
            scratch.extend_from_slice(b"[\"");
            scratch.extend_from_slice(text);
            scratch.extend_from_slice(b"\"]");
        }
        Serializer::Msgpack => {
            scratch.push(0x91);
            match text.len() {
                length @ ..32 => scratch.push(0xA0 | length as u8),
                length @ ..0x100 => scratch.extend_from_slice(&[0xD9, length as u8]),
                length @ ..0x1_0000 => {
                    scratch.push(0xDA);
                    scratch.extend_from_slice(&(length as u16).to_be_bytes());
                }
                length => {
                    scratch.push(0xDB);
                    scratch.extend_from_slice(&(length as u32).to_be_bytes());
                }
            }
            scratch.extend_from_slice(text);
        }
        Serializer::Cbor => {
            scratch.push(0x81);
            match text.len() {
                length @ ..24 => scratch.push(0x60 | length as u8),
                length @ ..0x100 => scratch.extend_from_slice(&[0x78, length as u8]),
                length @ ..0x1_0000 => {
                    scratch.push(0x79);
                    scratch.extend_from_slice(&(length as u16).to_be_bytes());
                }
                length => {
                    scratch.push(0x7A);
                    scratch.extend_from_slice(&(length as u32).to_be_bytes());
                }
            }
            scratch.extend_from_slice(text);
        }
    }
    Payload { serializer: serializer.codec(), args: scratch, kwargs: &[] }
}

/// The text that [`payload`] wrote, as whatever router handed it on: empty where there is none.
pub(crate) fn text<'a>(payload: &Payload<'a>) -> &'a [u8] {
    let args = payload.args;
    if payload.serializer == codec::Serializer::Json {
        // A router may write white space where it likes; the text itself has no quotation marks.
        let first = args.iter().position(|byte| *byte == b'"').map_or(args.len(), |at| at + 1);
        let last = args.iter().rposition(|byte| *byte == b'"').unwrap_or(first);
        return args.get(first..last).unwrap_or_default();
    }
    // The head of the list may be longer than it has to be, but the text is the rest.
    let list = match args.first() {
        Some(0x91 | 0x81 | 0x9F) => 1,
        Some(0x98) => 2,
        Some(0xDC | 0x99) => 3,
        Some(0xDD | 0x9A) => 5,
        _ => return &[],
    };
    let text = args.get(list..).unwrap_or_default();
    let (head, length) = match text {
        [first @ (0xA0..0xC0), ..] => (1, usize::from(first & 31)),
        [first @ (0x60..0x78), ..] => (1, usize::from(first & 31)),
        [0xD9 | 0x78, length, ..] => (2, usize::from(*length)),
        [0xDA | 0x79, a, b, ..] => (3, usize::from(u16::from_be_bytes([*a, *b]))),
        [0xDB | 0x7A, a, b, c, d, ..] => (5, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        _ => return &[],
    };
    text.get(head..head + length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crosspoint::wamp::RequestId;
    use crosspoint::wamp::message::Call;
    use crosspoint::wamp::options::CallOptions;

    use super::*;

    #[test]
    fn payloads_come_back_from_every_serializer() {
        let mut encoder = Encoder::new();
        for serializer in [Serializer::Json, Serializer::Msgpack, Serializer::Cbor] {
            for length in [1, 23, 31, 64, 255, 256, 65_535, 65_536, 70_000] {
                let said = vec![b'x'; length];
                let (mut scratch, mut out) = (Vec::new(), Vec::new());
                let call = Message::Call(Call {
                    request: RequestId(1),
                    options: CallOptions::default(),
                    procedure: Text::Borrowed("com.procedure"),
                    payload: payload(&said, serializer, &mut scratch),
                });
                encode(&call, serializer, &mut encoder, &mut out);
                let Message::Call(read) = decode(&out, serializer).unwrap() else { panic!("no CALL") };
                assert_eq!(text(&read.payload), said, "{serializer:?}, {length}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_empty() {
        for args in [&b"[]"[..], b"[1]", b"[\""] {
            let payload = Payload { serializer: codec::Serializer::Json, args, kwargs: &[] };
            assert_eq!(text(&payload), b"");
        }
        for args in [&b""[..], &[0x91], &[0x91, 0xD9], &[0x91, 0xA5, b'a'], &[0x91, 5]] {
            let payload = Payload { serializer: codec::Serializer::MsgPack, args, kwargs: &[] };
            assert_eq!(text(&payload), b"");
        }
    }
}
