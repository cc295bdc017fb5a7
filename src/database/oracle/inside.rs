//! The inside of a database of Oracle: what `wamp.subscribe` and `wamp.call_async` have noted, and the procedures that get events
//! and answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discover::{REGISTERED, read_rows};
use super::driver::{CALL_MIN, LOOK, Oracle};
use super::errors::{is_lost, problem};
use super::outbox::look_for_packages;
use super::subprograms::{self, Kind, Subprogram, quoted};
use super::values::{Bound, long_text};
use crate::database::Problem;
use crate::database::inside::{
    Answer, DeclaredSubscription, Event, Failure, Function, Inside, RunError, Runner, Wanted, Watch,
};
use crate::wamp::MatchPolicy;

/// As many subscriptions are looked at.
const SUBSCRIPTIONS_MAX: usize = 10_000;
/// How often it is asked whether procedures were compiled that subscribe.
const COMPILED_EVERY: Duration = Duration::from_secs(5);
/// Procedures that want answers, as a connection knows them.
const KNOWN_MAX: usize = 256;

/// What is JSON may go as each of these.
const JSON: &[Kind] = &[Kind::Clob, Kind::Text, Kind::Json];
/// What there is to give of an event, and of an answer; procedures take as many as they want.
const OF_EVENT: &[&[Kind]] = &[JSON, JSON, JSON];
const OF_ANSWER: &[&[Kind]] =
    &[&[Kind::Number, Kind::Integer, Kind::Text], JSON, JSON, &[Kind::Text, Kind::Clob]];

/// Where it is, and what is to be said to it.
#[derive(Clone, Debug)]
pub struct OracleInside {
    /// As that of calls.
    pub driver: Oracle,
    /// How long a procedure may take.
    pub timeout: Duration,
    /// Those of the configuration.
    pub subscriptions: Vec<DeclaredSubscription>,
}

impl OracleInside {
    fn open(&self) -> Result<oracle::Connection, Problem> {
        let connection = self.driver.open("")?;
        look_for_packages(&connection, &self.driver.owner)?;
        Ok(connection)
    }
}

impl Inside for OracleInside {
    fn watch(&self) -> Result<Box<dyn Watch>, Problem> {
        let (connection, owner) = (self.open()?, quoted(&self.driver.owner));
        let (seen, compiled) = (String::new(), (String::new(), None));
        let schema = self.driver.settings.schema();
        let named = |it: &DeclaredSubscription| (Name::read(&it.runs, &schema), it.clone());
        let declared = self.subscriptions.iter().map(named).collect();
        Ok(Box::new(Subscriptions { connection, owner, declared, seen, compiled }))
    }

    fn runner(&self) -> Result<Box<dyn Runner>, Problem> {
        let (connection, owner) = (self.open()?, quoted(&self.driver.owner));
        let (realm, timeout) = (self.driver.realm.clone(), self.timeout);
        Ok(Box::new(Procedures { connection, owner, realm, timeout, known: HashMap::new() }))
    }
}

/// A procedure, as statements have named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    schema: String,
    package: Option<String>,
    procedure: String,
}

impl Name {
    /// `procedure`, `package.procedure` or `schema.package.procedure`, as `wamp.call_async` reads them.
    fn read(text: &str, own_schema: &str) -> Option<Self> {
        let parts: Vec<String> = text.split('.').map(str::to_uppercase).collect();
        let (schema, package, procedure) = match parts.as_slice() {
            [procedure] => (own_schema.to_owned(), None, procedure),
            [package, procedure] => (own_schema.to_owned(), Some(package.clone()), procedure),
            [schema, package, procedure] => (schema.clone(), Some(package.clone()), procedure),
            _ => return None,
        };
        Some(Self { schema, package, procedure: procedure.clone() })
    }

    fn text(&self) -> String {
        let package = self.package.iter().map(|package| format!("{package}."));
        format!("{}.{}{}", self.schema, package.collect::<String>(), self.procedure)
    }

    /// The block that calls it with what there is to give, or why it cannot be called so.
    fn find(
        &self,
        connection: &oracle::Connection,
        given: &[&[Kind]],
    ) -> oracle::Result<Result<Function, String>> {
        let object = self.package.as_ref().unwrap_or(&self.procedure);
        let rows = read_rows(connection, &self.schema, Some(object))?;
        let mut found = subprograms::read(&self.schema, rows, false, &mut Vec::new());
        found.retain(|it| it.name == self.procedure && it.package == self.package);
        if found.is_empty() {
            return Ok(Err(format!("there is no procedure {} to execute", self.text())));
        }
        let mut fitting = found.iter().filter(|it| fits(it, given));
        Ok(match (fitting.next(), fitting.next()) {
            (Some(one), None) => {
                let (name, sql, parameters) = (self.text(), block_of(one), one.parameters.len());
                Ok(Function { name, sql, parameters, timeout: None })
            }
            (None, _) => Err(format!(
                "{} does not take 1 to {} parameters, each a CLOB, VARCHAR2 or JSON",
                self.text(),
                given.len()
            )),
            (Some(_), Some(_)) => Err(format!("{} is several procedures that could be meant", self.text())),
        })
    }
}

/// Whether a procedure takes the first of what there is to give, and nothing else.
fn fits(subprogram: &Subprogram, given: &[&[Kind]]) -> bool {
    let count = subprogram.parameters.len();
    let mut pairs = subprogram.parameters.iter().zip(given);
    subprogram.returns.is_none()
        && (1..=given.len()).contains(&count)
        && pairs.all(|(it, kinds)| it.is_in && !it.is_out && kinds.contains(&it.kind))
}

/// Calls it by position, with texts.
fn block_of(subprogram: &Subprogram) -> String {
    let place = |(place, kind): (usize, Kind)| match kind {
        Kind::Json => format!("json(:a{place})"),
        _ => format!(":a{place}"),
    };
    let places: Vec<_> = subprogram.parameters.iter().map(|it| it.kind).enumerate().map(place).collect();
    format!("begin\n{}({});\nend;", subprogram.path(), places.join(", "))
}

/// What `wamp.subscribe` has noted, and what the configuration says.
struct Subscriptions {
    connection: oracle::Connection,
    owner: String,
    /// Those of the configuration, and the procedures that they name.
    declared: Vec<(Option<Name>, DeclaredSubscription)>,
    /// What they were like when they were read last.
    seen: String,
    /// The same of the procedures, and when that was asked.
    compiled: (String, Option<Instant>),
}

impl Subscriptions {
    /// Changes when they, or registrations, or the procedures may have changed.
    fn fingerprint(&mut self) -> oracle::Result<String> {
        self.connection.set_call_timeout(Some(LOOK))?;
        let owner = &self.owner;
        let sql = format!(
            "select (select count(*) || ' ' || sum(id) from {owner}.wamp_subscription) || '/' ||
                    (select {REGISTERED} from {owner}.wamp_registration) from dual"
        );
        let mut all = self.connection.query_row_as::<Option<String>>(&sql, &[])?.unwrap_or_default();
        let (compiled, asked) = &mut self.compiled;
        if asked.is_none_or(|asked| asked.elapsed() >= COMPILED_EVERY) {
            let named = self.declared.iter().filter_map(|(name, _)| name.as_ref());
            let mut schemas: Vec<_> = named.map(|name| literal(&name.schema)).collect();
            schemas.sort_unstable();
            schemas.dedup();
            let others = if schemas.is_empty() {
                String::new()
            } else {
                format!(" or owner in ({})", schemas.join(", "))
            };
            let sql = format!(
                "select count(*) || ' ' || to_char(max(last_ddl_time), 'YYYYMMDDHH24MISS') from all_objects
                 where object_type in ('PACKAGE', 'PROCEDURE')
                   and (owner in (select schema_name from {owner}.wamp_subscription){others})"
            );
            *compiled = self.connection.query_row_as::<Option<String>>(&sql, &[])?.unwrap_or_default();
            *asked = Some(Instant::now());
        }
        all.push('/');
        all.push_str(compiled);
        Ok(all)
    }

    fn read(&mut self) -> oracle::Result<(Vec<Wanted>, Vec<String>)> {
        // Before: what changes while they are read is seen the next time.
        self.seen = self.fingerprint()?;
        let sql = format!(
            "select id, topic, match, schema_name, package_name, procedure_name from {}.wamp_subscription
             order by id fetch first {SUBSCRIPTIONS_MAX} rows only",
            self.owner
        );
        let mut noted = Vec::new();
        for row in
            self.connection.query_as::<(i64, String, String, String, Option<String>, String)>(&sql, &[])?
        {
            let (id, topic, policy, schema, package, procedure) = row?;
            let policy = match &*policy {
                "prefix" => MatchPolicy::Prefix,
                "wildcard" => MatchPolicy::Wildcard,
                _ => MatchPolicy::Exact,
            };
            noted.push((id, topic, policy, Name { schema, package, procedure }));
        }
        let (mut wanted, mut problems) = (Vec::new(), Vec::new());
        let mut known: HashMap<Name, Result<Function, String>> = HashMap::new();
        let mut find = |name: &Name| -> oracle::Result<Result<Function, String>> {
            if let Some(function) = known.get(name) {
                return Ok(function.clone());
            }
            let function = name.find(&self.connection, OF_EVENT)?;
            known.insert(name.clone(), function.clone());
            Ok(function)
        };
        for (id, topic, policy, name) in noted {
            match find(&name)? {
                Ok(function) => wanted.push(Wanted { id, topic, policy, function, attempts: None }),
                Err(why) => problems.push(format!("{topic} is not subscribed inside: {why}")),
            }
        }
        for (place, (name, declared)) in self.declared.iter().enumerate() {
            let found = match name {
                Some(name) => find(name)?,
                None => Err(format!(
                    "{} is neither procedure nor package.procedure nor schema.package.procedure",
                    declared.runs
                )),
            };
            match found {
                Ok(Function { name, sql, parameters, .. }) => {
                    wanted.push(declared.wanted(DeclaredSubscription::id(place), (name, sql), parameters));
                }
                Err(why) => {
                    problems.push(format!(
                        "not subscribed, as the configuration says: {}: {why}",
                        declared.topic
                    ));
                }
            }
        }
        Ok((wanted, problems))
    }
}

impl Watch for Subscriptions {
    fn subscriptions(&mut self) -> Result<(Vec<Wanted>, Vec<String>), Problem> {
        self.read().map_err(|error| problem(&error))
    }

    /// Nothing tells of a change: it is asked again and again.
    fn wait(&mut self, time: Duration) -> Result<bool, Problem> {
        std::thread::sleep(time);
        let now = self.fingerprint().map_err(|error| problem(&error))?;
        Ok(now != self.seen)
    }
}

/// Runs procedures.
struct Procedures {
    connection: oracle::Connection,
    owner: String,
    realm: String,
    timeout: Duration,
    /// Those that want answers. Forgotten all at once, when there are too many.
    known: HashMap<Name, Function>,
}

/// Why something was not run.
enum Refused {
    Oracle(oracle::Error),
    /// It cannot be called so, for people.
    Unfit(String),
}

impl From<oracle::Error> for Refused {
    fn from(error: oracle::Error) -> Self {
        Self::Oracle(error)
    }
}

impl Procedures {
    /// All of it, or nothing.
    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Refused>) -> Result<(), RunError> {
        let done = work(self).and_then(|()| {
            self.connection.set_call_timeout(Some(LOOK))?;
            Ok(self.connection.commit()?)
        });
        let text = match done {
            Ok(()) => return Ok(()),
            Err(Refused::Oracle(error)) if is_lost(&error) => return Err(RunError::Lost(problem(&error))),
            Err(Refused::Oracle(error)) => problem(&error).0,
            Err(Refused::Unfit(text)) => text,
        };
        let undone = self.connection.set_call_timeout(Some(LOOK)).and_then(|()| self.connection.rollback());
        undone.map_err(|error| RunError::Lost(problem(&error)))?;
        Err(RunError::Refused(text))
    }

    /// Whoever runs is no session, and what it publishes came of so many events.
    fn begin(&self, depth: u32) -> oracle::Result<()> {
        self.connection.set_call_timeout(Some(LOOK))?;
        let sql = format!("begin {}.wamp_ctx.inside(:realm, :depth); end;", self.owner);
        self.connection.execute_named(&sql, &[("realm", &self.realm), ("depth", &depth)])?;
        Ok(())
    }

    /// Calls it once for each of these lists of what there is to give, with what its publications are to have as their depth.
    fn call<'t>(
        &self,
        function: &Function,
        all: impl Iterator<Item = (u32, Vec<Option<&'t str>>)>,
    ) -> oracle::Result<()> {
        let timeout = function.timeout.unwrap_or(self.timeout).max(CALL_MIN);
        let mut statement = self.connection.statement(&function.sql).build()?;
        let mut last = None;
        for (depth, texts) in all {
            if last.replace(depth) != Some(depth) {
                self.begin(depth)?;
            }
            for (place, text) in texts.into_iter().take(function.parameters).enumerate() {
                statement.bind(&*format!("a{place}"), &or_null(text))?;
            }
            self.connection.set_call_timeout(Some(timeout))?;
            statement.execute(&[])?;
        }
        Ok(())
    }

    /// Notes an answer; who wants it.
    fn note(&self, answer: &Answer) -> oracle::Result<Option<Name>> {
        self.connection.set_call_timeout(Some(LOOK))?;
        let sql = format!(
            "begin {}.wamp_drain.finish_call(:id, :args, :kwargs, :error, :on_schema, :on_package, :on_procedure); end;",
            self.owner
        );
        let mut statement = self.connection.statement(&sql).build()?;
        statement.bind("id", &answer.id)?;
        statement.bind("args", &long_text(&answer.args))?;
        statement.bind("kwargs", &long_text(&answer.kwargs))?;
        statement.bind("error", &or_null(answer.error.as_deref()))?;
        for name in ["on_schema", "on_package", "on_procedure"] {
            statement.bind(name, &super::values::room(Kind::Text))?;
        }
        statement.execute(&[])?;
        let text = |name: &str| statement.bind_value::<_, Option<String>>(name);
        let (schema, package, procedure) = (text("on_schema")?, text("on_package")?, text("on_procedure")?);
        Ok(schema.zip(procedure).map(|(schema, procedure)| Name { schema, package, procedure }))
    }

    fn give(&mut self, answer: &Answer) -> Result<(), Refused> {
        let Some(name) = self.note(answer)? else { return Ok(()) };
        let function = match self.known.get(&name) {
            Some(function) => function.clone(),
            None => {
                if self.known.len() >= KNOWN_MAX {
                    self.known.clear();
                }
                let function = name.find(&self.connection, OF_ANSWER)?.map_err(Refused::Unfit)?;
                self.known.insert(name.clone(), function.clone());
                function
            }
        };
        let id = answer.id.to_string();
        let given = vec![Some(&*id), Some(&*answer.args), Some(&*answer.kwargs), answer.error.as_deref()];
        self.call(&function, std::iter::once((answer.depth, given))).inspect_err(|_| {
            // It may be another one by now.
            self.known.remove(&name);
        })?;
        Ok(())
    }

    fn put_aside(&self, texts: [&str; 5], failure: &Failure) -> oracle::Result<()> {
        self.connection.set_call_timeout(Some(LOOK))?;
        let sql = format!(
            "begin {}.wamp_drain.bury(:procedure_name, :topic, :args, :kwargs, :details, :error, :attempts); end;",
            self.owner
        );
        let mut statement = self.connection.statement(&sql).build()?;
        for (name, text) in ["procedure_name", "topic", "args", "kwargs", "details"].iter().zip(texts) {
            statement.bind(*name, &long_text(text))?;
        }
        statement.bind("error", &long_text(&failure.error))?;
        statement.bind("attempts", &i64::from(failure.attempts))?;
        statement.execute(&[])
    }
}

/// A text within SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn or_null(text: Option<&str>) -> Bound {
    text.map_or_else(|| Bound::Null(oracle::sql_type::OracleType::Varchar2(1)), long_text)
}

impl Runner for Procedures {
    fn run(&mut self, function: &Function, events: &[Arc<Event>]) -> Result<usize, RunError> {
        let all = events.iter().map(|event| {
            let texts = vec![Some(&*event.args), Some(&*event.kwargs), Some(&*event.details)];
            (event.depth.saturating_add(1), texts)
        });
        self.transaction(|own| Ok(own.call(function, all)?))?;
        Ok(events.len())
    }

    fn finish(&mut self, answer: &Answer) -> Result<(), RunError> {
        if answer.has_function {
            return self.transaction(|own| own.give(answer));
        }
        self.transaction(|own| Ok(own.note(answer).map(drop)?))
    }

    fn bury(&mut self, function: &Function, event: &Event, failure: &Failure) -> Result<(), RunError> {
        let texts = [&*function.name, &*event.topic, &*event.args, &*event.kwargs, &*event.details];
        self.transaction(|own| Ok(own.put_aside(texts, failure)?))
    }

    fn finish_in_vain(&mut self, answer: &Answer, failure: &Failure) -> Result<(), RunError> {
        self.transaction(|own| {
            // A statement that fails has done nothing; what cannot be kept is not.
            let name = match own.note(answer) {
                Err(error) if !is_lost(&error) => {
                    let args = serde_json::json!([failure.error]).to_string().into();
                    let error = Some("wamp.error.payload_size_exceeded".into());
                    own.note(&Answer { args, kwargs: "{}".into(), error, ..answer.clone() })?
                }
                noted => noted?,
            };
            let Some(name) = name else { return Ok(()) };
            let details = serde_json::json!({ "call": answer.id }).to_string();
            let texts = [&*name.text(), &*answer.procedure, &*answer.args, &*answer.kwargs, &*details];
            Ok(own.put_aside(texts, failure)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::oracle::subprograms::Parameter;

    fn procedure(kinds: &[Kind]) -> Subprogram {
        let parameter = |kind: &Kind| Parameter {
            name: "P".to_owned(),
            kind: *kind,
            object: None,
            is_in: true,
            is_out: false,
            has_default: false,
        };
        Subprogram {
            schema: "SHOP".to_owned(),
            package: Some("PKG".to_owned()),
            name: "ON_IT".to_owned(),
            parameters: kinds.iter().map(parameter).collect(),
            returns: None,
            returned_object: None,
        }
    }

    #[test]
    fn procedures_take_as_many_as_they_want_of_what_there_is() {
        for (kinds, of_event, of_answer) in [
            (&[][..], false, false),
            (&[Kind::Clob][..], true, false),
            (&[Kind::Text, Kind::Json, Kind::Clob][..], true, true),
            (&[Kind::Clob; 4][..], false, false),
            (&[Kind::Number, Kind::Clob, Kind::Json, Kind::Text][..], false, true),
            (&[Kind::Integer][..], false, true),
            (&[Kind::Text, Kind::Text][..], true, true),
            (&[Kind::Clob, Kind::Date][..], false, false),
        ] {
            let it = procedure(kinds);
            assert_eq!((fits(&it, OF_EVENT), fits(&it, OF_ANSWER)), (of_event, of_answer), "{kinds:?}");
        }
        let function = Subprogram { returns: Some(Kind::Number), ..procedure(&[Kind::Clob]) };
        assert!(!fits(&function, OF_EVENT));
        let mut out = procedure(&[Kind::Clob]);
        out.parameters[0].is_out = true;
        assert!(!fits(&out, OF_EVENT));
        assert_eq!(
            block_of(&procedure(&[Kind::Clob, Kind::Json])),
            "begin\n\"SHOP\".\"PKG\".\"ON_IT\"(:a0, json(:a1));\nend;"
        );
    }

    #[test]
    fn procedures_of_the_configuration_are_named_as_in_pl_sql() {
        let named = |text| Name::read(text, "SHOP").map(|name| name.text());
        for (text, name) in
            [("on_it", "SHOP.ON_IT"), ("pkg.on_it", "SHOP.PKG.ON_IT"), ("Other.pkg.ON_IT", "OTHER.PKG.ON_IT")]
        {
            assert_eq!(named(text).as_deref(), Some(name));
        }
        assert_eq!(named("a.b.c.d"), None);
    }
}
