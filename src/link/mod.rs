//! Bytes to messages and back, for one connection, without a socket. Pure.

mod demo;
mod frame;
mod http1;
mod origin;
mod page;
mod rawsocket;
mod websocket;

use bytes::Bytes;

pub use self::frame::{frame, frame_deflated, frame_echo, frame_echo_deflated, framed_len};
use self::http1::{HeadBuffer, HeadEnd, Request, Response};
use self::rawsocket::{Agreed, RawSocket};
pub use self::websocket::deflate::{Deflater, Inflater, WindowBits};
pub use self::websocket::handshake::with_cookie;
use self::websocket::{Bounds, WebSocket, handshake};
use crate::config::{Limits, Listener, ListenerMode};
use crate::cookie::CookieDigest;
use crate::wamp::CloseReason;
use crate::wamp::codec::Serializer;
use crate::wamp::error::ProtocolError;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How messages travel; `None` for an echo link.
    pub encoding: Option<Encoding>,
    /// The window of compressed messages to the peer; `None` if it takes none.
    pub deflate: Option<WindowBits>,
    /// The longest message that the peer takes, in bytes without framing.
    pub peer_message_bytes_max: usize,
    /// The cookie that came with the handshake, where the listener has one.
    pub cookie: Option<Box<CookieDigest>>,
}

/// A complete WAMP message of the peer (batches are split into theirs), or one WebSocket message on an echo
/// link. Text is UTF-8; what is borrowed lies in the input, or in the inflater.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MessageBytes<'b> {
    Text(&'b str),
    TextOwned(String),
    Binary(&'b [u8]),
    BinaryOwned(Vec<u8>),
}

impl MessageBytes<'_> {
    /// The bytes of either kind.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::TextOwned(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
            Self::BinaryOwned(bytes) => bytes,
        }
    }

    /// Whether it came as text.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_) | Self::TextOwned(_))
    }
}

/// What the next bytes of a connection came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'b> {
    /// Nothing is complete: more bytes are needed. All bytes given were consumed (of a closed link, none).
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
    /// The peer answered a ping, with the number that was in it, if one was.
    Pong(Option<u64>),
    /// What holds messages cannot be taken apart: as wrong as a message that cannot be decoded. The link is still open, for
    /// ABORT and [`Link::close`]; it must be given nothing more.
    Violation(ProtocolError),
    /// The connection is over: send `reply`, then close. Nothing further is consumed.
    Close {
        /// An HTTP response, a Close frame, a RawSocket error; or nothing.
        reply: Bytes,
        /// Why.
        reason: CloseReason,
    },
}

/// The receiving side of one connection: which protocol it speaks, and how far its handshake and messages
/// have come. An open link without a message under way holds no heap.
#[derive(Debug)]
pub struct Link {
    state: State,
}

// There is one for each connection.
const _: () = assert!(size_of::<Link>() <= 48);

#[derive(Debug)]
enum State {
    /// Nothing arrived yet.
    Detecting,
    /// Part of an HTTP head arrived.
    Http(Box<HeadBuffer>),
    RawSocketHandshake(rawsocket::Handshake),
    WebSocket(WebSocket),
    RawSocket(RawSocket),
    Closed,
}

/// A [`Step`] of an open link that does not borrow yet, so that protocols can go on working on the input.
#[derive(Debug)]
enum Event {
    Idle,
    Message(Received),
    Reply(Vec<u8>),
    Pong(Option<u64>),
    Violation(ProtocolError),
    Close { reply: Vec<u8>, reason: CloseReason },
}

/// A complete message.
#[derive(Debug)]
enum Received {
    /// It lies in the input at `start..end`, unmasked; text is not checked yet.
    Whole {
        start: usize,
        end: usize,
        is_text: bool,
    },
    Text(String),
    Binary(Vec<u8>),
    /// It lies in the inflater; text is not checked yet.
    Inflated {
        length: usize,
        is_text: bool,
    },
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A connection of which nothing is known yet; its first byte tells the protocol.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Detecting }
    }

    /// Takes bytes from the beginning of `input` until they come to something: how many, and what. To be
    /// called with the rest (and more behind it) until it returns [`Step::Idle`], [`Step::Violation`] or
    /// [`Step::Close`]. Bytes are unmasked in place, so the rest must be given again as this call left it.
    ///
    /// `message_bytes_max` bounds a message in bytes, all fragments or the whole batch together. Whoever
    /// sends more is refused before anything is allocated for it. Compressed messages are inflated in `inflater`, which keeps
    /// nothing from one message to the next.
    pub fn next<'b>(
        &mut self,
        config: &LinkConfig,
        message_bytes_max: usize,
        inflater: &'b mut Inflater,
        input: &'b mut [u8],
    ) -> (usize, Step<'b>) {
        let event = match &mut self.state {
            State::Closed => return (0, Step::Idle),
            State::Detecting => return self.detect(config, input),
            State::Http(_) => return self.next_of_head(config, input),
            State::RawSocketHandshake(_) => return self.next_of_handshake(config, input),
            State::WebSocket(websocket) => {
                let limits = &config.limits;
                let (frames_per_message_max, inflate_ratio_max) = match config.listener.mode {
                    ListenerMode::Wamp => (limits.frames_per_message_max, limits.inflate_ratio_max),
                    // Conformance suites send as many as they like; the bytes are bounded all the same.
                    ListenerMode::Echo => (u32::MAX, u32::MAX),
                };
                let bounds = Bounds { message_bytes_max, frames_per_message_max, inflate_ratio_max };
                if let Some((whole, is_text)) = websocket.next_whole(bounds, input) {
                    return (whole.end, self.borrowed(&input[whole], is_text));
                }
                websocket.next(bounds, inflater, input)
            }
            State::RawSocket(rawsocket) => rawsocket.next(message_bytes_max, input),
        };
        self.step_of(event, inflater, input)
    }

    fn step_of<'b>(
        &mut self,
        (taken, event): (usize, Event),
        inflater: &'b Inflater,
        input: &'b [u8],
    ) -> (usize, Step<'b>) {
        let message = match event {
            Event::Idle => return (taken, Step::Idle),
            Event::Reply(reply) => return (taken, Step::Reply(reply.into())),
            Event::Pong(number) => return (taken, Step::Pong(number)),
            Event::Violation(error) => return (taken, Step::Violation(error)),
            Event::Close { reply, reason } => return (taken, self.end(reply.into(), reason)),
            Event::Message(Received::Text(text)) => MessageBytes::TextOwned(text),
            Event::Message(Received::Binary(bytes)) => MessageBytes::BinaryOwned(bytes),
            Event::Message(Received::Whole { start, end, is_text }) => {
                return (taken, self.borrowed(&input[start..end], is_text));
            }
            Event::Message(Received::Inflated { length, is_text }) => {
                return (taken, self.borrowed(inflater.inflated(length), is_text));
            }
        };
        (taken, Step::Message(message))
    }

    fn borrowed<'b>(&mut self, bytes: &'b [u8], is_text: bool) -> Step<'b> {
        if !is_text {
            return Step::Message(MessageBytes::Binary(bytes));
        }
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Step::Message(MessageBytes::Text(text)),
            Err(_) => {
                let (reply, reason) = websocket::Violation::UTF8.into_close();
                self.end(reply.into(), reason)
            }
        }
    }

    fn end<'b>(&mut self, reply: Bytes, reason: CloseReason) -> Step<'b> {
        self.state = State::Closed;
        Step::Close { reply, reason }
    }

    fn detect<'b>(&mut self, config: &LinkConfig, input: &mut [u8]) -> (usize, Step<'b>) {
        match input.first() {
            None => (0, Step::Idle),
            Some(&rawsocket::MAGIC) => {
                self.state = State::RawSocketHandshake(rawsocket::Handshake::default());
                self.next_of_handshake(config, input)
            }
            Some(b'A'..=b'Z') => match http1::head_end(input, config.limits.http_head_bytes_max) {
                HeadEnd::At(end) => (end, self.handle_head(config, &input[..end])),
                HeadEnd::TooLong => (input.len(), self.respond(head_too_long(config), false)),
                HeadEnd::Missing => {
                    self.state = State::Http(Box::default());
                    self.next_of_head(config, input)
                }
            },
            // TLS (0x16) among others, which a proxy in front of the router has to take off: nothing that
            // could be said here would be understood.
            Some(_) => (0, self.end(Bytes::new(), CloseReason::BadHandshake)),
        }
    }

    fn next_of_head<'b>(&mut self, config: &LinkConfig, input: &[u8]) -> (usize, Step<'b>) {
        let State::Http(head) = &mut self.state else { return (0, Step::Idle) };
        let (taken, end) = head.take(input, config.limits.http_head_bytes_max);
        match end {
            HeadEnd::Missing => (taken, Step::Idle),
            HeadEnd::TooLong => (taken, self.respond(head_too_long(config), false)),
            HeadEnd::At(end) => {
                let head = std::mem::take(head);
                (taken, self.handle_head(config, &head.bytes()[..end]))
            }
        }
    }

    fn handle_head<'b>(&mut self, config: &LinkConfig, head: &[u8]) -> Step<'b> {
        let mut slots = http1::header_slots();
        let request = match Request::parse(head, &mut slots) {
            Ok(request) => request,
            Err(response) => return self.respond(response, head.starts_with(b"HEAD ")),
        };
        match handshake::answer(config, &request) {
            Ok(accepted) => {
                let (encoding, deflate, cookie) = (accepted.encoding, accepted.deflate, accepted.cookie);
                self.state = State::WebSocket(WebSocket::new(encoding, deflate.is_some()));
                let opened = Opened { encoding, deflate, peer_message_bytes_max: usize::MAX, cookie };
                Step::Opened { opened, reply: accepted.reply.into() }
            }
            Err(response) => self.respond(response, request.method == "HEAD"),
        }
    }

    fn respond<'b>(&mut self, response: Response, is_head: bool) -> Step<'b> {
        let reason = if response.is_success() { CloseReason::HttpAnswered } else { CloseReason::HttpRefused };
        self.end(response.into_bytes(is_head), reason)
    }

    fn next_of_handshake<'b>(&mut self, config: &LinkConfig, input: &[u8]) -> (usize, Step<'b>) {
        let State::RawSocketHandshake(handshake) = &mut self.state else { return (0, Step::Idle) };
        let (taken, agreed) = handshake.next(config, input);
        let step = match agreed {
            Agreed::Idle => Step::Idle,
            Agreed::Refused { reply } => self.end(reply.into(), CloseReason::BadHandshake),
            Agreed::Open { rawsocket, reply } => {
                let opened = Opened {
                    encoding: Some(rawsocket.encoding()),
                    deflate: None,
                    peer_message_bytes_max: rawsocket.peer_message_bytes_max(),
                    cookie: None,
                };
                self.state = State::RawSocket(rawsocket);
                Step::Opened { opened, reply: reply.into() }
            }
        };
        (taken, step)
    }

    /// Heap that the link holds for what is under way, in bytes; 0 for an idle open one.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        match &self.state {
            State::Http(head) => size_of::<HeadBuffer>() + head.capacity(),
            State::WebSocket(websocket) => websocket.partial_bytes(),
            State::RawSocket(rawsocket) => rawsocket.partial_bytes(),
            State::Detecting | State::RawSocketHandshake(_) | State::Closed => 0,
        }
    }

    /// How messages travel; `None` before the handshake, after the end, and for an echo link.
    #[must_use]
    pub fn encoding(&self) -> Option<Encoding> {
        match &self.state {
            State::WebSocket(websocket) => websocket.encoding(),
            State::RawSocket(rawsocket) => Some(rawsocket.encoding()),
            _ => None,
        }
    }

    /// There is no room for this connection: by its first byte [`Self::close`] knows how to say so, and nothing is taken.
    pub fn turn_away(&mut self, first: u8) {
        self.state = match first {
            rawsocket::MAGIC => State::RawSocketHandshake(rawsocket::Handshake::default()),
            b'A'..=b'Z' => State::Http(Box::default()),
            _ => State::Closed,
        };
    }

    /// Appends a ping with a number to `out`, as only a WebSocket takes for sure: some RawSocket clients close their link
    /// at a ping. `false`, and nothing, elsewhere.
    pub fn ping_with(&self, number: u64, out: &mut Vec<u8>) -> bool {
        let is_websocket = matches!(self.state, State::WebSocket(_));
        if is_websocket {
            frame::push_ping_with(&number.to_be_bytes(), out);
        }
        is_websocket
    }

    /// Appends a ping to `out`; [`Step::Pong`] will answer. `false`, and nothing, when the link is not open.
    pub fn ping(&self, out: &mut Vec<u8>) -> bool {
        match &self.state {
            State::WebSocket(_) => frame::push_ping(out),
            State::RawSocket(_) => rawsocket::push_ping(out),
            _ => return false,
        }
        true
    }

    /// Ends the link from this side, after which it takes nothing more. Appends what the peer is owed, with
    /// `message` for its people: a Close frame with the code of `reason` and as much of the text as fits; 408
    /// or 503 to an HTTP request that was begun; RawSocket's error to a handshake that was begun, when there
    /// is no room. An open RawSocket has no such words, and a link that has ended is owed nothing.
    pub fn close(&mut self, reason: CloseReason, message: &str, out: &mut Vec<u8>) {
        let is_full = matches!(
            reason,
            CloseReason::TooManyConnections | CloseReason::SystemShutdown | CloseReason::OutOfMemory
        );
        match std::mem::replace(&mut self.state, State::Closed) {
            // 1006 stands for a connection that is gone; it must not be sent (RFC 6455 section 7.4.1).
            State::WebSocket(_) if reason != CloseReason::Reset => {
                frame::push_close(reason.info().websocket_code, message, out);
            }
            State::Http(_) if reason == CloseReason::HandshakeTimeout => {
                let response = Response::text("408 Request Timeout", message);
                out.extend_from_slice(&response.into_bytes(false));
            }
            State::Http(_) if is_full => {
                let message = if message.is_empty() { NO_ROOM } else { message };
                let response = Response::text("503 Service Unavailable", message);
                out.extend_from_slice(&response.with_header("Retry-After", "5").into_bytes(false));
            }
            State::RawSocketHandshake(_) if is_full => {
                out.extend_from_slice(&rawsocket::too_many_connections());
            }
            _ => {}
        }
    }
}

/// What people read who are turned away.
const NO_ROOM: &str = "This server takes no more connections now. Try again later.";

fn head_too_long(config: &LinkConfig) -> Response {
    http1::head_too_long(config.limits.http_head_bytes_max)
}

#[cfg(test)]
mod tests;
