//! A thread that runs queries: its connection, and one query after the other, or several together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::overdue::AtWork;
use super::together::SOON_US;
use super::{Connection, DatabaseEvent, Job, Problem, Results, Running, Shared, Worker};
use crate::database::CallError;
use crate::router::database::Query;
use crate::wamp::codec::OwnedPayload;

/// The life of the thread.
pub(super) fn work(shared: &Arc<Shared>, lane: usize, own: usize) {
    let of_lane = &shared.lanes[lane];
    let _ = of_lane.threads[own].thread.set(thread::current());
    let worker = &of_lane.threads[own];
    let mut hand = Hand { shared, lane, worker, connection: None, was_connected: false, is_quick: false };
    let mut next = None;
    while let Some(job) = next.take().or_else(|| shared.take_job(of_lane, own, &mut hand.is_quick)) {
        // To connect may take long: nobody waits for that but the one that it is done for.
        if shared.pace_of(&job).is_none() || hand.connection.is_none() {
            hand.leave_quick();
            next = hand.run(job);
            continue;
        }
        hand.enter_quick();
        let (others, takes_us) = shared.take_others(of_lane, &job);
        if takes_us > SOON_US {
            hand.leave_quick();
        }
        let mut alone = hand.run_together(job, others);
        while let Some(job) = alone.pop_front() {
            hand.leave_quick();
            // It may take long: the others do not wait for it.
            shared.give_away(of_lane, alone.drain(..));
            // What may be together has no turns.
            hand.run(job);
        }
    }
    hand.leave_quick();
}

/// What a thread has.
pub(super) struct Hand<'s> {
    pub(super) shared: &'s Arc<Shared>,
    pub(super) lane: usize,
    pub(super) worker: &'s Worker,
    /// And how often the database had gone when it was made.
    pub(super) connection: Option<(u32, Box<dyn Connection>)>,
    was_connected: bool,
    /// It is one of [`Lane::quick`](super::Lane::quick).
    is_quick: bool,
}

impl Hand<'_> {
    /// A query of its own. What is to be run next, of those that wait for their turn behind it.
    fn run(&mut self, Job { core, query, call }: Job) -> Option<Job> {
        let running = self.begin(core, &query, call);
        // A driver that panics takes neither the thread along nor the turn, and its caller is told.
        let ended = catch_unwind(AssertUnwindSafe(|| self.call(&running, &query)));
        let ended = ended.unwrap_or_else(|_| {
            self.connection = None;
            Err(panicked(&query))
        });
        if self.leave() {
            self.connection = None;
        }
        self.count_connection();
        self.answer(&running, &query, ended);
        self.shared.next_turn(&self.shared.lanes[self.lane], &query.procedure)
    }

    /// It is back soon.
    fn enter_quick(&mut self) {
        if !std::mem::replace(&mut self.is_quick, true) {
            self.shared.lanes[self.lane].quick.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// It may take longer than was expected: others take what waits.
    pub(super) fn leave_quick(&mut self) {
        if std::mem::take(&mut self.is_quick) {
            let lane = &self.shared.lanes[self.lane];
            lane.quick.fetch_sub(1, Ordering::SeqCst);
            (0..lane.waiting().min(lane.threads.len())).for_each(|_| Shared::wake_one(lane));
        }
    }

    /// It is at work for this one.
    pub(super) fn begin(&self, core: usize, query: &Query, call: Arc<super::Call>) -> Running {
        let _ = call.thread.set(thread::current());
        let (number, serializer) = (query.number, query.serializer);
        let of_call = Arc::clone(&call);
        *self.worker.at_work() = Some(AtWork { core, number, serializer, call: of_call, is_given_up: false });
        Running { shared: Arc::clone(self.shared), core, number, call }
    }

    /// It is at work no more; whether the connection is not to meet the next one: whoever gave it up may have come too late for
    /// this one.
    pub(super) fn leave(&self) -> bool {
        self.worker.at_work().take().is_some_and(|it| it.is_given_up)
    }

    pub(super) fn count_connection(&mut self) {
        let before = std::mem::replace(&mut self.was_connected, self.connection.is_some());
        self.shared.counts.connected(before, self.was_connected);
    }

    /// Tells how one has ended.
    pub(super) fn answer(&self, running: &Running, query: &Query, ended: Result<OwnedPayload, CallError>) {
        running.call.is_over.store(true, Ordering::Release);
        let event = match ended {
            Ok(payload) => DatabaseEvent::Done(query.number, payload),
            Err(CallError { uri, payload }) => DatabaseEvent::Failed(query.number, uri, payload),
        };
        self.shared.answer(running.core, &running.call, event);
    }

    /// The connection that it has, to a database that is there.
    pub(super) fn kept(&mut self) -> Option<(u32, Box<dyn Connection>)> {
        if self.shared.is_away.load(Ordering::Relaxed) {
            return None;
        }
        let losses = self.shared.losses.load(Ordering::Acquire);
        let (since, mut kept) = self.connection.take()?;
        (since == losses && kept.is_alive()).then_some((losses, kept))
    }

    /// A connection to a database that is there.
    fn connect(&mut self) -> Option<(u32, Box<dyn Connection>)> {
        let shared = self.shared;
        if shared.is_away.load(Ordering::Relaxed) {
            return None;
        }
        let losses = shared.losses.load(Ordering::Acquire);
        if let Some(kept) = self.kept() {
            return Some(kept);
        }
        match shared.driver.connect(self.lane) {
            Ok(connected) => Some((losses, connected)),
            Err(Problem(_)) => {
                shared.set_away();
                None
            }
        }
    }

    fn call(&mut self, running: &Running, query: &Query) -> Result<OwnedPayload, CallError> {
        if running.is_cancelled() {
            return Err(CallError::cancelled(query.serializer));
        }
        if running.call.is_late() {
            return Err(CallError::timed_out(query.serializer));
        }
        let Some((losses, mut connected)) = self.connect() else {
            return Err(CallError::unavailable(query.serializer, "the database is away"));
        };
        let canceller = connected.canceller();
        running.call.set_connection(Arc::clone(&canceller));
        running.call.set_running(Some(canceller));
        // Who cancelled it before that found nothing to stop.
        let result = if running.is_cancelled() {
            Err(CallError::cancelled(query.serializer))
        } else {
            connected.call(query, &mut Results { call: running })
        };
        if connected.is_broken() {
            // Whether the database is away as a whole is the keeper's to find out.
            self.shared.wake_keeper();
        } else {
            // Waits for a cancel that is under way; of a connection that is not used again there is no need to.
            running.call.set_running(None);
            self.connection = Some((losses, connected));
        }
        result
    }
}

pub(super) fn panicked(query: &Query) -> CallError {
    CallError::unavailable(query.serializer, "the call failed inside the router; its log says why")
}
