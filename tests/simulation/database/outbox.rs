//! What a database publishes: positions, batches that are dispatched one after the other and marked when they have been
//! offered to everybody, and what of it is read again for those who resume.

use std::collections::VecDeque;
use std::ops::Range;

use crosspoint::router::database::{
    DatabaseBatch, DatabaseEvent, DatabaseIndex, DatabasePublication, NotReplayed, REPLAYS_UNDER_WAY_MAX,
    Receivers, Replay, ReplayNumber, Replayed,
};
use crosspoint::router::peer::RealmIndex;
use crosspoint::wamp::MatchPolicy;
use crosspoint::wamp::codec::Serializer;

use super::{Database, TOPICS};
use crate::content::{Content, DATABASE};
use crate::history::matches;
use crate::random::Random;
use crate::world::{Sent, Traffic};

/// How many are dispatched at a time, at most.
pub const BATCH_MAX: usize = 4;

/// How many threads read what was published.
const READERS: usize = 2;

/// An event of a database.
#[derive(Debug)]
pub struct Published {
    pub position: u64,
    pub topic: &'static str,
    pub exclude: Vec<u64>,
    pub is_retained: bool,
    pub padding: usize,
    text: Box<str>,
}

impl Published {
    /// Whether a session gets it that subscribed to a pattern.
    pub fn is_for(&self, session: u64, policy: MatchPolicy, pattern: &str) -> bool {
        matches(policy, pattern, self.topic) && !self.exclude.contains(&session)
    }
}

/// Events that were dispatched together.
#[derive(Debug)]
pub struct Dispatched {
    /// Their places among all.
    pub places: Range<usize>,
    /// When a core took them.
    pub taken_at: Option<u64>,
    /// Some were dispatched before.
    pub is_again: bool,
}

/// A batch was said to have been offered to everybody, and this had been sent by then.
#[derive(Debug)]
pub struct Report {
    pub batch: usize,
    pub sent: Vec<Sent>,
}

/// The batch that is under way.
#[derive(Debug)]
struct Batch {
    number: u32,
    /// What is charged for it and was not given back, in bytes.
    owed: u32,
    is_offered: bool,
    /// The database was lost meanwhile, and cannot be told.
    is_lost: bool,
}

/// What it could do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    Dispatch,
    Mark,
    Read(usize),
    SayReplayed(usize),
}

#[derive(Debug)]
pub(super) struct Outbox {
    /// The core that gets batches.
    core: usize,
    traffic: Traffic,
    pub(super) published: Vec<Published>,
    /// How many of them are marked as offered.
    marked: usize,
    batch: Option<Batch>,
    pub(super) batches: Vec<Dispatched>,
    pub(super) reports: Vec<Report>,
    /// The last position that is kept no more.
    pub(super) forgotten: u64,
    /// Asked for and not read, with whether the database was lost since.
    replays: VecDeque<(usize, Replay, bool)>,
    /// Read and not said.
    read: Vec<(usize, ReplayNumber, Result<Replayed, NotReplayed>)>,
    /// What each core has asked for and not heard.
    under_way: Vec<usize>,
    /// Somebody who may be excluded.
    session: Option<u64>,
    /// Replays that were refused, or lost.
    pub(super) replays_refused: u64,
}

impl Outbox {
    pub(super) fn new(core: usize, cores: usize, traffic: Traffic) -> Self {
        Self {
            core,
            traffic,
            published: Vec::new(),
            marked: 0,
            batch: None,
            batches: Vec::new(),
            reports: Vec::new(),
            forgotten: 0,
            replays: VecDeque::new(),
            read: Vec::new(),
            under_way: vec![0; cores],
            session: None,
            replays_refused: 0,
        }
    }

    pub(super) fn note_session(&mut self, session: u64) {
        self.session = Some(session);
    }

    pub(super) fn choices(&self, is_away: bool) -> Vec<Choice> {
        let mut choices = Vec::new();
        match &self.batch {
            None if self.marked < self.published.len() && !is_away => choices.push(Choice::Dispatch),
            Some(batch) if batch.is_offered => choices.push(Choice::Mark),
            _ => {}
        }
        choices.extend((0..self.replays.len().min(READERS)).map(Choice::Read));
        choices.extend((0..self.read.len()).map(Choice::SayReplayed));
        choices
    }

    pub(super) fn unrest(&self) -> Option<String> {
        let is_settled = self.batch.is_none() && self.replays.is_empty() && self.read.is_empty();
        (!is_settled || self.marked < self.published.len()).then(|| {
            format!("of {} events {} are marked, {:?}", self.published.len(), self.marked, self.batch)
        })
    }

    pub(super) fn lose(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.is_lost = true;
        }
        for (_, _, is_lost) in &mut self.replays {
            *is_lost = true;
        }
    }

    /// Old events are deleted.
    pub(super) fn forget(&mut self, random: &mut Random) {
        if self.marked > 0 {
            let last = self.published[random.below(self.marked)].position;
            self.forgotten = self.forgotten.max(last);
        }
    }

    /// The core has taken the batch.
    pub(super) fn taken(&mut self, step: u64) {
        if let Some(last) = self.batches.last_mut() {
            last.taken_at = Some(step);
        }
    }

    pub(super) fn replay_taken(&mut self, core: usize) {
        self.under_way[core] -= 1;
    }

    /// What a replay finds.
    fn find(&self, replay: &Replay, count_max: usize) -> Result<Replayed, NotReplayed> {
        if replay.after < self.forgotten {
            return Err(NotReplayed::NotKept);
        }
        let is_wanted = |published: &&Published| {
            published.position > replay.after && matches(replay.policy, &replay.topic, published.topic)
        };
        let mut found: Vec<&Published> = self.published.iter().filter(is_wanted).collect();
        let is_complete = found.len() <= count_max;
        found.truncate(count_max);
        let last = if is_complete { self.published.last() } else { found.last().copied() };
        let upto = last.map_or(0, |published| published.position);
        let publications = found.into_iter().map(Published::to_publication).collect();
        Ok(Replayed { publications, upto, is_complete })
    }
}

impl Published {
    fn to_publication(&self) -> DatabasePublication {
        DatabasePublication { position: self.position, depth: 0, publish: self.text.clone() }
    }
}

impl Database {
    /// A transaction is committed, and what it published has a position.
    pub(super) fn publish(&mut self) {
        let topic = *self.random.pick(&TOPICS);
        self.publish_to(topic);
    }

    /// One event to each topic.
    pub fn publish_to_all(&mut self) {
        TOPICS.into_iter().for_each(|topic| self.publish_to(topic));
    }

    fn publish_to(&mut self, topic: &'static str) {
        let last = self.outbox.published.last().map_or(0, |published| published.position);
        let position = last + self.random.between(1, 3) as u64;
        let exclude: Vec<u64> = self.outbox.session.filter(|_| self.random.once_in(6)).into_iter().collect();
        let is_retained = self.random.once_in(10);
        let padding = self.padding();
        let content = Content { kind: DATABASE, session: self.index as u64, number: position, padding };
        let args = String::from_utf8_lossy(&content.encode(Serializer::Json)).into_owned();
        let options = match (&exclude[..], is_retained) {
            ([], false) => "{}".to_owned(),
            ([], true) => r#"{"retain":true}"#.to_owned(),
            (exclude, is_retained) => format!(r#"{{"exclude":{exclude:?},"retain":{is_retained}}}"#),
        };
        let text = format!(r#"[16,1,{options},"{topic}",{args}]"#).into();
        self.outbox.published.push(Published { position, topic, exclude, is_retained, padding, text });
    }

    pub(super) fn act_of_outbox(&mut self, choice: Choice) {
        match choice {
            Choice::Dispatch => self.dispatch(),
            Choice::Mark => {
                // Whoever was lost will say it once more.
                let is_marked = self.outbox.batch.take().is_some_and(|batch| !batch.is_lost);
                if let Some(last) = self.outbox.batches.last().filter(|_| is_marked) {
                    self.outbox.marked = last.places.end;
                }
            }
            Choice::Read(at) => self.read_again(at),
            Choice::SayReplayed(at) => {
                let (core, number, result) = self.outbox.read.swap_remove(at);
                self.say(core, DatabaseEvent::Replayed(number, result));
            }
        }
    }

    fn dispatch(&mut self) {
        let outbox = &mut self.outbox;
        let count = self.random.between(1, BATCH_MAX).min(outbox.published.len() - outbox.marked);
        let places = outbox.marked..outbox.marked + count;
        let is_again = outbox.batches.iter().any(|other| other.places.end > places.start);
        let number = outbox.batches.len() as u32 + 1;
        let publications = outbox.published[places.clone()].iter().map(Published::to_publication).collect();
        outbox.batch = Some(Batch { number, owed: 0, is_offered: false, is_lost: false });
        outbox.batches.push(Dispatched { places, taken_at: None, is_again });
        self.seen.dispatched += count as u64;
        self.seen.dispatched_again += u64::from(is_again);
        let (realm, database) = (RealmIndex(0), DatabaseIndex(self.index as u16));
        let core = self.outbox.core;
        let is_counted = self.random.once_in(2);
        let batch = DatabaseBatch { realm, database, number, publications, is_counted };
        self.say(core, DatabaseEvent::Publish(batch));
    }

    pub(super) fn charge(&mut self, core: usize, number: u32, bytes: u32) {
        let is_its = |batch: &&mut Batch| batch.number == number && !batch.is_offered;
        match self.outbox.batch.as_mut().filter(is_its).filter(|_| core == self.outbox.core) {
            Some(batch) => batch.owed += bytes,
            None => self.note_wrong("R8", format!("batch {number} is charged, which is not under way")),
        }
    }

    pub(super) fn credit(&mut self, core: usize, number: u32, bytes: u32) {
        let is_its = |batch: &&mut Batch| batch.number == number && !batch.is_offered;
        let batch = self.outbox.batch.as_mut().filter(is_its).filter(|_| core == self.outbox.core);
        let owed = batch.as_ref().and_then(|batch| batch.owed.checked_sub(bytes));
        let (Some(batch), Some(owed)) = (batch, owed) else {
            let text = format!("{bytes} bytes of batch {number} are given back, which are not owed");
            return self.note_wrong("R8", text);
        };
        batch.owed = owed;
        if owed == 0 {
            batch.is_offered = true;
            let sent = self.outbox.traffic.lock().map(|sent| sent.clone()).unwrap_or_default();
            self.outbox.reports.push(Report { batch: number as usize - 1, sent });
        }
    }

    /// So many sessions of a core got an event: of a batch that is not over.
    pub(super) fn received(&mut self, number: u32, receivers: Receivers) {
        let is_under_way =
            self.outbox.batch.as_ref().is_some_and(|batch| batch.number == number && !batch.is_offered);
        let places = self.outbox.batches.last().map_or(0..0, |last| last.places.clone());
        let is_of_it = self.outbox.published[places].iter().any(|it| it.position == receivers.position);
        if !is_under_way || !is_of_it || receivers.count == 0 {
            self.note_wrong("R8", format!("{receivers:?} of batch {number}, which is not under way"));
        }
    }

    pub(super) fn replay(&mut self, core: usize, replay: Replay) -> bool {
        if self.is_away {
            self.outbox.replays_refused += 1;
            return false;
        }
        self.outbox.under_way[core] += 1;
        if self.outbox.under_way[core] > REPLAYS_UNDER_WAY_MAX {
            self.note_wrong("bound", format!("core {core} asks for too much at a time"));
        }
        self.seen.replays += 1;
        self.outbox.replays.push_back((core, replay, false));
        true
    }

    fn read_again(&mut self, at: usize) {
        let count_max = *self.random.pick(&[1, 2, 3, 5, 100]);
        let Some((core, replay, is_lost)) = self.outbox.replays.remove(at) else { return };
        let result = if is_lost || self.is_away {
            self.outbox.replays_refused += 1;
            self.seen.replays_lost += 1;
            Err(NotReplayed::Away)
        } else {
            self.outbox.find(&replay, count_max)
        };
        self.seen.not_kept += u64::from(result == Err(NotReplayed::NotKept));
        self.outbox.read.push((core, replay.number, result));
    }

    pub fn at(&self, position: u64) -> Option<&Published> {
        let place = self.outbox.published.binary_search_by_key(&position, |published| published.position);
        self.outbox.published.get(place.ok()?)
    }

    /// The first after a position that a session gets by a pattern.
    pub fn next_for(&self, after: u64, session: u64, policy: MatchPolicy, pattern: &str) -> Option<u64> {
        let first = self.outbox.published.partition_point(|published| published.position <= after);
        let mut behind = self.outbox.published[first..].iter();
        behind
            .find(|published| published.is_for(session, policy, pattern))
            .map(|published| published.position)
    }

    pub fn last_position(&self) -> u64 {
        self.outbox.published.last().map_or(0, |published| published.position)
    }

    pub fn batches(&self) -> &[Dispatched] {
        &self.outbox.batches
    }

    pub fn of_batch(&self, batch: &Dispatched) -> &[Published] {
        &self.outbox.published[batch.places.clone()]
    }

    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.outbox.reports)
    }

    /// The last position that is kept no more.
    pub fn forgotten(&self) -> u64 {
        self.outbox.forgotten
    }

    /// Whether somebody who resumes may have been told that it is away.
    pub fn has_refused_replays(&self) -> bool {
        self.outbox.replays_refused > 0
    }
}
