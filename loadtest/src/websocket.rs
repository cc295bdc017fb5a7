//! WebSocket, the client's side: frames out with a mask, frames in without.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The key of every handshake, and the answer that it must get (RFC 6455, section 1.3). A load has nothing to hide.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The request that asks for a WebSocket.
pub(crate) fn request(path: &str, host: &str, subprotocol: Option<&str>) -> String {
    let subprotocol =
        subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
}

/// Checks the answer to the request, if all of it is there: its length, or what is wrong.
pub(crate) fn check_answer(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > 16 * 1024 { Err("an endless HTTP head".to_owned()) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("refused: {status}"));
    }
    if !head.contains(ACCEPT) {
        return Err("the WebSocket handshake is not answered as RFC 6455 says".to_owned());
    }
    Ok(Some(end + 4))
}

/// Appends a frame, masked.
pub(crate) fn push_frame(opcode: OpCode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let header =
        FrameHeader { is_final: true, opcode, mask: Some(mask), rsv1: false, rsv2: false, rsv3: false };
    // Writing to memory does not fail.
    let _ = header.format(payload.len() as u64, out);
    let start = out.len();
    out.extend_from_slice(payload);
    let (words, rest) = out[start..].as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Appends a message.
pub(crate) fn push_message(is_text: bool, message: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    push_frame(OpCode::Data(if is_text { Data::Text } else { Data::Binary }), message, mask, out);
}

/// A frame in bytes that were received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    /// Where its payload begins and ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// A piece of a message, and whether it is the last one.
    Data(bool),
    Ping,
    Pong,
    Close,
}

/// The first frame of `bytes`, if all of it is there.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<Frame>, String> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
    let Some((header, length)) = parsed else { return Ok(None) };
    if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
        return Err("a frame that is masked, or has bits of an extension".to_owned());
    }
    let start = cursor.position() as usize;
    let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
    let Some(end) = end.filter(|end| *end <= bytes.len()) else { return Ok(None) };
    let kind = match header.opcode {
        OpCode::Control(Control::Ping) => FrameKind::Ping,
        OpCode::Control(Control::Pong) => FrameKind::Pong,
        OpCode::Control(_) => FrameKind::Close,
        OpCode::Data(_) => FrameKind::Data(header.is_final),
    };
    Ok(Some(Frame { kind, start, end }))
}

/// What a Close frame says.
pub(crate) fn close_reason(payload: &[u8]) -> String {
    match payload {
        [first, second, text @ ..] => {
            let code = u16::from_be_bytes([*first, *second]);
            format!("WebSocket close {code} {}", String::from_utf8_lossy(text)).trim_end().to_owned()
        }
        _ => "WebSocket close without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\nrest");
        assert_eq!(check_answer(good.as_bytes()), Ok(Some(good.len() - 4)));
        assert_eq!(check_answer(&good.as_bytes()[..40]), Ok(None));
        assert!(check_answer(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap_err().contains("403"));
        assert!(check_answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());
    }

    #[test]
    fn frames_are_masked_and_found() {
        for length in [0, 5, 125, 126, 70_000] {
            let message = vec![b'm'; length];
            let mut out = Vec::new();
            push_message(true, &message, [1, 2, 3, 4], &mut out);
            assert_eq!(out[1] & 0x80, 0x80);
            assert!(next_frame(&out).is_err(), "a server does not mask");
            let payload: Vec<u8> = out[out.len() - length..]
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(a, b)| a ^ b)
                .collect();
            assert_eq!(payload, message);
        }
        let frame = [0x81, 2, b'h', b'i', 0x81];
        assert_eq!(next_frame(&frame), Ok(Some(Frame { kind: FrameKind::Data(true), start: 2, end: 4 })));
        assert_eq!(next_frame(&frame[4..]), Ok(None));
    }
}
