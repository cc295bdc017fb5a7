//! Bytes that came from a server, cut into messages where they lie.
//!
//! The buffer is one for the life of a connection. It grows with what has arrived, never with what a length announces, so
//! a server can make it no larger than twice what it has sent, and not above the bound.

use std::ops::Range;

use super::error::Error;

/// What the buffer has at first, and goes back to after a large message.
const USUAL_BYTES: usize = 16 << 10;
/// What it may keep when it is empty.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// A tag and a length.
const HEAD_BYTES: usize = 5;
/// A row, and a part of a stream: what may be of any size, and can be passed over.
const MAY_BE_LARGE: [u8; 2] = [b'D', b'd'];

/// Unread bytes of a connection.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// Where the next message begins.
    start: usize,
    /// Behind the last byte that arrived.
    end: usize,
    /// How many bytes of a row that is too large are still to come.
    skip: usize,
    message_bytes_max: usize,
}

/// A message in the buffer: its letter, and where its body lies until the next one is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Range<usize>,
    /// The size of a row that was left out because it is too large.
    pub(super) left_out: Option<usize>,
}

impl Inbox {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { buffer: vec![0; USUAL_BYTES], start: 0, end: 0, skip: 0, message_bytes_max }
    }

    pub(super) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    pub(super) fn set_message_bytes_max(&mut self, bytes: usize) {
        self.message_bytes_max = bytes;
    }

    /// Whether no byte waits, not even of a message that is not whole.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.skip == 0
    }

    /// Whether more is there than the ends of so many commands and what comes unasked: a row or an end of the next one, an
    /// error, the end of the group. One that says very much meanwhile counts as well.
    pub(super) fn is_behind(&self, mut commands: usize) -> bool {
        if self.skip > 0 || self.end - self.start > KEPT_BYTES_MAX {
            return true;
        }
        let mut there = &self.buffer[self.start..self.end];
        while let Some(([tag, length @ ..], rest)) = there.split_first_chunk::<HEAD_BYTES>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let Some(body) = length.and_then(|length| length.checked_sub(4)) else { return true };
            match tag {
                b'E' | b'Z' => return true,
                b'D' | b'C' if commands == 0 => return true,
                b'C' => commands -= 1,
                _ if body > self.message_bytes_max => return true,
                _ => {}
            }
            let Some(next) = rest.get(body..) else { return false };
            there = next;
        }
        false
    }

    /// The next whole message.
    ///
    /// Rows above the bound are passed over, so that a session survives them; other messages of such a size are nothing
    /// that a server sends.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.skip > 0 {
            let skipped = self.skip.min(self.end - self.start);
            self.skip -= skipped;
            self.start += skipped;
            if self.skip > 0 {
                return Ok(None);
            }
        }
        let Some((head, _)) = self.buffer[self.start..self.end].split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *head;
        let length = i32::from_be_bytes(length);
        let Some(body) = usize::try_from(length).ok().and_then(|length| length.checked_sub(4)) else {
            return Err(Error::protocol(format!("a message {} with a length of {length}", letter(tag))));
        };
        if body > self.message_bytes_max {
            if !MAY_BE_LARGE.contains(&tag) {
                return Err(Error::protocol(format!(
                    "a message {} of {body} bytes, more than message_bytes_max={}",
                    letter(tag),
                    self.message_bytes_max
                )));
            }
            self.start += HEAD_BYTES;
            self.skip = body;
            return Ok(Some(Frame { tag, body: self.start..self.start, left_out: Some(body) }));
        }
        let begin = self.start + HEAD_BYTES;
        if self.end - begin < body {
            return Ok(None);
        }
        self.start = begin + body;
        Ok(Some(Frame { tag, body: begin..self.start, left_out: None }))
    }

    /// What a frame has in it.
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        &self.buffer[frame.body.clone()]
    }

    /// Room for what arrives; [`Self::filled`] says how much did.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buffer.len() > KEPT_BYTES_MAX {
                self.buffer.truncate(USUAL_BYTES);
                self.buffer.shrink_to(USUAL_BYTES);
            }
        } else if self.buffer.len() - self.end < self.buffer.len() / 4 && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // Nothing is in it but the start of one message, which the bound allows.
            let most = (self.message_bytes_max + HEAD_BYTES).max(USUAL_BYTES);
            let grown = (self.buffer.len() * 2).min(most).max(self.end + 1);
            self.buffer.reserve_exact(grown - self.buffer.len());
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes are in the room now.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// How a tag is shown: it may be any byte.
pub(super) fn letter(tag: u8) -> String {
    if tag.is_ascii_graphic() { format!("'{}'", char::from(tag)) } else { format!("0x{tag:02x}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: usize = 64 << 10;

    fn feed(inbox: &mut Inbox, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = inbox.room();
            let some = room.len().min(bytes.len());
            room[..some].copy_from_slice(&bytes[..some]);
            inbox.filled(some);
            bytes = &bytes[some..];
        }
    }

    /// Its letter, the size of one that was left out, its body.
    type Found = (u8, usize, Vec<u8>);

    /// All messages of bytes that arrive in pieces, and the largest capacity on the way.
    fn messages(pieces: &[&[u8]], bound: usize) -> (Vec<Found>, bool, usize) {
        let mut inbox = Inbox::new(bound);
        let mut found = Vec::new();
        let mut capacity = 0;
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let room = inbox.room();
                let some = room.len().min(rest.len());
                room[..some].copy_from_slice(&rest[..some]);
                inbox.filled(some);
                rest = &rest[some..];
                capacity = capacity.max(inbox.capacity());
                loop {
                    match inbox.next() {
                        Ok(Some(frame)) => found.push((
                            frame.tag,
                            frame.left_out.unwrap_or_default(),
                            inbox.body(&frame).to_vec(),
                        )),
                        Ok(None) => break,
                        Err(_) => return (found, true, capacity),
                    }
                }
            }
        }
        (found, false, capacity)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn rows_above_the_bound_are_passed_over() {
        let mut bytes = message(b'D', &vec![1; BOUND + 1]);
        bytes.extend(message(b'C', b"SELECT 1\0"));
        let (found, failed, capacity) = messages(&[&bytes], BOUND);
        assert!(!failed);
        assert_eq!(found[0], (b'D', BOUND + 1, Vec::new()));
        assert_eq!(found[1], (b'C', 0, b"SELECT 1\0".to_vec()));
        assert!(capacity <= BOUND + HEAD_BYTES, "{capacity}");
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut inbox = Inbox::new(BOUND);
        feed(&mut inbox, &[b'D', 0, 0, 255, 255]);
        assert_eq!(inbox.next().unwrap(), None);
        assert!(inbox.room().len() <= USUAL_BYTES);
        assert_eq!(inbox.capacity(), USUAL_BYTES, "nothing is allocated before it arrives");
        for bad in
            [[b'E', 0, 0, 0, 3], [b'E', 255, 255, 255, 255], [b'E', 127, 255, 255, 255], [0, 0, 2, 0, 0]]
        {
            let mut inbox = Inbox::new(BOUND);
            feed(&mut inbox, &bad);
            assert!(matches!(inbox.next(), Err(Error::Protocol(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_large_message_is_given_back() {
        let mut inbox = Inbox::new(1 << 20);
        feed(&mut inbox, &message(b'd', &vec![7; 1 << 20]));
        let frame = inbox.next().unwrap().unwrap();
        assert_eq!(inbox.body(&frame).len(), 1 << 20);
        assert!(inbox.room().len() <= USUAL_BYTES);
        assert!(inbox.capacity() <= 2 * USUAL_BYTES, "{}", inbox.capacity());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bound(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..12),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let (_, _, capacity) = messages(&pieces, 20_000);
            prop_assert!(capacity <= 20_000 + HEAD_BYTES, "{}", capacity);
        }

        #[test]
        fn pieces_make_no_difference(
            bodies in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..9000)), 0..12),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            let (found, failed, _) = messages(&pieces, 10_000);
            prop_assert!(!failed);
            let expected: Vec<_> = bodies.into_iter().map(|(tag, body)| (tag, 0, body)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
