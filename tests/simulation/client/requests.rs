//! What a client asks for and answers, by chance.

use std::collections::{BTreeMap, BTreeSet};

use crosspoint::wamp::error::uri;
use crosspoint::wamp::message::{
    Call as CallMessage, Cancel, Error, Message, MessageType, Publish, Register, Subscribe, Unregister,
    Unsubscribe, Yield,
};
use crosspoint::wamp::options::{
    AudienceOptions, CallOptions, CancelMode, CancelOptions, InvocationPolicy, Passthru, PublishOptions,
    RegisterOptions, SubscribeOptions, Text, YieldOptions,
};
use crosspoint::wamp::{MatchPolicy, Payload, RegistrationId, RequestId, SessionId, SubscriptionId};

use super::{Client, LIMITED, PATTERNS, POLICIES, Pending, SESSIONS, Stage, State, URIS};
use crate::content::{CALL, Content, ERROR, EVENT, RESULT, part_of};
use crate::database::{Database, TOPICS};
use crate::history::databases::OfDatabases;
use crate::history::shards::{NODES, RESOURCES};
use crate::history::{Call, Invocation, Manner, Publication, Registration, Subscription, matches, seal};

impl Client {
    pub(super) fn next_request(&mut self, pending: Option<Pending>) -> RequestId {
        self.last_request += 1;
        if let Some(pending) = pending {
            self.pending.insert(self.last_request, pending);
        }
        RequestId(self.last_request)
    }

    /// A payload of this session, in the serializer of the client.
    pub(super) fn content(&self, kind: u64, session: usize, number: u64, stage: &mut Stage<'_>) -> Vec<u8> {
        self.any_content(kind, session, number, stage).encode(self.transport.serializer)
    }

    fn any_content(&self, kind: u64, session: usize, number: u64, stage: &mut Stage<'_>) -> Content {
        let padding = if stage.random.once_in(stage.long_once_in) {
            stage.random.below(stage.padding_max)
        } else {
            stage.random.below(40)
        };
        Content { kind, session: session as u64, number, padding }
    }

    pub(super) fn payload<'a>(&self, args: &'a [u8]) -> Payload<'a> {
        Payload { serializer: self.transport.serializer, args, kwargs: &[] }
    }

    pub(super) fn publish(&mut self, session: usize, stage: &mut Stage<'_>) {
        let number = stage.history.sessions[session].publications.len() as u64;
        let of_database = self.has_databases(stage) && stage.random.once_in(4);
        let topic = *if of_database { stage.random.pick(&TOPICS) } else { stage.random.pick(&URIS) };
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
        let content = self.any_content(EVENT, session, number, stage);
        let rkey = (stage.advanced.shards && stage.random.once_in(2)).then(|| *stage.random.pick(&RESOURCES));
        let is_sealed = self.can_seal && stage.random.once_in(3);
        let publication = Publication {
            topic,
            exclude_me,
            exclude,
            is_retained: retain,
            is_disclosed: disclose_me,
            rkey,
            is_sealed,
            sent_at: stage.step,
        };
        self.say_publish(session, publication, content, (acknowledge, ttl_ms), stage);
    }

    fn say_publish(
        &mut self,
        session: usize,
        publication: Publication,
        content: Content,
        (acknowledge, ttl_ms): (bool, Option<u64>),
        stage: &mut Stage<'_>,
    ) {
        let args = content.encode(self.transport.serializer);
        let request = self.next_request(acknowledge.then_some(Pending::Publish));
        let options = PublishOptions {
            acknowledge,
            exclude_me: publication.exclude_me,
            retain: publication.is_retained,
            ttl_ms,
            disclose_me: publication.is_disclosed,
            audience: Some(Box::new(AudienceOptions {
                exclude: publication.exclude.iter().map(|id| SessionId(*id)).collect(),
                ..AudienceOptions::default()
            })),
            rkey: publication.rkey.map(Text::Borrowed),
            passthru: seal(publication.is_sealed, content),
        };
        let topic = publication.topic.into();
        let message = Publish { request, options, topic, payload: self.payload(&args) };
        self.send(&Message::Publish(message), stage);
        stage.history.sessions[session].publications.push(publication);
    }

    /// Something of each resource to one topic, while nothing else happens: the session, the first number, and how many.
    pub fn publish_resources(&mut self, stage: &mut Stage<'_>) -> Option<(usize, usize, usize)> {
        let session = self.session.filter(|_| self.state == State::Open)?;
        let first = stage.history.sessions[session].publications.len();
        for (place, rkey) in RESOURCES.iter().enumerate() {
            let number = (first + place) as u64;
            let content = Content { kind: EVENT, session: session as u64, number, padding: 1 };
            let publication = Publication {
                topic: URIS[0],
                exclude_me: false,
                exclude: Vec::new(),
                is_retained: false,
                is_disclosed: false,
                rkey: Some(rkey),
                is_sealed: false,
                sent_at: stage.step,
            };
            self.say_publish(session, publication, content, (false, None), stage);
        }
        Some((session, first, RESOURCES.len()))
    }

    /// It is a node no longer, of something.
    pub fn leave_node(&mut self, stage: &mut Stage<'_>) {
        let Some(session) = self.session.filter(|_| self.state == State::Open) else { return };
        let held = &mut stage.history.sessions[session].subscriptions;
        let is_node = |held: &Subscription| held.nkey.is_some() && held.since.is_some() && !held.is_ending;
        if let Some(place) = held.iter().position(is_node) {
            self.unsubscribe_from(session, place, stage);
        }
    }

    pub(super) fn subscribe(&mut self, session: usize, stage: &mut Stage<'_>) {
        let watches = stage.random.once_in(12);
        let any = *stage.random.pick(&PATTERNS);
        let (policy, pattern) = if watches { (MatchPolicy::Prefix, SESSIONS) } else { any };
        self.subscribe_to(session, policy, pattern, stage);
    }

    pub(super) fn subscribe_to(
        &mut self,
        session: usize,
        policy: MatchPolicy,
        pattern: &'static str,
        stage: &mut Stage<'_>,
    ) {
        self.subscribe_after(session, policy, pattern, None, stage);
    }

    /// The same; behind a position of a database, where one is given.
    pub(super) fn subscribe_after(
        &mut self,
        session: usize,
        policy: MatchPolicy,
        pattern: &'static str,
        after: Option<(usize, u64)>,
        stage: &mut Stage<'_>,
    ) {
        let held = &mut stage.history.sessions[session].subscriptions;
        if held.iter().any(|held| !held.is_over && (held.policy, held.pattern) == (policy, pattern)) {
            return;
        }
        let is_node = stage.advanced.shards && stage.random.once_in(2);
        let nkey = is_node.then(|| *stage.random.pick(&NODES));
        let events = BTreeMap::new();
        let get_retained = stage.random.once_in(2);
        held.push(Subscription {
            pattern,
            policy,
            wants_retained: get_retained,
            nkey,
            asked_at: stage.step,
            id: 0,
            since: None,
            is_ending: false,
            is_over: false,
            events,
            joined: BTreeSet::new(),
            gone: BTreeSet::new(),
            testaments: BTreeMap::new(),
            watched: BTreeMap::new(),
            of_databases: OfDatabases { after, ..OfDatabases::default() },
        });
        let request = self.next_request(Some(Pending::Subscribe(held.len() - 1)));
        let nkey = nkey.map(Text::Borrowed);
        // It has to say which only where there are several.
        let database = after.filter(|_| stage.advanced.databases > 1).map(|(index, _)| Database::name(index));
        let options = SubscribeOptions {
            match_policy: policy,
            get_retained,
            nkey,
            after: after.map(|(_, after)| after),
            database: database.as_deref().map(Text::Borrowed),
        };
        let message = Subscribe { request, options, topic: pattern.into() };
        self.send(&Message::Subscribe(message), stage);
    }

    pub(super) fn unsubscribe(&mut self, session: usize, stage: &mut Stage<'_>) {
        let held = &mut stage.history.sessions[session].subscriptions;
        let Some(place) = held.iter().position(|held| held.since.is_some() && !held.is_ending) else {
            return;
        };
        self.unsubscribe_from(session, place, stage);
    }

    fn unsubscribe_from(&mut self, session: usize, place: usize, stage: &mut Stage<'_>) {
        let held = &mut stage.history.sessions[session].subscriptions;
        held[place].is_ending = true;
        let subscription = SubscriptionId(held[place].id);
        let request = self.next_request(Some(Pending::Unsubscribe(place)));
        self.send(&Message::Unsubscribe(Unsubscribe { request, subscription }), stage);
    }

    pub(super) fn register(&mut self, session: usize, stage: &mut Stage<'_>) {
        // Most of what is shared is of few procedures, so that it has several callees.
        let takes_over = stage.advanced.leaps();
        let is_of_few = (stage.shares || takes_over) && !stage.random.once_in(3);
        let few = if takes_over { 2 } else { 4 };
        let place = stage.random.below(if is_of_few { few } else { PATTERNS.len() });
        let (policy, pattern) = PATTERNS[place];
        let mut options = RegisterOptions { match_policy: policy, ..RegisterOptions::default() };
        if stage.shares {
            let usual = POLICIES[place % POLICIES.len()];
            options.invoke = if stage.random.once_in(8) { *stage.random.pick(&POLICIES) } else { usual };
            if takes_over && place < few {
                // Only what is not shared can be taken over.
                options.invoke = InvocationPolicy::Single;
            }
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
            asked_at: stage.step,
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

    pub(super) fn unregister(&mut self, session: usize, stage: &mut Stage<'_>) {
        let held = &mut stage.history.sessions[session].registrations;
        let Some(place) = held.iter().position(|held| held.since.is_some() && !held.is_ending) else {
            return;
        };
        held[place].is_ending = true;
        let registration = RegistrationId(held[place].id);
        let request = self.next_request(Some(Pending::Unregister(place)));
        self.send(&Message::Unregister(Unregister { request, registration }), stage);
    }

    pub(super) fn call(&mut self, session: usize, stage: &mut Stage<'_>) {
        let procedure = *stage.random.pick(&URIS);
        self.call_procedure(session, procedure, stage);
    }

    pub(super) fn call_procedure(&mut self, session: usize, procedure: &'static str, stage: &mut Stage<'_>) {
        let manner = Manner {
            disclose_me: stage.random.once_in(6),
            receive_progress: stage.random.once_in(3),
            in_parts: stage.random.once_in(4),
            timeout_ms: if stage.random.once_in(6) { stage.random.between(1, 5_000) as u64 } else { 0 },
            is_sealed: false,
        };
        self.call_in_manner(session, procedure, (manner, self.can_seal), stage);
    }

    pub(super) fn call_in_manner(
        &mut self,
        session: usize,
        procedure: &'static str,
        (mut manner, may_seal): (Manner, bool),
        stage: &mut Stage<'_>,
    ) {
        let number = stage.history.sessions[session].calls.len() as u64;
        let content = self.any_content(CALL, session, number, stage);
        manner.is_sealed = may_seal && !manner.in_parts && stage.random.once_in(3);
        let args = content.encode(self.transport.serializer);
        let request = self.next_request(Some(Pending::Call(number)));
        let options = CallOptions {
            disclose_me: manner.disclose_me,
            receive_progress: manner.receive_progress,
            progress: manner.in_parts,
            timeout_ms: manner.timeout_ms,
            passthru: seal(manner.is_sealed, content),
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
            is_refused: false,
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
    pub(super) fn send_more_input(&mut self, session: usize, stage: &mut Stage<'_>) {
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

    pub(super) fn cancel(&mut self, session: usize, stage: &mut Stage<'_>) {
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

    pub(super) fn answer_some(&mut self, session: usize, stage: &mut Stage<'_>) {
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
    pub(super) fn progress(
        &mut self,
        session: usize,
        request: u64,
        index: usize,
        stage: &mut Stage<'_>,
    ) -> bool {
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

    pub(super) fn answer(
        &mut self,
        session: usize,
        request: u64,
        index: usize,
        refuse: bool,
        stage: &mut Stage<'_>,
    ) {
        let invocation = invocation_of(session, index, stage);
        invocation.is_answered = true;
        let (caller, number) = (invocation.caller, invocation.number);
        let kind = part_of(if refuse { ERROR } else { RESULT }, invocation.progress);
        let passes_on = refuse && stage.reroutes && !stage.random.once_in(4);
        invocation_of(session, index, stage).is_passed_on = passes_on && self.can_reroute;
        let content = self.any_content(kind, caller, number, stage);
        let args = content.encode(self.transport.serializer);
        let is_sealed = self.can_seal && !refuse && stage.random.once_in(3);
        invocation_of(session, index, stage).is_sealed = is_sealed;
        let (request, payload) = (RequestId(request), self.payload(&args));
        let message = if refuse {
            let error = Text::Borrowed(if passes_on { uri::UNAVAILABLE } else { "app.error.refused" });
            let request_type = MessageType::Invocation;
            Message::Error(Error { request_type, request, error, passthru: Passthru::default(), payload })
        } else {
            let passthru = seal(is_sealed, content);
            Message::Yield(Yield { request, options: YieldOptions { progress: false, passthru }, payload })
        };
        self.send(&message, stage);
    }
}

fn invocation_of<'h>(session: usize, index: usize, stage: &'h mut Stage<'_>) -> &'h mut Invocation {
    &mut stage.history.sessions[session].invocations[index]
}
