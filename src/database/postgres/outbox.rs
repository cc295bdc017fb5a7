//! What a PostgreSQL database publishes: the one drainer of `wamp.outbox` (`install/version_1/drain.sql` has the argument).
//!
//! While it is awake it looks every few milliseconds; when nothing has come for a while it sleeps, and publishers notify.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Postgres;
use super::log::Log;
use super::replay::Replays;
use super::wire::{Connection, Deadline, Error, Parameter, Row, Statement};
use crate::database::inside::{Calls, DatabaseCall};
use crate::database::publishing::{PublicationLimits, check_message, excluding, message};
use crate::database::{BatchBounds, NotRead, Problem, Replayer as _, Source};
use crate::router::database::{DatabaseIndex, DatabasePublication, Replay, ReplayNumber};
use crate::wamp::MatchPolicy;

/// How often is looked while it is awake, and how long nothing comes until it sleeps.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const AWAKE: Duration = Duration::from_millis(100);
/// Behind a batch that was not full nothing is claimed for so long: a claim and its mark cost the server as much as ten
/// publications, and two commits, which those who publish wait for.
const PACE: Duration = Duration::from_millis(5);
/// Until all have ended that may have seen it awake: the first pause between two looks, and the longest.
const SETTLE_FIRST: Duration = Duration::from_millis(2);
const SETTLE_MAX: Duration = Duration::from_millis(20);
/// A sleeper looks although nobody has notified.
const LOOK_ASLEEP: Duration = Duration::from_secs(15);
const PRUNE_EVERY: Duration = Duration::from_secs(5);
/// Rows for one round of pruning; more are pruned in the next.
const PRUNE_MAX: i64 = 5_000;
/// Calls that are read at a time, and about how many bytes.
const CALLS_MAX: usize = 100;
const CALLS_BYTES_MAX: &str = "1048576";
/// How long the end may take.
const RESIGN: Duration = Duration::from_secs(2);
/// How long a statement may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is notified, on the channel of those who publish, when events go into the log of the server from now on, or are rows again.
const LOG: &str = "log";

const CLAIM: &str = "select position, kind, id, uri, args, kwargs, options, session, set_aside, depth
    from wamp.claim($1, $2, $3, $4)";
const UNSENT: &str = "select position, kind, id, uri, args, kwargs, options, session, null::text, depth
    from wamp.unsent($1, $5, $2, $3) where $4::int is not null";
const FEED: &str = "select wamp.feed($1, $2)";
/// Of transactions by the lower half of their numbers: what is more than half a round ahead of all is of the round before.
const VISIBLE: &str = "select coalesce(min(place) filter (where not pg_visible_in_snapshot(
        (case when number > next + 2147483648 then number - 4294967296
              when number < next - 2147483648 then number + 4294967296 else number end)::text::xid8, moment)) - 1, count(*))
    from (select moment, pg_snapshot_xmax(moment)::text::bigint as next from pg_current_snapshot() as moment) as now,
         lateral (select (next & ~4294967295::bigint) | low as number, place
                    from unnest($1::bigint[]) with ordinality as list (low, place)) as numbers";
const OPEN_CALLS: &str = "select id, procedure, args, kwargs, db_user, left_ms, has_function, depth
    from wamp.open_calls($1, $2, $3, $4)";
const MARK: &str = "select wamp.mark($1, $2, $3, $4, $5)";

/// How deep it sleeps.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Since then nothing has come.
    Awake(Instant),
    /// Publishers notify; it looked last then.
    Asleep(Instant),
}

/// The drainer.
pub(super) struct Outbox {
    wire: Connection,
    limits: PublicationLimits,
    epoch: String,
    claim: Statement,
    unsent: Statement,
    mark: Statement,
    feed: Option<Statement>,
    visible: Option<Statement>,
    /// Where to read what other routers have published since this one did, behind a position and up to another.
    missed: Option<(Replays, u64, u64)>,
    /// What an earlier leader left, behind this position.
    left_behind: Option<i64>,
    state: State,
    /// When something was claimed last, and it was all that there was.
    claimed: Option<Instant>,
    /// Positions that are no publications, and why: noted with the next mark.
    refused: Vec<(u64, String)>,
    pruned: Option<Instant>,
    /// The last position that was offered here, by any drainer of this router.
    offered: Arc<AtomicU64>,
    /// Who makes calls, if anybody does.
    calls: Option<Arc<Calls>>,
    open_calls: Statement,
    /// There may be some that nobody was given.
    has_calls: bool,
    /// Positions of the last batch, where it is to be noted that they were sent.
    unnoted: Option<Vec<u64>>,
    /// How many got them. Ends with the mark.
    receivers: HashMap<u64, u64>,
}

pub(super) fn problem(error: &Error) -> Problem {
    Problem(format!("wamp.outbox cannot be read: {error}"))
}

/// Whether the schema is there, and one that this router knows.
pub(super) fn look_for_schema(wire: &mut Connection, deadline: Deadline) -> Result<(), Problem> {
    let installed = wire.simple_value(super::install::INSTALLED_VERSION, deadline);
    let installed = installed.map_err(|error| problem(&error))?.and_then(|text| text.parse::<u32>().ok());
    let known = super::install::VERSIONS.last().map_or(0, |version| version.number);
    match installed {
        None => Err(Problem("it has no schema `wamp` to publish by: run `crosspoint db install`".to_owned())),
        Some(version) if version != known => Err(Problem(format!(
            "its schema `wamp` has version {version}, and this router knows version {known}: \
             run `crosspoint db upgrade`, or another router"
        ))),
        Some(_) => Ok(()),
    }
}

impl Outbox {
    pub(super) fn open(driver: &Postgres, limits: PublicationLimits) -> Result<Self, Problem> {
        let deadline = Deadline::after(PATIENCE);
        let mut wire = Connection::connect(&driver.settings, deadline).map_err(|error| problem(&error))?;
        look_for_schema(&mut wire, deadline)?;
        let listen = "listen wamp; set default_transaction_isolation = 'read committed'";
        wire.simple_query(listen, deadline, |_| {}).map_err(|error| problem(&error))?;
        let mut led = None;
        let lead = format!("select epoch, sent from wamp.lead('crosspoint {}')", std::process::id());
        let lead = wire.simple_query(&lead, deadline, |row| {
            led = Some((
                row.text(0).unwrap_or_default().to_owned(),
                row.text(1).and_then(|it| it.parse().ok()),
            ));
        });
        lead.map_err(|error| problem(&error))?;
        let Some((epoch, sent)) = led else {
            return Err(Problem("another router publishes what is in it".to_owned()));
        };
        let mut prepare = |sql| wire.prepare(sql, &[], deadline).map_err(|error| problem(&error));
        let (claim, unsent, mark) = (prepare(CLAIM)?, prepare(UNSENT)?, prepare(MARK)?);
        let open_calls = prepare(OPEN_CALLS)?;
        let state = State::Awake(Instant::now());
        let offered = driver.offered.load(Ordering::Acquire);
        let sent_by_all = sent.and_then(|sent: i64| u64::try_from(sent).ok()).unwrap_or_default();
        let missed = if offered > 0 && sent_by_all > offered {
            Some((Replays::open(driver, limits, PATIENCE)?, offered, sent_by_all))
        } else {
            None
        };
        let mut outbox = Self {
            wire,
            limits,
            epoch,
            claim,
            unsent,
            mark,
            feed: None,
            visible: None,
            missed,
            left_behind: Some(sent.unwrap_or_default()),
            state,
            claimed: None,
            refused: Vec::new(),
            pruned: None,
            offered: Arc::clone(&driver.offered),
            calls: driver.calls.clone(),
            open_calls,
            // Of an earlier router.
            has_calls: true,
            unnoted: driver.feedback.then(Vec::new),
            receivers: HashMap::new(),
        };
        outbox.say("awake")?;
        Ok(outbox)
    }

    fn say(&mut self, function: &str) -> Result<Option<String>, Problem> {
        let sql = format!("select wamp.{function}({})", self.epoch);
        self.wire.simple_value(&sql, Deadline::after(PATIENCE)).map_err(|error| problem(&error))
    }

    /// Rows with positions, and what was set aside.
    fn rows(
        &mut self,
        bounds: BatchBounds,
        left_behind: Option<i64>,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let (rows_max, bytes_max) = (bounds.publications_max.to_string(), bounds.bytes_max.to_string());
        // A row that fills a batch by itself is still taken.
        let row_bytes_max = bounds.bytes_max.to_string();
        let epoch = self.epoch.clone();
        let mut parameters: Vec<Parameter<'_>> = vec![
            epoch.as_str().into(),
            rows_max.as_str().into(),
            bytes_max.as_str().into(),
            row_bytes_max.as_str().into(),
        ];
        let after = left_behind.map(|after| after.to_string());
        let statement = match &after {
            Some(after) => {
                parameters.push(after.as_str().into());
                &self.unsent
            }
            None => &self.claim,
        };
        let (limits, mut found, mut refused, mut calls) = (self.limits, Vec::new(), Vec::new(), Vec::new());
        let (mut last_read, mut last_call) = (None, None);
        let makes_calls = self.calls.is_some();
        let run = self.wire.execute(statement, &parameters, Deadline::after(PATIENCE), |row| {
            last_read = row.text(0).and_then(|position| position.parse::<i64>().ok()).or(last_read);
            match read(row, limits) {
                Ok(Read::Event(publication)) => found.push(publication),
                Ok(Read::Call(position, _)) if makes_calls => last_call = Some(position),
                Ok(Read::Call(position, id)) => {
                    refused.push((position, "it is a call".to_owned()));
                    calls.push(id);
                }
                Err((None, problem)) => problems.push(problem),
                Err((Some(position), problem)) => {
                    problems.push(format!("position {position}: {problem}"));
                    refused.push((position, problem));
                }
            }
        });
        run.map_err(|error| problem(&error))?;
        if left_behind.is_some() {
            // Also behind what is no event.
            self.left_behind = last_read;
        }
        for id in calls {
            let error = "wamp.error.feature_not_supported";
            let text = "[\"this router makes no calls of a database\"]";
            let sql = format!("select wamp.finish_call({id}, '{text}', '{{}}', '{error}')");
            let done = self.wire.simple_query(&sql, Deadline::after(PATIENCE), |_| {});
            done.map_err(|error| problem(&error))?;
        }
        if last_call.is_some() {
            self.has_calls = true;
            if let State::Awake(_) = self.state {
                self.state = State::Awake(Instant::now());
            }
        }
        self.refused.append(&mut refused);
        if let Some(unnoted) = &mut self.unnoted {
            unnoted.extend(found.iter().map(|publication| publication.position));
        }
        // What has nothing before it to be offered is done with.
        if found.is_empty()
            && let Some(last) = self.refused.iter().map(|(position, _)| *position).chain(last_call).max()
        {
            self.mark(last)?;
        }
        Ok(found)
    }

    /// Takes what was notified; whether events may be elsewhere from now on.
    pub(super) fn take_notifications(&mut self) -> bool {
        let mut is_elsewhere = false;
        while let Some(notification) = self.wire.take_notification() {
            is_elsewhere |= notification.payload == LOG;
        }
        is_elsewhere
    }

    /// The connection, between two statements.
    pub(super) fn wire(&mut self) -> &mut Connection {
        &mut self.wire
    }

    /// Takes over rows out of the log.
    pub(super) fn feed(&mut self, messages: &str) -> Result<(), Problem> {
        let feed = match &self.feed {
            Some(feed) => feed,
            None => {
                let feed = self.wire.prepare(FEED, &[], Deadline::after(PATIENCE));
                self.feed.insert(feed.map_err(|error| problem(&error))?)
            }
        };
        let parameters: [Parameter<'_>; 2] = [self.epoch.as_str().into(), messages.into()];
        let fed = self.wire.execute(feed, &parameters, Deadline::after(PATIENCE), |_| {});
        fed.map(|_| ()).map_err(|error| problem(&error))
    }

    /// How many of these transactions others see, up to the first that they do not. The server sends them when they are in its
    /// log, and others see them a moment later, or, with synchronous replication, when a standby has them. Nothing gets a position
    /// that who reads it does not see.
    pub(super) fn visible(&mut self, transactions: &[u32]) -> Result<usize, Problem> {
        let visible = match &self.visible {
            Some(visible) => visible,
            None => {
                let visible = self.wire.prepare(VISIBLE, &[], Deadline::after(PATIENCE));
                self.visible.insert(visible.map_err(|error| problem(&error))?)
            }
        };
        let numbers: Vec<_> = transactions.iter().map(u32::to_string).collect();
        let (numbers, mut count) = (format!("{{{}}}", numbers.join(",")), 0);
        let looked =
            self.wire.execute(visible, &[numbers.as_str().into()], Deadline::after(PATIENCE), |row| {
                count = row.text(0).and_then(|count| count.parse().ok()).unwrap_or_default();
            });
        looked.map_err(|error| problem(&error))?;
        Ok(count)
    }

    /// There is nothing left in the log, and the slot goes; unless somebody wants events in it again.
    pub(super) fn close_log(&mut self, slot: &str) -> Result<(), Problem> {
        let sql = format!(
            "begin; select wamp.close_log({}); select pg_drop_replication_slot(slot_name) from pg_replication_slots \
             where slot_name = '{slot}' and (select prefix is null from wamp.log()); commit",
            self.epoch
        );
        let closed = self.wire.simple_query(&sql, Deadline::after(PATIENCE), |_| {});
        closed.map(|_| ()).map_err(|error| problem(&error))
    }

    /// What other routers have published since this one did: those who have resumed here, and were to miss nothing, have not
    /// had it.
    fn look_for_missed(
        &mut self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        while let Some((replays, after, upto)) = &mut self.missed {
            let replay = Replay {
                number: ReplayNumber::default(),
                database: DatabaseIndex(0),
                after: *after,
                topic: "".into(),
                policy: MatchPolicy::Prefix,
            };
            match replays.replay(&replay, bounds) {
                Ok(mut replayed) => {
                    replayed.publications.retain(|publication| publication.position <= *upto);
                    *after = replayed.upto;
                    if replayed.is_complete || replayed.upto >= *upto {
                        self.missed = None;
                    }
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

    /// Gives away calls that nobody was given, as many as may be under way.
    fn read_calls(&mut self) -> Result<(), Problem> {
        let Some(calls) = self.calls.as_deref().filter(|_| self.has_calls) else { return Ok(()) };
        let (room, under_way) = calls.room();
        if room == 0 {
            // It is looked again when some are answered.
            return Ok(());
        }
        let under_way: Vec<_> = under_way.iter().map(i64::to_string).collect();
        let (under_way, rows_max) = (format!("{{{}}}", under_way.join(",")), room.min(CALLS_MAX).to_string());
        let parameters: [Parameter<'_>; 4] = [
            self.epoch.as_str().into(),
            under_way.as_str().into(),
            rows_max.as_str().into(),
            CALLS_BYTES_MAX.into(),
        ];
        let mut count = 0;
        let run = self.wire.execute(&self.open_calls, &parameters, Deadline::after(PATIENCE), |row| {
            let text = |column: usize| row.text(column).map(str::to_owned);
            calls.give(DatabaseCall {
                id: row.text(0).and_then(|id| id.parse().ok()).unwrap_or_default(),
                procedure: text(1).unwrap_or_default(),
                args: text(2),
                kwargs: text(3),
                db_user: text(4).unwrap_or_default(),
                left: row.text(5).and_then(|left| left.parse().ok()).map(Duration::from_millis),
                has_function: row.text(6) == Some("t"),
                depth: depth(row.text(7)),
            });
            count += 1;
        });
        run.map_err(|error| problem(&error))?;
        self.has_calls = count > 0;
        Ok(())
    }

    /// What there is to be offered now; whether there was anything at all.
    pub(super) fn look(
        &mut self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        let missed = self.look_for_missed(bounds, problems)?;
        if !missed.is_empty() {
            return Ok(missed);
        }
        while let Some(after) = self.left_behind {
            let found = self.rows(bounds, Some(after), problems)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let found = self.rows(bounds, None, problems)?;
        self.read_calls()?;
        Ok(found)
    }

    /// Says that publishers have to notify, and waits until none is left that may not know.
    fn fall_asleep(
        &mut self,
        bounds: BatchBounds,
        problems: &mut Vec<String>,
    ) -> Result<Vec<DatabasePublication>, Problem> {
        self.say("doze")?;
        // In a transaction of its own.
        let horizon = self.say("horizon")?.unwrap_or_default();
        let settled = format!("select wamp.settled('{horizon}')");
        let mut pause = SETTLE_FIRST;
        loop {
            let is_settled = self.wire.simple_value(&settled, Deadline::after(PATIENCE));
            let is_settled = is_settled.map_err(|error| problem(&error))?.as_deref() == Some("t");
            // Behind the answer: what was visible by then is seen.
            let found = self.look(bounds, problems)?;
            if !found.is_empty() || !problems.is_empty() {
                self.wake_up()?;
                return Ok(found);
            }
            if is_settled {
                self.state = State::Asleep(Instant::now());
                return Ok(found);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(SETTLE_MAX);
        }
    }

    fn wake_up(&mut self) -> Result<(), Problem> {
        self.say("awake")?;
        self.state = State::Awake(Instant::now());
        Ok(())
    }

    /// Also finds out that from now on events are elsewhere: at once, where somebody says so.
    fn prune_and_look_for_log(&mut self) -> Result<(), Problem> {
        if self.take_notifications() | self.prune()? {
            self.look_for_log()?;
        }
        Ok(())
    }

    fn look_for_log(&mut self) -> Result<(), Problem> {
        match Log::prefix(self)? {
            Some(_) => {
                Err(Problem("its events are written into the log of the server from now on".to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Whether it was time to.
    pub(super) fn prune(&mut self) -> Result<bool, Problem> {
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_EVERY) {
            return Ok(false);
        }
        let sql = format!("select wamp.prune({}, rows_max => {PRUNE_MAX})", self.epoch);
        let gone =
            self.wire.simple_value(&sql, Deadline::after(PATIENCE)).map_err(|error| problem(&error))?;
        // There may be more of it.
        let is_done = gone.and_then(|text| text.parse::<i64>().ok()).is_none_or(|gone| gone < PRUNE_MAX);
        self.pruned = is_done.then(Instant::now);
        Ok(true)
    }
}

fn or_null(is_there: bool, text: &str) -> Parameter<'_> {
    if is_there { text.into() } else { Parameter::Null }
}

pub(super) enum Read {
    Event(DatabasePublication),
    /// A call that a statement wants to be made: its position, and its number.
    Call(u64, i64),
}

/// A row of [`CLAIM`]; or its position if it has one, and what is wrong with it.
pub(super) fn read(row: Row<'_>, limits: PublicationLimits) -> Result<Read, (Option<u64>, String)> {
    let text = |column: usize| row.text(column);
    let position = text(0).and_then(|position| position.parse::<u64>().ok());
    if let Some(reason) = text(8) {
        let (id, uri) = (text(2).unwrap_or_default(), text(3).unwrap_or_default());
        return Err((None, format!("row {id} of wamp.outbox, {uri}: {reason}")));
    }
    let Some(position) = position else { return Err((None, "a row without a position".to_owned())) };
    if text(1) != Some("event") {
        return Ok(Read::Call(position, text(2).and_then(|id| id.parse().ok()).unwrap_or_default()));
    }
    let wrong = |problem: String| (Some(position), problem);
    let topic = text(3).unwrap_or_default();
    let session = text(7).and_then(|session| session.parse::<u64>().ok());
    let options = match session {
        Some(session) => Some(excluding(text(6), session).map_err(wrong)?),
        None => text(6).map(str::to_owned),
    };
    let publish = message(topic, text(4), text(5), options.as_deref());
    check_message(&publish, topic, limits).map_err(wrong)?;
    Ok(Read::Event(DatabasePublication { position, depth: depth(text(9)), publish: publish.into() }))
}

/// Whoever publishes may have set it to anything.
fn depth(text: Option<&str>) -> u32 {
    let depth = text.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    u32::try_from(depth.max(0)).unwrap_or(u32::MAX)
}

/// A router that ends says so: publishers would go on to notify one that slept, and their commits to wait for each other.
impl Drop for Outbox {
    fn drop(&mut self) {
        let resign = format!("select wamp.resign({})", self.epoch);
        // What cannot be said any more is left to the next one that leads.
        let _ = self.wire.simple_value(&resign, Deadline::after(RESIGN));
    }
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
            match self.state {
                State::Awake(since) => {
                    if let Some(claimed) = self.claimed.take() {
                        std::thread::sleep(PACE.saturating_sub(claimed.elapsed()));
                    }
                    let begun = Instant::now();
                    let found = self.look(bounds, problems)?;
                    if !found.is_empty() || !problems.is_empty() {
                        self.state = State::Awake(Instant::now());
                        self.claimed = (found.len() < bounds.publications_max / 2).then_some(begun);
                        return Ok(found);
                    }
                    self.prune_and_look_for_log()?;
                    if since.elapsed() >= AWAKE {
                        let found = self.fall_asleep(bounds, problems)?;
                        if !found.is_empty() || !problems.is_empty() {
                            return Ok(found);
                        }
                    } else {
                        std::thread::sleep(LOOK_AGAIN);
                    }
                }
                State::Asleep(looked) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let notified = self.wire.wait_notification(Deadline::after(left));
                    if let Some(notification) = notified.map_err(|error| problem(&error))? {
                        if self.take_notifications() | (notification.payload == LOG) {
                            self.look_for_log()?;
                        }
                        self.wake_up()?;
                    } else if looked.elapsed() >= LOOK_ASLEEP {
                        // Also finds out whether the server still answers, and whether this one still leads.
                        self.prune_and_look_for_log()?;
                        self.wake_up()?;
                    }
                }
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
        }
    }

    fn wants_receivers(&self) -> bool {
        self.unnoted.is_some()
    }

    fn received(&mut self, receivers: &[(u64, u64)]) {
        self.receivers.extend(receivers.iter().copied());
    }

    fn mark(&mut self, last: u64) -> Result<(), Problem> {
        self.offered.fetch_max(last, Ordering::AcqRel);
        let (epoch, upto) = (self.epoch.clone(), last.to_string());
        let mut noted = std::mem::take(&mut self.refused);
        noted.retain(|(position, _)| *position <= last);
        let mut noted: Vec<(u64, Option<String>)> =
            noted.into_iter().map(|(position, problem)| (position, Some(problem))).collect();
        if let Some(unnoted) = &mut self.unnoted {
            noted.extend(
                unnoted.extract_if(.., |position| *position <= last).map(|position| (position, None)),
            );
        }
        let list = |texts: Vec<String>| format!("{{{}}}", texts.join(","));
        let positions = list(noted.iter().map(|(position, _)| position.to_string()).collect());
        let receivers = std::mem::take(&mut self.receivers);
        let count = |position: &u64| receivers.get(position).copied().unwrap_or_default().to_string();
        let receivers = list(noted.iter().map(|(position, _)| count(position)).collect());
        let quoted = |problem: &Option<String>| match problem {
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            None => "null".to_owned(),
        };
        let errors = list(noted.iter().map(|(_, problem)| quoted(problem)).collect());
        let is_noted = !noted.is_empty();
        let all: [Parameter<'_>; 5] = [
            epoch.as_str().into(),
            upto.as_str().into(),
            or_null(is_noted, &positions),
            or_null(is_noted, &receivers),
            or_null(is_noted, &errors),
        ];
        let run = self.wire.execute(&self.mark, &all, Deadline::after(PATIENCE), |_| {});
        run.map_err(|error| problem(&error))?;
        self.prune().map(|_| ())
    }
}
