//! The routers of a node without a node: rings, outboxes and accounts in memory, every effect recorded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use crosspoint::cookie::CookieDigest;
use crosspoint::metrics::{Counters, RealmCounters};
use crosspoint::router::database::{
    DatabaseBatch, DatabaseEvent, DatabaseIndex, DatabasePublication, NotReplayed, Procedure, Query,
    QueryNumber, Receivers, Replay, batch_of_key,
};
use crosspoint::router::effects::{CreditTime, Effects, EventFrames, Sent, Transcoded};
use crosspoint::router::fault::Fault;
use crosspoint::router::peer::{Charge, CoreId, NEWS_KEY, PeerMessage, RealmIndex, SessionKey, SessionRef};
use crosspoint::router::{Handled, LinkInfo, Now, Router, RouterConfig, SlowCheck, TableSizes};
use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};
use crosspoint::wamp::message::{Event, Message};
use crosspoint::wamp::{CloseReason, MessageType, SessionId};

use super::databases::{DATABASES_MAX, Databases, payload_of, replayed};
use super::script::{Database, Held, Outbox};

/// What a party got, in the bytes that it got.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message, in the party's serializer.
    Message(Vec<u8>),
    /// The end of its connection.
    Closed(CloseReason),
    /// A ping that asks whether it is there.
    Pinged,
    /// A new cookie.
    Cookie,
}

/// A connection, as a shard would hold it.
struct Connection {
    party: usize,
    serializer: Serializer,
    open: bool,
    outbox: Outbox,
    bytes_max: usize,
    takes_pings: bool,
    /// Requests that wait for a decision about the first of them.
    waiting: VecDeque<Vec<u8>>,
}

/// All of one core that is not its router.
struct Recorder {
    core: CoreId,
    connections: BTreeMap<SessionKey, Connection>,
    received: Vec<(usize, Received)>,
    sent_to_peers: Vec<(CoreId, PeerMessage)>,
    /// Charges less credits given on this core, by the session that was charged.
    accounts: BTreeMap<SessionRef, i64>,
    /// Sessions that could not even take a small reply.
    doomed: Vec<SessionKey>,
    /// What this core told the others that it wants, and how often.
    interest: BTreeMap<u64, i64>,
    /// Sessions whose requests may be handled again.
    resumed: Vec<SessionKey>,
    encoder: Encoder,
    counters: Counters,
    share: i64,
    /// Slow checks that are done, and whether there is room for more.
    checked: VecDeque<(SessionKey, bool)>,
    checks_are_full: bool,
    /// The address of all has failed to log in too often.
    is_barred: bool,
    databases: Databases,
    /// Work that no message shows.
    searched: usize,
}

impl Recorder {
    fn account(&mut self, session: SessionRef) -> &mut i64 {
        self.accounts.entry(session).or_default()
    }

    fn encode(&mut self, message: &Message<'_>, serializer: Serializer) -> Result<Vec<u8>, Sent> {
        let mut bytes = Vec::new();
        self.encoder.encode(message, serializer, &mut bytes).map_err(|_| Sent::NotRepresentable)?;
        Ok(bytes)
    }

    fn queue(&mut self, to: SessionKey, message: &Message<'_>, refused_by: &[Outbox]) -> Sent {
        let Some(connection) = self.connections.get(&to) else { return Sent::Gone };
        let between_sessions = matches!(
            message.kind(),
            MessageType::Abort | MessageType::Welcome | MessageType::Goodbye | MessageType::Challenge
        );
        assert!(connection.open || between_sessions, "{} without a session", message.kind().name());
        let (party, bytes_max) = (connection.party, connection.bytes_max);
        let full = refused_by.contains(&connection.outbox);
        let bytes = match self.encode(message, connection.serializer) {
            Ok(bytes) if bytes.len() > bytes_max => return Sent::TooLarge,
            Ok(_) if full => return Sent::Full,
            Ok(bytes) => bytes,
            Err(sent) => return sent,
        };
        self.received.push((party, Received::Message(bytes)));
        Sent::Accepted
    }
}

impl Effects for Recorder {
    fn send(&mut self, to: SessionKey, message: &Message<'_>) -> Sent {
        self.queue(to, message, &[Outbox::Full, Outbox::Stuck])
    }

    fn send_part(&mut self, to: SessionKey, message: &Message<'_>) -> Sent {
        self.send(to, message)
    }

    fn reply(&mut self, to: SessionKey, message: &Message<'_>) -> Sent {
        let sent = self.queue(to, message, &[Outbox::Stuck]);
        if sent == Sent::Full {
            self.doomed.push(to);
        }
        sent
    }

    fn may_tell(&self) -> bool {
        true
    }

    fn event(
        &mut self,
        to: SessionKey,
        event: &Event<'_>,
        frames: &mut EventFrames,
        _transcoded: &mut Transcoded,
    ) -> Sent {
        let Some(connection) = self.connections.get(&to) else { return Sent::Gone };
        assert!(connection.open, "EVENT without a session");
        let (party, serializer) = (connection.party, connection.serializer);
        let (outbox, bytes_max) = (connection.outbox, connection.bytes_max);
        // Shared as a shard shares them, so that a message that differs from the first would be noticed.
        let index = serializer as u8;
        if frames.get(index).is_none() {
            let Ok(encoded) = self.encode(&Message::Event(event.clone()), serializer) else {
                return Sent::NotRepresentable;
            };
            frames.keep(index, Bytes::from(encoded));
        }
        let Some(frame) = frames.get(index) else { return Sent::NotRepresentable };
        if frame.len() > bytes_max {
            return Sent::TooLarge;
        }
        if !matches!(outbox, Outbox::Reads | Outbox::Slow) {
            return Sent::Full;
        }
        self.received.push((party, Received::Message(frame.to_vec())));
        Sent::Accepted
    }

    fn announce(&mut self, topic: u64, wanted: bool) -> u32 {
        let count = self.interest.entry(topic).or_default();
        *count += if wanted { 1 } else { -1 };
        assert!(*count >= 0, "no interest was announced");
        if *count == 0 {
            self.interest.remove(&topic);
        }
        0
    }

    /// Everything, so that what a core does not want is seen to do no harm.
    fn interest(&self, _core: CoreId, _topic: u64) -> (bool, u32) {
        (true, 0)
    }

    fn searched(&mut self, shapes: usize) {
        self.searched += shapes;
    }

    fn peer(&mut self, to: CoreId, message: PeerMessage) {
        assert_ne!(to, self.core, "a message to oneself is a call inside the router");
        self.sent_to_peers.push((to, message));
    }

    fn charge(&mut self, session: SessionKey, bytes: u32) -> bool {
        let is_of_a_session = batch_of_key(session).is_none() && session != NEWS_KEY;
        assert!(!is_of_a_session || self.connections.contains_key(&session), "charged after its end");
        let (core, share) = (self.core, self.share);
        let account = self.account(SessionRef { core, key: session });
        *account += i64::from(bytes);
        *account > share
    }

    fn resume_requests(&mut self, session: SessionKey) -> bool {
        self.resumed.push(session);
        true
    }

    fn credit(&mut self, session: SessionRef, charge: Charge, _when: CreditTime) {
        *self.account(session) -= i64::from(charge.bytes);
    }

    fn probe(&mut self, session: SessionKey) -> bool {
        let connection = self.connections.get(&session).expect("probed without a connection");
        if !connection.takes_pings {
            return false;
        }
        self.received.push((connection.party, Received::Pinged));
        true
    }

    fn may_log_in(&mut self, _session: SessionKey) -> bool {
        !self.is_barred
    }

    fn login_failed(&mut self, session: SessionKey) {
        assert!(self.connections.contains_key(&session), "failed after its end");
    }

    fn check(&mut self, session: SessionKey, check: SlowCheck) -> bool {
        if self.checks_are_full {
            return false;
        }
        self.checked.push_back((session, check.run()));
        true
    }

    fn query(&mut self, query: Query) -> bool {
        self.databases.query(query)
    }

    fn query_more(&mut self, _database: DatabaseIndex, query: QueryNumber) {
        self.databases.more.push(query);
    }

    fn query_cancel(&mut self, _database: DatabaseIndex, query: QueryNumber) {
        self.databases.cancelled.push(query);
    }

    fn replay(&mut self, replay: Replay) -> bool {
        self.databases.replay(replay)
    }

    fn received(&mut self, receivers: Receivers) {
        assert!(receivers.count > 0 && batch_of_key(receivers.batch).is_some(), "{receivers:?}");
        *self.databases.counted.entry(receivers.position).or_default() += u64::from(receivers.count);
    }

    fn has_room(&self, session: SessionKey) -> bool {
        self.connections.get(&session).is_none_or(|connection| connection.outbox == Outbox::Reads)
    }

    fn opened(&mut self, session: SessionKey, _id: SessionId) {
        let connection = self.connections.get_mut(&session).expect("opened without a connection");
        assert!(!connection.open, "opened twice");
        connection.open = true;
    }

    fn left(&mut self, session: SessionKey) {
        let connection = self.connections.get_mut(&session).expect("left without a connection");
        assert!(connection.open, "left without a session");
        connection.open = false;
    }

    fn close(&mut self, session: SessionKey, reason: CloseReason, farewell: Option<&Message<'_>>) {
        if let Some(farewell) = farewell {
            let _ = self.queue(session, farewell, &[]);
        }
        let Some(connection) = self.connections.remove(&session) else { return };
        self.received.push((connection.party, Received::Closed(reason)));
    }

    fn serializer(&self, session: SessionKey) -> Serializer {
        self.connections.get(&session).map_or(Serializer::Json, |connection| connection.serializer)
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

struct Core {
    router: Router,
    recorder: Recorder,
    /// The generation of each slot, counted up when its tenant leaves.
    generations: Vec<u32>,
}

/// Where each party is, and how the routers are driven.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) cores: u16,
    pub(crate) home: u16,
    /// By party.
    pub(crate) placement: Vec<u16>,
    /// The rings are drained from the last core to the first.
    pub(crate) backwards: bool,
    /// What the routers do wrong on purpose.
    pub(crate) fault: Fault,
}

/// The routers of some cores, and their rings.
pub(crate) struct World {
    setup: Setup,
    cores: Vec<Core>,
    /// By sender and receiver.
    rings: BTreeMap<(CoreId, CoreId), VecDeque<PeerMessage>>,
    /// By party: its connection, unless it has none.
    connections: Vec<Option<SessionKey>>,
    /// By party: the cookie that its browser has.
    cookies: Vec<Option<CookieDigest>>,
    now: Now,
    held: Held,
    decode_limits: DecodeLimits,
    /// Of what databases have published.
    last_position: u64,
    published: Vec<(DatabaseIndex, DatabasePublication)>,
    /// Not kept any more.
    forgotten: u64,
}

impl World {
    pub(crate) fn new(config: &RouterConfig, setup: Setup) -> Self {
        let mut config = config.clone();
        for realm in &mut config.realms {
            realm.home = Some(setup.home as usize);
        }
        let router = |core| {
            let mut router = Router::new(&config, core, setup.cores, [7; 32]);
            router.break_promise(setup.fault);
            router
        };
        let cores = (0..setup.cores).map(CoreId).map(|core| Core {
            router: router(core),
            recorder: Recorder {
                core,
                connections: BTreeMap::new(),
                received: Vec::new(),
                sent_to_peers: Vec::new(),
                accounts: BTreeMap::new(),
                interest: BTreeMap::new(),
                doomed: Vec::new(),
                resumed: Vec::new(),
                encoder: Encoder::new(),
                counters: Counters::default(),
                checked: VecDeque::new(),
                checks_are_full: false,
                is_barred: false,
                databases: Databases::default(),
                searched: 0,
                share: config.limits.credit_bytes_per_session as i64,
            },
            generations: Vec::new(),
        });
        let cores = cores.collect();
        let limits = &config.limits;
        let decode_limits = DecodeLimits { depth_max: limits.depth_max, list_max: limits.option_list_max };
        let connections = vec![None; setup.placement.len()];
        let cookies = vec![None; setup.placement.len()];
        let now = Now { monotonic_us: 1_000_000, wall_us: 1_700_000_000_000_000 };
        Self {
            setup,
            cores,
            rings: BTreeMap::new(),
            connections,
            cookies,
            now,
            held: Held::None,
            decode_limits,
            last_position: 0,
            published: Vec::new(),
            forgotten: 0,
        }
    }

    /// A party connects, to the first free slot of its core.
    pub(crate) fn open(&mut self, party: usize, serializer: Serializer, listener: u16) {
        assert!(self.connections[party].is_none(), "the party is connected already");
        let core = &mut self.cores[self.setup.placement[party] as usize];
        let taken: Vec<u32> = core.recorder.connections.keys().map(|key| key.slot).collect();
        let slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or_default();
        if core.generations.len() <= slot as usize {
            core.generations.push(0);
        }
        core.generations[slot as usize] += 1;
        let key = SessionKey { slot, generation: core.generations[slot as usize] };
        let connection = Connection {
            party,
            serializer,
            open: false,
            outbox: Outbox::Reads,
            bytes_max: usize::MAX,
            takes_pings: true,
            waiting: VecDeque::new(),
        };
        core.recorder.connections.insert(key, connection);
        core.router.handle_open(self.now, key, LinkInfo { listener });
        self.connections[party] = Some(key);
    }

    /// The handshake of a party had a cookie, or none.
    pub(crate) fn bring_cookie(&mut self, party: usize, whose: Option<usize>) {
        let key = self.connections[party].expect("the party is not connected");
        let brought = whose.and_then(|whose| self.cookies[whose]);
        let core = &mut self.cores[self.setup.placement[party] as usize];
        self.cookies[party] = brought;
        if let Some(cookie) = core.router.handle_cookie(self.now, key, brought) {
            self.cookies[party] = Some(cookie.digest());
            core.recorder.received.push((party, Received::Cookie));
        }
    }

    /// A party sends one message.
    pub(crate) fn send(&mut self, party: usize, input: Input<'_>) {
        let key = self.connections[party].expect("the party is not connected");
        let core = &mut self.cores[self.setup.placement[party] as usize];
        let serializer = core.recorder.serializer(key);
        match decode(serializer, input, self.decode_limits) {
            Ok(message) => {
                let bytes = match input {
                    Input::Text(text) => text.as_bytes(),
                    Input::Bytes(bytes) => bytes,
                };
                let passes = match &message {
                    Message::Yield(_) | Message::Error(_) | Message::Abort(_) => true,
                    Message::Cancel(cancel) => core.router.call_is_open(key, cancel.request),
                    _ => false,
                };
                let connection = core.recorder.connections.get(&key);
                let waits = !passes && connection.is_some_and(|connection| !connection.waiting.is_empty());
                if (waits
                    || core.router.handle_message(self.now, key, &message, &mut core.recorder)
                        == Handled::Waits)
                    && let Some(connection) = core.recorder.connections.get_mut(&key)
                {
                    connection.waiting.push_back(bytes.to_vec());
                }
            }
            Err(error) => core.router.handle_violation(self.now, key, &error, &mut core.recorder),
        }
        self.settle();
    }

    /// Handles the requests that waited for a decision, as far as it goes.
    fn resume(&mut self, core: usize) -> bool {
        let core = &mut self.cores[core];
        let resumed = std::mem::take(&mut core.recorder.resumed);
        for key in &resumed {
            while let Some(connection) = core.recorder.connections.get(key)
                && let Some(request) = connection.waiting.front().cloned()
            {
                let message = decode(connection.serializer, Input::Bytes(&request), self.decode_limits);
                let message = message.expect("it was decoded before");
                if core.router.handle_message(self.now, *key, &message, &mut core.recorder) == Handled::Waits
                {
                    break;
                }
                if let Some(connection) = core.recorder.connections.get_mut(key) {
                    connection.waiting.pop_front();
                }
            }
        }
        !resumed.is_empty()
    }

    /// A party has answered a ping that asked whether it is there, or has not.
    pub(crate) fn pong(&mut self, party: usize, is_there: bool) {
        let key = self.connections[party].expect("the party is not connected");
        let core = &mut self.cores[self.setup.placement[party] as usize];
        core.router.handle_probe(self.now, key, is_there, &mut core.recorder);
        self.settle();
    }

    /// The connection of a party ends.
    pub(crate) fn close(&mut self, party: usize, reason: CloseReason) {
        let key = self.connections[party].expect("the party is not connected");
        let core = &mut self.cores[self.setup.placement[party] as usize];
        core.router.handle_close(self.now, key, reason, &mut core.recorder);
        self.settle();
    }

    pub(crate) fn is_connected(&self, party: usize) -> bool {
        self.connections[party].is_some()
    }

    pub(crate) fn set_outbox(&mut self, party: usize, outbox: Outbox) {
        self.connection(party).outbox = outbox;
    }

    pub(crate) fn set_bytes_max(&mut self, party: usize, bytes_max: usize) {
        self.connection(party).bytes_max = bytes_max;
    }

    pub(crate) fn take_no_pings(&mut self, party: usize) {
        self.connection(party).takes_pings = false;
    }

    fn connection(&mut self, party: usize) -> &mut Connection {
        let key = self.connections[party].expect("the party is not connected");
        let core = &mut self.cores[self.setup.placement[party] as usize];
        core.recorder.connections.get_mut(&key).expect("the party is not connected")
    }

    /// What a database does, or is asked to.
    pub(crate) fn database(&mut self, database: u16, act: &Database) -> Result<(), String> {
        let index = DatabaseIndex(database);
        if let Database::Offers(uris) = act {
            let procedure = |uri: &String| {
                Arc::new(Procedure {
                    uri: uri.as_str().into(),
                    driver: Arc::new(()),
                    timeout_ms: 0,
                    concurrency: 0,
                })
            };
            let procedures: Arc<[Arc<Procedure>]> = uris.iter().map(procedure).collect();
            for core in &mut self.cores {
                let event = DatabaseEvent::Offer(RealmIndex(0), index, Arc::clone(&procedures));
                core.router.handle_database(self.now, event, &mut core.recorder);
            }
        } else if let Database::Publishes(depth, publishes) = act {
            self.last_position += 1;
            let (position, depth, publish) = (self.last_position, *depth, publishes.as_str().into());
            let publication = DatabasePublication { position, depth, publish };
            self.published.push((index, publication.clone()));
            let (realm, number) = (RealmIndex(0), self.last_position as u32);
            let publications = Arc::new([publication]);
            let batch = DatabaseBatch { realm, database: index, number, publications, is_counted: true };
            let core = &mut self.cores[usize::from(database) % usize::from(self.setup.cores)];
            core.router.handle_database(self.now, DatabaseEvent::Publish(batch), &mut core.recorder);
        } else if let Database::HasCounted(count) = act {
            let publisher = usize::from(database) % usize::from(self.setup.cores);
            let counted = |core: &Core| core.recorder.databases.counted.get(&self.last_position).copied();
            for (number, core) in self.cores.iter().enumerate() {
                let counted = counted(core).unwrap_or_default();
                if counted != if number == publisher { *count } else { 0 } {
                    return Err(format!("core {number} has counted {counted}"));
                }
            }
        } else if let Database::Forgets(position) = act {
            self.forgotten = *position;
        } else if let Database::Replays(_)
        | Database::LosesReplay
        | Database::IsLate
        | Database::HasNoReplay = act
        {
            // The outboxes of those that read have been flushed since.
            for core in &mut self.cores {
                core.router.handle_flushed(&mut core.recorder);
            }
            let is_asked = |core: &&mut Core| {
                core.recorder.databases.replays.front().is_some_and(|replay| replay.database == index)
            };
            let asked = self.cores.iter_mut().find(is_asked);
            let asked =
                asked.and_then(|core| core.recorder.databases.replays.pop_front().map(|it| (core, it)));
            match (asked, act) {
                (None, Database::HasNoReplay) => {}
                (None, _) => return Err("nobody resumes".to_owned()),
                (Some((_, replay)), Database::HasNoReplay) => return Err(format!("{replay:?}")),
                (Some((core, replay)), act) => {
                    let count_max = if let Database::Replays(count) = act { *count } else { None };
                    let count_max = count_max.unwrap_or(usize::MAX);
                    let result = match act {
                        Database::LosesReplay => Err(NotReplayed::Away),
                        Database::IsLate => Err(NotReplayed::Late),
                        _ if replay.after < self.forgotten => Err(NotReplayed::NotKept),
                        _ => Ok(replayed(&replay, &self.published, count_max)),
                    };
                    let event = DatabaseEvent::Replayed(replay.number, result);
                    core.router.handle_database(self.now, event, &mut core.recorder);
                }
            }
        } else if let Database::Full(full) = act {
            self.cores.iter_mut().for_each(|core| core.recorder.databases.is_full = *full);
        } else {
            // The outboxes of those that read have been flushed since.
            for core in &mut self.cores {
                core.router.handle_flushed(&mut core.recorder);
            }
            let said = self.cores.iter_mut().find_map(|core| {
                let said = core.recorder.databases.act(index, act, &mut core.recorder.encoder)?;
                if let Ok(Some(event)) = &said {
                    core.router.handle_database(self.now, event.clone(), &mut core.recorder);
                }
                Some(said.map(|_| ()))
            });
            said.ok_or("no core has asked the database for that")??;
        }
        self.settle();
        Ok(())
    }

    /// Databases end what they run, and offer nothing any more.
    pub(crate) fn end_databases(&mut self) {
        for core in &mut self.cores {
            core.recorder.databases.is_full = true;
            while let Some(replay) = core.recorder.databases.replays.pop_front() {
                let event = DatabaseEvent::Replayed(replay.number, Err(NotReplayed::Away));
                core.router.handle_database(self.now, event, &mut core.recorder);
            }
            core.recorder.databases.is_full = false;
            for query in std::mem::take(&mut core.recorder.databases.running) {
                let event = DatabaseEvent::Done(query.number, payload_of("[]", &query, &mut Encoder::new()));
                core.router.handle_database(self.now, event, &mut core.recorder);
            }
        }
        for database in 0..DATABASES_MAX {
            let _ = self.database(database, &Database::Offers(Vec::new()));
        }
    }

    /// Lets time pass, stopping at every deadline.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now.monotonic_us + ms * 1000;
        while let Some(deadline) =
            self.cores.iter().filter_map(|core| core.router.next_deadline()).min().filter(|at| *at <= until)
        {
            self.now.monotonic_us = self.now.monotonic_us.max(deadline);
            self.turn();
        }
        self.now.monotonic_us = until;
        self.now.wall_us += ms * 1000;
    }

    /// One turn of each core, for the deadlines that have passed.
    pub(crate) fn turn(&mut self) {
        for core in &mut self.cores {
            let logins = core.router.table_sizes().cookie_logins;
            core.router.handle_timeout(self.now, &mut core.recorder);
            let left = core.router.table_sizes();
            let is_going_on = left.meta > 0 || left.cookie_logins < logins;
            let next = core.router.next_deadline();
            let is_later = next.is_none_or(|next| next > self.now.monotonic_us);
            assert!(is_going_on || is_later, "a timeout is stuck");
        }
        self.settle();
    }

    /// Whether logins are refused because too many have failed.
    pub(crate) fn bar_logins(&mut self, barred: bool) {
        for core in &mut self.cores {
            core.recorder.is_barred = barred;
        }
    }

    /// Whether there is room for slow checks.
    pub(crate) fn set_checks_full(&mut self, full: bool) {
        for core in &mut self.cores {
            core.recorder.checks_are_full = full;
        }
    }

    pub(crate) fn hold(&mut self, held: Held) {
        self.held = held;
        self.settle();
    }

    /// Handles all that lies in the rings, one message of each in turn.
    fn settle(&mut self) {
        loop {
            self.collect();
            while (0..self.cores.len()).any(|core| self.resume(core)) {
                self.collect();
            }
            let is_free = |pair: &(CoreId, CoreId)| match self.held {
                Held::None => true,
                Held::One(from, to) => *pair != (CoreId(from), CoreId(to)),
                Held::All => false,
            };
            let waiting = self.rings.iter().filter(|(pair, ring)| !ring.is_empty() && is_free(pair));
            let mut pairs: Vec<_> = waiting.map(|(pair, _)| *pair).collect();
            if pairs.is_empty() {
                break;
            }
            if self.setup.backwards {
                pairs.reverse();
            }
            for pair in pairs {
                let (from, to) = pair;
                let Some(message) = self.rings.get_mut(&pair).and_then(VecDeque::pop_front) else { continue };
                let core = &mut self.cores[to.0 as usize];
                core.router.handle_peer(self.now, from, message, &mut core.recorder);
                self.collect();
            }
        }
        if self.held != Held::None {
            return;
        }
        // R8: nothing is on its way, so nothing is owed; but of many sessions that one ends some are left for the next turn.
        let now_us = self.now.monotonic_us;
        let goes_on = |core: &Core| core.router.next_deadline().is_some_and(|at_us| at_us <= now_us);
        if self.cores.iter().any(goes_on) {
            return;
        }
        let mut owed: BTreeMap<SessionRef, i64> = BTreeMap::new();
        for (session, bytes) in self.cores.iter().flat_map(|core| &core.recorder.accounts) {
            *owed.entry(*session).or_default() += bytes;
        }
        for (session, bytes) in owed {
            assert_eq!(bytes, 0, "charged less credited, of {session:?}");
        }
        self.cores.iter_mut().for_each(|core| core.recorder.accounts.clear());
        // R12: every core ends with the same.
        let [first, others @ ..] = &self.cores[..] else { return };
        for core in others {
            let (here, there) = (first.router.retained(), core.router.retained());
            assert!(here.eq(there), "retained on {:?} is not what is retained on 0", core.recorder.core);
        }
    }

    /// Puts what was sent into the rings, and ends the sessions that took no reply.
    fn collect(&mut self) {
        for core in &mut self.cores {
            while self.held == Held::None
                && let Some((key, is_right)) = core.recorder.checked.pop_front()
            {
                core.router.handle_checked(self.now, key, is_right, &mut core.recorder);
            }
            while let Some(key) = core.recorder.doomed.pop() {
                core.router.handle_close(self.now, key, CloseReason::SlowConsumer, &mut core.recorder);
            }
            for (to, message) in core.recorder.sent_to_peers.drain(..) {
                self.rings.entry((core.recorder.core, to)).or_default().push_back(message);
            }
        }
    }

    /// What the parties got since the last time, in the order in which it was sent on each core.
    pub(crate) fn take_received(&mut self) -> Vec<(usize, Received)> {
        let mut received = Vec::new();
        for core in &mut self.cores {
            received.append(&mut core.recorder.received);
        }
        for (party, one) in &received {
            if matches!(one, Received::Closed(_)) {
                self.connections[*party] = None;
            }
        }
        received
    }

    /// Work that no message shows, on all cores.
    pub(crate) fn searched(&self) -> usize {
        self.cores.iter().map(|core| core.recorder.searched).sum()
    }

    /// The logins by cookie that each core has ended with the sessions of their users.
    pub(crate) fn cookie_logins_ended(&self) -> Vec<u64> {
        self.cores.iter().map(|core| core.recorder.counters.cookie_logins_ended).collect()
    }

    /// The entries of all tables of all cores.
    pub(crate) fn table_sizes(&self) -> impl Iterator<Item = TableSizes> {
        self.cores.iter().map(|core| core.router.table_sizes())
    }

    /// Everything that was a session's must end with it.
    pub(crate) fn assert_empty(&self) {
        for core in &self.cores {
            let tables = core.router.table_sizes();
            // What is retained outlives those who published it.
            let (retained, history) = (core.router.retained().count(), tables.history);
            let cookie_logins = tables.cookie_logins;
            let expected = TableSizes { retained, history, cookie_logins, ..TableSizes::default() };
            assert_eq!(tables, expected, "left on {:?}", core.recorder.core);
            assert!(core.recorder.interest.is_empty(), "wanted on {:?} by nobody", core.recorder.core);
            let outliving = tables.retained + tables.history + cookie_logins;
            assert!(outliving > 0 || core.router.next_deadline().is_none());
            assert_eq!(core.recorder.counters.sessions_opened, core.recorder.counters.sessions_ended);
            assert_realms_add_up(core);
        }
    }
}

/// What is counted of realms is all that is counted, and of what is gone nothing is left.
fn assert_realms_add_up(core: &Core) {
    let all = &core.recorder.counters;
    let mut realms = RealmCounters::default();
    core.router.realm_counters().for_each(|realm| realms.add(&realm));
    let expected = RealmCounters {
        sessions_opened: all.sessions_opened,
        sessions_ended: all.sessions_ended,
        publications: all.publications + all.testaments,
        events: all.events,
        calls: all.calls,
        errors: all.call_errors + all.request_errors,
        unsubscribed: realms.subscribed,
        registrations: 0,
        ..realms
    };
    assert_eq!(realms, expected, "counted on {:?}", core.recorder.core);
}
