//! Whether there is a pooler in between, and whether it takes the session away between transactions.

use std::fmt;

use super::connection::Connection;
use super::deadline::Deadline;
use super::error::Error;
use super::settings::Settings;

/// What is between this client and the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pooling {
    /// Nothing: the server is the one that was connected to.
    None,
    /// A pooler that keeps one server for one session, as far as can be seen.
    Session,
    /// A pooler that gives each transaction to some server.
    Transaction,
}

impl Pooling {
    /// Whether prepared statements, settings and LISTEN hold from one transaction to the next.
    #[must_use]
    pub fn keeps_sessions(self) -> bool {
        self != Self::Transaction
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "the database is reached directly",
            Self::Session => "the database is reached through a pooler that keeps sessions apart",
            Self::Transaction => {
                "the database is reached through a pooler in transaction mode (PgBouncer: pool_mode=transaction), \
                 which gives each transaction to another server, so that prepared statements, LISTEN and settings of \
                 the session get lost: connect to the server itself, or to a pool with pool_mode=session"
            }
        })
    }
}

/// So often it is looked whether a server changed hands.
const ROUNDS: usize = 3;

/// Finds out what is in between; `connection` must be idle, of `settings`, and outside a transaction.
///
/// A pooler makes up the process that it names at the start: behind one it is not that of `pg_backend_pid()`. Whether it
/// keeps sessions shows when a second session opens a transaction: if it gets the very server that the first one had a
/// moment ago, or the first one finds itself on another one, servers go from hand to hand.
///
/// # Errors
/// A statement failed, or took longer than it may: a pool of one server in transaction mode lets nobody in while a
/// transaction is open.
pub fn probe(connection: &mut Connection, settings: &Settings, deadline: Deadline) -> Result<Pooling, Error> {
    let first = backend(connection, deadline)?;
    if first == connection.process_id() {
        return Ok(Pooling::None);
    }
    let mut other = Connection::connect(settings, deadline)?;
    for _ in 0..ROUNDS {
        let before = backend(connection, deadline)?;
        other.simple_query("begin", deadline, |_| {})?;
        let taken = backend(&mut other, deadline)?;
        let moved = taken == before || before != first;
        other.simple_query("rollback", deadline, |_| {})?;
        let after = backend(connection, deadline)?;
        if moved || after != before {
            return Ok(Pooling::Transaction);
        }
    }
    Ok(Pooling::Session)
}

fn backend(connection: &mut Connection, deadline: Deadline) -> Result<i32, Error> {
    let process = connection.simple_value("select pg_catalog.pg_backend_pid()", deadline)?;
    process
        .and_then(|process| process.parse().ok())
        .ok_or_else(|| Error::protocol("pg_backend_pid() is no number"))
}
