//! Calls on one connection: what is prepared, how a call is sent, what comes of it.

mod cursors;
mod pipeline;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

pub(super) use self::pipeline::Pace;
use self::pipeline::Posted;
use super::Postgres;
use super::errors::{Failure, call_error};
use super::functions::{Function, Given, Returns};
use super::named::Numbered;
use super::values::{Types, list_of, oid, text_of, write};
use super::wire::{self, CancelHandle, Deadline, Event, OwnedColumn, Parameter, ResultFormat};
use crate::database::arguments::{self, Named};
use crate::database::rows::{BYTES_A_PART, ROWS_A_PART};
use crate::database::{
    Backlog, CallError, Cancel, Connection, Discovered, Pipeline, Problem, Results, Shape, own,
};
use crate::router::database::Query;
use crate::wamp::codec::{Composer, Datum, Encoder, OwnedPayload};

/// The most arguments of a call: a message of the protocol counts no more.
const ARGUMENTS_MAX: usize = 65_535;

/// Statements that a connection keeps.
const STATEMENTS_MAX: usize = 512;

/// The server keeps the time of a call; this long after, the connection is given up.
const GRACE: Duration = Duration::from_secs(5);
/// Where nobody keeps it.
const FOR_EVER: Duration = Duration::from_secs(7 * 86_400);

/// Who has been idle for so long is asked whether it is still there.
const IDLE: Duration = Duration::from_millis(200);

/// How long one cancel may take.
const CANCEL: Duration = Duration::from_secs(5);

/// Who calls, and in what time: for the transaction, which is what `true` says.
const IDENTITY: &str = "select set_config('wamp.realm', $1, true), set_config('wamp.session', $2, true),
    set_config('wamp.authid', $3, true), set_config('wamp.authrole', $4, true),
    set_config('statement_timeout', $5, true), set_config('transaction_read_only', $6, true),
    set_config('wamp.details', $7, true)";
/// The same, and as whom.
const IDENTITY_AND_ROLE: &str =
    "select set_config('wamp.realm', $1, true), set_config('wamp.session', $2, true),
    set_config('wamp.authid', $3, true), set_config('wamp.authrole', $4, true),
    set_config('statement_timeout', $5, true), set_config('transaction_read_only', $6, true),
    set_config('wamp.details', $7, true), set_config('role', $8, true)";
/// For procedures, which may end transactions: it holds for the session, and is taken back behind the call.
const SESSION_IDENTITY: &str = "select set_config('wamp.realm', $1, false), set_config('wamp.session', $2, false),
    set_config('wamp.authid', $3, false), set_config('wamp.authrole', $4, false),
    set_config('statement_timeout', $5, false), set_config('wamp.details', $6, false), set_config('role', $7, false)";

/// How much is to be published, and since when.
const BACKLOG: &str = "select waiting + unsent,
    greatest(0, coalesce(extract(epoch from clock_timestamp() - oldest) * 1000, 0))::bigint from wamp.backlog()";

/// What this driver keeps of a procedure.
#[derive(Debug)]
pub(super) enum Target {
    /// Functions and procedures of one name, and how long their calls take.
    Functions(Vec<Function>, Pace),
    /// SQL of the configuration.
    Sql(Numbered, Shape),
}

/// A statement that the server knows.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    parameters: Vec<u32>,
    columns: Arc<[OwnedColumn]>,
}

/// An open connection.
pub(super) struct Open {
    pub(super) wire: wire::Connection,
    pub(super) driver: Postgres,
    types: Arc<Types>,
    encoder: Encoder,
    cancel: Arc<Canceller>,
    identity: Option<String>,
    /// What says who calls was put before the call, and its answer has not been read.
    is_identifying: bool,
    /// By SQL and role. Forgotten all at once, when there are too many or what is offered changes.
    known: HashMap<(String, String), Known>,
    last: u64,
    fingerprint: Option<String>,
    /// A call did not end in its time.
    is_abandoned: bool,
    used: Instant,
    posted: Posted,
}

struct Canceller(CancelHandle);

impl Cancel for Canceller {
    fn cancel(&self) {
        // Who waits for its end asks again. But what the server has not heard by now it may hear when the next one runs.
        if let Err(wire::Error::TimedOut { .. }) = self.0.cancel(Deadline::after(CANCEL)) {
            self.0.give_up();
        }
    }

    fn give_up(&self) {
        self.0.give_up();
    }
}

/// A call, ready to be sent.
struct Prepared<'q> {
    query: &'q Query,
    sql: String,
    /// The types of its parameters, where the SQL does not say them.
    arguments: Vec<(String, Argument<'q>)>,
    form: Form,
    is_read_only: bool,
    is_procedure: bool,
    role: String,
}

/// What a parameter gets.
enum Argument<'q> {
    /// A value, and its type where that is known before the server says it.
    One(Datum<'q>, Option<u32>),
    /// The rest of the arguments, as the list of this type.
    Rest(Vec<Datum<'q>>, u32),
}

/// What the result is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Nothing,
    Value,
    Kwargs,
    Row,
    Rows,
    Values,
}

impl Form {
    fn is_many(self) -> bool {
        matches!(self, Self::Rows | Self::Values)
    }
}

impl Open {
    pub(super) fn new(wire: wire::Connection, driver: Postgres) -> Self {
        let cancel = Arc::new(Canceller(wire.cancel_handle()));
        let types = Arc::clone(&driver.types.lock().unwrap_or_else(PoisonError::into_inner));
        let (known, encoder) = (HashMap::new(), Encoder::new());
        let (identity, last, fingerprint, is_abandoned) = (None, 0, None, false);
        let (is_identifying, used) = (false, Instant::now());
        Self {
            wire,
            driver,
            types,
            encoder,
            cancel,
            identity,
            is_identifying,
            known,
            last,
            fingerprint,
            is_abandoned,
            used,
            posted: Posted::default(),
        }
    }

    fn role_of(&self, query: &Query) -> Result<String, Failure> {
        let Some(roles) = &self.driver.roles else { return Ok(String::new()) };
        let role = roles.get(&*query.caller.authrole).cloned();
        role.ok_or_else(|| Failure::NoRole("the role of the session has no role in the database".to_owned()))
    }

    fn prepare<'q>(&self, query: &'q Query) -> Result<Prepared<'q>, Failure> {
        let Some(target) = own::<Target>(&query.procedure) else {
            return Err(Failure::Arguments("the procedure is of another database".to_owned()));
        };
        let (args, kwargs) = arguments(query)?;
        let role = self.role_of(query)?;
        match target {
            Target::Functions(functions, _) => self.prepare_function(query, functions, (args, kwargs), role),
            Target::Sql(numbered, shape) => {
                let mut unused: Vec<bool> = vec![true; kwargs.len()];
                let mut values = Vec::with_capacity(numbered.names.len());
                for (place, name) in numbered.names.iter().enumerate() {
                    let named = kwargs.iter().rposition(|(key, _)| key == name);
                    let datum = match named {
                        Some(index) if place < args.len() => {
                            let (place, name) = (place + 1, &kwargs[index].0);
                            let problem = format!("argument {place}: `{name}` is given by its name as well");
                            return Err(Failure::Arguments(problem));
                        }
                        Some(index) => {
                            unused[index] = false;
                            kwargs[index].1.clone()
                        }
                        None => args
                            .get(place)
                            .cloned()
                            .ok_or_else(|| Failure::Arguments(format!("the argument `{name}` is missing")))?,
                    };
                    values.push((name.clone(), Argument::One(datum, None)));
                }
                if let Some(index) = unused.iter().position(|unused| *unused) {
                    return Err(Failure::Arguments(format!("there is no parameter `{}`", kwargs[index].0)));
                }
                if args.len() > numbered.names.len() {
                    let place = numbered.names.len() + 1;
                    return Err(Failure::Arguments(format!("argument {place}: there are fewer parameters")));
                }
                let form = match shape {
                    Shape::Rows => Form::Rows,
                    Shape::Row => Form::Row,
                    Shape::Value => Form::Value,
                    Shape::Nothing => Form::Nothing,
                };
                let sql = numbered.sql.clone();
                let (is_read_only, is_procedure) = (false, false);
                Ok(Prepared { query, sql, arguments: values, form, is_read_only, is_procedure, role })
            }
        }
    }

    fn prepare_function<'q>(
        &self,
        query: &'q Query,
        functions: &[Function],
        (args, kwargs): (Vec<Datum<'q>>, Vec<(Cow<'q, str>, Datum<'q>)>),
        role: String,
    ) -> Result<Prepared<'q>, Failure> {
        let mut wrong = Vec::new();
        let mut best: Vec<(usize, &Function, super::functions::Assigned)> = Vec::new();
        for function in functions {
            match function.assign(&args, &kwargs) {
                Ok(assigned) => {
                    let likeness = function.likeness(&assigned, &args, &kwargs, &self.types);
                    best.push((likeness, function, assigned));
                }
                Err(problem) => wrong.push(problem),
            }
        }
        best.sort_by_key(|(likeness, ..)| std::cmp::Reverse(*likeness));
        let (function, assigned) = match best.as_slice() {
            [] if functions.len() == 1 => return Err(Failure::Arguments(wrong.concat())),
            [] => {
                let all: Vec<_> = functions.iter().map(Function::signature).collect();
                return Err(Failure::Arguments(format!("none of these fits: {}", all.join("; "))));
            }
            [(first, one, _), (second, other, _), ..] if first == second => {
                let (one, other) = (one.signature(), other.signature());
                return Err(Failure::Arguments(format!("it could be any of these: {one}; {other}")));
            }
            [(_, function, assigned), ..] => (*function, assigned.clone()),
        };
        let mut values = Vec::new();
        for (parameter, given) in function.parameters.iter().zip(&assigned.0) {
            let argument = match given {
                None => continue,
                Some(Given::Arg(place)) => Argument::One(args[*place].clone(), Some(parameter.type_oid)),
                Some(Given::Kwarg(index)) => {
                    Argument::One(kwargs[*index].1.clone(), Some(parameter.type_oid))
                }
                Some(Given::Rest(from)) => Argument::Rest(args[*from..].to_vec(), parameter.type_oid),
            };
            let name = match given {
                Some(Given::Arg(place)) if parameter.name.is_empty() => (place + 1).to_string(),
                _ => parameter.name.clone(),
            };
            values.push((name, argument));
        }
        let form = match function.returns {
            Returns::Nothing => Form::Nothing,
            Returns::Value => Form::Value,
            Returns::Record => Form::Kwargs,
            Returns::Values => Form::Values,
            Returns::Rows => Form::Rows,
        };
        let sql = function.sql(&assigned, &self.types);
        let (is_read_only, is_procedure) = (function.is_read_only, function.is_procedure);
        Ok(Prepared { query, sql, arguments: values, form, is_read_only, is_procedure, role })
    }

    /// The texts of the parameters; `types` are what the server says where nobody else did.
    fn texts(&mut self, prepared: &Prepared<'_>, types: &[u32]) -> Result<Vec<Option<String>>, Failure> {
        let mut texts = Vec::with_capacity(prepared.arguments.len());
        for (index, (name, argument)) in prepared.arguments.iter().enumerate() {
            let wrong = |problem: String| Failure::Arguments(format!("the argument `{name}`: {problem}"));
            let text = match argument {
                Argument::One(datum, type_oid) => {
                    let type_oid = type_oid.or_else(|| types.get(index).copied()).unwrap_or_default();
                    text_of(datum, type_oid, &self.types, &mut self.encoder).map_err(wrong)?
                }
                Argument::Rest(all, type_oid) => {
                    let list = list_of(all, *type_oid, &self.types, &mut self.encoder);
                    Some(list.map_err(wrong)?)
                }
            };
            texts.push(text);
        }
        Ok(texts)
    }

    /// Makes the server know a statement of its own.
    fn set_up(&mut self, sql: &str, deadline: Deadline) -> Result<String, Failure> {
        let statement = self.wire.prepare(sql, &[], deadline)?;
        Ok(statement.name)
    }

    fn run(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, Failure> {
        let latest = Arc::clone(&self.driver.types.lock().unwrap_or_else(PoisonError::into_inner));
        if !Arc::ptr_eq(&latest, &self.types) {
            // What is known may be of types that are others now.
            self.types = latest;
            self.forget()?;
        }
        let prepared = self.prepare(query)?;
        let deadline = deadline_of(results);
        match self.attempt(&prepared, results, deadline) {
            // What it gives has changed since it was prepared, or it was prepared for what is gone.
            Err(Failure::Server(server)) if matches!(server.sqlstate.as_str(), "0A000" | "26000") => {
                self.forget()?;
                self.attempt(&prepared, results, deadline)
            }
            result => result,
        }
    }

    /// The server forgets all that it was to know.
    fn forget(&mut self) -> Result<(), Failure> {
        let deadline = Deadline::after(GRACE);
        for known in std::mem::take(&mut self.known).into_values() {
            self.wire.requests().close_statement(&known.name)?;
        }
        self.wire.requests().sync();
        self.wire.send()?;
        self.read_group(deadline)
    }

    /// Reads to the end of a group, and fails with its error.
    fn read_group(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let mut failed = None;
        loop {
            match self.wire.next(deadline)? {
                Event::Error(error) => failed = Some(error),
                Event::Ready(_) => return failed.map_or(Ok(()), |error| Err(Failure::Server(error))),
                _ => {}
            }
        }
    }

    fn attempt(
        &mut self,
        prepared: &Prepared<'_>,
        results: &mut Results<'_>,
        deadline: Deadline,
    ) -> Result<OwnedPayload, Failure> {
        if prepared.is_procedure {
            return self.call_procedure(prepared, results, deadline);
        }
        let key = (prepared.sql.clone(), prepared.role.clone());
        if let Some(known) = self.known.get(&key).cloned() {
            let texts = self.texts(prepared, &known.parameters)?;
            self.identify(prepared, results, deadline)?;
            return self.execute(prepared, &known, &texts, results, deadline);
        }
        // The first time: prepared in the transaction and as the role that it will run as.
        if self.known.len() >= STATEMENTS_MAX {
            self.forget()?;
        }
        self.identify(prepared, results, deadline)?;
        let described = self.describe(&prepared.sql, deadline);
        let described = match described {
            Ok(known) if known.columns.iter().any(|column| self.types.is_structured(column.type_oid)) => {
                let wrapped = wrapped(&prepared.sql, &known.columns, &self.types);
                self.describe(&wrapped, deadline)
            }
            other => other,
        };
        let known = match described {
            Ok(known) => known,
            Err(failure) => return Err(self.end_group(failure, deadline)),
        };
        self.known.insert(key, known.clone());
        match self.texts(prepared, &known.parameters) {
            Ok(texts) => self.execute(prepared, &known, &texts, results, deadline),
            Err(failure) => Err(self.end_group(failure, deadline)),
        }
    }

    /// Puts who calls before what is called.
    fn identify(
        &mut self,
        prepared: &Prepared<'_>,
        results: &Results<'_>,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let name = match self.identity.clone() {
            Some(name) => name,
            None => {
                let sql = if self.driver.roles.is_some() { IDENTITY_AND_ROLE } else { IDENTITY };
                let name = self.set_up(sql, deadline)?;
                self.identity.insert(name).clone()
            }
        };
        let caller = &prepared.query.caller;
        let (session, timeout) = (caller.session.0.to_string(), timeout(results));
        let read_only = if prepared.is_read_only { "on" } else { "off" };
        let details = caller.details();
        let mut parameters: Vec<Parameter<'_>> = vec![
            self.driver.realm.as_str().into(),
            session.as_str().into(),
            (&*caller.authid).into(),
            (&*caller.authrole).into(),
            timeout.as_str().into(),
            read_only.into(),
            details.as_str().into(),
        ];
        if self.driver.roles.is_some() {
            parameters.push(prepared.role.as_str().into());
        }
        let requests = self.wire.requests();
        requests.bind("", &name, &parameters, ResultFormat::Text)?;
        requests.execute("", 0)?;
        self.is_identifying = true;
        Ok(())
    }

    /// Prepares a statement within the group that was begun, and waits for what the server says of it.
    fn describe(&mut self, sql: &str, deadline: Deadline) -> Result<Known, Failure> {
        self.last += 1;
        let name = format!("c{}", self.last);
        let requests = self.wire.requests();
        requests.parse(&name, sql, &[])?;
        requests.describe_statement(&name)?;
        requests.flush();
        self.wire.send()?;
        let (mut parameters, mut columns) = (Vec::new(), Vec::new());
        loop {
            match self.wire.next(deadline)? {
                Event::ParameterTypes(types) => parameters = types.iter().collect(),
                Event::Columns(found) => {
                    columns = found.iter().map(OwnedColumn::from).collect();
                    break;
                }
                Event::NoData => break,
                Event::Complete(_) => self.is_identifying = false,
                Event::Error(error) => return Err(Failure::Server(error)),
                _ => {}
            }
        }
        Ok(Known { name, parameters, columns: columns.into() })
    }

    /// Ends a group that failed, or that shall come to nothing, and tells of that failure.
    fn end_group(&mut self, failure: Failure, deadline: Deadline) -> Failure {
        if let Failure::Wire(error) = &failure
            && error.ends_connection()
        {
            return failure;
        }
        // What was done so far is to be undone as well: an error within the group does that.
        let requests = self.wire.requests();
        let undo = requests.parse("", "rollback_what_came_before_this", &[]);
        requests.sync();
        if undo.is_err() || self.wire.send().is_err() {
            return failure;
        }
        match self.read_group(deadline) {
            Err(Failure::Wire(error)) => Failure::Wire(error),
            _ => failure,
        }
    }

    /// Sends the call behind who calls, and reads what comes of it.
    fn execute(
        &mut self,
        prepared: &Prepared<'_>,
        known: &Known,
        texts: &[Option<String>],
        results: &mut Results<'_>,
        deadline: Deadline,
    ) -> Result<OwnedPayload, Failure> {
        let parameters: Vec<_> = texts.iter().map(parameter_of).collect();
        if prepared.form == Form::Value && self.is_cursor(known) {
            return self.fetch(prepared, known, &parameters, results, deadline);
        }
        // Rows are asked for in parts, so that there is an end of them wherever it is wanted.
        let rows_max = if prepared.form.is_many() { ROWS_A_PART } else { 0 };
        let requests = self.wire.requests();
        requests.bind("c", &known.name, &parameters, ResultFormat::Text)?;
        requests.execute("c", rows_max)?;
        if prepared.form.is_many() {
            requests.flush()
        } else {
            requests.sync()
        }
        self.wire.send()?;
        let mut writer = RowWriter::new(prepared, &known.columns, self.driver.result_bytes_max);
        let portal = prepared.form.is_many().then_some("c");
        let read = self.read(&mut writer, portal, results, deadline);
        match read {
            Ok(()) => Ok(writer.finish()),
            Err(failure) => Err(failure),
        }
    }

    /// Whether what it gives is where its rows are to be fetched.
    fn is_cursor(&self, known: &Known) -> bool {
        matches!(&*known.columns, [column] if self.types.base(column.type_oid).0 == oid::REFCURSOR)
    }

    /// Reads what comes of a call; of a portal, where there is one, in parts.
    fn read(
        &mut self,
        writer: &mut RowWriter<'_>,
        portal: Option<&str>,
        results: &mut Results<'_>,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let (mut failed, mut first) = (None, std::mem::take(&mut self.is_identifying));
        let mut is_open = portal.is_some();
        loop {
            match self.wire.next(deadline)? {
                Event::Row(row) => {
                    // The first one is of who calls.
                    if first || failed.is_some() {
                        continue;
                    }
                    if let Err(failure) = writer.row(row, &self.types) {
                        failed = Some(failure);
                    }
                }
                Event::RowTooLarge { .. } => failed = Some(Failure::TooLong),
                Event::Complete(tag) => {
                    if first {
                        first = false;
                        continue;
                    }
                    writer.changed = Event::rows(tag);
                    if is_open {
                        is_open = false;
                        if let Some(failure) = failed.take() {
                            return Err(self.end_group(failure, deadline));
                        }
                        self.wire.requests().sync();
                        self.wire.send()?;
                    }
                }
                Event::Suspended => {
                    let ended = match failed.take() {
                        Some(failure) => Err(failure),
                        None => writer.part(results),
                    };
                    if let Err(failure) = ended {
                        return Err(self.end_group(failure, deadline));
                    }
                    let requests = self.wire.requests();
                    requests.execute(portal.unwrap_or_default(), ROWS_A_PART)?;
                    requests.flush();
                    self.wire.send()?;
                }
                Event::Error(error) => {
                    failed = Some(Failure::Server(error));
                    if is_open {
                        is_open = false;
                        self.wire.requests().sync();
                        self.wire.send()?;
                    }
                }
                Event::Ready(_) => return failed.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }

    /// CALL, outside of a transaction of ours: who calls holds for the session until it is over.
    fn call_procedure(
        &mut self,
        prepared: &Prepared<'_>,
        results: &mut Results<'_>,
        deadline: Deadline,
    ) -> Result<OwnedPayload, Failure> {
        let texts = self.texts(prepared, &[])?;
        let caller = &prepared.query.caller;
        let (session, timeout) = (caller.session.0.to_string(), timeout(results));
        let role = if prepared.role.is_empty() { "none" } else { &prepared.role };
        let details = caller.details();
        let identity: [Parameter<'_>; 7] = [
            self.driver.realm.as_str().into(),
            session.as_str().into(),
            (&*caller.authid).into(),
            (&*caller.authrole).into(),
            timeout.as_str().into(),
            details.as_str().into(),
            role.into(),
        ];
        let nobody: [Parameter<'_>; 7] =
            ["".into(), "".into(), "".into(), "".into(), "0".into(), "".into(), "none".into()];
        let parameters: Vec<_> = texts.iter().map(parameter_of).collect();
        let requests = self.wire.requests();
        requests.parse("", SESSION_IDENTITY, &[])?;
        requests.bind("", "", &identity, ResultFormat::Text)?;
        requests.execute("", 0)?;
        requests.sync();
        requests.parse("", &prepared.sql, &[])?;
        requests.bind("", "", &parameters, ResultFormat::Text)?;
        requests.describe_portal("")?;
        requests.execute("", 0)?;
        requests.sync();
        requests.parse("", SESSION_IDENTITY, &[])?;
        requests.bind("", "", &nobody, ResultFormat::Text)?;
        requests.execute("", 0)?;
        requests.sync();
        self.wire.send()?;
        let identified = self.read_group(deadline);
        let (mut failed, mut payload) = (identified.err(), None);
        let mut columns: Vec<OwnedColumn> = Vec::new();
        let types = Arc::clone(&self.types);
        loop {
            match self.wire.next(deadline)? {
                Event::Columns(found) => columns = found.iter().map(OwnedColumn::from).collect(),
                Event::Row(row) => {
                    let mut writer = RowWriter::new(prepared, &columns, self.driver.result_bytes_max);
                    match writer.row(row, &types) {
                        Ok(()) => payload = Some(writer.finish()),
                        Err(failure) => failed = Some(failure),
                    }
                }
                Event::RowTooLarge { .. } => failed = Some(Failure::TooLong),
                Event::Error(error) => failed = failed.or(Some(Failure::Server(error))),
                Event::Ready(_) => break,
                _ => {}
            }
        }
        self.read_group(deadline)?;
        let nothing = || OwnedPayload::new(prepared.query.serializer, Vec::new(), Vec::new());
        failed.map_or_else(|| Ok(payload.unwrap_or_else(nothing)), Err)
    }
}

/// When the connection of a call is given up.
fn deadline_of(results: &Results<'_>) -> Deadline {
    results.time_left().map_or_else(|| Deadline::after(FOR_EVER), |left| Deadline::after(left + GRACE))
}

/// In milliseconds, for the server; 0 is none.
fn timeout(results: &Results<'_>) -> String {
    results.time_left().map_or(0, |left| left.as_millis().max(1)).to_string()
}

fn parameter_of(text: &Option<String>) -> Parameter<'_> {
    text.as_deref().map_or(Parameter::Null, Parameter::from)
}

/// The same rows, with JSON for what has fields.
fn wrapped(sql: &str, columns: &[OwnedColumn], types: &Types) -> String {
    let names: Vec<_> = (1..=columns.len()).map(|number| format!("c{number}")).collect();
    let list = columns.iter().zip(&names).map(|(column, name)| {
        let own = super::functions::quoted(&column.name);
        if types.is_structured(column.type_oid) {
            format!("to_jsonb(r.{name}) as {own}")
        } else {
            format!("r.{name} as {own}")
        }
    });
    format!("select {} from ({sql}) as r({})", list.collect::<Vec<_>>().join(", "), names.join(", "))
}

fn arguments(query: &Query) -> Result<(Vec<Datum<'_>>, Named<'_>), Failure> {
    arguments::arguments(query, ARGUMENTS_MAX).map_err(|problem| Failure::Arguments(problem.to_owned()))
}

/// Writes rows as the result of a call.
struct RowWriter<'q> {
    query: &'q Query,
    form: Form,
    columns: &'q [OwnedColumn],
    bytes_max: usize,
    args: Composer,
    /// Behind the first row of those that have one.
    is_done: bool,
    kwargs: Option<OwnedPayload>,
    in_part: u32,
    count: u64,
    /// How many rows were changed, where there are none to show.
    changed: Option<u64>,
}

impl<'q> RowWriter<'q> {
    fn new(prepared: &Prepared<'q>, columns: &'q [OwnedColumn], bytes_max: usize) -> Self {
        Self::of(prepared.query, prepared.form, columns, bytes_max)
    }

    fn of(query: &'q Query, form: Form, columns: &'q [OwnedColumn], bytes_max: usize) -> Self {
        let mut args = Composer::new(query.serializer);
        if form.is_many() {
            args.open_list();
            args.open_list();
        }
        let (is_done, kwargs, in_part, count, changed) = (false, None, 0, 0, None);
        Self { query, form, columns, bytes_max, args, is_done, kwargs, in_part, count, changed }
    }

    fn row(&mut self, row: wire::Row<'_>, types: &Types) -> Result<(), Failure> {
        if self.is_done {
            return Ok(());
        }
        match self.form {
            Form::Nothing => self.is_done = true,
            Form::Rows => self.fields(row, types)?,
            Form::Values => self.value(row, 0, types)?,
            Form::Value | Form::Row => {
                self.args.open_list();
                if self.form == Form::Row {
                    self.fields(row, types)?
                } else {
                    self.value(row, 0, types)?
                }
                self.args.close();
                self.is_done = true;
            }
            Form::Kwargs => {
                self.fields(row, types)?;
                let map = self.args.take();
                self.kwargs = Some(OwnedPayload::new(self.query.serializer, Vec::new(), map));
                self.is_done = true;
            }
        }
        (self.in_part, self.count) = (self.in_part + 1, self.count + 1);
        if self.args.len() > self.bytes_max { Err(Failure::TooLong) } else { Ok(()) }
    }

    fn fields(&mut self, row: wire::Row<'_>, types: &Types) -> Result<(), Failure> {
        self.args.open_map();
        for (index, column) in self.columns.iter().enumerate() {
            self.args.key(&column.name);
            self.value(row, index, types)?;
        }
        self.args.close();
        Ok(())
    }

    fn value(&mut self, row: wire::Row<'_>, index: usize, types: &Types) -> Result<(), Failure> {
        let type_oid = self.columns.get(index).map_or(0, |column| column.type_oid);
        match row.value(index) {
            None => self.args.null(),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => write(&mut self.args, text, type_oid, types),
                Err(_) => self.args.bytes(bytes),
            },
        }
        Ok(())
    }

    /// So many rows have come, and there are more: a part for who wants parts, if there is enough for one.
    fn part(&mut self, results: &mut Results<'_>) -> Result<(), Failure> {
        if results.is_cancelled() {
            return Err(Failure::Stopped(crate::database::Stopped::Cancelled));
        }
        if !self.query.receive_progress || self.in_part < ROWS_A_PART && self.args.len() < BYTES_A_PART {
            return Ok(());
        }
        self.in_part = 0;
        self.args.close();
        self.args.close();
        let part = OwnedPayload::new(self.query.serializer, self.args.take(), Vec::new());
        self.args.open_list();
        self.args.open_list();
        results.part(part).map_err(Failure::Stopped)
    }

    fn finish(mut self) -> OwnedPayload {
        let serializer = self.query.serializer;
        if let Some(kwargs) = self.kwargs {
            return kwargs;
        }
        let mut kwargs = Composer::new(serializer);
        match self.form {
            Form::Nothing | Form::Kwargs => {}
            // SQL without rows tells how many it changed.
            Form::Rows | Form::Values | Form::Value if self.columns.is_empty() => {
                let mut args = Composer::new(serializer);
                args.open_list();
                args.unsigned(self.changed.unwrap_or_default());
                args.close();
                return OwnedPayload::new(serializer, args.finish(), Vec::new());
            }
            Form::Rows | Form::Values => {
                self.args.close();
                self.args.close();
                if self.query.receive_progress {
                    kwargs.open_map();
                    kwargs.key("rows");
                    kwargs.unsigned(self.count);
                    kwargs.close();
                }
            }
            Form::Value | Form::Row if !self.is_done => {
                self.args.open_list();
                self.args.null();
                self.args.close();
            }
            Form::Value | Form::Row => {}
        }
        OwnedPayload::new(serializer, self.args.take(), kwargs.finish())
    }
}

impl Connection for Open {
    fn call(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, CallError> {
        let began = Instant::now();
        let result = self.run(query, results);
        self.used = Instant::now();
        if let Some(pace) = own::<Target>(&query.procedure).and_then(Target::pace) {
            pace.took(self.used.saturating_duration_since(began));
        }
        result.map_err(|failure| {
            if matches!(failure, Failure::Wire(wire::Error::TimedOut { .. })) {
                // What is still to come of it would be taken for what comes next.
                self.is_abandoned = true;
            }
            call_error(failure, query, results)
        })
    }

    fn is_alive(&mut self) -> bool {
        // One that was used a moment ago is as good as it was.
        self.used.elapsed() < IDLE || self.wire.hear().is_ok()
    }

    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        Some(self)
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.cancel) as Arc<dyn Cancel>
    }

    fn is_broken(&self) -> bool {
        self.is_abandoned || self.wire.is_over() || self.wire.is_waiting()
    }

    fn discover(&mut self) -> Result<Discovered, Problem> {
        self.fingerprint = Some(self.fingerprint()?);
        self.look_for_procedures()
    }

    fn has_changed(&mut self) -> Result<bool, Problem> {
        let fingerprint = self.fingerprint()?;
        Ok(self.fingerprint.as_deref() != Some(&fingerprint))
    }

    fn backlog(&mut self) -> Result<Option<Backlog>, Problem> {
        if self.driver.publishing.is_none() {
            return Ok(None);
        }
        let mut backlog = Backlog::default();
        self.rows(BACKLOG, &[], |row| {
            let number =
                |column: usize| row.get(column).copied().flatten().and_then(|text| text.parse().ok());
            backlog.events = number(0).unwrap_or_default();
            backlog.oldest_ms = number(1).unwrap_or_default();
        })?;
        Ok(Some(backlog))
    }
}
