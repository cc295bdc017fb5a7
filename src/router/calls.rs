//! The caller's side: open calls, their cancelling and their answers.
//!
//! The state of a call lives on its caller's core, which alone decides what the caller is answered, and answers once.

use super::Router;
use super::authorize::Action;
use super::authorizer::Permit;
use super::effects::{CreditTime, Effects, Sent};
use super::fault::Fault;
use super::own_calls::is_own;
use super::peer::{
    CallHead, Charge, MESSAGE_OVERHEAD_BYTES, Outcome, Parcel, PeerMessage, ReplyHead, SessionKey, Sitting,
    Ticket,
};
use super::terms::{CallTerms, DISCLOSE_ME_DENIED};
use crate::wamp::error::uri;
use crate::wamp::message::{Call, CallResult, Cancel, Error, Message, MessageType};
use crate::wamp::options::{CancelMode, Passthru, ResultDetails, Text};
use crate::wamp::uri::is_reserved;
use crate::wamp::{MatchPolicy, Payload, ProtocolError, RequestId};

/// A call that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenCall {
    /// The callee is at it.
    Waiting,
    /// CANCEL with mode `kill`: the callee was interrupted, and has until then to answer.
    Killed {
        /// In microseconds, monotonic.
        deadline_us: u64,
    },
}

impl Router {
    pub(super) fn handle_call(
        &mut self,
        key: SessionKey,
        message: &Call<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        self.check_request(key, message.request)?;
        super::check_passthru(MessageType::Call, &message.options.passthru)?;
        // A callee would take the first part of the input for all of it (advanced profile, "Progressive Call
        // Invocations": a protocol error where the dealer did not announce them).
        if message.options.progress {
            let text = "CALL.Options.progress: the router did not announce progressive_call_invocations";
            return Err(ProtocolError::new(text));
        }
        let request = message.request;
        let procedure = &*message.procedure;
        let (realm, session) = self.realm_and_session(key);
        if session.active.as_ref().is_some_and(|active| active.calls.contains_key(&request)) {
            return Err(ProtocolError::new(format!("CALL.Request {request}: a call with this id is open")));
        }
        effects.counters().calls += 1;
        if let Err(error) = check_procedure(realm, procedure) {
            self.refuse_call(key, request, uri::INVALID_URI, error, effects);
            return Ok(());
        }
        let (realm_index, home) = (session.realm, realm.home);
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
        let (hash_seed, calls_max) = (self.hash_seed, self.limits.calls_per_session_max);
        let active = self.sessions.at_mut(key.slot).active(hash_seed);
        if active.calls.len() >= calls_max {
            effects.counters().limit_reached += 1;
            let text = "the session has as many calls in flight as it may have";
            self.refuse_call(key, request, uri::UNAVAILABLE, text, effects);
            return Ok(());
        }
        active.calls.insert(request, OpenCall::Waiting);
        // The router's own procedures are answered here, without home.
        if is_reserved(procedure) && self.handle_meta_call(key, request, procedure, &message.payload, effects)
        {
            return Ok(());
        }
        // R7 hooks in here: a procedure of a database runs from this core, without home.
        let terms = self.call_terms(key, message, permit, effects);
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
            return Ok(());
        }
        let call = Parcel::Borrowed { head, uri: procedure, payload: message.payload };
        if home == self.core {
            self.route_call(call, effects);
        } else {
            effects.peer(home, PeerMessage::Call(call.into_letter()));
        }
        Ok(())
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
        if !is_disclosed && !is_disclosed_if_wanted && trust_level.is_none() {
            return None;
        }
        let disclosed = (is_disclosed || is_disclosed_if_wanted).then(|| self.disclosed(key));
        Some(Box::new(CallTerms { disclosed, is_disclosed_if_wanted, trust_level }))
    }

    /// Whether a call was made and has no final answer.
    #[must_use]
    pub fn call_is_open(&self, key: SessionKey, request: RequestId) -> bool {
        let session = self.sessions.get(key).and_then(|session| session.active.as_ref());
        session.is_some_and(|active| active.calls.contains_key(&request))
    }

    pub(super) fn handle_cancel(
        &mut self,
        now_us: u64,
        key: SessionKey,
        message: &Cancel,
        effects: &mut impl Effects,
    ) {
        let deadline_us = now_us + self.limits.kill_timeout.as_micros() as u64;
        let session = self.sessions.at_mut(key.slot);
        let realm = session.realm;
        let Some(active) = session.active.as_mut() else { return };
        // A call that is answered already, or being killed: the two crossed, nothing to do.
        let Some(call @ OpenCall::Waiting) = active.calls.get_mut(&message.request) else { return };
        effects.counters().cancels += 1;
        let mode = message.options.mode.unwrap_or_default();
        if mode == CancelMode::Kill {
            *call = OpenCall::Killed { deadline_us };
            self.kills.insert((deadline_us, key, message.request));
        } else {
            active.calls.remove(&message.request);
            self.refuse_call(key, message.request, uri::CANCELED, "the call was cancelled", effects);
        }
        self.send_cancel(realm, self.sitting(key), message.request, mode, effects);
    }

    /// R4: a cancel follows the path of its call.
    pub(super) fn send_cancel(
        &mut self,
        realm: super::peer::RealmIndex,
        caller: Sitting,
        request: RequestId,
        mode: CancelMode,
        effects: &mut impl Effects,
    ) {
        let home = self.realms[realm.0 as usize].home;
        if home == self.core || self.is_broken(Fault::CancelDirect) {
            self.cancel_at_home(realm, caller, request, mode, effects);
        } else {
            effects.peer(home, PeerMessage::Cancel { caller, request, mode, realm });
        }
    }

    /// Ends the calls whose callees were interrupted and did not answer in time.
    pub(super) fn handle_kill_timeouts(&mut self, now_us: u64, effects: &mut impl Effects) {
        while let Some(&(deadline_us, key, request)) = self.kills.first()
            && deadline_us <= now_us
        {
            self.kills.pop_first();
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let realm = session.realm;
            if session.active.as_mut().and_then(|active| active.calls.remove(&request)).is_none() {
                continue;
            }
            let text = "the call was cancelled, and its callee did not answer the interrupt";
            self.refuse_call(key, request, uri::CANCELED, text, effects);
            let caller = self.sitting(key);
            self.send_cancel(realm, caller, request, CancelMode::Skip, effects);
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
        for (request, call) in active.calls.drain() {
            if let OpenCall::Killed { deadline_us } = call {
                self.kills.remove(&(deadline_us, key, request));
            }
        }
        let caller = self.sitting(key);
        let home = self.realms[realm.0 as usize].home;
        if home == self.core || self.is_broken(Fault::CancelDirect) {
            self.caller_gone(realm, caller, effects);
        } else {
            effects.peer(home, PeerMessage::CallerGone { caller, realm });
        }
    }

    /// The answer of a callee, or of the router, arrives at the caller's core.
    pub(super) fn finish_call(&mut self, reply: &Parcel<'_, ReplyHead>, effects: &mut impl Effects) {
        let head = *reply.head();
        if let Some(callee) = head.callee {
            effects.credit(callee, head.charge, CreditTime::Now);
        }
        if is_own(head.caller) {
            self.finish_own_call(reply, effects);
            return;
        }
        let Some(session) = self.sessions.sitting(head.caller) else { return };
        let key = head.caller.key;
        let Some(active) = session.active.as_mut() else { return };
        // Cancelled or timed out: it was answered then.
        let Some(call) = active.calls.remove(&head.request) else { return };
        if active.calls.is_empty() && active.calls.capacity() > 64 {
            active.calls.shrink_to_fit();
        }
        if let OpenCall::Killed { deadline_us } = call {
            self.kills.remove(&(deadline_us, key, head.request));
        }
        match head.outcome {
            Outcome::Result => self.send_result(key, head.request, reply.payload(), effects),
            Outcome::Error => self.send_call_error(key, head.request, reply.uri(), reply.payload(), effects),
        }
    }

    fn send_result(
        &mut self,
        key: SessionKey,
        request: RequestId,
        payload: Payload<'_>,
        effects: &mut impl Effects,
    ) {
        let result = CallResult { request, details: ResultDetails::default(), payload };
        let (error, text) = match effects.send(key, &Message::Result(result)) {
            Sent::Accepted => {
                effects.counters().results += 1;
                return;
            }
            Sent::Gone => return,
            Sent::Full => {
                effects.counters().results_refused += 1;
                (uri::UNAVAILABLE, "the caller has not read the results before this one")
            }
            Sent::NotRepresentable => {
                (uri::INVALID_ARGUMENT, "the result cannot be written in the serializer of the caller")
            }
            Sent::TooLarge => (uri::PAYLOAD_SIZE_EXCEEDED, "the result is longer than the caller takes"),
        };
        self.refuse_call(key, request, error, text, effects);
    }

    fn send_call_error(
        &mut self,
        key: SessionKey,
        request: RequestId,
        error: &str,
        payload: Payload<'_>,
        effects: &mut impl Effects,
    ) {
        effects.counters().call_errors += 1;
        let mut message = Message::Error(Error {
            request_type: MessageType::Call,
            request,
            error: Text::Borrowed(error),
            passthru: Passthru::default(),
            payload,
        });
        let sent = effects.send(key, &message);
        if sent == Sent::Accepted || sent == Sent::Gone {
            return;
        }
        // What matters is that the caller hears of it: without the arguments that do not fit.
        if let Message::Error(message) = &mut message {
            message.payload = Payload::EMPTY;
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
        self.send_error(key, MessageType::Call, request, error, text, effects);
    }
}

/// Procedures below `wamp` may be called: they are the router's own.
fn check_procedure(realm: &super::realm::Realm, procedure: &str) -> Result<(), &'static str> {
    crate::wamp::uri::check(procedure, realm.uri_rule, realm.uri_limits)
        .map_err(crate::wamp::uri::UriError::as_str)
}
