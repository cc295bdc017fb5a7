//! PostgreSQL: functions and procedures of schemas, and SQL of the configuration.
//!
//! A call is one group of messages and one transaction: who calls, and how long it may take, is set for that transaction alone,
//! and in the same write as the call itself. What is prepared is prepared for one role, as that role (a plan that was made
//! by another one might have looked where this one may not).

mod errors;
mod functions;
pub mod inside;
pub mod install;
mod log;
mod named;
mod outbox;
mod registrations;
mod replay;
mod statements;
mod values;
pub mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::functions::{Columns, FINGERPRINT, FUNCTIONS, Function, TYPES, annotations};
use self::registrations::{REGISTRATIONS_FINGERPRINT, Registered};
use self::statements::{Open, Pace, Target};
use self::values::{Kind, Types};
use self::wire::{Deadline, Parameter, Pooling, Settings};
use super::inside::Calls;
use super::patterns::offers;
use super::{
    Connection, Declared, Discovered, Driver, Numbers, Problem, PublicationLimits, Replayer, Source, own,
};
use crate::router::database::Procedure;

/// How long it may take to connect, and to be told what there is.
const CONNECT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(30);

/// A schema whose functions are procedures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Exposed {
    pub schema: String,
    /// Before the name of each.
    pub prefix: String,
    /// Names that are offered, with `*` for anything; all of them where there is none.
    pub allow: Vec<String>,
    /// And of those the ones that are not.
    pub deny: Vec<String>,
}

/// A database of a server.
#[derive(Clone)]
pub struct Postgres {
    /// Where it is, and who goes there.
    pub settings: Settings,
    /// How many connections there are for calls.
    pub connections: usize,
    /// The realm that it serves, as it is told.
    pub realm: String,
    /// What it offers.
    pub exposed: Vec<Exposed>,
    /// See `exposed`.
    pub procedures: Vec<Declared>,
    /// Which role of the database a call runs as, by the role of its caller; `None`: all run as who connects.
    pub roles: Option<HashMap<String, String>>,
    /// How long a call may take unless its procedure says otherwise, in milliseconds; 0 is no limit.
    pub timeout_ms: u64,
    /// How its numbers are told.
    pub numbers: Numbers,
    /// The longest result, or part of one, in bytes.
    pub result_bytes_max: usize,
    /// How long who resumes waits; a connection that has not answered by then is given up.
    pub replay_timeout: Duration,
    /// That it publishes by its schema `wamp`, and the bounds of that; `None`: it does not.
    pub publishing: Option<PublicationLimits>,
    /// Who makes the calls of its statements; `None`: nobody does.
    pub calls: Option<Arc<Calls>>,
    /// Whether it is noted in each row of the outbox that it was sent, and how many got it.
    pub feedback: bool,
    /// Whether procedures are registered by `wamp.register`.
    pub registers: bool,
    /// What the connections know of the types; replaced when they change.
    types: Arc<Mutex<Arc<Types>>>,
    /// The last position that was offered here; 0 is none.
    offered: Arc<AtomicU64>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Postgres {
    /// A database that offers nothing so far.
    #[must_use]
    pub fn new(mut settings: Settings, realm: &str) -> Self {
        // What values look like as text does not depend on how the server is set up.
        for (name, value) in [
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "iso_8601"),
            ("extra_float_digits", "3"),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
        ] {
            settings.parameters.insert(name.to_owned(), value.to_owned());
        }
        Self {
            settings,
            connections: 8,
            realm: realm.to_owned(),
            exposed: Vec::new(),
            procedures: Vec::new(),
            roles: None,
            timeout_ms: 0,
            numbers: Numbers::default(),
            result_bytes_max: 1 << 20,
            replay_timeout: replay::PATIENCE,
            publishing: None,
            calls: None,
            feedback: false,
            registers: false,
            types: Arc::default(),
            offered: Arc::default(),
        }
    }

    fn schemas(&self) -> String {
        let names: Vec<_> = self.exposed.iter().map(|exposed| functions::quoted(&exposed.schema)).collect();
        format!("{{{}}}", names.join(","))
    }
}

/// Why a database cannot be used.
fn problem(error: &wire::Error) -> Problem {
    Problem(error.to_string())
}

impl Driver for Postgres {
    fn lanes(&self) -> Vec<usize> {
        vec![self.connections.max(1)]
    }

    fn lane_of(&self, _procedure: &Procedure) -> usize {
        0
    }

    fn pace_us(&self, procedure: &Procedure) -> Option<u32> {
        own::<Target>(procedure)?.pace_us()
    }

    fn connect(&self, _lane: usize) -> Result<Box<dyn Connection>, Problem> {
        let deadline = Deadline::after(CONNECT);
        let connection =
            wire::Connection::connect(&self.settings, deadline).map_err(|error| problem(&error))?;
        Ok(Box::new(Open::new(connection, self.clone())))
    }

    fn source(&self) -> Result<Option<Box<dyn Source>>, Problem> {
        let Some(limits) = self.publishing else { return Ok(None) };
        let mut outbox = outbox::Outbox::open(self, limits)?;
        Ok(Some(match log::Log::prefix(&mut outbox)? {
            Some((prefix, ends)) => Box::new(log::Log::open(self, outbox, (&prefix, ends))?),
            None => Box::new(outbox),
        }))
    }

    fn publishes(&self) -> bool {
        self.publishing.is_some()
    }

    fn replayer(&self) -> Result<Option<Box<dyn Replayer>>, Problem> {
        let Some(limits) = self.publishing else { return Ok(None) };
        Ok(Some(Box::new(replay::Replays::open(self, limits, self.replay_timeout)?)))
    }
}

impl Open {
    fn rows(
        &mut self,
        sql: &str,
        parameters: &[&str],
        mut on_row: impl FnMut(&Columns<'_>),
    ) -> Result<(), Problem> {
        let deadline = Deadline::after(LOOK);
        let statement = self.wire.prepare(sql, &[], deadline).map_err(|error| problem(&error))?;
        let parameters: Vec<_> = parameters.iter().map(|text| Parameter::from(*text)).collect();
        let count = statement.columns.len();
        let run = self.wire.execute(&statement, &parameters, deadline, |row| {
            let columns: Columns<'_> = (0..count).map(|column| row.text(column)).collect();
            on_row(&columns);
        });
        run.map_err(|error| problem(&error))?;
        self.wire.close_statement(statement, deadline).map_err(|error| problem(&error))
    }

    pub(super) fn fingerprint(&mut self) -> Result<String, Problem> {
        let (schemas, mut text) = (self.driver.schemas(), String::new());
        self.rows(FINGERPRINT, &[&schemas], |row| {
            text = row.first().copied().flatten().unwrap_or_default().to_owned();
        })?;
        if self.may_see_registrations()? {
            self.rows(REGISTRATIONS_FINGERPRINT, &[], |row| {
                text.push(' ');
                text.push_str(row.first().copied().flatten().unwrap_or_default());
            })?;
        }
        Ok(text)
    }

    fn look_for_pooler(&mut self) -> Result<(), Problem> {
        let settings = self.driver.settings.clone();
        let pooling = wire::probe(&mut self.wire, &settings, Deadline::after(CONNECT));
        match pooling.map_err(|error| problem(&error))? {
            pooling @ Pooling::Transaction => Err(Problem(pooling.to_string())),
            Pooling::None | Pooling::Session => Ok(()),
        }
    }

    pub(super) fn look_for_procedures(&mut self) -> Result<Discovered, Problem> {
        self.look_for_pooler()?;
        let mut types = Types::new(self.driver.numbers);
        self.rows(TYPES, &[], |row| {
            let text = |index: usize| row.get(index).copied().flatten().unwrap_or_default();
            let number = |index: usize| text(index).parse().unwrap_or_default();
            let kind = match text(1) {
                "c" => Kind::Composite,
                "d" => Kind::Domain(number(3)),
                _ => Kind::Array(number(2)),
            };
            types.insert(number(0), kind);
        })?;
        let types = Arc::new(types);
        *self.driver.types.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&types);
        let (schemas, mut functions) = (self.driver.schemas(), Vec::new());
        self.rows(FUNCTIONS, &[&schemas], |row| functions.extend(Function::read(row, &types)))?;
        let registered = self.look_for_registrations(&types)?;
        Ok(self.driver.offered(functions, registered))
    }
}

impl Postgres {
    /// Procedures of functions: those with one name are one procedure, whose arguments choose.
    fn offered(&self, functions: Vec<Function>, registered: Vec<Registered>) -> Discovered {
        let mut discovered = Discovered::default();
        let mut by_uri: HashMap<String, (Vec<Function>, u64, u32)> = HashMap::new();
        let mut order = Vec::new();
        for exposed in &self.exposed {
            for function in functions.iter().filter(|function| function.schema == exposed.schema) {
                if !offers(&function.name, &exposed.allow, &exposed.deny) {
                    continue;
                }
                let words = function.comment.as_deref().map(annotations).unwrap_or_default();
                if words.contains_key("ignore") {
                    continue;
                }
                let own = format!("{}{}", exposed.prefix, function.name);
                let uri = words.get("uri").map_or(own, |uri| (*uri).to_owned());
                let mut number = |name: &str, otherwise: u64| {
                    let Some(text) = words.get(name) else { return otherwise };
                    text.parse::<u32>().map(u64::from).unwrap_or_else(|_| {
                        let signature = function.signature();
                        discovered.problems.push(format!("{signature}: its {name} is no number"));
                        otherwise
                    })
                };
                let timeout_ms = number("timeout_ms", self.timeout_ms);
                let concurrency = number("concurrency", 0) as u32;
                let entry = by_uri.entry(uri.clone()).or_insert_with(|| {
                    order.push(uri);
                    (Vec::new(), timeout_ms, concurrency)
                });
                entry.0.push(function.clone());
            }
        }
        for uri in order {
            let Some((functions, timeout_ms, concurrency)) = by_uri.remove(&uri) else { continue };
            discovered.offer(&uri, Target::Functions(functions, Pace::default()), (timeout_ms, concurrency));
        }
        for declared in &self.procedures {
            let target = Target::Sql(named::numbered(&declared.sql), declared.shape);
            discovered.offer(&declared.uri, target, (declared.timeout_ms, declared.concurrency));
        }
        self.offer_registered(registered, &mut discovered);
        discovered
    }
}

impl Discovered {
    fn offer(&mut self, uri: &str, target: Target, (timeout_ms, concurrency): (u64, u32)) {
        if self.procedures.iter().any(|procedure| *procedure.uri == *uri) {
            self.problems.push(format!("{uri} is offered by something else already"));
            return;
        }
        let procedure = Procedure { uri: uri.into(), driver: Arc::new(target), timeout_ms, concurrency };
        self.procedures.push(Arc::new(procedure));
    }
}
