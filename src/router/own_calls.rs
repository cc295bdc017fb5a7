//! Calls that the router itself makes, of procedures that sessions have registered: an authorizer is one.
//!
//! They take the way of every call, by home to the callee's core and straight back, so they keep its promises; but what
//! is answered ends here, and nobody else may have the caller's name that they bear.

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Router;
use super::effects::Effects;
use super::peer::{
    CallHead, CancelReason, Charge, CoreId, Outcome, Parcel, PeerMessage, RealmIndex, ReplyHead, SessionKey,
    Sitting, Ticket,
};
use crate::wamp::error::uri;
use crate::wamp::options::CancelMode;
use crate::wamp::{Arguments, RequestId};

/// No connection has this slot: there is no memory for so many.
const OWN_KEY: SessionKey = SessionKey { slot: u32::MAX, generation: 0 };

/// What a call was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request of this session waits for the answer.
    Authorize(SessionKey),
    /// Somebody who wants to log in is asked about.
    Authenticate(SessionKey),
    /// A call to all nodes wants the answer of this one ([`super::all_calls`]).
    Node { realm: RealmIndex, number: u64, place: u32 },
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// RESULT; `None` where its values are none that JSON has.
    Result(Option<&'a Arguments>),
    /// ERROR, and its URI.
    Error(&'a str),
    /// None came in time. The callee was interrupted.
    Timeout,
}

#[derive(Clone, Copy, Debug)]
struct OwnCall {
    realm: RealmIndex,
    deadline_us: u64,
    purpose: Purpose,
}

/// The open ones of a core. Each ends with its answer, its deadline, or with what it was made for.
#[derive(Debug)]
pub(super) struct OwnCalls {
    open: HashMap<RequestId, OwnCall, FixedState>,
    /// Ends together with the entry above.
    deadlines: BTreeSet<(u64, RequestId)>,
    last: RequestId,
}

impl OwnCalls {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            open: HashMap::with_hasher(FixedState::with_seed(seed)),
            deadlines: BTreeSet::new(),
            last: RequestId(0),
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.open.len(), self.deadlines.len());
        self.open.len()
    }

    /// When the next one has waited long enough, in monotonic microseconds.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_us, _)| *deadline_us)
    }

    fn remove(&mut self, request: RequestId) -> Option<OwnCall> {
        let call = self.open.remove(&request)?;
        self.deadlines.remove(&(call.deadline_us, request));
        Some(call)
    }
}

/// Who makes a call of a core's router. It has many names: what cores know of one caller's calls is a list that they walk,
/// and of these there may be hundreds of thousands.
pub(super) fn own_caller(core: CoreId, request: RequestId) -> Sitting {
    Sitting { core, number: request.0 as u16, key: OWN_KEY }
}

/// Whether this is the router of a core, not one of its sessions.
pub(super) fn is_own(caller: Sitting) -> bool {
    caller.key == OWN_KEY
}

impl Router {
    /// A call of this router's begins: who calls, and which call it is. The rest is the caller's to do.
    pub(super) fn begin_own_call(
        &mut self,
        realm: RealmIndex,
        deadline_us: u64,
        purpose: Purpose,
    ) -> (Sitting, RequestId) {
        let request = self.own_calls.last.next();
        self.own_calls.last = request;
        self.own_calls.open.insert(request, OwnCall { realm, deadline_us, purpose });
        self.own_calls.deadlines.insert((deadline_us, request));
        (own_caller(self.core, request), request)
    }

    /// Calls a procedure of a realm. It may be answered before this returns.
    pub(super) fn call_by_router(
        &mut self,
        realm: RealmIndex,
        procedure: &str,
        arguments: &Arguments,
        deadline_us: u64,
        purpose: Purpose,
        effects: &mut impl Effects,
    ) -> RequestId {
        let (caller, request) = self.begin_own_call(realm, deadline_us, purpose);
        let written = arguments.write();
        let (charge, ticket) = (Charge::default(), Ticket::NONE);
        let head = CallHead { realm, caller, request, charge, ticket, terms: None };
        let call = Parcel::Borrowed { head, uri: procedure, payload: written.as_payload() };
        let home = self.realms[usize::from(realm.0)].home;
        if home == self.core {
            self.route_call(call, effects);
        } else {
            effects.peer(home, PeerMessage::Call(call.into_letter()));
        }
        request
    }

    /// What the call was made for is over; its callee is told so, and its answer will find nobody.
    pub(super) fn give_up_own_call(&mut self, request: RequestId, effects: &mut impl Effects) {
        let how = (CancelMode::KillNoWait, CancelReason::Canceled);
        self.give_up_own_call_because(request, how, effects);
    }

    /// As [`Self::give_up_own_call`], and why.
    pub(super) fn give_up_own_call_because(
        &mut self,
        request: RequestId,
        how: (CancelMode, CancelReason),
        effects: &mut impl Effects,
    ) {
        if let Some(call) = self.own_calls.remove(request) {
            self.send_cancel_because(call.realm, own_caller(self.core, request), request, how, effects);
        }
    }

    /// The answer to a call of this router.
    pub(super) fn finish_own_call(&mut self, reply: &Parcel<'_, ReplyHead>, effects: &mut impl Effects) {
        let head = reply.head();
        let Some(call) = self.own_calls.remove(head.request) else { return };
        if let Purpose::Node { realm, number, place } = call.purpose {
            self.finish_part((realm, number, place), Some(reply), effects);
            return;
        }
        match head.outcome {
            Outcome::Result => {
                let arguments = Arguments::read(&reply.payload()).ok();
                self.handle_own_answer(call.purpose, &Answer::Result(arguments.as_ref()), effects);
            }
            // None was asked for.
            Outcome::Progress => {}
            Outcome::Error => {
                self.handle_own_answer(call.purpose, &Answer::Error(reply.uri()), effects);
            }
        }
    }

    /// Gives up the calls that were not answered in time.
    pub(super) fn handle_own_call_timeouts(&mut self, now_us: u64, effects: &mut impl Effects) {
        while let Some(&(deadline_us, request)) = self.own_calls.deadlines.first()
            && deadline_us <= now_us
        {
            let Some(call) = self.own_calls.remove(request) else { return };
            let how = (CancelMode::KillNoWait, CancelReason::Timeout);
            self.send_cancel_because(call.realm, own_caller(self.core, request), request, how, effects);
            self.handle_own_answer(call.purpose, &Answer::Timeout, effects);
        }
    }

    fn handle_own_answer(&mut self, purpose: Purpose, answer: &Answer<'_>, effects: &mut impl Effects) {
        match purpose {
            Purpose::Authorize(key) => self.handle_authorizer_answer(key, answer, effects),
            Purpose::Authenticate(key) => self.handle_authenticator_answer(key, answer, effects),
            // It has come to no answer; those are seen to before.
            Purpose::Node { realm, number, place } => {
                self.finish_part((realm, number, place), None, effects);
            }
        }
    }
}

/// Whether an ERROR says that nobody could be asked, not that somebody refused.
pub(super) fn is_unavailable(error: &str) -> bool {
    [uri::NO_SUCH_PROCEDURE, uri::NO_AVAILABLE_CALLEE, uri::UNAVAILABLE, uri::CANCELED].contains(&error)
}
