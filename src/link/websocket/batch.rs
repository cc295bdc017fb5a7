//! The `.batched` subprotocols: a WebSocket message that holds several WAMP messages, given out one by one.

use super::Received;
use super::assembly::Assembled;
use crate::wamp::codec::{Serializer, next_of_batch};
use crate::wamp::error::ProtocolError;

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
pub(super) fn first_of(serializer: Serializer, rest: &[u8]) -> Result<Piece, ProtocolError> {
    let (message, others) = next_of_batch(serializer, rest)?;
    let used = rest.len() - others.len();
    // What is around the message stands behind it in JSON, and before it otherwise.
    let start = if serializer == Serializer::Json { 0 } else { used - message.len() };
    Ok(Piece { start, end: start + message.len(), used })
}

/// A batch that came in pieces, and how far it was given out.
#[derive(Debug)]
pub(super) struct Batch {
    messages: Assembled,
    serializer: Serializer,
    at: usize,
}

impl Batch {
    pub(super) fn new(serializer: Serializer, messages: Assembled) -> Self {
        Self { messages, serializer, at: 0 }
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
    pub(super) fn next(&mut self) -> Result<Received, ProtocolError> {
        let piece = first_of(self.serializer, &self.bytes()[self.at..])?;
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
    fn offsets_are_those_of_the_message() {
        assert_eq!(first_of(Serializer::Json, b"[1]\x1e[2]\x1e"), Ok(Piece { start: 0, end: 3, used: 4 }));
        let batch = b"\0\0\0\x02ab\0\0\0\x00";
        for serializer in [Serializer::MsgPack, Serializer::Cbor] {
            assert_eq!(first_of(serializer, batch), Ok(Piece { start: 4, end: 6, used: 6 }));
            assert_eq!(first_of(serializer, &batch[6..]), Ok(Piece { start: 4, end: 4, used: 4 }));
        }
        for serializer in Serializer::ALL {
            assert!(first_of(serializer, b"").is_err());
            assert!(first_of(serializer, b"abc").is_err());
        }
    }
}
