//! Databases: their procedures are procedures of a realm, and what they publish are events of it.
//!
//! Everything here blocks, on threads of its own: nothing of it ever runs on a core. A core gives queries away and takes what
//! comes of them by rings (`pool.rs`); what speaks to a server is a driver.
#![allow(clippy::disallowed_methods, reason = "threads that wait, and have clocks of their own")]

mod arguments;
mod declared;
pub mod inside;
pub mod oracle;
mod patterns;
pub mod pool;
pub mod postgres;
pub mod publishing;
mod rows;
pub mod sqlite;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::router::database::{DatabasePublication, Procedure, Query, Replay, Replayed};
use crate::wamp::codec::{Composer, OwnedPayload, Serializer};
use crate::wamp::error::uri;

pub use declared::{Declared, Shape};
pub use pool::{Counted, DatabaseEnd, Pool, PoolOptions};
pub use publishing::PublicationLimits;

/// How a kind of database is spoken to. One for each database of the configuration.
pub trait Driver: Send + Sync + 'static {
    /// How many connections there are for each kind of work. Most databases have one kind.
    fn lanes(&self) -> Vec<usize>;

    /// Which kind of work a procedure is: an index into [`Self::lanes`].
    fn lane_of(&self, procedure: &Procedure) -> usize;

    /// How long a call of a procedure takes on the average, in microseconds, where its calls may be sent together: it changes
    /// nothing, so that it can be run once more, and has been quick so far.
    fn pace_us(&self, _procedure: &Procedure) -> Option<u32> {
        None
    }

    /// Connects for one kind of work.
    ///
    /// # Errors
    /// Why not, for people. It takes no longer than a stated time.
    fn connect(&self, lane: usize) -> Result<Box<dyn Connection>, Problem>;

    /// Opens what it publishes; `None` where it publishes nothing.
    ///
    /// # Errors
    /// As [`Self::connect`].
    fn source(&self) -> Result<Option<Box<dyn Source>>, Problem>;

    /// Whether it publishes anything.
    fn publishes(&self) -> bool;

    /// Opens what it has published before; `None` where it publishes nothing.
    ///
    /// # Errors
    /// As [`Self::connect`].
    fn replayer(&self) -> Result<Option<Box<dyn Replayer>>, Problem>;
}

/// Reads again what a database has published. A connection of its own: nothing waits for it that is published now.
pub trait Replayer: Send {
    /// The publications after a position, in their order, at most so many and about so many bytes; one at least if there
    /// is one. All that have a position by now are seen, whether they were dispatched or not.
    ///
    /// # Errors
    /// Not all of them are kept; or the database is not there any more.
    fn replay(&mut self, replay: &Replay, bounds: BatchBounds) -> Result<Replayed, NotRead>;
}

/// Why publications cannot be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRead {
    /// Not all after that position is kept.
    NotKept,
    /// The connection is of no use any more, for people.
    Lost(Problem),
}

/// Where events of a database come from, in their order. One thread of one router reads it.
pub trait Source: Send {
    /// The next publications that were not marked as offered, at most so many and about so many bytes; waits for the first one
    /// no longer than so. Each is one that [`crate::router::database::check_publication`] takes: what is none the source sets
    /// aside, and says so in `problems`.
    ///
    /// # Errors
    /// The database is not there any more.
    fn next(
        &mut self,
        bounds: BatchBounds,
        wait: Duration,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem>;

    /// Whether it is to be counted how many sessions get each publication, which costs a word of every core that has some.
    fn wants_receivers(&self) -> bool {
        false
    }

    /// How many got which, by position, of those that are to be marked next; where that is wanted. What is missing nobody got.
    fn received(&mut self, _receivers: &[(u64, u64)]) {}

    /// All up to this position have been offered to their subscribers.
    ///
    /// # Errors
    /// The database is not there any more; they will be offered again.
    fn mark(&mut self, last: u64) -> Result<(), Problem>;
}

/// How much is offered at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BatchBounds {
    pub publications_max: usize,
    pub bytes_max: usize,
}

/// One connection to a database, used by one thread at a time.
pub trait Connection: Send {
    /// Runs one call to its end: as one transaction, or not at all.
    ///
    /// # Errors
    /// What its caller is to be told.
    fn call(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, CallError>;

    /// Whether it may be taken out of the pool: the server has not ended it while it was idle.
    fn is_alive(&mut self) -> bool {
        true
    }

    /// How calls are sent together, where they are.
    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        None
    }

    /// What stops a call of this connection, from another thread.
    fn canceller(&self) -> Arc<dyn Cancel>;

    /// Whether nothing can be called by it any more.
    fn is_broken(&self) -> bool;

    /// All procedures that the database offers. A connection of the first kind of work is asked.
    ///
    /// # Errors
    /// Why they cannot be found, for people.
    fn discover(&mut self) -> Result<Discovered, Problem>;

    /// Whether what it offers may have changed since the last time; also finds out whether the database is still there.
    ///
    /// # Errors
    /// It is not.
    fn has_changed(&mut self) -> Result<bool, Problem>;

    /// What the database has not published yet; `None` where it publishes nothing.
    ///
    /// # Errors
    /// It cannot be found out.
    fn backlog(&mut self) -> Result<Option<Backlog>, Problem> {
        Ok(None)
    }
}

/// A connection that takes calls before those before them have ended. All that were posted are taken, in that order, before
/// anything else is done with it.
pub trait Pipeline {
    /// Puts a call behind the others; `false` when it is to be run on its own.
    fn post(&mut self, query: &Query, results: &Results<'_>) -> bool;

    /// Sends what was posted.
    fn send(&mut self);

    /// Waits until the next one has ended, or the connection has, but no longer than so; whether it has.
    fn wait(&mut self, patience: Duration) -> bool;

    /// The end of the next one. It ends in its time.
    ///
    /// # Errors
    /// It failed, or is to be run once more on its own.
    fn take(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, NotTaken>;

    /// Passes over the end of the next one: somebody else runs it.
    fn pass_over(&mut self);

    /// Whether nothing more comes of this connection.
    fn is_lost(&self) -> bool;
}

/// Why there is no result of a call that was sent with others.
#[derive(Debug)]
pub enum NotTaken {
    /// It failed.
    Failed(CallError),
    /// Something that was none of its own came between: the stop of another one, the loss of the connection.
    Again,
}

/// What a database is to publish, and has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many events were not offered to their subscribers; there may be more than a million.
    pub events: u64,
    /// How old the oldest of them is, in milliseconds.
    pub oldest_ms: u64,
}

/// What a database offers.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Its procedures, each URI once.
    pub procedures: Vec<Arc<Procedure>>,
    /// What is not offered, and why; for people.
    pub problems: Vec<String>,
}

/// Stops what a connection runs.
pub trait Cancel: Send + Sync {
    /// May come too late, or to nothing; but once it returns, nothing that the connection runs later is stopped by it.
    fn cancel(&self);

    /// The call was cancelled a while ago and goes on: nothing is waited for any more, and the connection is not used again.
    /// Called again and again until the call is over.
    fn give_up(&self) {}
}

/// Why a database cannot be used, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// How numbers are told that not every client can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// To who speaks JSON, an integer that a float64 need not hold is a string: JavaScript would round it.
    pub large_as_text: bool,
    /// An exact number with a fraction is a float64, not a string.
    pub exact_as_float: bool,
}

/// The largest integer up to which float64 have them all.
const SAFE_MAX: u64 = (1 << 53) - 1;

impl Numbers {
    /// Writes an integer.
    fn write(self, value: i64, composer: &mut Composer) {
        let is_large = value.unsigned_abs() > SAFE_MAX;
        if self.large_as_text && is_large && composer.serializer() == Serializer::Json {
            composer.text(&value.to_string());
        } else {
            composer.signed(value);
        }
    }
}

/// What becomes of a call that fails.
#[derive(Clone, Debug, PartialEq)]
pub struct CallError {
    /// An error URI.
    pub uri: Box<str>,
    /// The arguments of the ERROR, in the serializer of the caller.
    pub payload: OwnedPayload,
}

impl CallError {
    /// With one argument, a text.
    #[must_use]
    pub fn new(serializer: Serializer, uri: &str, text: &str) -> Self {
        let mut args = Composer::new(serializer);
        args.open_list();
        args.text(text);
        args.close();
        Self { uri: uri.into(), payload: OwnedPayload::new(serializer, args.finish(), Vec::new()) }
    }

    /// Nobody waits for the call any more.
    #[must_use]
    pub fn cancelled(serializer: Serializer) -> Self {
        Self::new(serializer, uri::CANCELED, "the call was cancelled")
    }

    /// It has taken longer than it may.
    #[must_use]
    pub fn timed_out(serializer: Serializer) -> Self {
        Self::new(serializer, uri::TIMEOUT, "the database did not answer in time")
    }

    /// There is no database to call.
    #[must_use]
    pub fn unavailable(serializer: Serializer, text: &str) -> Self {
        Self::new(serializer, uri::UNAVAILABLE, text)
    }
}

/// Why the parts of a result need not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody waits for them any more.
    Cancelled,
    /// The caller has not taken them in the time of the call.
    TimedOut,
}

/// Where the parts of a result go, and what there is to mind while a call runs.
pub struct Results<'a> {
    pub(crate) call: &'a pool::Running,
}

impl fmt::Debug for Results<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}

impl Results<'_> {
    /// Sends a part of a result, as soon as the caller has taken the one before.
    ///
    /// # Errors
    /// The call is to end.
    pub fn part(&mut self, payload: OwnedPayload) -> Result<(), Stopped> {
        self.call.part(payload)
    }

    /// Whether nobody waits for the call any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// When the call is to have ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.call.deadline()
    }

    /// How long it may still take; `None` is as long as it wants.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Tells threads to end until they have, but no longer than so; whether all have.
fn join_all(threads: Vec<JoinHandle<()>>, patience: Duration, stop: impl Fn()) -> bool {
    let until = Instant::now() + patience;
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
        stop();
        thread::sleep(Duration::from_millis(2));
    }
    let (ended, stuck): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
    for thread in ended {
        let _ = thread.join();
    }
    stuck.is_empty()
}

/// What a driver keeps of a procedure, out of the [`Procedure`] that it made.
#[must_use]
pub fn own<T: Any + Send + Sync>(procedure: &Procedure) -> Option<&T> {
    procedure.driver.downcast_ref()
}
