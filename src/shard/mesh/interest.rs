//! What a core may want to hear of: told to all others by counters that anybody may read, so that nobody is woken for
//! what it does not want.
//!
//! A core counts a topic in before it says SUBSCRIBED. Whoever publishes because of that SUBSCRIBED, on whatever core, reads
//! the counter later: the answer went through the kernel, to a client and back, and each step of that orders memory. So
//! what is published after SUBSCRIBED was received still arrives (O5), and no core has to acknowledge anything. A topic
//! that shares its counter with another one is sent in vain, as all were without the counters.
//!
//! Every time that a counter leaves 0 a new *era* of it begins. A publication carries the era in which it was sent, and a
//! subscription takes nothing from before the era that it began in: what was still on its way when the last subscriber
//! left would otherwise be followed by a gap, the publications that nobody was sent in between.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many counters a core has: 512 KiB. With many more topics than that most counters are used, and every core is told
/// of everything.
const SLOTS: usize = 1 << 16;

/// The interest of one core: eras in the upper halves, counts in the lower.
#[derive(Debug)]
pub(super) struct Interest(Box<[AtomicU64]>);

impl Interest {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Counts a topic in or out, and returns the era; by its own core alone, once for each `true` that was not followed by
    /// `false`.
    pub(super) fn set(&self, topic: u64, wanted: bool) -> u32 {
        let slot = self.slot(topic);
        // One writer; the order is for those who read.
        let (mut era, count) = halves(slot.load(Ordering::Relaxed));
        let count = if wanted { count.saturating_add(1) } else { count.saturating_sub(1) };
        if wanted && count == 1 {
            era = era.wrapping_add(1);
        }
        slot.store(u64::from(era) << 32 | u64::from(count), Ordering::SeqCst);
        era
    }

    /// Whether the core may want a topic, and the era.
    pub(super) fn get(&self, topic: u64) -> (bool, u32) {
        let (era, count) = halves(self.slot(topic).load(Ordering::SeqCst));
        (count > 0, era)
    }

    /// How many counters are used, for tests.
    pub(super) fn len(&self) -> usize {
        self.0.iter().filter(|slot| halves(slot.load(Ordering::SeqCst)).1 > 0).count()
    }

    fn slot(&self, topic: u64) -> &AtomicU64 {
        &self.0[topic as usize % SLOTS]
    }
}

fn halves(slot: u64) -> (u32, u32) {
    ((slot >> 32) as u32, slot as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_share_a_counter_are_wanted_until_the_last_is_not() {
        let interest = Interest::new();
        let (topic, other) = (5, 5 + SLOTS as u64);
        assert_eq!(interest.get(topic), (false, 0));
        assert_eq!(interest.set(topic, true), 1);
        assert_eq!(interest.set(other, true), 1, "the era goes on");
        interest.set(topic, false);
        assert_eq!((interest.get(topic), interest.get(other)), ((true, 1), (true, 1)));
        assert_eq!(interest.get(6), (false, 0));
        assert_eq!(interest.set(other, false), 1);
        assert_eq!(interest.get(topic), (false, 1));
        assert_eq!(interest.set(topic, true), 2);
        assert_eq!(interest.len(), 1);
    }
}
