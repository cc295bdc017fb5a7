//! The bodies of the fuzz targets for links: any bytes, from the first of a connection on or behind a handshake.
//!
//! A file of its own so that targets of cargo-fuzz and `tests/fuzz_link.rs` run the same.

use crosspoint::config::{Limits, Listener, ListenerMode};
use crosspoint::link::{Link, LinkConfig, Opened, Step};
use crosspoint::wamp::CloseReason;

/// Anything as the first bytes of a connection: detection, HTTP heads, handshakes.
pub(crate) fn first_bytes(data: &[u8]) {
    run(&[], data);
}

/// Anything behind the handshake of a WebSocket. The first byte chooses the subprotocol.
pub(crate) fn websocket(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let subprotocol = match choice % 4 {
        0 => "wamp.2.json",
        1 => "wamp.2.msgpack",
        2 => "wamp.2.json.batched",
        _ => "wamp.2.cbor.batched",
    };
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    run(handshake.as_bytes(), data);
}

/// Anything behind the handshake of a RawSocket.
pub(crate) fn rawsocket(data: &[u8]) {
    run(&[0x7f, 0x11, 0, 0], data);
}

/// A step that borrows nothing, in which borrowed and owned messages are the same.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Opened(Opened, Vec<u8>),
    Message { is_text: bool, bytes: Vec<u8> },
    Reply(Vec<u8>),
    Pong,
    Violation(String),
    Close(Vec<u8>, CloseReason),
}

/// The bytes at once and in pieces must come to the same. The first byte of `data` chooses the mode of the
/// listener, the second the size of the pieces.
fn run(opening: &[u8], data: &[u8]) {
    let [mode, size, data @ ..] = data else { return };
    let mut listener = Listener::default();
    if mode % 2 == 1 {
        listener.mode = ListenerMode::Echo;
    }
    let limits = Limits {
        message_bytes_max: 2000,
        frames_per_message_max: 6,
        http_head_bytes_max: 600,
        ..Limits::default()
    };
    let config = LinkConfig { listener, limits };
    let bytes = [opening, data].concat();
    let at_once = feed(&config, &bytes, bytes.len().max(1));
    let cut = feed(&config, &bytes, usize::from(*size).max(1));
    assert_eq!(cut, at_once);
}

fn feed(config: &LinkConfig, bytes: &[u8], size: usize) -> Vec<Seen> {
    let mut link = Link::new();
    let mut seen = Vec::new();
    let mut pending = Vec::new();
    let mut arrived = 0;
    for piece in bytes.chunks(size) {
        pending.extend_from_slice(piece);
        arrived += piece.len();
        loop {
            let (consumed, step) = link.next(config, config.limits.message_bytes_max, &mut pending);
            let step = match step {
                Step::Idle => break assert_eq!(consumed, pending.len()),
                Step::Opened { opened, reply } => Seen::Opened(opened, reply.to_vec()),
                Step::Message(message) => {
                    Seen::Message { is_text: message.is_text(), bytes: message.as_bytes().to_vec() }
                }
                Step::Reply(reply) => Seen::Reply(reply.to_vec()),
                Step::Pong => Seen::Pong,
                Step::Violation(error) => {
                    seen.push(Seen::Violation(error.message));
                    return seen;
                }
                Step::Close { reply, reason } => {
                    seen.push(Seen::Close(reply.to_vec(), reason));
                    return seen;
                }
            };
            seen.push(step);
            pending.drain(..consumed);
        }
        pending.clear();
        assert!(link.partial_bytes() <= 1024 + 2 * arrived);
    }
    seen
}
