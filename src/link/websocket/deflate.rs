//! The content of compressed messages (RFC 7692 section 7.2): whole messages in, whole messages out.
//!
//! Neither side takes a window over from one message to the next (`extension.rs` sees to it), so what compresses and what
//! inflates is scratch of a core, however many connections it has, and a connection holds none of it.

use std::fmt;
use std::num::NonZeroU8;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::{Bounds, Violation};

/// What a receiver adds to a compressed message: the end of the empty block that the sender flushed with and took off
/// (RFC 7692 section 7.2.2), and an empty last block. If that is not the end of all, bytes of the message are missing.
const TAIL: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

/// What a sender takes off, and a receiver adds.
const TAIL_BYTES: usize = 4;

/// So much may come of a message without regard to its ratio, in bytes: what an honest sender repeats a lot becomes very short.
const RATIO_FREE_BYTES: usize = 1024 * 1024;

/// What a compressed message may be longer than its content, beside an eighth of it, in bytes: empty blocks, of which
/// senders write one for each of their fragments. Reading them is work that no other bound would notice.
const SURPLUS_BYTES_MAX: usize = 16 * 1024;

/// How long a message may be before it is inflated, if its content may be so long: random bytes become a little longer.
pub(super) fn compressed_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_add(message_bytes_max / 8 + SURPLUS_BYTES_MAX)
}

/// The surplus is looked at after so many bytes.
const PIECE_BYTES: usize = 4096;

/// How often a message may end and go on: blocks with the BFINAL bit are allowed anywhere (RFC 7692 section 7.2.3.4).
const ENDS_MAX: u32 = 256;

/// What the scratch of an inflater begins with, in bytes.
const SCRATCH_BYTES_MIN: usize = 4096;

/// The window of what is sent: 2 to the power of 9 to 15 bytes. Agreed on with those who take compressed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowBits(NonZeroU8);

impl WindowBits {
    /// The smallest: with 8, which RFC 7692 has too, no implementation of DEFLATE at hand can compress.
    pub const MIN: u8 = 9;
    /// The largest.
    pub const MAX: u8 = 15;
    /// How many there are.
    pub const COUNT: usize = (Self::MAX - Self::MIN) as usize + 1;

    /// `None` for numbers out of the range.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        match NonZeroU8::new(bits) {
            Some(number) if bits >= Self::MIN && bits <= Self::MAX => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// A place for each window, from 0 on.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.get() - Self::MIN) as usize
    }
}

/// Compresses messages. What it needs is made when a window is first used, and kept.
#[derive(Default)]
pub struct Deflater {
    level: u8,
    by_window: [Option<Box<Deflate>>; WindowBits::COUNT],
    /// What comes out of one message; as long as the longest so far.
    out: Vec<u8>,
    /// A message in the framing of a batch.
    pub(in crate::link) batch: Vec<u8>,
}

impl Deflater {
    /// With a level from 1, fast, to 9.
    #[must_use]
    pub fn new(level: u8) -> Self {
        Self { level, ..Self::default() }
    }

    /// The payload of a compressed message, if it is shorter.
    pub(in crate::link) fn deflate(&mut self, window: WindowBits, payload: &[u8]) -> Option<&[u8]> {
        deflate(&mut self.by_window[window.index()], self.level, window, payload, &mut self.out)
    }

    /// The same for what [`Self::batch`] holds.
    pub(in crate::link) fn deflate_batch(&mut self, window: WindowBits) -> Option<&[u8]> {
        deflate(&mut self.by_window[window.index()], self.level, window, &self.batch, &mut self.out)
    }

    /// Scratch buffers that grew beyond this are given back.
    pub fn give_scratch_back(&mut self, bytes_max: usize) {
        for scratch in [&mut self.out, &mut self.batch] {
            if scratch.capacity() > bytes_max {
                *scratch = Vec::new();
            }
        }
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deflater").field("level", &self.level).finish_non_exhaustive()
    }
}

fn deflate<'o>(
    place: &mut Option<Box<Deflate>>,
    level: u8,
    window: WindowBits,
    payload: &[u8],
    out: &'o mut Vec<u8>,
) -> Option<&'o [u8]> {
    let state = place.get_or_insert_with(|| Box::new(Deflate::new(i32::from(level), false, window.get())));
    state.reset();
    // What does not end within so much is not shorter, and is not compressed to its end.
    let room = payload.len() + TAIL_BYTES;
    if out.len() < room {
        out.resize(room, 0);
    }
    let status = state.compress(payload, &mut out[..room], DeflateFlush::SyncFlush).ok()?;
    let length = state.total_out() as usize;
    let is_whole = status == Status::Ok && state.total_in() == payload.len() as u64 && length < room;
    let deflated = out[..length].strip_suffix(&TAIL[..TAIL_BYTES])?;
    is_whole.then_some(deflated)
}

/// Inflates messages. What it needs is made with the first one, and kept: some 40 KiB, and the message itself.
#[derive(Default)]
pub struct Inflater {
    state: Option<Box<Inflate>>,
    out: Vec<u8>,
}

impl Inflater {
    /// Nothing is allocated yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A message that was inflated: valid until the next one is.
    pub(in crate::link) fn inflated(&self, length: usize) -> &[u8] {
        &self.out[..length]
    }

    /// A scratch buffer that grew beyond this is given back.
    pub fn give_scratch_back(&mut self, bytes_max: usize) {
        if self.out.capacity() > bytes_max {
            self.out = Vec::new();
        }
    }

    /// Inflates the payload of a whole message: its length in [`Self::inflated`]. Stops at the first byte that is too much.
    ///
    /// # Errors
    /// The content is above a bound, or is no DEFLATE.
    pub(super) fn inflate(&mut self, payload: &[u8], bounds: Bounds) -> Result<usize, Violation> {
        let by_ratio = payload.len().saturating_mul(bounds.inflate_ratio_max as usize).max(RATIO_FREE_BYTES);
        let bytes_max = bounds.message_bytes_max.min(by_ratio);
        let state = self.state.get_or_insert_with(|| Box::new(Inflate::new(false, WindowBits::MAX)));
        state.reset(false);
        let mut run = Run { state, out: &mut self.out, length: 0, bytes_max, ends: 0, is_at_end: true };
        let mut taken = 0;
        let inflated = payload.chunks(PIECE_BYTES).try_for_each(|piece| {
            run.take(piece)?;
            taken += piece.len();
            if taken > run.length + run.length / 8 + SURPLUS_BYTES_MAX {
                return Err(Refusal::Surplus);
            }
            Ok(())
        });
        // Whoever ends with BFINAL should add an empty block (RFC 7692 section 7.2.3.4); those who do not are understood.
        let inflated = inflated.and_then(|()| if run.is_at_end { Ok(()) } else { run.finish() });
        let length = run.length;
        match inflated {
            Ok(()) => Ok(length),
            Err(Refusal::NotDeflate) => Err(Violation::frame("the compressed message cannot be inflated")),
            Err(Refusal::Surplus) => {
                Err(Violation::frame("the compressed message has too many empty blocks"))
            }
            Err(Refusal::TooMuch) if bytes_max < bounds.message_bytes_max => {
                Err(Violation::too_large("the message is compressed more than this router takes"))
            }
            Err(Refusal::TooMuch) => {
                Err(Violation::too_large("the message is longer than the limit of this router"))
            }
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inflater").finish_non_exhaustive()
    }
}

/// Why a message is not inflated.
enum Refusal {
    NotDeflate,
    Surplus,
    TooMuch,
}

/// One message on its way.
struct Run<'s> {
    state: &'s mut Inflate,
    out: &'s mut Vec<u8>,
    length: usize,
    bytes_max: usize,
    ends: u32,
    /// Nothing came since a last block, or at all.
    is_at_end: bool,
}

impl Run<'_> {
    /// Inflates a piece of the message.
    fn take(&mut self, mut piece: &[u8]) -> Result<(), Refusal> {
        while !piece.is_empty() {
            self.is_at_end = false;
            if self.step(&mut piece)? {
                self.ends += 1;
                if self.ends > ENDS_MAX {
                    return Err(Refusal::Surplus);
                }
                self.state.reset(false);
                self.is_at_end = true;
            }
        }
        Ok(())
    }

    /// Adds the tail, which is the end of a message that is whole.
    fn finish(&mut self) -> Result<(), Refusal> {
        let mut tail = &TAIL[..];
        while !tail.is_empty() {
            if self.step(&mut tail)? {
                return if tail.is_empty() { Ok(()) } else { Err(Refusal::NotDeflate) };
            }
        }
        Err(Refusal::NotDeflate)
    }

    /// Takes from the beginning of `piece`, until it is empty and nothing more comes of it, or a last block ended.
    fn step(&mut self, piece: &mut &[u8]) -> Result<bool, Refusal> {
        loop {
            // One byte of room more than is allowed, so that one byte too many shows.
            let room_end = self.bytes_max.saturating_add(1);
            if self.length == self.out.len() {
                let longer = (self.out.len() * 2).max(SCRATCH_BYTES_MIN);
                self.out.resize(longer.min(room_end), 0);
            }
            let room_end = room_end.min(self.out.len());
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let room = &mut self.out[self.length..room_end];
            let is_filled_by = room.len();
            let status =
                self.state.decompress(piece, room, InflateFlush::NoFlush).map_err(|_| Refusal::NotDeflate)?;
            let taken = (self.state.total_in() - before_in) as usize;
            let given = (self.state.total_out() - before_out) as usize;
            *piece = &piece[taken..];
            self.length += given;
            if self.length > self.bytes_max {
                return Err(Refusal::TooMuch);
            }
            if status == Status::StreamEnd {
                return Ok(true);
            }
            let has_room = given < is_filled_by;
            if piece.is_empty() && has_room {
                return Ok(false);
            }
            if taken == 0 && given == 0 && has_room {
                return Err(Refusal::NotDeflate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_long_takes_no_more_scratch_than_one_that_is_not() {
        let mut deflater = Deflater::new(9);
        let window = WindowBits::new(15).unwrap();
        let bomb = deflater.deflate(window, &vec![0; 10 << 20]).unwrap().to_vec();
        let bounds =
            Bounds { message_bytes_max: 100_000, frames_per_message_max: 1, inflate_ratio_max: 1000 };
        let mut inflater = Inflater::new();
        assert!(inflater.inflate(&bomb, bounds).is_err());
        assert_eq!(inflater.out.len(), 100_001);
        // What was given up half way leaves nothing behind.
        let small = deflater.deflate(window, &[7; 50]).unwrap().to_vec();
        let length = inflater.inflate(&small, bounds).unwrap();
        assert_eq!(inflater.inflated(length), [7; 50]);
        inflater.give_scratch_back(1000);
        deflater.give_scratch_back(1000);
        assert_eq!((inflater.out.capacity(), deflater.out.capacity()), (0, 0));
        let length = inflater.inflate(&small, bounds).unwrap();
        assert_eq!(inflater.inflated(length), [7; 50]);
    }
}
