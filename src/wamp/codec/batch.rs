//! Batched transports: several messages in one frame (advanced profile, "Batched WebSocket").

use crate::wamp::error::ProtocolError;

use super::Serializer;

/// What follows every JSON message of a batch: the ASCII record separator.
const RECORD_SEPARATOR: u8 = 0x1e;

/// Splits the first message off a batch: the bytes of that message, and the rest of the batch, which is empty after
/// the last one.
///
/// JSON messages are each *followed* by 0x1e; those of the binary serializers are each *preceded* by their length, a
/// big-endian `u32`. The message itself is checked when it is decoded.
///
/// # Errors
/// The batch is empty, its last JSON message is not ended, or a length is above what remains.
pub fn next_of_batch(serializer: Serializer, batch: &[u8]) -> Result<(&[u8], &[u8]), ProtocolError> {
    if batch.is_empty() {
        return Err(ProtocolError::new("an empty batch"));
    }
    if serializer == Serializer::Json {
        // A valid JSON message cannot hold this byte, not even within a string.
        let Some(end) = batch.iter().position(|&byte| byte == RECORD_SEPARATOR) else {
            return Err(ProtocolError::new("a batch: the last JSON message is not followed by 0x1e"));
        };
        return Ok((&batch[..end], &batch[end + 1..]));
    }
    let Some((length, rest)) = batch.split_first_chunk::<4>() else {
        return Err(ProtocolError::new("a batch: a message is preceded by four bytes of length"));
    };
    let length = u32::from_be_bytes(*length);
    match usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) {
        Some(split) => Ok(split),
        None => Err(ProtocolError::new(format!(
            "a batch: a message of {length} bytes is announced, but {} remain",
            rest.len()
        ))),
    }
}

/// Begins a message of a batch in `out`; the message is appended next. Returns the mark for [`batch_end`].
#[must_use]
pub fn batch_begin(serializer: Serializer, out: &mut Vec<u8>) -> usize {
    let mark = out.len();
    if serializer != Serializer::Json {
        out.extend_from_slice(&[0; 4]);
    }
    mark
}

/// Ends the message of a batch that was begun at `mark`. A message is far below 4 GiB on every transport.
pub fn batch_end(serializer: Serializer, mark: usize, out: &mut Vec<u8>) {
    if serializer == Serializer::Json {
        out.push(RECORD_SEPARATOR);
        return;
    }
    let length = u32::try_from(out.len().saturating_sub(mark + 4)).unwrap_or(u32::MAX);
    if let Some(room) = out.get_mut(mark..mark + 4) {
        room.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends one encoded message to a batch.
pub fn append_batched(serializer: Serializer, message: &[u8], out: &mut Vec<u8>) {
    let mark = batch_begin(serializer, out);
    out.extend_from_slice(message);
    batch_end(serializer, mark, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_split_as_they_were_made() {
        for serializer in Serializer::ALL {
            let messages: [&[u8]; 3] = [b"[1]", b"", b"[2,3]"];
            let mut batch = Vec::new();
            for message in messages {
                append_batched(serializer, message, &mut batch);
            }
            let mut rest = batch.as_slice();
            for message in messages {
                let (first, others) = next_of_batch(serializer, rest).unwrap();
                assert_eq!(first, message);
                rest = others;
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn the_bytes_of_a_batch_are_those_of_the_specification() {
        let mut batch = Vec::new();
        append_batched(Serializer::Json, b"[1]", &mut batch);
        append_batched(Serializer::Json, b"[2]", &mut batch);
        assert_eq!(batch, b"[1]\x1e[2]\x1e");
        let mut batch = Vec::new();
        append_batched(Serializer::Cbor, &[0x81, 0x01], &mut batch);
        assert_eq!(batch, [0, 0, 0, 2, 0x81, 0x01]);
    }

    #[test]
    fn a_bad_batch_is_an_error() {
        for serializer in Serializer::ALL {
            assert!(next_of_batch(serializer, &[]).is_err());
        }
        assert!(next_of_batch(Serializer::Json, b"[1]").is_err());
        assert!(next_of_batch(Serializer::MsgPack, &[0, 0, 0]).is_err());
        assert!(next_of_batch(Serializer::MsgPack, &[0, 0, 0, 2, 1]).is_err());
        assert!(next_of_batch(Serializer::Cbor, &[0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
