//! A database as chance has it: it answers when it wants to, or not at all, goes away and comes back, changes what it offers,
//! publishes, and remembers what it has published.
//!
//! A model of what the threads of a pool make of a server (`src/database/pool.rs`), without a thread: cores give it queries
//! and hear of them by queues, and its steps are steps of the run. What a core may not do to a database is judged here;
//! what clients may not hear, in `history/databases.rs`.

#[path = "database/ends.rs"]
mod ends;
#[path = "database/outbox.rs"]
mod outbox;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crosspoint::router::database::{DatabaseEvent, DatabaseIndex, Procedure, Query, QueryNumber};
use crosspoint::router::peer::RealmIndex;
use crosspoint::shard::mesh::CoreWaker;
use crosspoint::wamp::codec::{OwnedPayload, Serializer};
use crosspoint::wamp::error::uri;

use self::outbox::Outbox;
use super::content::{CALL, Content, ERROR, RESULT, part_of};
use super::history::{Violation, broken};
use super::random::Random;
use super::world::Traffic;

pub use self::ends::DatabasesOfCore;
pub use self::outbox::{Dispatched, Published, Report};

/// What the databases of a realm offer, now and then. Each has one of its own, and both have the others.
pub const OFFERED: [&[&str]; 2] =
    [&["d.p.zero", "d.p.both", "a.b.d"], &["d.p.one", "d.p.both", "a.b.d", "d.p.too"]];

/// What no client registers as it is, but by a pattern at most.
pub const OWN: [&str; 3] = ["d.p.zero", "d.p.one", "d.p.too"];

/// What clients and databases publish to, beside what only clients do.
pub const TOPICS: [&str; 3] = ["d.t.one", "d.t.two", "a.x"];

/// The error of a call that fails as it should; clients refuse with it too.
const REFUSED: &str = "app.error.refused";

/// A database, as its cores, the clients and the checks share it. There is one thread.
pub type Shared = Arc<Mutex<Database>>;

/// The database itself.
pub fn lock(database: &Shared) -> MutexGuard<'_, Database> {
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call: the session that made it, and its number there.
pub type CallKey = (usize, u64);

/// What a query comes to, unless something else does.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Result,
    /// Parts of a result, so many more, and then it.
    Parts(u64),
    Error,
    /// Nothing, until all calls are to be answered.
    Never,
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Result,
    Error,
    Cancelled,
    TimedOut,
    /// The database went away.
    Unavailable,
}

/// A query that has not ended.
#[derive(Debug)]
struct Asked {
    core: usize,
    query: Query,
    call: CallKey,
    fate: Fate,
    /// It has a connection.
    runs: bool,
    /// Parts of its result that may come.
    credit: u32,
    deadline_us: Option<u64>,
    is_cancelled: bool,
    /// The database was lost since.
    is_lost: bool,
}

/// What became of a call that a database was given.
#[derive(Debug, Default)]
pub struct Record {
    /// `None`: it waits or runs.
    pub ended: Option<Ended>,
    /// How long the texts of its parts are.
    pub parts: Vec<usize>,
    /// The core has said that nobody waits for it.
    pub is_cancelled: bool,
}

/// A query that a core has given away, to be judged by who knows what was called.
#[derive(Debug)]
pub struct Started {
    pub call: CallKey,
    pub procedure: Box<str>,
    pub session: u64,
    pub receive_progress: bool,
    /// What its caller and its procedure want.
    pub timeout_ms: u64,
    pub procedure_timeout_ms: u64,
}

/// How often something happened that a run should have seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub queries: u64,
    pub refused: u64,
    pub parts: u64,
    pub cancelled: u64,
    pub timed_out: u64,
    pub lost: u64,
    pub changes: u64,
    pub replays: u64,
    pub not_kept: u64,
    pub replays_lost: u64,
    pub dispatched: u64,
    pub dispatched_again: u64,
}

impl Seen {
    /// That of another one.
    pub fn add(&mut self, other: &Self) {
        self.queries += other.queries;
        self.refused += other.refused;
        self.parts += other.parts;
        self.cancelled += other.cancelled;
        self.timed_out += other.timed_out;
        self.lost += other.lost;
        self.changes += other.changes;
        self.replays += other.replays;
        self.not_kept += other.not_kept;
        self.replays_lost += other.replays_lost;
        self.dispatched += other.dispatched;
        self.dispatched_again += other.dispatched_again;
    }
}

/// One database.
#[derive(Debug)]
pub struct Database {
    index: usize,
    random: Random,
    /// The step of the run, and the time.
    pub step: u64,
    pub now_us: u64,
    /// Where events of each core wait to be taken, and what wakes it.
    desks: Vec<VecDeque<DatabaseEvent>>,
    wakers: Vec<CoreWaker>,
    /// The realm is at home there.
    home: usize,
    /// Texts are at most so long, and once in so many times they are long.
    padding_max: usize,
    long_once_in: usize,
    connections: usize,
    queue_max: usize,
    is_away: bool,
    /// Everything is answered as soon as it can be, and there is room for all.
    is_prompt: bool,
    /// Waiting or running, the oldest first.
    asked: Vec<Asked>,
    pub records: BTreeMap<CallKey, Record>,
    /// Not judged yet.
    pub started: Vec<Started>,
    procedures: Arc<[Arc<Procedure>]>,
    /// What of it home has, and since when.
    at_home: BTreeMap<Box<str>, u64>,
    outbox: Outbox,
    /// What it did last.
    did: Option<Choice>,
    /// What was done to it that may not be.
    wrong: Option<Violation>,
    pub seen: Seen,
}

/// What it could do next, beside what comes over it.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Start(usize),
    End(usize, Ended),
    Part(usize),
    Outbox(outbox::Choice),
    ComeBack,
}

impl Choice {
    /// What was read some time ago is said now.
    fn is_late_word(self) -> bool {
        matches!(self, Self::Outbox(outbox::Choice::SayReplayed(_)))
    }
}

impl Database {
    /// For the cores of a run, whose wakers come later.
    pub fn new(
        index: usize,
        (cores, home): (usize, usize),
        (padding_max, long_once_in): (usize, usize),
        traffic: Traffic,
        mut random: Random,
    ) -> Self {
        let publishing = random.below(cores);
        Self {
            index,
            step: 0,
            now_us: 0,
            desks: (0..cores).map(|_| VecDeque::new()).collect(),
            wakers: Vec::new(),
            home,
            padding_max,
            long_once_in,
            connections: random.between(1, 4),
            queue_max: random.between(1, 8),
            is_away: true,
            is_prompt: false,
            asked: Vec::new(),
            records: BTreeMap::new(),
            started: Vec::new(),
            procedures: Arc::new([]),
            at_home: BTreeMap::new(),
            outbox: Outbox::new(publishing, cores, traffic),
            did: None,
            wrong: None,
            seen: Seen::default(),
            random,
        }
    }

    pub fn name(index: usize) -> String {
        format!("database{index}")
    }

    /// Cores in their order.
    pub fn add_waker(&mut self, waker: CoreWaker) {
        self.wakers.push(waker);
    }

    fn say(&mut self, core: usize, event: DatabaseEvent) {
        self.desks[core].push_back(event);
        self.wakers[core].wake();
    }

    fn note_wrong(&mut self, promise: &'static str, text: String) {
        if self.wrong.is_none() {
            self.wrong = broken::<()>(promise, format!("database {}: {text}", self.index)).err();
        }
    }

    /// What was done to it that may not be.
    pub fn take_wrong(&mut self) -> Option<Violation> {
        self.wrong.take()
    }

    fn padding(&mut self) -> usize {
        let is_long = self.random.once_in(self.long_once_in);
        self.random.below(if is_long { self.padding_max } else { 40 })
    }

    /// What is called from now on is answered at once, and there is room for it.
    pub fn begin_trial(&mut self) {
        self.is_prompt = true;
    }

    pub fn end_trial(&mut self) {
        self.is_prompt = false;
    }

    /// From now on everything is answered at once.
    pub fn be_prompt(&mut self) {
        self.is_prompt = true;
        for asked in &mut self.asked {
            if matches!(asked.fate, Fate::Never) {
                asked.fate = Fate::Result;
            }
        }
    }

    /// It offers nothing any more.
    pub fn retire(&mut self) {
        self.offer(Vec::new());
    }

    /// What it offers.
    pub fn offers(&self) -> Vec<&str> {
        self.procedures.iter().map(|procedure| &*procedure.uri).collect()
    }

    /// Since when home has known without a break that it offers this; `None` where it does not know so.
    pub fn offered_since(&self, uri: &str) -> Option<u64> {
        self.at_home.get(uri).copied()
    }

    /// How many queries have not ended.
    pub fn running(&self) -> usize {
        self.asked.len()
    }

    /// A query that nobody waits for, as far as its core has said.
    pub fn is_cancelled(&self, call: CallKey) -> bool {
        self.records.get(&call).is_some_and(|record| record.is_cancelled)
    }

    /// Calls that wait or run.
    pub fn calls(&self) -> impl Iterator<Item = CallKey> {
        self.asked.iter().map(|asked| asked.call)
    }

    /// Calls whose results come in parts.
    pub fn calls_in_parts(&self) -> impl Iterator<Item = CallKey> {
        self.asked.iter().filter(|asked| asked.runs && asked.query.receive_progress).map(|asked| asked.call)
    }

    pub fn has_calls_in_parts(&self) -> bool {
        self.calls_in_parts().next().is_some()
    }

    /// A core that has not taken what was said to it.
    pub fn unheard_core(&self) -> Option<usize> {
        self.desks.iter().position(|desk| !desk.is_empty())
    }

    /// When something happens by itself.
    pub fn next_deadline_us(&self) -> Option<u64> {
        self.asked.iter().filter_map(|asked| asked.deadline_us).min()
    }

    /// Why it is not at rest although nothing can happen any more.
    pub fn unrest(&self) -> Option<String> {
        // Others may wait for ever behind those that are never answered.
        let is_stuck = |asked: &&Asked| asked.runs && !matches!(asked.fate, Fate::Never);
        if let Some(asked) = self.asked.iter().find(is_stuck) {
            return Some(format!("it cannot go on with {asked:?}"));
        }
        if self.is_away {
            return Some("it is away".to_owned());
        }
        self.outbox.unrest()
    }

    /// Whether it can do something. In the end nothing comes over it any more.
    pub fn can_act(&self, may_begin: bool) -> bool {
        may_begin || !self.choices().is_empty() || self.is_away
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let running = self.asked.iter().filter(|asked| asked.runs).count();
        let mut is_first = true;
        for (at, asked) in self.asked.iter().enumerate() {
            let is_late = asked.deadline_us.is_some_and(|deadline_us| deadline_us <= self.now_us);
            if is_late {
                choices.push(Choice::End(at, Ended::TimedOut));
            }
            if asked.is_cancelled {
                choices.push(Choice::End(at, Ended::Cancelled));
            }
            if asked.is_lost {
                choices.push(Choice::End(at, Ended::Unavailable));
                continue;
            }
            if !asked.runs {
                let has_room = running < self.connections || self.is_prompt;
                if std::mem::take(&mut is_first) && has_room && !self.is_away && !asked.is_cancelled {
                    choices.push(Choice::Start(at));
                }
                continue;
            }
            match asked.fate {
                Fate::Result => choices.push(Choice::End(at, Ended::Result)),
                Fate::Error => choices.push(Choice::End(at, Ended::Error)),
                Fate::Parts(0) => choices.push(Choice::End(at, Ended::Result)),
                Fate::Parts(_) if asked.credit > 0 && !asked.is_cancelled => choices.push(Choice::Part(at)),
                Fate::Parts(_) | Fate::Never => {}
            }
        }
        choices.extend(self.outbox.choices(self.is_away).into_iter().map(Choice::Outbox));
        choices
    }

    /// One thing, by chance.
    pub fn act(&mut self, may_begin: bool) {
        let mut choices = self.choices();
        if !may_begin && self.is_away {
            choices.push(Choice::ComeBack);
        }
        self.did = None;
        if choices.is_empty() || may_begin && self.random.once_in(4) {
            self.begin();
            return;
        }
        let choice = *self.random.pick(&choices);
        if may_begin && !self.is_away && choice.is_late_word() && self.random.once_in(2) {
            // While it reads for somebody, others commit.
            self.publish();
            return;
        }
        self.did = Some(choice);
        match choice {
            Choice::Start(at) => self.asked[at].runs = true,
            Choice::End(at, ended) => self.end(at, ended),
            Choice::Part(at) => self.say_part(at),
            Choice::Outbox(choice) => self.act_of_outbox(choice),
            Choice::ComeBack => self.come_back(),
        }
    }

    /// What it did last, for the report.
    pub fn describe(&self) -> String {
        format!("{:?}, away {}, {:?}", self.did, self.is_away, self.outbox.batches.last())
    }

    /// What comes over it.
    fn begin(&mut self) {
        if self.is_away {
            if self.random.once_in(3) {
                self.come_back();
            }
            return;
        }
        match self.random.below(100) {
            0..40 => self.publish(),
            40..48 => self.change(),
            48..54 => self.outbox.forget(&mut self.random),
            54..57 => self.go_away(),
            _ => {}
        }
    }

    fn go_away(&mut self) {
        self.is_away = true;
        self.seen.lost += self.asked.len() as u64;
        for asked in &mut self.asked {
            asked.is_lost = true;
        }
        self.outbox.lose();
    }

    fn come_back(&mut self) {
        self.is_away = false;
        // Whoever keeps the pool says what there is.
        self.change();
    }

    /// Another part of what it could offer.
    fn change(&mut self) {
        let all = OFFERED[self.index];
        let offered = all.iter().copied().filter(|_| !self.random.once_in(3)).collect();
        self.seen.changes += 1;
        self.offer(offered);
    }

    fn offer(&mut self, uris: Vec<&'static str>) {
        let procedure = |uri: &'static str| {
            let timeout_ms = *self.random.pick(&[0, 0, 0, 20, 2_000]);
            Arc::new(Procedure { uri: uri.into(), driver: Arc::new(()), timeout_ms, concurrency: 0 })
        };
        self.procedures = uris.into_iter().map(procedure).collect();
        for core in 0..self.desks.len() {
            let procedures = Arc::clone(&self.procedures);
            let index = DatabaseIndex(self.index as u16);
            self.say(core, DatabaseEvent::Offer(RealmIndex(0), index, procedures));
        }
    }

    fn content(&mut self, kind: u64, at: usize) -> (usize, OwnedPayload) {
        let asked = &self.asked[at];
        let ((session, number), serializer) = (asked.call, asked.query.serializer);
        let part = self.records.get(&asked.call).map_or(0, |record| record.parts.len() as u64);
        let padding = self.padding();
        let content = Content { kind: part_of(kind, part), session: session as u64, number, padding };
        (padding, OwnedPayload::new(serializer, content.encode(serializer), Vec::new()))
    }

    fn say_part(&mut self, at: usize) {
        // Long ones fill what there is room for sooner.
        let once_in = std::mem::replace(&mut self.long_once_in, 2);
        let (padding, payload) = self.content(RESULT, at);
        self.long_once_in = once_in;
        let asked = &mut self.asked[at];
        asked.credit -= 1;
        if let Fate::Parts(left) = &mut asked.fate {
            *left -= 1;
        }
        let (core, number, call) = (asked.core, asked.query.number, asked.call);
        self.records.entry(call).or_default().parts.push(padding);
        self.seen.parts += 1;
        self.say(core, DatabaseEvent::Part(number, payload));
    }

    /// The one last word on a query.
    fn end(&mut self, at: usize, ended: Ended) {
        let payload = match ended {
            Ended::Result => self.content(RESULT, at).1,
            Ended::Error => self.content(ERROR, at).1,
            _ => OwnedPayload::new(Serializer::Json, Vec::new(), Vec::new()),
        };
        let Asked { core, query, call, .. } = self.asked.remove(at);
        self.records.entry(call).or_default().ended = Some(ended);
        let number = query.number;
        let failed = |error: &str| DatabaseEvent::Failed(number, error.into(), payload.clone());
        let event = match ended {
            Ended::Result => DatabaseEvent::Done(number, payload),
            Ended::Error => failed(REFUSED),
            Ended::Cancelled => failed(uri::CANCELED),
            Ended::TimedOut => failed(uri::TIMEOUT),
            Ended::Unavailable => failed(uri::UNAVAILABLE),
        };
        self.seen.timed_out += u64::from(ended == Ended::TimedOut);
        self.say(core, event);
    }

    /// A core gives it a query.
    fn query(&mut self, core: usize, query: Query) -> bool {
        let waiting = self.asked.iter().filter(|asked| !asked.runs).count();
        if self.is_away || !self.is_prompt && waiting >= self.queue_max {
            self.seen.refused += 1;
            return false;
        }
        let content = Content::decode(query.payload.as_payload()).filter(|content| content.kind == CALL);
        let Some(Content { session, number, .. }) = content else {
            self.note_wrong("integrity", format!("it is to run what nobody called: {query:?}"));
            return false;
        };
        let call = (session as usize, number);
        if self.records.insert(call, Record::default()).is_some() {
            self.note_wrong("duplicate", format!("it is to run call {call:?} once more"));
        }
        self.seen.queries += 1;
        self.started.push(Started {
            call,
            procedure: query.procedure.uri.clone(),
            session: query.caller.session.0,
            receive_progress: query.receive_progress,
            timeout_ms: query.timeout_ms,
            procedure_timeout_ms: query.procedure.timeout_ms,
        });
        self.outbox.note_session(query.caller.session.0);
        let fate = match self.random.below(10) {
            _ if self.is_prompt => Fate::Result,
            0..4 if query.receive_progress => Fate::Parts(self.random.between(1, 30) as u64),
            0..6 => Fate::Result,
            6..8 => Fate::Error,
            _ => Fate::Never,
        };
        let deadline_us = (query.timeout_ms > 0).then(|| self.now_us + query.timeout_ms * 1000);
        let (runs, is_cancelled, is_lost) = (false, false, false);
        self.asked.push(Asked {
            core,
            query,
            call,
            fate,
            runs,
            credit: 1,
            deadline_us,
            is_cancelled,
            is_lost,
        });
        true
    }

    fn find(&mut self, core: usize, number: QueryNumber) -> Option<&mut Asked> {
        self.asked.iter_mut().find(|asked| (asked.core, asked.query.number) == (core, number))
    }

    /// The next part of a result may come. One at a time: the next when the one before was taken and there is room.
    fn more(&mut self, core: usize, number: QueryNumber) {
        let Some(asked) = self.find(core, number) else { return };
        asked.credit += 1;
        if asked.credit > 1 {
            let text = format!("more than one part of {asked:?} may come");
            self.note_wrong("credit", text);
        }
    }

    /// Nobody waits for a query any more.
    fn cancel(&mut self, core: usize, number: QueryNumber) {
        let Some(asked) = self.find(core, number) else { return };
        asked.is_cancelled = true;
        let call = asked.call;
        self.records.entry(call).or_default().is_cancelled = true;
        self.seen.cancelled += 1;
    }

    /// A core takes what was said to it.
    fn take(&mut self, core: usize) -> Option<DatabaseEvent> {
        let event = self.desks[core].pop_front()?;
        match &event {
            DatabaseEvent::Offer(_, _, procedures) if core == self.home => {
                let since = self.step;
                let is_offered = |uri: &str| procedures.iter().any(|procedure| *procedure.uri == *uri);
                self.at_home.retain(|uri, _| is_offered(uri));
                for procedure in procedures.iter() {
                    self.at_home.entry(procedure.uri.clone()).or_insert(since);
                }
            }
            DatabaseEvent::Publish(_) => self.outbox.taken(self.step),
            DatabaseEvent::Replayed(..) => self.outbox.replay_taken(core),
            _ => {}
        }
        Some(event)
    }
}
