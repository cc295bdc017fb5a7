//! Events that run statements of the configuration, each event in the transaction of those that are run with it.

use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::Value as SqliteValue;
use rusqlite::{Batch, ErrorCode, Statement};

use super::{Open, Sqlite, WRITES, outbox};
use crate::database::Problem;
use crate::database::inside::{
    DeclaredSubscription, Event, Failure, Function, Inside, RunError, Runner, Wanted, Watch,
};

/// What a statement may want to know of an event.
const PARAMETERS: [&str; 10] = [
    "topic",
    "args",
    "kwargs",
    "details",
    "publication",
    "publisher",
    "publisher_authid",
    "publisher_authrole",
    "event_id",
    "depth",
];

/// How long others who write wait for events that are run as one transaction, and what these wait for others.
const TOGETHER: Duration = Duration::from_millis(50);
const GIVE_WAY: Duration = Duration::from_secs(1);

/// Where it is, and what it runs.
#[derive(Clone, Debug)]
pub struct SqliteInside {
    /// As that of calls.
    pub driver: Sqlite,
    /// How long the statements of an event may take.
    pub timeout: Duration,
    /// Those of the configuration; there are no others.
    pub subscriptions: Vec<DeclaredSubscription>,
}

impl SqliteInside {
    fn open(&self) -> Result<Open, Problem> {
        let open = self.driver.open(WRITES)?;
        if open.publishes {
            let problem = |error: rusqlite::Error| Problem(format!("wamp_outbox cannot be made: {error}"));
            open.connection.execute_batch(outbox::SCHEMA).map_err(problem)?;
        }
        Ok(open)
    }
}

impl Inside for SqliteInside {
    fn watch(&self) -> Result<Box<dyn Watch>, Problem> {
        let (open, declared) = (self.open()?, self.subscriptions.clone());
        Ok(Box::new(Subscriptions { open, declared, looked: None }))
    }

    fn runner(&self) -> Result<Box<dyn Runner>, Problem> {
        Ok(Box::new(Statements { open: self.open()?, timeout: self.timeout }))
    }
}

fn lost(error: &rusqlite::Error) -> Problem {
    Problem(format!("the database file cannot be read: {error}"))
}

/// The subscriptions whose statements can be run.
struct Subscriptions {
    open: Open,
    declared: Vec<DeclaredSubscription>,
    /// With which schema some of them could not.
    looked: Option<i64>,
}

/// What is wrong with statements, if anything.
fn check(open: &Open, sql: &str) -> Result<(), String> {
    let mut batch = Batch::new(&open.connection, sql);
    let mut is_there = false;
    while let Some(statement) = batch.next().map_err(|error| error.to_string())? {
        is_there = true;
        for index in 1..=statement.parameter_count() {
            parameter(&statement, index)?;
        }
    }
    if is_there { Ok(()) } else { Err("there is no statement in it".to_owned()) }
}

/// The name of a parameter, if events have it.
fn parameter<'s>(statement: &'s Statement<'_>, index: usize) -> Result<&'s str, String> {
    let written = statement.parameter_name(index).unwrap_or("?");
    let name = written.get(1..).unwrap_or_default();
    if !written.starts_with('?') && PARAMETERS.contains(&name) {
        return Ok(name);
    }
    Err(format!("an event has no parameter {written}: there are :{}", PARAMETERS.join(", :")))
}

impl Watch for Subscriptions {
    fn subscriptions(&mut self) -> Result<(Vec<Wanted>, Vec<String>), Problem> {
        let version = self.open.schema_version().map_err(|error| lost(&error))?;
        let (mut wanted, mut problems) = (Vec::new(), Vec::new());
        for (place, declared) in self.declared.iter().enumerate() {
            let DeclaredSubscription { topic, runs, .. } = declared;
            match check(&self.open, runs) {
                Ok(()) => {
                    let name = format!("the statement of {topic}");
                    let id = DeclaredSubscription::id(place);
                    wanted.push(declared.wanted(id, (name, runs.clone()), 0));
                }
                Err(wrong) => {
                    problems.push(format!("not subscribed, as the configuration says: {topic}: {wrong}"))
                }
            }
        }
        self.looked = (!problems.is_empty()).then_some(version);
        Ok((wanted, problems))
    }

    /// Tables may come that are missing.
    fn wait(&mut self, time: Duration) -> Result<bool, Problem> {
        thread::sleep(time);
        let Some(looked) = self.looked else { return Ok(false) };
        Ok(self.open.schema_version().map_err(|error| lost(&error))? != looked)
    }
}

/// Runs statements.
struct Statements {
    open: Open,
    timeout: Duration,
}

/// What an event gives to parameters.
struct Values<'e> {
    event: &'e Event,
    details: serde_json::Map<String, serde_json::Value>,
}

impl<'e> Values<'e> {
    fn of(event: &'e Event) -> Self {
        // The router has written it.
        Self { event, details: serde_json::from_str(&event.details).unwrap_or_default() }
    }

    fn get(&self, name: &str) -> SqliteValue {
        let text = |text: &str| SqliteValue::Text(text.to_owned());
        let detail = |name: &str| match self.details.get(name) {
            Some(serde_json::Value::String(string)) => text(string),
            Some(serde_json::Value::Number(number)) => {
                number.as_i64().map_or(SqliteValue::Null, SqliteValue::Integer)
            }
            _ => SqliteValue::Null,
        };
        match name {
            "topic" => text(&self.event.topic),
            "args" => text(&self.event.args),
            "kwargs" => text(&self.event.kwargs),
            "details" => text(&self.event.details),
            "depth" => SqliteValue::Integer(self.event.depth.into()),
            "event_id" => detail("_event_id"),
            other => detail(other),
        }
    }
}

/// Why events were not run, for people.
fn why(error: &rusqlite::Error, timeout: Duration) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => format!("it took longer than {} ms", timeout.as_millis()),
        _ => error.to_string(),
    }
}

impl Statements {
    fn set_deadline(&self, deadline: Option<Instant>) {
        *self.open.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Runs as many as there is time for, within the transaction that was begun.
    fn run_all(&self, sql: &str, timeout: Duration, events: &[Arc<Event>]) -> rusqlite::Result<usize> {
        let connection = &self.open.connection;
        let (begun, mut count) = (Instant::now(), 0);
        for event in events {
            if count > 0 && begun.elapsed() >= TOGETHER {
                break;
            }
            count += 1;
            self.set_deadline(Some(Instant::now() + timeout));
            let before: i64 = if self.open.publishes {
                let last = "select coalesce(max(id), 0) from wamp_outbox";
                connection.prepare_cached(last)?.query_row([], |row| row.get(0))?
            } else {
                0
            };
            self.run_one(sql, event)?;
            if self.open.publishes {
                // Nobody else writes meanwhile: it came of this event, whatever statement or trigger has published it.
                let deeper = "update wamp_outbox set depth = ?1 where id > ?2";
                let depth = i64::from(event.depth) + 1;
                connection.prepare_cached(deeper)?.execute([depth, before])?;
            }
        }
        self.set_deadline(None);
        connection.prepare_cached("commit")?.execute([])?;
        Ok(count)
    }

    fn begin(&self) -> rusqlite::Result<()> {
        self.open.turns.give_way(GIVE_WAY);
        // Whoever is going to write says so at once, as calls do.
        self.open.connection.prepare_cached("begin immediate")?.execute([]).map(drop)
    }

    fn run_one(&self, sql: &str, event: &Event) -> rusqlite::Result<()> {
        let values = Values::of(event);
        let mut batch = Batch::new(&self.open.connection, sql);
        while let Some(mut statement) = batch.next()? {
            for index in 1..=statement.parameter_count() {
                let name = parameter(&statement, index);
                let value = name.map(|name| values.get(name));
                let value = value.map_err(|text| rusqlite::Error::UserFunctionError(text.into()))?;
                statement.raw_bind_parameter(index, value)?;
            }
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    }
}

impl Runner for Statements {
    fn run(&mut self, function: &Function, events: &[Arc<Event>]) -> Result<usize, RunError> {
        let timeout = function.timeout.unwrap_or(self.timeout);
        let begun = self.begin();
        if let Err(error) = &begun
            && outbox::is_busy(error)
        {
            return Err(RunError::Busy);
        }
        let result = begun.and_then(|()| self.run_all(&function.sql, timeout, events));
        self.set_deadline(None);
        self.open.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        let error = match result {
            Ok(count) => {
                if let Some(committed) = &self.open.committed {
                    committed.notify();
                }
                return Ok(count);
            }
            Err(error) => error,
        };
        self.open.roll_back();
        let error = why(&error, timeout);
        if self.open.connection.is_autocommit() {
            Err(RunError::Refused(error))
        } else {
            Err(RunError::Lost(Problem(error)))
        }
    }

    /// A file has no place for them.
    fn bury(&mut self, _function: &Function, _event: &Event, _failure: &Failure) -> Result<(), RunError> {
        Ok(())
    }
}
