//! What the kinds of work have in common.

use crate::clock::{cpu_ns, now_ns};
use crate::plan::{Order, Progress};
use crate::pool::{Pool, Work};
use crate::tally::{RATE_SLOT_MS, Tally};

/// Work that a worker can run.
pub(crate) trait Working: Work {
    /// Opens its sessions.
    ///
    /// # Errors
    /// Why it cannot.
    fn begin(&mut self, pool: &mut Pool) -> Result<(), String>;

    /// Whether what was ordered last is done, of the orders that are answered with READY.
    fn is_ready(&self) -> bool;

    /// [`Order::Start`]
    fn start(&mut self, pool: &mut Pool);

    /// [`Order::Stop`]
    fn stop(&mut self);

    /// Whether nothing is on its way any more.
    fn is_done(&self) -> bool;

    fn clocked(&mut self) -> &mut Clocked;

    /// Why it cannot go on.
    fn failure(&self) -> Option<&str>;

    /// What came of it.
    fn finish(&mut self) -> Tally;

    /// [`Order::Measure`]
    fn measure(&mut self) {
        self.clocked().measure();
    }

    /// Orders that only some kinds of work know.
    fn order(&mut self, _pool: &mut Pool, _order: Order) {}

    /// Once a turn; when it wants to be called again at the latest, in nanoseconds from now.
    fn tick(&mut self, _pool: &mut Pool) -> Option<u64> {
        None
    }

    /// How it stands.
    fn progress(&self) -> Progress {
        Progress::default()
    }
}

/// A tally, and since when it counts.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    pub(crate) tally: Tally,
    /// Operations since the start, for the progress.
    pub(crate) operations: u64,
    since_ns: u64,
    cpu_since_ns: u64,
    stopped: bool,
}

impl Clocked {
    /// What came before does not count, but for what went wrong.
    pub(crate) fn measure(&mut self) {
        let before = std::mem::take(&mut self.tally);
        self.tally.refused = before.refused;
        self.tally.ended = before.ended;
        self.tally.lost = before.lost;
        self.tally.duplicated = before.duplicated;
        self.tally.reordered = before.reordered;
        self.tally.wrong = before.wrong;
        self.since_ns = now_ns();
        self.cpu_since_ns = cpu_ns();
        self.stopped = false;
    }

    /// The time of measuring is over; what still arrives counts as arrived, but not in rates and times.
    pub(crate) fn stop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        self.tally.wall_us = (now_ns() - self.since_ns) / 1000;
        self.tally.generator_cpu_us = (cpu_ns() - self.cpu_since_ns) / 1000;
        self.tally.generator_busy = self.tally.generator_cpu_us as f64 / self.tally.wall_us.max(1) as f64;
    }

    /// An operation that began then is complete.
    pub(crate) fn operation(&mut self, sent_ns: u64) {
        self.operations += 1;
        if self.stopped {
            return;
        }
        let now_ns = now_ns();
        self.tally.operations += 1;
        self.tally.latency_us.record_ns(now_ns.saturating_sub(sent_ns));
        let slot = (now_ns.saturating_sub(self.since_ns) / (RATE_SLOT_MS * 1_000_000)) as usize;
        // Before anything is measured the clock has not begun.
        if self.since_ns > 0 {
            if self.tally.rate.len() <= slot {
                self.tally.rate.resize(slot + 1, 0);
            }
            self.tally.rate[slot] += 1;
        }
    }
}
