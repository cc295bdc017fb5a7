//! The bodies of the fuzz targets for links: any bytes, from the first of a connection on or behind a handshake.
//!
//! A file of its own so that targets of cargo-fuzz and `tests/fuzz_link.rs` run the same.

use crosspoint::config::{Limits, Listener, ListenerMode};
use crosspoint::link::{Inflater, Link, LinkConfig, Opened, Step};
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
    run(handshake(subprotocol).as_bytes(), data);
}

/// With an offer of compression, which is taken.
fn handshake(subprotocol: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
}

/// Anything as the content of compressed messages: behind a handshake that agrees on permessage-deflate. The first byte chooses the
/// subprotocol, and how long the frames are.
pub(crate) fn deflate(data: &[u8]) {
    let [choice, size, data @ ..] = data else { return };
    let (subprotocol, opcode) = match choice % 4 {
        0 => ("wamp.2.json", 1),
        1 => ("wamp.2.msgpack", 2),
        2 => ("wamp.2.json.batched", 1),
        _ => ("wamp.2.cbor.batched", 2),
    };
    let payload_bytes_max = usize::from(choice >> 2).max(1);
    // Two messages of the same content, so that whatever the first one leaves behind meets the second.
    let mut frames = vec![0, *size];
    for _ in 0..2 {
        let pieces = data.chunks(payload_bytes_max).collect::<Vec<_>>();
        for (number, piece) in pieces.iter().enumerate() {
            let begin = if number == 0 { 0x40 | opcode } else { 0 };
            let end = if number + 1 == pieces.len() { 0x80 } else { 0 };
            frames.extend([begin | end, 0x80 | piece.len() as u8, 0, 0, 0, 0]);
            frames.extend_from_slice(piece);
        }
    }
    run(handshake(subprotocol).as_bytes(), &frames);
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
    let mut listener = Listener { compression: true, ..Listener::default() };
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
    let mut inflater = Inflater::new();
    let mut seen = Vec::new();
    let mut pending = Vec::new();
    let mut arrived = 0;
    for piece in bytes.chunks(size) {
        pending.extend_from_slice(piece);
        arrived += piece.len();
        loop {
            let (consumed, step) =
                link.next(config, config.limits.message_bytes_max, &mut inflater, &mut pending);
            let step = match step {
                Step::Idle => break assert_eq!(consumed, pending.len()),
                Step::Opened { opened, reply } => Seen::Opened(opened, reply.to_vec()),
                Step::Message(message) => {
                    Seen::Message { is_text: message.is_text(), bytes: message.as_bytes().to_vec() }
                }
                Step::Reply(reply) => Seen::Reply(reply.to_vec()),
                Step::Pong(_) => Seen::Pong,
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
