//! What a database of Oracle publishes: the one drainer of `wamp_outbox` (`install/version_1/drain.sql`).
//!
//! While it is awake it looks every few milliseconds; when nothing has come for a while it says that it sleeps, and publishers
//! wake it. Those that had looked before that may not: for them it goes on looking for a while, and then every second.
//!
//! A call that a statement makes is a row as well, which only says that there is one: what is called is in `wamp_call`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oracle::Row;

use super::driver::{LOOK, Oracle};
use super::errors::{code, problem};
use super::install;
use super::subprograms::quoted;
use super::values::{Cell, long_text};
use crate::database::inside::{Calls, DatabaseCall};
use crate::database::publishing::{PublicationLimits, check_message, excluding, message};
use crate::database::{Backlog, BatchBounds, NotRead, Problem, Replayer, Source};
use crate::router::database::{DatabaseIndex, DatabasePublication, Replay, ReplayNumber, Replayed};
use crate::wamp::options::MatchPolicy;
use crate::wamp::uri::matches;

/// How often is looked while it is awake, and how long nothing comes until it sleeps.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const AWAKE: Duration = Duration::from_millis(200);
/// How long, and how often, is looked for those who may not know that it sleeps.
const DOZING: Duration = Duration::from_secs(2);
const LOOK_DOZING: Duration = Duration::from_millis(100);
/// The longest sleep: somebody may have taken longer than that to commit, or may not wake it at all.
const SLEEP_SECONDS: u32 = 1;
const PRUNE_EVERY: Duration = Duration::from_secs(5);
/// Rows for one round of pruning; more are pruned in the next.
const PRUNE_MAX: i64 = 5_000;
/// How many rows are looked at for those who resume, before others have their turn.
const LOOKED_AT_MAX: u64 = 5_000;
/// Calls that are read at a time, and about how many bytes.
const CALLS_MAX: usize = 100;
const CALLS_BYTES_MAX: usize = 1 << 20;
/// How long the end of it may take.
const RELEASE: Duration = Duration::from_secs(2);

/// Short values come with their row; only long ones are LOBs, each of which is asked for by itself.
const COLUMNS: &str = "position, topic, session_id,
    case when dbms_lob.getlength(args) <= 1000 then to_char(args) end,
    case when dbms_lob.getlength(args) > 1000 then args end,
    case when dbms_lob.getlength(kwargs) <= 1000 then to_char(kwargs) end,
    case when dbms_lob.getlength(kwargs) > 1000 then kwargs end,
    case when dbms_lob.getlength(options) <= 1000 then to_char(options) end,
    case when dbms_lob.getlength(options) > 1000 then options end, kind, id, depth";

/// The same of a call; and how long its caller still waits.
const CALL_COLUMNS: &str = "uri, db_user, on_procedure,
    case when dbms_lob.getlength(args) <= 1000 then to_char(args) end,
    case when dbms_lob.getlength(args) > 1000 then args end,
    case when dbms_lob.getlength(kwargs) <= 1000 then to_char(kwargs) end,
    case when dbms_lob.getlength(kwargs) > 1000 then kwargs end,
    cast(timeout_ms - extract(day from (systimestamp - called_at)) * 86400000
        - extract(hour from (systimestamp - called_at)) * 3600000
        - extract(minute from (systimestamp - called_at)) * 60000
        - extract(second from (systimestamp - called_at)) * 1000 as number(18)), depth";

/// What was not offered yet, and how old the oldest of it is in milliseconds.
const BACKLOG: &str = "cast(count(*) as number(18)),
    cast(nvl(extract(day from (systimestamp - min(published_at))) * 86400000
        + extract(hour from (systimestamp - min(published_at))) * 3600000
        + extract(minute from (systimestamp - min(published_at))) * 60000
        + extract(second from (systimestamp - min(published_at))) * 1000, 0) as number(18))";
/// No more of it is counted.
const BACKLOG_MAX: u32 = 1_000_000;

/// What is not answered.
const IS_OPEN: &str = "case when finished_at is null then id end";

/// How deep it sleeps.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Since then nothing has come.
    Awake(Instant),
    /// Publishers wake it since then, those that know.
    Dozing(Instant),
    Asleep,
}

/// The drainer, and who reads again.
pub(super) struct Outbox {
    connection: oracle::Connection,
    owner: String,
    limits: PublicationLimits,
    /// `None`: it does not drain.
    epoch: Option<i64>,
    /// The last position that was given away.
    after: u64,
    state: State,
    pruned: Option<Instant>,
    /// Positions that other routers have published since this one did: behind the first, up to the second.
    missed: Option<(u64, u64)>,
    /// The last position that was offered here, by any drainer of this router.
    offered: Arc<AtomicU64>,
    /// Who makes calls, if anybody does.
    calls: Option<Arc<Calls>>,
    /// There may be some that nobody was given.
    has_calls: bool,
    /// The last position that is a call's.
    last_call: u64,
    /// How many sessions got what is marked next, by position, where that is to be noted.
    receivers: Option<Vec<(u64, u64)>>,
}

/// What is wrong with the session or with what is installed.
fn away(error: &oracle::Error) -> Problem {
    let Problem(text) = problem(error);
    Problem(format!("wamp_outbox cannot be read: {text}"))
}

/// Whether the packages are there, and those that this router knows.
pub(super) fn look_for_packages(connection: &oracle::Connection, owner: &str) -> Result<(), Problem> {
    let owner = quoted(owner);
    let sql = format!("select max(version) from {owner}.wamp_version");
    let installed = match connection.query_row_as::<Option<i64>>(&sql, &[]) {
        Err(error) if code(&error) == Some(942) => None,
        other => other.map_err(|error| away(&error))?,
    };
    let known = install::VERSIONS.last().map_or(0, |version| i64::from(version.number));
    match installed {
        None => Err(Problem(format!(
            "there is no package wamp in the schema {owner} to publish by: run `crosspoint db install`, \
             or say whose it is with `wamp_schema`"
        ))),
        Some(version) if version != known => Err(Problem(format!(
            "its package wamp has version {version}, and this router knows version {known}: \
             run `crosspoint db upgrade`, or another router"
        ))),
        Some(_) => Ok(()),
    }
}

/// How much was not offered yet.
pub(super) fn backlog(connection: &oracle::Connection, owner: &str) -> Result<Backlog, Problem> {
    let owner = quoted(owner);
    let sql = format!(
        "select {BACKLOG} from
        (select published_at from {owner}.wamp_outbox
          where case when position is null and error is null then id end is not null
            and kind = 'event' and rownum <= {BACKLOG_MAX}
         union all
         select published_at from {owner}.wamp_outbox
          where position > (select sent from {owner}.wamp_state)
            and error is null and kind = 'event' and rownum <= {BACKLOG_MAX})"
    );
    let (events, oldest_ms) =
        connection.query_row_as::<(i64, i64)>(&sql, &[]).map_err(|error| away(&error))?;
    Ok(Backlog { events: events.max(0).unsigned_abs(), oldest_ms: oldest_ms.max(0).unsigned_abs() })
}

impl Outbox {
    /// To read again what was published.
    pub(super) fn open(driver: &Oracle, limits: PublicationLimits) -> Result<Self, Problem> {
        let connection = driver.open("")?;
        look_for_packages(&connection, &driver.owner)?;
        let owner = quoted(&driver.owner);
        let state = State::Awake(Instant::now());
        let (epoch, after, pruned, missed) = (None, 0, None, None);
        let offered = Arc::clone(&driver.offered);
        // Of an earlier router.
        let (calls, has_calls, last_call) = (driver.calls.clone(), true, 0);
        let receivers = driver.feedback.then(Vec::new);
        Ok(Self {
            connection,
            owner,
            limits,
            epoch,
            after,
            state,
            pruned,
            missed,
            offered,
            calls,
            has_calls,
            last_call,
            receivers,
        })
    }

    /// To drain: as the only one.
    pub(super) fn lead(driver: &Oracle, limits: PublicationLimits) -> Result<Self, Problem> {
        let mut outbox = Self::open(driver, limits)?;
        let who = format!("crosspoint {}", std::process::id());
        let sql = format!("begin :r := {}.wamp_drain.lead(:who); end;", outbox.owner);
        let led = || -> oracle::Result<Option<i64>> {
            let statement = outbox.connection.execute_named(&sql, &[("r", &None::<i64>), ("who", &who)])?;
            statement.bind_value("r")
        };
        outbox.epoch = led().map_err(|error| away(&error))?;
        if outbox.epoch.is_none() {
            return Err(Problem(
                "another router publishes what is in it, or has done so a moment ago".to_owned(),
            ));
        }
        let sql = format!("select sent from {}.wamp_state", outbox.owner);
        let sent: i64 = outbox.connection.query_row_as(&sql, &[]).map_err(|error| away(&error))?;
        outbox.after = sent as u64;
        let offered = outbox.offered.load(Ordering::Acquire);
        outbox.missed = (offered > 0 && outbox.after > offered).then_some((offered, outbox.after));
        outbox.say_sleeps(false)?;
        Ok(outbox)
    }

    fn epoch(&self) -> i64 {
        self.epoch.unwrap_or_default()
    }

    /// Runs a procedure of the drainer.
    fn run(&self, call: &str, parameters: &[(&str, &dyn oracle::sql_type::ToSql)]) -> Result<(), Problem> {
        let sql = format!("begin {}.wamp_drain.{call}; end;", self.owner);
        let ran = self
            .connection
            .set_call_timeout(Some(LOOK))
            .and_then(|()| self.connection.execute_named(&sql, parameters).map(|_| ()));
        ran.map_err(|error| away(&error))
    }

    /// Runs a function of it.
    fn count(&self, call: &str, most: i64) -> Result<i64, Problem> {
        let sql = format!("begin :r := {}.wamp_drain.{call}(:epoch, :most); end;", self.owner);
        let ran = || -> oracle::Result<i64> {
            self.connection.set_call_timeout(Some(LOOK))?;
            let epoch = self.epoch();
            let parameters: [(&str, &dyn oracle::sql_type::ToSql); 3] =
                [("r", &None::<i64>), ("epoch", &epoch), ("most", &most)];
            Ok(self
                .connection
                .execute_named(&sql, &parameters)?
                .bind_value::<_, Option<i64>>("r")?
                .unwrap_or(0))
        };
        ran().map_err(|error| away(&error))
    }

    fn say_sleeps(&self, asleep: bool) -> Result<(), Problem> {
        self.run("sleeps(:epoch, :asleep)", &[("epoch", &self.epoch()), ("asleep", &i64::from(asleep))])
    }

    /// What other routers have published since this one did: those who have resumed here, and were to miss nothing, have not
    /// had it.
    fn look_for_missed(
        &mut self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        while let Some((after, upto)) = self.missed {
            let (number, database) = (ReplayNumber::default(), DatabaseIndex(0));
            let replay = Replay { number, database, after, topic: "".into(), policy: MatchPolicy::Prefix };
            match self.replay(&replay, bounds) {
                Ok(mut replayed) => {
                    replayed.publications.retain(|publication| publication.position <= upto);
                    let is_done = replayed.is_complete || replayed.upto >= upto;
                    self.missed = (!is_done).then_some((replayed.upto, upto));
                    if !replayed.publications.is_empty() {
                        return Ok(replayed.publications);
                    }
                }
                Err(NotRead::NotKept) => {
                    let text = "another router published what is not kept any more: subscribers here miss it";
                    problems.push(text.to_owned());
                    self.missed = None;
                }
                Err(NotRead::Lost(problem)) => return Err(problem),
            }
        }
        Ok(Vec::new())
    }

    /// What is there now: what has a position and was not given away, or else what waits for one.
    fn look(
        &mut self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let missed = self.look_for_missed(bounds, problems)?;
        if !missed.is_empty() {
            return Ok(missed);
        }
        let found = self.read(bounds, problems)?;
        if !found.is_empty() || !problems.is_empty() {
            return Ok(found);
        }
        if self.count("claim", bounds.publications_max as i64)? == 0 {
            return Ok(found);
        }
        let found = self.read(bounds, problems)?;
        self.read_calls()?;
        Ok(found)
    }

    fn read(
        &mut self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let sql = format!(
            "select {COLUMNS} from {}.wamp_outbox
             where position > :after and sent_at is null and error is null
             order by position fetch first {} rows only",
            self.owner, bounds.publications_max
        );
        let (mut found, mut bytes, mut aside, mut calls) = (Vec::new(), 0, Vec::new(), Vec::new());
        let mut read = || -> oracle::Result<u64> {
            self.connection.set_call_timeout(Some(LOOK))?;
            let mut after = self.after;
            let mut statement = self.connection.statement(&sql).lob_locator().build()?;
            for row in statement.query_named(&[("after", &(self.after as i64))])? {
                let row = row?;
                let (position, publication) = publication(&row, self.limits)?;
                after = position;
                if row.get::<_, Option<String>>(9)?.as_deref() == Some("call") {
                    calls.push((position, row.get::<_, i64>(10)?));
                    continue;
                }
                match publication {
                    Ok(publication) => {
                        bytes += publication.publish.len();
                        found.push(publication);
                    }
                    Err(problem) => aside.push((position, problem)),
                }
                if bytes >= bounds.bytes_max {
                    break;
                }
            }
            Ok(after)
        };
        self.after = read().map_err(|error| away(&error))?;
        for (position, problem) in aside {
            let parameters: [(&str, &dyn oracle::sql_type::ToSql); 3] =
                [("epoch", &self.epoch()), ("position", &(position as i64)), ("error", &problem)];
            self.run("set_aside(:epoch, :position, :error)", &parameters)?;
            problems.push(format!("position {position} of wamp_outbox: {problem}"));
        }
        if let Some((last, _)) = calls.last() {
            (self.last_call, self.has_calls) = (*last, true);
            if self.calls.is_none() {
                calls.iter().try_for_each(|(_, id)| self.refuse(*id)).map_err(|error| away(&error))?;
            }
            // What has nothing before it to be offered is done with.
            if found.is_empty() {
                self.mark(*last)?;
            }
        }
        Ok(found)
    }

    /// Answers a call that nobody makes.
    fn refuse(&self, id: i64) -> oracle::Result<()> {
        let sql = format!(
            "declare\n    l_schema varchar2(128);\n    l_package varchar2(128);\n    l_procedure varchar2(128);\nbegin
    {}.wamp_drain.finish_call(:id, :args, :kwargs, :error, l_schema, l_package, l_procedure);\n    commit;\nend;",
            self.owner
        );
        let (args, kwargs) = (long_text("[\"this router makes no calls of a database\"]"), long_text("{}"));
        let error = long_text("wamp.error.feature_not_supported");
        let parameters: [(&str, &dyn oracle::sql_type::ToSql); 4] =
            [("id", &id), ("args", &args), ("kwargs", &kwargs), ("error", &error)];
        self.connection.execute_named(&sql, &parameters)?;
        Ok(())
    }

    /// Gives away calls that nobody was given, as many as may be under way.
    fn read_calls(&mut self) -> Result<(), Problem> {
        let Some(calls) = self.calls.clone().filter(|_| self.has_calls) else {
            self.has_calls = false;
            return Ok(());
        };
        let (room, under_way) = calls.room();
        if room == 0 {
            // It is looked again when some are answered.
            return Ok(());
        }
        let given = self.give_calls(&calls, room.min(CALLS_MAX), &under_way);
        self.has_calls = given.map_err(|error| away(&error))? > 0;
        Ok(())
    }

    fn give_calls(&self, calls: &Calls, room: usize, under_way: &[i64]) -> oracle::Result<usize> {
        self.connection.set_call_timeout(Some(LOOK))?;
        let owner = &self.owner;
        let sql = format!(
            "select id from {owner}.wamp_call
             where {IS_OPEN} is not null and exists (select 1 from {owner}.wamp_state where epoch = :epoch)
             order by {IS_OPEN} fetch first {} rows only",
            room + under_way.len()
        );
        let open = self.connection.query_as_named::<i64>(&sql, &[("epoch", &self.epoch())])?;
        let under_way: HashSet<i64> = under_way.iter().copied().collect();
        let mut open: Vec<i64> = open.collect::<oracle::Result<_>>()?;
        open.retain(|id| !under_way.contains(id));
        open.truncate(room);
        let sql = format!("select {CALL_COLUMNS} from {owner}.wamp_call where id = :id");
        let (mut given, mut bytes) = (0, 0);
        for id in open {
            if bytes >= CALLS_BYTES_MAX {
                break;
            }
            let mut statement = self.connection.statement(&sql).lob_locator().build()?;
            let row = match statement.query_row_named(&[("id", &id)]) {
                // Somebody has removed it meanwhile.
                Err(error) if error.kind() == oracle::ErrorKind::NoDataFound => continue,
                row => row?,
            };
            let (args, kwargs) = (text_of(&row, 3)?, text_of(&row, 5)?);
            let left = row.get::<_, Option<i64>>(7)?;
            bytes += args.as_ref().map_or(0, String::len) + kwargs.as_ref().map_or(0, String::len);
            given += 1;
            calls.give(DatabaseCall {
                id,
                procedure: row.get(0)?,
                args,
                kwargs,
                db_user: row.get(1)?,
                left: left.map(|left| Duration::from_millis(left.max(0).unsigned_abs())),
                has_function: row.get::<_, Option<String>>(2)?.is_some(),
                depth: depth_of(&row, 8)?,
            });
        }
        Ok(given)
    }

    fn prune(&mut self) -> Result<(), Problem> {
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_EVERY) {
            return Ok(());
        }
        // There may be more of it.
        let is_done = self.count("prune", PRUNE_MAX)? < PRUNE_MAX;
        self.pruned = is_done.then(Instant::now);
        Ok(())
    }

    fn read_again(
        &mut self,
        replay: &Replay,
        bounds: BatchBounds,
    ) -> oracle::Result<Result<Replayed, NotRead>> {
        let connection = &self.connection;
        connection.set_call_timeout(Some(LOOK))?;
        // All of one moment.
        connection.execute("set transaction read only", &[])?;
        let sql = format!("select pruned, last from {}.wamp_state", self.owner);
        let (pruned, last): (i64, i64) = connection.query_row_as(&sql, &[])?;
        let after = i64::try_from(replay.after).unwrap_or(i64::MAX);
        if after < pruned || after > last {
            return Ok(Err(NotRead::NotKept));
        }
        let sql = format!(
            "select {COLUMNS} from {}.wamp_outbox where position > :after and error is null and kind = 'event'
             order by position fetch first {LOOKED_AT_MAX} rows only",
            self.owner
        );
        let (mut publications, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        let mut upto = replay.after;
        let mut statement = connection.statement(&sql).lob_locator().build()?;
        for row in statement.query_named(&[("after", &after)])? {
            if publications.len() >= bounds.publications_max || bytes >= bounds.bytes_max {
                return Ok(Ok(Replayed { publications, upto, is_complete: false }));
            }
            let row = row?;
            let topic: String = row.get(1)?;
            upto = row.get::<_, i64>(0)? as u64;
            looked_at += 1;
            if !matches(&replay.topic, replay.policy, &topic) {
                continue;
            }
            // What is no publication was set aside when its turn came, or will be.
            if let (_, Ok(publication)) = publication(&row, self.limits)? {
                bytes += publication.publish.len();
                publications.push(publication);
            }
        }
        let is_complete = looked_at < LOOKED_AT_MAX;
        let upto = if is_complete { last as u64 } else { upto };
        Ok(Ok(Replayed { publications, upto, is_complete }))
    }
}

/// How many events led to it.
fn depth_of(row: &Row, column: usize) -> oracle::Result<u32> {
    let depth = row.get::<_, Option<i64>>(column)?.unwrap_or_default();
    Ok(u32::try_from(depth.max(0)).unwrap_or(u32::MAX))
}

/// A text that is in its row, or in a LOB behind that.
fn text_of(row: &Row, short: usize) -> oracle::Result<Option<String>> {
    match row.get::<_, Option<String>>(short)? {
        Some(text) => Ok(Some(text)),
        None => match row.get::<_, Cell>(short + 1)? {
            Cell::Clob(lob) => super::values::read_clob(lob).map(Some),
            _ => Ok(None),
        },
    }
}

/// Its position; and what it publishes, or why that cannot be.
fn publication(
    row: &Row,
    limits: PublicationLimits,
) -> oracle::Result<(u64, Result<DatabasePublication, String>)> {
    let position = row.get::<_, i64>(0)? as u64;
    let topic: String = row.get(1)?;
    let session: Option<String> = row.get(2)?;
    let (args, kwargs, options) = (text_of(row, 3)?, text_of(row, 5)?, text_of(row, 7)?);
    let depth = depth_of(row, 11)?;
    let made = || -> Result<DatabasePublication, String> {
        let session = session.and_then(|session| session.parse::<u64>().ok());
        let options = match session {
            Some(session) => Some(excluding(options.as_deref(), session)?),
            None => options,
        };
        let publish = message(&topic, args.as_deref(), kwargs.as_deref(), options.as_deref());
        check_message(&publish, &topic, limits)?;
        Ok(DatabasePublication { position, depth, publish: publish.into() })
    };
    Ok((position, made()))
}

impl Source for Outbox {
    fn next(
        &mut self,
        bounds: BatchBounds,
        wait: Duration,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let until = Instant::now() + wait;
        loop {
            self.read_calls()?;
            if matches!(self.state, State::Asleep) {
                self.run("wait(:seconds)", &[("seconds", &SLEEP_SECONDS)])?;
            }
            let last_call = self.last_call;
            let found = self.look(bounds, problems)?;
            let is_something = !found.is_empty() || !problems.is_empty();
            if is_something || self.last_call > last_call {
                if !matches!(self.state, State::Awake(_)) {
                    self.say_sleeps(false)?;
                }
                self.state = State::Awake(Instant::now());
            }
            if is_something {
                return Ok(found);
            }
            self.prune()?;
            match self.state {
                State::Awake(since) if since.elapsed() >= AWAKE && !self.has_calls => {
                    self.say_sleeps(true)?;
                    self.state = State::Dozing(Instant::now());
                }
                State::Awake(_) => std::thread::sleep(LOOK_AGAIN),
                State::Dozing(since) if since.elapsed() >= DOZING => self.state = State::Asleep,
                State::Dozing(_) => std::thread::sleep(LOOK_DOZING),
                State::Asleep => {}
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
        }
    }

    fn wants_receivers(&self) -> bool {
        self.receivers.is_some()
    }

    fn received(&mut self, receivers: &[(u64, u64)]) {
        self.receivers.iter_mut().for_each(|all| all.extend_from_slice(receivers));
    }

    fn mark(&mut self, last: u64) -> Result<(), Problem> {
        self.offered.fetch_max(last, Ordering::AcqRel);
        // Calls behind the last publication are not offered to anybody.
        let upto = last.max(self.last_call) as i64;
        let epoch = self.epoch();
        match self.receivers.as_mut().map(std::mem::take) {
            None => self.run("mark(:epoch, :upto)", &[("epoch", &epoch), ("upto", &upto)])?,
            Some(receivers) => {
                let receivers = long_text(&serde_json::json!(receivers).to_string());
                let all: [(&str, &dyn oracle::sql_type::ToSql); 3] =
                    [("epoch", &epoch), ("upto", &upto), ("receivers", &receivers)];
                self.run("mark(:epoch, :upto, :receivers)", &all)?;
            }
        }
        self.prune()
    }
}

impl Replayer for Outbox {
    fn replay(&mut self, replay: &Replay, bounds: BatchBounds) -> Result<Replayed, NotRead> {
        let read = self.read_again(replay, bounds);
        // Nothing was written; the moment is over.
        let ended = self.connection.commit();
        read.and_then(|read| ended.map(|()| read)).map_err(|error| NotRead::Lost(away(&error)))?
    }
}

impl Drop for Outbox {
    /// So that the next router need not wait until it counts as dead.
    fn drop(&mut self) {
        if let Some(epoch) = self.epoch {
            let _ = self.connection.set_call_timeout(Some(RELEASE));
            let sql = format!("begin {}.wamp_drain.release(:epoch); end;", self.owner);
            let _ = self.connection.execute_named(&sql, &[("epoch", &epoch)]);
        }
    }
}
