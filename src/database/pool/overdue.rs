//! Answers callers whose time is over although a thread still waits for the database, and those who wait for their turn in
//! vain.
//!
//! Drivers keep the time of calls themselves, and a server that is there ends them in it. One that is stopped, or behind a
//! network that is cut, says nothing: its thread waits until its driver gives the connection up, and the caller does not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::replaying::Asked;
use super::{Call, CallError, DatabaseEvent, QueryNumber, ReplayNumber, Serializer, Shared, Worker};
use crate::router::database::NotReplayed;

/// How long after its time a call is answered by this: a busy server may be that late itself.
const LATE: Duration = Duration::from_secs(1);

/// How long a call that was cancelled may go on until it is answered by this, and its connection is given up.
const CANCELLED: Duration = Duration::from_secs(5);

/// How often is looked.
const AGAIN: Duration = Duration::from_millis(500);

/// What a thread runs, and for whom.
pub(super) struct AtWork {
    pub(super) core: usize,
    pub(super) number: QueryNumber,
    pub(super) serializer: Serializer,
    pub(super) call: Arc<Call>,
    /// Its connection is not to be used for another one.
    pub(super) is_given_up: bool,
}

/// The life of the thread.
pub(super) fn watch(shared: &Shared) {
    let _ = shared.timekeeper.set(thread::current());
    while !shared.is_stopping() {
        let now = Instant::now();
        let wait = end_waiting(shared, now);
        for lane in &shared.lanes {
            lane.threads.iter().for_each(|worker| answer_late(shared, worker, now));
        }
        // A thread that was to come soon may have been held up.
        shared.lanes.iter().filter(|lane| !lane.is_empty()).for_each(Shared::wake_one);
        // Those that wait for a thread are their cores' to answer, and so is who resumes.
        if shared.lanes.iter().any(|lane| !lane.is_empty()) || shared.replays.are_under_way() {
            shared.overdue.fetch_add(1, Ordering::Relaxed);
            for desk in &shared.desks {
                desk.waker.wake();
            }
        }
        thread::park_timeout(wait.map_or(AGAIN, |wait| wait.min(AGAIN)));
    }
}

/// Answers those that wait for their turn in vain; when it is to be done again.
fn end_waiting(shared: &Shared, now: Instant) -> Option<Duration> {
    let mut next = None;
    for lane in &shared.lanes {
        let mut turns = lane.turns();
        let ended = turns.take_ended(now);
        next = next.into_iter().chain(turns.earliest()).min();
        // Nothing is said while others wait for the lock.
        drop(turns);
        ended.iter().for_each(|job| shared.refuse(job));
    }
    next.map(|earliest: Instant| earliest.saturating_duration_since(now))
}

fn answer_late(shared: &Shared, worker: &Worker, now: Instant) {
    let mut at_work = worker.at_work();
    let Some(AtWork { core, number, serializer, call, is_given_up }) = at_work.as_mut() else { return };
    let is_past = |moment: Option<&Instant>, more: Duration| moment.is_some_and(|it| now >= *it + more);
    let is_cancelled = is_past(call.cancelled_at.get(), CANCELLED);
    let is_late = is_past(call.deadline.get(), LATE);
    if is_cancelled && let Some(connection) = call.connection() {
        *is_given_up = true;
        connection.give_up();
    }
    if !(is_cancelled || is_late) || call.is_answered.load(Ordering::Acquire) {
        return;
    }
    let (core, number, call) = (*core, *number, Arc::clone(call));
    let error =
        if is_cancelled { CallError::cancelled(*serializer) } else { CallError::timed_out(*serializer) };
    drop(at_work);
    shared.answer(core, &call, DatabaseEvent::Failed(number, error.uri, error.payload));
}

/// Queries of one core that wait for a thread although their time is over: the core itself answers them, for all threads are
/// busy. Whichever takes one of them later finds its time over, and does not begin it. The same of replays, whether they wait for
/// a reader or for the database.
#[derive(Default)]
pub(super) struct Overdue {
    looked: u32,
    /// The last one first.
    found: Vec<QueryNumber>,
    replays: Vec<ReplayNumber>,
}

impl Overdue {
    /// The end of the next one.
    pub(super) fn take(
        &mut self,
        shared: &Shared,
        calls: &HashMap<QueryNumber, Arc<Call>>,
        asked: &HashMap<ReplayNumber, Arc<Asked>>,
    ) -> Option<DatabaseEvent> {
        let look = shared.overdue.load(Ordering::Relaxed);
        if self.looked != look {
            self.looked = look;
            let now = Instant::now();
            let is_late = |call: &Call| call.deadline.get().is_some_and(|deadline| now >= *deadline + LATE);
            let late = calls.iter().filter(|(_, call)| is_late(call));
            self.found.extend(late.map(|(number, _)| *number));
            self.found.sort_unstable_by(|one, other| other.cmp(one));
            let late = asked.iter().filter(|(_, asked)| asked.is_late(now));
            self.replays.extend(late.map(|(number, _)| *number));
            self.replays.sort_unstable_by(|one, other| other.cmp(one));
        }
        while let Some(number) = self.replays.pop() {
            if asked.get(&number).is_some_and(|asked| asked.answer()) {
                return Some(DatabaseEvent::Replayed(number, Err(NotReplayed::Late)));
            }
        }
        while let Some(number) = self.found.pop() {
            let Some(call) = calls.get(&number) else { continue };
            if !call.is_answered.swap(true, Ordering::AcqRel) {
                let error = CallError::timed_out(call.serializer?);
                return Some(DatabaseEvent::Failed(number, error.uri, error.payload));
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.replays.is_empty()
    }
}
