//! What is counted of a database, for whoever looks after it.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Pool;
use crate::database::Backlog;
use crate::wamp::error::uri;

/// How often is looked whether the keeper has answered.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What the threads of a database count.
#[derive(Debug, Default)]
pub(super) struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    timed_out: AtomicU64,
    together: AtomicU64,
    connections: AtomicUsize,
    publications: AtomicU64,
    set_aside: AtomicU64,
    /// How often somebody has asked for the backlog, and the last of these that was answered.
    asked: AtomicU32,
    answered: AtomicU32,
    backlog: Mutex<Option<Backlog>>,
}

/// What was counted of a database since it was started, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Calls that have ended, however.
    pub calls: u64,
    /// Those of them that ended with an error that is none of the two below.
    pub failed: u64,
    /// Those that nobody waited for any more.
    pub cancelled: u64,
    /// Those that took too long.
    pub timed_out: u64,
    /// Calls that were sent to the database together with others.
    pub together: u64,
    /// Calls that wait for a connection or for their turn.
    pub waiting: usize,
    /// Connections for calls that are there.
    pub connections: usize,
    /// It cannot be used, and is tried again.
    pub is_away: bool,
    /// Events that were offered to their subscribers.
    pub publications: u64,
    /// What it was to publish, and was not because that is no publication.
    pub set_aside: u64,
    /// What it has not published yet, where it publishes and has answered in time.
    pub backlog: Option<Backlog>,
}

impl Counted {
    /// Every one with its name.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![
            ("calls", self.calls),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("timed_out", self.timed_out),
            ("together", self.together),
            ("waiting", self.waiting as u64),
            ("connections", self.connections as u64),
            ("away", self.is_away.into()),
            ("publications", self.publications),
            ("set_aside", self.set_aside),
        ];
        if let Some(backlog) = &self.backlog {
            all.push(("backlog", backlog.events));
            all.push(("backlog_oldest_ms", backlog.oldest_ms));
        }
        all
    }
}

impl Counts {
    /// A call has ended, with an error of this URI or without one.
    pub(super) fn ended(&self, error: Option<&str>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let of_error = match error {
            None => return,
            Some(uri::CANCELED) => &self.cancelled,
            Some(uri::TIMEOUT) => &self.timed_out,
            Some(_) => &self.failed,
        };
        of_error.fetch_add(1, Ordering::Relaxed);
    }

    /// So many were sent at once.
    pub(super) fn sent(&self, count: usize) {
        if count > 1 {
            self.together.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// A thread has a connection, or has none any more.
    pub(super) fn connected(&self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.connections.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.connections.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    pub(super) fn published(&self, count: usize) {
        self.publications.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_aside(&self, count: usize) {
        self.set_aside.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A question that was not answered.
    pub(super) fn is_asked(&self) -> Option<u32> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked != self.answered.load(Ordering::Relaxed)).then_some(asked)
    }

    pub(super) fn tell(&self, asked: u32, backlog: Option<Backlog>) {
        *self.backlog.lock().unwrap_or_else(PoisonError::into_inner) = backlog;
        self.answered.store(asked, Ordering::Release);
    }
}

impl Pool {
    /// Asks the database what it has not published yet; [`Self::counted`] waits for the answer.
    pub fn ask(&self) -> u32 {
        let asked = self.shared.counts.asked.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        self.shared.wake_keeper();
        asked
    }

    /// What was counted, and how it stands. The backlog is that of a question, if it is answered in time.
    #[must_use]
    pub fn counted(&self, asked: u32, patience: Duration) -> Counted {
        let (counts, until) = (&self.shared.counts, Instant::now() + patience);
        let is_answered = || counts.answered.load(Ordering::Acquire).wrapping_sub(asked) < u32::MAX / 2;
        while !is_answered() && Instant::now() < until {
            thread::sleep(LOOK_AGAIN);
        }
        let backlog = *counts.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let waiting = |lane: &super::Lane| lane.waiting() + lane.turns().waiting();
        Counted {
            calls: count(&counts.calls),
            failed: count(&counts.failed),
            cancelled: count(&counts.cancelled),
            timed_out: count(&counts.timed_out),
            together: count(&counts.together),
            waiting: self.shared.lanes.iter().map(waiting).sum(),
            connections: counts.connections.load(Ordering::Relaxed),
            is_away: self.shared.is_away.load(Ordering::Relaxed),
            publications: count(&counts.publications),
            set_aside: count(&counts.set_aside),
            backlog: backlog.filter(|_| is_answered()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_their_kind() {
        let counts = Counts::default();
        for error in [None, Some(uri::CANCELED), Some(uri::TIMEOUT), Some(uri::UNAVAILABLE), None] {
            counts.ended(error);
        }
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        assert_eq!(count(&counts.calls), 5);
        assert_eq!([&counts.failed, &counts.cancelled, &counts.timed_out].map(count), [1, 1, 1]);
    }

    #[test]
    fn connections_come_and_go() {
        let counts = Counts::default();
        for (before, after, there) in
            [(false, true, 1), (true, true, 1), (false, true, 2), (true, false, 1), (false, false, 1)]
        {
            counts.connected(before, after);
            assert_eq!(counts.connections.load(Ordering::Relaxed), there);
        }
    }

    #[test]
    fn a_question_is_answered_once() {
        let counts = Counts::default();
        assert_eq!(counts.is_asked(), None);
        counts.asked.fetch_add(2, Ordering::AcqRel);
        let asked = counts.is_asked().unwrap();
        counts.tell(asked, Some(Backlog { events: 7, oldest_ms: 5 }));
        assert_eq!(counts.is_asked(), None);
    }
}
