//! Which threads of a lane sleep. The one with the lowest number is woken first: under little load the same few connections
//! are used, whose processes in the server then have in their caches what they need.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bit for each thread.
#[derive(Debug)]
pub(super) struct Sleepers(Box<[AtomicU64]>);

impl Sleepers {
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// The thread has found nothing to do. It looks once more behind this, and then it may sleep: who gives it something to do
    /// later finds it here.
    pub(super) fn enter(&self, thread: usize) {
        if let Some(word) = self.0.get(thread / 64) {
            word.fetch_or(1 << (thread % 64), Ordering::SeqCst);
        }
    }

    /// The thread is awake: from now on it is not woken for anything that it may not look for.
    pub(super) fn leave(&self, thread: usize) {
        if let Some(word) = self.0.get(thread / 64) {
            word.fetch_and(!(1 << (thread % 64)), Ordering::SeqCst);
        }
    }

    /// Takes one out that is to be woken. Who has put something to do where it looks calls this.
    pub(super) fn take(&self) -> Option<usize> {
        for (place, word) in self.0.iter().enumerate() {
            let mut sleeping = word.load(Ordering::SeqCst);
            while sleeping != 0 {
                let lowest = sleeping & sleeping.wrapping_neg();
                sleeping = word.fetch_and(!lowest, Ordering::SeqCst);
                // Another one may have taken it meanwhile.
                if sleeping & lowest != 0 {
                    return Some(place * 64 + lowest.trailing_zeros() as usize);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_woken_first_and_each_once() {
        let sleepers = Sleepers::new(130);
        assert_eq!(sleepers.take(), None);
        for thread in [129, 5, 64, 0, 63] {
            sleepers.enter(thread);
        }
        sleepers.enter(5);
        sleepers.leave(63);
        let woken: Vec<_> = std::iter::from_fn(|| sleepers.take()).collect();
        assert_eq!(woken, [0, 5, 64, 129]);
    }

    #[test]
    fn two_that_wake_at_the_same_time_wake_two() {
        let sleepers = Sleepers::new(64);
        for _ in 0..200 {
            (0..64).for_each(|thread| sleepers.enter(thread));
            let take_all = || std::iter::from_fn(|| sleepers.take()).collect::<Vec<_>>();
            let (mut some, others) = std::thread::scope(|scope| {
                let other = scope.spawn(take_all);
                (take_all(), other.join().unwrap())
            });
            some.extend(others);
            some.sort_unstable();
            assert_eq!(some, (0..64).collect::<Vec<_>>());
        }
    }
}
