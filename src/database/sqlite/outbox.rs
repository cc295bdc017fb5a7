//! What a database file publishes: rows of `wamp_outbox`, which come and go with the transactions that write them.
//!
//! One transaction writes at a time, so the rows' numbers are in the order of the commits, and are their positions. Whoever
//! commits in this process wakes the reader; what other processes write is seen by `pragma data_version`.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, OptionalExtension as _, TransactionBehavior, params};

use crate::database::publishing::{check_message, message};
use crate::database::{Backlog, BatchBounds, NotRead, Problem, PublicationLimits, Replayer, Source};
use crate::router::database::{DatabasePublication, Replay, Replayed};
use crate::wamp::uri::matches;

/// How often is looked whether another process has written.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Rows are kept for a while after they were offered.
const KEPT: Duration = Duration::from_secs(600);
const KEPT_MAX: u64 = 100_000;

/// How many rows are looked at for those who resume, before others have their turn.
const LOOKED_AT_MAX: i64 = 5_000;

/// How often the rows are forgotten whose time is over.
const PRUNE_EVERY: Duration = Duration::from_secs(10);

/// Columns in their order: what is published, when; whether it was offered, or why it never will be; how many events led to it.
pub(super) const SCHEMA: &str = "
create table if not exists wamp_outbox (
    id integer primary key autoincrement,
    topic text not null,
    args text,
    kwargs text,
    options text,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    sent integer not null default 0,
    error text,
    depth integer not null default 0
);
create index if not exists wamp_outbox_unsent on wamp_outbox (id) where sent = 0;
create table if not exists wamp_outbox_pruned (upto integer not null);
insert into wamp_outbox_pruned select 0 where not exists (select 1 from wamp_outbox_pruned);
";

/// Something was committed in this process.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// How often.
    count: Mutex<u64>,
    changed: Condvar,
    /// Who waits for its turn to write, and may not wait for long.
    writers: AtomicUsize,
}

/// One of those who wait for their turn to write.
pub(super) struct Writer<'c>(&'c AtomicUsize);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Committed {
    /// Says that somebody is going to write, until this is dropped.
    pub(super) fn writer(&self) -> Writer<'_> {
        self.writers.fetch_add(1, Ordering::Relaxed);
        Writer(&self.writers)
    }

    /// Gives way to those who said so, but not for long. The file's own way to wait looks again ten times a second at first, so that
    /// who writes one transaction after the other is never met by it.
    pub(super) fn give_way(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.writers.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn notify(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there were more than so many, but not for long.
    fn wait(&self, seen: u64, patience: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout_while(count, patience, |count| *count == seen);
    }
}

/// Reads the outbox: for those who are there, and on a connection of its own for those who resume.
#[derive(Debug)]
pub(super) struct Outbox {
    connection: rusqlite::Connection,
    committed: Arc<Committed>,
    limits: PublicationLimits,
    pruned: Option<Instant>,
    /// All up to this one were offered, and whether they have to be marked so: others wrote, when that was to be done.
    offered: i64,
    is_to_be_marked: bool,
}

/// A row that was not offered.
struct Row {
    id: u64,
    topic: String,
    args: Option<String>,
    kwargs: Option<String>,
    options: Option<String>,
    depth: u32,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let id: i64 = row.get(0)?;
        let (topic, args, kwargs, options) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        // Who writes rows by other programs may put anything there.
        let depth = row.get_ref(5)?.as_i64().unwrap_or_default().clamp(0, u32::MAX.into()) as u32;
        Ok(Self { id: id as u64, topic, args, kwargs, options, depth })
    }
}

fn publication(row: &Row, limits: PublicationLimits) -> Result<DatabasePublication, String> {
    let publish = message(&row.topic, row.args.as_deref(), row.kwargs.as_deref(), row.options.as_deref());
    check_message(&publish, &row.topic, limits)?;
    Ok(DatabasePublication { position: row.id, depth: row.depth, publish: publish.into() })
}

impl Outbox {
    pub(super) fn open(
        path: &Path,
        committed: Arc<Committed>,
        limits: PublicationLimits,
    ) -> rusqlite::Result<Self> {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(super::BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection, committed, limits, pruned: None, offered: 0, is_to_be_marked: false })
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.prepare_cached("pragma data_version")?.query_row([], |row| row.get(0))
    }

    fn read(
        &self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> rusqlite::Result<Vec<DatabasePublication>> {
        let sql = "select id, topic, args, kwargs, options, depth from wamp_outbox where sent = 0 and id > ?2 order by id limit ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([bounds.publications_max as i64, self.offered])?;
        let (mut found, mut bytes, mut aside) = (Vec::new(), 0, Vec::new());
        while let Some(row) = rows.next()?
            && bytes < bounds.bytes_max
        {
            let id: i64 = row.get(0)?;
            let read = Row::read(row).map_err(|error| error.to_string());
            match read.and_then(|row| publication(&row, self.limits)) {
                Ok(publication) => {
                    bytes += publication.publish.len();
                    found.push(publication);
                }
                Err(problem) => aside.push((id, problem)),
            }
        }
        drop(rows);
        for (id, problem) in aside {
            problems.push(format!("row {id} of wamp_outbox: {problem}"));
            let _writer = self.committed.writer();
            let set_aside = "update wamp_outbox set sent = 1, error = ?2 where id = ?1";
            self.connection.prepare_cached(set_aside)?.execute(params![id, problem])?;
        }
        Ok(found)
    }

    fn prune(&mut self) -> rusqlite::Result<()> {
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_EVERY) {
            return Ok(());
        }
        self.pruned = Some(Instant::now());
        let _writer = self.committed.writer();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_over = "sent = 1 and error is null and (julianday('now') - julianday(at) > ?1 / 86400.0
                       or id <= (select max(id) from wamp_outbox) - ?2)";
        let bounds = params![KEPT.as_secs() as i64, KEPT_MAX as i64];
        // All up to the last one count as gone, whatever `at` says of those between.
        let last: Option<i64> = transaction
            .prepare_cached(&format!("select max(id) from wamp_outbox where {is_over}"))?
            .query_row(bounds, |row| row.get(0))?;
        if let Some(last) = last {
            transaction.execute("update wamp_outbox_pruned set upto = max(upto, ?1)", [last])?;
            transaction.execute(&format!("delete from wamp_outbox where {is_over}"), bounds)?;
        }
        transaction.commit()
    }
}

impl Replayer for Outbox {
    fn replay(&mut self, replay: &Replay, bounds: BatchBounds) -> Result<Replayed, NotRead> {
        self.read_again(replay, bounds)
            .map_err(|error| NotRead::Lost(Problem(format!("wamp_outbox cannot be read: {error}"))))?
    }
}

impl Outbox {
    fn read_again(
        &mut self,
        replay: &Replay,
        bounds: BatchBounds,
    ) -> rusqlite::Result<Result<Replayed, NotRead>> {
        // Of one moment.
        let transaction = self.connection.transaction()?;
        let kept = "select (select upto from wamp_outbox_pruned),
                           coalesce((select seq from sqlite_sequence where name = 'wamp_outbox'), 0)";
        let (pruned, last): (i64, i64) =
            transaction.prepare_cached(kept)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let after = i64::try_from(replay.after).unwrap_or(i64::MAX);
        if after < pruned || after > last {
            return Ok(Err(NotRead::NotKept));
        }
        let sql = "select id, topic, args, kwargs, options, depth from wamp_outbox
                   where id > ?1 and error is null order by id limit ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        let mut rows = statement.query(params![after, LOOKED_AT_MAX])?;
        let (mut publications, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        let mut upto = after;
        while let Some(row) = rows.next()? {
            let is_full = publications.len() >= bounds.publications_max || bytes >= bounds.bytes_max;
            if is_full {
                return Ok(Ok(Replayed { publications, upto: upto as u64, is_complete: false }));
            }
            upto = row.get(0)?;
            looked_at += 1;
            // What is no publication was set aside when its turn came, or will be.
            let topic = row.get_ref(1)?.as_str().unwrap_or_default();
            if matches(&replay.topic, replay.policy, topic)
                && let Ok(row) = Row::read(row)
                && let Ok(publication) = publication(&row, self.limits)
            {
                bytes += publication.publish.len();
                publications.push(publication);
            }
        }
        let is_complete = looked_at < LOOKED_AT_MAX;
        let upto = if is_complete { last } else { upto };
        Ok(Ok(Replayed { publications, upto: upto as u64, is_complete }))
    }
}

/// Whether others write.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

impl Outbox {
    /// Marks what was offered. While others write it stays to be done: it is not offered again for that.
    fn write_mark(&mut self) -> rusqlite::Result<()> {
        let _writer = self.committed.writer();
        let sql = "update wamp_outbox set sent = 1 where sent = 0 and id <= ?1";
        let marked = self.connection.prepare_cached(sql).and_then(|mut it| it.execute([self.offered]));
        self.is_to_be_marked = marked.as_ref().is_err_and(is_busy);
        if self.is_to_be_marked { Ok(()) } else { marked.map(drop) }
    }
}

impl Source for Outbox {
    fn next(
        &mut self,
        bounds: BatchBounds,
        wait: Duration,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let problem = |error: rusqlite::Error| Problem(format!("wamp_outbox cannot be read: {error}"));
        let until = Instant::now() + wait;
        loop {
            // Before it is read: what comes after this is waited for.
            let (seen, version) = (self.committed.count(), self.data_version().map_err(problem)?);
            let found = self.read(bounds, problems).map_err(problem)?;
            if !found.is_empty() || !problems.is_empty() {
                return Ok(found);
            }
            if self.is_to_be_marked {
                self.write_mark().map_err(problem)?;
            }
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Vec::new());
                }
                self.committed.wait(seen, left.min(LOOK_AGAIN));
                if self.committed.count() != seen || self.data_version().map_err(problem)? != version {
                    break;
                }
            }
        }
    }

    fn mark(&mut self, last: u64) -> Result<(), Problem> {
        let problem = |error: rusqlite::Error| Problem(format!("wamp_outbox cannot be written: {error}"));
        self.offered = self.offered.max(last as i64);
        self.write_mark().map_err(problem)?;
        match self.prune() {
            Err(error) if is_busy(&error) => Ok(()),
            pruned => pruned.map_err(problem),
        }
    }
}

/// What is to be published, counted up to a million.
pub(super) fn backlog(connection: &rusqlite::Connection) -> rusqlite::Result<Backlog> {
    let sql = "select (select count(*) from (select 1 from wamp_outbox where sent = 0 limit 1000000)),
        (select cast((julianday('now') - julianday(at)) * 86400000 as integer) from wamp_outbox where sent = 0 order by id limit 1)";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let (events, oldest_ms) = (row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?);
        // `at` is what who writes the row puts there.
        Ok(Backlog { events: events.max(0) as u64, oldest_ms: oldest_ms.unwrap_or_default().max(0) as u64 })
    })
}

/// Makes the triggers of `[[database.watch]]`: rows that come, change and go are published to the topic and `.on_insert`,
/// `.on_update`, `.on_delete`.
pub(super) fn watch(connection: &rusqlite::Connection, table: &str, topic: &str) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let there = "select 1 from sqlite_schema where type = 'table' and name = ?1";
    let is_there = connection.query_row(there, [table], |_| Ok(())).optional().map_err(text)?.is_some();
    if !is_there {
        return Err(format!("there is no table {table}"));
    }
    let mut columns = Vec::new();
    let mut statement = connection.prepare("select name from pragma_table_info(?1)").map_err(text)?;
    let mut rows = statement.query([table]).map_err(text)?;
    while let Some(row) = rows.next().map_err(text)? {
        columns.push(row.get::<_, String>(0).map_err(text)?);
    }
    let object = |of: &str| {
        let pair = |column: &String| format!("{}, {}", literal(column), value(of, column));
        let pairs: Vec<_> = columns.iter().map(pair).collect();
        format!("json_object({})", pairs.join(", "))
    };
    for (event, old, new) in [("insert", false, true), ("update", true, true), ("delete", true, false)] {
        let mut entries = vec![format!("'op', '{event}', 'table', {}", literal(table))];
        entries.extend(new.then(|| format!("'new', {}", object("new"))));
        entries.extend(old.then(|| format!("'old', {}", object("old"))));
        let name = name(&format!("wamp_watch_{table}_{event}"));
        let sql = format!(
            "drop trigger if exists {name};
             create trigger {name} after {event} on {} begin
                 insert into wamp_outbox (topic, kwargs) values ({}, json_object({}));
             end;",
            self::name(table),
            literal(&format!("{topic}.on_{event}")),
            entries.join(", "),
        );
        connection.execute_batch(&sql).map_err(text)?;
    }
    Ok(())
}

/// JSON has no bytes: those are told as hexadecimal digits.
fn value(of: &str, column: &str) -> String {
    let column = format!("{of}.{}", name(column));
    format!("case typeof({column}) when 'blob' then hex({column}) else {column} end")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
