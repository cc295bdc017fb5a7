//! Bytes to messages and back, for one connection, without a socket. Pure.

use bytes::Bytes;

use crate::config::{Limits, Listener};
use crate::wamp::CloseReason;
use crate::wamp::codec::Serializer;

/// What the links of one listener have in common.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Which protocols, path, serializers and origins.
    pub listener: Listener,
    /// The bounds of a head and of a message's frames.
    pub limits: Limits,
}

/// How the bytes of a WAMP message travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One WebSocket message each, text for JSON and binary for the others.
    WebSocket,
    /// A WebSocket message that may hold several (the `.batched` subprotocols).
    WebSocketBatched,
    /// RawSocket frames.
    RawSocket,
}

/// Serializer and framing: whoever has the same gets the same bytes, so frames are shared by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// The serializer.
    pub serializer: Serializer,
    /// The framing.
    pub framing: Framing,
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How messages travel; `None` for an echo link.
    pub encoding: Option<Encoding>,
    /// The longest message that the peer takes, in bytes without framing.
    pub peer_message_bytes_max: usize,
}

/// A complete message of the peer. Text is UTF-8; what is borrowed lies in the input.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MessageBytes<'b> {
    Text(&'b str),
    TextOwned(String),
    Binary(&'b [u8]),
    BinaryOwned(Vec<u8>),
}

/// What the next bytes of a connection came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'b> {
    /// Nothing is complete: more bytes are needed. What was not consumed must be given again with more behind it.
    Idle,
    /// The handshake is done; `reply` must be sent.
    Opened {
        /// What was agreed on.
        opened: Opened,
        /// The answer to the handshake.
        reply: Bytes,
    },
    /// A message.
    Message(MessageBytes<'b>),
    /// The link owes the peer these bytes (PONG).
    Reply(Bytes),
    /// The peer answered a ping.
    Pong,
    /// The connection is over: send `reply`, then close. Nothing further is consumed.
    Close {
        /// An HTTP response, a Close frame, a RawSocket error; or nothing.
        reply: Bytes,
        /// Why.
        reason: CloseReason,
    },
}
