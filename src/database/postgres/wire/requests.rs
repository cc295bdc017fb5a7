//! What is asked of a server: any number of requests become one write, and what each of them must be answered with is
//! remembered.

use std::collections::VecDeque;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend::{self, BindError};

use super::error::Error;

/// A parameter's value.
#[derive(Clone, Copy)]
pub enum Parameter<'a> {
    /// The null value.
    Null,
    /// As text, which the server reads as the parameter's type.
    Text(&'a [u8]),
    /// As the type's binary form.
    Binary(&'a [u8]),
}

impl std::fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not what is in it: parameters have secrets.
        match self {
            Self::Null => f.write_str("Null"),
            Self::Text(bytes) => write!(f, "Text({} bytes)", bytes.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

impl<'a> From<&'a str> for Parameter<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

/// In what form the values of a result come.
#[derive(Clone, Copy, Debug)]
pub enum ResultFormat<'a> {
    /// All as text.
    Text,
    /// All in binary.
    Binary,
    /// Each column as it is given; binary where it is true.
    Each(&'a [bool]),
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    Parse,
    Bind,
    Close,
    /// Parameter types, then columns or none.
    DescribeStatement,
    /// Columns or none.
    Describe,
    /// Rows, then an end.
    Execute,
    Sync,
    Query,
}

/// Requests that were not yet sent, and those whose answers are still to come.
#[derive(Debug)]
pub struct Requests {
    pub(super) bytes: BytesMut,
    pub(super) expected: VecDeque<Expected>,
    /// After an error the server passes over everything up to the next Sync.
    pub(super) passed_over: bool,
    message_bytes_max: usize,
}

/// A place in what was written.
pub(in crate::database::postgres) struct Mark {
    bytes: usize,
    expected: usize,
}

/// What a buffer keeps when all of it was sent.
const KEPT_BYTES_MAX: usize = 256 << 10;

impl Requests {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), expected: VecDeque::new(), passed_over: false, message_bytes_max }
    }

    /// Writes one message, or nothing of it.
    fn write<E: Into<Refused>>(
        &mut self,
        what: &'static str,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), Error> {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = BytesMut::new();
        }
        let before = self.bytes.len();
        let written = write(&mut self.bytes);
        let bytes = self.bytes.len() - before;
        match written {
            Ok(()) if bytes <= self.message_bytes_max => Ok(()),
            Ok(()) => {
                self.bytes.truncate(before);
                Err(Error::TooLarge { what, bytes, bytes_max: self.message_bytes_max })
            }
            Err(refused) => {
                self.bytes.truncate(before);
                let _: Refused = refused.into();
                Err(Error::Misuse(
                    "a name or statement has a zero byte, or there are more than 65,535 parameters",
                ))
            }
        }
    }

    /// Where what is written next begins.
    pub(in crate::database::postgres) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), expected: self.expected.len() }
    }

    /// Takes back what was written since, of which nothing was sent and no answer read.
    pub(in crate::database::postgres) fn take_back(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.expected.truncate(mark.expected);
    }

    fn expect(&mut self, expected: Expected) {
        if !self.passed_over {
            self.expected.push_back(expected);
        }
    }

    /// Prepares a statement under a name; the empty one is replaced by the next. Types that are 0 or left out are inferred.
    ///
    /// # Errors
    /// A name or text that no message can have, or more than a message may. Nothing was written.
    pub fn parse(&mut self, statement: &str, sql: &str, types: &[u32]) -> Result<(), Error> {
        self.write("a statement", |bytes| frontend::parse(statement, sql, types.iter().copied(), bytes))?;
        self.expect(Expected::Parse);
        Ok(())
    }

    /// Asks for the types of a statement's parameters and its columns.
    ///
    /// # Errors
    /// A name or text that no message can have, or more than a message may. Nothing was written.
    pub fn describe_statement(&mut self, statement: &str) -> Result<(), Error> {
        self.write("a name", |bytes| frontend::describe(b'S', statement, bytes))?;
        self.expect(Expected::DescribeStatement);
        Ok(())
    }

    /// Asks for the columns of a portal.
    ///
    /// # Errors
    /// A name or text that no message can have, or more than a message may. Nothing was written.
    pub fn describe_portal(&mut self, portal: &str) -> Result<(), Error> {
        self.write("a name", |bytes| frontend::describe(b'P', portal, bytes))?;
        self.expect(Expected::Describe);
        Ok(())
    }

    /// Makes a portal of a statement and its parameters. A portal lives until its transaction ends.
    ///
    /// # Errors
    /// A name or text that no message can have, or more than a message may. Nothing was written.
    pub fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        parameters: &[Parameter<'_>],
        results: ResultFormat<'_>,
    ) -> Result<(), Error> {
        // A large one is refused before it is copied.
        let size = |parameter: &Parameter<'_>| match parameter {
            Parameter::Null => 0,
            Parameter::Text(bytes) | Parameter::Binary(bytes) => bytes.len(),
        };
        let bytes = parameters.iter().map(size).fold(0usize, usize::saturating_add);
        if bytes > self.message_bytes_max {
            let bytes_max = self.message_bytes_max;
            return Err(Error::TooLarge { what: "what the parameters have in all", bytes, bytes_max });
        }
        let binary = |parameter: &Parameter<'_>| i16::from(matches!(parameter, Parameter::Binary(_)));
        // Most calls have text alone, which needs no list.
        let formats =
            if parameters.iter().any(|parameter| binary(parameter) == 1) { parameters } else { &[] };
        let (all, each): (Option<i16>, &[bool]) = match results {
            ResultFormat::Text => (None, &[]),
            ResultFormat::Binary => (Some(1), &[]),
            ResultFormat::Each(each) => (None, each),
        };
        self.write("what the parameters have in all", |buffer| {
            frontend::bind(
                portal,
                statement,
                formats.iter().map(binary),
                parameters,
                |parameter, buffer| match parameter {
                    Parameter::Null => Ok(IsNull::Yes),
                    Parameter::Text(bytes) | Parameter::Binary(bytes) => {
                        buffer.extend_from_slice(bytes);
                        Ok(IsNull::No)
                    }
                },
                all.into_iter().chain(each.iter().map(|binary| i16::from(*binary))),
                buffer,
            )
        })?;
        self.expect(Expected::Bind);
        Ok(())
    }

    /// Runs a portal, or runs it on; 0 is for all rows.
    ///
    /// # Errors
    /// A name or text that no message can have, or more than a message may. Nothing was written.
    pub fn execute(&mut self, portal: &str, rows_max: u32) -> Result<(), Error> {
        let rows_max = i32::try_from(rows_max).unwrap_or(i32::MAX);
        self.write("a name", |bytes| frontend::execute(portal, rows_max, bytes))?;
        self.expect(Expected::Execute);
        Ok(())
    }

    /// Makes the server forget a statement.
    ///
    /// # Errors
    /// A name that no message can have.
    pub fn close_statement(&mut self, statement: &str) -> Result<(), Error> {
        self.close(b'S', statement)
    }

    /// Makes the server forget a portal, read to its end or not.
    ///
    /// # Errors
    /// A name that no message can have.
    pub fn close_portal(&mut self, portal: &str) -> Result<(), Error> {
        self.close(b'P', portal)
    }

    fn close(&mut self, kind: u8, name: &str) -> Result<(), Error> {
        self.write("a name", |bytes| frontend::close(kind, name, bytes))?;
        self.expect(Expected::Close);
        Ok(())
    }

    /// Ends a group: outside of a transaction block it is one transaction, which is committed now, or was rolled back at its
    /// error. What comes next is not touched by that error.
    pub fn sync(&mut self) {
        frontend::sync(&mut self.bytes);
        self.passed_over = false;
        self.expected.push_back(Expected::Sync);
    }

    /// Makes the server answer what was asked, without ending the group: for portals that are read on.
    pub fn flush(&mut self) {
        frontend::flush(&mut self.bytes);
    }

    /// A text with any number of statements, by the simple protocol. It is a group of its own.
    ///
    /// # Errors
    /// A text that no message can have, or more than a message may; a group that failed is not ended.
    pub fn query(&mut self, sql: &str) -> Result<(), Error> {
        if self.passed_over {
            return Err(Error::Misuse("the group that failed has no Sync yet"));
        }
        self.write("a statement", |bytes| frontend::query(sql, bytes))?;
        self.expected.push_back(Expected::Query);
        Ok(())
    }

    /// An error came: what stands before the next Sync (or the end of a simple query) is answered no more.
    pub(super) fn pass_over(&mut self) {
        while let Some(next) = self.expected.front() {
            if matches!(next, Expected::Sync | Expected::Query) {
                return;
            }
            self.expected.pop_front();
        }
        self.passed_over = true;
    }
}

/// Why the encoder wrote no message; every way is a wrong argument of ours.
struct Refused;

impl From<std::io::Error> for Refused {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl From<BindError> for Refused {
    fn from(_: BindError) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_leaves_nothing() {
        let mut requests = Requests::new(1000);
        requests.parse("s", "select 1", &[]).unwrap();
        let before = requests.bytes.clone();
        assert!(matches!(requests.parse("s\0", "select 1", &[]), Err(Error::Misuse(_))));
        assert!(matches!(requests.parse("s", &"x".repeat(1000), &[]), Err(Error::TooLarge { .. })));
        let large = vec![0; 1001];
        let bound = requests.bind("", "s", &[Parameter::Text(&large)], ResultFormat::Text);
        assert!(matches!(bound, Err(Error::TooLarge { bytes: 1001, bytes_max: 1000, .. })));
        assert!(matches!(requests.close(b'S', "\0"), Err(Error::Misuse(_))));
        assert_eq!(requests.bytes, before);
        assert_eq!(requests.expected, [Expected::Parse]);
    }

    #[test]
    fn errors_pass_over_to_the_next_sync() {
        let mut requests = Requests::new(1000);
        requests.parse("", "select 1", &[]).unwrap();
        requests.execute("", 0).unwrap();
        requests.sync();
        requests.execute("", 0).unwrap();
        requests.pass_over();
        assert_eq!(requests.expected, [Expected::Sync, Expected::Execute]);
        requests.expected.pop_front();
        requests.pass_over();
        requests.execute("", 0).unwrap();
        assert!(requests.expected.is_empty(), "nobody answers before Sync");
        assert!(requests.query("select 1").is_err());
        requests.sync();
        assert_eq!(requests.expected, [Expected::Sync]);
    }
}
