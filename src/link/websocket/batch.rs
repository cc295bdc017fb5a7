//! The `.batched` subprotocols: a WebSocket message that holds several WAMP messages. JSON messages are each
//! followed by 0x1e, the others each preceded by their length as a big-endian u32.

use super::assembly::Assembled;
use super::{Received, Violation};

/// What ends each JSON message of a batch.
pub(in crate::link) const RECORD_SEPARATOR: u8 = 0x1e;

/// A message within a batch, as offsets into what is left of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Bytes to go on from, behind the message and what separates it from the next.
    pub(super) used: usize,
}

/// The first message of `rest`.
///
/// # Errors
/// When `rest` is empty (so is an empty batch), has no separator, or a length that is not there.
pub(super) fn first_of(is_text: bool, rest: &[u8]) -> Result<Piece, Violation> {
    if rest.is_empty() {
        return Err(Violation::frame("a batch without a message"));
    }
    if is_text {
        let Some(end) = rest.iter().position(|byte| *byte == RECORD_SEPARATOR) else {
            return Err(Violation::frame("a message of the batch does not end with 0x1e"));
        };
        return Ok(Piece { start: 0, end, used: end + 1 });
    }
    let cut = Violation::frame("a message of the batch is shorter than its length says");
    let Some((length, messages)) = rest.split_first_chunk::<4>() else { return Err(cut) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > messages.len() {
        return Err(cut);
    }
    Ok(Piece { start: 4, end: 4 + length, used: 4 + length })
}

/// A batch that came in pieces, and how far it was given out.
#[derive(Debug)]
pub(super) struct Batch {
    messages: Assembled,
    at: usize,
}

impl Batch {
    pub(super) fn new(messages: Assembled) -> Self {
        Self { messages, at: 0 }
    }

    /// Heap held.
    pub(super) fn capacity(&self) -> usize {
        match &self.messages {
            Assembled::Text(text) => text.capacity(),
            Assembled::Binary(bytes) => bytes.capacity(),
        }
    }

    /// Whether all of it was given out.
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        match &self.messages {
            Assembled::Text(text) => text.as_bytes(),
            Assembled::Binary(bytes) => bytes,
        }
    }

    /// The next message, copied out. To be asked once for an empty batch, to learn that it is wrong.
    pub(super) fn next(&mut self) -> Result<Received, Violation> {
        let is_text = matches!(self.messages, Assembled::Text(_));
        let piece = first_of(is_text, &self.bytes()[self.at..])?;
        let (start, end) = (self.at + piece.start, self.at + piece.end);
        self.at += piece.used;
        Ok(match &self.messages {
            Assembled::Text(text) => Received::Text(text[start..end].to_owned()),
            Assembled::Binary(bytes) => Received::Binary(bytes[start..end].to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_messages_end_with_the_separator() {
        assert_eq!(first_of(true, b"[1]\x1e[2]\x1e"), Ok(Piece { start: 0, end: 3, used: 4 }));
        assert_eq!(first_of(true, b"[2]\x1e"), Ok(Piece { start: 0, end: 3, used: 4 }));
        assert!(first_of(true, b"[2]").is_err());
        assert!(first_of(true, b"").is_err());
    }

    #[test]
    fn other_messages_begin_with_their_length() {
        assert_eq!(first_of(false, b"\0\0\0\x02ab\0\0\0\x00"), Ok(Piece { start: 4, end: 6, used: 6 }));
        assert_eq!(first_of(false, b"\0\0\0\x00"), Ok(Piece { start: 4, end: 4, used: 4 }));
        assert!(first_of(false, b"\0\0\0\x03ab").is_err());
        assert!(first_of(false, b"\xff\xff\xff\xffab").is_err());
        assert!(first_of(false, b"\0\0\0").is_err());
        assert!(first_of(false, b"").is_err());
    }
}
