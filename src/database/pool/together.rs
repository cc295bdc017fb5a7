//! Calls that a thread sends together, where more of them wait than there are threads: the server has the next one when it is
//! done with the one before, and each costs a part of a system call instead of several.
//!
//! They change nothing and have been quick so far ([`Driver::may_be_together`](super::Driver::pace_us)). A stop that
//! comes late for one of them may meet the next: that one is run once more, on its own. And those behind one that takes long
//! all at once are handed to other threads.

use std::collections::VecDeque;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::work::{Hand, panicked};
use super::{Job, Lane, Results, Running, Shared, bytes_of, wake};
use crate::database::NotTaken;
use crate::router::database::Query;

/// How many go together at most, and about how large they may be in all: both ends keep them.
const TOGETHER_MAX: usize = 16;
const BYTES_MAX: usize = 64 << 10;

/// How long what waits for a thread may wait for one that is awake, by what calls take: about what it takes to wake another.
const SOON_US: u64 = 300;

/// How long one may take until other threads are woken for what waits.
const QUICK: Duration = Duration::from_millis(2);

/// How long those behind one wait for it before others run them.
const PATIENCE: Duration = Duration::from_millis(100);

impl Lane {
    /// How many wait for a thread.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.len() + usize::from(self.is_put_back.load(Ordering::Relaxed))
    }

    /// Whether threads that are awake come soon to what waits, if calls take so long. Asked by who has put one there.
    pub(super) fn is_soon(&self, pace_us: Option<u32>) -> bool {
        let Some(pace_us) = pace_us else { return false };
        let waiting_us = (self.waiting() as u64).saturating_mul(pace_us.into());
        waiting_us <= self.quick.load(Ordering::SeqCst) as u64 * SOON_US
    }
}

impl Shared {
    /// How long a call takes that may be sent together with others.
    pub(super) fn pace_us(&self, query: &Query) -> Option<u32> {
        if query.procedure.concurrency == 0 { self.driver.pace_us(&query.procedure) } else { None }
    }

    pub(super) fn pace_of(&self, job: &Job) -> Option<u32> {
        if job.call.is_alone.load(Ordering::Relaxed) { None } else { self.pace_us(&job.query) }
    }

    /// What is sent together with one that was taken: this thread's share of those that wait. Mostly none waits.
    pub(super) fn take_others(&self, lane: &Lane, first: &Job) -> Vec<Job> {
        let mut others = Vec::new();
        let share = lane.jobs.len().div_ceil(lane.quick.load(Ordering::Relaxed).max(1)).min(TOGETHER_MAX - 1);
        if share == 0 {
            return others;
        }
        let mut bytes = bytes_of(&first.query);
        let mut turns = lane.turns();
        while others.len() < share
            && let Some(job) = lane.pop(&mut turns)
        {
            let own = bytes_of(&job.query);
            if bytes + own > BYTES_MAX || self.pace_of(&job).is_none() {
                turns.put_back(job);
                lane.is_put_back.store(true, Ordering::SeqCst);
                drop(turns);
                Self::wake_one(lane);
                break;
            }
            bytes += own;
            self.waiting_bytes.fetch_sub(own, Ordering::Relaxed);
            others.push(job);
        }
        others
    }

    /// Gives those that wait behind a slow one to other threads, as far as there is room for them.
    fn hand_over(&self, lane: &Lane, posted: &mut VecDeque<Option<Job>>) {
        for slot in posted {
            let Some(job) = slot.take() else { continue };
            let own = bytes_of(&job.query);
            job.call.is_alone.store(true, Ordering::Relaxed);
            self.waiting_bytes.fetch_add(own, Ordering::Relaxed);
            if let Err(job) = lane.jobs.push(job) {
                self.waiting_bytes.fetch_sub(own, Ordering::Relaxed);
                *slot = Some(job);
                return;
            }
            Self::wake_one(lane);
        }
    }
}

impl Hand<'_> {
    /// Runs some that may be together; those that are to be run on their own instead.
    pub(super) fn run_together(&mut self, first: Job, others: Vec<Job>) -> Vec<Job> {
        let shared = Arc::clone(self.shared);
        let jobs = iter::once(first).chain(others);
        let Some((losses, mut connected)) = self.connect() else { return jobs.collect() };
        let canceller = connected.canceller();
        let Some(pipeline) = connected.pipeline() else {
            self.connection = Some((losses, connected));
            return jobs.collect();
        };
        let (mut posted, mut alone) = (VecDeque::new(), Vec::new());
        for job in jobs {
            let running = running(&shared, &job);
            let is_of_use = !running.is_cancelled() && !job.call.is_late();
            if is_of_use && pipeline.post(&job.query, &Results { call: &running }) {
                posted.push_back(Some(job));
            } else {
                // There is an error to be told, or something to be prepared.
                alone.push(job);
            }
        }
        shared.counts.sent(posted.len());
        pipeline.send();
        let mut is_of_use = true;
        while let Some(slot) = posted.pop_front() {
            is_of_use = is_of_use && !pipeline.is_lost();
            let Some(job) = slot else {
                if is_of_use {
                    pipeline.pass_over();
                }
                continue;
            };
            if !is_of_use {
                alone.push(job);
                continue;
            }
            let Job { core, query, call } = job;
            let running = self.begin(core, &query, Arc::clone(&call));
            call.set_connection(Arc::clone(&canceller));
            call.set_running(Some(Arc::clone(&canceller)));
            if running.is_cancelled() {
                // Who cancelled it before that found nothing to stop.
                let _ = shared.cancels.push(Arc::clone(&call));
                wake(&shared.canceller);
            }
            if !pipeline.wait(QUICK) {
                self.leave_quick();
                if !pipeline.wait(PATIENCE) {
                    shared.hand_over(&shared.lanes[self.lane], &mut posted);
                }
            }
            let taken =
                catch_unwind(AssertUnwindSafe(|| pipeline.take(&query, &mut Results { call: &running })));
            let taken = taken.unwrap_or_else(|_| {
                is_of_use = false;
                Err(NotTaken::Failed(panicked(&query)))
            });
            is_of_use = is_of_use && !pipeline.is_lost();
            if is_of_use {
                // Waits for a cancel that is under way.
                call.set_running(None);
            }
            is_of_use = !self.leave() && is_of_use;
            match taken {
                Ok(payload) => self.answer(&running, &query, Ok(payload)),
                Err(NotTaken::Failed(error)) => self.answer(&running, &query, Err(error)),
                Err(NotTaken::Again) => alone.push(Job { core, query, call }),
            }
        }
        if is_of_use && !connected.is_broken() {
            self.connection = Some((losses, connected));
        } else {
            shared.wake_keeper();
        }
        self.count_connection();
        alone
    }
}

fn running(shared: &Arc<Shared>, job: &Job) -> Running {
    let (shared, call) = (Arc::clone(shared), Arc::clone(&job.call));
    Running { shared, core: job.core, number: job.query.number, call }
}
