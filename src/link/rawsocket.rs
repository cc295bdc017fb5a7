//! RawSocket (WAMP, "RawSocket Transport"): a handshake of four bytes each way, then frames of four bytes of
//! header and up to 2^24 bytes of payload.

use super::{Encoding, Event, Framing, LinkConfig, Received};
use crate::config::ListenerMode;
use crate::wamp::CloseReason;
use crate::wamp::codec::Serializer;

/// The first byte of the handshake, by which it is told from other protocols.
pub(super) const MAGIC: u8 = 0x7f;

/// The size of the handshake and of frame headers.
const HEADER_BYTES: usize = 4;

/// The longest payload that a frame can have.
const PAYLOAD_BYTES_MAX: usize = 1 << 24;

const TYPE_MESSAGE: u8 = 0;
const TYPE_PING: u8 = 1;
const TYPE_PONG: u8 = 2;

/// The bit that makes a length of zero mean 2^24.
const LENGTH_BIT: u8 = 0b1000;

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Refusal {
    SerializerUnsupported = 1,
    ReservedBits = 3,
    TooManyConnections = 4,
}

impl Refusal {
    fn reply(self) -> Vec<u8> {
        vec![MAGIC, (self as u8) << 4, 0, 0]
    }
}

/// The answer to a handshake when there is no room for the connection.
pub(super) fn too_many_connections() -> Vec<u8> {
    Refusal::TooManyConnections.reply()
}

/// The handshake, or as much of it as arrived.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    bytes: [u8; HEADER_BYTES],
    len: u8,
}

/// What a handshake came to.
pub(super) enum Agreed {
    /// Bytes are missing.
    Idle,
    /// Send `reply`; then frames.
    Open { rawsocket: RawSocket, reply: Vec<u8> },
    /// Send `reply`; that was all.
    Refused { reply: Vec<u8> },
}

impl Handshake {
    /// Takes bytes of the handshake: how many, and what they came to.
    pub(super) fn next(&mut self, config: &LinkConfig, input: &[u8]) -> (usize, Agreed) {
        let taken = fill(&mut self.bytes, &mut self.len, input);
        if usize::from(self.len) < HEADER_BYTES {
            return (taken, Agreed::Idle);
        }
        let agreed = match self.agree(config) {
            Ok((rawsocket, reply)) => Agreed::Open { rawsocket, reply },
            Err(refusal) => Agreed::Refused { reply: refusal.reply() },
        };
        (taken, agreed)
    }

    fn agree(&self, config: &LinkConfig) -> Result<(RawSocket, Vec<u8>), Refusal> {
        let [_, choice, reserved @ ..] = self.bytes;
        let listener = &config.listener;
        // No error says "not spoken here"; without RawSocket there is no serializer for it.
        if !listener.rawsocket || listener.mode == ListenerMode::Echo {
            return Err(Refusal::SerializerUnsupported);
        }
        if reserved != [0, 0] {
            return Err(Refusal::ReservedBits);
        }
        let number = choice & 0x0f;
        let serializer = serializer_of(number).filter(|serializer| listener.serializers.contains(serializer));
        let Some(serializer) = serializer else { return Err(Refusal::SerializerUnsupported) };
        let peer_limit = choice >> 4;
        let reply = vec![MAGIC, length_nibble(config.limits.message_bytes_max) << 4 | number, 0, 0];
        Ok((
            RawSocket { partial: None, header: [0; HEADER_BYTES], header_len: 0, peer_limit, serializer },
            reply,
        ))
    }
}

fn serializer_of(number: u8) -> Option<Serializer> {
    match number {
        1 => Some(Serializer::Json),
        2 => Some(Serializer::MsgPack),
        3 => Some(Serializer::Cbor),
        _ => None,
    }
}

/// The limit that is announced: the greatest power of two from 2^9 to 2^24 that is not above `bytes_max`, so
/// that a peer that keeps to it is never closed for it.
fn length_nibble(bytes_max: usize) -> u8 {
    (bytes_max.max(1).ilog2().clamp(9, 24) - 9) as u8
}

/// An open RawSocket. Without a frame under way it holds no heap.
#[derive(Debug)]
pub(super) struct RawSocket {
    partial: Option<Box<Partial>>,
    header: [u8; HEADER_BYTES],
    header_len: u8,
    /// The peer takes messages of 2^(9 + this) bytes.
    peer_limit: u8,
    serializer: Serializer,
}

/// A frame whose payload is arriving.
#[derive(Debug)]
struct Partial {
    kind: Kind,
    payload_left: usize,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    Ping,
    Pong,
}

impl RawSocket {
    /// What the handshake agreed on.
    pub(super) fn encoding(&self) -> Encoding {
        Encoding { serializer: self.serializer, framing: Framing::RawSocket }
    }

    /// The longest message that the peer takes, in bytes.
    pub(super) fn peer_message_bytes_max(&self) -> usize {
        1 << (9 + self.peer_limit)
    }

    /// Heap held, in bytes.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.payload.capacity())
    }

    /// Takes bytes until they come to something: how many were taken, and what they came to. `Idle` has taken all.
    pub(super) fn next(&mut self, message_bytes_max: usize, input: &[u8]) -> (usize, Event) {
        if self.partial.is_some() {
            return self.take_payload(input);
        }
        let start = fill(&mut self.header, &mut self.header_len, input);
        if usize::from(self.header_len) < HEADER_BYTES {
            return (start, Event::Idle);
        }
        self.header_len = 0;
        let (kind, length) = match self.check_header(message_bytes_max) {
            Ok(frame) => frame,
            Err(reason) => return (start, Event::Close { reply: Vec::new(), reason }),
        };
        let Some(payload) = input[start..].get(..length) else {
            self.partial = Some(Box::new(Partial { kind, payload_left: length, payload: Vec::new() }));
            let (taken, event) = self.take_payload(&input[start..]);
            return (start + taken, event);
        };
        let end = start + length;
        let event = match kind {
            Kind::Message => Event::Message(Received::Whole { start, end, is_text: false }),
            Kind::Ping => Event::Reply(pong(payload)),
            Kind::Pong => Event::Pong(None),
        };
        (end, event)
    }

    /// The rules of a header, and our bounds, before anything is allocated.
    fn check_header(&self, message_bytes_max: usize) -> Result<(Kind, usize), CloseReason> {
        let [first, length @ ..] = self.header;
        let kind = match first & !LENGTH_BIT {
            TYPE_MESSAGE => Kind::Message,
            TYPE_PING => Kind::Ping,
            TYPE_PONG => Kind::Pong,
            _ => return Err(CloseReason::LinkViolation),
        };
        let [high, middle, low] = length;
        let length = match (first & LENGTH_BIT, u32::from_be_bytes([0, high, middle, low]) as usize) {
            (0, length) => length,
            (_, 0) => PAYLOAD_BYTES_MAX,
            _ => return Err(CloseReason::LinkViolation),
        };
        let bytes_max = match kind {
            Kind::Message | Kind::Pong => message_bytes_max,
            // The answer is as long, and must not be longer than the peer takes.
            Kind::Ping => message_bytes_max.min(self.peer_message_bytes_max()),
        };
        if length > bytes_max {
            return Err(CloseReason::MessageTooLarge);
        }
        Ok((kind, length))
    }

    fn take_payload(&mut self, input: &[u8]) -> (usize, Event) {
        let Some(partial) = &mut self.partial else { return (0, Event::Idle) };
        let taken = partial.payload_left.min(input.len());
        // Nobody asks what a PONG holds.
        if partial.kind != Kind::Pong {
            partial.payload.extend_from_slice(&input[..taken]);
        }
        partial.payload_left -= taken;
        if partial.payload_left > 0 {
            return (taken, Event::Idle);
        }
        let payload = std::mem::take(&mut partial.payload);
        let event = match partial.kind {
            Kind::Message => Event::Message(Received::Binary(payload)),
            Kind::Ping => Event::Reply(pong(&payload)),
            Kind::Pong => Event::Pong(None),
        };
        self.partial = None;
        (taken, event)
    }
}

/// Takes what is missing of four bytes; says how many were taken.
fn fill(bytes: &mut [u8; HEADER_BYTES], len: &mut u8, input: &[u8]) -> usize {
    let missing = &mut bytes[usize::from(*len)..];
    let taken = missing.len().min(input.len());
    missing[..taken].copy_from_slice(&input[..taken]);
    *len += taken as u8;
    taken
}

fn pong(payload: &[u8]) -> Vec<u8> {
    let mut reply = Vec::with_capacity(HEADER_BYTES + payload.len());
    push(TYPE_PONG, payload, &mut reply);
    reply
}

/// Appends a PING without payload.
pub(super) fn push_ping(out: &mut Vec<u8>) {
    push(TYPE_PING, &[], out);
}

/// Appends a message; nothing when it is longer than a frame can be.
pub(super) fn push_message(message: &[u8], out: &mut Vec<u8>) {
    push(TYPE_MESSAGE, message, out);
}

/// How many bytes a message of `len` bytes becomes.
pub(super) fn framed_len(len: usize) -> usize {
    if len > PAYLOAD_BYTES_MAX { 0 } else { HEADER_BYTES + len }
}

fn push(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    let len = payload.len();
    if len > PAYLOAD_BYTES_MAX {
        return;
    }
    // Exactly 2^24 leaves zero in the three bytes of the length; the bit says so.
    let [_, high, middle, low] = (len as u32).to_be_bytes();
    let first = if len == PAYLOAD_BYTES_MAX { kind | LENGTH_BIT } else { kind };
    out.extend_from_slice(&[first, high, middle, low]);
    out.extend_from_slice(payload);
}
