//! What SQLite says, as a caller is told it.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ErrorCode;
use rusqlite::ffi;
use rusqlite::functions::FunctionFlags;

use crate::database::{CallError, Results, Stopped};
use crate::router::database::Query;
use crate::wamp::codec::{Composer, OwnedPayload, Serializer};
use crate::wamp::error::uri;
use crate::wamp::uri::{UriLimits, UriRule, check};

/// An error that SQL raised on purpose, and that is of nobody's making else.
const APPLICATION: &str = "crosspoint.error.application";

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    /// The arguments do not fit.
    Arguments(String),
    /// The result is longer than it may be.
    TooLong,
    Stopped(Stopped),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What `wamp_error(uri, message)` raises.
#[derive(Clone, Debug)]
pub(super) struct Raised {
    uri: String,
    message: String,
}

/// What was raised last on a connection: SQLite itself keeps of it no more than a text.
pub(super) type LastRaised = Arc<Mutex<Option<Raised>>>;

/// Defines `wamp_error`.
pub(super) fn define(connection: &rusqlite::Connection, last: LastRaised) -> rusqlite::Result<()> {
    connection.create_scalar_function("wamp_error", 2, FunctionFlags::SQLITE_UTF8, move |context| {
        let (uri, message) = (context.get::<String>(0)?, context.get::<Option<String>>(1)?);
        let text = format!("{uri}: {}", message.as_deref().unwrap_or_default());
        let raised = Raised { uri, message: message.unwrap_or_default() };
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(raised);
        Err::<bool, _>(rusqlite::Error::UserFunctionError(text.into()))
    })
}

/// An ERROR with a text, and what SQLite calls it.
fn error(serializer: Serializer, uri: &str, text: &str, code: Option<i32>) -> CallError {
    let Some(code) = code else { return CallError::new(serializer, uri, text) };
    let mut args = Composer::new(serializer);
    args.open_list();
    args.text(text);
    args.close();
    let mut kwargs = Composer::new(serializer);
    kwargs.open_map();
    kwargs.key("message");
    kwargs.text(text);
    kwargs.key("sqlite_code");
    kwargs.signed(code.into());
    kwargs.close();
    CallError { uri: uri.into(), payload: OwnedPayload::new(serializer, args.finish(), kwargs.finish()) }
}

pub(super) fn of_sqlite(failure: Failure, query: &Query, results: &Results<'_>) -> CallError {
    let serializer = query.serializer;
    let failure = match failure {
        Failure::Sqlite(failure) => failure,
        Failure::Arguments(text) => return CallError::new(serializer, uri::INVALID_ARGUMENT, &text),
        Failure::TooLong => {
            let text = "the result is longer than the database may answer; call with receive_progress, or ask for less";
            return CallError::new(serializer, uri::PAYLOAD_SIZE_EXCEEDED, text);
        }
        Failure::Stopped(Stopped::Cancelled) => return CallError::cancelled(serializer),
        Failure::Stopped(Stopped::TimedOut) => return CallError::timed_out(serializer),
    };
    let (code, text) = match failure {
        rusqlite::Error::SqliteFailure(code, text) => {
            let text = text.unwrap_or_else(|| ffi::code_to_str(code.extended_code).to_owned());
            (code, text)
        }
        other => return CallError::new(serializer, "crosspoint.error.sql", &other.to_string()),
    };
    let extended = Some(code.extended_code);
    match code.code {
        ErrorCode::OperationInterrupted if results.is_cancelled() => CallError::cancelled(serializer),
        ErrorCode::OperationInterrupted => CallError::timed_out(serializer),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            error(serializer, uri::UNAVAILABLE, "another process writes to the database", extended)
        }
        ErrorCode::CannotOpen
        | ErrorCode::NotADatabase
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::DiskFull => error(serializer, uri::UNAVAILABLE, &text, extended),
        ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly => {
            error(serializer, uri::NOT_AUTHORIZED, &text, extended)
        }
        ErrorCode::ConstraintViolation => match code.extended_code {
            ffi::SQLITE_CONSTRAINT_NOTNULL
            | ffi::SQLITE_CONSTRAINT_CHECK
            | ffi::SQLITE_CONSTRAINT_DATATYPE => error(serializer, uri::INVALID_ARGUMENT, &text, extended),
            // RAISE of a trigger.
            ffi::SQLITE_CONSTRAINT_TRIGGER => error(serializer, APPLICATION, &text, extended),
            ffi::SQLITE_CONSTRAINT_UNIQUE
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_ROWID => {
                error(serializer, "crosspoint.error.sql.constraint_unique", &text, extended)
            }
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => {
                error(serializer, "crosspoint.error.sql.constraint_foreign_key", &text, extended)
            }
            _ => error(serializer, "crosspoint.error.sql.constraint", &text, extended),
        },
        ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange => {
            error(serializer, uri::INVALID_ARGUMENT, &text, extended)
        }
        _ => error(serializer, "crosspoint.error.sql", &text, extended),
    }
}

/// What SQL raised with a URI of its own.
pub(super) fn of_raised(raised: &Raised, serializer: Serializer) -> CallError {
    let Raised { uri, message } = raised;
    let limits = UriLimits { bytes_max: 256, components_max: 32 };
    if check(uri, UriRule::Loose, limits).is_err() {
        return CallError::new(serializer, APPLICATION, &format!("{uri}: {message}"));
    }
    CallError::new(serializer, uri, message)
}
