//! `publish(topic, args, kwargs, options)` in SQL: puts a row into the outbox, as part of the transaction that calls it.
#![allow(unsafe_code, reason = "a function that writes needs the connection that calls it, see below")]

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Error, params};

use super::outbox::{check_message, message};
use crate::router::database::Caller;
use crate::wamp::codec::DecodeLimits;
use crate::wamp::uri::UriLimits;

/// What the function has to know.
#[derive(Clone)]
pub(super) struct Publishing {
    pub(super) caller: Arc<Mutex<Option<Caller>>>,
    pub(super) uri_limits: UriLimits,
    pub(super) decode_limits: DecodeLimits,
}

pub(super) fn define(connection: &rusqlite::Connection, publishing: &Publishing) -> rusqlite::Result<()> {
    // Those that are left out are null.
    for count in 1..=4 {
        let publishing = publishing.clone();
        connection.create_scalar_function("publish", count, FunctionFlags::SQLITE_UTF8, move |context| {
            publishing.publish(context)
        })?;
    }
    Ok(())
}

impl Publishing {
    /// The number of the row: `_event_id` of the event.
    fn publish(&self, context: &Context<'_>) -> rusqlite::Result<i64> {
        let text = |index: usize| -> rusqlite::Result<Option<String>> {
            if index < context.len() { context.get(index) } else { Ok(None) }
        };
        let topic = text(0)?.ok_or_else(|| refused("publish: the topic is null"))?;
        let (args, kwargs) = (text(1)?, text(2)?);
        let options = self.options(text(3)?)?;
        let publish = message(&topic, args.as_deref(), kwargs.as_deref(), options.as_deref());
        check_message(&publish, &topic, self.uri_limits, self.decode_limits)
            .map_err(|problem| refused(&format!("publish: {problem}")))?;
        // SAFETY: rusqlite asks that no reference to the connection gets to another thread. This one, and the statement made of
        // it, live in this function alone, on the thread that runs the statement which calls it.
        let connection = unsafe { context.get_connection() }?;
        let sql = "insert into wamp_outbox (topic, args, kwargs, options) values (?1, ?2, ?3, ?4)";
        connection.prepare(sql)?.execute(params![topic, args, kwargs, options])?;
        Ok(connection.last_insert_rowid())
    }

    /// Who calls does not get what the call publishes, unless `exclude_me` says otherwise.
    fn options(&self, options: Option<String>) -> rusqlite::Result<Option<String>> {
        let session = {
            let caller = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
            caller.as_ref().map(|caller| caller.session.0)
        };
        let Some(session) = session else { return Ok(options) };
        let mut map = match options {
            None => serde_json::Map::new(),
            Some(options) => serde_json::from_str(&options)
                .map_err(|error| refused(&format!("publish: the options are no object of JSON: {error}")))?,
        };
        if map.get("exclude_me") != Some(&serde_json::Value::Bool(false)) {
            let exclude = map.entry("exclude").or_insert_with(|| serde_json::Value::Array(Vec::new()));
            if let Some(exclude) = exclude.as_array_mut() {
                exclude.push(session.into());
            }
        }
        Ok(Some(serde_json::Value::Object(map).to_string()))
    }
}

fn refused(text: &str) -> Error {
    Error::UserFunctionError(text.into())
}
