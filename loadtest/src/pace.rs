//! Paced work: messages that are due at their time, however late earlier ones are.

/// When the messages of several senders are due. They take turns, so that all of them together are as even as each of them.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    senders: usize,
    /// From one message to the next one of any sender, in nanoseconds.
    interval_ns: f64,
    started_ns: u64,
    /// Messages that were taken since the start.
    taken: u64,
}

impl Pace {
    /// So many messages of each sender a second.
    pub(crate) fn new(per_second: f64, senders: usize) -> Self {
        Self { senders, interval_ns: 1e9 / per_second / senders as f64, started_ns: 0, taken: 0 }
    }

    /// The first message is due now.
    pub(crate) fn start(&mut self, now_ns: u64) {
        self.started_ns = now_ns;
        self.taken = 0;
    }

    /// The next message, if it is due: whose it is, and when it was due.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<(usize, u64)> {
        let due_ns = self.due_ns();
        if due_ns > now_ns {
            return None;
        }
        let sender = (self.taken % self.senders as u64) as usize;
        self.taken += 1;
        Some((sender, due_ns))
    }

    /// How long until the next message is due, in nanoseconds.
    pub(crate) fn wait_ns(&self, now_ns: u64) -> u64 {
        self.due_ns().saturating_sub(now_ns)
    }

    fn due_ns(&self) -> u64 {
        self.started_ns + (self.taken as f64 * self.interval_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_take_turns_and_a_late_look_finds_all_that_was_due_with_its_own_time() {
        let mut pace = Pace::new(1000.0, 2);
        pace.start(5_000_000);
        assert_eq!(pace.take_due(5_000_000), Some((0, 5_000_000)));
        assert_eq!(pace.take_due(5_000_000), None);
        assert_eq!(pace.wait_ns(5_100_000), 400_000);
        // Nobody looked for two milliseconds.
        let due: Vec<_> = std::iter::from_fn(|| pace.take_due(7_000_000)).collect();
        assert_eq!(due, [(1, 5_500_000), (0, 6_000_000), (1, 6_500_000), (0, 7_000_000)]);
        assert_eq!(pace.wait_ns(9_000_000), 0);
        pace.start(20_000_000);
        assert_eq!(pace.take_due(20_000_000), Some((0, 20_000_000)));
    }
}
