//! What waits to be written to one connection.
//!
//! A frame that many connections get is held by reference; small frames of one connection are gathered in a buffer, so that
//! the replies of a turn leave by one system call. An idle connection holds nothing, and one with a single shared
//! frame allocates nothing: an event to 90,000 idle sessions costs its encoding once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// What a frame counts in addition to its length, in bytes.
pub const FRAME_OVERHEAD_BYTES: usize = 32;

/// A shared frame of at most this many bytes is copied where it would have to queue: a reference is dearer to write.
const COPY_BYTES_MAX: usize = 1024;

/// Buffers that gather frames are not filled beyond this; a frame that is larger has a buffer of its own size.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// What a buffer begins with.
const BUFFER_BYTES_MIN: usize = 512;

/// The acceptance window: eight slots of an eighth of a second.
const SLOT_COUNT: u64 = 8;
const SLOT_US: u64 = 1_000_000 / SLOT_COUNT;

/// The bounds of an outbox, in bytes as [`Outbox::bytes`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Above this it is to be flushed at once.
    pub soft_bytes: usize,
    /// Above this nothing is queued, except one frame into an empty outbox: a message that is allowed at all gets through.
    pub hard_bytes: usize,
}

impl Levels {
    /// No bounds: for the few frames that end a connection.
    pub const NONE: Self = Self { soft_bytes: usize::MAX, hard_bytes: usize::MAX };
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// Queued.
    Accepted,
    /// Queued, and the outbox is above its soft bound.
    AboveSoft,
    /// Not queued: it would be above the hard bound.
    Full,
}

/// A queue of frames for one connection.
#[derive(Debug, Default)]
pub enum Outbox {
    /// Nothing waits.
    #[default]
    Empty,
    /// One shared frame waits, none of it written.
    One(Bytes),
    /// More.
    Many(Box<Queue>),
}

// The cost sheet: every connection holds one.
const _: () = assert!(size_of::<Outbox>() <= 40);
const _: () = assert!(size_of::<Chunk>() <= 40);

/// Frames, and what the kernel took of them.
#[derive(Debug, Default)]
pub struct Queue {
    chunks: VecDeque<Chunk>,
    /// Lengths of the frames in the chunks, the partly written one included.
    frame_lengths: VecDeque<u32>,
    /// Bytes of the first chunk that are written.
    chunk_written: usize,
    /// Bytes of the first frame that are written.
    frame_written: usize,
    /// As [`Outbox::bytes`] counts.
    bytes: usize,
    acceptance: Option<Acceptance>,
}

/// Bytes to write in one piece.
#[derive(Debug)]
enum Chunk {
    /// One frame that others hold too.
    Shared(Bytes),
    /// One or more frames.
    Owned(Vec<u8>),
}

/// When the kernel took bytes. Begins when it first leaves some.
#[derive(Clone, Copy, Debug)]
struct Acceptance {
    last_us: u64,
    /// The slot that `last_us` is in, counted from time 0.
    slot: u64,
    slot_bytes: [u32; SLOT_COUNT as usize],
}

/// Queues and buffers of one core for the next connection that needs some.
#[derive(Debug, Default)]
pub struct Pool {
    #[expect(clippy::vec_box, reason = "the box itself is what is kept")]
    queues: Vec<Box<Queue>>,
    buffers: Vec<Vec<u8>>,
}

impl Outbox {
    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// What waits: the bytes that are not written yet, and [`FRAME_OVERHEAD_BYTES`] for each frame that is not written whole.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(frame) => frame.len() + FRAME_OVERHEAD_BYTES,
            Self::Many(queue) => queue.bytes,
        }
    }

    /// Whether a frame of at least `length` bytes would find no room: asked before it is made.
    #[must_use]
    pub fn is_full_for(&self, length: usize, levels: Levels) -> bool {
        self.admit(length, levels) == Push::Full
    }

    /// Queues one whole frame that other outboxes get too. An empty frame is nothing.
    pub fn push_shared(&mut self, frame: &Bytes, levels: Levels, pool: &mut Pool) -> Push {
        let push = self.admit(frame.len(), levels);
        if push == Push::Full || frame.is_empty() {
            return push;
        }
        if self.is_empty() {
            *self = Self::One(frame.clone());
            return push;
        }
        let queue = self.queue(pool);
        if frame.len() <= COPY_BYTES_MAX {
            queue.push_copy(frame, pool);
        } else {
            queue.push_shared(frame.clone());
        }
        push
    }

    /// Queues one whole frame of this connection alone. An empty frame is nothing.
    pub fn push_copy(&mut self, frame: &[u8], levels: Levels, pool: &mut Pool) -> Push {
        let push = self.admit(frame.len(), levels);
        if push != Push::Full && !frame.is_empty() {
            self.queue(pool).push_copy(frame, pool);
        }
        push
    }

    /// Puts what waits into `slices`, as far as they go, and returns how many were filled.
    #[must_use]
    pub fn fill_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match (self, slices) {
            (Self::Empty, _) | (_, []) => 0,
            (Self::One(frame), [first, ..]) => {
                *first = IoSlice::new(frame);
                1
            }
            (Self::Many(queue), slices) => {
                let count = queue.chunks.len().min(slices.len());
                for (index, (slice, chunk)) in slices.iter_mut().zip(&queue.chunks).enumerate() {
                    let written = if index == 0 { queue.chunk_written } else { 0 };
                    *slice = IoSlice::new(&chunk.as_slice()[written..]);
                }
                count
            }
        }
    }

    /// The kernel took `written` bytes, or none: to be called after every attempt to write, for what stays is then what the
    /// kernel refused. More than waits counts as all. `now_us` is monotonic.
    pub fn consume(&mut self, now_us: u64, written: usize, pool: &mut Pool) {
        match self {
            Self::Empty => return,
            Self::One(frame) if written >= frame.len() => return self.clear(pool),
            Self::One(_) | Self::Many(_) => {}
        }
        let queue = self.queue(pool);
        if queue.consume(written, pool) {
            queue.acceptance.get_or_insert_with(|| Acceptance::new(now_us)).add(now_us, written);
        } else {
            self.clear(pool);
        }
    }

    /// Drops all.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Self::Many(queue) = std::mem::take(self) {
            pool.take_back(queue);
        }
    }

    /// Drops all but the rest of the frame that is partly written: what comes next begins at a frame's beginning.
    pub fn clear_but_partial_head(&mut self, pool: &mut Pool) {
        match self {
            Self::Many(queue) if queue.frame_written > 0 => queue.truncate_to_head(pool),
            _ => self.clear(pool),
        }
    }

    /// Bytes that the kernel took in the last second (to an eighth of a second) before `now_us`; 0 if it never left any.
    #[must_use]
    pub fn accepted_bytes(&self, now_us: u64) -> u64 {
        self.acceptance().map_or(0, |acceptance| acceptance.bytes(now_us))
    }

    /// When the kernel last took a byte of what it refuses now, or began to refuse; `None` if it refuses nothing.
    #[must_use]
    pub fn last_accepted_us(&self) -> Option<u64> {
        Some(self.acceptance()?.last_us)
    }

    fn acceptance(&self) -> Option<&Acceptance> {
        match self {
            Self::Many(queue) => queue.acceptance.as_ref(),
            _ => None,
        }
    }

    fn admit(&self, length: usize, levels: Levels) -> Push {
        let before = self.bytes();
        let after = before.saturating_add(length).saturating_add(FRAME_OVERHEAD_BYTES);
        if before > 0 && after > levels.hard_bytes || u32::try_from(length).is_err() {
            Push::Full
        } else if after > levels.soft_bytes {
            Push::AboveSoft
        } else {
            Push::Accepted
        }
    }

    /// The queue, made of what is there.
    fn queue(&mut self, pool: &mut Pool) -> &mut Queue {
        if !matches!(self, Self::Many(_)) {
            let mut queue = pool.queues.pop().unwrap_or_default();
            if let Self::One(frame) = std::mem::take(self) {
                queue.push_shared(frame);
            }
            *self = Self::Many(queue);
        }
        match self {
            Self::Many(queue) => queue,
            _ => unreachable!("it was made a queue above"),
        }
    }
}

impl Queue {
    /// Queues with room for more are not kept for others: that memory goes with the burst that needed it. 2 and 4 KiB.
    const KEPT_CHUNKS_MAX: usize = 64;
    const KEPT_FRAMES_MAX: usize = 1024;

    fn push_shared(&mut self, frame: Bytes) {
        self.count(frame.len());
        self.chunks.push_back(Chunk::Shared(frame));
    }

    fn push_copy(&mut self, frame: &[u8], pool: &mut Pool) {
        self.count(frame.len());
        if let Some(Chunk::Owned(buffer)) = self.chunks.back_mut()
            && buffer.len() + frame.len() <= BUFFER_BYTES_MAX
        {
            return append(buffer, frame);
        }
        let mut buffer =
            if frame.len() <= BUFFER_BYTES_MAX { pool.buffers.pop().unwrap_or_default() } else { Vec::new() };
        append(&mut buffer, frame);
        self.chunks.push_back(Chunk::Owned(buffer));
    }

    fn count(&mut self, length: usize) {
        // `Outbox::admit` refuses lengths beyond u32.
        self.frame_lengths.push_back(length as u32);
        self.bytes += length + FRAME_OVERHEAD_BYTES;
    }

    /// Takes written bytes off. Whether any are left.
    fn consume(&mut self, written: usize, pool: &mut Pool) -> bool {
        self.consume_frames(written);
        self.chunk_written = self.chunk_written.saturating_add(written);
        while let Some(chunk) = self.chunks.front() {
            let length = chunk.as_slice().len();
            if self.chunk_written < length {
                return true;
            }
            self.chunk_written -= length;
            if let Some(Chunk::Owned(buffer)) = self.chunks.pop_front() {
                pool.take_back_buffer(buffer);
            }
        }
        false
    }

    fn consume_frames(&mut self, written: usize) {
        self.frame_written = self.frame_written.saturating_add(written);
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(&length) = self.frame_lengths.front()
            && self.frame_written >= length as usize
        {
            self.frame_lengths.pop_front();
            self.frame_written -= length as usize;
            self.bytes = self.bytes.saturating_sub(FRAME_OVERHEAD_BYTES);
        }
    }

    /// Leaves the rest of the first frame alone.
    fn truncate_to_head(&mut self, pool: &mut Pool) {
        let Some(&length) = self.frame_lengths.front() else { return };
        let rest = length as usize - self.frame_written;
        self.frame_lengths.truncate(1);
        for chunk in self.chunks.drain(1..) {
            if let Chunk::Owned(buffer) = chunk {
                pool.take_back_buffer(buffer);
            }
        }
        if let Some(Chunk::Owned(buffer)) = self.chunks.front_mut() {
            buffer.truncate(self.chunk_written + rest);
        }
        self.bytes = rest + FRAME_OVERHEAD_BYTES;
    }
}

/// Appends to a buffer, which grows by doubling but, so that it can be kept, not beyond `BUFFER_BYTES_MAX`.
fn append(buffer: &mut Vec<u8>, frame: &[u8]) {
    let length = buffer.len() + frame.len();
    if length > buffer.capacity() {
        let doubled = length.next_power_of_two().clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        buffer.reserve_exact(doubled.max(length) - buffer.len());
    }
    buffer.extend_from_slice(frame);
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(frame) => frame,
            Self::Owned(buffer) => buffer,
        }
    }
}

impl Acceptance {
    const fn new(now_us: u64) -> Self {
        Self { last_us: now_us, slot: now_us / SLOT_US, slot_bytes: [0; SLOT_COUNT as usize] }
    }

    fn add(&mut self, now_us: u64, written: usize) {
        if written == 0 {
            return;
        }
        let slot = now_us / SLOT_US;
        for passed in self.slot + 1..=slot.min(self.slot + SLOT_COUNT) {
            self.slot_bytes[(passed % SLOT_COUNT) as usize] = 0;
        }
        self.slot = self.slot.max(slot);
        self.last_us = self.last_us.max(now_us);
        let bytes = &mut self.slot_bytes[(self.slot % SLOT_COUNT) as usize];
        *bytes = bytes.saturating_add(u32::try_from(written).unwrap_or(u32::MAX));
    }

    fn bytes(&self, now_us: u64) -> u64 {
        let now_slot = now_us / SLOT_US;
        // Slots that are a second old by now are not counted.
        let oldest = (now_slot + 1).saturating_sub(SLOT_COUNT);
        let newest = self.slot;
        (oldest.max((newest + 1).saturating_sub(SLOT_COUNT))..=newest)
            .map(|slot| u64::from(self.slot_bytes[(slot % SLOT_COUNT) as usize]))
            .sum()
    }
}

impl Pool {
    /// Queues and buffers beyond this many are freed: at most 6 MiB wait on a core.
    const KEPT_MAX: usize = 256;

    fn take_back(&mut self, mut queue: Box<Queue>) {
        for chunk in queue.chunks.drain(..) {
            if let Chunk::Owned(buffer) = chunk {
                self.take_back_buffer(buffer);
            }
        }
        let is_long = queue.chunks.capacity() > Queue::KEPT_CHUNKS_MAX
            || queue.frame_lengths.capacity() > Queue::KEPT_FRAMES_MAX;
        if is_long || self.queues.len() == Self::KEPT_MAX {
            return;
        }
        queue.frame_lengths.clear();
        *queue = Queue {
            chunks: std::mem::take(&mut queue.chunks),
            frame_lengths: std::mem::take(&mut queue.frame_lengths),
            ..Queue::default()
        };
        self.queues.push(queue);
    }

    fn take_back_buffer(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < Self::KEPT_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(outbox: &Outbox, slices_max: usize) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); slices_max];
        let count = outbox.fill_slices(&mut slices);
        assert!(slices[..count].iter().all(|slice| !slice.is_empty()) && count <= slices_max);
        slices[..count].iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat()
    }

    fn slice_count(outbox: &Outbox) -> usize {
        outbox.fill_slices(&mut [IoSlice::new(&[]); 64])
    }

    #[test]
    fn one_shared_frame_is_held_by_reference_and_nothing_is_allocated() {
        let frame = Bytes::from(vec![7; 100]);
        let mut pool = Pool::default();
        let mut outboxes: Vec<Outbox> = (0..100).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            assert_eq!(outbox.push_shared(&frame, Levels::NONE, &mut pool), Push::Accepted);
            let mut slices = [IoSlice::new(&[])];
            assert_eq!((outbox.fill_slices(&mut slices), slices[0].as_ptr()), (1, frame.as_ptr()));
            assert_eq!(outbox.bytes(), 132);
            outbox.consume(0, 100, &mut pool);
            assert!(outbox.is_empty());
        }
        assert!(frame.is_unique() && pool.queues.is_empty() && pool.buffers.is_empty());
    }

    #[test]
    fn small_frames_gather_and_large_ones_stay_shared() {
        let (small, large) = (Bytes::from(vec![1; 1024]), Bytes::from(vec![2; 1025]));
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            let _ = outbox.push_copy(b"reply", Levels::NONE, &mut pool);
            let _ = outbox.push_shared(&small, Levels::NONE, &mut pool);
        }
        assert_eq!((slice_count(&outbox), small.is_unique()), (1, true));
        let _ = outbox.push_shared(&large, Levels::NONE, &mut pool);
        let _ = outbox.push_copy(b"reply", Levels::NONE, &mut pool);
        assert_eq!((slice_count(&outbox), large.is_unique()), (3, false));
        let _ = outbox.push_copy(&[3; BUFFER_BYTES_MAX], Levels::NONE, &mut pool);
        let _ = outbox.push_copy(&[4; BUFFER_BYTES_MAX + 1], Levels::NONE, &mut pool);
        assert_eq!(slice_count(&outbox), 5);
        let length = 3 * (5 + 1024) + 1025 + 5 + 2 * BUFFER_BYTES_MAX + 1;
        assert_eq!((outbox.bytes(), contents(&outbox, 64).len()), (length + 10 * 32, length));
        outbox.clear(&mut pool);
        assert!(outbox.is_empty() && large.is_unique());
        // The buffer that was made for one large frame is gone.
        assert_eq!((pool.queues.len(), pool.buffers.len()), (1, 3));
    }

    #[test]
    fn a_turn_after_the_first_allocates_nothing() {
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        let mut places = Vec::new();
        for _ in 0..3 {
            for _ in 0..100 {
                let _ = outbox.push_copy(&[5; 150], Levels::NONE, &mut pool);
            }
            let mut slices = [IoSlice::new(&[]); 2];
            assert_eq!(outbox.fill_slices(&mut slices), 1);
            places.push(slices[0].as_ptr());
            let Outbox::Many(queue) = &outbox else { panic!("it gathers") };
            let Some(Chunk::Owned(buffer)) = queue.chunks.front() else { panic!("it gathers") };
            assert_eq!((buffer.len(), buffer.capacity()), (15_000, BUFFER_BYTES_MAX));
            outbox.consume(0, 15_000, &mut pool);
            assert!(outbox.is_empty());
            assert_eq!((pool.queues.len(), pool.buffers.len()), (1, 1));
        }
        assert_eq!((places[1], places[2]), (places[0], places[0]));
    }

    #[test]
    fn bounds() {
        let levels = Levels { soft_bytes: 300, hard_bytes: 500 };
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        for (length, expected) in [
            (100, Push::Accepted),
            (136, Push::Accepted),
            (1, Push::AboveSoft),
            (136, Push::Full),
            (135, Push::AboveSoft),
        ] {
            assert_eq!(outbox.push_copy(&vec![0; length], levels, &mut pool), expected, "{length}");
        }
        assert_eq!(outbox.bytes(), 500);
        assert_eq!(outbox.push_shared(&Bytes::from_static(b"x"), levels, &mut pool), Push::Full);
        assert_eq!(outbox.push_copy(b"ABORT", Levels::NONE, &mut pool), Push::Accepted);
        outbox.clear(&mut pool);
        // One message that is larger than the bound passes, nothing with it.
        assert_eq!(outbox.push_copy(&[0; 1000], levels, &mut pool), Push::AboveSoft);
        assert_eq!(outbox.push_copy(b"x", levels, &mut pool), Push::Full);
    }

    #[test]
    fn acceptance_is_that_of_the_last_second() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        let _ = outbox.push_shared(&Bytes::from(vec![0; 100_000]), Levels::NONE, &mut pool);
        assert_eq!((outbox.last_accepted_us(), outbox.accepted_bytes(5_000_000)), (None, 0));
        outbox.consume(5_000_000, 0, &mut pool);
        assert_eq!((outbox.last_accepted_us(), outbox.accepted_bytes(5_000_000)), (Some(5_000_000), 0));
        outbox.consume(5_500_000, 10, &mut pool);
        outbox.consume(5_600_000, 5, &mut pool);
        outbox.consume(5_900_000, 0, &mut pool);
        assert_eq!((outbox.last_accepted_us(), outbox.accepted_bytes(5_900_000)), (Some(5_600_000), 15));
        outbox.consume(6_400_000, 7, &mut pool);
        assert_eq!(outbox.accepted_bytes(6_400_000), 22);
        assert_eq!(outbox.accepted_bytes(6_550_000), 7);
        assert_eq!((outbox.accepted_bytes(7_400_000), outbox.accepted_bytes(u64::MAX)), (0, 0));
        outbox.consume(60_000_000, 1, &mut pool);
        assert_eq!((outbox.accepted_bytes(60_000_000), outbox.last_accepted_us()), (1, Some(60_000_000)));
        outbox.consume(60_000_000, usize::MAX, &mut pool);
        assert!(outbox.is_empty() && outbox.last_accepted_us().is_none());
        let _ = outbox.push_copy(b"fresh", Levels::NONE, &mut pool);
        assert_eq!((outbox.last_accepted_us(), outbox.accepted_bytes(60_000_000)), (None, 0));
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = Pool::default();
        let mut outboxes: Vec<Outbox> = (0..Pool::KEPT_MAX + 10).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            let _ = outbox.push_copy(b"x", Levels::NONE, &mut pool);
        }
        outboxes.iter_mut().for_each(|outbox| outbox.clear(&mut pool));
        assert_eq!((pool.queues.len(), pool.buffers.len()), (Pool::KEPT_MAX, Pool::KEPT_MAX));
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            let _ = outbox.push_shared(&Bytes::from(vec![0; 2000]), Levels::NONE, &mut pool);
        }
        outbox.clear(&mut pool);
        assert!(pool.queues.len() < Pool::KEPT_MAX, "a queue that grew long is not kept");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Shared(usize),
        Copy(usize),
        /// Thousandths of what waits.
        Consume(usize),
        ClearButPartialHead,
        Clear,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let length = || prop_oneof![0..50usize, 900..1200usize, 15_000..17_000usize];
        prop_oneof![
            8 => length().prop_map(Step::Shared),
            8 => length().prop_map(Step::Copy),
            8 => (0..=1000usize).prop_map(Step::Consume),
            2 => Just(Step::ClearButPartialHead),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec(any_step(), 1..60),
            slices_max in 1..70usize,
            hard_bytes in 10_000..80_000usize,
        ) {
            let levels = Levels { soft_bytes: hard_bytes / 2, hard_bytes };
            let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
            // The frames that wait, the first without what is written of it, and whether something is.
            let mut frames: VecDeque<Vec<u8>> = VecDeque::new();
            let mut partial = false;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Shared(length) | Step::Copy(length) => {
                        let frame: Vec<u8> = (0..=u8::MAX).cycle().skip(number).take(length).collect();
                        let before = outbox.bytes();
                        let push = if matches!(step, Step::Copy(_)) {
                            outbox.push_copy(&frame, levels, &mut pool)
                        } else {
                            outbox.push_shared(&Bytes::from(frame.clone()), levels, &mut pool)
                        };
                        let after = before + length + 32;
                        let expected = match push {
                            Push::Full => before > 0 && after > hard_bytes,
                            Push::AboveSoft => after > hard_bytes / 2 && (before == 0 || after <= hard_bytes),
                            Push::Accepted => after <= hard_bytes / 2,
                        };
                        prop_assert!(expected);
                        if push != Push::Full && length > 0 {
                            frames.push_back(frame);
                        }
                    }
                    Step::Consume(thousandths) => {
                        let mut written = frames.iter().map(Vec::len).sum::<usize>() * thousandths / 1000;
                        outbox.consume(number as u64, written, &mut pool);
                        while let Some(frame) = frames.front_mut() {
                            if frame.len() > written {
                                frame.drain(..written);
                                partial |= written > 0;
                                break;
                            }
                            written -= frame.len();
                            frames.pop_front();
                            partial = false;
                        }
                    }
                    Step::ClearButPartialHead => {
                        outbox.clear_but_partial_head(&mut pool);
                        frames.truncate(usize::from(partial));
                    }
                    Step::Clear => {
                        outbox.clear(&mut pool);
                        frames.clear();
                        partial = false;
                    }
                }
                let waiting = frames.make_contiguous().concat();
                prop_assert_eq!(outbox.bytes(), waiting.len() + 32 * frames.len());
                prop_assert_eq!(outbox.is_empty(), frames.is_empty());
                let head = contents(&outbox, slices_max);
                prop_assert!(waiting.starts_with(&head));
                prop_assert!(!head.is_empty() || waiting.is_empty());
                prop_assert_eq!(contents(&outbox, 200), waiting);
            }
            outbox.consume(0, usize::MAX, &mut pool);
            prop_assert!(outbox.is_empty() && outbox.bytes() == 0);
        }
    }
}
