//! What a database file publishes: rows of `wamp_outbox`, which come and go with the transactions that write them.
//!
//! One transaction writes at a time, so the rows' numbers are in the order of the commits, and are their positions. Whoever
//! commits in this process wakes the reader; what other processes write is seen by `pragma data_version`.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension as _, params};

use crate::database::publishing::{check_message, message};
use crate::database::{BatchBounds, Problem, PublicationLimits, Source};
use crate::router::database::DatabasePublication;

/// How often is looked whether another process has written.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Rows are kept for a while after they were offered.
const KEPT: Duration = Duration::from_secs(600);
const KEPT_MAX: u64 = 100_000;

/// How often the rows are forgotten whose time is over.
const PRUNE_EVERY: Duration = Duration::from_secs(10);

/// Columns in their order: what is published, who, when; whether it was offered, or why it never will be.
pub(super) const SCHEMA: &str = "
create table if not exists wamp_outbox (
    id integer primary key autoincrement,
    topic text not null,
    args text,
    kwargs text,
    options text,
    at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    sent integer not null default 0,
    error text
);
create index if not exists wamp_outbox_unsent on wamp_outbox (id) where sent = 0;
";

/// Something was committed in this process.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// How often.
    count: Mutex<u64>,
    changed: Condvar,
}

impl Committed {
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

/// Reads the outbox.
#[derive(Debug)]
pub(super) struct Outbox {
    connection: rusqlite::Connection,
    committed: Arc<Committed>,
    limits: PublicationLimits,
    pruned: Option<Instant>,
}

/// A row that was not offered.
struct Row {
    id: u64,
    topic: String,
    args: Option<String>,
    kwargs: Option<String>,
    options: Option<String>,
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
        Ok(Self { connection, committed, limits, pruned: None })
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.prepare_cached("pragma data_version")?.query_row([], |row| row.get(0))
    }

    fn read(
        &self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> rusqlite::Result<Vec<DatabasePublication>> {
        let sql =
            "select id, topic, args, kwargs, options from wamp_outbox where sent = 0 order by id limit ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([bounds.publications_max as i64])?;
        let (mut found, mut bytes, mut aside) = (Vec::new(), 0, Vec::new());
        while let Some(row) = rows.next()?
            && bytes < bounds.bytes_max
        {
            let id: i64 = row.get(0)?;
            let read = || -> rusqlite::Result<Row> {
                let (topic, args, kwargs, options) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok(Row { id: id as u64, topic, args, kwargs, options })
            };
            match read().map_err(|error| error.to_string()).and_then(|row| self.publication(&row)) {
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
            let set_aside = "update wamp_outbox set sent = 1, error = ?2 where id = ?1";
            self.connection.prepare_cached(set_aside)?.execute(params![id, problem])?;
        }
        Ok(found)
    }

    fn publication(&self, row: &Row) -> Result<DatabasePublication, String> {
        let publish = message(&row.topic, row.args.as_deref(), row.kwargs.as_deref(), row.options.as_deref());
        check_message(&publish, &row.topic, self.limits)?;
        Ok(DatabasePublication { position: row.id, publish: publish.into() })
    }

    fn prune(&mut self) -> rusqlite::Result<()> {
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_EVERY) {
            return Ok(());
        }
        self.pruned = Some(Instant::now());
        let sql = "delete from wamp_outbox where sent = 1 and error is null
                   and (julianday('now') - julianday(at) > ?1 / 86400.0
                        or id <= (select max(id) from wamp_outbox) - ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![KEPT.as_secs() as i64, KEPT_MAX as i64])?;
        Ok(())
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
        let sql = "update wamp_outbox set sent = 1 where sent = 0 and id <= ?1";
        let mark = self.connection.prepare_cached(sql).and_then(|mut it| it.execute([last as i64]));
        mark.map_err(problem)?;
        self.prune().map_err(problem)
    }
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
