//! Calls to all nodes (advanced profile, "Sharded Registration", "All" Calls): a call with `runmode` "all" goes to one callee
//! of every node, and its caller is answered once all of them have.
//!
//! The specification has no more than the name. Here the result's arguments are what the nodes answered, in the order of
//! their keys, errors like results: who asks all parts of something has to know which of them are missing. The realm's
//! home makes a call of its own to each node, so that each keeps to all that holds for calls, and puts the answers
//! together. They wait for callees, so they have a deadline and bounds of their own, and no credit waits for them (R8).

use std::collections::{BTreeMap, BTreeSet};

use super::Router;
use super::dealer::{Aim, PoolId};
use super::effects::{CreditTime, Effects};
use super::own_calls::Purpose;
use super::peer::{
    Body, CallHead, CancelReason, Charge, MESSAGE_OVERHEAD_BYTES, Outcome, Parcel, RealmIndex, ReplyHead,
    Sitting, Ticket,
};
use super::terms::{CallTerms, Input};
use crate::wamp::codec::{Encoder, Serializer};
use crate::wamp::error::uri;
use crate::wamp::options::{CallOptions, CancelMode, Passthru};
use crate::wamp::{Payload, RequestId};

/// What a caller is told: an error and a text.
type Refusal = (&'static str, &'static str);

const NO_NODES: Refusal =
    (uri::NO_AVAILABLE_CALLEE, "no callee of the procedure has a node key: there is no node to call");
const TOO_MUCH: Refusal =
    (uri::UNAVAILABLE, "calls to all nodes hold as much as they may have; try again when some are answered");
const TOO_LONG: Refusal =
    (uri::PAYLOAD_SIZE_EXCEEDED, "what the nodes answered is longer than a message may be");
const CANCELED: Refusal = (uri::CANCELED, "the call was cancelled");

/// What a node has answered.
#[derive(Debug)]
enum Answer {
    Result(Body),
    /// The URI of the body is that of the error.
    Error(Body),
}

/// The call of one node.
#[derive(Debug)]
struct Part {
    nkey: Box<str>,
    /// While it is open.
    request: Option<RequestId>,
    answer: Option<Answer>,
}

/// A call that went to all nodes of a registration.
#[derive(Debug)]
struct AllCall {
    caller: Sitting,
    request: RequestId,
    parts: Vec<Part>,
    missing: usize,
    /// What its answers hold, and what it counts in all.
    answer_bytes: usize,
    bytes: usize,
}

/// Those of a realm, at its home. Each ends with the last answer, with what its caller does, and at a bound.
#[derive(Debug, Default)]
pub(super) struct AllCalls {
    open: BTreeMap<u64, AllCall>,
    /// The same, so that a cancel and the caller's end find them.
    by_caller: BTreeSet<(Sitting, RequestId, u64)>,
    last_number: u64,
    /// What all of them count.
    bytes: usize,
}

impl AllCalls {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.open.len(), self.by_caller.len());
        debug_assert!(!self.open.is_empty() || self.bytes == 0, "calls are gone, their bytes are not");
        self.open.len()
    }

    fn remove(&mut self, number: u64) -> Option<AllCall> {
        let call = self.open.remove(&number)?;
        self.by_caller.remove(&(call.caller, call.request, number));
        self.bytes -= call.bytes;
        Some(call)
    }
}

/// Why a call is refused for what it says of nodes.
#[cold]
pub(super) fn refused_runmode(options: &CallOptions<'_>, has_no_nodes: bool) -> Option<Refusal> {
    let has_key = options.rkey.is_some();
    Some(match options.runmode.as_deref()? {
        _ if has_no_nodes => {
            (uri::FEATURE_NOT_SUPPORTED, "a procedure of the router or of a database has no nodes")
        }
        "partition" if has_key => return None,
        "partition" => (uri::INVALID_ARGUMENT, "CALL.Options.rkey is missing: runmode is `partition`"),
        "all" if has_key => (uri::INVALID_ARGUMENT, "CALL.Options.rkey names one node, and runmode is `all`"),
        "all" if options.progress => {
            (uri::FEATURE_NOT_SUPPORTED, "the input of a call to all nodes cannot come in parts")
        }
        "all" if options.passthru.is_used() => {
            (uri::FEATURE_NOT_SUPPORTED, "what nodes answer to a sealed payload cannot be put together")
        }
        "all" => return None,
        _ => (uri::INVALID_ARGUMENT, "CALL.Options.runmode must be `partition` or `all`"),
    })
}

impl Router {
    /// At home: a call that goes to all nodes of a registration; `None` has none.
    pub(super) fn call_all(
        &mut self,
        pool: Option<PoolId>,
        call: &Parcel<'_, CallHead>,
        effects: &mut impl Effects,
    ) {
        let &CallHead { caller, request, charge, .. } = call.head();
        // The call is off the ring: credit never waits for a client.
        effects.credit(caller.session(), charge, CreditTime::Now);
        let opened = match pool {
            Some(pool) => self.open_all_call(pool, call),
            None => Err(NO_NODES),
        };
        match (opened, pool) {
            (Ok((number, nodes)), Some(pool)) => self.call_nodes(pool, number, &nodes, call, effects),
            (Err((error, text)), _) => self.answer_call(caller, request, error, text, effects),
            (Ok(_), None) => {}
        }
    }

    fn open_all_call(
        &mut self,
        pool: PoolId,
        call: &Parcel<'_, CallHead>,
    ) -> Result<(u64, Vec<Aim>), Refusal> {
        let bytes_max = self.limits.call_all_bytes_per_realm_max;
        let &CallHead { realm, caller, request, .. } = call.head();
        let dealer = self.realms[usize::from(realm.0)].dealer.as_mut().ok_or(NO_NODES)?;
        let nodes: Vec<_> = dealer.nodes_of(pool);
        if nodes.is_empty() {
            return Err(NO_NODES);
        }
        let a_part = call.body_len() + call.head().carried_bytes() + MESSAGE_OVERHEAD_BYTES as usize;
        let bytes = nodes.len() * a_part;
        let calls = &mut dealer.all_calls;
        if calls.bytes + bytes > bytes_max {
            return Err(TOO_MUCH);
        }
        calls.bytes += bytes;
        calls.last_number += 1;
        let number = calls.last_number;
        calls.by_caller.insert((caller, request, number));
        let aims = nodes.iter().map(|(node, _)| Aim::Node(*node)).collect();
        let parts: Vec<_> =
            nodes.into_iter().map(|(_, nkey)| Part { nkey, request: None, answer: None }).collect();
        let missing = parts.len();
        calls.open.insert(number, AllCall { caller, request, parts, missing, answer_bytes: 0, bytes });
        Ok((number, aims))
    }

    fn call_nodes(
        &mut self,
        pool: PoolId,
        number: u64,
        nodes: &[Aim],
        call: &Parcel<'_, CallHead>,
        effects: &mut impl Effects,
    ) {
        let head = call.head();
        let realm = head.realm;
        let mut terms = head.terms.as_deref().cloned().unwrap_or_default();
        // One answer of each is all that can be put together.
        terms.receive_progress = false;
        terms.input = Input::Whole;
        terms.is_for_all = false;
        if terms.disclosed.is_none()
            && head.caller.core == self.core
            && self.sessions.sitting(head.caller).is_some()
        {
            // The dealer looks for itself when it knows the callee, but then it is the router who calls.
            terms.disclosed = Some(self.disclosed(head.caller.key));
            terms.is_disclosed_if_wanted = true;
        }
        let wait_us = match terms.timeout_ms {
            0 => self.limits.call_all_timeout.as_micros() as u64,
            timeout_ms => timeout_ms * 1000,
        };
        let deadline_us = self.now.monotonic_us.saturating_add(wait_us);
        for (place, aim) in nodes.iter().enumerate() {
            let purpose = Purpose::Node { realm, number, place: place as u32 };
            let Some(part) = self.part(realm, number, place) else {
                // What those before it answered was too much.
                return;
            };
            debug_assert!(part.request.is_none());
            let (caller, request) = self.begin_own_call(realm, deadline_us, purpose);
            if let Some(part) = self.part(realm, number, place) {
                part.request = Some(request);
            }
            let (charge, ticket) = (Charge::default(), Ticket::NONE);
            let terms = Some(Box::new(CallTerms { aim: *aim, ..terms.clone() }));
            let head = CallHead { realm, caller, request, charge, ticket, terms };
            let part = Parcel::Borrowed { head, uri: call.uri(), payload: call.payload() };
            self.route_to_pool(pool, part, effects);
        }
    }

    fn part(&mut self, realm: RealmIndex, number: u64, place: usize) -> Option<&mut Part> {
        let calls = &mut self.realms[usize::from(realm.0)].dealer.as_mut()?.all_calls;
        calls.open.get_mut(&number)?.parts.get_mut(place)
    }

    /// A node has answered; `None`: not in time.
    pub(super) fn finish_part(
        &mut self,
        (realm, number, place): (RealmIndex, u64, u32),
        reply: Option<&Parcel<'_, ReplyHead>>,
        effects: &mut impl Effects,
    ) {
        let answer = match reply {
            None => Answer::Error(Body::new(uri::TIMEOUT, Payload::EMPTY)),
            // Nobody here can unseal it.
            Some(reply) if reply.head().passthru.is_used() => {
                Answer::Error(Body::new(uri::FEATURE_NOT_SUPPORTED, Payload::EMPTY))
            }
            Some(reply) if reply.head().outcome == Outcome::Error => {
                Answer::Error(Body::new(reply.uri(), reply.payload()))
            }
            Some(reply) => Answer::Result(Body::new("", reply.payload())),
        };
        let bytes_max = (self.limits.message_bytes_max, self.limits.call_all_bytes_per_realm_max);
        let Some(dealer) = self.realms[usize::from(realm.0)].dealer.as_mut() else { return };
        let calls = &mut dealer.all_calls;
        let Some(call) = calls.open.get_mut(&number) else { return };
        let Some(part) = call.parts.get_mut(place as usize) else { return };
        let (Answer::Result(body) | Answer::Error(body)) = &answer;
        let bytes = body.len();
        part.request = None;
        part.answer = Some(answer);
        call.missing -= 1;
        call.answer_bytes += bytes;
        call.bytes += bytes;
        calls.bytes += bytes;
        let refusal = if call.answer_bytes > bytes_max.0 {
            Some(TOO_LONG)
        } else {
            (calls.bytes > bytes_max.1).then_some(TOO_MUCH)
        };
        if refusal.is_none() && call.missing > 0 {
            return;
        }
        let Some(call) = calls.remove(number) else { return };
        if let Some((error, text)) = refusal {
            self.give_up_parts(&call, (CancelMode::KillNoWait, CancelReason::Unavailable), effects);
            self.answer_call(call.caller, call.request, error, text, effects);
            return;
        }
        let args = in_json(&call.parts);
        let (caller, request, outcome, charge) =
            (call.caller, call.request, Outcome::Result, Charge::default());
        let head =
            ReplyHead { caller, request, outcome, callee: None, charge, passthru: Passthru::default() };
        let payload = Payload { serializer: Serializer::Json, args: &args, kwargs: &[] };
        self.send_reply(Parcel::Borrowed { head, uri: "", payload }, effects);
    }

    fn give_up_parts(&mut self, call: &AllCall, how: (CancelMode, CancelReason), effects: &mut impl Effects) {
        for request in call.parts.iter().filter_map(|part| part.request) {
            self.give_up_own_call_because(request, how, effects);
        }
    }

    /// At home: a call is cancelled. Whether it was one to all nodes.
    pub(super) fn cancel_all_call(
        &mut self,
        realm: RealmIndex,
        caller: Sitting,
        request: RequestId,
        (mode, reason): (CancelMode, CancelReason),
        effects: &mut impl Effects,
    ) -> bool {
        let Some(dealer) = self.realms[usize::from(realm.0)].dealer.as_mut() else { return false };
        let calls = &mut dealer.all_calls;
        if calls.open.is_empty() {
            return false;
        }
        let of_call = (caller, request, 0)..=(caller, request, u64::MAX);
        let Some(&(.., number)) = calls.by_caller.range(of_call).next() else { return false };
        let Some(call) = calls.remove(number) else { return false };
        // No single answer could end it, so its caller need not wait for any.
        let parts_mode = if mode == CancelMode::Kill { CancelMode::KillNoWait } else { mode };
        self.give_up_parts(&call, (parts_mode, reason), effects);
        if mode == CancelMode::Kill {
            let (error, text) = CANCELED;
            self.answer_call(caller, request, error, text, effects);
        }
        true
    }

    /// At home: a caller is gone.
    pub(super) fn forget_all_calls(
        &mut self,
        realm: RealmIndex,
        caller: Sitting,
        effects: &mut impl Effects,
    ) {
        let of_caller = (caller, RequestId(0), 0)..=(caller, RequestId(u64::MAX), u64::MAX);
        while let Some(dealer) = self.realms[usize::from(realm.0)].dealer.as_mut()
            && let Some(&(.., number)) = dealer.all_calls.by_caller.range(of_caller.clone()).next()
            && let Some(call) = dealer.all_calls.remove(number)
        {
            self.give_up_parts(&call, (CancelMode::KillNoWait, CancelReason::Canceled), effects);
        }
    }
}

/// What the nodes have answered, as a list.
fn in_json(parts: &[Part]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut list = vec![b'['];
    for part in parts {
        let Some(answer) = &part.answer else { continue };
        if list.len() > 1 {
            list.push(b',');
        }
        let (error, body) = match answer {
            Answer::Result(body) => (None, body),
            Answer::Error(body) => (Some(body.uri()), body),
        };
        let payload = body.payload();
        let transcoded;
        let (error, payload) = if payload.serializer == Serializer::Json {
            (error, payload)
        } else {
            match encoder.transcode(&payload, Serializer::Json) {
                Ok(owned) => {
                    transcoded = owned;
                    (error, transcoded.as_payload())
                }
                // As with results: who cannot be told what it is is told so.
                Err(_) => (error.or(Some(uri::INVALID_ARGUMENT)), Payload::EMPTY),
            }
        };
        list.extend_from_slice(b"{\"nkey\":");
        list.extend_from_slice(serde_json::Value::from(&*part.nkey).to_string().as_bytes());
        if let Some(error) = error {
            list.extend_from_slice(b",\"error\":");
            list.extend_from_slice(serde_json::Value::from(error).to_string().as_bytes());
        }
        for (key, value) in [(&b",\"args\":"[..], payload.args), (b",\"kwargs\":", payload.kwargs)] {
            if !value.is_empty() {
                list.extend_from_slice(key);
                list.extend_from_slice(value);
            }
        }
        list.push(b'}');
    }
    list.push(b']');
    list
}
