//! Arguments into SQLite, rows out of it.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Statement;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value as SqliteValue, ValueRef};

use super::errors::Failure;
use crate::database::arguments::{Named, arguments};
use crate::database::rows::Rows;
use crate::database::{Numbers, Results, Shape};
use crate::router::database::{Caller, Query};
use crate::wamp::codec::{Composer, Datum, Encoder, OwnedPayload, to_json};

/// The most arguments of a call: SQLite itself takes no more parameters.
const ARGUMENTS_MAX: usize = 32_766;

/// Defines `wamp(name)`: who calls, null where nobody does.
pub(super) fn define_identity(
    connection: &rusqlite::Connection,
    caller: Arc<Mutex<Option<Caller>>>,
) -> rusqlite::Result<()> {
    connection.create_scalar_function("wamp", 1, FunctionFlags::SQLITE_UTF8, move |context| {
        let name = context.get::<String>(0)?;
        let caller = caller.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = caller.as_ref();
        let text = |of: fn(&Caller) -> &str| {
            caller.map_or(SqliteValue::Null, |caller| SqliteValue::Text(of(caller).to_owned()))
        };
        Ok(match name.as_str() {
            "session" => caller.map_or(SqliteValue::Null, |it| SqliteValue::Integer(it.session.0 as i64)),
            "authid" => text(|it| &it.authid),
            "authrole" => text(|it| &it.authrole),
            "authmethod" => text(|it| it.authmethod),
            "authprovider" => text(|it| it.authprovider),
            "authextra" => text(|it| if it.authextra.is_empty() { "{}" } else { &it.authextra }),
            _ => {
                let text = format!(
                    "wamp('{name}'): there are 'session', 'authid', 'authrole', 'authmethod', 'authprovider' and 'authextra'"
                );
                return Err(rusqlite::Error::UserFunctionError(text.into()));
            }
        })
    })
}

/// Where the value of a parameter comes from.
enum Source<'s> {
    Position(usize),
    Name(&'s str),
}

/// A parameter's name without its sign; `?3` and `?` are positions.
fn source<'s>(statement: &'s Statement<'_>, index: usize) -> Source<'s> {
    match statement.parameter_name(index) {
        Some(name) if !name.starts_with('?') => Source::Name(&name[1..]),
        _ => Source::Position(index - 1),
    }
}

/// Whether callers can know what a statement wants.
pub(super) fn check_parameters(statement: &Statement<'_>) -> Result<(), String> {
    let count = statement.parameter_count();
    if count > ARGUMENTS_MAX {
        return Err(format!("it has {count} parameters, and {ARGUMENTS_MAX} are the most"));
    }
    Ok(())
}

/// The arguments of a call.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    args: Vec<Datum<'a>>,
    kwargs: Named<'a>,
}

/// Which of them no statement has used so far.
#[derive(Debug)]
pub(super) struct Unused {
    args: Vec<bool>,
    kwargs: Vec<bool>,
}

impl<'a> Arguments<'a> {
    pub(super) fn read(query: &'a Query) -> Result<Self, Failure> {
        let read = arguments(query, ARGUMENTS_MAX);
        let (args, kwargs) = read.map_err(|problem| Failure::Arguments(problem.to_owned()))?;
        Ok(Self { args, kwargs })
    }

    pub(super) fn unused(&self) -> Unused {
        Unused { args: vec![true; self.args.len()], kwargs: vec![true; self.kwargs.len()] }
    }

    /// Gives a statement what it wants: a named parameter the argument of this name, or else the one in its place.
    pub(super) fn bind(&self, statement: &mut Statement<'_>, unused: &mut Unused) -> Result<(), Failure> {
        for index in 1..=statement.parameter_count() {
            let value = match source(statement, index) {
                Source::Name(name) => match self.kwargs.iter().rposition(|(key, _)| key == name) {
                    Some(place) => {
                        unused.kwargs[place] = false;
                        sqlite_value(&self.kwargs[place].1).map_err(|text| wrong(name, &text))?
                    }
                    None => self
                        .positional(index - 1, unused)
                        .ok_or_else(|| Failure::Arguments(format!("the argument `{name}` is missing")))??,
                },
                Source::Position(place) => self
                    .positional(place, unused)
                    .ok_or_else(|| Failure::Arguments(format!("the argument {} is missing", place + 1)))??,
            };
            statement.raw_bind_parameter(index, value)?;
        }
        Ok(())
    }

    fn positional(&self, place: usize, unused: &mut Unused) -> Option<Result<SqliteValue, Failure>> {
        let datum = self.args.get(place)?;
        unused.args[place] = false;
        Some(sqlite_value(datum).map_err(|text| wrong(&format!("{}", place + 1), &text)))
    }

    /// What nothing asked for is a mistake of the caller.
    pub(super) fn refuse_unused(&self, unused: &Unused) -> Result<(), Failure> {
        if let Some(place) = unused.kwargs.iter().position(|unused| *unused) {
            let name = &self.kwargs[place].0;
            return Err(Failure::Arguments(format!("there is no parameter `{name}`")));
        }
        if let Some(place) = unused.args.iter().position(|unused| *unused) {
            return Err(Failure::Arguments(format!("argument {}: there are fewer parameters", place + 1)));
        }
        Ok(())
    }
}

fn wrong(name: &str, text: &str) -> Failure {
    Failure::Arguments(format!("the argument `{name}`: {text}"))
}

/// SQLite knows integers of 64 bits, doubles, texts and blobs. Truth is 1 and 0, lists and objects are JSON.
fn sqlite_value(datum: &Datum<'_>) -> Result<SqliteValue, String> {
    Ok(match datum {
        Datum::Null => SqliteValue::Null,
        Datum::Boolean(value) => SqliteValue::Integer((*value).into()),
        Datum::Unsigned(value) => SqliteValue::Integer(
            i64::try_from(*value).map_err(|_| format!("{value} is beyond the integers of SQLite"))?,
        ),
        Datum::Negative(value) => SqliteValue::Integer(*value),
        Datum::Float(value) => SqliteValue::Real(*value),
        Datum::Literal(literal) => {
            let is_integer = !literal.contains(['.', 'e', 'E']);
            let value: f64 = literal.parse().map_err(|_| format!("{literal} is no number"))?;
            if is_integer && value != 0.0 {
                return Err(format!("{literal} is beyond the integers of SQLite"));
            }
            SqliteValue::Real(value)
        }
        Datum::Text(text) => SqliteValue::Text(text.clone().into_owned()),
        Datum::Bytes(bytes) => SqliteValue::Blob(bytes.clone().into_owned()),
        Datum::List(value) | Datum::Map(value) => {
            let json = to_json(*value, &mut Encoder::new()).map_err(|error| error.to_string())?;
            SqliteValue::Text(json.into_owned())
        }
    })
}

/// How the values of a column are to be understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Understood {
    AsTheyAre,
    Boolean,
    Json,
}

/// Writes the result of a call.
#[derive(Debug)]
pub(super) struct Writer<'q> {
    query: &'q Query,
    shape: Shape,
    numbers: Numbers,
    bytes_max: usize,
}

impl<'q> Writer<'q> {
    pub(super) fn new(query: &'q Query, shape: Shape, numbers: Numbers, bytes_max: usize) -> Self {
        Self { query, shape, numbers, bytes_max }
    }

    /// A result without arguments.
    pub(super) fn nothing(&self) -> OwnedPayload {
        OwnedPayload::new(self.query.serializer, Vec::new(), Vec::new())
    }

    /// Runs a statement whose parameters are bound.
    pub(super) fn write(
        &mut self,
        connection: &rusqlite::Connection,
        statement: &mut Statement<'_>,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let columns: Vec<(String, Understood)> =
            statement.columns().map(|it| (it.name().to_owned(), understood(it.decl_type()))).collect();
        if columns.is_empty() {
            let before = connection.total_changes();
            statement.raw_execute()?;
            // Without what its triggers did; and what changed nothing has not reset the count of the statement before.
            let is_change = connection.total_changes() != before;
            let changes = if is_change { connection.changes() } else { 0 };
            return Ok(match self.shape {
                Shape::Rows | Shape::Value => self.one(|args| args.unsigned(changes)),
                Shape::Row | Shape::Nothing => self.nothing(),
            });
        }
        let mut rows = statement.raw_query();
        match self.shape {
            Shape::Rows => self.all(&columns, &mut rows, results),
            Shape::Row | Shape::Value => {
                let mut args = Composer::new(self.query.serializer);
                args.open_list();
                match rows.next()? {
                    None => args.null(),
                    Some(row) if self.shape == Shape::Row => self.row(&mut args, &columns, row)?,
                    Some(row) => write_value(&mut args, columns[0].1, self.numbers, row.get_ref(0)?),
                }
                args.close();
                // What it changes is changed by the last step.
                while rows.next()?.is_some() {}
                self.bounded(&args)?;
                Ok(OwnedPayload::new(self.query.serializer, args.finish(), Vec::new()))
            }
            Shape::Nothing => {
                while rows.next()?.is_some() {}
                Ok(self.nothing())
            }
        }
    }

    fn all(
        &self,
        columns: &[(String, Understood)],
        rows: &mut rusqlite::Rows<'_>,
        results: &mut Results<'_>,
    ) -> Result<OwnedPayload, Failure> {
        let mut list = Rows::new(self.query);
        while let Some(row) = rows.next()? {
            self.row(&mut list.args, columns, row)?;
            self.bounded(&list.args)?;
            list.row_written(results).map_err(Failure::Stopped)?;
        }
        Ok(list.finish())
    }

    fn row(
        &self,
        args: &mut Composer,
        columns: &[(String, Understood)],
        row: &rusqlite::Row<'_>,
    ) -> Result<(), Failure> {
        args.open_map();
        for (index, (name, understood)) in columns.iter().enumerate() {
            args.key(name);
            write_value(args, *understood, self.numbers, row.get_ref(index)?);
        }
        args.close();
        Ok(())
    }

    fn one(&self, write: impl FnOnce(&mut Composer)) -> OwnedPayload {
        let mut args = Composer::new(self.query.serializer);
        args.open_list();
        write(&mut args);
        args.close();
        OwnedPayload::new(self.query.serializer, args.finish(), Vec::new())
    }

    fn bounded(&self, args: &Composer) -> Result<(), Failure> {
        if args.len() > self.bytes_max { Err(Failure::TooLong) } else { Ok(()) }
    }
}

fn understood(declared: Option<&str>) -> Understood {
    match declared {
        Some(declared)
            if declared.eq_ignore_ascii_case("boolean") || declared.eq_ignore_ascii_case("bool") =>
        {
            Understood::Boolean
        }
        Some(declared) if declared.eq_ignore_ascii_case("json") => Understood::Json,
        _ => Understood::AsTheyAre,
    }
}

fn write_value(args: &mut Composer, understood: Understood, numbers: Numbers, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => args.null(),
        ValueRef::Integer(value @ (0 | 1)) if understood == Understood::Boolean => args.boolean(value == 1),
        ValueRef::Integer(value) => numbers.write(value, args),
        ValueRef::Real(value) => args.float(value),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            // What is declared as JSON and is none is a text.
            if understood != Understood::Json || args.json(&text).is_err() {
                args.text(&text);
            }
        }
        ValueRef::Blob(bytes) => args.bytes(bytes),
    }
}
