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
use std::time::{Duration, Instant};

use super::work::{Hand, panicked};
use super::{Job, Lane, Results, Running, Shared, bytes_of, wake};
use crate::database::{Cancel, NotTaken, Pipeline};
use crate::router::database::Query;

/// How many go together at most, and about how large they may be in all: both ends keep them.
const TOGETHER_MAX: usize = 16;
const BYTES_MAX: usize = 64 << 10;

/// How long what waits for a thread may wait for one that is awake, by what calls take: about what it takes to wake another.
pub(super) const SOON_US: u64 = 300;

/// How long those may take in all that go together, by what calls take: what takes longer gains nothing by it, and other threads
/// may be free.
const TOGETHER_US: u64 = 1_000;

/// How long one may take until other threads are woken for what waits.
const QUICK: Duration = Duration::from_millis(2);

/// How long those behind one wait for it before others run them.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long is tried to stop one that others run.
const STOP: Duration = Duration::from_secs(5);

impl Lane {
    /// How many wait for a thread.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.len() + self.put_back.load(Ordering::SeqCst)
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
    /// And how long all of them take, in microseconds.
    pub(super) fn take_others(&self, lane: &Lane, first: &Job) -> (Vec<Job>, u64) {
        let mut others = Vec::new();
        let mut takes_us = self.pace_of(first).map_or(0, u64::from);
        let share = lane.jobs.len().div_ceil(lane.quick.load(Ordering::Relaxed).max(1)).min(TOGETHER_MAX - 1);
        if share == 0 {
            return (others, takes_us);
        }
        let mut bytes = bytes_of(&first.query);
        let mut turns = lane.turns();
        while others.len() < share
            && takes_us < TOGETHER_US
            && let Some(job) = lane.pop(&mut turns)
        {
            let (own, pace_us) = (bytes_of(&job.query), self.pace_of(&job));
            let Some(pace_us) = pace_us.filter(|_| bytes + own <= BYTES_MAX) else {
                turns.put_back(job);
                lane.put_back.fetch_add(1, Ordering::SeqCst);
                drop(turns);
                Self::wake_one(lane);
                break;
            };
            takes_us += u64::from(pace_us);
            bytes += own;
            self.waiting_bytes.fetch_sub(own, Ordering::Relaxed);
            others.push(job);
        }
        (others, takes_us)
    }

    /// Gives jobs to other threads, each to be run on its own.
    pub(super) fn give_away(&self, lane: &Lane, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            job.call.is_alone.store(true, Ordering::Relaxed);
            job.call.forget_connection();
            self.waiting_bytes.fetch_add(bytes_of(&job.query), Ordering::Relaxed);
            let mut turns = lane.turns();
            turns.leave_to_others(job);
            lane.put_back.fetch_add(1, Ordering::SeqCst);
            drop(turns);
            Self::wake_one(lane);
        }
    }
}

impl Hand<'_> {
    /// Runs some that may be together; those that are to be run on their own instead.
    pub(super) fn run_together(&mut self, first: Job, others: Vec<Job>) -> VecDeque<Job> {
        let shared = Arc::clone(self.shared);
        let lane = &shared.lanes[self.lane];
        let jobs = iter::once(first).chain(others);
        let Some((losses, mut connected)) = self.kept() else { return jobs.collect() };
        let canceller = connected.canceller();
        let Some(pipeline) = connected.pipeline() else {
            self.connection = Some((losses, connected));
            return jobs.collect();
        };
        let (mut posted, mut alone) = (VecDeque::new(), VecDeque::new());
        let mut is_of_use = true;
        for job in jobs {
            let running = running(&shared, &job);
            let mut post = || {
                let is_wanted = is_of_use && !running.is_cancelled() && !job.call.is_late();
                is_wanted && pipeline.post(&job.query, &Results { call: &running })
            };
            // A driver that panics takes none of them along: on its own each is told what became of it.
            let is_posted = catch_unwind(AssertUnwindSafe(&mut post)).unwrap_or_else(|_| {
                is_of_use = false;
                false
            });
            if is_posted {
                posted.push_back(Some(job));
            } else {
                // There is an error to be told, or something to be prepared.
                alone.push_back(job);
            }
        }
        if is_of_use {
            shared.counts.sent(posted.len());
            pipeline.send();
        }
        let sent = Instant::now();
        if !posted.is_empty() {
            shared.give_away(lane, alone.drain(..));
        }
        while let Some(slot) = posted.pop_front() {
            is_of_use = is_of_use && !pipeline.is_lost();
            let Some(job) = slot else {
                if is_of_use {
                    stop(pipeline, &*canceller);
                    pipeline.pass_over();
                }
                continue;
            };
            if !is_of_use {
                alone.push_back(job);
                continue;
            }
            let Job { core, query, call } = job;
            let running = self.begin(core, &query, Arc::clone(&call));
            call.set_connection(Arc::clone(&canceller));
            call.set_running(Some(Arc::clone(&canceller)));
            if !pipeline.wait(QUICK) {
                self.leave_quick();
                if shared.is_stopping() {
                    // Who cancels may have ended.
                    stop(pipeline, &*canceller);
                } else if running.is_cancelled() {
                    // Who cancelled it before that found nothing to stop.
                    let _ = shared.cancels.push(Arc::clone(&call));
                    wake(&shared.canceller);
                }
                if !pipeline.wait(PATIENCE.saturating_sub(sent.elapsed())) {
                    shared.give_away(lane, posted.iter_mut().filter_map(Option::take).chain(alone.drain(..)));
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
                if running.is_cancelled() {
                    self.leave_quick();
                }
                // Waits for a cancel that is under way.
                call.set_running(None);
            }
            is_of_use = !self.leave() && is_of_use;
            match taken {
                Ok(payload) => self.answer(&running, &query, Ok(payload)),
                Err(NotTaken::Failed(error)) => self.answer(&running, &query, Err(error)),
                Err(NotTaken::Again) => alone.push_back(Job { core, query, call }),
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

/// Stops the next one, which others run: nobody waits for it here. What is hit instead is one of those, or is run once more.
fn stop(pipeline: &mut dyn Pipeline, canceller: &dyn Cancel) {
    let begun = Instant::now();
    let mut patience = QUICK;
    while !pipeline.wait(patience) && begun.elapsed() < STOP {
        canceller.cancel();
        patience = PATIENCE;
    }
}

fn running(shared: &Arc<Shared>, job: &Job) -> Running {
    let (shared, call) = (Arc::clone(shared), Arc::clone(&job.call));
    Running { shared, core: job.core, number: job.query.number, call }
}
