//! WAL mode: publishers write events into the log of the server, and the drainer puts them into the outbox itself.
//!
//! Who publishes writes no row, touches no index, and leaves nothing to clean. The server keeps the log for a slot; out of that
//! come the messages of every transaction that has committed, in the order of the commits. They are put into `wamp.outbox`,
//! durably, before the server hears that it may let go of the log, and each once: `wamp.drain` has how far that is. From there on
//! everything is as it is without this: positions, replays, marks.

use std::time::{Duration, Instant};

use super::Postgres;
use super::outbox::{Outbox, problem};
use super::wire::{Connection, Deadline, Error, Replicated, Replication, Settings};
use crate::database::{BatchBounds, Problem, Source};
use crate::router::database::DatabasePublication;

/// How long the log is waited for, when nothing comes.
const LISTEN: Duration = Duration::from_millis(20);
/// The outbox has rows that did not come by the log: calls, and what was put back.
const LOOK_AT_ROWS: Duration = Duration::from_millis(100);
/// The server hears this often how far we are; it ends a stream that is silent for `wal_sender_timeout`, a minute at first.
const SAY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether events are to be rows again is looked for this often, if nobody says so; and while what is left is read.
const LOOK_FOR_END: Duration = Duration::from_secs(5);

/// What the slot of this database is called, and whether there is one that keeps anything.
const SLOT: &str =
    "select 'wamp_' || oid, exists (select from pg_replication_slots where slot_name = 'wamp_' || oid
    and wal_status is distinct from 'lost') from pg_database where datname = current_database()";

/// What was read is looked for again after this time until others see it, and then after twice that, up to [`LISTEN`].
const UNSEEN: Duration = Duration::from_millis(1);

/// A message in the order of the commits.
struct Logged {
    commit: u64,
    place: u64,
    /// The lower half of the number of its transaction.
    transaction: u32,
    /// A row of the outbox as JSON.
    row: String,
}

/// How the stream is read.
#[derive(Debug, Default)]
struct Reading {
    prefix: Vec<u8>,
    /// Of the transaction that is being read: its commit, its number, and the messages so far.
    transaction: Option<(u64, u32, u64)>,
    /// Behind the last transaction that was read to its end.
    behind: u64,
    /// All up to here was sent, as the server says from time to time: what other transactions write moves it on as well.
    end: u64,
}

impl Reading {
    /// A piece as pgoutput writes it (protocol version 1).
    fn take(&mut self, data: &[u8]) -> Option<Logged> {
        let number = |from: usize| Some(u64::from_be_bytes(data.get(from..from + 8)?.try_into().ok()?));
        match *data.first()? {
            // Its commit, when that was, its number.
            b'B' => {
                let transaction = u32::from_be_bytes(data.get(17..21)?.try_into().ok()?);
                self.transaction = Some((number(1)?, transaction, 0));
            }
            b'C' => {
                self.behind = number(10)?;
                self.transaction = None;
            }
            b'M' => {
                // Flags, where it is, the prefix and a zero, the length, the content.
                let is_transactional = data.get(1)? & 1 != 0;
                let rest = data.get(10..)?;
                let zero = rest.iter().position(|byte| *byte == 0)?;
                let content = rest.get(zero + 5..)?;
                let (commit, transaction, place) = self.transaction.as_mut().filter(|_| is_transactional)?;
                if rest[..zero] != *self.prefix {
                    return None;
                }
                *place += 1;
                let row = std::str::from_utf8(content).ok()?.to_owned();
                return Some(Logged { commit: *commit, place: *place, transaction: *transaction, row });
            }
            _ => {}
        }
        None
    }

    /// Up to where all is in the outbox, once what was taken is.
    fn done(&self) -> u64 {
        // Between transactions there is nothing of ours.
        if self.transaction.is_none() { self.behind.max(self.end) } else { self.behind }
    }
}

/// The drainer of a database whose events are in the log.
pub(super) struct Log {
    outbox: Outbox,
    stream: Option<Replication>,
    slot: String,
    reading: Reading,
    /// What was read and is not in the outbox, because others do not see it yet; and for how long that is waited for the next time.
    unfed: Vec<Logged>,
    unseen: Duration,
    /// All up to here is in the outbox.
    fed: u64,
    /// Nothing more is to come, and all is read once this is.
    ends_at: Option<u64>,
    said: Instant,
    looked: Option<Instant>,
    looked_for_end: Option<Instant>,
}

impl Log {
    /// Whether events are in the log of this database: the prefix by which they are known.
    pub(super) fn prefix(outbox: &mut Outbox) -> Result<Option<(String, bool)>, Problem> {
        let mut found = None;
        let looked = outbox.wire().simple_query(
            "select prefix, ends from wamp.log()",
            Deadline::after(PATIENCE),
            |row| found = row.text(0).map(|prefix| (prefix.to_owned(), row.text(1) == Some("t"))),
        );
        looked.map_err(|error| problem(&error))?;
        Ok(found)
    }

    pub(super) fn open(
        driver: &Postgres,
        mut outbox: Outbox,
        (prefix, ends): (&str, bool),
    ) -> Result<Self, Problem> {
        let mut slot = (String::new(), false);
        let looked = outbox.wire().simple_query(SLOT, Deadline::after(PATIENCE), |row| {
            slot = (row.text(0).unwrap_or_default().to_owned(), row.text(1) == Some("t"));
        });
        looked.map_err(|error| problem(&error))?;
        let (slot, is_there) = slot;
        if !is_there && !ends {
            return Err(Problem(format!(
                "its events are written into the log, and the slot {slot} that keeps it is gone, or was not read for \
                 longer than the server keeps it: run `crosspoint db install --log yes` again; what was written since is lost"
            )));
        }
        let begin = || {
            Self::begin(&driver.settings, &slot).map_err(|error| {
                let hint = "the role of the router needs REPLICATION";
                Problem(format!("the log of the server cannot be read: {error}; {hint}"))
            })
        };
        let stream = if is_there { Some(begin()?) } else { None };
        // Where there is nothing to read it has been read.
        let ends_at = stream.is_none().then_some(0);
        let reading = Reading { prefix: prefix.as_bytes().to_vec(), ..Reading::default() };
        Ok(Self {
            outbox,
            stream,
            slot,
            reading,
            unfed: Vec::new(),
            unseen: UNSEEN,
            fed: 0,
            ends_at,
            said: Instant::now(),
            looked: None,
            looked_for_end: None,
        })
    }

    fn begin(settings: &Settings, slot: &str) -> Result<Replication, Error> {
        let mut settings = settings.clone();
        settings.replication = true;
        let deadline = Deadline::after(PATIENCE);
        let connection = Connection::connect(&settings, deadline)?;
        let start = format!(
            "START_REPLICATION SLOT {slot} LOGICAL 0/0 \
             (proto_version '1', publication_names 'wamp', messages 'true')"
        );
        connection.into_replication(&start, deadline)
    }

    /// Reads the log until nothing comes, or there is as much as is offered at a time; but not for long, since what others write
    /// into the log may never end, and nothing else is done meanwhile.
    fn read(&mut self, bounds: BatchBounds, problems: &mut Vec<String>) -> Result<Vec<Logged>, Problem> {
        let Some(stream) = self.stream.as_mut() else {
            std::thread::sleep(LISTEN);
            return Ok(Vec::new());
        };
        let lost = |error: &Error| Problem(format!("the log of the server cannot be read: {error}"));
        let (mut found, mut bytes, mut wait) = (Vec::new(), 0, LISTEN);
        let until = Instant::now() + LISTEN;
        while found.len() < bounds.publications_max && bytes < bounds.bytes_max && Instant::now() < until {
            match stream.next(Deadline::after(wait)) {
                Ok(Replicated::Data { data, .. }) => {
                    if let Some(logged) = self.reading.take(data) {
                        bytes += logged.row.len();
                        found.push(logged);
                    }
                    // What is on its way is taken along.
                    wait = Duration::from_millis(1);
                }
                Ok(Replicated::KeepAlive { end, reply_wanted, .. }) => {
                    self.reading.end = end;
                    if reply_wanted {
                        self.said = self.said.checked_sub(SAY).unwrap_or(self.said);
                        break;
                    }
                }
                Ok(Replicated::TooLarge { bytes }) => {
                    problems.push(format!(
                        "a message of {bytes} bytes in the log is more than this router takes"
                    ));
                }
                Ok(Replicated::Ended) => return Err(Problem("the server has ended its log".to_owned())),
                Err(Error::TimedOut { .. }) => break,
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(found)
    }

    /// Puts what was read into the outbox, as soon as others see it, and tells the server; whether anything is there now.
    fn feed(&mut self) -> Result<bool, Problem> {
        let count = self.visible()?;
        if count > 0 {
            let mut messages = String::from("[");
            for (number, Logged { commit, place, row, .. }) in self.unfed[..count].iter().enumerate() {
                let comma = if number > 0 { "," } else { "" };
                let (high, low) = (commit >> 32, commit & 0xffff_ffff);
                messages.push_str(&format!("{comma}[\"{high:X}/{low:X}\",{place},{row}]"));
            }
            messages.push(']');
            self.outbox.feed(&messages)?;
            self.unfed.drain(..count);
        }
        if self.unfed.is_empty() {
            (self.fed, self.unseen) = (self.reading.done(), UNSEEN);
        } else if count > 0 {
            self.unseen = UNSEEN;
        } else {
            std::thread::sleep(self.unseen);
            self.unseen = (self.unseen * 2).min(LISTEN);
        }
        if self.said.elapsed() >= SAY || count > 0 {
            self.said = Instant::now();
            let done = self.fed;
            if let Some(stream) = self.stream.as_mut() {
                let said = stream.send_status(done, done, done, 0, false);
                said.map_err(|error| Problem(format!("the log of the server cannot be read: {error}")))?;
            }
        }
        Ok(count > 0)
    }

    /// How much of what was read others see, up to the first transaction that they do not.
    fn visible(&mut self) -> Result<usize, Problem> {
        let mut transactions: Vec<_> = self.unfed.iter().map(|logged| logged.transaction).collect();
        transactions.dedup();
        if transactions.is_empty() {
            return Ok(0);
        }
        let count = self.outbox.visible(&transactions)?;
        let Some(first) = transactions.get(count) else { return Ok(self.unfed.len()) };
        Ok(self.unfed.iter().position(|logged| logged.transaction == *first).unwrap_or_default())
    }

    /// Whether the log is still to be read; where it is not, and all of it was and has its position, the slot goes.
    fn look_for_end(&mut self) -> Result<(), Problem> {
        match (Self::prefix(&mut self.outbox)?, self.ends_at) {
            (Some((_, true)), None) => {
                let now = self
                    .outbox
                    .wire()
                    .simple_value("select pg_current_wal_insert_lsn() - '0/0'", Deadline::after(PATIENCE));
                self.ends_at = now.map_err(|error| problem(&error))?.and_then(|text| text.parse().ok());
            }
            (Some((_, true)), Some(ends_at)) if self.fed >= ends_at => {
                // The slot is in use as long as the stream is.
                if let Some(stream) = self.stream.take() {
                    let finished = stream.finish(Deadline::after(PATIENCE));
                    finished.map_err(|error| problem(&error))?;
                }
                self.outbox.close_log(&self.slot)?;
                return Err(rows_again());
            }
            (Some((_, false)), Some(_)) if self.stream.is_none() => {
                return Err(Problem(
                    "its events are written into the log of the server from now on".to_owned(),
                ));
            }
            (Some((_, false)), Some(_)) => self.ends_at = None,
            (Some(_), _) => {}
            (None, _) => return Err(rows_again()),
        }
        Ok(())
    }
}

fn rows_again() -> Problem {
    Problem("its events are rows again".to_owned())
}

impl Source for Log {
    fn next(
        &mut self,
        bounds: BatchBounds,
        wait: Duration,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let until = Instant::now() + wait;
        loop {
            if self.unfed.is_empty() {
                self.unfed = self.read(bounds, problems)?;
            }
            let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AT_ROWS);
            if self.feed()? || is_due {
                self.looked = Some(Instant::now());
                let found = self.outbox.look(bounds, problems)?;
                if !found.is_empty() || !problems.is_empty() {
                    // There may be more of it.
                    self.looked = None;
                    return Ok(found);
                }
                self.outbox.prune()?;
                // Behind a look that found nothing: what was read has its position.
                let is_told = self.outbox.take_notifications();
                let is_over = self.ends_at.is_some_and(|ends_at| self.fed >= ends_at);
                if is_told
                    || is_over
                    || self.looked_for_end.is_none_or(|looked| looked.elapsed() >= LOOK_FOR_END)
                {
                    self.looked_for_end = Some(Instant::now());
                    self.look_for_end()?;
                }
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
        }
    }

    fn wants_receivers(&self) -> bool {
        self.outbox.wants_receivers()
    }

    fn received(&mut self, receivers: &[(u64, u64)]) {
        self.outbox.received(receivers);
    }

    fn mark(&mut self, last: u64) -> Result<(), Problem> {
        self.outbox.mark(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(commit: u64) -> Vec<u8> {
        [&b"B"[..], &commit.to_be_bytes(), &[0; 12]].concat()
    }

    fn message(flags: u8, prefix: &str, content: &str) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&[b'M', flags], &[0; 8][..], prefix.as_bytes(), &[0], &length, content.as_bytes()].concat()
    }

    fn commit(commit: u64, end: u64) -> Vec<u8> {
        [&[b'C', 0], &commit.to_be_bytes()[..], &end.to_be_bytes(), &[0; 8]].concat()
    }

    #[test]
    fn only_committed_messages_that_bear_the_prefix_are_ours() {
        let mut reading = Reading { prefix: b"wamp secret".to_vec(), ..Reading::default() };
        let mut take = |data: &[u8]| reading.take(data).map(|it| (it.commit, it.place, it.row));
        assert_eq!(take(&message(1, "wamp secret", "{}")), None, "outside of a transaction");
        assert_eq!(take(&begin(70)), None);
        assert_eq!(take(&message(1, "wamp", "{}")), None, "anybody can write that");
        assert_eq!(take(&message(1, "wamp secret", "{1}")), Some((70, 1, "{1}".to_owned())));
        assert_eq!(take(&message(0, "wamp secret", "{}")), None, "not with the transaction");
        assert_eq!(take(&message(1, "wamp secret", "{2}")), Some((70, 2, "{2}".to_owned())));
        assert_eq!(take(&commit(70, 80)), None);
        assert_eq!(take(&begin(90)), None);
        assert_eq!(take(&message(1, "wamp secret", "{3}")), Some((90, 1, "{3}".to_owned())));
        for cut in 0..message(1, "wamp secret", "").len() {
            assert_eq!(take(&message(1, "wamp secret", "")[..cut]), None);
        }
        assert_eq!(reading.done(), 80, "the second one is not complete");
        reading.end = 100;
        assert_eq!(reading.done(), 80);
        reading.take(&commit(90, 95));
        assert_eq!(reading.done(), 100);
    }
}
