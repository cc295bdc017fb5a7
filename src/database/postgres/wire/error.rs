//! What can go wrong, by who can do something about it.

use std::fmt;
use std::io;

use super::settings::SettingsError;

/// Why something was not done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server let nobody in with what was given, or did not prove that it knows the password.
    Authentication {
        /// The method that the server asked for, in the words of `pg_hba.conf`.
        method: &'static str,
        /// What is wrong and what to do.
        problem: String,
        /// What the server said.
        server: Option<Box<ServerError>>,
    },
    /// The connection is over: by the server, by the network, or by what went wrong before.
    Closed {
        /// What happened.
        problem: String,
        /// The server's last words.
        server: Option<Box<ServerError>>,
    },
    /// No address could be connected to.
    Connect(Vec<Attempt>),
    /// This client was called in a way that it does not allow; the connection is as it was.
    Misuse(&'static str),
    /// The server does not keep to the protocol. The connection is over.
    Protocol(String),
    /// The server refused a request; the connection is as good as before.
    Server(Box<ServerError>),
    /// The settings, or files that they name, are wrong.
    Settings(SettingsError),
    /// The deadline passed. What was waited for can still be waited for.
    TimedOut {
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// TLS could not be agreed on, or a certificate is not good.
    Tls(String),
    /// A message is larger than `message_bytes_max`.
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
}

/// An address that was tried, and what came of it.
#[derive(Debug)]
pub struct Attempt {
    /// The host as in the settings.
    pub host: String,
    /// The address, if the name has one.
    pub address: Option<String>,
    /// Why it was not this one.
    pub error: Error,
}

/// An ErrorResponse or NoticeResponse with all its fields.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerError {
    /// ERROR, FATAL, PANIC, WARNING, NOTICE, DEBUG, INFO or LOG, never translated.
    pub severity: String,
    /// Five characters: appendix A of PostgreSQL's manual.
    pub sqlstate: String,
    /// One line.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<String>,
    /// Where in a statement that a function made.
    pub internal_position: Option<String>,
    /// That statement.
    pub internal_query: Option<String>,
    /// The functions that were running.
    pub context: Option<String>,
    /// The schema that it is about.
    pub schema: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The type.
    pub data_type: Option<String>,
    /// The constraint.
    pub constraint: Option<String>,
    /// The source file of PostgreSQL.
    pub file: Option<String>,
    /// Its line.
    pub line: Option<String>,
    /// Its function.
    pub routine: Option<String>,
}

impl Error {
    /// What the server said, if it said something.
    #[must_use]
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(server) => Some(server),
            Self::Authentication { server, .. } | Self::Closed { server, .. } => server.as_deref(),
            Self::Connect(attempts) => attempts.iter().rev().find_map(|attempt| attempt.error.server()),
            _ => None,
        }
    }

    /// The SQLSTATE, if the server gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|server| server.sqlstate.as_str())
    }

    /// Whether the connection can be used no more.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        !matches!(self, Self::Misuse(_) | Self::Server(_) | Self::TimedOut { .. } | Self::TooLarge { .. })
    }

    pub(super) fn protocol(problem: impl Into<String>) -> Self {
        Self::Protocol(problem.into())
    }

    pub(super) fn closed(problem: impl Into<String>) -> Self {
        Self::Closed { problem: problem.into(), server: None }
    }

    /// A socket that no longer works.
    pub(super) fn broken(what: &'static str, error: &io::Error) -> Self {
        Self::closed(format!("{what} the server failed: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication { method, problem, server } => {
                write!(f, "not let in ({method}): {problem}")?;
                said(f, server.as_deref())
            }
            Self::Closed { problem, server } => {
                write!(f, "the connection to the database is over: {problem}")?;
                said(f, server.as_deref())
            }
            Self::Connect(attempts) => {
                write!(f, "the database cannot be reached")?;
                for (index, attempt) in attempts.iter().enumerate() {
                    write!(f, "{} {attempt}", if index == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
            Self::Misuse(problem) => write!(f, "the client was used wrongly: {problem}"),
            Self::Protocol(problem) => {
                write!(f, "the server does not keep to PostgreSQL's protocol: {problem}")
            }
            Self::Server(server) => server.fmt(f),
            Self::Settings(error) => error.fmt(f),
            Self::TimedOut { waiting_for } => write!(f, "{waiting_for} took longer than it may"),
            Self::Tls(problem) => write!(f, "TLS: {problem}"),
            Self::TooLarge { what, bytes, bytes_max } => write!(
                f,
                "{what} has {bytes} bytes, more than message_bytes_max={bytes_max}: ask for less at once, or raise it"
            ),
        }
    }
}

fn said(f: &mut fmt::Formatter<'_>, server: Option<&ServerError>) -> fmt::Result {
    server.map_or(Ok(()), |server| write!(f, "; the server said: {server}"))
}

impl std::error::Error for Error {}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) if *address != self.host => write!(f, "{} ({address}): ", self.host)?,
            _ => write!(f, "{}: ", self.host)?,
        }
        self.error.fmt(f)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

impl ServerError {
    /// Reads the fields: a letter and a text each, until a letter that is zero.
    ///
    /// Texts that are no UTF-8 are kept as far as they are: before a database is chosen the server writes in the
    /// encoding of its own.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut error = Self::default();
        let mut severity = None;
        let mut rest = body;
        loop {
            let (&letter, after) = rest.split_first()?;
            if letter == 0 {
                break;
            }
            let end = after.iter().position(|&byte| byte == 0)?;
            let text = String::from_utf8_lossy(&after[..end]).into_owned();
            rest = &after[end + 1..];
            match letter {
                b'S' => error.severity = text,
                b'V' => severity = Some(text),
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'P' => error.position = Some(text),
                b'p' => error.internal_position = Some(text),
                b'q' => error.internal_query = Some(text),
                b'W' => error.context = Some(text),
                b's' => error.schema = Some(text),
                b't' => error.table = Some(text),
                b'c' => error.column = Some(text),
                b'd' => error.data_type = Some(text),
                b'n' => error.constraint = Some(text),
                b'F' => error.file = Some(text),
                b'L' => error.line = Some(text),
                b'R' => error.routine = Some(text),
                // The manual: fields of other letters are to be ignored.
                _ => {}
            }
        }
        // `S` may be translated; servers before 9.6, and poolers, have no other.
        if let Some(severity) = severity {
            error.severity = severity;
        }
        Some(error)
    }

    /// Whether the server ends the session with it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let body =
            b"SFEHLER\0VERROR\0C23505\0Mdouble\0Dkey\0Hno\0sapi\0titem\0cid\0dint4\0nitem_pkey\0Zunknown\0\0";
        let error = ServerError::read(body).unwrap();
        assert_eq!(error.severity, "ERROR");
        assert_eq!(error.sqlstate, "23505");
        assert_eq!(error.constraint.as_deref(), Some("item_pkey"));
        assert_eq!(error.to_string(), "ERROR 23505: double (key); no");
        assert!(!error.is_last());
        for cut in 0..body.len() {
            assert_eq!(ServerError::read(&body[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn attempts_are_all_told() {
        let attempt = |host: &str, address: Option<&str>| Attempt {
            host: host.to_owned(),
            address: address.map(str::to_owned),
            error: Error::TimedOut { waiting_for: "connecting" },
        };
        let error = Error::Connect(vec![attempt("a", Some("10.0.0.1:5432")), attempt("/run", Some("/run"))]);
        assert_eq!(
            error.to_string(),
            "the database cannot be reached: a (10.0.0.1:5432): connecting took longer than it may; /run: connecting took longer than it may"
        );
    }
}
