//! Subscribers that resume (SUBSCRIBE.Options._after): what a database has published since they were here comes first, and
//! then what it publishes from now on, without a gap.
//!
//! The subscription is there first. Until it has caught up, what the database publishes to it is held back: it is not
//! delivered, for it is in the database and comes from there, and only the highest position is noted. The database gives a
//! position before anything with it is dispatched. So a replay that was asked for later covers all that was dispatched on
//! this core before it, whether that was held back or not even sent here because nobody was interested. Once a replay has
//! covered all that was held back, the subscriber goes on live; what then comes with a position that was covered has been
//! delivered. Nothing waits in memory: who reads slowly is given as much as there is room for, and the rest is read again.

use std::cell::Cell;
use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::publications::{DatabasePublication, batch_of_key, check_publication, key_of_batch};
use super::{DatabaseIndex, Publisher};
use crate::router::Router;
use crate::router::delivery::{Delivery, deliver};
use crate::router::effects::{Effects, EventFrames, Sent, Transcoded};
use crate::router::fault::Fault;
use crate::router::peer::{Attributes, Audience, PublicationHead, RealmIndex, SessionKey, SessionRef};
use crate::router::sharding::resource_hash;
use crate::router::terms::carried;
use crate::router::uri_map::EntryKey;
use crate::wamp::codec::DecodeLimits;
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Message, MessageType, Subscribe, Subscribed};
use crate::wamp::options::SubscribeOptions;
use crate::wamp::{CloseReason, MatchPolicy, RequestId};

/// How many replays of one database a core asks for at a time; all others wait in the core.
pub const REPLAYS_UNDER_WAY_MAX: usize = 8;

/// A database that was lost while somebody resumes is asked again after this.
const ASK_AGAIN_US: u64 = 1_000_000;

/// Those that do not read are looked at after each flush, so many of them, and otherwise this often.
const LOOK_MAX: usize = 64;
const LOOK_AGAIN_US: u64 = 20_000;

/// A subscriber that resumes: a number of its core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayNumber(pub u64);

/// What a database is asked for: the beginning of what it published after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// What its answer bears.
    pub number: ReplayNumber,
    /// Who is asked.
    pub database: DatabaseIndex,
    /// The position before the first that is wanted.
    pub after: u64,
    /// The topic or pattern.
    pub topic: Box<str>,
    /// How topics match it.
    pub policy: MatchPolicy,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// In the order of their positions.
    pub publications: Vec<DatabasePublication>,
    /// No other up to here matches.
    pub upto: u64,
    /// It was all that there was at that moment.
    pub is_complete: bool,
}

/// Why it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReplayed {
    /// Not all after that position is kept.
    NotKept,
    /// It is not there.
    Away,
    /// It has said nothing in the time that it has for that.
    Late,
}

/// A subscriber that resumes, or has resumed and not yet seen that.
#[derive(Debug)]
struct Resuming {
    number: ReplayNumber,
    line: u16,
    /// Its SUBSCRIBE, until it is answered.
    request: Option<RequestId>,
    wants_retained: bool,
    /// All up to this position was delivered.
    delivered: u64,
    /// The highest position that was held back.
    held_back: Cell<u64>,
    is_live: bool,
}

/// What becomes of an event for one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Passage {
    Passes,
    /// It passes, and the subscriber need not be remembered any more.
    PassesForGood,
    HeldBack,
}

/// One that waits.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: ReplayNumber,
    line: u16,
    key: SessionKey,
    entry: EntryKey,
}

/// The replays of one database.
#[derive(Debug, Default)]
struct Line {
    /// Those that are to be asked for. Ends with the subscription, at the latest when it is its turn.
    waiting: VecDeque<Place>,
    under_way: usize,
    /// The database is away: nothing is asked for before this.
    again_us: Option<u64>,
}

/// All subscribers of this core that resume.
#[derive(Debug)]
pub(in crate::router) struct Resumptions {
    publishers: Vec<Publisher>,
    /// One for each of those.
    lines: Vec<Line>,
    /// By subscription and slot. Ends with the subscription, or with the first event behind the replay.
    states: HashMap<(EntryKey, u32), Resuming, FixedState>,
    /// Ends with the answer.
    under_way: HashMap<ReplayNumber, Place, FixedState>,
    /// Those whose outbox has no room. Ends as `waiting` does.
    starved: VecDeque<Place>,
    look_again_us: Option<u64>,
    last: ReplayNumber,
    fault: Fault,
}

impl Resumptions {
    pub(in crate::router) fn new(publishers: &[Publisher], seed: u64) -> Self {
        Self {
            publishers: publishers.to_vec(),
            lines: publishers.iter().map(|_| Line::default()).collect(),
            states: HashMap::with_hasher(FixedState::with_seed(seed)),
            under_way: HashMap::with_hasher(FixedState::with_seed(seed)),
            starved: VecDeque::new(),
            look_again_us: None,
            last: ReplayNumber::default(),
            fault: Fault::None,
        }
    }

    /// See [`Fault`].
    pub(in crate::router) fn break_promise(&mut self, fault: Fault) {
        self.fault = fault;
    }

    pub(in crate::router) fn len(&self) -> usize {
        self.states.len() + self.waiting_count()
    }

    /// How many have not caught up, and those that are gone and not yet forgotten.
    fn waiting_count(&self) -> usize {
        self.under_way.len()
            + self.starved.len()
            + self.lines.iter().map(|line| line.waiting.len()).sum::<usize>()
    }

    /// Whether anybody has to be looked at when an event is delivered.
    #[inline]
    pub(in crate::router) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// When [`Router::handle_resumption_timeouts`] is due, in monotonic microseconds.
    pub(in crate::router) fn next_deadline_us(&self) -> Option<u64> {
        if self.lines.is_empty() {
            return None;
        }
        self.lines.iter().filter_map(|line| line.again_us).chain(self.look_again_us).min()
    }

    /// What becomes of an event for a subscriber.
    pub(in crate::router) fn passage(&self, entry: EntryKey, slot: u32, delivery: &Delivery<'_>) -> Passage {
        let Some(resuming) = self.states.get(&(entry, slot)) else { return Passage::Passes };
        let publisher = batch_of_key(delivery.head.publisher.key).map(|(database, _)| database);
        let is_its = publisher.is_some_and(|database| {
            self.publishers.get(usize::from(resuming.line)).is_some_and(|it| it.database == database)
        });
        let position = delivery.head.attributes.as_deref().map_or(0, |attributes| attributes.position);
        match (is_its, resuming.is_live) {
            (true, true) if position > resuming.delivered => Passage::PassesForGood,
            (true, true) if self.fault == Fault::ForgetReplayed => Passage::Passes,
            (true, true) => Passage::HeldBack,
            (true, false) if self.fault == Fault::DeliverDuringReplays && resuming.request.is_none() => {
                Passage::Passes
            }
            (true, false) => {
                resuming.held_back.set(resuming.held_back.get().max(position));
                Passage::HeldBack
            }
            // Nobody else's comes before SUBSCRIBED (O2).
            (false, _) if resuming.request.is_some() => Passage::HeldBack,
            (false, _) => Passage::Passes,
        }
    }

    /// A subscription ends, or has caught up.
    pub(in crate::router) fn forget(&mut self, entry: EntryKey, slot: u32) {
        if !self.states.is_empty() {
            self.states.remove(&(entry, slot));
        }
    }

    /// The SUBSCRIBE of a subscription, if it was not answered yet.
    fn pending(&self, entry: EntryKey, slot: u32) -> Option<RequestId> {
        self.states.get(&(entry, slot))?.request
    }

    fn state(&mut self, place: Place) -> Option<&mut Resuming> {
        self.states.get_mut(&(place.entry, place.key.slot)).filter(|state| state.number == place.number)
    }

    /// Which database of a realm is meant.
    fn line_of(&self, realm: RealmIndex, name: Option<&str>) -> Result<u16, String> {
        let own = || (0..).zip(&self.publishers).filter(|(_, it)| it.realm == realm);
        if let Some(name) = name {
            let named = own().find(|(_, it)| *it.name == *name);
            return named.map(|(line, _)| line).ok_or_else(|| {
                format!("SUBSCRIBE.Options._database: the realm has no database {name} that publishes")
            });
        }
        match (own().next(), own().nth(1)) {
            (Some((line, _)), None) => Ok(line),
            (None, _) => Err("SUBSCRIBE.Options._after: the realm has no database that publishes".to_owned()),
            (Some(_), Some(_)) => Err(
                "SUBSCRIBE.Options._after: the realm has several databases that publish, so _database has to say which"
                    .to_owned(),
            ),
        }
    }
}

/// The request was answered.
pub(in crate::router) struct Refused;

impl Router {
    /// Whether and where a SUBSCRIBE resumes: the number of the database among those that publish, and the position.
    pub(in crate::router) fn resumes(
        &mut self,
        key: SessionKey,
        message: &Subscribe<'_>,
        effects: &mut impl Effects,
    ) -> Result<Option<(u16, u64)>, Refused> {
        let options = &message.options;
        if options.after.is_none() && self.resumptions.is_empty() {
            return Ok(None);
        }
        let (realm, session) = self.realm_and_session(key);
        let held =
            realm.broker.held(key.slot, session.active.as_deref(), options.match_policy, &message.topic);
        let result = match options.after {
            None if held.is_some_and(|entry| self.resumptions.pending(entry, key.slot).is_some()) => {
                let text =
                    "the subscription is being resumed: wait for the answer to the SUBSCRIBE that does it";
                Err((uri::UNAVAILABLE, text.to_owned()))
            }
            None => return Ok(None),
            Some(after) => self.may_resume(session.realm, options, held.is_some()).map(|line| (line, after)),
        };
        result.map(Some).map_err(|(error, text)| {
            effects.counters().limit_reached += u64::from(error == uri::LIMIT_REACHED);
            self.refuse(key, MessageType::Subscribe, message.request, error, &text, effects);
            Refused
        })
    }

    /// The SUBSCRIBE that one of a session's subscriptions waits to be confirmed for.
    pub(in crate::router) fn pending_at(&self, key: SessionKey, place: usize) -> Option<RequestId> {
        if self.resumptions.is_empty() {
            return None;
        }
        let held = self.sessions.at(key.slot).active.as_ref()?.subscriptions.get(place)?;
        self.resumptions.pending(held.entry, key.slot)
    }

    fn may_resume(
        &self,
        realm: RealmIndex,
        options: &SubscribeOptions<'_>,
        is_held: bool,
    ) -> Result<u16, (&'static str, String)> {
        let line = self.resumptions.line_of(realm, options.database.as_deref());
        let line = line.map_err(|text| (uri::INVALID_ARGUMENT, text))?;
        if is_held {
            let text = "the session has the subscription already: UNSUBSCRIBE before it is resumed";
            return Err((uri::INVALID_ARGUMENT, text.to_owned()));
        }
        if self.resumptions.waiting_count() >= self.limits.resumptions_per_core_max {
            let text = "as many subscriptions are being resumed as may be at a time";
            return Err((uri::LIMIT_REACHED, text.to_owned()));
        }
        Ok(line)
    }

    /// A subscription that was made for a session resumes: SUBSCRIBED comes with the first answer of the database.
    pub(in crate::router) fn resume(
        &mut self,
        (key, entry): (SessionKey, EntryKey),
        request: RequestId,
        (line, after): (u16, u64),
        wants_retained: bool,
        effects: &mut impl Effects,
    ) {
        effects.counters().resumptions += 1;
        let number = ReplayNumber(self.resumptions.last.0 + 1);
        self.resumptions.last = number;
        let resuming = Resuming {
            number,
            line,
            request: Some(request),
            wants_retained,
            delivered: after,
            held_back: Cell::new(0),
            is_live: false,
        };
        self.resumptions.states.insert((entry, key.slot), resuming);
        let place = Place { number, line, key, entry };
        self.resumptions.lines[usize::from(line)].waiting.push_back(place);
        self.ask_for_replays(line, effects);
    }

    /// Asks for as many as may be under way.
    fn ask_for_replays(&mut self, number: u16, effects: &mut impl Effects) {
        let of_line = usize::from(number);
        while self.resumptions.lines[of_line].under_way < REPLAYS_UNDER_WAY_MAX
            && self.resumptions.lines[of_line].again_us.is_none()
        {
            let Some(place) = self.resumptions.lines[of_line].waiting.pop_front() else { return };
            let Some(state) = self.resumptions.state(place) else { continue };
            let (after, request) = (state.delivered, state.request);
            if !effects.has_room(place.key) {
                self.starve(place);
                continue;
            }
            let broker = &self.realm_and_session(place.key).0.broker;
            let Some((_, topic, policy)) = broker.subscription(place.entry) else { continue };
            let database = self.resumptions.publishers[of_line].database;
            let replay = Replay { number: place.number, database, after, topic: topic.into(), policy };
            if effects.replay(replay) {
                self.resumptions.under_way.insert(place.number, place);
                self.resumptions.lines[of_line].under_way += 1;
            } else {
                self.not_replayed(place, request, NotReplayed::Away, effects);
            }
        }
    }

    fn starve(&mut self, place: Place) {
        self.resumptions.starved.push_back(place);
        self.resumptions.look_again_us.get_or_insert(self.now.monotonic_us + LOOK_AGAIN_US);
    }

    /// The database has answered.
    pub(super) fn handle_replayed(
        &mut self,
        number: ReplayNumber,
        result: Result<Replayed, NotReplayed>,
        effects: &mut impl Effects,
    ) {
        let Some(place) = self.resumptions.under_way.remove(&number) else { return };
        self.resumptions.lines[usize::from(place.line)].under_way -= 1;
        if let Some(state) = self.resumptions.state(place) {
            let request = state.request;
            match result {
                Ok(replayed) => self.deliver_replayed(place, &replayed, effects),
                Err(problem) => self.not_replayed(place, request, problem, effects),
            }
        }
        self.ask_for_replays(place.line, effects);
    }

    fn not_replayed(
        &mut self,
        place: Place,
        request: Option<RequestId>,
        problem: NotReplayed,
        effects: &mut impl Effects,
    ) {
        let Place { key, entry, line, .. } = place;
        let Some((id, ..)) = self.realm_and_session(key).0.broker.subscription(entry) else { return };
        match (problem, request) {
            (NotReplayed::Away | NotReplayed::Late, None) => {
                let again_us = self.now.monotonic_us + ASK_AGAIN_US;
                let of_line = &mut self.resumptions.lines[usize::from(line)];
                of_line.waiting.push_front(place);
                if of_line.again_us.replace(again_us).is_none() {
                    self.refuse_unconfirmed(line, effects);
                }
            }
            (_, Some(request)) => {
                effects.counters().resumptions_failed += 1;
                if let Some(place) = self.place_of_subscription(key, id) {
                    self.remove_subscription(key, place, effects);
                }
                let (error, text) = match problem {
                    NotReplayed::NotKept => (
                        uri::EVENTS_NOT_KEPT,
                        "the database does not keep all events after this one any more: read the state anew, and subscribe without _after",
                    ),
                    NotReplayed::Away => {
                        (uri::UNAVAILABLE, "the database that publishes these events is away")
                    }
                    NotReplayed::Late => (
                        uri::UNAVAILABLE,
                        "the database that publishes these events has not answered within its replay_timeout_ms: try again",
                    ),
                };
                self.refuse(key, MessageType::Subscribe, request, error, text, effects);
                if problem == NotReplayed::Late {
                    // Those in line would wait as long, one after the other.
                    self.refuse_unconfirmed(line, effects);
                }
            }
            // A subscriber that has read so slowly that what it had not read is forgotten.
            (NotReplayed::NotKept, None) => {
                effects.counters().resumptions_failed += 1;
                let features = self.sessions.at(key.slot).features;
                if features.contains(ClientFeatures::SUBSCRIBER_SUBSCRIPTION_REVOCATION) {
                    self.revoke_subscription(key, id, Some(uri::EVENTS_NOT_KEPT), effects);
                } else {
                    // It could not be told, and would take the gap for silence.
                    self.resumptions.forget(entry, key.slot);
                    self.doomed.push((key, CloseReason::SlowConsumer));
                }
            }
        }
    }

    /// A database is away: who waits in line for it without having been confirmed is told, for that may last.
    fn refuse_unconfirmed(&mut self, number: u16, effects: &mut impl Effects) {
        let line = usize::from(number);
        for place in std::mem::take(&mut self.resumptions.lines[line].waiting) {
            match self.resumptions.state(place).map(|state| state.request) {
                None => {}
                Some(None) => self.resumptions.lines[line].waiting.push_back(place),
                Some(request) => self.not_replayed(place, request, NotReplayed::Away, effects),
            }
        }
    }

    fn deliver_replayed(&mut self, place: Place, replayed: &Replayed, effects: &mut impl Effects) {
        let Place { key, entry, line, .. } = place;
        let realm = self.sessions.at(key.slot).realm;
        let Some((subscription, ..)) = self.realms[usize::from(realm.0)].broker.subscription(entry) else {
            return;
        };
        let Some(state) = self.resumptions.state(place) else { return };
        let (mut delivered, request) = (state.delivered, state.request.take());
        if let Some(request) = request {
            let wants_retained = state.wants_retained;
            let _ = effects.reply(key, &Message::Subscribed(Subscribed { request, subscription }));
            if wants_retained {
                self.send_retained(key, realm, entry, effects);
            }
        }
        let mut is_starved = false;
        for (place, publication) in replayed.publications.iter().enumerate() {
            // One passes in any case, so that it goes on.
            let has_room = effects.has_room(key);
            is_starved = place > 0 && !has_room
                || self.deliver_again((key, realm, entry), line, publication, effects) == Sent::Full;
            if is_starved && has_room && place == 0 {
                // There will hardly ever be more: it ends as it would if this came live.
                self.doomed.push((key, CloseReason::SlowConsumer));
                return;
            }
            if is_starved {
                break;
            }
            delivered = publication.position;
        }
        if !is_starved {
            delivered = delivered.max(replayed.upto);
        }
        let is_hasty = self.is_broken(Fault::LiveTooSoon);
        let Some(state) = self.resumptions.state(place) else { return };
        state.delivered = delivered;
        if is_starved {
            self.starve(place);
        } else if replayed.is_complete && (state.held_back.get() <= delivered || is_hasty) {
            state.is_live = true;
        } else {
            self.resumptions.lines[usize::from(line)].waiting.push_back(place);
        }
    }

    /// One publication for one subscriber, unless it is not for this one.
    fn deliver_again(
        &mut self,
        (key, realm, entry): (SessionKey, RealmIndex, EntryKey),
        line: u16,
        publication: &DatabasePublication,
        effects: &mut impl Effects,
    ) -> Sent {
        let limits = DecodeLimits { depth_max: self.limits.depth_max, list_max: self.limits.option_list_max };
        let Ok(message) = check_publication(&publication.publish, limits) else { return Sent::Gone };
        let (topic, options) = (&*message.topic, &message.options);
        let publication_id = self.random.publication_id();
        let of_realm = &self.realms[usize::from(realm.0)];
        if of_realm.check_uri(topic).is_err() {
            return Sent::Gone;
        }
        let Some((subscription, pattern, policy)) = of_realm.broker.subscription(entry) else {
            return Sent::Gone;
        };
        let session = self.sessions.at_mut(key.slot);
        let role = &of_realm.roles[usize::from(session.role)];
        let audience = Audience::of(options);
        if audience.is_some_and(|audience| !audience.admits(session, &role.name)) {
            return Sent::Gone;
        }
        // By the nodes that there are now, as when it is published now.
        let node = of_realm.broker.node_of(entry, key.slot);
        if let Some((rkey, node)) = options.rkey.as_deref().zip(node)
            && {
                let hasher = of_realm.broker.id_hasher();
                let resource = resource_hash(hasher, rkey);
                of_realm.sharding.choose((policy, pattern), resource, hasher) != Some(node)
            }
        {
            return Sent::Gone;
        }
        let attributes = Attributes {
            passthru: carried(&options.passthru),
            position: publication.position,
            depth: publication.depth,
            ..Attributes::default()
        };
        let database = self.resumptions.publishers[usize::from(line)].database;
        let head = PublicationHead {
            realm,
            publisher: SessionRef { core: self.core, key: key_of_batch(database, 0) },
            publication: publication_id,
            audience: None,
            attributes: Some(Box::new(attributes)),
            cause: None,
        };
        let delivery =
            Delivery { head: &head, topic, payload: message.payload, eras: None, is_retained: false };
        let mut event = delivery.event(subscription, policy != MatchPolicy::Exact);
        let Some(active) = session.active.as_mut() else { return Sent::Gone };
        let (mut frames, mut transcoded) = (EventFrames::sole(), Transcoded::default());
        let sent = deliver(key, active, &mut event, &mut frames, &mut transcoded, effects);
        if sent == Sent::Accepted {
            of_realm.counts.events.add(1);
            effects.counters().events_replayed += 1;
        }
        sent
    }

    /// After a flush: those go on whose outbox has room again.
    pub(super) fn look_at_starved(&mut self, effects: &mut impl Effects) {
        let count = self.resumptions.starved.len().min(LOOK_MAX);
        for _ in 0..count {
            let Some(place) = self.resumptions.starved.pop_front() else { return };
            if self.resumptions.state(place).is_none() {
                continue;
            }
            if effects.has_room(place.key) {
                self.resumptions.lines[usize::from(place.line)].waiting.push_back(place);
                self.ask_for_replays(place.line, effects);
            } else {
                self.resumptions.starved.push_back(place);
            }
        }
        if self.resumptions.starved.is_empty() {
            self.resumptions.look_again_us = None;
        }
    }

    /// Whether anybody waits for room.
    #[inline]
    pub(super) fn has_starved(&self) -> bool {
        !self.resumptions.starved.is_empty()
    }

    /// Those go on that wait for a database, or for room and no flush has shown it.
    pub(in crate::router) fn handle_resumption_timeouts(&mut self, now_us: u64, effects: &mut impl Effects) {
        if self.resumptions.look_again_us.is_some_and(|at_us| at_us <= now_us) {
            self.resumptions.look_again_us = None;
            self.look_at_starved(effects);
            if self.has_starved() {
                self.resumptions.look_again_us = Some(now_us + LOOK_AGAIN_US);
            }
        }
        for number in 0..self.resumptions.lines.len() as u16 {
            let line = &mut self.resumptions.lines[usize::from(number)];
            if line.again_us.is_some_and(|at_us| at_us <= now_us) {
                line.again_us = None;
                self.ask_for_replays(number, effects);
            }
        }
    }

    /// A database is back: what waits for it goes on at once.
    pub(super) fn database_is_back(&mut self, database: DatabaseIndex, effects: &mut impl Effects) {
        for number in 0..self.resumptions.lines.len() as u16 {
            let line = usize::from(number);
            if self.resumptions.publishers[line].database == database
                && self.resumptions.lines[line].again_us.take().is_some()
            {
                self.ask_for_replays(number, effects);
            }
        }
    }
}
