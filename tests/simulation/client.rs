//! A client: what it does by chance, and what it makes of what it is sent.

#[path = "client/asks.rs"]
mod asks;
#[path = "client/databases.rs"]
mod databases;
#[path = "client/login.rs"]
mod login;
#[path = "client/receive.rs"]
mod receive;
#[path = "client/requests.rs"]
mod requests;

use std::collections::{BTreeMap, VecDeque};

use crosspoint::wamp::MatchPolicy;
use crosspoint::wamp::codec::{Encoder, Serializer};
use crosspoint::wamp::features::ClientFeatures;
use crosspoint::wamp::message::{Goodbye, Hello, Message};
use crosspoint::wamp::options::{CloseDetails, HelloDetails, InvocationPolicy, Text};

use self::asks::Asked;
use self::login::Login;
use super::advanced::Advanced;
use super::history::{End, History, Kept, broken};
use super::random::Random;
use super::transport::{Frame, Framing, Transport};
use super::world::Net;
use crate::history::cookies::Moment;

pub const REALMS: [&str; 2] = ["realm1", "realm2"];

/// What is published to and called.
const URIS: [&str; 5] = ["a.b.c", "a.b.d", "a.x.c", "e.b.c", "a.b"];

/// What the router says of itself, and of sessions that come and go.
const META: &str = "wamp.";
const SESSIONS: &str = "wamp.session.";

/// What is subscribed to and registered.
const PATTERNS: [(MatchPolicy, &str); 16] = [
    (MatchPolicy::Exact, "a.b.c"),
    (MatchPolicy::Exact, "a.b.d"),
    (MatchPolicy::Exact, "a.x.c"),
    (MatchPolicy::Exact, "e.b.c"),
    (MatchPolicy::Exact, "a.b"),
    (MatchPolicy::Prefix, "a"),
    (MatchPolicy::Prefix, "a.b"),
    (MatchPolicy::Prefix, "a.b.c"),
    (MatchPolicy::Prefix, "e.b"),
    (MatchPolicy::Wildcard, "a..c"),
    (MatchPolicy::Wildcard, ".b.c"),
    (MatchPolicy::Wildcard, "a.b."),
    (MatchPolicy::Wildcard, "..c"),
    (MatchPolicy::Wildcard, ".."),
    (MatchPolicy::Wildcard, "a."),
    (MatchPolicy::Wildcard, ".b."),
];

/// How procedures are shared where they are, by place among the patterns; as a rule.
const POLICIES: [InvocationPolicy; 7] = [
    InvocationPolicy::RoundRobin,
    InvocationPolicy::First,
    InvocationPolicy::Random,
    InvocationPolicy::LeastBusy,
    InvocationPolicy::Last,
    InvocationPolicy::Hash,
    InvocationPolicy::Single,
];

/// Of what is registered, and limited in its concurrency where procedures are shared. What matches nothing of it never waits.
const LIMITED: [(MatchPolicy, &str); 4] = [
    (MatchPolicy::Exact, "a.x.c"),
    (MatchPolicy::Exact, "e.b.c"),
    (MatchPolicy::Prefix, "e.b"),
    (MatchPolicy::Wildcard, "a."),
];

/// Of what a client has to say this much may lie about before it falls silent, in bytes.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not connected.
    Away,
    /// The handshake is sent.
    Handshake,
    /// HELLO is sent.
    Hello,
    /// A session is open.
    Open,
    /// GOODBYE is sent.
    Goodbye,
    /// The session is over, the connection is not.
    Between,
    /// It waits for the end of the connection.
    Ending,
}

/// A request that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Publish,
    Subscribe(usize),
    Unsubscribe(usize),
    Register(usize),
    Unregister(usize),
    Call(u64),
    Asked(Asked),
}

/// What clients act in.
pub struct Stage<'a> {
    pub net: &'a mut Net,
    pub history: &'a mut History,
    pub random: &'a mut Random,
    /// Counts up with everything that clients do.
    pub step: u64,
    /// The longest text of a payload, in bytes.
    pub padding_max: usize,
    /// Once in so many times a text is long.
    pub long_once_in: usize,
    /// Reasons for which the router may close a session.
    pub may_close: &'a [&'static str],
    /// Nobody leaves, nobody stops reading.
    pub is_impatient: bool,
    /// Procedures are shared, limited, and taken by force.
    pub shares: bool,
    /// Callees that can be passed over may be.
    pub reroutes: bool,
    pub advanced: Advanced,
    pub trace: &'a mut Trace,
}

/// All that happened, when a run is replayed to show it.
#[derive(Debug, Default)]
pub struct Trace {
    pub is_on: bool,
    pub lines: Vec<String>,
}

impl Trace {
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.is_on {
            self.lines.push(line());
        }
    }
}

#[derive(Debug)]
pub struct Client {
    pub number: usize,
    pub realm: usize,
    pub core: usize,
    pub state: State,
    pub wire: Option<usize>,
    /// It does not read for so many steps.
    pub stalled: u32,
    /// It did not read for a while, on this connection.
    has_stalled: bool,
    pub actions_left: u32,
    pub connects_left: u32,
    /// The session, while one is open or being closed.
    pub session: Option<usize>,
    /// All that was ever refused or closed by the router, for the report.
    pub closed_by_router: Vec<String>,
    transport: Transport,
    can_be_interrupted: bool,
    can_reroute: bool,
    can_seal: bool,
    /// It can be told that the router took a subscription back.
    can_lose_subscriptions: bool,
    out: VecDeque<u8>,
    fin_due: bool,
    fin_sent: bool,
    input: Vec<u8>,
    /// When HELLO was sent.
    hello_at: u64,
    /// Who it said it is.
    login: Option<Login>,
    /// The cookie of its connection: the one that it brought, or the one that it got.
    cookie: Option<String>,
    /// When it said HELLO with that.
    cookie_shown: Option<Moment>,
    last_request: u64,
    pending: BTreeMap<u64, Pending>,
    /// Calls with input to come, by request and number.
    inputs: Vec<(u64, u64)>,
    /// Invocations to be answered, by request and index.
    running: Vec<(u64, usize)>,
    encoder: Encoder,
}

impl Client {
    pub fn new(number: usize, core: usize, realm: usize, actions: u32, random: &mut Random) -> Self {
        Self {
            number,
            realm,
            core,
            state: State::Away,
            wire: None,
            stalled: 0,
            has_stalled: false,
            actions_left: actions,
            connects_left: 5,
            session: None,
            closed_by_router: Vec::new(),
            transport: Transport::any(random),
            can_be_interrupted: !random.once_in(4),
            can_reroute: !random.once_in(4),
            can_seal: false,
            can_lose_subscriptions: false,
            out: VecDeque::new(),
            fin_due: false,
            fin_sent: false,
            input: Vec::new(),
            hello_at: 0,
            login: None,
            cookie: None,
            cookie_shown: None,
            last_request: 0,
            pending: BTreeMap::new(),
            inputs: Vec::new(),
            running: Vec::new(),
            encoder: Encoder::new(),
        }
    }

    /// Whether it has a session, and is not about to end it.
    pub fn is_open(&self) -> bool {
        self.session.is_some() && self.state == State::Open
    }

    /// Whether it has something to answer.
    pub fn owes_answers(&self) -> bool {
        self.session.is_some() && self.state == State::Open && !self.running.is_empty()
    }

    /// Whether bytes or the end of what it says can arrive at the router.
    pub fn can_deliver(&self, net: &Net) -> bool {
        let Some(wire) = self.wire else { return false };
        (!self.out.is_empty() && net.room_to_router(wire) > 0)
            || (self.out.is_empty() && self.fin_due && !self.fin_sent)
    }

    pub fn can_read(&self, net: &Net) -> bool {
        let Some(wire) = self.wire else { return false };
        let wire = &net.wires[wire];
        !wire.to_client.is_empty() || wire.is_ended_by_router() || wire.reset_by_router
    }

    pub fn can_act(&self) -> bool {
        match self.state {
            State::Away => self.connects_left > 0 && self.actions_left > 0,
            State::Open | State::Between => self.actions_left > 0 && self.out.len() < UNSENT_BYTES_MAX,
            _ => false,
        }
    }

    /// Some of what it said arrives.
    pub fn deliver(&mut self, stage: &mut Stage<'_>) {
        let Some(wire) = self.wire else { return };
        if self.out.is_empty() {
            self.fin_sent = true;
            stage.net.arrive_fin(wire);
            return;
        }
        let all = self.out.len().min(stage.net.room_to_router(wire));
        let count = if stage.random.once_in(2) { all } else { stage.random.between(1, all) };
        stage.net.arrive(wire, self.out.drain(..count));
    }

    /// It reads some of what was sent to it.
    pub fn read(&mut self, stage: &mut Stage<'_>) -> Kept {
        let Some(wire) = self.wire else { return Ok(()) };
        let available = stage.net.wires[wire].to_client.len();
        if available == 0 {
            return self.lose_connection(stage);
        }
        let count = if stage.random.once_in(2) { available } else { stage.random.between(1, available) };
        stage.net.read(wire, count, &mut self.input);
        let transport = self.transport;
        loop {
            let is_open = self.state != State::Handshake;
            let frame = transport.next(&mut self.input, is_open, stage.random);
            match frame.or_else(|text| broken("framing", text))? {
                None => return Ok(()),
                Some(Frame::Opened(cookie)) => {
                    self.take_cookie(cookie, stage);
                    self.state = State::Hello;
                    self.say_hello(stage);
                }
                Some(Frame::Ping(pong)) => self.out.extend(pong),
                Some(Frame::Pong) => {}
                Some(Frame::Close) => {
                    self.end_session(stage, End::Lost);
                    self.begin_end();
                }
                Some(Frame::Messages(messages)) => {
                    for message in messages {
                        self.receive(&message, stage)?;
                    }
                }
            }
        }
    }

    /// The connection is over, from the other side.
    fn lose_connection(&mut self, stage: &mut Stage<'_>) -> Kept {
        if self.state == State::Open && !stage.net.wires.is_empty() {
            self.closed_by_router.push("without a word".to_owned());
        }
        let was_reset = self.wire.is_some_and(|wire| stage.net.wires[wire].reset_by_router);
        let is_left = self.session.is_some_and(|session| {
            let is_leaving = stage.history.sessions[session].end == End::Leaving;
            // Who does not read for long is closed, and does not always hear why.
            is_leaving && !was_reset && self.fin_sent && !self.has_stalled && !stage.is_impatient
        });
        self.end_session(stage, if is_left { End::Left } else { End::Lost });
        if let Some(wire) = self.wire.take() {
            stage.net.arrive_fin(wire);
        }
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.state = State::Away;
        self.wire = None;
        self.out.clear();
        self.input.clear();
        self.fin_due = false;
        self.fin_sent = false;
        self.has_stalled = false;
        self.forget_session();
    }

    fn forget_session(&mut self) {
        self.session = None;
        self.last_request = 0;
        self.pending.clear();
        self.inputs.clear();
        self.running.clear();
    }

    fn end_session(&mut self, stage: &mut Stage<'_>, end: End) {
        if let Some(session) = self.session {
            let session = &mut stage.history.sessions[session];
            if matches!(session.end, End::Open | End::Leaving) {
                session.end = end;
            }
        }
    }

    /// It says no more, and waits for the router to close.
    fn begin_end(&mut self) {
        self.state = State::Ending;
        self.fin_due = true;
    }

    fn send(&mut self, message: &Message<'_>, stage: &mut Stage<'_>) {
        let (step, number) = (stage.step, self.number);
        stage.trace.note(|| format!("{step:>6} client {number} says  {:.160}", format!("{message:?}")));
        let mut encoded = Vec::new();
        let encoded_well = self.encoder.encode(message, self.transport.serializer, &mut encoded);
        assert!(encoded_well.is_ok(), "the clients' payloads are representable everywhere");
        let frame = self.transport.frame(&encoded, stage.random);
        self.out.extend(frame);
    }

    fn say_hello(&mut self, stage: &mut Stage<'_>) {
        self.hello_at = stage.step;
        let mut features = ClientFeatures::CALLER
            .with(ClientFeatures::CALLEE)
            .with(ClientFeatures::PUBLISHER)
            .with(ClientFeatures::SUBSCRIBER)
            .with(ClientFeatures::CALLER_CALL_CANCELING)
            .with(ClientFeatures::CALLER_PROGRESSIVE_CALL_RESULTS)
            .with(ClientFeatures::CALLER_PROGRESSIVE_CALL_INVOCATIONS)
            .with(ClientFeatures::CALLEE_PROGRESSIVE_CALL_RESULTS)
            // Without the next one it is as if it were not there.
            .with(ClientFeatures::CALLEE_PROGRESSIVE_CALL_INVOCATIONS);
        if self.can_be_interrupted {
            features = features.with(ClientFeatures::CALLEE_CALL_CANCELING);
        }
        if stage.shares || stage.advanced.logins {
            features = features.with(ClientFeatures::CALLEE_REGISTRATION_REVOCATION);
        }
        if stage.reroutes && self.can_reroute {
            features = features.with(ClientFeatures::CALLEE_CALL_REROUTE);
        }
        self.can_seal = stage.advanced.seals && !stage.random.once_in(4);
        if self.can_seal {
            features = features
                .with(ClientFeatures::CALLER_PAYLOAD_PASSTHRU_MODE)
                .with(ClientFeatures::CALLEE_PAYLOAD_PASSTHRU_MODE)
                .with(ClientFeatures::PUBLISHER_PAYLOAD_PASSTHRU_MODE);
        }
        self.can_lose_subscriptions = self.has_databases(stage) && !stage.random.once_in(4);
        if self.can_lose_subscriptions {
            features = features.with(ClientFeatures::SUBSCRIBER_SUBSCRIPTION_REVOCATION);
        }
        let mut details = HelloDetails { features, ..HelloDetails::default() };
        self.login = None;
        if stage.advanced.logins {
            self.login = Login::any(stage.advanced, stage.random);
        }
        if let Some(login) = &self.login {
            login.announce(&mut details);
        }
        self.offer_cookie(&mut details, stage);
        self.send(&Message::Hello(Hello { realm: REALMS[self.realm].into(), details }), stage);
    }

    /// One thing, by chance.
    pub fn act(&mut self, stage: &mut Stage<'_>) {
        self.actions_left -= 1;
        match self.state {
            State::Away => self.connect(stage),
            State::Between => self.hello_or_leave(stage),
            State::Open => self.act_in_session(stage),
            _ => {}
        }
    }

    fn connect(&mut self, stage: &mut Stage<'_>) {
        self.connects_left -= 1;
        let choice = self.number + self.connects_left as usize;
        self.transport = Transport::any(stage.random).perhaps_compressed(choice);
        let (to_router, to_client) = (stage.random.between(64, 8192), stage.random.between(512, 16384));
        self.wire = Some(stage.net.connect(self.core, to_router, to_client));
        self.cookie = self.cookie_to_bring(stage);
        self.out.extend(self.transport.handshake_with(self.cookie.as_deref()));
        self.state = State::Handshake;
    }

    fn hello_or_leave(&mut self, stage: &mut Stage<'_>) {
        if stage.random.once_in(5) {
            self.begin_end();
        } else {
            self.state = State::Hello;
            self.say_hello(stage);
        }
    }

    fn act_in_session(&mut self, stage: &mut Stage<'_>) {
        let Some(session) = self.session else { return };
        if self.has_databases(stage) && stage.random.once_in(3) {
            self.act_of_databases(session, stage);
            return;
        }
        if stage.advanced.any() && stage.random.once_in(8) {
            self.act_advanced(session, stage);
            return;
        }
        match stage.random.below(100) {
            0..30 => self.publish(session, stage),
            30..44 => self.subscribe(session, stage),
            44..48 => self.unsubscribe(session, stage),
            48..58 => self.register(session, stage),
            58..61 => self.unregister(session, stage),
            61..74 => self.call(session, stage),
            74..80 => self.send_more_input(session, stage),
            80..86 => self.cancel(session, stage),
            86..95 => self.answer_some(session, stage),
            95..97 => self.out.extend(self.transport.ping(stage.random)),
            97..99 => {
                self.stalled = stage.random.between(50, 1500) as u32;
                self.has_stalled = true;
            }
            99 if stage.random.once_in(2) => self.say_goodbye(stage),
            99 if stage.random.once_in(2) => self.leave(stage),
            _ => {}
        }
    }

    /// The session is to end, the connection is not.
    pub fn say_goodbye(&mut self, stage: &mut Stage<'_>) {
        let details = CloseDetails::default();
        let reason = Text::Borrowed("wamp.close.normal");
        self.send(&Message::Goodbye(Goodbye { details, reason }), stage);
        self.end_session(stage, End::Leaving);
        self.state = State::Goodbye;
    }

    /// In one of the ways in which connections end.
    pub fn leave(&mut self, stage: &mut Stage<'_>) {
        match stage.random.below(3) {
            0 => {
                // Half a close: it goes on reading.
                self.end_session(stage, End::Leaving);
                self.begin_end();
            }
            1 => {
                let close = self.transport.close(stage.random);
                self.end_session(stage, if close.is_some() { End::Lost } else { End::Leaving });
                self.out.extend(close.unwrap_or_default());
                self.begin_end();
            }
            _ => {
                self.end_session(stage, End::Lost);
                if let Some(wire) = self.wire {
                    stage.net.reset(wire);
                }
                self.forget();
            }
        }
    }

    /// Requests that were not answered although all is quiet; calls may still run.
    pub fn unanswered(&self, with_calls: bool) -> Option<String> {
        let is_due = |pending: &&Pending| with_calls || !matches!(pending, Pending::Call(_));
        let pending = self.pending.values().find(is_due)?;
        Some(format!("client {}: {pending:?} was never answered", self.number))
    }

    /// Bytes of its own that it could not get rid of.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// In the last phase: it leaves, however it can.
    pub fn depart(&mut self, stage: &mut Stage<'_>) {
        match self.state {
            State::Open if stage.random.once_in(2) => self.say_goodbye(stage),
            State::Open => self.leave(stage),
            State::Handshake | State::Hello | State::Between => {
                self.end_session(stage, End::Lost);
                self.begin_end();
            }
            State::Away | State::Goodbye | State::Ending => {}
        }
    }

    /// Whether what it is sent takes less room than it says.
    pub fn is_compressed(&self) -> bool {
        self.transport.window_bits.is_some()
    }

    /// What it speaks, for the report.
    pub fn describe(&self) -> (Serializer, Framing) {
        (self.transport.serializer, self.transport.framing)
    }
}
