//! Calls in a closed loop: every caller keeps so many of them open.

use std::collections::HashSet;

use crate::clock::now_ns;
use crate::payload::Stamp;
use crate::plan::RpcJob;
use crate::pool::{Happening, Key, Pool, Work};
use crate::tally::Tally;
use crate::work::{Clocked, Working};

/// The state of the work.
#[derive(Debug)]
pub(crate) struct Rpc {
    job: RpcJob,
    /// By key: callees first, then callers.
    sessions: usize,
    ready: usize,
    /// By number of the caller: calls made.
    sent: Vec<u64>,
    /// By number of the caller: the calls that have no answer.
    unanswered: Vec<HashSet<u64>>,
    open: u64,
    running: bool,
    clocked: Clocked,
    text: Vec<u8>,
    failure: Option<String>,
}

impl Rpc {
    pub(crate) fn new(job: RpcJob) -> Self {
        Self {
            sessions: job.callers + job.callees,
            sent: vec![0; job.callers],
            unanswered: vec![HashSet::new(); job.callers],
            job,
            ready: 0,
            open: 0,
            running: false,
            clocked: Clocked::default(),
            text: Vec::new(),
            failure: None,
        }
    }

    fn procedure(&self, callee: usize) -> String {
        format!("{}.procedure{callee}", self.job.prefix)
    }

    fn call(&mut self, pool: &mut Pool, key: Key) {
        let caller = key - self.job.callees;
        self.sent[caller] += 1;
        self.open += 1;
        self.unanswered[caller].insert(self.sent[caller]);
        let stamp = Stamp { sender: caller as u32, sequence: self.sent[caller], sent_ns: now_ns() };
        stamp.write(pool.settings().payload_bytes, &mut self.text);
        let procedure = self.procedure(caller % self.job.callees);
        pool.call(key, &procedure, &self.text);
    }
}

impl Working for Rpc {
    fn begin(&mut self, pool: &mut Pool) -> Result<(), String> {
        for key in 0..self.sessions {
            let target = if key < self.job.callees { self.job.callee_target } else { self.job.caller_target };
            pool.open(target, None).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.ready == self.sessions
    }

    fn start(&mut self, pool: &mut Pool) {
        self.running = true;
        for key in self.job.callees..self.sessions {
            for _ in 0..self.job.flight {
                self.call(pool, key);
            }
        }
    }

    fn stop(&mut self) {
        self.running = false;
        self.clocked.stop();
    }

    fn is_done(&self) -> bool {
        self.open == 0
    }

    fn clocked(&mut self) -> &mut Clocked {
        &mut self.clocked
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn finish(&mut self) -> Tally {
        self.clocked.tally.lost = self.open;
        std::mem::take(&mut self.clocked.tally)
    }
}

impl Work for Rpc {
    fn on(&mut self, pool: &mut Pool, key: Key, happening: Happening<'_>) {
        match happening {
            Happening::Open if key < self.job.callees => {
                let procedure = self.procedure(key);
                pool.register(key, &procedure);
            }
            Happening::Open | Happening::Registered => self.ready += 1,
            Happening::Invocation { token, payload } => pool.answer(key, token, payload),
            Happening::Result { payload } => {
                let caller = key - self.job.callees;
                let stamp = Stamp::read(payload, pool.settings().payload_bytes);
                let Some(stamp) = stamp.filter(|stamp| stamp.sender as usize == caller) else {
                    self.clocked.tally.wrong += 1;
                    return;
                };
                if !self.unanswered[caller].remove(&stamp.sequence) {
                    self.clocked.tally.duplicated += 1;
                    return;
                }
                self.open = self.open.saturating_sub(1);
                self.clocked.operation(stamp.sent_ns);
                if self.running {
                    self.call(pool, key);
                }
            }
            Happening::Refused { reason } => {
                if self.ready < self.sessions {
                    self.failure.get_or_insert_with(|| reason.to_owned());
                }
                *self.clocked.tally.refused.entry(reason.to_owned()).or_default() += 1;
                self.open = self.open.saturating_sub(1);
                if self.running && key >= self.job.callees {
                    self.call(pool, key);
                }
            }
            Happening::Ended { reason } => {
                self.failure.get_or_insert_with(|| reason.to_owned());
            }
            Happening::Subscribed | Happening::Published { .. } | Happening::Event { .. } => {}
        }
    }
}
