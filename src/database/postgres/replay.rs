//! What a PostgreSQL database has published before: `wamp.replay`, on a connection of its own.

use std::time::Duration;

use super::Postgres;
use super::outbox::{Read, look_for_schema, read};
use super::wire::{Connection, Deadline, Error, Parameter, Statement};
use crate::database::publishing::PublicationLimits;
use crate::database::{BatchBounds, NotRead, Problem, Replayer};
use crate::router::database::{Replay, Replayed};

/// How long the drainer waits for what other routers have published.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The columns that [`read`] knows, and behind them: up to where there is anything, and whether these rows were not all of it.
/// One statement sees one moment.
const REPLAY: &str = "
    select r.position, 'event', 0, r.uri, r.args, r.kwargs, r.options, r.session, null, r.depth, p.last, r.is_cut
      from wamp.progress() as p
      left join lateral wamp.replay($1::bigint, p.last, $2::text, $3::text, $4::int, $5::bigint) as r on true
     order by r.position";

/// What `wamp.replay` says where not all is kept.
const NOT_IN_WINDOW: &str = "WA002";

/// Reads what was published.
pub(super) struct Replays {
    wire: Connection,
    limits: PublicationLimits,
    statement: Statement,
    /// How long it may take to connect, and a statement.
    patience: Duration,
}

fn lost(error: &Error) -> Problem {
    Problem(format!("wamp.outbox cannot be read: {error}"))
}

impl Replays {
    pub(super) fn open(
        driver: &Postgres,
        limits: PublicationLimits,
        patience: Duration,
    ) -> Result<Self, Problem> {
        let deadline = Deadline::after(patience);
        let mut wire = Connection::connect(&driver.settings, deadline).map_err(|error| lost(&error))?;
        look_for_schema(&mut wire, deadline)?;
        let statement = wire.prepare(REPLAY, &[], deadline).map_err(|error| lost(&error))?;
        Ok(Self { wire, limits, statement, patience })
    }
}

impl Replayer for Replays {
    fn replay(&mut self, replay: &Replay, bounds: BatchBounds) -> Result<Replayed, NotRead> {
        let numbers =
            [replay.after.to_string(), bounds.publications_max.to_string(), bounds.bytes_max.to_string()];
        let [after, rows_max, bytes_max] = numbers.each_ref().map(String::as_str);
        let parameters: [Parameter<'_>; 5] = [
            after.into(),
            (&*replay.topic).into(),
            replay.policy.as_str().into(),
            rows_max.into(),
            bytes_max.into(),
        ];
        let limits = self.limits;
        let (mut publications, mut is_complete) = (Vec::new(), true);
        let (mut last, mut last_read) = (0, None);
        let run = self.wire.execute(&self.statement, &parameters, Deadline::after(self.patience), |row| {
            let number = |column: usize| row.text(column).and_then(|text| text.parse::<u64>().ok());
            last = number(10).unwrap_or_default();
            is_complete &= row.text(11) != Some("t");
            let Some(position) = number(0) else { return };
            last_read = Some(position);
            // What is no publication was set aside when its turn came, or will be.
            if let Ok(Read::Event(publication)) = read(row, limits) {
                publications.push(publication);
            }
        });
        match run {
            Ok(_) => {
                let upto = if is_complete { last } else { last_read.unwrap_or(last) };
                Ok(Replayed { publications, upto, is_complete })
            }
            Err(error) if error.sqlstate() == Some(NOT_IN_WINDOW) => Err(NotRead::NotKept),
            Err(error) => Err(NotRead::Lost(lost(&error))),
        }
    }
}
