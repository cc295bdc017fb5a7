//! The state machine of one core: what goes to whom. Pure: time and randomness are arguments.
//!
//! The broker is everywhere, the dealer is in one place: each core knows only its own sessions' subscriptions and
//! every publication is offered to every core; registrations of a realm live on its home core. What is in flight
//! lives where it dies: a call on its caller's core, an invocation on its callee's (ARCHITECTURE.md).

mod all_calls;
mod audience;
mod authenticate;
mod authenticator;
pub mod authorize;
mod authorizer;
mod broker;
mod calls;
pub mod cookies;
mod counts;
pub mod database;
mod dealer;
mod delivery;
mod doors;
pub mod effects;
#[doc(hidden)]
pub mod fault;
mod history;
pub mod identity;
mod inputs;
mod invocations;
mod joining;
mod meta;
mod own_calls;
pub mod peer;
mod random;
mod realm;
mod retained;
mod session;
mod sharding;
mod subscription_revocation;
pub mod terms;
mod testaments;
pub mod uri_map;

use std::collections::{BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

pub use self::authenticate::SlowCheck;
use self::authenticator::{Asked, Authenticator};
use self::authorizer::Decisions;
use self::cookies::Cookies;
use self::database::{Publisher, Queries, Resumptions};
use self::dealer::{Deadlines, Dealer, Work};
use self::doors::DatabaseDoors;
pub use self::doors::{DatabaseDoor, Door, doors};
use self::effects::Effects;
use self::fault::{Fault, Faults};
use self::history::History;
use self::invocations::Invocations;
use self::joining::Challenged;
use self::meta::Meta;
use self::meta::news::Directory;
use self::own_calls::OwnCalls;
use self::peer::{CoreId, Parcel, PeerMessage, RealmIndex, Revocation, SessionKey, Sitting};
use self::random::Random;
pub use self::realm::home_of;
use self::realm::{Realm, RealmKeys};
use self::retained::Endings;
use self::session::{Session, Sessions, State};
use crate::config;
use crate::wamp::error::uri;
use crate::wamp::features::RouterFeatures;
use crate::wamp::message::{Abort, Error, Goodbye, Message, MessageType};
use crate::wamp::options::{CloseDetails, Passthru, Text};
use crate::wamp::{CloseReason, Payload, ProtocolError, RegistrationId, RequestId};

/// What WELCOME says of the router. Nothing that does not work is in it.
pub const FEATURES: RouterFeatures = RouterFeatures::BROKER
    .with(RouterFeatures::BROKER_PUBLISHER_EXCLUSION)
    .with(RouterFeatures::BROKER_SUBSCRIBER_BLACKWHITE_LISTING)
    .with(RouterFeatures::BROKER_PATTERN_BASED_SUBSCRIPTION)
    .with(RouterFeatures::BROKER_PUBLISHER_IDENTIFICATION)
    .with(RouterFeatures::BROKER_PUBLICATION_TRUSTLEVELS)
    .with(RouterFeatures::BROKER_EVENT_RETENTION)
    .with(RouterFeatures::BROKER_EVENT_HISTORY)
    .with(RouterFeatures::BROKER_SUBSCRIPTION_REVOCATION)
    .with(RouterFeatures::BROKER_SHARDED_SUBSCRIPTION)
    .with(RouterFeatures::BROKER_PAYLOAD_PASSTHRU_MODE)
    .with(RouterFeatures::BROKER_SESSION_META_API)
    .with(RouterFeatures::BROKER_SUBSCRIPTION_META_API)
    .with(RouterFeatures::DEALER)
    .with(RouterFeatures::DEALER_CALL_CANCELING)
    .with(RouterFeatures::DEALER_CALLER_IDENTIFICATION)
    .with(RouterFeatures::DEALER_CALL_TIMEOUT)
    .with(RouterFeatures::DEALER_PROGRESSIVE_CALL_RESULTS)
    .with(RouterFeatures::DEALER_PROGRESSIVE_CALL_INVOCATIONS)
    .with(RouterFeatures::DEALER_PAYLOAD_PASSTHRU_MODE)
    .with(RouterFeatures::DEALER_CALL_TRUSTLEVELS)
    .with(RouterFeatures::DEALER_PATTERN_BASED_REGISTRATION)
    .with(RouterFeatures::DEALER_SHARED_REGISTRATION)
    .with(RouterFeatures::DEALER_SHARDED_REGISTRATION)
    .with(RouterFeatures::DEALER_REGISTRATION_REVOCATION)
    .with(RouterFeatures::DEALER_SESSION_META_API)
    .with(RouterFeatures::DEALER_REGISTRATION_META_API)
    .with(RouterFeatures::DEALER_TESTAMENT_META_API)
    .with(RouterFeatures::DEALER_CALL_REROUTE);

/// What the router calls itself in WELCOME.
pub const AGENT: &str = concat!("Crosspoint-", env!("CARGO_PKG_VERSION"));

/// Why a request is not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    error: &'static str,
    text: &'static str,
}

const NOT_ALLOWED: Refusal =
    Refusal { error: uri::NOT_AUTHORIZED, text: "the role of the session may not do this" };

const TOO_MANY_SHAPES: &str = "the realm has as many wildcard patterns of this length that differ in which components are empty as it may have";

/// The time, as the world tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds of a clock that never jumps: every timeout is by this one.
    pub monotonic_us: u64,
    /// Microseconds since 1970: for people and tokens only.
    pub wall_us: u64,
}

/// What a router needs to know of the node.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The realms, in the order of their numbers.
    pub realms: Vec<config::Realm>,
    /// The bounds.
    pub limits: config::Limits,
    /// What the router has to know of each way in, by its number: [`doors()`].
    pub doors: Vec<Door>,
    /// The databases that publish.
    pub publishers: Vec<Publisher>,
}

/// What is known of a connection when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The number of the listener it came in by.
    pub listener: u16,
}

/// How many entries the tables of a router have; all zero when nothing is connected and nothing in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TableSizes {
    pub sessions: usize,
    pub subscriptions: usize,
    pub registrations: usize,
    pub invocations: usize,
    pub call_deadlines: usize,
    pub inputs: usize,
    pub challenges: usize,
    pub own_calls: usize,
    /// Calls that databases run.
    pub queries: usize,
    /// Subscribers that resume.
    pub resumptions: usize,
    /// Procedures of databases end with what those offer.
    pub callable: usize,
    pub decisions: usize,
    /// What realms retain outlives those who published it.
    pub retained: usize,
    /// As do the events of histories.
    pub history: usize,
    /// Sharded subscriptions that have nodes on any core.
    pub sharded: usize,
    /// Calls that wait for a callee, count at one, or may be re-routed.
    pub remembered_calls: usize,
    /// What the meta API keeps: subscriptions at home, questions that wait for answers, sessions that are to be ended.
    pub meta: usize,
    /// REGISTERs that wait for the holder of what they want, and holders that were asked.
    pub takeovers: usize,
    /// Cookies of connections.
    pub cookies: usize,
    /// What cookies stand for outlives the connections, until its time is over.
    pub cookie_logins: usize,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Handled {
    /// It is done with.
    Done,
    /// It waits for a decision, and nothing was done about it yet: it and the requests of its session behind it shall be kept,
    /// and handled again in their order after [`Effects::resume_requests`].
    Waits,
}

/// The router of one core.
#[derive(Debug)]
pub struct Router {
    core: CoreId,
    cores: u16,
    realms: Vec<Realm>,
    limits: config::Limits,
    database_doors: DatabaseDoors,
    sessions: Sessions,
    invocations: Invocations,
    /// Calls that end by themselves if nothing comes, by deadline; each ends with its call.
    call_deadlines: BTreeSet<(u64, SessionKey, RequestId)>,
    /// Clients that have to answer a CHALLENGE. Ends with the answer, and with the connection.
    challenges: HashMap<SessionKey, Box<Challenged>, FixedState>,
    /// Sessions that end with their tokens, by time. Ends with the session.
    expiries: BTreeSet<(u64, SessionKey)>,
    /// Those whom an authenticator is asked about.
    asked: HashMap<SessionKey, Box<Asked>, FixedState>,
    cookies: Cookies,
    own_calls: OwnCalls,
    queries: Queries,
    resumptions: Resumptions,
    decisions: Decisions,
    /// Whether any role has an authorizer.
    has_authorizers: bool,
    meta: Meta,
    /// Of the input that is being handled.
    now: Now,
    /// When calls stop waiting for a callee; each ends with its waiting.
    queue_deadlines: Deadlines,
    /// Clients that were asked whether they are there, and what they hold that others want. Ends with the answer, and with the
    /// session.
    probes: HashMap<SessionKey, Vec<RegistrationId>, FixedState>,
    /// What dealers of this core have left to do; empty between inputs.
    work: VecDeque<Work>,
    /// Sessions to be closed once the lists that are being walked may change; empty between inputs.
    doomed: Vec<(SessionKey, CloseReason)>,
    retained_endings: Endings,
    /// Realms of which this core keeps a history: those that are at home here.
    recording: Vec<RealmIndex>,
    random: Random,
    hash_seed: u64,
    faults: Faults,
}

impl Router {
    /// The router of `core`, one of `cores`. All of them get the same configuration and seed.
    #[must_use]
    pub fn new(config: &RouterConfig, core: CoreId, cores: u16, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed, core);
        let hash_seed = random.key();
        let keys = RealmKeys { map: random.key(), subscription: Random::shared_key(seed) };
        let number_of = |name: &str| {
            let place = config.realms.iter().position(|realm| realm.name == name)?;
            Some(RealmIndex(place as u16))
        };
        let realms: Vec<Realm> = config
            .realms
            .iter()
            .map(|realm| {
                let mut built = Realm::new(realm, &config.limits, &config.doors, core, cores, keys);
                let home_of = realm.authenticator_realm.as_ref().unwrap_or(&realm.name);
                if let (Some(procedure), Some(realm)) = (&realm.authenticator, number_of(home_of)) {
                    built.authenticator = Some(Authenticator { procedure: procedure.as_str().into(), realm });
                }
                built
            })
            .collect();
        let has_authorizers =
            config.realms.iter().flat_map(|realm| &realm.roles).any(|role| role.authorizer.is_some());
        let is_recording = |realm: &&Realm| realm.home == core && realm.history.is_some();
        let numbered = (0..).map(RealmIndex).zip(&realms);
        let recording = numbered.filter(|(_, realm)| is_recording(realm)).map(|(index, _)| index).collect();
        Self {
            core,
            cores,
            realms,
            limits: config.limits.clone(),
            database_doors: DatabaseDoors::new(&config.doors),
            sessions: Sessions::default(),
            invocations: Invocations::new(hash_seed),
            call_deadlines: BTreeSet::new(),
            challenges: HashMap::with_hasher(FixedState::with_seed(hash_seed)),
            expiries: BTreeSet::new(),
            asked: HashMap::with_hasher(FixedState::with_seed(hash_seed)),
            cookies: Cookies::new(&config.doors, &config.limits, hash_seed),
            own_calls: OwnCalls::new(hash_seed),
            queries: Queries::new(hash_seed),
            resumptions: Resumptions::new(&config.publishers, hash_seed),
            decisions: Decisions::new(hash_seed, config.limits.authorizer_cache_max),
            has_authorizers,
            meta: Meta::default(),
            now: Now::default(),
            queue_deadlines: Deadlines::new(),
            probes: HashMap::with_hasher(FixedState::with_seed(hash_seed)),
            work: VecDeque::new(),
            doomed: Vec::new(),
            retained_endings: Endings::new(),
            recording,
            random,
            hash_seed,
            faults: Faults::default(),
        }
    }

    /// What tables of this core are seeded with whose keys clients choose: nobody outside of the process knows it.
    #[must_use]
    pub(crate) fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// A connection has made its link.
    pub fn handle_open(&mut self, _now: Now, key: SessionKey, link: LinkInfo) {
        // The configuration has at most 256.
        self.sessions.open(key, link.listener as u8);
    }

    /// A message of a client.
    pub fn handle_message(
        &mut self,
        now: Now,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> Handled {
        self.now = now;
        let Some(session) = self.sessions.get(key) else { return Handled::Done };
        if self.has_authorizers
            && session.state == State::Open
            && self.waits_for_decision(key, message, effects)
        {
            return Handled::Waits;
        }
        let Some(session) = self.sessions.get(key) else { return Handled::Done };
        let handled = match session.state {
            State::Vacant => return Handled::Done,
            State::Connected => self.handle_before_session(now, key, message, effects),
            State::Challenging => self.handle_in_challenge(key, message, effects),
            State::Open => self.handle_in_session(key, message, effects),
        };
        if let Err(error) = handled {
            self.handle_violation(now, key, &error, effects);
        }
        if self.has_authorizers {
            self.end_decision(key, message);
        }
        self.close_doomed(effects);
        Handled::Done
    }

    /// The one match on messages of an open session.
    #[inline(always)]
    fn handle_in_session(
        &mut self,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        match message {
            Message::Publish(message) => self.handle_publish(key, message, effects),
            Message::Call(message) => self.handle_call(key, message, effects),
            Message::Yield(message) => self.handle_yield(key, message, effects),
            Message::Error(message) => self.handle_error(key, message, effects),
            Message::Subscribe(message) => self.handle_subscribe(key, message, effects),
            Message::Unsubscribe(message) => self.handle_unsubscribe(key, message, effects),
            Message::Register(message) => self.handle_register(key, message, effects),
            Message::Unregister(message) => self.handle_unregister(key, message, effects),
            Message::Cancel(message) => {
                self.handle_cancel(key, message, effects);
                Ok(())
            }
            Message::Goodbye(message) => {
                self.handle_goodbye(key, &message.reason, effects);
                Ok(())
            }
            Message::Abort(_) => {
                self.handle_client_abort(key, effects);
                Ok(())
            }
            Message::Hello(_) => Err(ProtocolError::new("HELLO: the session is open already")),
            Message::Authenticate(_) => Err(ProtocolError::new("AUTHENTICATE: nothing was challenged")),
            Message::Welcome(_)
            | Message::Challenge(_)
            | Message::Published(_)
            | Message::Subscribed(_)
            | Message::Unsubscribed(_)
            | Message::Event(_)
            | Message::Result(_)
            | Message::Registered(_)
            | Message::Unregistered(_)
            | Message::Invocation(_)
            | Message::Interrupt(_) => {
                let name = message.kind().name();
                Err(ProtocolError::new(format!("{name}: only a router sends this message")))
            }
        }
    }

    fn handle_before_session(
        &mut self,
        now: Now,
        key: SessionKey,
        message: &Message<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        match message {
            Message::Hello(message) => {
                self.handle_hello(now, key, message, effects);
                Ok(())
            }
            Message::Abort(_) => {
                self.handle_client_abort(key, effects);
                Ok(())
            }
            other => {
                let name = other.kind().name();
                Err(ProtocolError::new(format!("{name}: the session is not open; HELLO comes first")))
            }
        }
    }

    /// The client gives up, and nothing is said about it.
    fn handle_client_abort(&mut self, key: SessionKey, effects: &mut impl Effects) {
        self.forget(key, effects);
        effects.close(key, CloseReason::ClientAbort, None);
    }

    /// The session ends; the transport may carry another (basic profile, "Session Close").
    #[cold]
    fn handle_goodbye(&mut self, key: SessionKey, reason: &str, effects: &mut impl Effects) {
        self.end_session(key, effects);
        let goodbye =
            Goodbye { details: CloseDetails::default(), reason: Text::Borrowed(uri::GOODBYE_AND_OUT) };
        let _ = effects.reply(key, &Message::Goodbye(goodbye));
        effects.left(key);
        // Its own session is over by now: the others end.
        self.end_login_at(key, reason, effects);
    }

    /// A peer broke the protocol: ABORT, and nothing further of it is processed.
    pub fn handle_violation(
        &mut self,
        now: Now,
        key: SessionKey,
        error: &ProtocolError,
        effects: &mut impl Effects,
    ) {
        self.now = now;
        if self.sessions.get(key).is_none() {
            return;
        }
        self.forget(key, effects);
        let abort = abort_message(uri::PROTOCOL_VIOLATION, &error.message);
        effects.close(key, CloseReason::ProtocolViolation, Some(&abort));
        self.close_doomed(effects);
    }

    /// The shard ends a connection, or found it ended.
    pub fn handle_close(
        &mut self,
        now: Now,
        key: SessionKey,
        reason: CloseReason,
        effects: &mut impl Effects,
    ) {
        self.now = now;
        self.close(key, reason, effects);
        self.close_doomed(effects);
    }

    fn close(&mut self, key: SessionKey, reason: CloseReason, effects: &mut impl Effects) {
        let Some(session) = self.sessions.get(key) else { return };
        let open = session.state == State::Open;
        self.forget(key, effects);
        let reason_uri = reason.info().uri;
        let farewell = if reason_uri.is_empty() {
            None
        } else if is_farewell(reason) && open {
            let details = CloseDetails { message: Some(Text::Borrowed(close_text(reason))) };
            Some(Message::Goodbye(Goodbye { details, reason: Text::Borrowed(reason_uri) }))
        } else {
            Some(abort_message(reason_uri, close_text(reason)))
        };
        effects.close(key, reason, farewell.as_ref());
    }

    fn close_doomed(&mut self, effects: &mut impl Effects) {
        self.finish_work(effects);
        // Ending one session may meet the outbox of another, and give calls that wait another callee.
        while let Some((key, reason)) = self.doomed.pop() {
            self.close(key, reason, effects);
            self.finish_work(effects);
        }
    }

    /// A message of another core, or of this one to itself.
    pub fn handle_peer(&mut self, now: Now, from: CoreId, message: PeerMessage, effects: &mut impl Effects) {
        self.now = now;
        match message {
            PeerMessage::Publish { publication, charge, eras } => {
                if self.is_broken(Fault::PublishByTopic) {
                    self.relay_publication(from, &publication, effects);
                }
                self.handle_peer_publish(&publication, charge, eras, effects);
            }
            PeerMessage::Call(call) => self.route_call(Parcel::Owned(call), effects),
            PeerMessage::Invoke { callee, registration, pattern, call } => {
                self.invoke(callee, registration, pattern, Parcel::Owned(call), effects);
            }
            PeerMessage::NodeNews(news) => self.handle_node_news(&news),
            PeerMessage::CookieNews(news) => self.handle_cookie_news(*news),
            PeerMessage::RunHere(letter) => self.run_here(&letter, effects),
            PeerMessage::Catalogue(catalogue) => self.take_catalogue(&catalogue, effects),
            PeerMessage::CatalogueTaken { realm, database, version } => {
                self.catalogue_taken(from, realm, database, version);
            }
            PeerMessage::AskHistory(ask) => self.answer_history(&ask, effects),
            PeerMessage::Reply(reply) => self.finish_call(&Parcel::Owned(reply), effects),
            PeerMessage::Cancel { caller, request, mode, reason, realm } => {
                self.cancel_at_home(realm, caller, request, (mode, reason), effects);
            }
            PeerMessage::Interrupt { caller, request, mode, reason } => {
                self.interrupt(caller, request, (mode, reason), effects);
            }
            PeerMessage::InputEnded { caller, request, realm } => self.end_input(realm, caller, request),
            PeerMessage::CallerGone { caller, realm } => self.caller_gone(realm, caller, effects),
            PeerMessage::InterruptAll { caller } => self.interrupt_all(caller, effects),
            PeerMessage::Register(letter) => self.register_at_home(*letter, effects),
            PeerMessage::Unregister { realm, callee, request, registration } => {
                self.unregister_at_home(realm, callee, request, registration, effects);
            }
            PeerMessage::RegisterReply { callee, request, outcome, is_credited } => {
                self.finish_register(callee, request, outcome, is_credited, effects);
            }
            PeerMessage::Probe { callee, registration } => self.probe_callee(callee, registration, effects),
            PeerMessage::Probed { realm, callee, registration, is_there } => {
                self.decide_takeover(realm, callee, registration, is_there, effects);
            }
            PeerMessage::Revoked(revocation) => {
                let Revocation { callee, registration, uri_bytes, reason } = *revocation;
                self.lose_registration(callee, registration, uri_bytes, &reason, effects);
            }
            PeerMessage::Done { realm, ticket, end } => self.work.push_back(Work::Done(realm, ticket, end)),
            PeerMessage::CalleeGone { realm, callee } => self.callee_gone(realm, callee, effects),
            PeerMessage::News(news) => self.handle_news(*news, effects),
            PeerMessage::Ask(ask) => self.handle_ask(*ask, effects),
            PeerMessage::Answer(answer) => self.handle_answer(*answer, effects),
            PeerMessage::Received(receivers) => effects.received(receivers),
            // The shard's own; it does not hand them on.
            PeerMessage::Credit { .. } | PeerMessage::Hold { .. } | PeerMessage::Pressure { .. } => {}
        }
        self.close_doomed(effects);
    }

    /// A client that [`Effects::probe`] asked has answered in time, or has not.
    pub fn handle_probe(&mut self, now: Now, key: SessionKey, is_there: bool, effects: &mut impl Effects) {
        self.now = now;
        self.answer_probe(key, is_there, effects);
        self.close_doomed(effects);
    }

    /// Deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Now, effects: &mut impl Effects) {
        self.now = now;
        self.handle_call_timeouts(now.monotonic_us, effects);
        self.handle_own_call_timeouts(now.monotonic_us, effects);
        self.end_retained(now.monotonic_us);
        self.forget_history(now.monotonic_us);
        self.handle_queue_timeouts(effects);
        self.handle_meta_timeouts(now.monotonic_us, effects);
        self.handle_resumption_timeouts(now.monotonic_us, effects);
        self.end_expired(effects);
        self.cookies.expire(now.monotonic_us);
        if !self.faults.postponed.is_empty() {
            self.finish_fan_outs(effects);
        }
        self.close_doomed(effects);
    }

    /// When [`Self::handle_timeout`] is due, in monotonic microseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.faults.postponed.is_empty() {
            return Some(0);
        }
        let kill = self.call_deadlines.first().map(|(deadline_us, ..)| *deadline_us);
        let ending = self.retained_endings.first().map(|(deadline_us, ..)| *deadline_us);
        let queue = self.queue_deadlines.first().map(|(deadline_us, ..)| *deadline_us);
        let history = self.history_deadline_us();
        let expiry = self.expiries.first().map(|(deadline_us, ..)| *deadline_us);
        let calls = self.own_calls.next_deadline();
        let cookie = self.cookies.next_deadline_us();
        let resumption = self.resumptions.next_deadline_us();
        // Asked in every turn, and a list of them is made slowly.
        let earlier = |deadline: Option<u64>, other: u64| deadline.map_or(other, |it| it.min(other));
        let mut first_us = earlier(self.meta.next_deadline_us(), u64::MAX);
        first_us = earlier(kill, earlier(queue, earlier(expiry, earlier(resumption, first_us))));
        first_us = earlier(cookie, earlier(calls, earlier(ending, earlier(history, first_us))));
        (first_us != u64::MAX).then_some(first_us)
    }

    /// Whether a session waits for the answer to a call, or owes one.
    #[must_use]
    pub fn has_calls_under_way(&self, key: SessionKey) -> bool {
        let active = self.sessions.get(key).and_then(|session| session.active.as_ref());
        active.is_some_and(|active| !active.calls.is_empty() || !active.invocations.is_empty())
    }

    /// The sizes of all tables.
    #[must_use]
    pub fn table_sizes(&self) -> TableSizes {
        let dealers = || self.realms.iter().filter_map(|realm| realm.dealer.as_ref());
        TableSizes {
            sessions: self.sessions.count().max(self.sessions.open_count()),
            subscriptions: self.realms.iter().map(|realm| realm.broker.len()).sum(),
            registrations: dealers()
                .map(|dealer| if dealer.is_empty() { 0 } else { dealer.len().max(1) })
                .sum(),
            // A caller that is remembered without a call would be a leak too.
            invocations: if self.invocations.is_empty() { 0 } else { self.invocations.len().max(1) },
            challenges: self.challenges.len() + self.asked.len() + self.expiries.len(),
            call_deadlines: self.call_deadlines.len(),
            inputs: self.invocations.inputs()
                + self
                    .realms
                    .iter()
                    .filter_map(|realm| realm.dealer.as_ref())
                    .map(Dealer::inputs)
                    .sum::<usize>(),
            own_calls: self.own_calls.len(),
            queries: self.queries.len(),
            resumptions: self.resumptions.len(),
            callable: self.realms.iter().map(|realm| realm.callable.len()).sum(),
            decisions: self.decisions.len(),
            cookies: self.cookies.jars(),
            cookie_logins: self.cookies.logins(),
            retained: self.realms.iter().map(|realm| realm.retained.len()).sum(),
            takeovers: self.probes.len() + dealers().map(Dealer::waiting_registers).sum::<usize>(),
            sharded: self.realms.iter().map(|realm| realm.sharding.len()).sum(),
            history: self.realms.iter().filter_map(|realm| realm.history.as_deref()).map(History::len).sum(),
            remembered_calls: self.work.len()
                + self.queue_deadlines.len()
                + dealers().map(Dealer::remembered_calls).sum::<usize>(),
            meta: self.meta.len()
                + self.realms.iter().map(|realm| realm.broker.late_count()).sum::<usize>()
                + self
                    .realms
                    .iter()
                    .filter_map(|realm| realm.directory.as_ref())
                    .map(Directory::len)
                    .sum::<usize>(),
        }
    }

    /// The realm and the session of a connection whose session is open.
    #[inline]
    fn realm_and_session(&self, key: SessionKey) -> (&Realm, &Session) {
        let session = self.sessions.at(key.slot);
        (&self.realms[session.realm.0 as usize], session)
    }

    /// The name of the session on a connection of this core, among all cores.
    fn sitting(&self, key: SessionKey) -> Sitting {
        Sitting { core: self.core, number: self.sessions.at(key.slot).number, key }
    }

    /// Request ids count 1, 2, 3, …, one counter for all requests of a session (basic profile, "IDs").
    fn check_request(&mut self, key: SessionKey, request: RequestId) -> Result<(), ProtocolError> {
        let session = self.sessions.at_mut(key.slot);
        let expected = session.last_request.next();
        if request != expected && self.realms[session.realm.0 as usize].strict_request_ids {
            return Err(ProtocolError::new(format!("request id {request}: the next one is {expected}")));
        }
        session.last_request = request;
        Ok(())
    }

    /// Ends the session and all that it holds; the connection stays.
    fn end_session(&mut self, key: SessionKey, effects: &mut impl Effects) {
        if self.sessions.at(key.slot).state != State::Open {
            return;
        }
        effects.counters().sessions_ended += 1;
        self.realm_and_session(key).0.counts.sessions_ended.add(1);
        let callee = self.sitting(key);
        // From here on nothing is sent to it, wherever home is: no INTERRUPT of a call to itself either.
        self.sessions.at_mut(key.slot).state = State::Connected;
        if self.has_authorizers {
            self.forget_decision(key, effects);
        }
        if !self.probes.is_empty() {
            self.probes.remove(&key);
        }
        // First its own calls, so that answers to itself find nobody.
        self.forget_calls(key, effects);
        // Before its invocations end, so that none of the calls that wait for a callee gets this one.
        let session = self.sessions.at(key.slot);
        let realm = session.realm;
        if session.active.as_ref().is_some_and(|active| active.ever_registered) {
            let home = self.realms[realm.0 as usize].home;
            if home == self.core {
                self.callee_gone(realm, callee, effects);
            } else {
                effects.peer(home, PeerMessage::CalleeGone { realm, callee });
            }
        }
        self.abandon_invocations(key, effects);
        self.remove_subscriptions(key, effects);
        self.publish_testaments(key, effects);
        let session = self.sessions.at_mut(key.slot);
        session.number = session.number.wrapping_add(1);
        session.active = None;
        session.last_request = RequestId(0);
        // Last: who hears that it left has heard of all that ended with it.
        self.tell_registration_changes(effects);
        self.session_left(key, effects);
        if let Some(identity) = self.sessions.at_mut(key.slot).identity.take()
            && identity.expires_us != identity::NEVER
        {
            self.expiries.remove(&(identity.expires_us, key));
        }
    }

    /// Ends the session and frees the slot: nothing that comes for it is heard any more.
    fn forget(&mut self, key: SessionKey, effects: &mut impl Effects) {
        if let Some(session) = self.sessions.get(key) {
            if session.state == State::Challenging {
                self.challenges.remove(&key);
                self.forget_question(key, effects);
            }
            self.end_session(key, effects);
            self.cookies.leave(key);
            self.sessions.free(key);
        }
    }

    /// ABORT before WELCOME.
    fn abort(&mut self, key: SessionKey, reason: &'static str, text: &str, effects: &mut impl Effects) {
        effects.counters().sessions_refused += 1;
        self.forget(key, effects);
        effects.close(key, CloseReason::SessionRefused, Some(&abort_message(reason, text)));
    }

    /// ERROR to a request other than CALL.
    fn refuse(
        &mut self,
        key: SessionKey,
        request_type: MessageType,
        request: RequestId,
        error: &'static str,
        text: &str,
        effects: &mut impl Effects,
    ) {
        effects.counters().request_errors += 1;
        self.realm_and_session(key).0.counts.errors.add(1);
        self.send_error(key, request_type, request, error, text, effects);
    }

    fn not_authorized(
        &mut self,
        key: SessionKey,
        request_type: MessageType,
        request: RequestId,
        refusal: Refusal,
        effects: &mut impl Effects,
    ) {
        effects.counters().not_authorized += 1;
        self.refuse(key, request_type, request, refusal.error, refusal.text, effects);
    }

    fn send_error(
        &mut self,
        key: SessionKey,
        request_type: MessageType,
        request: RequestId,
        error: &'static str,
        text: &str,
        effects: &mut impl Effects,
    ) {
        let args = text_args(text);
        let message = Message::Error(Error {
            request_type,
            request,
            error: Text::Borrowed(error),
            passthru: Passthru::default(),
            payload: Payload { args: &args, ..Payload::EMPTY },
        });
        let _ = effects.reply(key, &message);
    }
}

fn abort_message<'a>(reason: &'a str, text: &'a str) -> Message<'a> {
    let details = CloseDetails { message: Some(Text::Borrowed(text)) };
    Message::Abort(Abort { details, reason: Text::Borrowed(reason), payload: Payload::EMPTY })
}

/// A text of the router's own as the only argument, in JSON. The texts are fixed and need no escapes.
fn text_args(text: &str) -> Vec<u8> {
    debug_assert!(!text.contains(['"', '\\']) && !text.contains(char::is_control));
    format!("[\"{text}\"]").into_bytes()
}

/// Whether a session hears of this end by GOODBYE: nobody has done anything wrong.
fn is_farewell(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::SystemShutdown | CloseReason::TokenExpired | CloseReason::LoggedOut)
}

/// What ABORT and GOODBYE tell people.
fn close_text(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::HandshakeTimeout => "the handshake was not complete in time",
        CloseReason::HelloTimeout => {
            "no session was open in time: HELLO, or the answer to CHALLENGE, is missing"
        }
        CloseReason::SlowConsumer => "the session does not read what it is sent fast enough",
        CloseReason::PingTimeout => "the client did not answer pings",
        CloseReason::OutOfMemory => "the router is short of memory; come back later",
        CloseReason::TooManyConnections => "too many connections; come back later",
        CloseReason::SystemShutdown => "the router shuts down",
        CloseReason::LoggedOut => "the user has logged out in another session",
        CloseReason::TokenExpired => "the token that the session was opened with has expired",
        _ => "the connection is closed",
    }
}
