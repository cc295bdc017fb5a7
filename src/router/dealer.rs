//! The dealer of a realm, on its home core only: registrations, and which callee a call goes to.
//!
//! Calls and registrations of a realm are decided here one after the other, so two cores never both register a
//! procedure, and calls of one caller to one callee keep their order (O3): there is no shortcut past home (R3).

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Router;
use super::effects::{CreditTime, Effects};
use super::peer::{
    CallHead, CoreId, Outcome, Parcel, PeerMessage, RealmIndex, RegisterLetter, RegisterOutcome, ReplyHead,
    Sitting,
};
use super::uri_map::{EntryKey, UriMap};
use crate::wamp::error::uri;
use crate::wamp::options::CancelMode;
use crate::wamp::uri::is_reserved;
use crate::wamp::{MatchPolicy, Payload, RegistrationId, RequestId};

/// A procedure or pattern, and who serves it.
#[derive(Debug)]
struct Registration {
    id: RegistrationId,
    callee: Sitting,
    /// The callee wants to know who calls.
    disclose_caller: bool,
}

/// Where a call goes.
struct Route {
    callee: Sitting,
    registration: RegistrationId,
    /// INVOCATION.Details.procedure is due.
    pattern: bool,
    disclose_caller: bool,
}

/// The registrations of a realm.
#[derive(Debug)]
pub(super) struct Dealer {
    /// Ends with UNREGISTER and with the callee.
    registrations: UriMap<Registration>,
    /// Ends together with its entry above.
    by_id: HashMap<RegistrationId, EntryKey, FixedState>,
    /// Ends with the callee's last registration.
    by_callee: HashMap<Sitting, Vec<EntryKey>, FixedState>,
    last_id: RegistrationId,
    /// Registrations whose callees want to know who calls, and whether the other cores have been told of any.
    disclosing: usize,
    is_disclosing_announced: bool,
}

impl Dealer {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            registrations: UriMap::new(seed),
            by_id: HashMap::with_hasher(hasher.clone()),
            by_callee: HashMap::with_hasher(hasher),
            last_id: RegistrationId(0),
            disclosing: 0,
            is_disclosing_announced: false,
        }
    }

    /// How many registrations there are.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.registrations.len(), self.by_id.len());
        self.registrations.len()
    }

    /// Whether no callee is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty() && self.by_callee.is_empty()
    }

    /// The first one gets it: the only sequencer there is (R7 inserts database procedures here as well).
    fn register(&mut self, letter: &RegisterLetter, shapes_max: usize) -> RegisterOutcome {
        let uri_bytes = letter.procedure.len() as u32;
        if self.registrations.find(letter.match_policy, &letter.procedure).is_some() {
            return RegisterOutcome::AlreadyExists { uri_bytes };
        }
        if !self.registrations.has_room(letter.match_policy, &letter.procedure, shapes_max) {
            return RegisterOutcome::LimitReached { uri_bytes };
        }
        let id = RegistrationId(self.last_id.0 + 1);
        self.last_id = id;
        self.disclosing += usize::from(letter.disclose_caller);
        let registration =
            Registration { id, callee: letter.callee, disclose_caller: letter.disclose_caller };
        let entry = self.registrations.insert(letter.match_policy, &letter.procedure, registration);
        self.by_id.insert(id, entry);
        self.by_callee.entry(letter.callee).or_default().push(entry);
        RegisterOutcome::Registered(id)
    }

    fn unregister(&mut self, callee: Sitting, id: RegistrationId) -> RegisterOutcome {
        let held = self.by_id.get(&id).copied().filter(|entry| {
            self.registrations.get(*entry).is_some_and(|registration| registration.callee == callee)
        });
        let Some(entry) = held else { return RegisterOutcome::NoSuchRegistration };
        let uri_bytes = self.registrations.uri(entry).map_or(0, |(uri, _)| uri.len() as u32);
        self.by_id.remove(&id);
        if let Some(registration) = self.registrations.remove(entry) {
            self.disclosing -= usize::from(registration.disclose_caller);
        }
        if let Some(entries) = self.by_callee.get_mut(&callee) {
            entries.retain(|other| *other != entry);
            if entries.is_empty() {
                self.by_callee.remove(&callee);
            }
        }
        RegisterOutcome::Unregistered { uri_bytes }
    }

    fn callee_gone(&mut self, callee: Sitting) {
        for entry in self.by_callee.remove(&callee).unwrap_or_default() {
            if let Some(registration) = self.registrations.remove(entry) {
                self.by_id.remove(&registration.id);
                self.disclosing -= usize::from(registration.disclose_caller);
            }
        }
    }

    fn route(&self, procedure: &str, effects: &mut impl Effects) -> Option<Route> {
        // Those are the router's own: a client's pattern that matches them must not answer in its place.
        if is_reserved(procedure) {
            return None;
        }
        let mut matching = self.registrations.matching(procedure);
        let best = matching.next();
        effects.searched(matching.shapes_tried());
        let entry = best?;
        let registration = self.registrations.get(entry)?;
        let pattern = self.registrations.uri(entry).is_some_and(|(_, policy)| policy != MatchPolicy::Exact);
        Some(Route {
            callee: registration.callee,
            registration: registration.id,
            pattern,
            disclose_caller: registration.disclose_caller,
        })
    }
}

impl Router {
    /// At home: finds the callee and hands the call to its core, or answers.
    pub(super) fn route_call(&mut self, mut call: Parcel<'_, CallHead>, effects: &mut impl Effects) {
        let &CallHead { realm, caller, request, charge, .. } = call.head();
        let Some(dealer) = self.realms[realm.0 as usize].dealer.as_ref() else { return };
        let Some(route) = dealer.route(call.uri(), effects) else {
            effects.credit(caller.session(), charge, CreditTime::Now);
            let text = "nobody has registered the procedure";
            self.answer_call(caller, request, uri::NO_SUCH_PROCEDURE, text, effects);
            return;
        };
        self.decide_disclosure(call.head_mut(), route.disclose_caller);
        let Route { callee, registration, pattern, .. } = route;
        if callee.core == self.core {
            self.invoke(callee, registration, pattern, call, effects);
        } else {
            let call = call.into_letter();
            effects.peer(callee.core, PeerMessage::Invoke { callee, registration, pattern, call });
        }
    }

    /// At home: whether the callee is told who calls. Its own wish comes on top of the caller's.
    fn decide_disclosure(&mut self, head: &mut CallHead, is_wanted: bool) {
        if let Some(terms) = head.terms.as_deref_mut()
            && std::mem::take(&mut terms.is_disclosed_if_wanted)
            && !is_wanted
        {
            terms.disclosed = None;
        }
        if !is_wanted || head.caller.core != self.core || self.sessions.sitting(head.caller).is_none() {
            return;
        }
        let terms = head.terms.get_or_insert_default();
        if terms.disclosed.is_none() {
            terms.disclosed = Some(self.disclosed(head.caller.key));
        }
    }

    /// At home: before a callee that wants to know who calls reads REGISTERED, every core finds that it has to say so; who
    /// calls after that is disclosed. As with topics, nobody has to acknowledge anything.
    fn announce_disclosing(&mut self, realm: RealmIndex, effects: &mut impl Effects) {
        let realm = &mut self.realms[realm.0 as usize];
        let Some(dealer) = realm.dealer.as_mut() else { return };
        let is_disclosing = dealer.disclosing > 0;
        if is_disclosing != dealer.is_disclosing_announced {
            dealer.is_disclosing_announced = is_disclosing;
            effects.announce(realm.wants_callers, is_disclosing);
        }
    }

    /// The router's own ERROR to a caller on any core.
    pub(super) fn answer_call(
        &mut self,
        caller: Sitting,
        request: RequestId,
        error: &'static str,
        text: &str,
        effects: &mut impl Effects,
    ) {
        let args = super::text_args(text);
        let reply = ReplyHead {
            caller,
            request,
            outcome: Outcome::Error,
            callee: None,
            charge: super::peer::Charge::default(),
        };
        let payload = Payload { args: &args, ..Payload::EMPTY };
        self.send_reply(Parcel::Borrowed { head: reply, uri: error, payload }, effects);
    }

    /// To the caller's core, in place where that is this one.
    pub(super) fn send_reply(&mut self, reply: Parcel<'_, ReplyHead>, effects: &mut impl Effects) {
        let core = reply.head().caller.core;
        if core == self.core {
            self.finish_call(&reply, effects);
        } else {
            effects.peer(core, PeerMessage::Reply(reply.into_letter()));
        }
    }

    /// At home: a REGISTER, from any core.
    pub(super) fn register_at_home(&mut self, letter: &RegisterLetter, effects: &mut impl Effects) {
        let Some(dealer) = self.realms[letter.realm.0 as usize].dealer.as_mut() else { return };
        let outcome = dealer.register(letter, self.limits.wildcard_shapes_max);
        self.announce_disclosing(letter.realm, effects);
        self.reply_to_registrar(letter.callee, letter.request, outcome, effects);
    }

    /// At home: an UNREGISTER, from any core.
    pub(super) fn unregister_at_home(
        &mut self,
        realm: RealmIndex,
        callee: Sitting,
        request: RequestId,
        registration: RegistrationId,
        effects: &mut impl Effects,
    ) {
        let Some(dealer) = self.realms[realm.0 as usize].dealer.as_mut() else { return };
        let outcome = dealer.unregister(callee, registration);
        self.announce_disclosing(realm, effects);
        self.reply_to_registrar(callee, request, outcome, effects);
    }

    fn reply_to_registrar(
        &mut self,
        callee: Sitting,
        request: RequestId,
        outcome: RegisterOutcome,
        effects: &mut impl Effects,
    ) {
        if callee.core == self.core {
            self.finish_register(callee, request, outcome, effects);
        } else {
            effects.peer(callee.core, PeerMessage::RegisterReply { callee, request, outcome });
        }
    }

    /// At home: a session that ever registered is gone.
    pub(super) fn callee_gone(&mut self, realm: RealmIndex, callee: Sitting, effects: &mut impl Effects) {
        if let Some(dealer) = self.realms[realm.0 as usize].dealer.as_mut() {
            dealer.callee_gone(callee);
            self.announce_disclosing(realm, effects);
        }
    }

    /// At home: passes a cancel on to every core, behind the call itself (R4).
    pub(super) fn cancel_at_home(
        &mut self,
        caller: Sitting,
        request: RequestId,
        mode: CancelMode,
        effects: &mut impl Effects,
    ) {
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            effects.peer(core, PeerMessage::Interrupt { caller, request, mode });
        }
        self.interrupt(caller, request, mode, effects);
    }

    /// At home: the caller left with calls open (R4).
    pub(super) fn caller_gone(&mut self, caller: Sitting, effects: &mut impl Effects) {
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            effects.peer(core, PeerMessage::InterruptAll { caller });
        }
        self.interrupt_all(caller, effects);
    }
}
