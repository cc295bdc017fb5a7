//! What is counted of the inside of a database, for whoever looks after it.

use super::Threads;

/// Since the start, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that statements have made.
    pub calls: u64,
    /// Those whose answer is not noted.
    pub calls_under_way: u64,
    /// Events that were given to functions: one for each function.
    pub events: u64,
    /// Events that were not, for want of room.
    pub overflown: u64,
    /// Runs that failed.
    pub failures: u64,
    /// Runs of what had failed before.
    pub retries: u64,
    /// Events and answers that were put aside.
    pub dead_letters: u64,
    /// Events and answers that wait for a function.
    pub waiting: u64,
}

impl Counts {
    /// Every one with its name.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("inside_calls", self.calls),
            ("inside_calls_under_way", self.calls_under_way),
            ("inside_events", self.events),
            ("inside_overflown", self.overflown),
            ("inside_failures", self.failures),
            ("inside_retries", self.retries),
            ("inside_dead_letters", self.dead_letters),
            ("inside_waiting", self.waiting),
        ]
    }
}

impl Threads {
    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (calls, calls_under_way) = self.shared.calls.counts();
        Counts { calls, calls_under_way, ..self.shared.queues().counts() }
    }
}
