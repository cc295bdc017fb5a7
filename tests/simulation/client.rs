//! A client: what it does by chance, and what it makes of what it is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crosspoint::wamp::codec::{DecodeLimits, Encoder, Input, Serializer, decode};
use crosspoint::wamp::error::uri;
use crosspoint::wamp::features::ClientFeatures;
use crosspoint::wamp::message::{
    Call as CallMessage, Cancel, Error, Goodbye, Hello, Message, MessageType, Publish, Register, Subscribe,
    Unregister, Unregistered, Unsubscribe, Yield,
};
use crosspoint::wamp::options::{
    AudienceOptions, CallOptions, CancelMode, CancelOptions, CloseDetails, HelloDetails, InvocationPolicy,
    Passthru, PublishOptions, RegisterOptions, SubscribeOptions, Text, YieldOptions,
};
use crosspoint::wamp::{
    Arguments, MatchPolicy, Payload, RegistrationId, RequestId, SessionId, SubscriptionId,
};

use super::content::{CALL, Content, ERROR, EVENT, RESULT, part_of};
use super::history::{
    Call, End, History, Invocation, Kept, Manner, Publication, Registration, Session, Subscription,
    Violation, broken, matches,
};
use super::random::Random;
use super::transport::{Frame, Framing, Transport};
use super::world::Net;

pub const REALMS: [&str; 2] = ["realm1", "realm2"];

/// What is published to and called.
const URIS: [&str; 5] = ["a.b.c", "a.b.d", "a.x.c", "e.b.c", "a.b"];

/// What is subscribed to and registered.
/// What the router says of sessions that come and go.
const META: &str = "wamp.session.";

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
    out: VecDeque<u8>,
    fin_due: bool,
    fin_sent: bool,
    input: Vec<u8>,
    /// When HELLO was sent.
    hello_at: u64,
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
            out: VecDeque::new(),
            fin_due: false,
            fin_sent: false,
            input: Vec::new(),
            hello_at: 0,
            last_request: 0,
            pending: BTreeMap::new(),
            inputs: Vec::new(),
            running: Vec::new(),
            encoder: Encoder::new(),
        }
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
                Some(Frame::Opened) => {
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
        if stage.shares {
            features = features.with(ClientFeatures::CALLEE_REGISTRATION_REVOCATION);
        }
        if stage.reroutes && self.can_reroute {
            features = features.with(ClientFeatures::CALLEE_CALL_REROUTE);
        }
        let details = HelloDetails { features, ..HelloDetails::default() };
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
        self.out.extend(self.transport.handshake());
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

    fn next_request(&mut self, pending: Option<Pending>) -> RequestId {
        self.last_request += 1;
        if let Some(pending) = pending {
            self.pending.insert(self.last_request, pending);
        }
        RequestId(self.last_request)
    }

    /// A payload of this session, in the serializer of the client.
    fn content(&self, kind: u64, session: usize, number: u64, stage: &mut Stage<'_>) -> Vec<u8> {
        let padding = if stage.random.once_in(stage.long_once_in) {
            stage.random.below(stage.padding_max)
        } else {
            stage.random.below(40)
        };
        let content = Content { kind, session: session as u64, number, padding };
        content.encode(self.transport.serializer)
    }

    fn payload<'a>(&self, args: &'a [u8]) -> Payload<'a> {
        Payload { serializer: self.transport.serializer, args, kwargs: &[] }
    }

    fn publish(&mut self, session: usize, stage: &mut Stage<'_>) {
        let number = stage.history.sessions[session].publications.len() as u64;
        let topic = *stage.random.pick(&URIS);
        let acknowledge = stage.random.once_in(3);
        let exclude_me = !stage.random.once_in(3);
        let mut exclude = Vec::new();
        if stage.random.once_in(8) {
            let other = stage.random.below(stage.history.sessions.len());
            exclude.push(stage.history.sessions[other].id);
        }
        let retain = stage.random.once_in(4);
        // Most of it for ever, some for a while, and some clears what there is.
        let ttl_ms = stage.random.once_in(3).then(|| *stage.random.pick(&[0, 0, 1, 50, 1_000]));
        let disclose_me = stage.random.once_in(5);
        let args = self.content(EVENT, session, number, stage);
        let request = self.next_request(acknowledge.then_some(Pending::Publish));
        let options = PublishOptions {
            acknowledge,
            exclude_me,
            retain,
            ttl_ms,
            disclose_me,
            audience: Some(Box::new(AudienceOptions {
                exclude: exclude.iter().map(|id| SessionId(*id)).collect(),
                ..AudienceOptions::default()
            })),
            ..PublishOptions::default()
        };
        let message = Publish { request, options, topic: topic.into(), payload: self.payload(&args) };
        self.send(&Message::Publish(message), stage);
        let publication = Publication {
            topic,
            exclude_me,
            exclude,
            is_retained: retain,
            is_disclosed: disclose_me,
            sent_at: stage.step,
        };
        stage.history.sessions[session].publications.push(publication);
    }

    fn subscribe(&mut self, session: usize, stage: &mut Stage<'_>) {
        let watches = stage.random.once_in(12);
        let any = *stage.random.pick(&PATTERNS);
        let (policy, pattern) = if watches { (MatchPolicy::Prefix, META) } else { any };
        let held = &mut stage.history.sessions[session].subscriptions;
        if held.iter().any(|held| !held.is_over && (held.policy, held.pattern) == (policy, pattern)) {
            return;
        }
        let events = BTreeMap::new();
        let get_retained = stage.random.once_in(2);
        held.push(Subscription {
            pattern,
            policy,
            wants_retained: get_retained,
            id: 0,
            since: None,
            is_ending: false,
            is_over: false,
            events,
            joined: BTreeSet::new(),
            gone: BTreeSet::new(),
        });
        let request = self.next_request(Some(Pending::Subscribe(held.len() - 1)));
        let options = SubscribeOptions { match_policy: policy, get_retained, ..SubscribeOptions::default() };
        let message = Subscribe { request, options, topic: pattern.into() };
        self.send(&Message::Subscribe(message), stage);
    }

    fn unsubscribe(&mut self, session: usize, stage: &mut Stage<'_>) {
        let held = &mut stage.history.sessions[session].subscriptions;
        let Some(place) = held.iter().position(|held| held.since.is_some() && !held.is_ending) else {
            return;
        };
        held[place].is_ending = true;
        let subscription = SubscriptionId(held[place].id);
        let request = self.next_request(Some(Pending::Unsubscribe(place)));
        self.send(&Message::Unsubscribe(Unsubscribe { request, subscription }), stage);
    }

    fn register(&mut self, session: usize, stage: &mut Stage<'_>) {
        // Most of what is shared is of few procedures, so that it has several callees.
        let is_of_few = stage.shares && !stage.random.once_in(3);
        let place = stage.random.below(if is_of_few { 4 } else { PATTERNS.len() });
        let (policy, pattern) = PATTERNS[place];
        let mut options = RegisterOptions { match_policy: policy, ..RegisterOptions::default() };
        if stage.shares {
            let usual = POLICIES[place % POLICIES.len()];
            options.invoke = if stage.random.once_in(8) { *stage.random.pick(&POLICIES) } else { usual };
            options.force_reregister = stage.random.once_in(12);
            if LIMITED.contains(&(policy, pattern)) {
                options.concurrency = stage.random.between(1, 3) as u64;
            }
        }
        options.disclose_caller = stage.random.once_in(4);
        let disclose_caller = options.disclose_caller;
        let held = &mut stage.history.sessions[session].registrations;
        held.push(Registration {
            pattern,
            policy,
            concurrency: options.concurrency,
            id: 0,
            since: None,
            is_ending: false,
            is_over: false,
            is_revoked: false,
            disclose_caller,
        });
        let request = self.next_request(Some(Pending::Register(held.len() - 1)));
        let message = Register { request, options, procedure: pattern.into() };
        self.send(&Message::Register(message), stage);
    }

    fn unregister(&mut self, session: usize, stage: &mut Stage<'_>) {
        let held = &mut stage.history.sessions[session].registrations;
        let Some(place) = held.iter().position(|held| held.since.is_some() && !held.is_ending) else {
            return;
        };
        held[place].is_ending = true;
        let registration = RegistrationId(held[place].id);
        let request = self.next_request(Some(Pending::Unregister(place)));
        self.send(&Message::Unregister(Unregister { request, registration }), stage);
    }

    fn call(&mut self, session: usize, stage: &mut Stage<'_>) {
        let number = stage.history.sessions[session].calls.len() as u64;
        let procedure = *stage.random.pick(&URIS);
        let manner = Manner {
            disclose_me: stage.random.once_in(6),
            receive_progress: stage.random.once_in(3),
            in_parts: stage.random.once_in(4),
            timeout_ms: if stage.random.once_in(6) { stage.random.between(1, 5_000) as u64 } else { 0 },
        };
        let args = self.content(CALL, session, number, stage);
        let request = self.next_request(Some(Pending::Call(number)));
        let options = CallOptions {
            disclose_me: manner.disclose_me,
            receive_progress: manner.receive_progress,
            progress: manner.in_parts,
            timeout_ms: manner.timeout_ms,
            ..CallOptions::default()
        };
        let message =
            CallMessage { request, options, procedure: procedure.into(), payload: self.payload(&args) };
        self.send(&Message::Call(message), stage);
        if manner.in_parts {
            self.inputs.push((request.0, number));
        }
        stage.history.sessions[session].calls.push(Call {
            procedure,
            manner,
            sent_at: stage.step,
            cancelled: None,
            is_answered: false,
            parts: 1,
            has_more: manner.in_parts,
            progress: 0,
            invoked: None,
            refused_by: Vec::new(),
            may_wait: stage.shares
                && LIMITED.iter().any(|(policy, pattern)| matches(*policy, pattern, procedure)),
        });
    }

    /// More input of one of its calls, which may be over already.
    fn send_more_input(&mut self, session: usize, stage: &mut Stage<'_>) {
        if self.inputs.is_empty() {
            return;
        }
        let at = stage.random.below(self.inputs.len());
        let (request, number) = self.inputs[at];
        let call = &mut stage.history.sessions[session].calls[number as usize];
        let progress = !stage.random.once_in(3);
        let (part, procedure) = (call.parts, call.procedure);
        call.parts += 1;
        call.has_more = progress;
        stage.history.happened.late_parts += u64::from(call.is_answered);
        if !progress {
            self.inputs.swap_remove(at);
        }
        let args = self.content(part_of(CALL, part), session, number, stage);
        let options = CallOptions { progress, ..CallOptions::default() };
        let (request, payload) = (RequestId(request), self.payload(&args));
        let message = CallMessage { request, options, procedure: procedure.into(), payload };
        self.send(&Message::Call(message), stage);
    }

    fn cancel(&mut self, session: usize, stage: &mut Stage<'_>) {
        let calls = self.pending.iter().filter_map(|(request, pending)| match pending {
            Pending::Call(number) => Some((*request, *number)),
            _ => None,
        });
        let open: Vec<(u64, u64)> = calls.collect();
        if open.is_empty() {
            return;
        }
        let (request, number) = *stage.random.pick(&open);
        let modes = [None, Some(CancelMode::Skip), Some(CancelMode::Kill), Some(CancelMode::KillNoWait)];
        let mode = *stage.random.pick(&modes);
        // Only the first one counts.
        let call = &mut stage.history.sessions[session].calls[number as usize];
        call.cancelled.get_or_insert_with(|| mode.unwrap_or_default());
        let cancel = Cancel { request: RequestId(request), options: CancelOptions { mode } };
        self.send(&Message::Cancel(cancel), stage);
    }

    fn answer_some(&mut self, session: usize, stage: &mut Stage<'_>) {
        for _ in 0..stage.random.between(1, 4).min(self.running.len()) {
            let at = stage.random.below(self.running.len());
            let (request, index) = self.running[at];
            if stage.random.once_in(2) && self.progress(session, request, index, stage) {
                continue;
            }
            self.running.swap_remove(at);
            let refuse = stage.random.once_in(if stage.reroutes { 2 } else { 4 });
            self.answer(session, request, index, refuse, stage);
        }
    }

    /// A part of a result, where somebody wants it.
    fn progress(&mut self, session: usize, request: u64, index: usize, stage: &mut Stage<'_>) -> bool {
        let invocation = &mut stage.history.sessions[session].invocations[index];
        if !invocation.wants_progress || invocation.is_interrupted {
            return false;
        }
        let part = invocation.progress;
        invocation.progress += 1;
        let (caller, number) = (invocation.caller, invocation.number);
        let args = self.content(part_of(RESULT, part), caller, number, stage);
        let options = YieldOptions { progress: true, ..YieldOptions::default() };
        let (request, payload) = (RequestId(request), self.payload(&args));
        self.send(&Message::Yield(Yield { request, options, payload }), stage);
        true
    }

    /// Everything that it was ever asked and has not answered.
    pub fn answer_all(&mut self, stage: &mut Stage<'_>) {
        let Some(session) = self.session else { return };
        for (request, index) in std::mem::take(&mut self.running) {
            self.answer(session, request, index, false, stage);
        }
    }

    fn answer(&mut self, session: usize, request: u64, index: usize, refuse: bool, stage: &mut Stage<'_>) {
        let invocation = invocation_of(session, index, stage);
        invocation.is_answered = true;
        let (caller, number) = (invocation.caller, invocation.number);
        let kind = part_of(if refuse { ERROR } else { RESULT }, invocation.progress);
        let passes_on = refuse && stage.reroutes && !stage.random.once_in(4);
        invocation_of(session, index, stage).is_passed_on = passes_on && self.can_reroute;
        let args = self.content(kind, caller, number, stage);
        let (request, payload) = (RequestId(request), self.payload(&args));
        let message = if refuse {
            let error = Text::Borrowed(if passes_on { uri::UNAVAILABLE } else { "app.error.refused" });
            let request_type = MessageType::Invocation;
            Message::Error(Error { request_type, request, error, passthru: Passthru::default(), payload })
        } else {
            Message::Yield(Yield { request, options: YieldOptions::default(), payload })
        };
        self.send(&message, stage);
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

    fn receive(&mut self, bytes: &[u8], stage: &mut Stage<'_>) -> Kept {
        let limits = DecodeLimits::default();
        let decoded = decode(self.transport.serializer, Input::Bytes(bytes), limits);
        let message = match decoded {
            Ok(message) => message,
            Err(error) => return broken("integrity", format!("not a message: {}", error.message)),
        };
        let (step, number) = (stage.step, self.number);
        stage.trace.note(|| format!("{step:>6} client {number} hears {:.160}", format!("{message:?}")));
        match (&message, self.state) {
            (Message::Welcome(welcome), State::Hello) => {
                self.receive_welcome(welcome.session, stage);
                Ok(())
            }
            // It hung up before it was let in.
            (Message::Welcome(_), State::Ending) if self.session.is_none() => Ok(()),
            (Message::Abort(abort), _) => self.receive_end(&abort.reason, stage),
            (Message::Goodbye(goodbye), State::Goodbye) if goodbye.reason == uri::GOODBYE_AND_OUT => {
                self.end_session(stage, End::Left);
                self.forget_session();
                self.state = State::Between;
                Ok(())
            }
            (Message::Goodbye(goodbye), _) => self.receive_end(&goodbye.reason, stage),
            (_, State::Open | State::Goodbye | State::Ending) => match self.session {
                Some(session) => self.receive_in_session(session, &message, stage),
                None => broken("answer", format!("outside of a session: {message:?}")),
            },
            _ => broken("answer", format!("in state {:?}: {message:?}", self.state)),
        }
    }

    fn receive_welcome(&mut self, id: SessionId, stage: &mut Stage<'_>) {
        self.forget_session();
        self.session = Some(stage.history.sessions.len());
        let mut session = Session::new(self.realm, self.core, id.0, self.can_be_interrupted);
        session.hello_at = self.hello_at;
        stage.history.sessions.push(session);
        self.state = State::Open;
    }

    /// The router ends the session.
    fn receive_end(&mut self, reason: &str, stage: &mut Stage<'_>) -> Kept {
        self.closed_by_router.push(reason.to_owned());
        if !stage.may_close.contains(&reason) {
            return broken("closed", format!("client {} was closed for {reason}", self.number));
        }
        self.end_session(stage, End::Lost);
        if self.transport.framing == Framing::RawSocket || self.state != State::Ending {
            self.begin_end();
        }
        Ok(())
    }

    fn receive_in_session(&mut self, session: usize, message: &Message<'_>, stage: &mut Stage<'_>) -> Kept {
        match message {
            Message::Event(event)
                if event.details.topic.as_deref().is_some_and(|topic| topic.starts_with(META)) =>
            {
                let arguments = Arguments::read(&event.payload).unwrap_or_default();
                stage.history.receive_meta_event(session, event, &arguments.args)
            }
            Message::Event(event) => {
                let content = Content::decode(event.payload);
                stage.history.receive_event(session, event.subscription.0, content, &event.details)
            }
            Message::Invocation(invocation) => {
                let content = Content::decode(invocation.payload);
                let (request, registration) = (invocation.request.0, invocation.registration.0);
                let (details, history) = (&invocation.details, &mut *stage.history);
                let index = history.receive_invocation(session, request, registration, details, content)?;
                let Some(index) = index else { return Ok(()) };
                if self.state == State::Open && stage.random.once_in(3) {
                    let refuse = stage.reroutes && stage.random.once_in(2);
                    self.answer(session, request, index, refuse, stage);
                } else {
                    self.running.push((request, index));
                }
                Ok(())
            }
            Message::Interrupt(interrupt) => {
                let request = interrupt.request.0;
                let is_open = stage.history.receive_interrupt(session, request)?;
                // Now and then it does not obey.
                if is_open && !stage.random.once_in(4) && self.state == State::Open {
                    self.obey_interrupt(session, request, stage);
                }
                Ok(())
            }
            Message::Published(published) => self.expect(published.request, &Pending::Publish),
            Message::Result(result) => {
                let content = Content::decode(result.payload);
                if result.details.progress {
                    return match self.pending.get(&result.request.0) {
                        Some(Pending::Call(number)) => {
                            stage.history.receive_progress(session, *number, content)
                        }
                        other => {
                            let request = result.request;
                            broken(
                                "progress",
                                format!("a part of the result of request {request}, {other:?}"),
                            )
                        }
                    };
                }
                let number = self.call_of(result.request)?;
                stage.history.receive_answer(session, number, None, content)
            }
            Message::Error(error) => self.receive_error(session, error, stage),
            _ => self.receive_confirmation(session, message, stage),
        }
    }

    fn obey_interrupt(&mut self, session: usize, request: u64, stage: &mut Stage<'_>) {
        if let Some(at) = self.running.iter().position(|(running, _)| *running == request) {
            let (request, index) = self.running.swap_remove(at);
            self.answer(session, request, index, true, stage);
        }
    }

    fn call_of(&mut self, request: RequestId) -> Result<u64, Violation> {
        match self.pending.remove(&request.0) {
            Some(Pending::Call(number)) => Ok(number),
            other => broken("answer", format!("an answer to request {request}, which is {other:?}")),
        }
    }

    fn expect(&mut self, request: RequestId, expected: &Pending) -> Kept {
        match self.pending.remove(&request.0) {
            Some(pending) if pending == *expected => Ok(()),
            other => broken(
                "answer",
                format!("client {}: an answer to request {request}, which is {other:?}", self.number),
            ),
        }
    }

    fn receive_error(&mut self, session: usize, error: &Error<'_>, stage: &mut Stage<'_>) -> Kept {
        if error.request_type == MessageType::Call {
            let content = Content::decode(error.payload);
            let number = self.call_of(error.request)?;
            return stage.history.receive_answer(session, number, Some(&error.error), content);
        }
        match (self.pending.remove(&error.request.0), error.request_type) {
            (Some(Pending::Register(place)), MessageType::Register)
                if error.error == uri::PROCEDURE_ALREADY_EXISTS =>
            {
                let held = &mut stage.history.sessions[session].registrations[place];
                (held.is_ending, held.is_over) = (true, true);
                Ok(())
            }
            // It was taken away meanwhile.
            (Some(Pending::Unregister(place)), MessageType::Unregister)
                if error.error == uri::NO_SUCH_REGISTRATION
                    && stage.history.sessions[session].registrations[place].is_revoked =>
            {
                Ok(())
            }
            (pending, _) => broken("answer", format!("{error:?} to {pending:?}")),
        }
    }

    fn receive_confirmation(&mut self, session: usize, message: &Message<'_>, stage: &mut Stage<'_>) -> Kept {
        let log = &mut stage.history.sessions[session];
        if let Message::Unregistered(Unregistered { request: RequestId(0), details: Some(details) }) = message
        {
            return log.lose_registration(details.registration.map_or(0, |id| id.0));
        }
        let request = match message {
            Message::Subscribed(subscribed) => subscribed.request,
            Message::Unsubscribed(unsubscribed) => unsubscribed.request,
            Message::Registered(registered) => registered.request,
            Message::Unregistered(unregistered) => unregistered.request,
            other => return broken("answer", format!("a router does not send {other:?}")),
        };
        match (self.pending.remove(&request.0), message) {
            (Some(Pending::Subscribe(place)), Message::Subscribed(subscribed)) => {
                let held = &mut log.subscriptions[place];
                (held.id, held.since) = (subscribed.subscription.0, Some(stage.step));
            }
            (Some(Pending::Unsubscribe(place)), Message::Unsubscribed(_)) => {
                log.subscriptions[place].is_over = true;
            }
            (Some(Pending::Register(place)), Message::Registered(registered)) => {
                let held = &mut log.registrations[place];
                (held.id, held.since) = (registered.registration.0, Some(stage.step));
            }
            (Some(Pending::Unregister(place)), Message::Unregistered(_)) => {
                log.registrations[place].is_over = true;
            }
            (pending, _) => return broken("answer", format!("{message:?} to {pending:?}")),
        }
        Ok(())
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

    /// What it speaks, for the report.
    pub fn describe(&self) -> (Serializer, Framing) {
        (self.transport.serializer, self.transport.framing)
    }
}

fn invocation_of<'h>(session: usize, index: usize, stage: &'h mut Stage<'_>) -> &'h mut Invocation {
    &mut stage.history.sessions[session].invocations[index]
}
