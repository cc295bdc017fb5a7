//! SQLite, in the process: one connection that writes, and some that read.
//!
//! Procedures are SQL of the configuration. Each call is one transaction; what only reads runs on connections that cannot
//! write. A call is stopped by `sqlite3_interrupt`, its time is watched by SQLite's progress handler.

mod errors;
pub mod inside;
mod outbox;
mod publish;
mod values;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Batch, InterruptHandle, OpenFlags, Statement};

use self::errors::{Failure, LastRaised, of_raised, of_sqlite};
use self::outbox::{Committed, Outbox};
use self::values::{Arguments, Writer};
use super::{
    Backlog, CallError, Cancel, Connection, Declared, Discovered, Driver, Numbers, Problem,
    PublicationLimits, Replayer, Results, Shape, Source, Stopped, own,
};
use crate::router::database::{Caller, Procedure, Query};
use crate::wamp::codec::OwnedPayload;

/// The lanes of this driver.
const WRITES: usize = 0;
const READS: usize = 1;

/// How many instructions of SQLite's machine run between two looks at the clock: some tens of microseconds.
const STEPS_A_LOOK: i32 = 4096;

/// How long a connection waits for another process that writes, if a call says nothing shorter.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 128;

/// A database file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    /// Where it is; it is created if it is not there.
    pub path: PathBuf,
    /// How many connections read.
    pub readers: usize,
    /// What it offers.
    pub procedures: Vec<Declared>,
    /// The longest result, or part of one, in bytes.
    pub result_bytes_max: usize,
    /// How its numbers are told.
    pub numbers: Numbers,
    /// What it publishes; `None` is nothing.
    pub publishing: Option<Publishes>,
    /// Wakes who reads what is published.
    committed: Arc<Committed>,
}

/// That a database publishes, and what by itself.
#[derive(Clone, Debug)]
pub struct Publishes {
    /// Tables whose changes are published, and to where.
    pub watches: Vec<(String, String)>,
    /// The bounds of what is published.
    pub limits: PublicationLimits,
}

impl Sqlite {
    /// A database in a file; what it offers and publishes is to be said.
    #[must_use]
    pub fn new(path: PathBuf, readers: usize, result_bytes_max: usize) -> Self {
        let (procedures, publishing, committed) = (Vec::new(), None, Arc::default());
        let numbers = Numbers::default();
        Self { path, readers, procedures, result_bytes_max, numbers, publishing, committed }
    }

    fn outbox(&self) -> Result<Option<Outbox>, Problem> {
        let Some(Publishes { limits, .. }) = self.publishing else { return Ok(None) };
        let outbox = Outbox::open(&self.path, Arc::clone(&self.committed), limits);
        outbox.map(Some).map_err(|error| {
            Problem(format!("the database file {} cannot be opened: {error}", self.path.display()))
        })
    }
}

/// What this driver keeps of a procedure.
#[derive(Debug)]
struct Prepared {
    sql: String,
    shape: Shape,
    is_read_only: bool,
    /// It is one statement, which a connection may keep prepared.
    is_single: bool,
}

impl Driver for Sqlite {
    fn lanes(&self) -> Vec<usize> {
        vec![1, self.readers.max(1)]
    }

    fn lane_of(&self, procedure: &Procedure) -> usize {
        let is_read_only = own::<Prepared>(procedure).is_some_and(|prepared| prepared.is_read_only);
        if is_read_only { READS } else { WRITES }
    }

    fn connect(&self, lane: usize) -> Result<Box<dyn Connection>, Problem> {
        Ok(Box::new(self.open(lane)?))
    }

    fn source(&self) -> Result<Option<Box<dyn Source>>, Problem> {
        let source = self.outbox()?;
        Ok(source.map(|outbox| Box::new(outbox) as Box<dyn Source>))
    }

    fn publishes(&self) -> bool {
        self.publishing.is_some()
    }

    fn replayer(&self) -> Result<Option<Box<dyn Replayer>>, Problem> {
        let source = self.outbox()?;
        Ok(source.map(|outbox| Box::new(outbox) as Box<dyn Replayer>))
    }
}

impl Sqlite {
    fn open(&self, lane: usize) -> Result<Open, Problem> {
        let problem = |error: rusqlite::Error| {
            Problem(format!("the database file {} cannot be opened: {error}", self.path.display()))
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = rusqlite::Connection::open_with_flags(&self.path, flags).map_err(problem)?;
        let caller = Arc::new(Mutex::new(None));
        let deadline = Arc::new(Mutex::new(None));
        let raised = LastRaised::default();
        if let Some(publishing) = &self.publishing {
            let publishing = publish::Publishing { caller: Arc::clone(&caller), limits: publishing.limits };
            publish::define(&connection, &publishing).map_err(problem)?;
        }
        set_up(&mut connection, lane, (&caller, &raised), &deadline).map_err(problem)?;
        let interrupt = Arc::new(Interrupt(connection.get_interrupt_handle()));
        Ok(Open {
            connection,
            caller,
            deadline,
            raised,
            interrupt,
            declared: self.procedures.clone(),
            turns: Arc::clone(&self.committed),
            committed: (lane == WRITES && self.publishing.is_some()).then(|| Arc::clone(&self.committed)),
            publishes: self.publishing.is_some(),
            watches: self.publishing.iter().flat_map(|it| it.watches.clone()).collect(),
            result_bytes_max: self.result_bytes_max,
            numbers: self.numbers,
            schema_version: None,
        })
    }
}

fn set_up(
    connection: &mut rusqlite::Connection,
    lane: usize,
    (caller, raised): (&Arc<Mutex<Option<Caller>>>, &LastRaised),
    deadline: &Arc<Mutex<Option<Instant>>>,
) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Readers and the writer do not wait for each other.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if lane == READS {
        connection.pragma_update(None, "query_only", true)?;
    }
    errors::define(connection, Arc::clone(raised))?;
    values::define_identity(connection, Arc::clone(caller))?;
    let deadline = Arc::clone(deadline);
    let is_over = move || {
        let deadline = *deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| deadline <= Instant::now())
    };
    connection.progress_handler(STEPS_A_LOOK, Some(is_over))?;
    // From here on: no other files, and none of the switches that were set above.
    connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Authorization::Deny,
        AuthAction::Pragma { pragma_value: Some(_), pragma_name } if !is_harmless(pragma_name) => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }))
}

/// Pragmas whose value is what they look at.
fn is_harmless(pragma: &str) -> bool {
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"]
        .contains(&pragma)
}

/// Why a call is not to be committed.
fn stopped(results: &Results<'_>) -> Option<Stopped> {
    let is_late = results.time_left().is_some_and(|left| left.is_zero());
    if results.is_cancelled() { Some(Stopped::Cancelled) } else { is_late.then_some(Stopped::TimedOut) }
}

struct Interrupt(InterruptHandle);

impl Cancel for Interrupt {
    fn cancel(&self) {
        // Without a statement under way it is forgotten before the next one begins.
        self.0.interrupt();
    }
}

/// An open connection.
struct Open {
    connection: rusqlite::Connection,
    caller: Arc<Mutex<Option<Caller>>>,
    deadline: Arc<Mutex<Option<Instant>>>,
    raised: LastRaised,
    interrupt: Arc<Interrupt>,
    declared: Vec<Declared>,
    /// Told of what this connection commits, if that may be published.
    committed: Option<Arc<Committed>>,
    /// Who else writes.
    turns: Arc<Committed>,
    publishes: bool,
    watches: Vec<(String, String)>,
    result_bytes_max: usize,
    numbers: Numbers,
    schema_version: Option<i64>,
}

impl Open {
    fn schema_version(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("pragma schema_version", [], |row| row.get(0))
    }

    /// Looks at a procedure: what it is, or what is wrong with it.
    fn prepare(&self, declared: &Declared) -> Result<Prepared, String> {
        let mut batch = Batch::new(&self.connection, &declared.sql);
        let (mut count, mut is_read_only) = (0, true);
        while let Some(statement) = batch.next().map_err(|error| error.to_string())? {
            count += 1;
            is_read_only &= statement.readonly();
            values::check_parameters(&statement)?;
        }
        if count == 0 {
            return Err("there is no statement in it".to_owned());
        }
        // What it publishes is written, although SQLite cannot know.
        let publishes = self.publishes && declared.sql.to_ascii_lowercase().contains("publish");
        let is_read_only = is_read_only && !publishes;
        let (sql, shape) = (declared.sql.clone(), declared.shape);
        Ok(Prepared { sql, shape, is_read_only, is_single: count == 1 })
    }

    fn run(
        &mut self,
        prepared: &Prepared,
        query: &Query,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let arguments = Arguments::read(query)?;
        let is_alone = prepared.is_single && prepared.is_read_only;
        if !is_alone {
            // Whoever is going to write says so at once: one that reads first could not go on once another has written.
            let begin = if prepared.is_read_only { "begin" } else { "begin immediate" };
            let _writer = (!prepared.is_read_only).then(|| self.turns.writer());
            self.connection.prepare_cached(begin)?.execute([])?;
        }
        let result = self.run_statements(prepared, &arguments, query, results);
        if is_alone {
            return result;
        }
        match result {
            Ok(payload) => {
                // Who waited for another writer may come to its turn when its caller was told that its time is over.
                if let Some(stopped) = stopped(results) {
                    self.roll_back();
                    return Err(Failure::Stopped(stopped));
                }
                self.connection.prepare_cached("commit")?.execute([])?;
                if let Some(committed) = &self.committed {
                    committed.notify();
                }
                Ok(payload)
            }
            failed => {
                self.roll_back();
                failed
            }
        }
    }

    /// Some errors have rolled back already.
    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("rollback");
        }
    }

    fn run_statements(
        &self,
        prepared: &Prepared,
        arguments: &Arguments<'_>,
        query: &Query,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let mut used = arguments.unused();
        let mut writer = Writer::new(query, prepared.shape, self.numbers, self.result_bytes_max);
        if prepared.is_single {
            let mut statement = self.connection.prepare_cached(&prepared.sql)?;
            arguments.bind(&mut statement, &mut used)?;
            arguments.refuse_unused(&used)?;
            return writer.write(&self.connection, &mut statement, results);
        }
        // The last one has the result; what the others give is read and dropped.
        let mut batch = Batch::new(&self.connection, &prepared.sql);
        let mut last: Option<Statement<'_>> = None;
        while let Some(mut statement) = batch.next()? {
            if let Some(mut before) = last.take() {
                let mut rows = before.raw_query();
                while rows.next()?.is_some() {}
            }
            arguments.bind(&mut statement, &mut used)?;
            last = Some(statement);
        }
        arguments.refuse_unused(&used)?;
        let Some(mut last) = last else { return Ok(writer.nothing()) };
        writer.write(&self.connection, &mut last, results)
    }
}

impl Connection for Open {
    fn call(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, CallError> {
        let Some(prepared) = own::<Prepared>(&query.procedure) else {
            return Err(CallError::unavailable(query.serializer, "the procedure is of another database"));
        };
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(query.caller.clone());
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = results.deadline();
        let result = self.run(prepared, query, results);
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if result.is_err() {
            self.roll_back();
        }
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.map_err(|failure| match raised {
            Some(raised) => of_raised(&raised, query.serializer),
            None => of_sqlite(failure, query, results),
        })
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.interrupt) as Arc<dyn Cancel>
    }

    fn is_broken(&self) -> bool {
        // A transaction that could not even be rolled back.
        !self.connection.is_autocommit()
    }

    fn discover(&mut self) -> Result<Discovered, Problem> {
        let mut discovered = Discovered::default();
        if self.committed.is_some() {
            // What procedures and triggers publish into is there before they are looked at.
            let problem = |error: rusqlite::Error| Problem(format!("wamp_outbox cannot be made: {error}"));
            self.connection.execute_batch(outbox::SCHEMA).map_err(problem)?;
            for (table, topic) in &self.watches {
                if let Err(problem) = outbox::watch(&self.connection, table, topic) {
                    discovered.problems.push(format!("the table {table} is not watched: {problem}"));
                }
            }
        }
        for declared in &self.declared {
            match self.prepare(declared) {
                Ok(prepared) => discovered.procedures.push(Arc::new(Procedure {
                    uri: declared.uri.as_str().into(),
                    driver: Arc::new(prepared),
                    timeout_ms: declared.timeout_ms,
                    concurrency: declared.concurrency,
                })),
                Err(problem) => {
                    discovered
                        .problems
                        .push(format!("the procedure {} is not offered: {problem}", declared.uri));
                }
            }
        }
        self.schema_version = self.schema_version().ok();
        Ok(discovered)
    }

    fn backlog(&mut self) -> Result<Option<Backlog>, Problem> {
        if self.committed.is_none() {
            return Ok(None);
        }
        let backlog = outbox::backlog(&self.connection);
        backlog.map(Some).map_err(|error| Problem(format!("wamp_outbox cannot be read: {error}")))
    }

    fn has_changed(&mut self) -> Result<bool, Problem> {
        let version = self.schema_version().map_err(|error| Problem(error.to_string()))?;
        Ok(self.schema_version != Some(version))
    }
}
