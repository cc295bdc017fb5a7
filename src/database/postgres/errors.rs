//! What PostgreSQL says, as a caller is told it.

use super::wire::{Error, ServerError};
use crate::database::{CallError, Results, Stopped};
use crate::router::database::Query;
use crate::wamp::codec::{Composer, OwnedPayload, Serializer};
use crate::wamp::error::uri;
use crate::wamp::uri::{UriLimits, UriRule, check};

/// The SQLSTATE of `wamp.error()`: its HINT is a URI, its DETAIL an object with `args` and `kwargs`.
const RAISED: &str = "WA000";
/// RAISE without a code of its own.
const RAISE: &str = "P0001";
/// That URI where it says none.
const APPLICATION: &str = "crosspoint.error.application";
/// Before the SQLSTATE of an error that WAMP has no URI for.
const SQL: &str = "crosspoint.error.sql.";

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Wire(Error),
    Server(Box<ServerError>),
    /// The arguments do not fit.
    Arguments(String),
    /// The caller has no role in the database.
    NoRole(String),
    /// The result is longer than it may be.
    TooLong,
    Stopped(Stopped),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(server) => Self::Server(server),
            other => Self::Wire(other),
        }
    }
}

/// What a caller is told.
pub(super) fn call_error(failure: Failure, query: &Query, results: &Results<'_>) -> CallError {
    let serializer = query.serializer;
    match failure {
        Failure::Arguments(text) => CallError::new(serializer, uri::INVALID_ARGUMENT, &text),
        Failure::NoRole(text) => CallError::new(serializer, uri::NOT_AUTHORIZED, &text),
        Failure::TooLong => {
            let text = "the result is longer than the database may answer; call with receive_progress, or ask for less";
            CallError::new(serializer, uri::PAYLOAD_SIZE_EXCEEDED, text)
        }
        Failure::Stopped(Stopped::Cancelled) => CallError::cancelled(serializer),
        Failure::Stopped(Stopped::TimedOut) => CallError::timed_out(serializer),
        Failure::Server(server) => of_server(&server, serializer, results),
        Failure::Wire(Error::TimedOut { .. }) => CallError::timed_out(serializer),
        Failure::Wire(Error::TooLarge { .. }) => CallError::new(
            serializer,
            uri::PAYLOAD_SIZE_EXCEEDED,
            "a value is longer than the database takes",
        ),
        Failure::Wire(error) => match error.server() {
            Some(server) => of_server(server, serializer, results),
            // Where it is, and who, is for the log.
            None => CallError::unavailable(serializer, "the connection to the database was lost"),
        },
    }
}

fn of_server(server: &ServerError, serializer: Serializer, results: &Results<'_>) -> CallError {
    let code = server.sqlstate.as_str();
    let own;
    let error = match code {
        RAISED => return of_raised(server, serializer),
        "57014" if results.is_cancelled() => uri::CANCELED,
        "57014" => uri::TIMEOUT,
        RAISE => APPLICATION,
        // The second: it promised to write nothing.
        "42501" | "25006" => uri::NOT_AUTHORIZED,
        "42883" | "42P01" => uri::NO_SUCH_PROCEDURE,
        "23502" | "23514" => uri::INVALID_ARGUMENT,
        "3D000" => uri::UNAVAILABLE,
        _ => match code.get(..2) {
            Some("28" | "0P") => uri::NOT_AUTHORIZED,
            Some("22") => uri::INVALID_ARGUMENT,
            Some("08" | "53") => uri::UNAVAILABLE,
            Some("57") => uri::UNAVAILABLE,
            _ => {
                own = format!("{SQL}{code}");
                &own
            }
        },
    };
    let mut args = Composer::new(serializer);
    args.open_list();
    args.text(&server.message);
    args.close();
    // CONTEXT and positions are about the database's own code, and stay there.
    let mut kwargs = Composer::new(serializer);
    kwargs.open_map();
    let texts = [
        ("sqlstate", Some(&server.sqlstate)),
        ("message", Some(&server.message)),
        ("detail", server.detail.as_ref()),
        ("hint", server.hint.as_ref()),
        ("schema", server.schema.as_ref()),
        ("table", server.table.as_ref()),
        ("column", server.column.as_ref()),
        ("constraint", server.constraint.as_ref()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            kwargs.key(key);
            kwargs.text(text);
        }
    }
    kwargs.close();
    CallError { uri: error.into(), payload: OwnedPayload::new(serializer, args.finish(), kwargs.finish()) }
}

/// `wamp.error(uri, message, args, kwargs)`
fn of_raised(server: &ServerError, serializer: Serializer) -> CallError {
    let error = server.hint.as_deref().unwrap_or_default();
    let limits = UriLimits { bytes_max: 256, components_max: 32 };
    if check(error, UriRule::Loose, limits).is_err() {
        return CallError::new(serializer, APPLICATION, &server.message);
    }
    let detail: serde_json::Value =
        server.detail.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let written = |key: &str, is: fn(&serde_json::Value) -> bool| {
        let value = detail.get(key).filter(|value| is(value))?;
        let mut composer = Composer::new(serializer);
        composer.json(&value.to_string()).ok()?;
        Some(composer.finish())
    };
    let is_full = |value: &serde_json::Value| value.as_array().is_some_and(|list| !list.is_empty());
    let has_entries = |value: &serde_json::Value| value.as_object().is_some_and(|map| !map.is_empty());
    let (args, kwargs) = (written("args", is_full), written("kwargs", has_entries));
    if args.is_none() && kwargs.is_none() {
        return CallError::new(serializer, error, &server.message);
    }
    let payload = OwnedPayload::new(serializer, args.unwrap_or_default(), kwargs.unwrap_or_default());
    CallError { uri: error.into(), payload }
}
