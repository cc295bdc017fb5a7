//! The callee's side: registering, running invocations, their answers and interrupts.
//!
//! The state of an invocation lives on its callee's core, which answers for a callee that is gone (R5).

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Router;
use super::authorize::Action;
use super::dealer::Sharing;
use super::effects::{CreditTime, Effects, Sent};
use super::fault::Fault;
use super::peer::{
    CallHead, CancelReason, Charge, InvocationEnd, MESSAGE_OVERHEAD_BYTES, Outcome, Parcel, PeerMessage,
    RegisterLetter, RegisterOutcome, ReplyHead, SessionKey, SessionRef, Sitting, Ticket,
};
use super::session::State;
use super::terms::{CallTerms, Input, carried, check_announced};
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{
    Error, Interrupt, Invocation as InvocationMessage, Message, MessageType, Register, Registered,
    Unregister, Unregistered, Yield,
};
use crate::wamp::options::{
    CancelMode, InterruptOptions, InvocationDetails, InvocationPolicy, Passthru, RevocationDetails, Text,
};
use crate::wamp::uri::{UriRule, check, check_pattern};
use crate::wamp::{MatchPolicy, Payload, ProtocolError, RegistrationId, RequestId};

const NONE: u32 = u32::MAX;

const TOO_MANY_NODES: &str = "the registration has as many node keys as it may have";

/// What a callee answers, beside the payload.
struct Answer<'a> {
    /// The message, for people.
    what: &'static str,
    outcome: Outcome,
    /// Empty for a result.
    error: &'a str,
    passthru: Passthru<'static>,
}

/// A call that a callee of this core works at.
#[derive(Clone, Copy, Debug)]
struct Invocation {
    callee: SessionKey,
    id: RequestId,
    caller: Sitting,
    request: RequestId,
    /// What home has to be told at its end.
    ticket: Ticket,
    /// INTERRUPT was sent; one is enough.
    is_interrupted: bool,
    /// The callee may send progressive results.
    has_progress: bool,
    /// It has sent one: no other callee can answer in its place.
    has_progressed: bool,
    /// More input of the call may come: it is in `inputs`.
    has_input: bool,
    /// The neighbours in the list of this caller's invocations.
    previous: u32,
    next: u32,
}

/// All running invocations of a core: a slab, and for each caller a list through it, so that a cancel finds them.
#[derive(Debug)]
pub(super) struct Invocations {
    entries: Vec<Invocation>,
    free: Vec<u32>,
    /// The first of each caller's invocations; ends with the last of them.
    by_caller: HashMap<Sitting, u32, FixedState>,
    /// Those whose input comes in parts, with what holds for all parts. Ends with the last part, and with the invocation.
    inputs: HashMap<(Sitting, RequestId), (u32, Box<CallTerms>), FixedState>,
}

impl Invocations {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_caller: HashMap::with_hasher(FixedState::with_seed(seed)),
            inputs: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// How many run.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// How many have input to come.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Whether none runs and no caller is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.by_caller.is_empty()
    }

    fn insert(&mut self, callee: SessionKey, id: RequestId, call: &CallHead) -> u32 {
        let &CallHead { caller, request, ticket, .. } = call;
        let next = self.by_caller.get(&caller).copied().unwrap_or(NONE);
        let entry = Invocation {
            callee,
            id,
            caller,
            request,
            ticket,
            is_interrupted: false,
            has_progress: false,
            has_progressed: false,
            has_input: false,
            previous: NONE,
            next,
        };
        let index = if let Some(index) = self.free.pop() {
            self.entries[index as usize] = entry;
            index
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
        self.by_caller.insert(caller, index);
        index
    }

    fn remove(&mut self, index: u32) -> Invocation {
        let entry = self.entries[index as usize];
        if entry.next != NONE {
            self.entries[entry.next as usize].previous = entry.previous;
        }
        if entry.previous != NONE {
            self.entries[entry.previous as usize].next = entry.next;
        } else if entry.next != NONE {
            self.by_caller.insert(entry.caller, entry.next);
        } else {
            self.by_caller.remove(&entry.caller);
        }
        if entry.has_input {
            self.inputs.remove(&(entry.caller, entry.request));
        }
        self.free.push(index);
        if self.free.len() == self.entries.len() {
            self.entries.clear();
            self.free.clear();
            self.entries.shrink_to(1024);
            self.free.shrink_to(1024);
        }
        entry
    }

    /// What there is to mind of an invocation until it ends.
    fn keep_terms(&mut self, index: u32, terms: Box<CallTerms>, features: ClientFeatures) {
        let entry = &mut self.entries[index as usize];
        entry.has_progress = terms.wants_progress(features);
        entry.has_input = terms.input == Input::First;
        if entry.has_input {
            self.inputs.insert((entry.caller, entry.request), (index, terms));
        }
    }

    fn find(&self, caller: Sitting, request: RequestId) -> Option<u32> {
        let mut index = self.by_caller.get(&caller).copied()?;
        while index != NONE {
            let entry = &self.entries[index as usize];
            if entry.request == request {
                return Some(index);
            }
            index = entry.next;
        }
        None
    }
}

impl Router {
    pub(super) fn handle_register(
        &mut self,
        key: SessionKey,
        message: &Register<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        self.check_request(key, message.request)?;
        let procedure = &*message.procedure;
        let match_policy = message.options.match_policy;
        let (realm, session) = self.realm_and_session(key);
        let checked = if match_policy == MatchPolicy::Exact {
            realm.check_uri(procedure)
        } else if crate::wamp::uri::is_reserved(procedure) {
            Err("URIs that begin with `wamp` are reserved for the protocol")
        } else {
            check_pattern(procedure, match_policy, realm.uri_rule, realm.uri_limits)
                .map_err(crate::wamp::uri::UriError::as_str)
        };
        if let Err(error) = checked {
            self.refuse(key, MessageType::Register, message.request, uri::INVALID_URI, error, effects);
            return Ok(());
        }
        let (realm_index, home, hash_seed) = (session.realm, realm.home, self.hash_seed);
        let may_ask = realm.disclose_me;
        if let Err(refusal) = self.permits(key, Action::Register, procedure, match_policy) {
            self.not_authorized(key, MessageType::Register, message.request, refusal, effects);
            return Ok(());
        }
        if message.options.disclose_caller && !may_ask {
            let (error, text) = (uri::OPTION_NOT_ALLOWED, "the realm does not let callees ask who calls");
            self.refuse(key, MessageType::Register, message.request, error, text, effects);
            return Ok(());
        }
        let options = &message.options;
        let kwarg = options.hash.as_deref().filter(|_| options.invoke == InvocationPolicy::Hash);
        let letter = RegisterLetter {
            realm: realm_index,
            callee: self.sitting(key),
            session: self.sessions.at(key.slot).id,
            request: message.request,
            match_policy,
            procedure: procedure.into(),
            sharing: Sharing { policy: options.invoke, kwarg: kwarg.map(Box::from) },
            concurrency: u32::try_from(options.concurrency).unwrap_or(u32::MAX),
            force_reregister: options.force_reregister,
            disclose_caller: options.disclose_caller,
            can_reroute: self.can_reroute(key),
            nkey: options.nkey.as_deref().map(Box::from),
            authid: self.sessions.at(key.slot).identity.as_ref().map(|identity| identity.authid.clone()),
            has_waited: false,
        };
        let limits = &self.limits;
        let active = self.sessions.at_mut(key.slot).active(hash_seed);
        if active.registrations as usize >= limits.registrations_per_session_max
            || active.uri_bytes as usize + letter.uri_bytes() as usize > limits.uri_bytes_per_session_max
        {
            effects.counters().limit_reached += 1;
            let text = "the session has as many registrations, or as long ones, as it may have";
            self.refuse(key, MessageType::Register, message.request, uri::LIMIT_REACHED, text, effects);
            return Ok(());
        }
        // Taken now and given back with a refusal, so that requests on their way count as well.
        active.registrations += 1;
        active.uri_bytes += letter.uri_bytes();
        active.ever_registered = true;
        let _ = effects.charge(key, MESSAGE_OVERHEAD_BYTES);
        if self.is_broken(Fault::SkipHome) {
            self.note_procedure(&letter);
        }
        if home == self.core {
            self.register_at_home(letter, effects);
        } else {
            effects.peer(home, PeerMessage::Register(Box::new(letter)));
        }
        Ok(())
    }

    pub(super) fn handle_unregister(
        &mut self,
        key: SessionKey,
        message: &Unregister,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        self.check_request(key, message.request)?;
        let (realm, session) = self.realm_and_session(key);
        let (realm_index, home) = (session.realm, realm.home);
        let callee = self.sitting(key);
        let _ = effects.charge(key, MESSAGE_OVERHEAD_BYTES);
        if home == self.core {
            self.unregister_at_home(realm_index, callee, message.request, message.registration, effects);
        } else {
            effects.peer(
                home,
                PeerMessage::Unregister {
                    realm: realm_index,
                    callee,
                    request: message.request,
                    registration: message.registration,
                },
            );
        }
        Ok(())
    }

    /// The dealer has answered a REGISTER or UNREGISTER of a session of this core.
    pub(super) fn finish_register(
        &mut self,
        callee: Sitting,
        request: RequestId,
        outcome: RegisterOutcome,
        is_credited: bool,
        effects: &mut impl Effects,
    ) {
        if self.is_broken(Fault::SkipHome) {
            self.note_registration(callee.key, request, outcome);
        }
        if !is_credited {
            let charge = Charge { bytes: MESSAGE_OVERHEAD_BYTES, paused: false };
            effects.credit(callee.session(), charge, CreditTime::Now);
        }
        let hash_seed = self.hash_seed;
        let Some(session) = self.sessions.sitting(callee) else { return };
        let key = callee.key;
        let realm = session.realm;
        let active = session.active(hash_seed);
        match outcome {
            RegisterOutcome::Registered(registration) => {
                self.realms[usize::from(realm.0)].counts.registered.add(1);
                // O4: any INVOCATION for it comes behind this on the same ring.
                let _ = effects.reply(key, &Message::Registered(Registered { request, registration }));
            }
            RegisterOutcome::AlreadyExists { uri_bytes } => {
                active.registrations -= 1;
                active.uri_bytes -= uri_bytes;
                let text = "the procedure is registered already";
                let error = uri::PROCEDURE_ALREADY_EXISTS;
                self.refuse(key, MessageType::Register, request, error, text, effects);
            }
            RegisterOutcome::SharedOtherwise { uri_bytes } => {
                active.registrations -= 1;
                active.uri_bytes -= uri_bytes;
                let text = "the procedure is registered already, and its callees share it in another way";
                let error = uri::PROCEDURE_ALREADY_EXISTS;
                self.refuse(key, MessageType::Register, request, error, text, effects);
            }
            RegisterOutcome::TooManyNodes { uri_bytes } | RegisterOutcome::LimitReached { uri_bytes } => {
                active.registrations -= 1;
                active.uri_bytes -= uri_bytes;
                effects.counters().limit_reached += 1;
                let is_nodes = matches!(outcome, RegisterOutcome::TooManyNodes { .. });
                let text = if is_nodes { TOO_MANY_NODES } else { super::TOO_MANY_SHAPES };
                self.refuse(key, MessageType::Register, request, uri::LIMIT_REACHED, text, effects);
            }
            RegisterOutcome::Unregistered { uri_bytes } => {
                active.registrations -= 1;
                active.uri_bytes -= uri_bytes;
                let reply = Unregistered { request, details: None };
                let _ = effects.reply(key, &Message::Unregistered(reply));
            }
            RegisterOutcome::Waits => {}
            RegisterOutcome::NoSuchRegistration => {
                let text = "the session does not hold this registration";
                self.refuse(key, MessageType::Unregister, request, uri::NO_SUCH_REGISTRATION, text, effects);
            }
        }
    }

    /// On the callee's core: the dealer has taken a registration from it. Who can be told is told (advanced profile,
    /// "Registration Revocation"). What runs goes on.
    pub(super) fn lose_registration(
        &mut self,
        callee: Sitting,
        registration: RegistrationId,
        uri_bytes: u32,
        reason: &str,
        effects: &mut impl Effects,
    ) {
        effects.counters().registrations_revoked += 1;
        let hash_seed = self.hash_seed;
        let Some(session) = self.sessions.sitting(callee) else { return };
        let can_be_told = session.features.contains(ClientFeatures::CALLEE_REGISTRATION_REVOCATION);
        let active = session.active(hash_seed);
        active.registrations -= 1;
        active.uri_bytes -= uri_bytes;
        if can_be_told {
            let reason = Some(Text::Borrowed(reason));
            let details = Some(RevocationDetails {
                registration: Some(registration),
                reason,
                ..RevocationDetails::default()
            });
            let message = Unregistered { request: RequestId(0), details };
            let _ = effects.reply(callee.key, &Message::Unregistered(message));
        }
    }

    /// On the callee's core: begins an invocation, or answers for the callee (R5).
    pub(super) fn invoke(
        &mut self,
        callee: Sitting,
        registration: RegistrationId,
        pattern: bool,
        mut call: Parcel<'_, CallHead>,
        effects: &mut impl Effects,
    ) {
        let head = call.head();
        if head.is(Input::More) || head.is(Input::Last) {
            self.invoke_further(registration, pattern, &call, effects);
            return;
        }
        // The call is off the ring: credit never waits for a client.
        effects.credit(head.caller.session(), head.charge, CreditTime::Now);
        let hash_seed = self.hash_seed;
        let Some(session) = self.sessions.sitting(callee) else {
            self.refuse_invocation(head, uri::NO_AVAILABLE_CALLEE, "the callee is gone", effects);
            return;
        };
        let (callee, features) = (callee.key, session.features);
        if let Some(text) = head.terms.as_deref().and_then(|terms| terms.not_supported(features)) {
            self.refuse_invocation(head, uri::FEATURE_NOT_SUPPORTED, text, effects);
            return;
        }
        let active = session.active(hash_seed);
        if active.invocations.len() >= self.limits.invocations_per_session_max {
            effects.counters().invocations_refused += 1;
            let text = "the callee has as many calls open as it may have";
            self.refuse_invocation(head, uri::UNAVAILABLE, text, effects);
            return;
        }
        let id = active.last_invocation.next();
        let message = Message::Invocation(InvocationMessage {
            request: id,
            registration,
            details: InvocationDetails {
                procedure: pattern.then(|| Text::Borrowed(call.uri())),
                ..head
                    .terms
                    .as_deref()
                    .map_or_else(InvocationDetails::default, |it| it.invocation_details(features))
            },
            payload: call.payload(),
        });
        let (error, text) = match effects.send(callee, &message) {
            Sent::Accepted => {
                // Only now the number is used up: what was refused left no gap in 1, 2, 3, …
                active.last_invocation = id;
                let index = self.invocations.insert(callee, id, head);
                active.invocations.insert(id, index);
                if let Some(terms) = call.head_mut().terms.take() {
                    self.invocations.keep_terms(index, terms, features);
                }
                effects.counters().invocations += 1;
                return;
            }
            Sent::Full => {
                effects.counters().invocations_refused += 1;
                (uri::UNAVAILABLE, "the callee has not read the calls before this one")
            }
            Sent::NotRepresentable => {
                (uri::INVALID_ARGUMENT, "the arguments cannot be written in the serializer of the callee")
            }
            Sent::TooLarge => (uri::PAYLOAD_SIZE_EXCEEDED, "the call is longer than the callee takes"),
            Sent::Gone => (uri::NO_AVAILABLE_CALLEE, "the callee is gone"),
        };
        self.refuse_invocation(head, error, text, effects);
    }

    /// A call that its callee did not get: the caller is answered, unless home can try another callee.
    fn refuse_invocation(
        &mut self,
        head: &CallHead,
        error: &'static str,
        text: &str,
        effects: &mut impl Effects,
    ) {
        let may_go_elsewhere = matches!(error, uri::UNAVAILABLE | uri::NO_AVAILABLE_CALLEE);
        let end = if head.ticket.returns() && may_go_elsewhere {
            InvocationEnd::Refused
        } else {
            self.answer_call(head.caller, head.request, error, text, effects);
            InvocationEnd::Over
        };
        self.report_done(head.realm, head.ticket, end, effects);
    }

    /// On the callee's core: more input of a call (advanced profile, "Progressive Call Invocations").
    fn invoke_further(
        &mut self,
        registration: RegistrationId,
        pattern: bool,
        call: &Parcel<'_, CallHead>,
        effects: &mut impl Effects,
    ) {
        let &CallHead { caller, request, charge, ref terms, .. } = call.head();
        let Some((index, frozen)) = self.invocations.inputs.get(&(caller, request)) else {
            // The callee has answered, or left; the caller will hear of that.
            effects.credit(caller.session(), charge, CreditTime::Now);
            return;
        };
        let index = *index;
        let Invocation { callee, id, .. } = self.invocations.entries[index as usize];
        let features = self.sessions.at(callee.slot).features;
        let is_last = terms.as_deref().is_some_and(|terms| terms.input == Input::Last);
        // All options are those of the first part.
        let details = InvocationDetails {
            procedure: pattern.then(|| Text::Borrowed(call.uri())),
            progress: !is_last,
            ..frozen.invocation_details(features)
        };
        let payload = call.payload();
        let message = Message::Invocation(InvocationMessage { request: id, registration, details, payload });
        let (error, text) = match effects.send_part(callee, &message) {
            Sent::Accepted => {
                if is_last {
                    self.invocations.inputs.remove(&(caller, request));
                    self.invocations.entries[index as usize].has_input = false;
                }
                effects.counters().progressive_invocations += 1;
                effects.credit(caller.session(), charge, CreditTime::AfterFlush);
                return;
            }
            // It is answered for where its session ends.
            Sent::Gone => {
                effects.credit(caller.session(), charge, CreditTime::Now);
                return;
            }
            Sent::Full => {
                effects.counters().invocations_refused += 1;
                (uri::UNAVAILABLE, "the callee has not read the input before this")
            }
            Sent::NotRepresentable => {
                (uri::INVALID_ARGUMENT, "the arguments cannot be written in the serializer of the callee")
            }
            Sent::TooLarge => (uri::PAYLOAD_SIZE_EXCEEDED, "the call is longer than the callee takes"),
        };
        effects.credit(caller.session(), charge, CreditTime::Now);
        // Without this part the others are worth nothing.
        self.interrupt_at(index, (CancelMode::KillNoWait, CancelReason::Unavailable), effects);
        self.answer_call(caller, request, error, text, effects);
    }

    pub(super) fn handle_yield(
        &mut self,
        key: SessionKey,
        message: &Yield<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        let features = self.sessions.at(key.slot).features;
        let passthru = &message.options.passthru;
        let needed = ClientFeatures::CALLEE_PAYLOAD_PASSTHRU_MODE;
        check_announced(MessageType::Yield, passthru, features, needed)?;
        let outcome = if message.options.progress { Outcome::Progress } else { Outcome::Result };
        let answer = Answer { what: "YIELD", outcome, error: "", passthru: carried(passthru) };
        self.answer(key, message.request, answer, message.payload, effects)
    }

    /// ERROR from a client: INVOCATION is the only request that a router makes.
    pub(super) fn handle_error(
        &mut self,
        key: SessionKey,
        message: &Error<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        if message.request_type != MessageType::Invocation {
            let name = message.request_type.name();
            return Err(ProtocolError::new(format!("ERROR.REQUEST.Type: a client has no {name} to answer")));
        }
        let (realm, session) = self.realm_and_session(key);
        let needed = ClientFeatures::CALLEE_PAYLOAD_PASSTHRU_MODE;
        check_announced(MessageType::Error, &message.passthru, session.features, needed)?;
        let passthru = Passthru::default();
        let answer = Answer { what: "ERROR", outcome: Outcome::Error, error: &message.error, passthru };
        // A caller's library may close on a URI that is none, and it is not the caller who is at fault.
        if let Err(error) = check(&message.error, UriRule::Loose, realm.uri_limits) {
            let args = super::text_args(error.as_str());
            let payload = Payload { args: &args, ..Payload::EMPTY };
            let answer = Answer { error: uri::INVALID_URI, ..answer };
            return self.answer(key, message.request, answer, payload, effects);
        }
        let answer = Answer { passthru: carried(&message.passthru), ..answer };
        self.answer(key, message.request, answer, message.payload, effects)
    }

    fn answer(
        &mut self,
        key: SessionKey,
        id: RequestId,
        answer: Answer<'_>,
        payload: Payload<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        let Answer { what, outcome, mut error, passthru } = answer;
        let active = self.sessions.at_mut(key.slot).active.as_mut();
        let last = active.as_ref().map_or(RequestId(0), |active| active.last_invocation);
        let index = active.and_then(|active| {
            if outcome == Outcome::Progress {
                return active.invocations.get(&id).copied();
            }
            let index = active.invocations.remove(&id);
            if active.invocations.is_empty() && active.invocations.capacity() > 64 {
                active.invocations.shrink_to_fit();
            }
            index
        });
        let Some(index) = index else {
            if id > last {
                return Err(ProtocolError::new(format!(
                    "{what}.Request {id}: no such invocation was ever made"
                )));
            }
            // Cancelled, or its caller is gone: the two crossed.
            return Ok(());
        };
        let realm = self.sessions.at(key.slot).realm;
        let invocation = if outcome == Outcome::Progress {
            let invocation = &mut self.invocations.entries[index as usize];
            // Nobody asked for a part of the result, or nobody wants it any more: the last one is still to come.
            if !invocation.has_progress || invocation.is_interrupted {
                return Ok(());
            }
            invocation.has_progressed = true;
            *invocation
        } else {
            self.invocations.remove(index)
        };
        let is_refusal = outcome == Outcome::Error && error == uri::UNAVAILABLE && !invocation.has_progressed;
        if is_refusal && self.can_reroute(key) {
            if invocation.ticket.returns() {
                self.report_done(realm, invocation.ticket, InvocationEnd::Refused, effects);
                return Ok(());
            }
            // There is no other to try (advanced profile, "Call Re-Routing": rules and failure).
            error = uri::NO_AVAILABLE_CALLEE;
        }
        let bytes = (error.len() + payload.len() + passthru.bytes()) as u32 + MESSAGE_OVERHEAD_BYTES;
        let paused = effects.charge(key, bytes);
        let head = ReplyHead {
            caller: invocation.caller,
            request: invocation.request,
            outcome,
            callee: Some(SessionRef { core: self.core, key }),
            charge: Charge { bytes, paused },
            passthru,
        };
        self.send_reply(Parcel::Borrowed { head, uri: error, payload }, effects);
        if outcome != Outcome::Progress {
            self.report_done(realm, invocation.ticket, InvocationEnd::Over, effects);
        }
        Ok(())
    }

    /// Whether a callee means by `unavailable` that another should be tried.
    fn can_reroute(&self, key: SessionKey) -> bool {
        self.sessions.at(key.slot).features.contains(ClientFeatures::CALLEE_CALL_REROUTE)
    }

    /// On every core: interrupts one call, if its callee is here.
    pub(super) fn interrupt(
        &mut self,
        caller: Sitting,
        request: RequestId,
        how: (CancelMode, CancelReason),
        effects: &mut impl Effects,
    ) {
        if let Some(index) = self.invocations.find(caller, request) {
            self.interrupt_at(index, how, effects);
        }
    }

    /// On every core: interrupts all calls of a caller that is gone.
    pub(super) fn interrupt_all(&mut self, caller: Sitting, effects: &mut impl Effects) {
        while let Some(index) = self.invocations.by_caller.get(&caller).copied() {
            self.interrupt_at(index, (CancelMode::KillNoWait, CancelReason::Canceled), effects);
        }
    }

    fn interrupt_at(
        &mut self,
        index: u32,
        (mode, reason): (CancelMode, CancelReason),
        effects: &mut impl Effects,
    ) {
        let entry = &mut self.invocations.entries[index as usize];
        let Invocation { callee, id, caller, request, ticket, is_interrupted, .. } = *entry;
        entry.is_interrupted |= mode != CancelMode::Skip;
        let session = self.sessions.get_mut(callee);
        let can_cancel = session.as_ref().is_some_and(|session| {
            session.state == State::Open && session.features.contains(ClientFeatures::CALLEE_CALL_CANCELING)
        });
        if mode != CancelMode::Skip && can_cancel && !is_interrupted {
            let options = InterruptOptions { mode: Some(mode), reason: Some(Text::Borrowed(reason.uri())) };
            let _ = effects.reply(callee, &Message::Interrupt(Interrupt { request: id, options }));
        }
        if mode == CancelMode::Kill && can_cancel {
            // The callee's answer ends it, or the timeout on the caller's core.
            return;
        }
        let realm = session.as_ref().map(|session| session.realm);
        if let Some(active) = session.and_then(|session| session.active.as_mut()) {
            active.invocations.remove(&id);
        }
        self.invocations.remove(index);
        if mode == CancelMode::Kill {
            // A callee that cannot be interrupted: the caller is told at once, as with `skip`.
            self.answer_call(caller, request, uri::CANCELED, "the call was cancelled", effects);
        }
        if let Some(realm) = realm {
            self.report_done(realm, ticket, InvocationEnd::Over, effects);
        }
    }

    /// The session ends: its callers are answered (R5).
    pub(super) fn abandon_invocations(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let session = self.sessions.at_mut(key.slot);
        let realm = session.realm;
        let Some(active) = session.active.as_mut() else { return };
        if active.invocations.is_empty() {
            return;
        }
        // In the order they were made, so that runs replay.
        let mut open: Vec<_> = active.invocations.drain().collect();
        open.sort_unstable();
        for (_, index) in open {
            let invocation = self.invocations.remove(index);
            let text = "the callee left before it answered";
            self.answer_call(invocation.caller, invocation.request, uri::CANCELED, text, effects);
            self.report_done(realm, invocation.ticket, InvocationEnd::Over, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::own_calls::own_caller;
    use super::super::peer::{CoreId, RealmIndex};
    use super::*;

    /// A call to all nodes of a registration is a call of the router to each, and all of them may end at once.
    #[test]
    fn calls_of_the_router_are_found_among_very_many() {
        let mut invocations = Invocations::new(3);
        let requests = (1..=200_000).map(RequestId);
        for request in requests.clone() {
            let head = CallHead {
                realm: RealmIndex(0),
                caller: own_caller(CoreId(1), request),
                request,
                charge: Charge::default(),
                ticket: Ticket::NONE,
                terms: None,
            };
            invocations.insert(SessionKey { slot: 1, generation: 1 }, request, &head);
        }
        let longest = |invocations: &Invocations| {
            let lengths = invocations.by_caller.values().map(|first| {
                let next = |index: &u32| {
                    let next = invocations.entries[*index as usize].next;
                    (next != NONE).then_some(next)
                };
                std::iter::successors(Some(*first), next).count()
            });
            lengths.max().unwrap_or_default()
        };
        assert!(longest(&invocations) <= 4, "{}", longest(&invocations));
        for request in requests {
            let caller = own_caller(CoreId(1), request);
            let index = invocations.find(caller, request).unwrap();
            assert_eq!(invocations.remove(index).request, request);
            assert_eq!(invocations.find(caller, request), None);
        }
        assert!(invocations.is_empty());
    }
}
