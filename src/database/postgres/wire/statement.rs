//! Prepared statements, and requests that are one group of their own: what is no call that has to be fast.

use super::connection::{Connection, Event};
use super::deadline::Deadline;
use super::error::{Error, ServerError};
use super::message::{Column, Row};
use super::requests::{Parameter, ResultFormat};

/// A statement that the server knows by a name, until its session ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// Its name.
    pub name: String,
    /// The types of its parameters.
    pub parameters: Vec<u32>,
    /// The columns of its rows; none if it has no rows.
    pub columns: Vec<OwnedColumn>,
}

/// A [`Column`] that outlives its message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnedColumn {
    /// Its name.
    pub name: String,
    /// The table that it is of, or 0.
    pub table: u32,
    /// Its number there, or 0.
    pub number: i16,
    /// Its type.
    pub type_oid: u32,
    /// The size of the type; negative where it varies.
    pub type_size: i16,
    /// As in `varchar(10)`; -1 for none.
    pub type_modifier: i32,
}

impl From<Column<'_>> for OwnedColumn {
    fn from(column: Column<'_>) -> Self {
        Self {
            name: column.name.to_owned(),
            table: column.table,
            number: column.number,
            type_oid: column.type_oid,
            type_size: column.type_size,
            type_modifier: column.type_modifier,
        }
    }
}

impl Connection {
    /// Prepares a statement. Types that are not given, or 0, the server infers. Its name is `s` and a number: who names
    /// statements by [`super::Requests::parse`] takes others.
    ///
    /// # Errors
    /// The server refused it; the deadline passed, and answers are still to come ([`Connection::drain`]); or the
    /// connection is over.
    pub fn prepare(&mut self, sql: &str, types: &[u32], deadline: Deadline) -> Result<Statement, Error> {
        self.check_idle()?;
        self.statements += 1;
        let name = format!("s{}", self.statements);
        self.requests.parse(&name, sql, types)?;
        self.requests.describe_statement(&name)?;
        self.requests.sync();
        self.send()?;
        let mut statement = Statement { name, parameters: Vec::new(), columns: Vec::new() };
        self.group(deadline, |event| match event {
            Event::ParameterTypes(types) => statement.parameters = types.iter().collect(),
            Event::Columns(columns) => statement.columns = columns.iter().map(OwnedColumn::from).collect(),
            _ => {}
        })?;
        Ok(statement)
    }

    /// Makes the server forget a statement.
    ///
    /// # Errors
    /// As [`Connection::prepare`].
    pub fn close_statement(&mut self, statement: Statement, deadline: Deadline) -> Result<(), Error> {
        self.check_idle()?;
        self.requests.close_statement(&statement.name)?;
        self.requests.sync();
        self.send()?;
        self.group(deadline, |_| {})
    }

    /// Runs a statement that was prepared, as a group of its own, and shows each row. What it says of itself when it is
    /// done: `SELECT 3`.
    ///
    /// # Errors
    /// As [`Connection::prepare`], or a row is larger than `message_bytes_max`.
    pub fn execute(
        &mut self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
        deadline: Deadline,
        mut on_row: impl FnMut(Row<'_>),
    ) -> Result<String, Error> {
        self.check_idle()?;
        self.requests.bind("", &statement.name, parameters, ResultFormat::Text)?;
        self.requests.execute("", 0)?;
        self.requests.sync();
        self.send()?;
        let mut tag = String::new();
        self.group(deadline, |event| match event {
            Event::Row(row) => on_row(row),
            Event::Complete(text) => text.clone_into(&mut tag),
            _ => {}
        })?;
        Ok(tag)
    }

    /// Runs a text with any number of statements, and shows each row. They are one transaction, unless they say otherwise.
    ///
    /// # Errors
    /// As [`Connection::execute`].
    pub fn simple_query(
        &mut self,
        sql: &str,
        deadline: Deadline,
        mut on_row: impl FnMut(Row<'_>),
    ) -> Result<String, Error> {
        self.check_idle()?;
        self.requests.query(sql)?;
        self.send()?;
        let mut tag = String::new();
        self.group(deadline, |event| match event {
            Event::Row(row) => on_row(row),
            Event::Complete(text) => text.clone_into(&mut tag),
            _ => {}
        })?;
        Ok(tag)
    }

    /// Runs a text, and its last row's first value.
    ///
    /// # Errors
    /// As [`Connection::execute`].
    pub fn simple_value(&mut self, sql: &str, deadline: Deadline) -> Result<Option<String>, Error> {
        let mut value = None;
        self.simple_query(sql, deadline, |row| value = row.text(0).map(str::to_owned))?;
        Ok(value)
    }

    /// Reads one group to its end; its error if it has one.
    fn group(&mut self, deadline: Deadline, mut on_event: impl FnMut(Event<'_>)) -> Result<(), Error> {
        let bytes_max = self.inbox.message_bytes_max();
        let mut refused: Option<Box<ServerError>> = None;
        let mut too_large = None;
        loop {
            match self.next(deadline)? {
                Event::Ready(_) => break,
                Event::Error(error) => refused = Some(error),
                Event::RowTooLarge { bytes } => too_large = Some(bytes),
                event => on_event(event),
            }
            deadline.check("a statement")?;
        }
        match (refused, too_large) {
            (Some(error), _) => Err(Error::Server(error)),
            (None, Some(bytes)) => Err(Error::TooLarge { what: "a row", bytes, bytes_max }),
            (None, None) => Ok(()),
        }
    }
}
