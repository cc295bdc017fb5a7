//! Calls on one connection: its sessions, what is bound, what comes of it, and how a call is stopped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oracle::sql_type::RefCursor;
use oracle::{Statement, StatementType};

use super::driver::identity;
use super::errors::{self, Failure, call_error, problem};
use super::readable::{Known, Readable};
use super::results::{Output, Writer, name_of};
use super::subprograms::{Block, Given, IDENTITY, Kind, Parameter, Subprogram, quoted};
use super::values::{self, Bound, Cell};
use super::{CALL_MIN, LOOK, Oracle, Target};
use crate::database::arguments::{self, Named};
use crate::database::{
    Backlog, CallError, Cancel, Connection, Discovered, Problem, Results, Shape, Stopped, own,
};
use crate::router::database::Query;
use crate::wamp::codec::{Datum, OwnedPayload};

/// The most arguments of a call: a statement of Oracle has no more placeholders.
const ARGUMENTS_MAX: usize = 65_535;

/// Rows that are fetched at a time. Each column has room for that many of its longest values.
const ROWS_A_FETCH: u32 = 100;

/// Who has been idle for so long is asked whether it is still there, and for how long.
const IDLE: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(2);

/// Sessions of one connection: one for each user of the database that calls run as. The one used longest ago goes first.
const SESSIONS_MAX: usize = 8;

/// What a placeholder of a block of the configuration is for, by the beginning of its name.
const OUT: &str = "OUT_";
const CURSOR: &str = "CURSOR_";

/// What the server is told of a call for its own views is no longer than that.
const TOLD_BYTES_MAX: usize = 64;

/// Stops what runs on a connection.
#[derive(Default)]
pub(super) struct Break {
    state: Mutex<Breaking>,
}

/// What runs, and how often it was told to stop.
#[derive(Default)]
struct Breaking {
    session: Option<Arc<oracle::Connection>>,
    count: u32,
}

impl Break {
    fn state(&self) -> MutexGuard<'_, Breaking> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, session: &Arc<oracle::Connection>) {
        *self.state() = Breaking { session: Some(Arc::clone(session)), count: 0 };
    }

    /// How often it was broken. From here on it is not: a break that comes while nothing runs would hit what runs next.
    fn end(&self) -> u32 {
        std::mem::take(&mut *self.state()).count
    }
}

impl Cancel for Break {
    fn cancel(&self) {
        // Held while it is sent, so that the end of the call waits for that.
        let mut state = self.state();
        let Some(session) = &state.session else { return };
        let sent = session.break_execution();
        // One that could not be sent is asked for again.
        state.count += u32::from(sent.is_ok());
    }
}

/// A session of the server, as one of its users.
struct Session {
    /// Empty: as who connects.
    user: String,
    connection: Arc<oracle::Connection>,
    used: Instant,
}

/// An open connection.
pub(super) struct Open {
    driver: Oracle,
    sessions: Vec<Session>,
    breaks: Arc<Break>,
    is_broken: bool,
    pub(super) fingerprint: Option<String>,
}

impl Open {
    pub(super) fn new(driver: Oracle, connection: oracle::Connection) -> Self {
        let session = Session { user: String::new(), connection: Arc::new(connection), used: Instant::now() };
        let (breaks, is_broken, fingerprint) = (Arc::default(), false, None);
        Self { driver, sessions: vec![session], breaks, is_broken, fingerprint }
    }

    /// The session of who connects, with the time that looking around may take.
    pub(super) fn base(&mut self) -> Result<Arc<oracle::Connection>, Problem> {
        let connection = self.session("").map_err(|failure| match failure {
            Failure::NoSession(problem) => problem,
            other => Problem(format!("{other:?}")),
        })?;
        connection.set_call_timeout(Some(LOOK)).map_err(|error| problem(&error))?;
        Ok(connection)
    }

    pub(super) fn driver(&self) -> &Oracle {
        &self.driver
    }

    /// Whether the packages are there that are told who calls; it is asked if nobody has asked before.
    pub(super) fn has_identity(&mut self) -> Result<bool, Problem> {
        match self.driver.identity.load(Ordering::Acquire) {
            identity::UNKNOWN => self.look_for_identity(),
            known => Ok(known == identity::THERE),
        }
    }

    /// Asks, for all connections.
    pub(super) fn look_for_identity(&mut self) -> Result<bool, Problem> {
        let connection = self.base()?;
        let sql = "select count(*) from all_objects
                   where owner = :owner and object_name = 'WAMP_CTX' and object_type = 'PACKAGE'";
        let count: i64 =
            connection.query_row_as(sql, &[&self.driver.owner]).map_err(|error| problem(&error))?;
        let known = if count > 0 { identity::THERE } else { identity::MISSING };
        self.driver.identity.store(known, Ordering::Release);
        Ok(count > 0)
    }

    fn session(&mut self, user: &str) -> Result<Arc<oracle::Connection>, Failure> {
        let now = Instant::now();
        if let Some(session) = self.sessions.iter_mut().find(|session| session.user == user) {
            session.used = now;
            return Ok(Arc::clone(&session.connection));
        }
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().enumerate().min_by_key(|(_, session)| session.used);
            if let Some((oldest, _)) = oldest {
                self.sessions.swap_remove(oldest);
            }
        }
        let connection = Arc::new(self.driver.open(user).map_err(Failure::NoSession)?);
        let session = Session { user: user.to_owned(), connection: Arc::clone(&connection), used: now };
        self.sessions.push(session);
        Ok(connection)
    }

    fn user_of(&self, query: &Query) -> Result<String, Failure> {
        let Some(roles) = &self.driver.roles else { return Ok(String::new()) };
        roles.get(&*query.caller.authrole).cloned().ok_or(Failure::NoRole)
    }

    fn run(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, Failure> {
        let Some(target) = own::<Target>(&query.procedure) else {
            return Err(Failure::Arguments("the procedure is of another database".to_owned()));
        };
        let read = arguments::arguments(query, ARGUMENTS_MAX);
        let (args, kwargs) = read.map_err(|problem| Failure::Arguments(problem.to_owned()))?;
        let user = self.user_of(query)?;
        let has_identity = self.has_identity().map_err(Failure::NoSession)?;
        let session = self.session(&user)?;
        let call = Call {
            driver: &self.driver,
            session: &session,
            query,
            identity: has_identity.then_some(&*self.driver.owner),
            args,
            kwargs,
        };
        self.breaks.begin(&session);
        let result = call.prepare(results).and_then(|()| match call.attempt(target, results) {
            Err(Failure::Oracle(error)) if errors::is_discarded(&error) => call.attempt(target, results),
            result => result,
        });
        let breaks = self.breaks.end();
        let is_lost = self.settle(&session, &result, breaks);
        if is_lost {
            self.is_broken = true;
        }
        result
    }

    /// Makes the session fit for the next call; whether it is not.
    fn settle(
        &self,
        session: &oracle::Connection,
        result: &Result<OwnedPayload, Failure>,
        breaks: u32,
    ) -> bool {
        let was_broken = matches!(result, Err(Failure::Oracle(error)) if errors::is_break(error));
        // A break that nothing ended by may still be on its way: it would end the next call. So the session goes.
        if breaks > u32::from(was_broken) {
            return true;
        }
        match result {
            Ok(_) | Err(Failure::Arguments(_) | Failure::NoRole | Failure::NoSession(_)) => false,
            Err(Failure::Oracle(error)) if errors::is_lost(error) => true,
            // Nobody waits for it any more, but not for ever.
            Err(_) => session.set_call_timeout(Some(PING)).and_then(|()| session.rollback()).is_err(),
        }
    }
}

/// One call on one session.
struct Call<'c> {
    driver: &'c Oracle,
    session: &'c oracle::Connection,
    query: &'c Query,
    /// The schema whose `wamp_ctx` is told who calls.
    identity: Option<&'c str>,
    args: Vec<Datum<'c>>,
    kwargs: Named<'c>,
}

impl Call<'_> {
    /// How long it may still take holds for the next message to the server.
    fn limit(&self, results: &Results<'_>) -> Result<(), Failure> {
        if results.is_cancelled() {
            return Err(Failure::Stopped(Stopped::Cancelled));
        }
        let left = results.time_left();
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Failure::Stopped(Stopped::TimedOut));
        }
        Ok(self.session.set_call_timeout(left.map(|left| left.max(CALL_MIN)))?)
    }

    /// What the server's own views show of it goes along with the next message.
    fn prepare(&self, results: &Results<'_>) -> Result<(), Failure> {
        self.limit(results)?;
        self.session.set_client_identifier(cut(&self.query.caller.authid))?;
        self.session.set_action(cut(&self.query.procedure.uri))?;
        Ok(())
    }

    fn attempt(&self, target: &Target, results: &mut Results<'_>) -> Result<OwnedPayload, Failure> {
        match target {
            Target::Subprograms(subprograms) => self.call_subprogram(subprograms, results),
            Target::Sql(sql, shape, known) => self.run_sql(sql, *shape, known, results),
        }
    }

    fn build(&self, sql: &str) -> Result<Statement, Failure> {
        Ok(self.session.statement(sql).fetch_array_size(ROWS_A_FETCH).lob_locator().build()?)
    }

    fn bind_identity(&self, statement: &mut Statement) -> Result<(), Failure> {
        let caller = &self.query.caller;
        let (session, details) = (caller.session.0.to_string(), caller.details());
        let texts = [&*self.driver.realm, &session, &caller.authid, &caller.authrole, &details];
        for (name, text) in IDENTITY.split(", ").zip(texts) {
            let bound =
                values::bound(&Datum::Text(text.into()), Kind::Text, false).map_err(Failure::Arguments)?;
            statement.bind(&name[1..], &bound)?;
        }
        Ok(())
    }

    fn call_subprogram(
        &self,
        subprograms: &[Subprogram],
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let (subprogram, given) = self.choose(subprograms)?;
        let bounds: Vec<_> = subprogram
            .parameters
            .iter()
            .zip(&given)
            .map(|(parameter, given)| given.map(|given| self.value_of(parameter, given)).transpose())
            .collect::<Result<_, Failure>>()?;
        let is_text = |index: usize| matches!(bounds[index], Some(Bound::Text(..)));
        let block = subprogram.block(&given, self.identity, is_text);
        let mut statement = self.build(&block.sql)?;
        if self.identity.is_some() {
            self.bind_identity(&mut statement)?;
        }
        for bind in &block.binds {
            let room = values::room(bind.kind);
            let value = bind.parameter.and_then(|index| bounds[index].as_ref());
            statement.bind(&*bind.placeholder(), value.unwrap_or(&room))?;
        }
        self.limit(results)?;
        statement.execute(&[])?;
        self.finish_block(&statement, subprogram, &block, results)
    }

    fn value_of(&self, parameter: &Parameter, given: Given) -> Result<Bound, Failure> {
        let (datum, name) = match given {
            Given::Arg(place) => (&self.args[place], (place + 1).to_string()),
            Given::Kwarg(index) => (&self.kwargs[index].1, parameter.name.to_lowercase()),
        };
        values::bound(datum, parameter.kind, parameter.is_out)
            .map_err(|problem| Failure::Arguments(format!("the argument `{name}`: {problem}")))
    }

    fn choose<'s>(
        &self,
        subprograms: &'s [Subprogram],
    ) -> Result<(&'s Subprogram, Vec<Option<Given>>), Failure> {
        let mut wrong = Vec::new();
        let mut best = Vec::new();
        for subprogram in subprograms {
            match subprogram.assign(&self.args, &self.kwargs) {
                Ok(given) => {
                    let likeness = subprogram.likeness(&given, &self.args, &self.kwargs);
                    best.push((likeness, subprogram, given));
                }
                Err(problem) => wrong.push(problem),
            }
        }
        best.sort_by_key(|(likeness, ..)| std::cmp::Reverse(*likeness));
        match best.as_slice() {
            [] if subprograms.len() == 1 => Err(Failure::Arguments(wrong.concat())),
            [] => {
                let all: Vec<_> = subprograms.iter().map(Subprogram::signature).collect();
                Err(Failure::Arguments(format!("none of these fits: {}", all.join("; "))))
            }
            [(first, one, _), (second, other, _), ..] if first == second => {
                let (one, other) = (one.signature(), other.signature());
                Err(Failure::Arguments(format!("it could be any of these: {one}; {other}")))
            }
            [(_, subprogram, given), ..] => Ok((*subprogram, given.clone())),
        }
    }

    fn finish_block(
        &self,
        statement: &Statement,
        subprogram: &Subprogram,
        block: &Block,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let (mut returned, mut outputs) = (None, Vec::new());
        for bind in block.binds.iter().filter(|bind| bind.is_out) {
            let cell: Cell = statement.bind_value(&*bind.placeholder())?;
            match bind.parameter {
                None => returned = Some((Some(bind.kind), cell)),
                Some(index) => {
                    let name = name_of(&subprogram.parameters[index].name);
                    outputs.push(Output { name, kind: Some(bind.kind), cell });
                }
            }
        }
        let cursors = implicit_results(statement)?;
        let must_commit = !block.commits || !cursors.is_empty();
        let payload = self.outputs(returned, outputs, cursors, results)?;
        if must_commit {
            self.limit(results)?;
            self.session.commit()?;
        }
        Ok(payload)
    }

    fn outputs(
        &self,
        returned: Option<(Option<Kind>, Cell)>,
        outputs: Vec<Output>,
        cursors: Vec<RefCursor>,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let writer = self.writer(&[]);
        let mut rows = 0;
        writer
            .outputs(returned, outputs, cursors, results, &mut |results| self.before_row(results, &mut rows))
    }

    /// `json`: columns whose texts are JSON, beside those that the configuration names.
    fn writer<'w>(&'w self, json: &'w [String]) -> Writer<'w> {
        let (numbers, bytes_max) = (self.driver.numbers, self.driver.result_bytes_max);
        Writer::new(self.query, numbers, bytes_max, [&self.driver.json_columns, json])
    }

    /// The server is asked every so many rows.
    fn before_row(&self, results: &Results<'_>, rows: &mut u32) -> Result<(), Failure> {
        if (*rows).is_multiple_of(ROWS_A_FETCH) {
            self.limit(results)?;
        } else if results.is_cancelled() {
            return Err(Failure::Stopped(Stopped::Cancelled));
        }
        *rows = rows.wrapping_add(1);
        Ok(())
    }

    /// SQL or PL/SQL of the configuration.
    fn run_sql(
        &self,
        sql: &str,
        shape: Shape,
        known: &Known,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let readable = known.get();
        let (text, json) = readable.as_ref().map_or((sql, &[][..]), |it| (&*it.sql, &*it.json));
        let mut statement = self.build(text)?;
        let outs = self.bind_sql(&mut statement)?;
        if let Some(owner) = self.identity {
            // What stands in the configuration is run as it stands there: who calls is said before it.
            let set = format!("begin {}.wamp_ctx.set({IDENTITY}); end;", quoted(owner));
            let mut before = self.build(&set)?;
            self.bind_identity(&mut before)?;
            self.limit(results)?;
            before.execute(&[])?;
        }
        self.limit(results)?;
        let writer = self.writer(&[]);
        let payload = if statement.is_query() {
            match self.query(&mut statement, json, shape, results) {
                Err(Failure::Oracle(error)) if errors::is_json_column(&error) => {
                    self.query_readable(sql, shape, known, results)?
                }
                ended => ended.inspect_err(|_| known.forget())?,
            }
        } else {
            statement.execute(&[])?;
            let outputs = outs.iter().map(|(place, name)| {
                let cell = statement.bind_value(&**place)?;
                Ok(Output { name: name.clone(), kind: None, cell })
            });
            let outputs = outputs.collect::<Result<Vec<_>, oracle::Error>>()?;
            let cursors = if statement.is_plsql() { implicit_results(&statement)? } else { Vec::new() };
            match shape {
                Shape::Nothing => writer.nothing(),
                _ if !outputs.is_empty() || !cursors.is_empty() => {
                    self.outputs(None, outputs, cursors, results)?
                }
                Shape::Rows | Shape::Value if statement.is_dml() => writer.count(statement.row_count()?),
                _ => writer.nothing(),
            }
        };
        self.limit(results)?;
        self.session.commit()?;
        Ok(payload)
    }

    fn query(
        &self,
        statement: &mut Statement,
        json: &[String],
        shape: Shape,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let writer = self.writer(json);
        let mut rows = statement.query(&[])?;
        let mut count = 0;
        match shape {
            Shape::Rows => {
                writer.rows(&mut rows, results, &mut |results| self.before_row(results, &mut count))
            }
            shape => writer.first(&mut rows, shape),
        }
    }

    /// A query with columns of type JSON, which only then are known to be there.
    fn query_readable(
        &self,
        sql: &str,
        shape: Shape,
        known: &Known,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        self.limit(results)?;
        let readable = Arc::new(Readable::ask(self.session, sql)?);
        let mut statement = self.build(&readable.sql)?;
        self.bind_sql(&mut statement)?;
        self.limit(results)?;
        let payload = self.query(&mut statement, &readable.json, shape, results)?;
        known.set(readable);
        Ok(payload)
    }

    /// Gives placeholders the arguments of their names, or else those of their places; those that come out, by their
    /// placeholders, with the names that they come out by.
    fn bind_sql(&self, statement: &mut Statement) -> Result<Vec<(String, String)>, Failure> {
        let is_block = statement.is_plsql() || statement.statement_type() == StatementType::Call;
        let names: Vec<String> = statement.bind_names().into_iter().map(str::to_owned).collect();
        let (mut outs, mut place) = (Vec::new(), 0);
        let mut unused = vec![true; self.kwargs.len()];
        for name in &names {
            let out = [(OUT, Kind::Text), (CURSOR, Kind::Cursor)].into_iter();
            let mut out = out.filter(|_| is_block);
            if let Some((prefix, kind)) = out.find(|(prefix, _)| name.starts_with(prefix)) {
                statement.bind(&**name, &values::room(kind))?;
                outs.push((name.clone(), name_of(&name[prefix.len()..])));
                continue;
            }
            let named = self.kwargs.iter().rposition(|(key, _)| key.to_uppercase() == *name);
            let datum = match named {
                Some(index) if place < self.args.len() => {
                    let (place, name) = (place + 1, &self.kwargs[index].0);
                    let problem = format!("argument {place}: `{name}` is given by its name as well");
                    return Err(Failure::Arguments(problem));
                }
                Some(index) => {
                    unused[index] = false;
                    &self.kwargs[index].1
                }
                None => self.args.get(place).ok_or_else(|| {
                    Failure::Arguments(format!("the argument `{}` is missing", name.to_lowercase()))
                })?,
            };
            place += 1;
            let bound = values::bound_to_sql(datum, is_block).map_err(|problem| {
                Failure::Arguments(format!("the argument `{}`: {problem}", name.to_lowercase()))
            })?;
            statement.bind(&**name, &bound)?;
        }
        if let Some(index) = unused.iter().position(|unused| *unused) {
            return Err(Failure::Arguments(format!("there is no parameter `{}`", self.kwargs[index].0)));
        }
        if self.args.len() > place {
            return Err(Failure::Arguments(format!("argument {}: there are fewer parameters", place + 1)));
        }
        Ok(outs)
    }
}

/// What `dbms_sql.return_result` gave.
fn implicit_results(statement: &Statement) -> Result<Vec<RefCursor>, Failure> {
    let mut cursors = Vec::new();
    while let Some(cursor) = statement.implicit_result()? {
        cursors.push(cursor);
    }
    Ok(cursors)
}

/// As much of a text as the server takes.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TOLD_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

impl Connection for Open {
    fn call(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, CallError> {
        self.run(query, results).map_err(|failure| call_error(&failure, query, results))
    }

    fn is_alive(&mut self) -> bool {
        // The session that is used next is not known here: all of those that were idle are asked.
        let now = Instant::now();
        self.sessions.retain_mut(|session| {
            if now.duration_since(session.used) < IDLE {
                return true;
            }
            session.used = now;
            let connection = &session.connection;
            connection.set_call_timeout(Some(PING)).and_then(|()| connection.ping()).is_ok()
        });
        !self.sessions.is_empty()
    }

    fn canceller(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.breaks) as Arc<dyn Cancel>
    }

    fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn discover(&mut self) -> Result<Discovered, Problem> {
        self.look_for_procedures()
    }

    fn has_changed(&mut self) -> Result<bool, Problem> {
        let fingerprint = self.read_fingerprint()?;
        Ok(self.fingerprint.as_deref() != Some(&fingerprint))
    }

    fn backlog(&mut self) -> Result<Option<Backlog>, Problem> {
        if self.driver.publishing.is_none() {
            return Ok(None);
        }
        let connection = self.base()?;
        super::outbox::backlog(&connection, &self.driver.owner).map(Some)
    }
}
