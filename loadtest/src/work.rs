//! What the kinds of work have in common.

use crate::clock::{cpu_ns, now_ns};
use crate::pace::Pace;
use crate::payload::Stamp;
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

    /// [`Order::Pause`] and [`Order::Stop`]
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

/// How far the work of sessions is that send to each other.
#[derive(Debug)]
pub(crate) struct Course {
    sessions: usize,
    ready: usize,
    pub(crate) is_running: bool,
    /// Without one every answer is followed by the next message.
    pace: Option<Pace>,
    pub(crate) clocked: Clocked,
    text: Vec<u8>,
    failure: Option<String>,
}

impl Course {
    /// So many sessions, of which so many send, each at this rate a second if there is one.
    pub(crate) fn new(sessions: usize, senders: usize, rate: Option<f64>) -> Self {
        Self {
            sessions,
            ready: 0,
            is_running: false,
            pace: rate.map(|rate| Pace::new(rate, senders)),
            clocked: Clocked { is_paced: rate.is_some(), ..Clocked::default() },
            text: Vec::new(),
            failure: None,
        }
    }

    /// Another session has all that it needs.
    pub(crate) fn session_is_ready(&mut self) {
        self.ready += 1;
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready == self.sessions
    }

    /// It cannot go on; the first reason counts.
    pub(crate) fn fail(&mut self, reason: &str) {
        self.failure.get_or_insert_with(|| reason.to_owned());
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn start(&mut self) {
        self.is_running = true;
        if let Some(pace) = &mut self.pace {
            pace.start(now_ns());
        }
    }

    pub(crate) fn stop(&mut self) {
        self.is_running = false;
        self.clocked.stop();
    }

    /// Whether an answer is followed by the next message.
    pub(crate) fn is_closed_loop(&self) -> bool {
        self.is_running && self.pace.is_none()
    }

    /// The next paced message, if it is due: which of the senders sends it, and when it should have been sent.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<(usize, u64)> {
        if !self.is_running {
            return None;
        }
        self.pace.as_mut()?.take_due(now_ns)
    }

    /// How long until the next paced message is due, in nanoseconds.
    pub(crate) fn wait_ns(&self, now_ns: u64) -> Option<u64> {
        self.pace.as_ref().filter(|_| self.is_running).map(|pace| pace.wait_ns(now_ns))
    }

    /// A payload of so many bytes.
    pub(crate) fn text(&mut self, stamp: Stamp, bytes: usize) -> &[u8] {
        stamp.write(bytes, &mut self.text);
        &self.text
    }
}

/// A tally, and since when it counts.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    pub(crate) tally: Tally,
    /// Operations since the start, for the progress.
    pub(crate) operations: u64,
    /// Operations began when they were due, not when there was time for them.
    is_paced: bool,
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

    /// An operation is complete whose beginning nobody knows.
    pub(crate) fn count(&mut self) {
        self.operations += 1;
        if !self.stopped {
            self.tally.operations += 1;
        }
    }

    /// An operation that began then is complete.
    pub(crate) fn operation(&mut self, sent_ns: u64) {
        self.operations += 1;
        let now_ns = now_ns();
        // What was due in time and comes too late is late all the same: left out, it would make a router that stands still
        // look quick.
        if !self.stopped || self.is_paced {
            self.tally.latency_us.record_ns(now_ns.saturating_sub(sent_ns));
        }
        if self.stopped {
            return;
        }
        self.tally.operations += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_operation_that_completes_after_the_end_is_late_and_one_of_a_closed_loop_is_left_out() {
        for (rate, latencies) in [(Some(1.0), 2), (None, 1)] {
            let mut course = Course::new(1, 1, rate);
            course.start();
            course.clocked.measure();
            course.clocked.operation(now_ns());
            course.stop();
            course.clocked.operation(now_ns());
            assert_eq!(course.clocked.tally.latency_us.count(), latencies, "{rate:?}");
            assert_eq!((course.clocked.tally.operations, course.clocked.operations), (1, 2));
        }
    }

    #[test]
    fn nothing_is_due_before_the_start_nor_after_the_end_nor_in_a_closed_loop() {
        let mut course = Course::new(2, 1, Some(1000.0));
        assert_eq!((course.take_due(u64::MAX), course.wait_ns(0)), (None, None));
        course.start();
        assert!(course.take_due(u64::MAX).is_some() && course.wait_ns(0).is_some());
        assert!(!course.is_closed_loop());
        course.stop();
        assert_eq!((course.take_due(u64::MAX), course.wait_ns(0)), (None, None));
        let mut course = Course::new(2, 1, None);
        course.start();
        assert!(course.is_closed_loop());
        assert_eq!((course.take_due(u64::MAX), course.wait_ns(0)), (None, None));
    }
}
