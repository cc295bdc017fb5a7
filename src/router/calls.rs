//! The caller's side: open calls, their cancelling and their answers.
//!
//! The state of a call lives on its caller's core, which alone decides what the caller is answered, and answers once.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::Router;
use super::all_calls::refused_runmode;
use super::authorize::Action;
use super::authorizer::Permit;
use super::dealer::Aim;
use super::effects::{CreditTime, Effects, Sent};
use super::fault::Fault;
use super::history::GET_EVENTS;
use super::own_calls::is_own;
use super::peer::{
    CallHead, CancelReason, Charge, MESSAGE_OVERHEAD_BYTES, Outcome, Parcel, PeerMessage, RealmIndex,
    ReplyHead, SessionKey, Sitting, Ticket,
};
use super::sharding::resource_hash;
use super::terms::{CallTerms, DISCLOSE_ME_DENIED, Input, carried, check_announced};
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Call, CallResult, Cancel, Error, Message, MessageType};
use crate::wamp::options::{CancelMode, Passthru, ResultDetails, Text};
use crate::wamp::uri::is_reserved;
use crate::wamp::{MatchPolicy, Payload, ProtocolError, RequestId};

/// The `ppt_` options of a call whose input comes in parts, in bytes.
const PASSTHRU_BYTES_MAX: usize = 1024;

/// A call that has not been answered. Of most there is nothing to mind.
#[derive(Debug, Default)]
pub(super) struct OpenCall {
    watch: Option<Box<Watch>>,
}

/// What there is to mind of a call.
#[derive(Debug)]
struct Watch {
    /// When it ends if nothing comes, in monotonic microseconds; in `call_deadlines` too.
    deadline_us: Option<u64>,
    /// How long it may take to the next result, in microseconds.
    timeout_us: Option<u64>,
    /// CANCEL with mode `kill`: the callee was interrupted, and has until the deadline to answer.
    is_killed: bool,
    /// A hash of the procedure, while more of the call's input may come.
    input: Option<u64>,
}

impl Watch {
    const NOTHING: Self = Self { deadline_us: None, timeout_us: None, is_killed: false, input: None };
}

impl OpenCall {
    fn is_killed(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_killed)
    }
}

impl Router {
    pub(super) fn handle_call(
        &mut self,
        key: SessionKey,
        message: &Call<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        let session = self.sessions.at(key.slot);
        if message.request != session.last_request.next()
            && let Some(handled) = self.handle_more_input(key, message, effects)
        {
            return handled;
        }
        self.check_request(key, message.request)?;
        let features = self.sessions.at(key.slot).features;
        let needed = ClientFeatures::CALLER_PAYLOAD_PASSTHRU_MODE;
        check_announced(MessageType::Call, &message.options.passthru, features, needed)?;
        if message.options.progress && !features.contains(ClientFeatures::CALLER_PROGRESSIVE_CALL_INVOCATIONS)
        {
            let text = "CALL.Options.progress: the client did not announce progressive_call_invocations";
            return Err(ProtocolError::new(text));
        }
        let request = message.request;
        let procedure = &*message.procedure;
        let (realm, session) = self.realm_and_session(key);
        if session.active.as_ref().is_some_and(|active| active.calls.contains_key(&request)) {
            return Err(ProtocolError::new(format!("CALL.Request {request}: a call with this id is open")));
        }
        effects.counters().calls += 1;
        realm.counts.calls.add(1);
        if let Err(error) = check_procedure(realm, procedure) {
            self.refuse_call(key, request, uri::INVALID_URI, error, effects);
            return Ok(());
        }
        let permit = match self.permits(key, Action::Call, procedure, MatchPolicy::Exact) {
            Ok(permit) => permit,
            Err(refusal) => {
                effects.counters().not_authorized += 1;
                self.refuse_call(key, request, refusal.error, refusal.text, effects);
                return Ok(());
            }
        };
        if self.may_not_disclose(key, message.options.disclose_me, permit) {
            self.refuse_call(key, request, uri::DISCLOSE_ME_DISALLOWED, DISCLOSE_ME_DENIED, effects);
            return Ok(());
        }
        let of_database = self.realm_and_session(key).0.callable.get(procedure).cloned();
        if message.options.runmode.is_some()
            && let Some((error, text)) =
                refused_runmode(&message.options, is_reserved(procedure) || of_database.is_some())
        {
            self.refuse_call(key, request, error, text, effects);
            return Ok(());
        }
        if (is_reserved(procedure) || of_database.is_some())
            && (message.options.progress || message.options.passthru.is_used())
        {
            let text = "a procedure of the router or of a database takes neither input in parts nor payload passthru mode";
            self.refuse_call(key, request, uri::FEATURE_NOT_SUPPORTED, text, effects);
            return Ok(());
        }
        // They are kept until all of the input has come.
        if message.options.progress && message.options.passthru.bytes() > PASSTHRU_BYTES_MAX {
            let text = "the ppt_ options of a call whose input comes in parts are too long to be kept";
            self.refuse_call(key, request, uri::PAYLOAD_SIZE_EXCEEDED, text, effects);
            return Ok(());
        }
        let watch = self.watch(message);
        let (hash_seed, calls_max) = (self.hash_seed, self.limits.calls_per_session_max);
        let active = self.sessions.at_mut(key.slot).active(hash_seed);
        if active.calls.len() >= calls_max {
            effects.counters().limit_reached += 1;
            let text = "the session has as many calls in flight as it may have";
            self.refuse_call(key, request, uri::UNAVAILABLE, text, effects);
            return Ok(());
        }
        if let Some(deadline_us) = watch.as_ref().and_then(|watch| watch.deadline_us) {
            self.call_deadlines.insert((deadline_us, key, request));
        }
        active.calls.insert(request, OpenCall { watch });
        if procedure == GET_EVENTS {
            self.handle_get_events(key, request, &message.payload, effects);
            return Ok(());
        }
        // The router's own procedures are answered here, without home.
        if (is_reserved(procedure) || procedure.starts_with("crosspoint."))
            && self.handle_meta_call(key, request, procedure, &message.payload, effects)
        {
            return Ok(());
        }
        if let Some(procedure) = of_database {
            let timing = (self.call_timeout_ms(message), message.options.receive_progress);
            self.start_query(key, request, procedure, message.payload, timing, effects);
            return Ok(());
        }
        let terms = self.call_terms(key, message, permit, effects);
        self.send_call(key, message, terms, effects);
        Ok(())
    }

    /// Sends a CALL on its way by home.
    fn send_call(
        &mut self,
        key: SessionKey,
        message: &Call<'_>,
        terms: Option<Box<CallTerms>>,
        effects: &mut impl Effects,
    ) {
        let (request, procedure) = (message.request, &*message.procedure);
        let (realm, session) = self.realm_and_session(key);
        let (realm_index, home) = (session.realm, realm.home);
        let carried = terms.as_deref().map_or(0, CallTerms::bytes);
        let bytes = (procedure.len() + message.payload.len() + carried) as u32 + MESSAGE_OVERHEAD_BYTES;
        let paused = effects.charge(key, bytes);
        let caller = self.sitting(key);
        let charge = Charge { bytes, paused };
        let ticket = Ticket::NONE;
        let head = CallHead { realm: realm_index, caller, request, charge, ticket, terms };
        if self.is_broken(Fault::SkipHome)
            && self.call_without_home(&head, procedure, message.payload, effects)
        {
            return;
        }
        let call = Parcel::Borrowed { head, uri: procedure, payload: message.payload };
        if home == self.core {
            self.route_call(call, effects);
        } else {
            effects.peer(home, PeerMessage::Call(call.into_letter()));
        }
    }

    /// What there is to mind of a new call.
    fn watch(&self, message: &Call<'_>) -> Option<Box<Watch>> {
        let timeout_ms = self.call_timeout_ms(message);
        if timeout_ms == 0 && !message.options.progress {
            return None;
        }
        let timeout_us = (timeout_ms > 0).then_some(timeout_ms * 1000);
        let deadline_us = timeout_us.map(|timeout_us| self.now.monotonic_us + timeout_us);
        let input = message.options.progress.then(|| self.procedure_hash(&message.procedure));
        Some(Box::new(Watch { deadline_us, timeout_us, input, ..Watch::NOTHING }))
    }

    fn procedure_hash(&self, procedure: &str) -> u64 {
        FixedState::with_seed(self.hash_seed).hash_one(procedure)
    }

    /// What the caller says, within bounds, or what is configured; 0 is none.
    fn call_timeout_ms(&self, message: &Call<'_>) -> u64 {
        match message.options.timeout_ms {
            0 => self.limits.call_timeout.as_millis() as u64,
            asked => asked.min(self.limits.call_timeout_max.as_millis() as u64),
        }
    }

    /// A CALL that is not the next request: it may bring more input of an open one (advanced profile, "Progressive Call
    /// Invocations"), or come too late to one that is over. `None`: it is neither.
    #[cold]
    fn handle_more_input(
        &mut self,
        key: SessionKey,
        message: &Call<'_>,
        effects: &mut impl Effects,
    ) -> Option<Result<(), ProtocolError>> {
        let (realm, session) = self.realm_and_session(key);
        let is_strict = realm.strict_request_ids;
        let is_announced = session.features.contains(ClientFeatures::CALLER_PROGRESSIVE_CALL_INVOCATIONS);
        let (is_old, request) = (message.request <= session.last_request, message.request);
        let procedure = self.procedure_hash(&message.procedure);
        let active = self.sessions.at_mut(key.slot).active.as_mut();
        let Some(call) = active.and_then(|active| active.calls.get_mut(&request)) else {
            // Which calls are over is not kept: one that announced progressive calls may have sent this before it heard so.
            return (is_announced && is_strict && is_old).then_some(Ok(()));
        };
        if !is_announced {
            return None;
        }
        let watch = call.watch.as_deref_mut();
        let is_killed = watch.as_ref().is_some_and(|watch| watch.is_killed);
        let Some((input, watch)) = watch.and_then(|watch| Some((watch.input.take()?, watch))) else {
            let text =
                format!("CALL.Request {request}: a call with this id is open, and has all of its input");
            return Some(Err(ProtocolError::new(text)));
        };
        if input != procedure {
            let text = format!("CALL.Request {request}: the call with this id is one of another procedure");
            return Some(Err(ProtocolError::new(text)));
        }
        let is_last = !message.options.progress;
        if !is_last {
            watch.input = Some(input);
        }
        // The two crossed: its callee was interrupted.
        if !is_killed {
            let input = if is_last { Input::Last } else { Input::More };
            let terms = Some(Box::new(CallTerms { input, ..CallTerms::default() }));
            self.send_call(key, message, terms, effects);
        }
        Some(Ok(()))
    }

    /// What of a call reaches its callee beside procedure and payload.
    fn call_terms(
        &self,
        key: SessionKey,
        message: &Call<'_>,
        permit: Permit,
        effects: &impl Effects,
    ) -> Option<Box<CallTerms>> {
        let (realm, session) = self.realm_and_session(key);
        let is_disclosed = message.options.disclose_me || permit.disclose;
        // At home the dealer looks for itself; to ask is one look into memory that all cores read.
        let may_be_wanted = || realm.home != self.core && effects.interest(realm.home, realm.wants_callers).0;
        let is_disclosed_if_wanted = !is_disclosed && may_be_wanted();
        let trust_level = realm.roles[session.role as usize].trust_level;
        let timeout_ms = self.call_timeout_ms(message);
        let options = &message.options;
        let is_ordinary =
            !is_disclosed && !is_disclosed_if_wanted && trust_level.is_none() && timeout_ms == 0;
        let is_for_nodes = options.rkey.is_some() || options.runmode.is_some();
        let is_whole = !options.receive_progress && !options.progress;
        if is_ordinary && is_whole && !options.passthru.is_used() && !is_for_nodes {
            return None;
        }
        let resource = options.rkey.as_deref();
        let aim = resource.map(|rkey| Aim::Resource(resource_hash(realm.broker.id_hasher(), rkey)));
        Some(Box::new(CallTerms {
            disclosed: (is_disclosed || is_disclosed_if_wanted).then(|| self.disclosed(key)),
            is_disclosed_if_wanted,
            trust_level,
            timeout_ms,
            receive_progress: options.receive_progress,
            input: if options.progress { Input::First } else { Input::Whole },
            aim: aim.unwrap_or_default(),
            is_for_all: options.runmode.as_deref() == Some("all"),
            passthru: if self.is_broken(Fault::UnsealInvocations) {
                Passthru::default()
            } else {
                carried(&options.passthru)
            },
        }))
    }

    /// Whether a call was made and has no final answer.
    #[must_use]
    pub fn call_is_open(&self, key: SessionKey, request: RequestId) -> bool {
        let session = self.sessions.get(key).and_then(|session| session.active.as_ref());
        session.is_some_and(|active| active.calls.contains_key(&request))
    }

    /// Whether a call was cancelled in mode `kill`, and is open until its callee answers.
    pub(super) fn call_is_killed(&self, key: SessionKey, request: RequestId) -> bool {
        let session = self.sessions.get(key).and_then(|session| session.active.as_ref());
        session.and_then(|active| active.calls.get(&request)).is_some_and(OpenCall::is_killed)
    }

    pub(super) fn handle_cancel(&mut self, key: SessionKey, message: &Cancel, effects: &mut impl Effects) {
        let deadline_us = self.now.monotonic_us + self.limits.kill_timeout.as_micros() as u64;
        let session = self.sessions.at_mut(key.slot);
        let realm = session.realm;
        let Some(active) = session.active.as_mut() else { return };
        // A call that is answered already, or being killed: the two crossed, nothing to do.
        let call = active.calls.get_mut(&message.request).filter(|call| !call.is_killed());
        let Some(call) = call else { return };
        effects.counters().cancels += 1;
        let mode = message.options.mode.unwrap_or_default();
        if mode == CancelMode::Kill {
            let watch = call.watch.get_or_insert_with(|| Box::new(Watch::NOTHING));
            watch.is_killed = true;
            // From here on the one deadline is that of the interrupt.
            if let Some(before_us) = watch.deadline_us.replace(deadline_us) {
                self.call_deadlines.remove(&(before_us, key, message.request));
            }
            self.call_deadlines.insert((deadline_us, key, message.request));
        } else {
            self.take_call(key, message.request);
            self.refuse_call(key, message.request, uri::CANCELED, "the call was cancelled", effects);
        }
        self.send_cancel(realm, self.sitting(key), message.request, mode, effects);
    }

    /// A call is over: it and its deadline.
    pub(super) fn take_call(&mut self, key: SessionKey, request: RequestId) -> Option<OpenCall> {
        let active = self.sessions.at_mut(key.slot).active.as_mut()?;
        let call = active.calls.remove(&request)?;
        if active.calls.is_empty() && active.calls.capacity() > 64 {
            active.calls.shrink_to_fit();
        }
        if let Some(deadline_us) = call.watch.as_ref().and_then(|watch| watch.deadline_us) {
            self.call_deadlines.remove(&(deadline_us, key, request));
        }
        Some(call)
    }

    /// R4: a cancel follows the path of its call.
    pub(super) fn send_cancel(
        &mut self,
        realm: RealmIndex,
        caller: Sitting,
        request: RequestId,
        mode: CancelMode,
        effects: &mut impl Effects,
    ) {
        self.send_cancel_because(realm, caller, request, (mode, CancelReason::Canceled), effects);
    }

    pub(super) fn send_cancel_because(
        &mut self,
        realm: RealmIndex,
        caller: Sitting,
        request: RequestId,
        (mode, reason): (CancelMode, CancelReason),
        effects: &mut impl Effects,
    ) {
        if !self.queries.is_empty() && self.cancel_query(caller, request, mode, effects) {
            return;
        }
        let home = self.realms[realm.0 as usize].home;
        if self.is_broken(Fault::CancelDirect) {
            // What this design is to be noticed for is the interrupt.
            self.forget_input(realm, caller, request, effects);
        }
        if home == self.core || self.is_broken(Fault::CancelDirect) {
            self.cancel_at_home(realm, caller, request, (mode, reason), effects);
        } else {
            effects.peer(home, PeerMessage::Cancel { caller, request, mode, reason, realm });
        }
    }

    /// The caller cannot be given what its callee sends: both are told.
    fn give_up_call(
        &mut self,
        key: SessionKey,
        request: RequestId,
        reason: CancelReason,
        (error, text): (&'static str, &str),
        effects: &mut impl Effects,
    ) {
        self.take_call(key, request);
        self.refuse_call(key, request, error, text, effects);
        let (realm, caller) = (self.sessions.at(key.slot).realm, self.sitting(key));
        self.send_cancel_because(realm, caller, request, (CancelMode::KillNoWait, reason), effects);
    }

    /// Ends the calls to which nothing came in time: no answer to an interrupt, or no result.
    pub(super) fn handle_call_timeouts(&mut self, now_us: u64, effects: &mut impl Effects) {
        while let Some(&(deadline_us, key, request)) = self.call_deadlines.first()
            && deadline_us <= now_us
        {
            self.call_deadlines.pop_first();
            let Some(session) = self.sessions.get(key) else { continue };
            let realm = session.realm;
            let Some(call) = self.take_call(key, request) else { continue };
            let cancel = if call.is_killed() {
                let text = "the call was cancelled, and its callee did not answer the interrupt";
                self.refuse_call(key, request, uri::CANCELED, text, effects);
                (CancelMode::Skip, CancelReason::Canceled)
            } else {
                effects.counters().call_timeouts += 1;
                self.refuse_call(key, request, uri::TIMEOUT, "no result came in time", effects);
                (CancelMode::KillNoWait, CancelReason::Timeout)
            };
            self.send_cancel_because(realm, self.sitting(key), request, cancel, effects);
        }
    }

    /// The session ends: its calls are forgotten, and their callees interrupted by one word to home (R4).
    pub(super) fn forget_calls(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let session = self.sessions.at_mut(key.slot);
        let realm = session.realm;
        let Some(active) = session.active.as_mut() else { return };
        if active.calls.is_empty() {
            return;
        }
        let mut inputs = Vec::new();
        for (request, call) in active.calls.drain() {
            if call.watch.as_ref().is_some_and(|watch| watch.input.is_some()) {
                inputs.push(request);
            }
            if let Some(deadline_us) = call.watch.and_then(|watch| watch.deadline_us) {
                self.call_deadlines.remove(&(deadline_us, key, request));
            }
        }
        let caller = self.sitting(key);
        self.cancel_queries(caller, effects);
        let home = self.realms[realm.0 as usize].home;
        if self.is_broken(Fault::CancelDirect) {
            inputs.into_iter().for_each(|request| self.forget_input(realm, caller, request, effects));
        }
        if home == self.core || self.is_broken(Fault::CancelDirect) {
            self.caller_gone(realm, caller, effects);
        } else {
            effects.peer(home, PeerMessage::CallerGone { caller, realm });
        }
    }

    /// The answer of a callee, or of the router, arrives at the caller's core.
    pub(super) fn finish_call(&mut self, reply: &Parcel<'_, ReplyHead>, effects: &mut impl Effects) {
        let &ReplyHead { caller, request, outcome, callee, charge, ref passthru } = reply.head();
        if outcome == Outcome::Progress {
            self.progress_call(reply, effects);
            return;
        }
        if let Some(callee) = callee {
            effects.credit(callee, charge, CreditTime::Now);
        }
        if is_own(caller) {
            self.finish_own_call(reply, effects);
            return;
        }
        let Some(session) = self.sessions.sitting(caller) else { return };
        let (key, realm, features) = (caller.key, session.realm, session.features);
        // Cancelled or timed out: it was answered then.
        let Some(call) = self.take_call(key, request) else { return };
        if call.watch.is_some_and(|watch| watch.input.is_some()) {
            self.forget_input(realm, caller, request, effects);
        }
        let is_sealed = passthru.is_used();
        let is_known = !is_sealed || features.contains(ClientFeatures::CALLER_PAYLOAD_PASSTHRU_MODE);
        let is_lost = is_sealed && self.is_broken(Fault::UnsealResults);
        let passthru = if is_known && !is_lost { passthru.borrowed() } else { Passthru::default() };
        match outcome {
            Outcome::Result if !is_known => {
                let (error, text) = SEALED;
                self.refuse_call(key, request, error, text, effects);
            }
            Outcome::Result | Outcome::Progress => {
                let details = ResultDetails { progress: false, passthru };
                let result = CallResult { request, details, payload: reply.payload() };
                let sent = effects.send(key, &Message::Result(result));
                if sent == Sent::Accepted {
                    effects.counters().results += 1;
                } else if let Some((error, text)) = result_refused(sent, effects) {
                    self.refuse_call(key, request, error, text, effects);
                }
            }
            Outcome::Error => {
                // What the caller cannot unseal is of no use to it.
                let payload = if is_known { reply.payload() } else { Payload::EMPTY };
                self.send_call_error(key, request, reply.uri(), passthru, payload, effects);
            }
        }
    }

    /// A part of a result arrives at the caller's core (advanced profile, "Progressive Call Results").
    fn progress_call(&mut self, reply: &Parcel<'_, ReplyHead>, effects: &mut impl Effects) {
        let &ReplyHead { caller, request, callee, charge, ref passthru, .. } = reply.head();
        let sent = self.send_progress(caller, request, passthru, reply.payload(), effects);
        if let Some(callee) = callee {
            // What a slow caller was sent holds the callee, as a publication holds its publisher.
            let time = if sent == Some(Sent::Accepted) { CreditTime::AfterFlush } else { CreditTime::Now };
            effects.credit(callee, charge, time);
        }
        let key = caller.key;
        match sent {
            None | Some(Sent::Gone) => {}
            Some(Sent::Accepted) => effects.counters().progressive_results += 1,
            Some(sent) => {
                if let Some(answer) = result_refused(sent, effects) {
                    self.give_up_call(key, request, CancelReason::Unavailable, answer, effects);
                }
            }
        }
    }

    /// `None`: it is for nobody.
    fn send_progress(
        &mut self,
        caller: Sitting,
        request: RequestId,
        passthru: &Passthru<'_>,
        payload: Payload<'_>,
        effects: &mut impl Effects,
    ) -> Option<Sent> {
        let (key, now_us) = (caller.key, self.now.monotonic_us);
        let session = self.sessions.sitting(caller)?;
        let is_known =
            !passthru.is_used() || session.features.contains(ClientFeatures::CALLER_PAYLOAD_PASSTHRU_MODE);
        let call = session.active.as_mut()?.calls.get_mut(&request)?;
        if let Some(watch) = call.watch.as_deref_mut() {
            if watch.is_killed {
                return None;
            }
            // A timeout is the time from one result to the next.
            if let Some(timeout_us) = watch.timeout_us {
                let deadline_us = now_us + timeout_us;
                if let Some(before_us) = watch.deadline_us.replace(deadline_us) {
                    self.call_deadlines.remove(&(before_us, key, request));
                }
                self.call_deadlines.insert((deadline_us, key, request));
            }
        }
        if !is_known {
            self.give_up_call(key, request, CancelReason::NotSupported, SEALED, effects);
            return None;
        }
        let details = ResultDetails { progress: true, passthru: passthru.borrowed() };
        Some(effects.send_part(key, &Message::Result(CallResult { request, details, payload })))
    }

    /// A call is over, and not all of its input had come: home need not know any more where the rest would go.
    fn forget_input(
        &mut self,
        realm: RealmIndex,
        caller: Sitting,
        request: RequestId,
        effects: &mut impl Effects,
    ) {
        let home = self.realms[realm.0 as usize].home;
        if home == self.core {
            self.end_input(realm, caller, request);
        } else {
            effects.peer(home, PeerMessage::InputEnded { caller, request, realm });
        }
    }

    fn send_call_error(
        &mut self,
        key: SessionKey,
        request: RequestId,
        error: &str,
        passthru: Passthru<'_>,
        payload: Payload<'_>,
        effects: &mut impl Effects,
    ) {
        effects.counters().call_errors += 1;
        self.realm_and_session(key).0.counts.errors.add(1);
        let mut message = Message::Error(Error {
            request_type: MessageType::Call,
            request,
            error: Text::Borrowed(error),
            passthru,
            payload,
        });
        let sent = effects.send(key, &message);
        if sent == Sent::Accepted || sent == Sent::Gone {
            return;
        }
        // What matters is that the caller hears of it: without the arguments that do not fit.
        if let Message::Error(message) = &mut message {
            message.payload = Payload::EMPTY;
            message.passthru = Passthru::default();
        }
        let _ = effects.reply(key, &message);
    }

    /// The router's own ERROR for a call of a session of this core.
    pub(super) fn refuse_call(
        &mut self,
        key: SessionKey,
        request: RequestId,
        error: &'static str,
        text: &str,
        effects: &mut impl Effects,
    ) {
        effects.counters().call_errors += 1;
        self.realm_and_session(key).0.counts.errors.add(1);
        self.send_error(key, MessageType::Call, request, error, text, effects);
    }
}

/// A result that its caller did not say it can unseal. There is no ERROR to a YIELD, so only the caller hears of it.
const SEALED: (&str, &str) =
    (uri::FEATURE_NOT_SUPPORTED, "the result is in payload passthru mode, which the caller did not announce");

/// What a caller is told that could not be sent a result; `None` where it is gone, or has it.
fn result_refused(sent: Sent, effects: &mut impl Effects) -> Option<(&'static str, &'static str)> {
    Some(match sent {
        Sent::Accepted | Sent::Gone => return None,
        Sent::Full => {
            effects.counters().results_refused += 1;
            (uri::UNAVAILABLE, "the caller has not read the results before this one")
        }
        Sent::NotRepresentable => {
            (uri::INVALID_ARGUMENT, "the result cannot be written in the serializer of the caller")
        }
        Sent::TooLarge => (uri::PAYLOAD_SIZE_EXCEEDED, "the result is longer than the caller takes"),
    })
}

/// Procedures below `wamp` may be called: they are the router's own.
fn check_procedure(realm: &super::realm::Realm, procedure: &str) -> Result<(), &'static str> {
    crate::wamp::uri::check(procedure, realm.uri_rule, realm.uri_limits)
        .map_err(crate::wamp::uri::UriError::as_str)
}
