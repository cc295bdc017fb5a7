//! What a database does in its realm by itself: its functions subscribe, and its statements call.
//!
//! It is a client of the router, within the process: it comes in by a door of its own (`router/doors.rs`), speaks RawSocket over
//! a pair of sockets, and its sessions are like all others to the router: permissions, credit, slow readers, the meta API. One
//! thread holds the sessions (`link.rs`), one watches which subscriptions there are, and some run functions, each on a
//! connection of its own (`worker.rs`), so that those of callers are never used up. What waits between them is bounded
//! (`queues.rs`).

mod calls;
mod counted;
mod link;
mod queues;
mod session;
mod worker;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::queues::{Bounds, Queues};
use super::{Problem, join_all};
use crate::shard::entrance::Entrance;
use crate::wamp::MatchPolicy;

pub use self::calls::Calls;
pub use self::counted::Counts;

/// The first pause before a database that is away is tried again, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long a thread waits that looks whether it is to end.
const LOOK: Duration = Duration::from_millis(500);
/// How long what waits is still seen to at the end, and how long the threads may take to end.
const FINISH: Duration = Duration::from_secs(2);
const END: Duration = Duration::from_secs(5);
/// The same news is told no more often.
const NEWS_EVERY: Duration = Duration::from_secs(10);

/// How the inside of a kind of database is spoken to.
pub trait Inside: Send + Sync {
    /// Opens what tells which subscriptions there are.
    ///
    /// # Errors
    /// Why not, for people. It takes no longer than a stated time.
    fn watch(&self) -> Result<Box<dyn Watch>, Problem>;

    /// Opens a connection that runs functions.
    ///
    /// # Errors
    /// As [`Self::watch`].
    fn runner(&self) -> Result<Box<dyn Runner>, Problem>;
}

/// A subscription of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredSubscription {
    /// The topic or pattern.
    pub topic: String,
    /// How topics match it.
    pub policy: MatchPolicy,
    /// The function, or the SQL, that an event runs.
    pub runs: String,
    /// See [`Wanted::attempts`].
    pub attempts: Option<u32>,
    /// See [`Function::timeout`].
    pub timeout: Option<Duration>,
}

impl DeclaredSubscription {
    /// The number of the one in this place: those that databases note themselves are positive.
    #[must_use]
    pub fn id(place: usize) -> i64 {
        -1 - i64::try_from(place).unwrap_or(i64::MAX - 1)
    }

    /// What is to be subscribed for it.
    #[must_use]
    pub fn wanted(&self, id: i64, (name, sql): (String, String), parameters: usize) -> Wanted {
        let function = Function { name, sql, parameters, timeout: self.timeout };
        Wanted { id, topic: self.topic.clone(), policy: self.policy, function, attempts: self.attempts }
    }
}

/// Tells which subscriptions there are.
pub trait Watch: Send {
    /// All of them; and what cannot be subscribed, for people.
    ///
    /// # Errors
    /// The database is not there any more.
    fn subscriptions(&mut self) -> Result<(Vec<Wanted>, Vec<String>), Problem>;

    /// Waits no longer than so; whether subscriptions, registrations or functions may have changed.
    ///
    /// # Errors
    /// As [`Self::subscriptions`].
    fn wait(&mut self, time: Duration) -> Result<bool, Problem>;
}

/// Runs functions.
pub trait Runner: Send {
    /// Calls a function with the first of these events, in their order, as one transaction: with all of them, unless others wait
    /// for it. With how many; one at least.
    ///
    /// # Errors
    /// None of them was run, or nobody knows.
    fn run(&mut self, function: &Function, events: &[Arc<Event>]) -> Result<usize, RunError>;

    /// Puts an event aside whose function has failed for good, where the database keeps such; the log tells of it in any case.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn bury(&mut self, function: &Function, event: &Event, failure: &Failure) -> Result<(), RunError>;

    /// Notes an answer, and gives it to the function that wants it, as one transaction. There are none where statements make no
    /// calls.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn finish(&mut self, _answer: &Answer) -> Result<(), RunError> {
        Ok(())
    }

    /// Notes an answer, and puts it aside as one whose function has failed for good.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn finish_in_vain(&mut self, _answer: &Answer, _failure: &Failure) -> Result<(), RunError> {
        Ok(())
    }
}

/// Why something was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// The connection is of no use any more.
    Lost(Problem),
    /// The database refused it, for people.
    Refused(String),
    /// Others write, and nothing was tried.
    Busy,
}

/// What went wrong the last time, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Failure {
    pub attempts: u32,
    pub error: String,
}

/// A function of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// With the types of its parameters, for people.
    pub name: String,
    /// As SQL calls it.
    pub sql: String,
    /// How many it has.
    pub parameters: usize,
    /// How long it may take, where that is not what all may.
    pub timeout: Option<Duration>,
}

/// A subscription that there shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Wanted {
    pub id: i64,
    pub topic: String,
    pub policy: MatchPolicy,
    pub function: Function,
    /// How often an event is tried, where that is not as often as all are.
    pub attempts: Option<u32>,
}

/// An event on its way to functions. All but the topic is JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Event {
    pub topic: Box<str>,
    pub args: Box<str>,
    pub kwargs: Box<str>,
    pub details: Box<str>,
    /// How many events led to it, one behind the other, by functions that one calls and that publish the next.
    pub depth: u32,
}

/// A call that a statement has made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseCall {
    /// Its number in the database.
    pub id: i64,
    /// What is called.
    pub procedure: String,
    /// A list in JSON.
    pub args: Option<String>,
    /// An object in JSON.
    pub kwargs: Option<String>,
    /// Whose statement it was.
    pub db_user: String,
    /// How long its caller still waits.
    pub left: Option<Duration>,
    /// A function wants the answer.
    pub has_function: bool,
    /// How many events led to it; what the function publishes has that, too.
    pub depth: u32,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the call.
    pub id: i64,
    /// What was called.
    pub procedure: Box<str>,
    /// A list in JSON.
    pub args: Box<str>,
    /// An object in JSON.
    pub kwargs: Box<str>,
    /// The URI of an error.
    pub error: Option<Box<str>>,
    /// See [`DatabaseCall::has_function`].
    pub has_function: bool,
    /// See [`DatabaseCall::depth`].
    pub depth: u32,
}

impl Answer {
    /// An error with a text.
    fn error(call: &DatabaseCall, error: &str, text: &str) -> Self {
        Self {
            id: call.id,
            procedure: call.procedure.as_str().into(),
            args: serde_json::json!([text]).to_string().into(),
            kwargs: "{}".into(),
            error: Some(error.into()),
            has_function: call.has_function,
            depth: call.depth,
        }
    }
}

/// The bounds, and who it is.
#[derive(Clone, Debug)]
pub struct InsideOptions {
    /// Of the database: the authid of the session that subscribes.
    pub name: String,
    /// Where it does all that.
    pub realm: String,
    /// Connections that run functions.
    pub connections: usize,
    /// How often something is tried.
    pub attempts: u32,
    /// No function gets an event that so many events led to.
    pub depth_max: u32,
    /// Events that wait for one function.
    pub queue_max: usize,
    /// What all that wait may hold, in bytes.
    pub queue_bytes_max: usize,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// The longest answer, in bytes.
    pub answer_bytes_max: usize,
}

/// What becomes of it, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It has so many subscriptions.
    Subscribes(usize),
    /// Something cannot be done.
    Problem(String),
    /// Events were not given to functions, for want of room.
    Overflow(u64),
    /// So many were put aside since the last time, this one at last.
    Buried(u64, String),
}

/// Called once for each change, and not too often.
pub type Tell = Arc<dyn Fn(&News) + Send + Sync>;

/// Called when functions or registrations may have changed.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// What the threads share.
struct Shared {
    options: InsideOptions,
    driver: Arc<dyn Inside>,
    entrance: Arc<Entrance>,
    calls: Arc<Calls>,
    queues: Mutex<Queues>,
    /// Somebody waits for work.
    work: Condvar,
    /// The subscriptions that there shall be, where they have changed.
    wanted: Mutex<Option<Vec<Wanted>>>,
    tell: Tell,
    is_stopping: AtomicBool,
    /// Until when what waits is still seen to.
    stops_at: Mutex<Option<Instant>>,
    buried: Mutex<Untold>,
    stuck: Mutex<Untold>,
}

/// What has happened and was not told yet.
#[derive(Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Whether nothing more is to be begun.
    fn is_over(&self) -> bool {
        let stops_at = *self.stops_at.lock().unwrap_or_else(PoisonError::into_inner);
        stops_at.is_some_and(|at| at <= Instant::now())
    }

    fn answer(&self, answer: Answer) {
        self.queues().answer(answer);
        self.work.notify_one();
    }

    fn tell_buried(&self, text: String) {
        if let Some(count) = Untold::count(&self.buried) {
            (self.tell)(&News::Buried(count, text));
        }
    }

    /// Something fails that is no function's doing, and is tried again for ever.
    fn tell_stuck(&self, text: String) {
        if Untold::count(&self.stuck).is_some() {
            (self.tell)(&News::Problem(text));
        }
    }
}

impl Untold {
    /// One more; how many they are now, if that is to be told.
    fn count(untold: &Mutex<Self>) -> Option<u64> {
        let mut untold = untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        let is_due = untold.told.is_none_or(|told| told.elapsed() >= NEWS_EVERY);
        is_due.then(|| {
            untold.told = Some(Instant::now());
            std::mem::take(&mut untold.count)
        })
    }
}

/// The threads of the inside of one database.
pub struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Threads {
    /// Starts them. The database need not be there.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        driver: Arc<dyn Inside>,
        options: InsideOptions,
        (entrance, calls): (Arc<Entrance>, Arc<Calls>),
        (tell, changed): (Tell, Changed),
    ) -> io::Result<Self> {
        let queues = Queues::new(Bounds::from(&options));
        let (name, connections) = (options.name.clone(), options.connections);
        let shared = Arc::new(Shared {
            options,
            driver,
            entrance,
            calls,
            queues: Mutex::new(queues),
            work: Condvar::new(),
            wanted: Mutex::default(),
            tell,
            is_stopping: AtomicBool::new(false),
            stops_at: Mutex::default(),
            buried: Mutex::default(),
            stuck: Mutex::default(),
        });
        let mut threads = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        let mut link = link::Link::new(Arc::clone(&shared));
        threads.spawn(&name, "link", move || link.run())?;
        let of_watch = Arc::clone(&shared);
        threads.spawn(&name, "watch", move || watch(&of_watch, &changed))?;
        for _ in 0..connections {
            let shared = Arc::clone(&shared);
            threads.spawn(&name, "run", move || worker::work(&shared))?;
        }
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, what: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        // The kernel keeps fifteen bytes of it.
        let thread = thread::Builder::new().name(format!("{what}-{name}"));
        self.threads.push(thread.spawn(run)?);
        Ok(())
    }

    /// Ends them: what waits is still seen to, for a moment; sessions are closed.
    pub fn stop(&self) {
        let mut stops_at = self.shared.stops_at.lock().unwrap_or_else(PoisonError::into_inner);
        stops_at.get_or_insert_with(|| Instant::now() + FINISH);
        drop(stops_at);
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.calls.ring();
        self.shared.work.notify_all();
    }

    /// Waits until they have ended, but no longer than some seconds. Whether all have.
    pub fn join(&mut self) -> bool {
        let threads = std::mem::take(&mut self.threads);
        join_all(threads, END, || self.stop())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The life of the thread that watches which subscriptions there are.
fn watch(shared: &Shared, changed: &Changed) {
    let (mut retry, mut told) = (RETRY_FIRST, Vec::new());
    while !shared.is_stopping() {
        let ended = watch_one(shared, changed, &mut retry, &mut told);
        if let Err(Problem(problem)) = ended
            && !shared.is_stopping()
        {
            let problem = vec![format!("what subscribes inside is not known: {problem}")];
            if told != problem {
                (shared.tell)(&News::Problem(problem.concat()));
                told = problem;
            }
            pause(shared, retry);
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}

fn watch_one(
    shared: &Shared,
    changed: &Changed,
    retry: &mut Duration,
    told: &mut Vec<String>,
) -> Result<(), Problem> {
    let mut watch = shared.driver.watch()?;
    let mut is_first = true;
    while !shared.is_stopping() {
        if is_first || watch.wait(LOOK)? {
            let (wanted, problems) = watch.subscriptions()?;
            *retry = RETRY_FIRST;
            if !is_first {
                changed();
            }
            is_first = false;
            if *told != problems {
                problems.iter().for_each(|problem| (shared.tell)(&News::Problem(problem.clone())));
                *told = problems;
            }
            *shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
            shared.calls.ring();
        }
    }
    Ok(())
}

/// Waits, but not when all is to end.
fn pause(shared: &Shared, time: Duration) {
    let until = Instant::now() + time;
    while !shared.is_stopping() && Instant::now() < until {
        thread::sleep((until - Instant::now()).min(Duration::from_millis(50)));
    }
}

#[cfg(test)]
mod tests;
