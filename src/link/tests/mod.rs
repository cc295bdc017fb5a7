//! What links make of bytes, whichever way the bytes are cut.

mod deflate;
mod http;
mod rawsocket;
mod splits;
mod websocket;

use super::*;
use crate::config::{ListenAddress, Origins};

/// A step that borrows nothing, in which borrowed and owned messages are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Opened(Opened, Vec<u8>),
    Text(String),
    Binary(Vec<u8>),
    Reply(Vec<u8>),
    Pong,
    Violation(String),
    Close(Vec<u8>, CloseReason),
}

impl Seen {
    /// `None` for [`Step::Idle`].
    fn of(step: Step<'_>) -> Option<Self> {
        Some(match step {
            Step::Idle => return None,
            Step::Opened { opened, reply } => Self::Opened(opened, reply.to_vec()),
            Step::Message(MessageBytes::Text(text)) => Self::Text(text.to_owned()),
            Step::Message(MessageBytes::TextOwned(text)) => Self::Text(text),
            Step::Message(MessageBytes::Binary(bytes)) => Self::Binary(bytes.to_owned()),
            Step::Message(MessageBytes::BinaryOwned(bytes)) => Self::Binary(bytes),
            Step::Reply(reply) => Self::Reply(reply.to_vec()),
            Step::Pong(_) => Self::Pong,
            Step::Violation(error) => Self::Violation(error.message),
            Step::Close { reply, reason } => Self::Close(reply.to_vec(), reason),
        })
    }

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn binary(bytes: &[u8]) -> Self {
        Self::Binary(bytes.to_owned())
    }

    fn reason(&self) -> Option<CloseReason> {
        match self {
            Self::Close(_, reason) => Some(*reason),
            _ => None,
        }
    }
}

/// What holds without any configuration: the path `/ws`, every serializer, batches, messages of 1 MiB.
fn config() -> LinkConfig {
    LinkConfig { listener: Listener::default(), limits: Limits::default() }
}

/// Feeds `bytes` as a socket would bring them, cut after each of `sizes` in turn; what is not consumed is
/// given again. Checks what every link promises on the way.
fn feed_cut(
    link: &mut Link,
    config: &LinkConfig,
    message_bytes_max: usize,
    bytes: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut sizes = sizes.into_iter();
    let mut arrived = 0;
    let mut pending = Vec::new();
    let mut inflater = Inflater::new();
    while arrived < bytes.len() {
        let end = sizes.next().map_or(bytes.len(), |size| bytes.len().min(arrived + size));
        pending.extend_from_slice(&bytes[arrived..end]);
        arrived = end;
        loop {
            let (consumed, step) = link.next(config, message_bytes_max, &mut inflater, &mut pending);
            let step = Seen::of(step);
            let is_idle = step.is_none();
            let is_closed = matches!(step, Some(Seen::Close(..)));
            let is_violated = matches!(step, Some(Seen::Violation(_)));
            seen.extend(step);
            pending.drain(..consumed);
            if is_violated {
                assert_eq!(link.partial_bytes(), 0);
                let mut farewell = Vec::new();
                link.close(CloseReason::ProtocolViolation, "why", &mut farewell);
                assert_eq!(close_frame(&farewell), (1002, "why"));
            }
            if is_closed || is_violated {
                assert_is_over(link, config);
                return seen;
            }
            if is_idle {
                assert!(pending.is_empty(), "idle with {} bytes left", pending.len());
                let held = link.partial_bytes();
                let held_max = 1024 + 2 * arrived;
                assert!(held <= held_max, "{held} bytes held of {arrived} that arrived");
                break;
            }
        }
    }
    seen
}

/// Feeds everything at once.
fn feed(link: &mut Link, config: &LinkConfig, bytes: &[u8]) -> Vec<Seen> {
    feed_cut(link, config, config.limits.message_bytes_max, bytes, [])
}

fn assert_is_over(link: &mut Link, config: &LinkConfig) {
    let mut late = [0x81, 0x80, 0, 0, 0, 0];
    assert_eq!(link.next(config, usize::MAX, &mut Inflater::new(), &mut late), (0, Step::Idle));
    assert_eq!(link.partial_bytes(), 0);
    assert_eq!(link.encoding(), None);
    let mut out = Vec::new();
    assert!(!link.ping(&mut out));
    link.close(CloseReason::SystemShutdown, "down", &mut out);
    assert_eq!(out, b"");
}

/// The same bytes at once, byte by byte, and in pieces of a few sizes: the same steps.
fn feed_every_way(open: impl Fn() -> Link, config: &LinkConfig, bytes: &[u8]) -> Vec<Seen> {
    let bytes_max = config.limits.message_bytes_max;
    let at_once = feed_cut(&mut open(), config, bytes_max, bytes, []);
    for size in [1, 2, 3, 5, 7, 64] {
        let cut = feed_cut(&mut open(), config, bytes_max, bytes, std::iter::repeat(size));
        assert_eq!(cut, at_once, "in pieces of {size}");
    }
    at_once
}

/// A handshake request with further header lines, each with CR LF.
fn request(headers: &str) -> Vec<u8> {
    format!(
        "GET /ws HTTP/1.1\r\nHost: router.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

fn request_for(subprotocol: &str) -> Vec<u8> {
    request(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"))
}

/// An open WebSocket of this subprotocol.
fn open_websocket(config: &LinkConfig, subprotocol: &str) -> Link {
    let mut link = Link::new();
    let seen = feed(&mut link, config, &request_for(subprotocol));
    assert!(matches!(seen[..], [Seen::Opened(..)]), "{seen:?}");
    assert_eq!(link.partial_bytes(), 0);
    link
}

/// An open RawSocket; `number` is the serializer's.
fn open_rawsocket(config: &LinkConfig, number: u8) -> Link {
    let mut link = Link::new();
    let seen = feed(&mut link, config, &[0x7f, 0xf0 | number, 0, 0]);
    assert!(matches!(seen[..], [Seen::Opened(..)]), "{seen:?}");
    link
}

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A masked frame; `first` is flags and opcode.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x01, 0xc3, 0x7f];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=65535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The code and text of a Close frame of the server.
fn close_frame(frame: &[u8]) -> (u16, &str) {
    assert_eq!(frame[0], FIN | CLOSE);
    assert_eq!(usize::from(frame[1]), frame.len() - 2);
    (u16::from_be_bytes([frame[2], frame[3]]), std::str::from_utf8(&frame[4..]).unwrap())
}
