//! Reads again what a database has published, for those who resume: on threads and connections of their own, so that
//! neither calls nor what is published now waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::{Notice, Notify, Shared};
use crate::database::{BatchBounds, NotRead, Problem, Replayer};
use crate::router::database::{
    DatabaseEvent, NotReplayed, REPLAYS_UNDER_WAY_MAX, Replay, ReplayNumber, Replayed,
};

/// How many read at a time.
const READERS: usize = 2;

/// How much is read at a time: about what an outbox has room for.
const CHUNK: BatchBounds = BatchBounds { publications_max: 500, bytes_max: 1 << 20 };

/// A connection that is not used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// One that a core waits for.
pub(super) struct Asked {
    until: Instant,
    /// The first who answers is heard: who reads, or, when its time is over, the core itself.
    is_answered: AtomicBool,
}

impl Asked {
    pub(super) fn within(time: Duration) -> Self {
        Self { until: Instant::now() + time, is_answered: AtomicBool::new(false) }
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Whether nobody has answered before.
    pub(super) fn answer(&self) -> bool {
        !self.is_answered.swap(true, Ordering::AcqRel)
    }
}

/// What waits to be read, and who reads.
pub(super) struct Replays {
    waiting: ArrayQueue<(usize, Replay, Arc<Asked>)>,
    /// Those that were asked for and that no reader is done with.
    under_way: AtomicUsize,
    readers: [OnceLock<Thread>; READERS],
}

impl Replays {
    pub(super) const READERS: usize = READERS;

    /// For so many cores.
    pub(super) fn new(cores: usize) -> Self {
        // As many again may have been answered before a reader came to them.
        let waiting = ArrayQueue::new((2 * cores * REPLAYS_UNDER_WAY_MAX).max(1));
        Self { waiting, under_way: AtomicUsize::new(0), readers: Default::default() }
    }

    /// Whether there was room for it.
    pub(super) fn push(&self, core: usize, replay: Replay, asked: &Arc<Asked>) -> bool {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let has_room = self.waiting.push((core, replay, Arc::clone(asked))).is_ok();
        if !has_room {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
        self.wake();
        has_room
    }

    /// Whether somebody waits, or has until a moment ago.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    pub(super) fn wake(&self) {
        self.readers.iter().filter_map(OnceLock::get).for_each(Thread::unpark);
    }
}

/// The life of a thread that reads.
pub(super) fn read(shared: &Arc<Shared>, own: usize, notify: &Notify) {
    let _ = shared.replays.readers[own].set(thread::current());
    let mut replayer: Option<(u32, Box<dyn Replayer>)> = None;
    let mut said = None;
    let mut say = |problem: Problem| {
        shared.wake_keeper();
        if said.as_ref() != Some(&problem) {
            notify(&Notice::ReplaysNothing(problem.clone()));
            said = Some(problem);
        }
    };
    while !shared.is_stopping() {
        let Some((core, replay, asked)) = shared.replays.waiting.pop() else {
            let waited = Instant::now();
            thread::park_timeout(if replayer.is_some() { IDLE } else { Duration::from_secs(3600) });
            if waited.elapsed() >= IDLE {
                replayer = None;
            }
            continue;
        };
        let number = replay.number;
        if asked.is_late(Instant::now()) {
            // Who waits for it would be told the same a moment later.
            shared.replayed((core, number), &asked, Err(NotReplayed::Late));
            continue;
        }
        // As with calls: a driver that panics does not take the thread along, and who resumes is told.
        let read = catch_unwind(AssertUnwindSafe(|| read_one(shared, &mut replayer, &replay, &mut say)));
        let result = match read.unwrap_or(Err(NotReplayed::Away)) {
            // It was given up because its time was over.
            Err(NotReplayed::Away) if asked.is_late(Instant::now()) => Err(NotReplayed::Late),
            result => result,
        };
        shared.replayed((core, number), &asked, result);
    }
}

impl Shared {
    fn replayed(
        &self,
        (core, number): (usize, ReplayNumber),
        asked: &Asked,
        result: Result<Replayed, NotReplayed>,
    ) {
        if asked.answer() {
            self.say(core, DatabaseEvent::Replayed(number, result));
        }
        self.replays.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read_one(
    shared: &Shared,
    replayer: &mut Option<(u32, Box<dyn Replayer>)>,
    replay: &Replay,
    say: &mut dyn FnMut(Problem),
) -> Result<Replayed, NotReplayed> {
    // Where another router publishes, who resumes here would go on without what that one has.
    if shared.is_away.load(Ordering::Relaxed) || !shared.is_publishing.load(Ordering::Acquire) {
        return Err(NotReplayed::Away);
    }
    let losses = shared.losses.load(Ordering::Acquire);
    let kept = replayer.take().filter(|(since, _)| *since == losses).map(|(_, kept)| kept);
    let mut connected = match kept {
        Some(kept) => kept,
        None => match shared.driver.replayer() {
            Ok(Some(connected)) => connected,
            Ok(None) => return Err(NotReplayed::Away),
            Err(problem) => {
                say(problem);
                return Err(NotReplayed::Away);
            }
        },
    };
    match connected.replay(replay, CHUNK) {
        Ok(replayed) => {
            *replayer = Some((losses, connected));
            Ok(replayed)
        }
        Err(NotRead::NotKept) => {
            *replayer = Some((losses, connected));
            Err(NotReplayed::NotKept)
        }
        Err(NotRead::Lost(problem)) => {
            say(problem);
            Err(NotReplayed::Away)
        }
    }
}
