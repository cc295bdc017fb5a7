//! Calls of procedures that run only so many at a time: who runs, and who waits without holding a thread.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Job;

/// What of each such procedure is under way, for one kind of work.
#[derive(Default)]
pub(super) struct Turns {
    /// By URI. Ends with the last call that runs.
    procedures: HashMap<Box<str>, Procedure>,
    /// How many wait, of all of them.
    waiting: usize,
    /// When the first of those that wait is to have ended. May be too early, never too late.
    earliest: Option<Instant>,
    /// The next of all that wait for a thread: what a thread had taken and leaves to others, no more than it had. Each ends when
    /// it is taken.
    put_back: VecDeque<Job>,
}

#[derive(Default)]
struct Procedure {
    running: usize,
    /// In the order in which they came.
    waiting: VecDeque<Job>,
}

/// What becomes of a call whose turn is asked for.
pub(super) enum Turn {
    /// It runs.
    Runs(Job),
    /// It waits until another has ended.
    Waits {
        /// It is to have ended before all others that wait: who watches the time has to know.
        is_earliest: bool,
    },
    /// As many wait as may wait, or nobody waits for it any more.
    Ends(Job),
}

impl Turns {
    /// A call comes.
    pub(super) fn enter(&mut self, job: Job, waiting_max: usize) -> Turn {
        let bound = job.query.procedure.concurrency as usize;
        if bound == 0 {
            return Turn::Runs(job);
        }
        let procedure = self.procedures.entry(job.query.procedure.uri.clone()).or_default();
        if procedure.running < bound {
            procedure.running += 1;
            // Some may wait although there is room: the bound was lower when they came.
            procedure.waiting.push_back(job);
            return procedure.waiting.pop_front().map_or(Turn::Waits { is_earliest: false }, Turn::Runs);
        }
        // Who looks for cancelled ones has looked for this one already.
        if self.waiting >= waiting_max || job.call.cancelled.load(Ordering::Acquire) {
            return Turn::Ends(job);
        }
        let deadline = job.call.deadline.get().copied();
        let is_earliest = deadline.is_some_and(|at| self.earliest.is_none_or(|earliest| at < earliest));
        if is_earliest {
            self.earliest = deadline;
        }
        procedure.waiting.push_back(job);
        self.waiting += 1;
        Turn::Waits { is_earliest }
    }

    /// One has ended; the next in its place, if any waits.
    pub(super) fn leave(&mut self, uri: &str) -> Option<Job> {
        let procedure = self.procedures.get_mut(uri)?;
        procedure.running -= 1;
        let bound = procedure.waiting.front().map_or(0, |next| next.query.procedure.concurrency as usize);
        if procedure.running < bound {
            procedure.running += 1;
            self.waiting -= 1;
            return procedure.waiting.pop_front();
        }
        // Whoever waits waits for one that runs.
        if procedure.running == 0 {
            self.procedures.remove(uri);
        }
        None
    }

    /// Takes out those that nobody waits for any more, and whose time is over.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<Job> {
        let mut ended = Vec::new();
        self.earliest = None;
        for procedure in self.procedures.values_mut() {
            let mut still = VecDeque::with_capacity(procedure.waiting.len());
            for job in procedure.waiting.drain(..) {
                let deadline = job.call.deadline.get().copied();
                if job.call.cancelled.load(Ordering::Acquire) || deadline.is_some_and(|at| at <= now) {
                    ended.push(job);
                    continue;
                }
                self.earliest = match (self.earliest, deadline) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                still.push_back(job);
            }
            procedure.waiting = still;
        }
        self.waiting -= ended.len();
        ended
    }

    /// When [`Self::take_ended`] is to be called next, for the time's sake.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Leaves one that was taken: it comes before all others.
    pub(super) fn put_back(&mut self, job: Job) {
        self.put_back.push_front(job);
    }

    /// Leaves one that was taken: it comes behind those that were left before.
    pub(super) fn leave_to_others(&mut self, job: Job) {
        self.put_back.push_back(job);
    }

    /// The first that was left.
    pub(super) fn take_back(&mut self) -> Option<Job> {
        self.put_back.pop_front()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.procedures.is_empty()
    }
}
