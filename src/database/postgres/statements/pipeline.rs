//! Calls that are sent before those before them have ended: each is a group of messages and a transaction of its own, so an
//! error in one does not touch the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Failure, Form, Open, RowWriter, Target, call_error, deadline_of, parameter_of};
use crate::database::postgres::wire::{self, Deadline, Event, OwnedColumn, ResultFormat};
use crate::database::{NotTaken, Pipeline, Results, own};
use crate::router::database::Query;
use crate::wamp::codec::OwnedPayload;

/// Calls that take no longer than this on the average go together.
const QUICK_US: u32 = 2_000;

/// How much a part of a pipeline may say of its arguments.
const ARGUMENTS_BYTES_MAX: usize = 16 << 10;

/// How long calls of a procedure have taken, on all connections.
#[derive(Debug)]
pub(in crate::database::postgres) struct Pace(AtomicU32);

impl Default for Pace {
    /// Nobody knows: it is not quick.
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

impl Pace {
    /// One has taken so long.
    pub(super) fn took(&self, time: Duration) {
        let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX - 1);
        let before = self.0.load(Ordering::Relaxed);
        // What two connections say at the same moment may be what one has said.
        let after = if before == u32::MAX { time } else { before - before / 8 + time / 8 };
        self.0.store(after, Ordering::Relaxed);
    }

    /// How long, if that is quick.
    fn quick_us(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|pace| *pace <= QUICK_US)
    }
}

impl Target {
    /// How long a call takes, if calls may be sent together: they change nothing, are one row at most, and quick.
    pub(in crate::database::postgres) fn pace_us(&self) -> Option<u32> {
        match self {
            Self::Functions(functions, pace) if functions.iter().all(super::Function::changes_nothing) => {
                pace.quick_us()
            }
            _ => None,
        }
    }

    pub(super) fn pace(&self) -> Option<&Pace> {
        match self {
            Self::Functions(_, pace) => Some(pace),
            Self::Sql(..) => None,
        }
    }
}

/// Calls that were sent, and whose ends were not read. Ends with each of these.
#[derive(Debug, Default)]
pub(super) struct Posted {
    calls: VecDeque<(Form, Arc<[OwnedColumn]>)>,
    /// When the one before the next ended, or the first was sent.
    since: Option<Instant>,
}

impl Open {
    /// Writes a call behind what is written; `None` where it is no call of this kind, or something is to be asked before.
    fn write_call(&mut self, query: &Query, results: &Results<'_>) -> Option<(Form, Arc<[OwnedColumn]>)> {
        let latest = Arc::clone(&self.driver.types.lock().unwrap_or_else(PoisonError::into_inner));
        if !Arc::ptr_eq(&latest, &self.types) || self.identity.is_none() {
            return None;
        }
        let prepared = self.prepare(query).ok()?;
        if !prepared.is_read_only || prepared.is_procedure || prepared.form.is_many() {
            return None;
        }
        let known = self.known.get(&(prepared.sql.clone(), prepared.role.clone()))?.clone();
        if self.is_cursor(&known) {
            return None;
        }
        let texts = self.texts(&prepared, &known.parameters).ok()?;
        if texts.iter().flatten().map(String::len).sum::<usize>() > ARGUMENTS_BYTES_MAX {
            return None;
        }
        let mark = self.wire.requests().mark();
        let parameters: Vec<_> = texts.iter().map(parameter_of).collect();
        let written = self.identify(&prepared, results, Deadline::after(Duration::ZERO)).and_then(|()| {
            let requests = self.wire.requests();
            requests.bind("c", &known.name, &parameters, ResultFormat::Text)?;
            requests.execute("c", 0)?;
            requests.sync();
            Ok(())
        });
        if written.is_err() {
            self.wire.requests().take_back(mark);
            return None;
        }
        Some((prepared.form, known.columns))
    }
}

impl Pipeline for Open {
    fn post(&mut self, query: &Query, results: &Results<'_>) -> bool {
        let written = self.write_call(query, results);
        let is_written = written.is_some();
        self.posted.calls.extend(written);
        is_written
    }

    fn send(&mut self) {
        self.posted.since = Some(Instant::now());
        // Whoever takes the first one is told.
        let _ = self.wire.send();
    }

    fn wait(&mut self, patience: Duration) -> bool {
        // The first command says who calls; functions may say something long before they end.
        !matches!(self.wire.wait(1, Deadline::after(patience)), Err(wire::Error::TimedOut { .. }))
    }

    fn take(&mut self, query: &Query, results: &mut Results<'_>) -> Result<OwnedPayload, NotTaken> {
        let Some((form, columns)) = self.posted.calls.pop_front() else { return Err(NotTaken::Again) };
        let mut writer = RowWriter::of(query, form, &columns, self.driver.result_bytes_max);
        self.is_identifying = true;
        let read = self.read(&mut writer, None, results, deadline_of(results));
        self.used = Instant::now();
        let began = self.posted.since.replace(self.used);
        if let (Some(began), Some(pace)) = (began, own::<Target>(&query.procedure).and_then(Target::pace)) {
            pace.took(self.used.saturating_duration_since(began));
        }
        let Err(failure) = read else { return Ok(writer.finish()) };
        let is_in_time = results.time_left().is_none_or(|left| left > Duration::ZERO);
        let is_again = match &failure {
            Failure::Wire(wire::Error::TimedOut { .. }) => {
                // What is still to come of it would be taken for what comes next.
                self.is_abandoned = true;
                false
            }
            Failure::Wire(error) => error.ends_connection(),
            // It was stopped, and by nobody who meant it; what it gives has changed since it was prepared; what was prepared
            // is gone.
            Failure::Server(server) => match server.sqlstate.as_str() {
                "57014" => !results.is_cancelled() && is_in_time,
                "0A000" | "26000" => true,
                _ => false,
            },
            _ => false,
        };
        Err(if is_again { NotTaken::Again } else { NotTaken::Failed(call_error(failure, query, results)) })
    }

    fn pass_over(&mut self) {
        self.posted.calls.pop_front();
        let deadline = Deadline::after(super::GRACE);
        loop {
            match self.wire.next(deadline) {
                Ok(Event::Ready(_)) => break,
                Ok(_) => {}
                Err(_) => {
                    self.is_abandoned = true;
                    break;
                }
            }
        }
        self.posted.since = Some(Instant::now());
    }

    fn is_lost(&self) -> bool {
        self.is_abandoned || self.wire.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_known_after_the_first_call_and_follows_slowly() {
        let pace = Pace::default();
        assert!(pace.quick_us().is_none());
        pace.took(Duration::from_micros(300));
        assert!(pace.quick_us().is_some());
        pace.took(Duration::from_millis(8));
        assert!(pace.quick_us().is_some(), "one that waited for a lock");
        (0..8).for_each(|_| pace.took(Duration::from_millis(8)));
        assert!(pace.quick_us().is_none());
        (0..40).for_each(|_| pace.took(Duration::from_micros(300)));
        assert!(pace.quick_us().is_some());
        pace.took(Duration::from_secs(1 << 40));
        assert!(pace.quick_us().is_none());
    }
}
