//! Calls: callers that keep so many of them open, or that keep a pace.

use std::collections::HashSet;

use crate::clock::now_ns;
use crate::payload::Stamp;
use crate::plan::RpcJob;
use crate::pool::{Happening, Key, Pool, Work};
use crate::tally::Tally;
use crate::work::{Clocked, Course, Working};

/// The state of the work. Keys: callees, then callers.
#[derive(Debug)]
pub(crate) struct Rpc {
    job: RpcJob,
    course: Course,
    /// By number of the caller: calls made.
    sent: Vec<u64>,
    /// By number of the caller: the calls that have no answer.
    unanswered: Vec<HashSet<u64>>,
    open: u64,
}

impl Rpc {
    pub(crate) fn new(job: RpcJob) -> Self {
        Self {
            course: Course::new(job.callers + job.callees, job.callers, job.rate),
            sent: vec![0; job.callers],
            unanswered: vec![HashSet::new(); job.callers],
            job,
            open: 0,
        }
    }

    fn sessions(&self) -> usize {
        self.job.callees + self.job.callers
    }

    fn procedure(&self, callee: usize) -> String {
        if self.job.callees == 0 {
            return self.job.prefix.clone();
        }
        format!("{}.procedure{callee}", self.job.prefix)
    }

    fn call(&mut self, pool: &mut Pool, caller: usize, sent_ns: u64) {
        self.sent[caller] += 1;
        self.open += 1;
        self.unanswered[caller].insert(self.sent[caller]);
        let stamp = Stamp { sender: caller as u32, sequence: self.sent[caller], sent_ns };
        let procedure = self.procedure(caller % self.job.callees.max(1));
        let text = self.course.text(stamp, pool.settings().payload_bytes);
        pool.call(self.job.callees + caller, &procedure, text);
    }

    /// A call is over.
    fn answered(&mut self, pool: &mut Pool, caller: usize) {
        self.open = self.open.saturating_sub(1);
        if self.course.is_closed_loop() {
            self.call(pool, caller, now_ns());
        }
    }
}

impl Working for Rpc {
    fn begin(&mut self, pool: &mut Pool) -> Result<(), String> {
        for key in 0..self.sessions() {
            let target = match key.checked_sub(self.job.callees) {
                None => self.job.callees_on.target(key),
                Some(caller) => self.job.callers_on.target(caller),
            };
            pool.open(target, None).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.course.is_ready()
    }

    fn start(&mut self, pool: &mut Pool) {
        self.course.start();
        if self.course.is_closed_loop() {
            for caller in 0..self.job.callers {
                for _ in 0..self.job.flight {
                    self.call(pool, caller, now_ns());
                }
            }
        }
    }

    fn stop(&mut self) {
        self.course.stop();
    }

    fn is_done(&self) -> bool {
        self.open == 0
    }

    fn clocked(&mut self) -> &mut Clocked {
        &mut self.course.clocked
    }

    fn failure(&self) -> Option<&str> {
        self.course.failure()
    }

    fn finish(&mut self) -> Tally {
        self.course.clocked.tally.lost = self.open;
        std::mem::take(&mut self.course.clocked.tally)
    }

    fn tick(&mut self, pool: &mut Pool) -> Option<u64> {
        let now_ns = now_ns();
        while let Some((caller, due_ns)) = self.course.take_due(now_ns) {
            self.call(pool, caller, due_ns);
        }
        self.course.wait_ns(now_ns)
    }
}

impl Work for Rpc {
    fn on(&mut self, pool: &mut Pool, key: Key, happening: Happening<'_>) {
        match happening {
            Happening::Open if key < self.job.callees => {
                let procedure = self.procedure(key);
                pool.register(key, &procedure);
            }
            Happening::Open | Happening::Registered => self.course.session_is_ready(),
            Happening::Invocation { token, payload } => pool.answer(key, token, payload),
            Happening::Result { payload } => {
                let caller = key - self.job.callees;
                let stamp = Stamp::read(payload, pool.settings().payload_bytes);
                let Some(stamp) = stamp.filter(|stamp| stamp.sender as usize == caller) else {
                    self.course.clocked.tally.wrong += 1;
                    return;
                };
                if !self.unanswered[caller].remove(&stamp.sequence) {
                    self.course.clocked.tally.duplicated += 1;
                    return;
                }
                self.course.clocked.operation(stamp.sent_ns);
                self.answered(pool, caller);
            }
            Happening::Refused { reason } => {
                if !self.course.is_ready() {
                    self.course.fail(reason);
                }
                *self.course.clocked.tally.refused.entry(reason.to_owned()).or_default() += 1;
                if let Some(caller) = key.checked_sub(self.job.callees) {
                    self.answered(pool, caller);
                }
            }
            Happening::Ended { reason } => self.course.fail(reason),
            Happening::Subscribed | Happening::Published { .. } | Happening::Event { .. } => {}
        }
    }
}
