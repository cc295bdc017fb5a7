//! Checks that take too long for a core: a few threads make them, and tell the core by its doorbell.
//!
//! Nothing here waits but those threads. A queue that is full is an answer. Of a core no more is under way than the queue
//! and the threads hold together, so there is always room for what comes back.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crossbeam_queue::ArrayQueue;

use super::mesh::CoreWaker;
use crate::router::SlowCheck;
use crate::router::peer::SessionKey;

/// What a thread makes, and for whom.
struct Job {
    core: usize,
    session: SessionKey,
    check: SlowCheck,
}

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) session: SessionKey,
    pub(super) is_right: bool,
}

/// What a core hears of.
struct Desk {
    done: ArrayQueue<Checked>,
    waker: CoreWaker,
}

/// The threads of a process.
pub struct Checkers {
    jobs: SyncSender<Job>,
    desks: Arc<[Desk]>,
}

impl fmt::Debug for Checkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkers").field("cores", &self.desks.len()).finish_non_exhaustive()
    }
}

impl Checkers {
    /// Starts the threads, for cores with these doorbells. They end when nobody can give them anything any more.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(threads: usize, waiting_max: usize, wakers: Vec<CoreWaker>) -> io::Result<Self> {
        let (checkers, queue) = Self::prepare(threads, waiting_max, wakers);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let (queue, desks) = (Arc::clone(&queue), Arc::clone(&checkers.desks));
            let thread = std::thread::Builder::new().name(format!("check-{number}"));
            thread.spawn(move || work(&queue, &desks))?;
        }
        Ok(checkers)
    }

    fn prepare(threads: usize, waiting_max: usize, wakers: Vec<CoreWaker>) -> (Self, Receiver<Job>) {
        let under_way_max = waiting_max + threads;
        let desk = |waker| Desk { done: ArrayQueue::new(under_way_max), waker };
        let desks = wakers.into_iter().map(desk).collect();
        let (jobs, queue) = sync_channel(waiting_max);
        (Self { jobs, desks }, queue)
    }

    /// One core's end.
    #[must_use]
    pub fn end(&self, core: usize) -> CheckersEnd {
        CheckersEnd { jobs: self.jobs.clone(), desks: Arc::clone(&self.desks), core }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, desks: &[Desk]) {
    loop {
        // One waits for the next job and the others for it: nobody holds it while it works.
        let Ok(job) = queue.lock().map(|queue| queue.recv()) else { return };
        let Ok(Job { core, session, check }) = job else { return };
        let is_right = check.run();
        let Some(desk) = desks.get(core) else { continue };
        // There is room, see above.
        let _ = desk.done.push(Checked { session, is_right });
        desk.waker.wake();
    }
}

/// What one core gives away, and gets back.
pub struct CheckersEnd {
    jobs: SyncSender<Job>,
    desks: Arc<[Desk]>,
    core: usize,
}

impl fmt::Debug for CheckersEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckersEnd").field("core", &self.core).finish_non_exhaustive()
    }
}

/// The checks of one core: made elsewhere, or on the spot in worlds that have one thread (tests).
#[derive(Debug)]
pub(super) enum Checks {
    Elsewhere(CheckersEnd),
    OnTheSpot(VecDeque<Checked>),
}

impl Default for Checks {
    fn default() -> Self {
        Self::OnTheSpot(VecDeque::new())
    }
}

impl Checks {
    /// Gives a check away; whether there was room.
    pub(super) fn give(&mut self, session: SessionKey, check: SlowCheck) -> bool {
        match self {
            Self::Elsewhere(end) => end.jobs.try_send(Job { core: end.core, session, check }).is_ok(),
            Self::OnTheSpot(done) => {
                done.push_back(Checked { session, is_right: check.run() });
                true
            }
        }
    }

    /// What is done, one after the other.
    pub(super) fn take(&mut self) -> Option<Checked> {
        match self {
            Self::Elsewhere(end) => end.desks[end.core].done.pop(),
            Self::OnTheSpot(done) => done.pop_front(),
        }
    }

    /// Whether nothing is done that was not taken: asked after the core has announced its sleep, too.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Elsewhere(end) => end.desks[end.core].done.is_empty(),
            Self::OnTheSpot(done) => done.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::time::Duration;

    use super::*;
    use crate::password::PasswordHash;
    use crate::shard::mesh::{self, Doorbell, SharedDoorbell};

    /// A core that sleeps until it is rung.
    #[derive(Default)]
    struct Bell(Mutex<u32>, Condvar);

    impl Doorbell for Bell {
        fn ring(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_all();
        }
    }

    fn password(ticket: &str) -> SlowCheck {
        let hash = PasswordHash::argon2id("pencil", b"saltsalt", 1, 8).unwrap();
        SlowCheck::Password { ticket: ticket.into(), hash: Box::new(hash) }
    }

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 1 }
    }

    #[test]
    fn a_core_that_sleeps_is_woken_by_what_is_done() {
        let bell = Arc::new(Bell::default());
        let end = mesh::connect::<u32>(4, vec![Arc::clone(&bell) as SharedDoorbell]).pop().unwrap();
        let checkers = Checkers::start(2, 500, vec![end.waker(0)]).unwrap();
        let mut checks = Checks::Elsewhere(checkers.end(0));
        for slot in 0..500 {
            assert!(checks.give(key(slot), password(if slot % 2 == 0 { "pencil" } else { "pen" })));
        }
        let mut done = Vec::new();
        while done.len() < 500 {
            if end.may_sleep(|| checks.is_empty()) {
                let rung = bell.0.lock().unwrap();
                // A ring that was lost would let this time out.
                let (mut rung, timeout) =
                    bell.1.wait_timeout_while(rung, Duration::from_secs(20), |rung| *rung == 0).unwrap();
                assert!(!timeout.timed_out(), "{} were done", done.len());
                *rung = 0;
                end.awake();
            }
            done.extend(std::iter::from_fn(|| checks.take()));
        }
        done.sort_by_key(|checked| checked.session);
        for (slot, checked) in (0..).zip(done) {
            assert_eq!(checked, Checked { session: key(slot), is_right: slot % 2 == 0 });
        }
    }

    #[test]
    fn a_queue_that_is_full_is_an_answer() {
        let bell: SharedDoorbell = Arc::new(Bell::default());
        let end = mesh::connect::<u32>(4, vec![bell]).pop().unwrap();
        // No thread takes anything out.
        let (checkers, _queue) = Checkers::prepare(1, 3, vec![end.waker(0)]);
        let mut checks = Checks::Elsewhere(checkers.end(0));
        let given: Vec<bool> = (0..5).map(|slot| checks.give(key(slot), password("pencil"))).collect();
        assert_eq!(given, [true, true, true, false, false]);
        assert!(checks.is_empty() && checks.take().is_none());
    }
}
