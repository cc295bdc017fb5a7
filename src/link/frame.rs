//! Framing of what is sent: WebSocket frames of a server (unmasked), their batched form, RawSocket frames.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::websocket::deflate::{Deflater, WindowBits};
use super::{Encoding, Framing, rawsocket};
use crate::wamp::codec::{Serializer, append_batched};

/// The longest reason text of a Close frame: a control frame's 125 bytes without the code (RFC 6455
/// section 5.5).
const CLOSE_TEXT_BYTES_MAX: usize = 123;

/// The longest payload whose length takes one byte (RFC 6455 section 5.2).
const SHORT_BYTES_MAX: usize = 125;

/// Appends `message`, one encoded WAMP message, in the framing of `encoding`. Whoever has the same encoding
/// gets the same bytes, so the result can be shared.
///
/// RawSocket has no frame for more than 2^24 bytes; such a message appends nothing. [`super::Opened`] says
/// how much a peer takes.
pub fn frame(encoding: Encoding, message: &[u8], out: &mut Vec<u8>) {
    out.reserve(framed_len(encoding, message.len()));
    let is_text = encoding.serializer == Serializer::Json;
    match encoding.framing {
        Framing::WebSocket => {
            push_header(data_opcode(is_text), message.len(), out);
            out.extend_from_slice(message);
        }
        Framing::WebSocketBatched => {
            push_header(data_opcode(is_text), batched_len(encoding.serializer, message.len()), out);
            append_batched(encoding.serializer, message, out);
        }
        Framing::RawSocket => rawsocket::push_message(message, out),
    }
}

/// Appends `message` as [`frame`] does, but compressed; whoever has agreed on the same window too gets the same bytes. `false`,
/// and nothing, when that is not shorter, and in framings that know no compression.
pub fn frame_deflated(
    encoding: Encoding,
    window: WindowBits,
    message: &[u8],
    deflater: &mut Deflater,
    out: &mut Vec<u8>,
) -> bool {
    let is_text = encoding.serializer == Serializer::Json;
    let deflated = match encoding.framing {
        Framing::WebSocket => deflater.deflate(window, message),
        Framing::WebSocketBatched => {
            deflater.batch.clear();
            append_batched(encoding.serializer, message, &mut deflater.batch);
            deflater.deflate_batch(window)
        }
        Framing::RawSocket => None,
    };
    push_deflated(is_text, deflated, out)
}

/// Appends `message` as [`frame_echo`] does, but compressed. `false`, and nothing, when that is not shorter.
pub fn frame_echo_deflated(
    is_text: bool,
    window: WindowBits,
    message: &[u8],
    deflater: &mut Deflater,
    out: &mut Vec<u8>,
) -> bool {
    push_deflated(is_text, deflater.deflate(window, message), out)
}

fn push_deflated(is_text: bool, deflated: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    let Some(deflated) = deflated else { return false };
    out.reserve(header_len(deflated.len()) + deflated.len());
    let header = FrameHeader { opcode: data_opcode(is_text), rsv1: true, ..FrameHeader::default() };
    push_parsed(&header, deflated.len(), out);
    out.extend_from_slice(deflated);
    true
}

/// Appends `message` as a text or binary frame, for the echo listener.
pub fn frame_echo(is_text: bool, message: &[u8], out: &mut Vec<u8>) {
    out.reserve(header_len(message.len()) + message.len());
    push_header(data_opcode(is_text), message.len(), out);
    out.extend_from_slice(message);
}

/// How many bytes [`frame`] appends for a message of `len` bytes.
#[must_use]
pub fn framed_len(encoding: Encoding, len: usize) -> usize {
    let payload = match (encoding.framing, encoding.serializer) {
        (Framing::RawSocket, _) => return rawsocket::framed_len(len),
        (Framing::WebSocket, _) => len,
        (Framing::WebSocketBatched, serializer) => batched_len(serializer, len),
    };
    header_len(payload) + payload
}

/// Appends a PING without payload.
pub(super) fn push_ping(out: &mut Vec<u8>) {
    push_control(Control::Ping, &[], out);
}

/// Appends a ping that its pong repeats.
pub(super) fn push_ping_with(payload: &[u8; 8], out: &mut Vec<u8>) {
    push_control(Control::Ping, payload, out);
}

/// Appends a control frame. `payload` is at most 125 bytes.
pub(super) fn push_control(opcode: Control, payload: &[u8], out: &mut Vec<u8>) {
    push_header(OpCode::Control(opcode), payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a Close frame; of `text` what fits.
pub(super) fn push_close(code: u16, text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(CLOSE_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    push_header(OpCode::Control(Control::Close), 2 + end, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// A message of `len` bytes as a batch of its own: with the separator, or the length before it.
fn batched_len(serializer: Serializer, len: usize) -> usize {
    len + if serializer == Serializer::Json { 1 } else { 4 }
}

fn data_opcode(is_text: bool) -> OpCode {
    OpCode::Data(if is_text { Data::Text } else { Data::Binary })
}

fn header_len(payload_len: usize) -> usize {
    if payload_len <= SHORT_BYTES_MAX { 2 } else { FrameHeader::default().len(payload_len as u64) }
}

fn push_header(opcode: OpCode, payload_len: usize, out: &mut Vec<u8>) {
    if payload_len <= SHORT_BYTES_MAX {
        // Final, no extension, no mask: nearly every frame that is sent.
        out.extend_from_slice(&[0x80 | u8::from(opcode), payload_len as u8]);
        return;
    }
    push_parsed(&FrameHeader { opcode, ..FrameHeader::default() }, payload_len, out);
}

fn push_parsed(header: &FrameHeader, payload_len: usize, out: &mut Vec<u8>) {
    let written = header.format(payload_len as u64, out);
    debug_assert!(written.is_ok(), "a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(serializer: Serializer, framing: Framing, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(Encoding { serializer, framing }, message, &mut out);
        assert_eq!(out.len(), framed_len(Encoding { serializer, framing }, message.len()));
        out
    }

    #[test]
    fn every_framing() {
        use Framing::{RawSocket, WebSocket, WebSocketBatched};
        use Serializer::{Cbor, Json, MsgPack};
        assert_eq!(framed(Json, WebSocket, b"[1]"), b"\x81\x03[1]");
        assert_eq!(framed(MsgPack, WebSocket, b"abc"), b"\x82\x03abc");
        assert_eq!(framed(Cbor, WebSocket, b""), b"\x82\x00");
        assert_eq!(framed(Json, WebSocketBatched, b"[1]"), b"\x81\x04[1]\x1e");
        assert_eq!(framed(Cbor, WebSocketBatched, b"abc"), b"\x82\x07\0\0\0\x03abc");
        assert_eq!(framed(Json, RawSocket, b"[1]"), b"\0\0\0\x03[1]");
    }

    #[test]
    fn lengths_are_in_their_shortest_form() {
        for (len, head) in [
            (125, &b"\x81\x7d"[..]),
            (126, b"\x81\x7e\x00\x7e"),
            (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\0\0\0\0\0\x01\0\0"),
        ] {
            let frame = framed(Serializer::Json, Framing::WebSocket, &vec![b' '; len]);
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + len);
            let mut echo = Vec::new();
            frame_echo(true, &vec![b' '; len], &mut echo);
            assert_eq!(echo, frame);
        }
        // The separator is what makes this one long.
        let frame = framed(Serializer::Json, Framing::WebSocketBatched, &[b' '; 125]);
        assert_eq!(&frame[..4], b"\x81\x7e\x00\x7e");
    }

    #[test]
    fn close_text_is_cut_between_characters() {
        let mut out = Vec::new();
        push_close(1008, &"\u{20ac}".repeat(60), &mut out);
        assert_eq!(out.len(), 2 + 2 + 123, "41 characters of three bytes");
        out.clear();
        push_close(1008, &format!("a{}", "\u{20ac}".repeat(60)), &mut out);
        assert_eq!(out[1], 2 + 1 + 120);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
        out.clear();
        push_close(1000, "", &mut out);
        assert_eq!(out, b"\x88\x02\x03\xe8");
    }
}
