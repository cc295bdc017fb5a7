//! The threads of one database, and the rings between them and the cores.
//!
//! A thread has a connection, takes one query after the other, and answers the core that it came from. A full queue, and a
//! database that is away, are answers and no waits. Three more threads: the keeper connects again and asks what the database
//! offers, another one cancels (`cancels.rs`), and one that never waits for a database answers callers whose time is over
//! (`overdue.rs`).

mod cancels;
mod concurrency;
mod counted;
mod end;
mod overdue;
mod received;
mod reloading;
mod replaying;
mod sleepers;
mod together;
mod work;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use self::cancels::Cancels;
use self::concurrency::{Turn, Turns};
pub use self::counted::Counted;
use self::counted::Counts;
pub use self::end::DatabaseEnd;
use self::overdue::{AtWork, Overdue};
use self::received::{Counting, Received};
use self::replaying::{Asked, Replays};
use self::sleepers::Sleepers;
use super::{
    BatchBounds, CallError, Cancel, Connection, Discovered, Driver, Problem, Results, Source, Stopped,
    join_all,
};
use crate::router::database::{
    DatabaseBatch, DatabaseEvent, DatabaseIndex, Procedure, Query, QueryNumber, REPLAYS_UNDER_WAY_MAX,
    Receivers, Replay, ReplayNumber,
};
use crate::router::peer::RealmIndex;
use crate::shard::mesh::CoreWaker;
use crate::wamp::codec::{OwnedPayload, Serializer};

/// The first pause before a database that is away is tried again, and the longest. Each is doubled and varied by a quarter.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// How long the threads may take to end.
const END: Duration = Duration::from_secs(5);

/// How much is published at a time.
const BATCH: BatchBounds = BatchBounds { publications_max: 1_000, bytes_max: 4 << 20 };

/// How long a source waits for the next publication before it looks whether it is to end.
const SOURCE_WAIT: Duration = Duration::from_millis(500);

/// What queries hold beside their arguments, in bytes.
const QUERY_OVERHEAD_BYTES: usize = 256;

/// The bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Queries that may wait for each kind of work.
    pub queue_max: usize,
    /// What all that wait may hold, in bytes.
    pub queue_bytes_max: usize,
    /// How often the database is asked whether what it offers has changed.
    pub refresh: Duration,
    /// How long who resumes waits for what the database has published.
    pub replay_timeout: Duration,
}

/// What becomes of a pool, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It offers so many procedures; what it does not offer, and why.
    Offers(usize, Vec<String>),
    /// It cannot be used; it is tried again.
    Away(Problem),
    /// What it publishes is read from now on.
    Publishes,
    /// Why that cannot be done; it is tried again.
    PublishesNothing(Problem),
    /// Why what it has published cannot be read again for those who resume.
    ReplaysNothing(Problem),
    /// Something that it was to publish is no publication, and was set aside.
    SetAside(String),
}

/// Called once for each change.
pub type Notify = Arc<dyn Fn(&Notice) + Send + Sync>;

/// A query on its way.
struct Job {
    core: usize,
    query: Query,
    call: Arc<Call>,
}

/// What a core and a thread share of one query.
#[derive(Default)]
struct Call {
    cancelled: AtomicBool,
    /// Parts of its result that may come.
    credit: AtomicU32,
    /// Who waits for that.
    thread: OnceLock<Thread>,
    /// What stops it, while it runs. Whoever cancels holds the lock while it does, so that the connection takes nothing new
    /// before that is over: a late cancel never stops the next query.
    running: Mutex<Option<Arc<dyn Cancel>>>,
    /// The same, for who gives it up and cannot wait for whoever cancels. Held for a moment.
    connection: Mutex<Option<Arc<dyn Cancel>>>,
    /// It was sent behind others once, and waited for them in vain: it is not sent so again.
    is_alone: AtomicBool,
    /// Its thread is done with it: there is nothing to stop any more.
    is_over: AtomicBool,
    /// Its caller was told how it ended.
    is_answered: AtomicBool,
    /// When it is to have ended.
    deadline: OnceLock<Instant>,
    /// Since when it is cancelled.
    cancelled_at: OnceLock<Instant>,
    /// What its caller is answered in.
    serializer: Option<Serializer>,
}

impl Call {
    /// By what it runs from now on.
    fn set_connection(&self, cancel: Arc<dyn Cancel>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(cancel);
    }

    /// Another thread is to run it, by another one. `thread` still names the first, which matters only to results in parts: what is
    /// run once more has none.
    fn forget_connection(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn connection(&self) -> Option<Arc<dyn Cancel>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_late(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| *deadline <= Instant::now())
    }

    fn set_running(&self, cancel: Option<Arc<dyn Cancel>>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = cancel;
    }
}

/// One kind of work.
struct Lane {
    jobs: ArrayQueue<Job>,
    sleepers: Sleepers,
    threads: Box<[Worker]>,
    /// Held while one is taken from `jobs`, so that turns are given in the order of that.
    turns: Mutex<Turns>,
    /// How many were taken from `jobs` and are the next all the same ([`Turns::put_back`]).
    put_back: AtomicUsize,
    /// Threads that are awake and run calls that go together: they are back soon, so that not every call wakes one more.
    quick: AtomicUsize,
}

impl Lane {
    /// Whether none waits for a thread.
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.put_back.load(Ordering::SeqCst) == 0
    }

    /// The next that waits for a thread.
    fn pop(&self, turns: &mut Turns) -> Option<Job> {
        match turns.take_back() {
            Some(job) => {
                self.put_back.fetch_sub(1, Ordering::SeqCst);
                Some(job)
            }
            None => self.jobs.pop(),
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that runs queries.
#[derive(Default)]
struct Worker {
    thread: OnceLock<Thread>,
    /// What it runs.
    at_work: Mutex<Option<AtWork>>,
}

impl Worker {
    fn at_work(&self) -> MutexGuard<'_, Option<AtWork>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one core hears of.
struct Desk {
    events: ArrayQueue<DatabaseEvent>,
    waker: CoreWaker,
}

struct Shared {
    driver: Arc<dyn Driver>,
    index: DatabaseIndex,
    realm: RealmIndex,
    options: PoolOptions,
    lanes: Box<[Lane]>,
    desks: Box<[Desk]>,
    /// Of one core, until it has taken their last events.
    queries_max: usize,
    waiting_bytes: AtomicUsize,
    is_away: AtomicBool,
    /// What it publishes comes to this router: it is there, and no other router has it.
    is_publishing: AtomicBool,
    /// How often it has gone: connections from before are of no use any more.
    losses: AtomicU32,
    /// What it offers may have changed: it is asked now.
    is_stale: AtomicBool,
    is_stopping: AtomicBool,
    cancels: ArrayQueue<Arc<Call>>,
    keeper: OnceLock<Thread>,
    canceller: OnceLock<Thread>,
    timekeeper: OnceLock<Thread>,
    /// How often cores were to look whether some of theirs wait although their time is over.
    overdue: AtomicU32,
    publisher: OnceLock<Thread>,
    replays: Replays,
    /// The last batch of publications that was offered to everybody.
    offered: AtomicU32,
    received: Received,
    counts: Counts,
}

impl Shared {
    /// There is room for it, see [`Pool::start`]; were there none, a thread waits for it and not a core.
    fn say(&self, core: usize, event: DatabaseEvent) {
        let Some(desk) = self.desks.get(core) else { return };
        let mut event = event;
        while let Err(refused) = desk.events.push(event) {
            if self.is_stopping() {
                return;
            }
            event = refused;
            desk.waker.wake();
            thread::sleep(Duration::from_millis(1));
        }
        desk.waker.wake();
    }

    /// The one last event of a query: the first to say one is heard.
    fn answer(&self, core: usize, call: &Call, event: DatabaseEvent) {
        if !call.is_answered.swap(true, Ordering::AcqRel) {
            self.counts.ended(if let DatabaseEvent::Failed(_, uri, _) = &event { Some(uri) } else { None });
            self.say(core, event);
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The next query, or `None` at the end. A thread that finds none is not quick any more.
    fn take_job(&self, lane: &Lane, own: usize, is_quick: &mut bool) -> Option<Job> {
        loop {
            if let Some(turn) = self.take_turn(lane) {
                match turn {
                    Turn::Runs(job) => {
                        self.waiting_bytes.fetch_sub(bytes_of(&job.query), Ordering::Relaxed);
                        return Some(job);
                    }
                    Turn::Waits { is_earliest } if is_earliest => wake(&self.timekeeper),
                    Turn::Waits { .. } => {}
                    Turn::Ends(job) => self.refuse(&job),
                }
                continue;
            }
            if self.is_stopping() {
                return None;
            }
            if std::mem::take(is_quick) {
                // Who counts on this one has put something there before, and it is looked for once more.
                lane.quick.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            // Said first and looked at again: who puts one in later finds this one among those that sleep.
            lane.sleepers.enter(own);
            if lane.is_empty() && !self.is_stopping() {
                thread::park();
            }
            lane.sleepers.leave(own);
        }
    }

    /// What becomes of the next that waits for a thread.
    fn take_turn(&self, lane: &Lane) -> Option<Turn> {
        if lane.is_empty() {
            return None;
        }
        let mut turns = lane.turns();
        let job = lane.pop(&mut turns)?;
        Some(turns.enter(job, self.options.queue_max))
    }

    /// The next of a procedure that runs only so many at a time, behind one that has ended.
    fn next_turn(&self, lane: &Lane, procedure: &Procedure) -> Option<Job> {
        if procedure.concurrency == 0 {
            return None;
        }
        let job = lane.turns().leave(&procedure.uri)?;
        self.waiting_bytes.fetch_sub(bytes_of(&job.query), Ordering::Relaxed);
        Some(job)
    }

    /// Answers one whose turn does not come.
    fn refuse(&self, job: &Job) {
        let Job { core, query, call } = job;
        self.waiting_bytes.fetch_sub(bytes_of(query), Ordering::Relaxed);
        let CallError { uri, payload } = if call.cancelled.load(Ordering::Acquire) {
            CallError::cancelled(query.serializer)
        } else if call.is_late() {
            CallError::timed_out(query.serializer)
        } else {
            CallError::unavailable(query.serializer, "too many calls of the procedure wait")
        };
        self.answer(*core, call, DatabaseEvent::Failed(query.number, uri, payload));
    }

    fn wake_one(lane: &Lane) {
        if let Some(number) = lane.sleepers.take()
            && let Some(thread) = lane.threads.get(number).and_then(|worker| worker.thread.get())
        {
            thread.unpark();
        }
    }
}

fn bytes_of(query: &Query) -> usize {
    query.payload.as_payload().len() + QUERY_OVERHEAD_BYTES
}

/// A query that a thread runs.
pub(crate) struct Running {
    shared: Arc<Shared>,
    core: usize,
    number: QueryNumber,
    call: Arc<Call>,
}

impl Running {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.call.cancelled.load(Ordering::Acquire) || self.shared.is_stopping()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.call.deadline.get().copied()
    }

    pub(crate) fn part(&self, payload: OwnedPayload) -> Result<(), Stopped> {
        loop {
            if self.is_cancelled() {
                return Err(Stopped::Cancelled);
            }
            if self.call.is_answered.load(Ordering::Acquire) {
                return Err(Stopped::TimedOut);
            }
            let credit = &self.call.credit;
            if credit
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |credit| credit.checked_sub(1))
                .is_ok()
            {
                self.shared.say(self.core, DatabaseEvent::Part(self.number, payload));
                return Ok(());
            }
            match self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Err(Stopped::TimedOut),
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
        }
    }
}

/// The threads of one database.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads of a database, for cores with these doorbells. It counts as away until it has been reached.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        driver: Arc<dyn Driver>,
        (realm, index): (RealmIndex, DatabaseIndex),
        options: PoolOptions,
        wakers: Vec<CoreWaker>,
        notify: Notify,
    ) -> io::Result<Self> {
        let sizes = driver.lanes();
        let connections: usize = sizes.iter().sum();
        // As many may wait for their turn as wait for a thread.
        let queries_max = 2 * options.queue_max * sizes.len() + connections;
        // Every query has one last event, every running one a part as well, as has one whose caller was answered before its
        // thread was done, and each replay; the keeper and the publisher each say one thing at a time.
        let events_max = queries_max + 2 * connections + REPLAYS_UNDER_WAY_MAX + 2;
        let lane = |size: &usize| Lane {
            jobs: ArrayQueue::new(options.queue_max.max(1)),
            sleepers: Sleepers::new(*size),
            threads: (0..*size).map(|_| Worker::default()).collect(),
            turns: Mutex::default(),
            put_back: AtomicUsize::new(0),
            quick: AtomicUsize::new(0),
        };
        let wakers_count = wakers.len();
        let desk = |waker| Desk { events: ArrayQueue::new(events_max), waker };
        let desks: Box<[_]> = wakers.into_iter().map(desk).collect();
        let shared = Arc::new(Shared {
            lanes: sizes.iter().map(lane).collect(),
            driver,
            index,
            realm,
            options,
            waiting_bytes: AtomicUsize::new(0),
            is_away: AtomicBool::new(true),
            is_publishing: AtomicBool::new(false),
            losses: AtomicU32::new(0),
            is_stale: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            // Each query is cancelled once at most.
            cancels: ArrayQueue::new(queries_max * desks.len()),
            desks,
            queries_max,
            keeper: OnceLock::new(),
            canceller: OnceLock::new(),
            timekeeper: OnceLock::new(),
            overdue: AtomicU32::new(0),
            publisher: OnceLock::new(),
            replays: Replays::new(wakers_count),
            offered: AtomicU32::new(0),
            received: Received::default(),
            counts: Counts::default(),
        });
        let mut pool = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        let name = |what: &str, number: usize| format!("db{}-{what}{number}", index.0);
        for (lane, size) in sizes.into_iter().enumerate() {
            for number in 0..size {
                let shared = Arc::clone(&shared);
                let thread = thread::Builder::new().name(name(["", "r", "x"][lane.min(2)], number));
                pool.threads.push(thread.spawn(move || work::work(&shared, lane, number))?);
            }
        }
        let publisher = thread::Builder::new().name(name("publish", 0));
        let (of_publisher, notify_too) = (Arc::clone(&shared), Arc::clone(&notify));
        pool.threads.push(publisher.spawn(move || publish(&of_publisher, &notify_too))?);
        let canceller = thread::Builder::new().name(name("cancel", 0));
        let of_canceller = Cancels::new(Arc::clone(&shared));
        pool.threads.push(canceller.spawn(move || of_canceller.run())?);
        let timekeeper = thread::Builder::new().name(name("time", 0));
        let of_timekeeper = Arc::clone(&shared);
        pool.threads.push(timekeeper.spawn(move || overdue::watch(&of_timekeeper))?);
        if shared.driver.publishes() {
            for own in 0..Replays::READERS {
                let (shared, notify) = (Arc::clone(&shared), Arc::clone(&notify));
                let reader = thread::Builder::new().name(name("replay", own));
                pool.threads.push(reader.spawn(move || replaying::read(&shared, own, &notify))?);
            }
        }
        let keeper = thread::Builder::new().name(name("keeper", 0));
        pool.threads.push(keeper.spawn(move || Keeper::new(shared, notify).keep())?);
        Ok(pool)
    }

    /// One core's end.
    #[must_use]
    pub fn end(&self, core: usize) -> PoolEnd {
        let (shared, calls, overdue) = (Arc::clone(&self.shared), HashMap::new(), Overdue::default());
        PoolEnd {
            shared,
            core,
            calls,
            overdue,
            batch: (0, 0),
            counting: Counting::default(),
            asked: HashMap::new(),
        }
    }

    /// Ends the threads: what waits is dropped, what runs is cancelled.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        for lane in &self.shared.lanes {
            lane.threads.iter().filter_map(|worker| worker.thread.get()).for_each(Thread::unpark);
        }
        self.shared.wake_keeper();
        wake(&self.shared.canceller);
        wake(&self.shared.timekeeper);
        self.shared.wake_publisher();
        self.shared.replays.wake();
    }

    /// Waits until they have ended, but no longer than some seconds: what waits for a server that says nothing ends with the
    /// process. Whether all have ended.
    pub fn join(&mut self) -> bool {
        let threads = std::mem::take(&mut self.threads);
        join_all(threads, END, || self.stop())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn set_away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
        self.wake_keeper();
    }

    fn wake_publisher(&self) {
        wake(&self.publisher);
    }

    fn wake_keeper(&self) {
        wake(&self.keeper);
    }
}

fn wake(thread: &OnceLock<Thread>) {
    if let Some(thread) = thread.get() {
        thread.unpark();
    }
}

/// The life of the thread that hands publications to a core: a batch, and the next when that was offered to everybody.
fn publish(shared: &Arc<Shared>, notify: &Notify) {
    let _ = shared.publisher.set(thread::current());
    let mut retry = RETRY_FIRST;
    let mut number = 0;
    let mut said = None;
    let mut say = |notice: Notice| {
        if said.as_ref() != Some(&notice) {
            notify(&notice);
            said = Some(notice);
        }
    };
    while !shared.is_stopping() {
        let ended = match shared.driver.source() {
            Ok(None) => return,
            Ok(Some(mut source)) => {
                retry = RETRY_FIRST;
                say(Notice::Publishes);
                shared.is_publishing.store(true, Ordering::Release);
                let ended = drain(shared, &mut *source, &mut number, notify);
                shared.is_publishing.store(false, Ordering::Release);
                ended
            }
            Err(problem) => Err(problem),
        };
        if let Err(problem) = &ended
            && !shared.is_away.load(Ordering::Relaxed)
        {
            say(Notice::PublishesNothing(problem.clone()));
        }
        // The keeper says that the database is away.
        if ended.is_err() && !shared.is_stopping() {
            thread::park_timeout(varied(retry));
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}

fn drain(shared: &Shared, source: &mut dyn Source, number: &mut u32, notify: &Notify) -> Result<(), Problem> {
    let core = usize::from(shared.index.0) % shared.desks.len().max(1);
    while !shared.is_stopping() {
        let mut problems = Vec::new();
        let next = source.next(BATCH, SOURCE_WAIT, &mut problems);
        shared.counts.set_aside(problems.len());
        for problem in problems {
            notify(&Notice::SetAside(problem));
        }
        let publications = next?;
        let Some(last) = publications.last().map(|publication| publication.position) else { continue };
        *number = number.wrapping_add(1);
        let (realm, database) = (shared.realm, shared.index);
        let count = publications.len();
        let (number, publications, is_counted) = (*number, publications.into(), source.wants_receivers());
        let batch = DatabaseBatch { realm, database, number, publications, is_counted };
        shared.say(core, DatabaseEvent::Publish(batch));
        while shared.offered.load(Ordering::Acquire) != number {
            if shared.is_stopping() {
                // Who subscribes after a start gets it again.
                return Ok(());
            }
            thread::park_timeout(SOURCE_WAIT);
        }
        shared.counts.published(count);
        if is_counted {
            source.received(&shared.received.take());
        }
        source.mark(last)?;
    }
    Ok(())
}

/// Connects again, and asks what there is.
struct Keeper {
    shared: Arc<Shared>,
    notify: Notify,
    connection: Option<Box<dyn Connection>>,
    /// What was said last.
    said: Option<Notice>,
    retry: Duration,
}

impl Keeper {
    fn new(shared: Arc<Shared>, notify: Notify) -> Self {
        Self { shared, notify, connection: None, said: None, retry: RETRY_FIRST }
    }

    fn keep(mut self) {
        let _ = self.shared.keeper.set(thread::current());
        let mut due = Instant::now();
        while !self.shared.is_stopping() {
            self.tell_backlog();
            let now = Instant::now();
            let is_stale = self.shared.is_stale.load(Ordering::Acquire);
            if now >= due
                || self.connection.is_some() && is_stale
                || self.connection.is_some() && self.shared.is_away.load(Ordering::Relaxed)
            {
                due = now + self.look_after();
            }
            thread::park_timeout(due.saturating_duration_since(Instant::now()));
        }
    }

    /// Looks how much was not published yet, when somebody asks.
    fn tell_backlog(&mut self) {
        if let Some(asked) = self.shared.counts.is_asked() {
            let backlog = self.connection.as_mut().and_then(|connection| connection.backlog().ok().flatten());
            self.shared.counts.tell(asked, backlog);
        }
    }

    /// Looks whether the database is there, and what it offers; when it is to be done again.
    fn look_after(&mut self) -> Duration {
        match self.look() {
            Ok(()) => {
                self.retry = RETRY_FIRST;
                self.shared.options.refresh
            }
            Err(problem) => {
                self.connection = None;
                self.shared.is_away.store(true, Ordering::Relaxed);
                self.shared.losses.fetch_add(1, Ordering::AcqRel);
                self.say(Notice::Away(problem));
                let wait = self.retry;
                self.retry = (wait * 2).min(RETRY_MAX);
                varied(wait)
            }
        }
    }

    fn look(&mut self) -> Result<(), Problem> {
        let is_new = self.connection.is_none();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.shared.driver.connect(0)?),
        };
        let is_back = is_new || self.shared.is_away.load(Ordering::Relaxed);
        let is_stale = self.shared.is_stale.swap(false, Ordering::AcqRel);
        if !connection.has_changed()? && !is_back && !is_stale {
            return Ok(());
        }
        let Discovered { procedures, problems } = connection.discover()?;
        let procedures: Arc<[Arc<Procedure>]> = procedures.into();
        let count = procedures.len();
        let (realm, index) = (self.shared.realm, self.shared.index);
        self.say(Notice::Offers(count, problems));
        // Who hears of the offer may call at once.
        self.shared.is_away.store(false, Ordering::Relaxed);
        if is_back {
            // It need not wait for the end of its pause.
            self.shared.wake_publisher();
        }
        for core in 0..self.shared.desks.len() {
            self.shared.say(core, DatabaseEvent::Offer(realm, index, Arc::clone(&procedures)));
        }
        Ok(())
    }

    fn say(&mut self, notice: Notice) {
        if self.said.as_ref() != Some(&notice) {
            (self.notify)(&notice);
            self.said = Some(notice);
        }
    }
}

/// So that routers that lost a database at the same moment do not all come back at the same moment.
fn varied(wait: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8);
    wait.mul_f64(0.75 + (random % 1024) as f64 / 2048.0)
}

/// What one core gives to a database, and gets back.
pub struct PoolEnd {
    shared: Arc<Shared>,
    core: usize,
    /// Ends with the last event of each.
    calls: HashMap<QueryNumber, Arc<Call>>,
    overdue: Overdue,
    /// The batch of publications that is being offered, and what of it is still owed, in bytes.
    batch: (u32, u64),
    /// Who has got what of it.
    counting: Counting,
    /// Replays. Ends with the answer of each.
    asked: HashMap<ReplayNumber, Arc<Asked>>,
}

impl PoolEnd {
    fn query(&mut self, query: Query) -> bool {
        let shared = &self.shared;
        let lane = &shared.lanes[shared.driver.lane_of(&query.procedure).min(shared.lanes.len() - 1)];
        let bytes = bytes_of(&query);
        if shared.is_away.load(Ordering::Relaxed) || self.calls.len() >= shared.queries_max {
            return false;
        }
        if shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > shared.options.queue_bytes_max {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        let call = Arc::new(Call {
            credit: AtomicU32::new(1),
            serializer: Some(query.serializer),
            ..Call::default()
        });
        if query.timeout_ms > 0 {
            let _ = call.deadline.set(Instant::now() + Duration::from_millis(query.timeout_ms));
        }
        let (number, pace_us) = (query.number, shared.pace_us(&query));
        if lane.jobs.push(Job { core: self.core, query, call: Arc::clone(&call) }).is_err() {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.calls.insert(number, call);
        if !lane.is_soon(pace_us) {
            Shared::wake_one(lane);
        }
        true
    }

    fn more(&self, query: QueryNumber) {
        if let Some(call) = self.calls.get(&query) {
            call.credit.fetch_add(1, Ordering::AcqRel);
            if let Some(thread) = call.thread.get() {
                thread.unpark();
            }
        }
    }

    fn cancel(&self, query: QueryNumber) {
        let Some(call) = self.calls.get(&query) else { return };
        if !call.cancelled.swap(true, Ordering::AcqRel) {
            let _ = call.cancelled_at.set(Instant::now());
            let _ = self.shared.cancels.push(Arc::clone(call));
            wake(&self.shared.canceller);
            // It may be among those that wait for their turn.
            wake(&self.shared.timekeeper);
            if let Some(thread) = call.thread.get() {
                thread.unpark();
            }
        }
    }

    fn charge(&mut self, batch: u32, bytes: u32) {
        if self.batch.0 != batch {
            self.batch = (batch, 0);
            self.counting.clear();
        }
        self.batch.1 += u64::from(bytes);
    }

    fn credit(&mut self, batch: u32, bytes: u32) {
        if self.batch.0 != batch {
            return;
        }
        self.batch.1 = self.batch.1.saturating_sub(bytes.into());
        if self.batch.1 == 0 {
            self.shared.received.put(&mut self.counting);
            self.shared.offered.store(batch, Ordering::Release);
            self.shared.wake_publisher();
        }
    }

    fn received(&mut self, batch: u32, receivers: Receivers) {
        if self.batch.0 == batch {
            self.counting.add(receivers.position, receivers.count);
        }
    }

    fn replay(&mut self, replay: Replay) -> bool {
        let shared = &self.shared;
        if shared.is_away.load(Ordering::Relaxed) || !shared.driver.publishes() {
            return false;
        }
        let (number, asked) = (replay.number, Arc::new(Asked::within(shared.options.replay_timeout)));
        let is_taken = shared.replays.push(self.core, replay, &asked);
        if is_taken {
            // Who watches the time looks at them with everything else.
            self.asked.insert(number, asked);
        }
        is_taken
    }

    fn take(&mut self) -> Option<DatabaseEvent> {
        let event = self.shared.desks.get(self.core)?.events.pop();
        let event = event.or_else(|| self.overdue.take(&self.shared, &self.calls, &self.asked))?;
        match &event {
            DatabaseEvent::Done(number, _) | DatabaseEvent::Failed(number, ..) => {
                self.calls.remove(number);
            }
            DatabaseEvent::Replayed(number, _) => {
                self.asked.remove(number);
            }
            _ => {}
        }
        Some(event)
    }

    fn is_empty(&self) -> bool {
        self.overdue.is_empty() && self.shared.desks.get(self.core).is_none_or(|desk| desk.events.is_empty())
    }
}

#[cfg(test)]
mod tests;
