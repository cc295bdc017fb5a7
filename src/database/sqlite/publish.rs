//! `publish(topic, args, kwargs, options)` in SQL: puts a row into the outbox, as part of the transaction that calls it.
#![allow(unsafe_code, reason = "a function that writes needs the connection that calls it, see below")]

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Error, params};

use crate::database::PublicationLimits;
use crate::database::publishing::{check_message, excluding, message};
use crate::router::database::Caller;

/// What the function has to know.
#[derive(Clone)]
pub(super) struct Publishing {
    pub(super) caller: Arc<Mutex<Option<Caller>>>,
    pub(super) limits: PublicationLimits,
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
        check_message(&publish, &topic, self.limits)
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
        let excluding = excluding(options.as_deref(), session);
        excluding.map(Some).map_err(|problem| refused(&format!("publish: {problem}")))
    }
}

fn refused(text: &str) -> Error {
    Error::UserFunctionError(text.into())
}
