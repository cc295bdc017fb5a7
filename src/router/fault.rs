//! Designs that are wrong, so that the simulation can show that it would notice. Nothing here runs in production.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::Router;
use super::broker::Part;
use super::database::batch_of_key;
use super::effects::{CreditTime, Effects};
use super::peer::{
    CallHead, Charge, CoreId, Letter, Parcel, PeerMessage, PublicationHead, RegisterLetter, RegisterOutcome,
    ReplyHead, SessionKey, SessionRef,
};
use crate::wamp::message::{CallResult, Message};
use crate::wamp::options::ResultDetails;
use crate::wamp::{MatchPolicy, RegistrationId, RequestId};

/// What a router does wrong (ARCHITECTURE.md, the ordering argument).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A CALL for a callee of the caller's core goes there without home.
    SkipHome,
    /// CANCEL goes to all cores without home.
    CancelDirect,
    /// A fan-out delivers to one receiver of each subscription, and to the others later.
    ChunkFanOut,
    /// PUBLISH goes to a core chosen by its topic, which tells the others.
    PublishByTopic,
    /// Every core retains what it hears of last.
    RetainAsItComes,
    /// Of sessions that are ended together with all others it is told that they went.
    TellOfAll,
    /// What goes with a payload that the router does not read is lost, of events.
    UnsealEvents,
    /// The same of invocations.
    UnsealInvocations,
    /// The same of results.
    UnsealResults,
    /// Logins by cookie outlive the sessions of their users that are ended.
    KeepLogins,
    /// Who names himself comes in by the cookie of somebody else.
    TrustCookies,
    /// What a database publishes comes to those who resume while they still do.
    DeliverDuringReplays,
    /// Who resumes goes on live with the first replay that has all, whatever was held back since.
    LiveTooSoon,
    /// What a replay has delivered is delivered once more when it is dispatched.
    ForgetReplayed,
    /// A database is told that a batch was offered to everybody as soon as it was handed on.
    ReportAtOnce,
    /// A database may say more of a result although its caller has no room for it.
    IgnoreRoom,
    /// What a database says to a call that was answered reaches the caller.
    AnswerTwice,
    /// Calls that a database runs are not forgotten when they end behind their caller.
    KeepQueries,
    /// A database is not told that the callers of what it runs are gone.
    LeaveQueries,
    /// One core does not take every second change of what a database offers.
    LoseCatalogues,
}

/// What a fault remembers.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) fault: Fault,
    /// Procedures of sessions of this core; the number once it is known.
    procedures: Vec<(SessionKey, RequestId, Box<str>, Option<RegistrationId>)>,
    /// Fan-outs that are not complete.
    pub(super) postponed: VecDeque<(Letter<PublicationHead>, Option<u32>)>,
}

impl Router {
    /// See [`Fault`].
    #[doc(hidden)]
    pub fn break_promise(&mut self, fault: Fault) {
        self.faults.fault = fault;
        self.resumptions.break_promise(fault);
    }

    pub(super) fn is_broken(&self, fault: Fault) -> bool {
        self.faults.fault == fault
    }

    #[cold]
    pub(super) fn note_procedure(&mut self, letter: &RegisterLetter) {
        if letter.match_policy == MatchPolicy::Exact {
            let entry = (letter.callee.key, letter.request, letter.procedure.clone(), None);
            self.faults.procedures.push(entry);
        }
    }

    #[cold]
    pub(super) fn note_registration(&mut self, key: SessionKey, id: RequestId, outcome: RegisterOutcome) {
        let mine = |entry: &&mut (SessionKey, RequestId, Box<str>, Option<RegistrationId>)| {
            (entry.0, entry.1) == (key, id)
        };
        if let RegisterOutcome::Registered(registration) = outcome
            && let Some(entry) = self.faults.procedures.iter_mut().find(mine)
        {
            entry.3 = Some(registration);
        }
    }

    /// Calls a callee of this core in place. Whether there was one.
    #[cold]
    pub(super) fn call_without_home(
        &mut self,
        head: &CallHead,
        uri: &str,
        payload: crate::wamp::Payload<'_>,
        effects: &mut impl Effects,
    ) -> bool {
        let known = self.faults.procedures.iter().rev().find_map(|(key, _, procedure, registration)| {
            (**procedure == *uri).then_some((*key, (*registration)?))
        });
        let Some((callee, registration)) = known else { return false };
        if self.sessions.get(callee).is_none_or(|session| session.realm != head.realm) {
            return false;
        }
        let callee = self.sitting(callee);
        let head = head.clone();
        self.invoke(callee, registration, false, Parcel::Borrowed { head, uri, payload }, effects);
        true
    }

    /// The core that a topic belongs to, if that is another one.
    fn core_of_topic(&self, topic: &str) -> CoreId {
        CoreId((FixedState::with_seed(0).hash_one(topic) % u64::from(self.cores)) as u16)
    }

    /// Gives a publication to the core of its topic. Whether that is another one.
    #[cold]
    pub(super) fn publish_by_topic(
        &mut self,
        letter: &Arc<Letter<PublicationHead>>,
        charge: Charge,
        effects: &mut impl Effects,
    ) -> bool {
        let owner = self.core_of_topic(letter.body.uri());
        if owner == self.core {
            return false;
        }
        let eras = self.eras(owner, letter.head.realm, letter.body.uri(), effects);
        effects.peer(owner, PeerMessage::Publish { publication: Arc::clone(letter), charge, eras });
        true
    }

    /// On the core of a topic: tells the others, the publisher's own as well.
    #[cold]
    pub(super) fn relay_publication(
        &mut self,
        from: CoreId,
        letter: &Arc<Letter<PublicationHead>>,
        effects: &mut impl Effects,
    ) {
        let is_owner = self.core_of_topic(letter.body.uri()) == self.core;
        if !is_owner || from != letter.head.publisher.core {
            return;
        }
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            let publication = Arc::clone(letter);
            let eras = self.eras(core, letter.head.realm, letter.body.uri(), effects);
            effects.peer(core, PeerMessage::Publish { publication, charge: Charge::default(), eras });
        }
    }

    /// When what a publisher was charged for a publication goes back.
    #[inline]
    pub(super) fn credit_time(&self, publisher: SessionRef) -> CreditTime {
        if self.is_broken(Fault::ReportAtOnce) && batch_of_key(publisher.key).is_some() {
            return CreditTime::Now;
        }
        CreditTime::AfterFlush
    }

    /// Sends the last word of a database on a call that was answered already.
    #[cold]
    pub(super) fn answer_twice(&mut self, reply: &Parcel<'_, ReplyHead>, effects: &mut impl Effects) {
        let &ReplyHead { caller, request, .. } = reply.head();
        if self.sessions.sitting(caller).is_some() && !self.call_is_open(caller.key, request) {
            let (details, payload) = (ResultDetails::default(), reply.payload());
            let _ = effects.send(caller.key, &Message::Result(CallResult { request, details, payload }));
        }
    }

    /// Delivers what fan-outs left.
    #[cold]
    pub(super) fn finish_fan_outs(&mut self, effects: &mut impl Effects) {
        while let Some((letter, excluded_slot)) = self.faults.postponed.pop_front() {
            self.fan_out_letter(&letter, excluded_slot, Part::Rest, effects);
        }
    }
}
