//! The inside of a PostgreSQL database: what `wamp.subscribe` and `wamp.call_async` have noted, and the functions that get
//! events and answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Postgres;
use super::wire::{self, Connection, Deadline, Event as Reply, Parameter, ResultFormat, Statement};
use crate::database::Problem;
use crate::database::inside::{
    Answer, DeclaredSubscription, Event, Failure, Function, Inside, RunError, Runner, Wanted, Watch,
};
use crate::wamp::MatchPolicy;

/// How long it may take to connect, and what is not a function's doing.
const PATIENCE: Duration = Duration::from_secs(30);
/// The server keeps the time of functions; this long after, the connection is given up.
const GRACE: Duration = Duration::from_secs(5);
/// Who has said nothing for so long is asked whether it is still there.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// Statements that a connection keeps.
const STATEMENTS_MAX: usize = 256;

/// Where it is, and what is to be said to it.
#[derive(Clone, Debug)]
pub struct PostgresInside {
    /// As that of calls.
    pub driver: Postgres,
    /// How long a function may take.
    pub timeout: Duration,
    /// Those of the configuration.
    pub subscriptions: Vec<DeclaredSubscription>,
}

/// For the transaction alone. Whoever runs is no session.
const IDENTITY: &str = "select set_config('wamp.realm', $1, true), set_config('statement_timeout', $2, true)";

/// How many events led to what is published from here on.
const DEPTH: &str = "select set_config('wamp.details', $1, true)";

const SUBSCRIPTIONS: &str =
    "select s.id, s.topic, s.match, s.function, format('%I.%I', n.nspname, p.proname), p.pronargs
    from wamp.subscription s
    left join pg_catalog.pg_proc p on p.oid = pg_catalog.to_regprocedure(s.function)
    left join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    order by s.id";

const FUNCTION: &str = "select format('%I.%I', n.nspname, p.proname), p.pronargs
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid = pg_catalog.to_regprocedure($1)";

const FINISH: &str = "select wamp.finish_call($1, $2::jsonb, $3::jsonb, $4)";
const BURY: &str = "select wamp.bury($1, $2, $3, $4, $5, $6, $7)";

/// A function of the configuration, by its name alone, where it is the only one, or with the types of its parameters; and whether
/// an event can call it.
fn declared_function(with_types: bool) -> String {
    let of = if with_types { "to_regprocedure" } else { "to_regproc" };
    format!(
        "select format('%I.%I', n.nspname, p.proname), p.pronargs,
                format('%I.%I(%s)', n.nspname, p.proname, array_to_string(p.proargtypes::oid[]::regtype[], ',')),
                p.prokind = 'f' and p.pronargs between 1 and 3
                and p.proargtypes::oid[] <@ array['pg_catalog.jsonb'::regtype::oid]
           from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
          where p.oid = pg_catalog.{of}($1)::oid"
    )
}

fn problem(error: &wire::Error) -> Problem {
    Problem(error.to_string())
}

fn run_error(error: wire::Error) -> RunError {
    match error {
        wire::Error::Server(server) => RunError::Refused(format!("{} ({})", server.message, server.sqlstate)),
        other => RunError::Lost(problem(&other)),
    }
}

impl PostgresInside {
    fn open(&self) -> Result<Connection, Problem> {
        let deadline = Deadline::after(PATIENCE);
        let mut wire =
            Connection::connect(&self.driver.settings, deadline).map_err(|error| problem(&error))?;
        super::outbox::look_for_schema(&mut wire, deadline)?;
        Ok(wire)
    }
}

impl Inside for PostgresInside {
    fn watch(&self) -> Result<Box<dyn Watch>, Problem> {
        let mut wire = self.open()?;
        let deadline = Deadline::after(PATIENCE);
        wire.simple_query("listen wamp_schema", deadline, |_| {}).map_err(|error| problem(&error))?;
        let subscriptions = wire.prepare(SUBSCRIPTIONS, &[], deadline).map_err(|error| problem(&error))?;
        let [by_name, with_types] =
            [false, true].map(|with_types| wire.prepare(&declared_function(with_types), &[], deadline));
        let functions =
            (by_name.map_err(|error| problem(&error))?, with_types.map_err(|error| problem(&error))?);
        let (declared, asked) = (self.subscriptions.clone(), Instant::now());
        Ok(Box::new(Subscriptions { wire, subscriptions, functions, declared, is_incomplete: false, asked }))
    }

    fn runner(&self) -> Result<Box<dyn Runner>, Problem> {
        let wire = self.open()?;
        let timeout = self.timeout;
        Ok(Box::new(Functions { wire, realm: self.driver.realm.clone(), timeout, known: HashMap::new() }))
    }
}

/// What `wamp.subscribe` has noted, and what the configuration says.
struct Subscriptions {
    wire: Connection,
    subscriptions: Statement,
    /// [`declared_function`], by their names and with their types.
    functions: (Statement, Statement),
    declared: Vec<DeclaredSubscription>,
    /// Not all functions of the configuration are there: nobody tells when they are, unless a superuser has installed the schema.
    is_incomplete: bool,
    asked: Instant,
}

impl Subscriptions {
    /// A subscription of the configuration; or what is wrong with its function.
    fn declared(&mut self, place: usize) -> Result<Result<Wanted, String>, Problem> {
        let declared = &self.declared[place];
        let (by_name, with_types) = &self.functions;
        let statement = if declared.runs.contains('(') { with_types } else { by_name };
        let parameters = [Parameter::from(declared.runs.as_str())];
        let mut found: Option<(String, usize, String, bool)> = None;
        let run = self.wire.execute(statement, &parameters, Deadline::after(PATIENCE), |row| {
            let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
            let count = text(1).parse().unwrap_or_default();
            found = Some((text(0), count, text(2), row.text(3) == Some("t")));
        });
        let (topic, runs) = (&declared.topic, &declared.runs);
        match run {
            // It is no name at all.
            Err(wire::Error::Server(server)) => {
                return Ok(Err(format!("{topic}: {runs}: {}", server.message)));
            }
            Err(error) => return Err(problem(&error)),
            Ok(_) => {}
        }
        Ok(match found {
            Some((sql, count, name, true)) => {
                Ok(declared.wanted(DeclaredSubscription::id(place), (name, sql), count))
            }
            Some((.., name, false)) => {
                Err(format!("{topic}: {name} does not take 1 to 3 parameters of type jsonb"))
            }
            None => Err(format!("{topic}: there is no function {runs}, or there are several of that name")),
        })
    }
}

impl Watch for Subscriptions {
    fn subscriptions(&mut self) -> Result<(Vec<Wanted>, Vec<String>), Problem> {
        let (mut wanted, mut problems) = (Vec::new(), Vec::new());
        let run = self.wire.execute(&self.subscriptions, &[], Deadline::after(PATIENCE), |row| {
            let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
            let (topic, name) = (text(1), text(3));
            let policy = match row.text(2) {
                Some("prefix") => MatchPolicy::Prefix,
                Some("wildcard") => MatchPolicy::Wildcard,
                _ => MatchPolicy::Exact,
            };
            let (Some(id), Some(sql), Some(parameters)) = (
                row.text(0).and_then(|id| id.parse().ok()),
                row.text(4),
                row.text(5).and_then(|it| it.parse().ok()),
            ) else {
                problems
                    .push(format!("{topic} is not subscribed inside: there is no function {name} any more"));
                return;
            };
            let function = Function { name, sql: sql.to_owned(), parameters, timeout: None };
            wanted.push(Wanted { id, topic, policy, function, attempts: None });
        });
        run.map_err(|error| problem(&error))?;
        self.is_incomplete = false;
        for place in 0..self.declared.len() {
            match self.declared(place)? {
                Ok(declared) => wanted.push(declared),
                Err(wrong) => {
                    self.is_incomplete = true;
                    problems.push(format!("not subscribed, as the configuration says: {wrong}"));
                }
            }
        }
        Ok((wanted, problems))
    }

    fn wait(&mut self, time: Duration) -> Result<bool, Problem> {
        let heard = self.wire.wait_notification(Deadline::after(time)).map_err(|error| problem(&error))?;
        while self.wire.take_notification().is_some() {}
        if heard.is_none() && self.asked.elapsed() >= ASK_AGAIN {
            self.wire.ping(Deadline::after(PATIENCE)).map_err(|error| problem(&error))?;
            self.asked = Instant::now();
            return Ok(self.is_incomplete);
        }
        Ok(heard.is_some())
    }
}

/// Runs functions.
struct Functions {
    wire: Connection,
    realm: String,
    timeout: Duration,
    /// By SQL. Forgotten all at once, when there are too many.
    known: HashMap<String, Statement>,
}

impl Functions {
    fn statement(&mut self, sql: &str) -> Result<Statement, wire::Error> {
        if let Some(known) = self.known.get(sql) {
            return Ok(known.clone());
        }
        let deadline = Deadline::after(PATIENCE);
        if self.known.len() >= STATEMENTS_MAX {
            for statement in std::mem::take(&mut self.known).into_values() {
                self.wire.close_statement(statement, deadline)?;
            }
        }
        let statement = self.wire.prepare(sql, &[], deadline)?;
        self.known.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn run_statement(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Option<String>>, wire::Error> {
        let statement = self.statement(sql)?;
        let mut first = Vec::new();
        let done = self.wire.execute(&statement, parameters, Deadline::after(PATIENCE), |row| {
            first = (0..row.len()).map(|column| row.text(column).map(str::to_owned)).collect();
        });
        done?;
        Ok(first)
    }

    /// One transaction: what says who runs, then each of these, with what its publications are to have as their depth.
    fn run_group(
        &mut self,
        sql: &str,
        timeout: Duration,
        all: &[(u32, Vec<&str>)],
    ) -> Result<(), wire::Error> {
        let (identity, depths, statement) =
            (self.statement(IDENTITY)?, self.statement(DEPTH)?, self.statement(sql)?);
        let timeout_ms = timeout.as_millis().to_string();
        let requests = self.wire.requests();
        requests.bind(
            "",
            &identity.name,
            &[self.realm.as_str().into(), timeout_ms.as_str().into()],
            ResultFormat::Text,
        )?;
        requests.execute("", 0)?;
        let mut last = None;
        for (depth, parameters) in all {
            if last.replace(depth) != Some(depth) {
                let details = format!("{{\"depth\": {depth}}}");
                requests.bind("", &depths.name, &[details.as_str().into()], ResultFormat::Text)?;
                requests.execute("", 0)?;
            }
            let parameters: Vec<Parameter<'_>> = parameters.iter().map(|text| (*text).into()).collect();
            requests.bind("", &statement.name, &parameters, ResultFormat::Text)?;
            requests.execute("", 0)?;
        }
        requests.sync();
        self.wire.send()?;
        // Each may take its time.
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let deadline = Deadline::after(timeout.saturating_mul(count).saturating_add(GRACE));
        let mut refused = None;
        loop {
            match self.wire.next(deadline)? {
                Reply::Error(error) => refused = Some(error),
                Reply::Ready(_) => break,
                _ => {}
            }
        }
        let Some(error) = refused else { return Ok(()) };
        // What was prepared may be of what was there before.
        if matches!(error.sqlstate.as_str(), "0A000" | "26000" | "42883" | "XX000") {
            self.known.remove(sql);
        }
        Err(wire::Error::Server(error))
    }

    /// The function that wants an answer: it may have been dropped.
    fn function(&mut self, name: &str) -> Result<Option<Function>, wire::Error> {
        let row = self.run_statement(FUNCTION, &[name.into()])?;
        let (Some(Some(sql)), Some(Some(parameters))) = (row.first(), row.get(1)) else { return Ok(None) };
        let parameters = parameters.parse().unwrap_or_default();
        Ok(Some(Function { name: name.to_owned(), sql: sql.clone(), parameters, timeout: None }))
    }

    fn note(&mut self, answer: &Answer) -> Result<Option<String>, wire::Error> {
        let id = answer.id.to_string();
        let error = answer.error.as_deref().map_or(Parameter::Null, Parameter::from);
        let parameters = [id.as_str().into(), (&*answer.args).into(), (&*answer.kwargs).into(), error];
        let row = self.run_statement(FINISH, &parameters)?;
        Ok(row.into_iter().next().flatten())
    }

    fn give(&mut self, answer: &Answer) -> Result<(), wire::Error> {
        let Some(name) = self.note(answer)? else { return Ok(()) };
        let Some(function) = self.function(&name)? else {
            // As if nobody had wanted it: what was asked for is in wamp.call.
            return Ok(());
        };
        let (id, error) = (answer.id.to_string(), serde_json::json!(answer.error).to_string());
        let all = [id.as_str(), &answer.args, &answer.kwargs, &error];
        let parameters = all[..function.parameters.min(all.len())].to_vec();
        self.run_group(&call_of(&function), self.timeout, &[(answer.depth, parameters)])
    }

    fn transaction(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), wire::Error>,
    ) -> Result<(), RunError> {
        self.run_statement("begin", &[]).map_err(run_error)?;
        match work(self) {
            Ok(()) => self.run_statement("commit", &[]).map(drop).map_err(run_error),
            Err(error) => {
                if !error.ends_connection() {
                    self.run_statement("rollback", &[]).map_err(run_error)?;
                }
                Err(run_error(error))
            }
        }
    }
}

/// SQL that calls a function whose parameters are of type jsonb.
fn call_of(function: &Function) -> String {
    let places: Vec<_> = (1..=function.parameters).map(|place| format!("${place}::jsonb")).collect();
    format!("select {}({})", function.sql, places.join(", "))
}

impl Runner for Functions {
    fn run(&mut self, function: &Function, events: &[Arc<Event>]) -> Result<usize, RunError> {
        let of_event = |event: &'_ Arc<Event>| -> Vec<String> {
            let all = [&event.args, &event.kwargs, &event.details];
            all.into_iter().take(function.parameters).map(|text| text.to_string()).collect()
        };
        let texts: Vec<Vec<String>> = events.iter().map(of_event).collect();
        let depths = events.iter().map(|event| event.depth.saturating_add(1));
        let texts = texts.iter().map(|texts| texts.iter().map(String::as_str).collect());
        let all: Vec<(u32, Vec<&str>)> = depths.zip(texts).collect();
        let timeout = function.timeout.unwrap_or(self.timeout);
        self.run_group(&call_of(function), timeout, &all).map_err(run_error)?;
        Ok(events.len())
    }

    fn finish(&mut self, answer: &Answer) -> Result<(), RunError> {
        if !answer.has_function {
            return self.note(answer).map(drop).map_err(run_error);
        }
        self.transaction(|own| own.give(answer))
    }

    fn bury(&mut self, function: &Function, event: &Event, failure: &Failure) -> Result<(), RunError> {
        let attempts = failure.attempts.to_string();
        let parameters: [&str; 7] = [
            &function.name,
            &event.topic,
            &event.args,
            &event.kwargs,
            &event.details,
            &failure.error,
            &attempts,
        ];
        self.run_statement(BURY, &parameters.map(Parameter::from)).map(drop).map_err(run_error)
    }

    fn finish_in_vain(&mut self, answer: &Answer, failure: &Failure) -> Result<(), RunError> {
        self.transaction(|own| {
            own.run_statement("savepoint answer", &[])?;
            let function = match own.note(answer) {
                Ok(function) => function.unwrap_or_default(),
                Err(wire::Error::Server(_)) => {
                    // What cannot be kept is not: a null character, for one, which jsonb does not have.
                    own.run_statement("rollback to savepoint answer", &[])?;
                    let args = serde_json::json!([failure.error]).to_string().into();
                    let error = Some("wamp.error.payload_size_exceeded".into());
                    own.note(&Answer { args, kwargs: "{}".into(), error, ..answer.clone() })?
                        .unwrap_or_default()
                }
                Err(error) => return Err(error),
            };
            if function.is_empty() {
                return Ok(());
            }
            let (details, attempts) =
                (serde_json::json!({ "call": answer.id }).to_string(), failure.attempts.to_string());
            let parameters: [&str; 7] = [
                &function,
                &answer.procedure,
                &answer.args,
                &answer.kwargs,
                &details,
                &failure.error,
                &attempts,
            ];
            own.run_statement(BURY, &parameters.map(Parameter::from)).map(drop)
        })
    }
}
