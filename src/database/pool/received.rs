//! How many sessions got what a database has published: from the core that hears it of all of them to the thread that
//! marks.

use std::collections::HashMap;

use crossbeam_queue::ArrayQueue;

/// Those of the batch that is being offered, by position. One that is missing has none.
#[derive(Debug, Default)]
pub(super) struct Counting(HashMap<u64, u64>);

impl Counting {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn add(&mut self, position: u64, count: u32) {
        *self.0.entry(position).or_default() += u64::from(count);
    }
}

/// Those of the batch that was offered last. There is one batch at a time.
pub(super) struct Received(ArrayQueue<Vec<(u64, u64)>>);

impl Default for Received {
    fn default() -> Self {
        Self(ArrayQueue::new(1))
    }
}

impl Received {
    /// To be called before it is said that the batch was offered.
    pub(super) fn put(&self, counting: &mut Counting) {
        if !counting.0.is_empty() {
            self.0.force_push(counting.0.drain().collect());
        }
    }

    /// What was put for the batch that was offered.
    pub(super) fn take(&self) -> Vec<(u64, u64)> {
        self.0.pop().unwrap_or_default()
    }
}
