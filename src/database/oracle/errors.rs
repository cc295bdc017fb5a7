//! What Oracle says, as a caller is told it.

use std::borrow::Cow;

use crate::database::{CallError, Problem, Results, Stopped};
use crate::router::database::Query;
use crate::wamp::codec::{Composer, OwnedPayload, Serializer};
use crate::wamp::error::uri;
use crate::wamp::uri::{UriLimits, UriRule, check};

/// An error that PL/SQL raised on purpose, and that names no URI.
const APPLICATION: &str = "crosspoint.error.application";

/// What the library of this program says when it finds no client library of Oracle.
const NO_CLIENT: i32 = 1047;

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Oracle(oracle::Error),
    /// The arguments do not fit.
    Arguments(String),
    /// The role of the caller has no user in the database.
    NoRole,
    /// The result is longer than it may be.
    TooLong,
    /// There is no session to be had for it.
    NoSession(Problem),
    Stopped(Stopped),
}

impl From<oracle::Error> for Failure {
    fn from(error: oracle::Error) -> Self {
        Self::Oracle(error)
    }
}

/// The number of an `ORA-` error.
pub(super) fn code(error: &oracle::Error) -> Option<i32> {
    // What is wrapped by the library of this program bears the number of what it wraps.
    error.db_error().map(oracle::DbError::code).filter(|code| *code != 0)
}

/// What the server said, without the places in its own code, which are nobody else's business.
pub(super) fn text(error: &oracle::Error) -> String {
    let message = error.db_error().map_or_else(|| error.to_string(), |known| known.message().to_owned());
    let end = message.find("\nORA-06512").or_else(|| message.find("\nHelp: http"));
    message[..end.unwrap_or(message.len())].trim_end().to_owned()
}

/// Whether nothing can be done by the session any more.
pub(super) fn is_lost(error: &oracle::Error) -> bool {
    matches!(error.dpi_code(), Some(1010 | 1067 | 1080)) || code(error).is_some_and(is_away)
}

/// The server, or the way to it, is not there.
fn is_away(code: i32) -> bool {
    matches!(
        code,
        18 | 20 | 22 | 28 | 31 | 45 | 602 | 603 | 609
            | 1012 | 1033 | 1034 | 1041 | 1089 | 1090 | 1092 | 2396 | 2399 | 3113 | 3114 | 3135
            | 12150..=12169 | 12171..=12699 | 28511 | 56600
    )
}

/// Package state that was thrown away because somebody compiled the package: nothing was done yet, and it works once more.
pub(super) fn is_discarded(error: &oracle::Error) -> bool {
    matches!(code(error), Some(4061 | 4065 | 4068))
}

/// The library of this program reads no column of type JSON.
pub(super) fn is_json_column(error: &oracle::Error) -> bool {
    error.kind() == oracle::ErrorKind::InternalError && error.to_string().contains("Oracle type JSON")
}

pub(super) fn is_break(error: &oracle::Error) -> bool {
    code(error) == Some(1013)
}

/// Why a database cannot be used.
pub(super) fn problem(error: &oracle::Error) -> Problem {
    if error.dpi_code() == Some(NO_CLIENT) {
        return Problem(
            "there is no client library of Oracle to be found (DPI-1047): install Oracle Instant Client Basic or Basic \
             Light, version 18 or newer, and the package libaio; then say where its libclntsh.so is with \
             `client_path` in the configuration, LD_LIBRARY_PATH or /etc/ld.so.conf.d"
                .to_owned(),
        );
    }
    Problem(text(error))
}

/// What a caller is told.
pub(super) fn call_error(failure: &Failure, query: &Query, results: &Results<'_>) -> CallError {
    let serializer = query.serializer;
    let error = match failure {
        Failure::Oracle(error) => error,
        Failure::Arguments(text) => return CallError::new(serializer, uri::INVALID_ARGUMENT, text),
        Failure::NoRole => {
            let text = "the role of the session has no user in the database";
            return CallError::new(serializer, uri::NOT_AUTHORIZED, text);
        }
        Failure::TooLong => {
            let text = "the result is longer than the database may answer; call with receive_progress, or ask for less";
            return CallError::new(serializer, uri::PAYLOAD_SIZE_EXCEEDED, text);
        }
        Failure::NoSession(Problem(text)) => return CallError::unavailable(serializer, text),
        Failure::Stopped(Stopped::Cancelled) => return CallError::cancelled(serializer),
        Failure::Stopped(Stopped::TimedOut) => return CallError::timed_out(serializer),
    };
    // A call that times out also breaks its session, and the number of that says less.
    if error.dpi_code() == Some(1067) {
        return CallError::timed_out(serializer);
    }
    let Some(code) = code(error) else {
        // The library of this program: values that do not go where they should, and sessions that are gone.
        if is_json_column(error) {
            let text = "a column of type JSON does not come out of a cursor: open it for json_serialize(column returning clob)";
            return CallError::new(serializer, "crosspoint.error.sql", text);
        }
        let error_uri = if is_lost(error) { uri::UNAVAILABLE } else { "crosspoint.error.sql" };
        return CallError::new(serializer, error_uri, &error.to_string());
    };
    let mut text = text(error);
    if is_break(error) {
        return if results.is_cancelled() {
            CallError::cancelled(serializer)
        } else {
            CallError::timed_out(serializer)
        };
    }
    if code == 20_999 {
        return raised(&text, serializer);
    }
    // What the application says is said as it stands; its number is beside it.
    if (20_000..=20_998).contains(&code)
        && let Some((_, said)) = text.split_once(": ")
    {
        text = said.to_owned();
    }
    let error_uri: Cow<'_, str> = match code {
        _ if is_lost(error) => uri::UNAVAILABLE.into(),
        3136 | 3156 | 12_170 => uri::TIMEOUT.into(),
        20_000..=20_998 => APPLICATION.into(),
        1031 | 1017 | 1045 | 1720 | 28_000 | 28_001 | 28_150 => uri::NOT_AUTHORIZED.into(),
        942 | 4043 => uri::NO_SUCH_PROCEDURE.into(),
        // The block was not compiled: what it calls is not there, or not like that any more.
        6550 if ["PLS-00201", "PLS-00302", "PLS-00306", "PLS-00904"].iter().any(|it| text.contains(it)) => {
            uri::NO_SUCH_PROCEDURE.into()
        }
        1403
        | 6502
        | 1400
        | 1407
        | 2290
        | 1722
        | 1426
        | 1438
        | 12_899
        | 1476
        | 1839..=1868
        | 40_441
        | 40_442 => uri::INVALID_ARGUMENT.into(),
        other => format!("crosspoint.error.sql.ora_{other:05}").into(),
    };
    let mut args = Composer::new(serializer);
    args.open_list();
    args.text(&text);
    args.close();
    let mut kwargs = Composer::new(serializer);
    kwargs.open_map();
    kwargs.key("code");
    kwargs.signed(code.into());
    kwargs.key("message");
    kwargs.text(&text);
    kwargs.close();
    let payload = OwnedPayload::new(serializer, args.finish(), kwargs.finish());
    CallError { uri: error_uri.as_ref().into(), payload }
}

/// `wamp.error(...)` and `crossbar.raise(...)`: an object of JSON behind the number.
fn raised(text: &str, serializer: Serializer) -> CallError {
    let message = text.split_once(": ").map_or(text, |(_, message)| message);
    let message = message.find("\nORA-").map_or(message, |end| &message[..end]);
    let said: serde_json::Value = serde_json::from_str(message).unwrap_or_default();
    let limits = UriLimits { bytes_max: 256, components_max: 32 };
    let error = said.get("uri").and_then(serde_json::Value::as_str);
    let Some(error) = error.filter(|error| check(error, UriRule::Loose, limits).is_ok()) else {
        return CallError::new(serializer, APPLICATION, message);
    };
    let written = |value: &serde_json::Value| {
        let mut composer = Composer::new(serializer);
        composer.json(&value.to_string()).ok()?;
        Some(composer.finish())
    };
    let args = match said.get("args").filter(|args| args.is_array()) {
        Some(args) => args.clone(),
        None => {
            let description = said.get("desc").filter(|it| it.is_string());
            serde_json::Value::Array(description.cloned().into_iter().collect())
        }
    };
    let kwargs = match (said.get("kwargs").filter(|kwargs| kwargs.is_object()), said.get("detail")) {
        (Some(kwargs), _) => kwargs.clone(),
        (None, Some(detail)) if !detail.is_null() => serde_json::json!({ "detail": detail }),
        _ => serde_json::json!({}),
    };
    let is_empty = |value: &serde_json::Value| {
        value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    };
    let bytes =
        |value: &serde_json::Value| if is_empty(value) { None } else { written(value) }.unwrap_or_default();
    CallError { uri: error.into(), payload: OwnedPayload::new(serializer, bytes(&args), bytes(&kwargs)) }
}
