//! The dealer of a realm, on its home core only: registrations, and which callee a call goes to.
//!
//! Calls and registrations of a realm are decided here one after the other, so two cores never both register a
//! procedure, and calls of one caller to one callee keep their order (O3): there is no shortcut past home (R3).

mod nodes;
mod offered;
mod pool;
mod queue;
mod registration;
mod takeover;
mod told;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

pub(super) use self::nodes::Aim;
use self::nodes::Nodes;
use self::offered::Offered;
use self::pool::{Pool, Sequence};
use self::queue::{Calls, NOBODY, Refusal};
pub(super) use self::queue::{Deadlines, Work};
use self::registration::{Held, Registration, Serves};
pub(super) use self::registration::{Revoked, Sharing};
use self::takeover::{Takeover, Takeovers};
pub(super) use self::told::{Change, ChangeKind, Told};
use super::Router;
use super::all_calls::AllCalls;
use super::database::{DatabaseIndex, give_back};
use super::effects::{CreditTime, Effects};
use super::inputs::{InputRoute, InputRoutes};
use super::peer::{
    CallHead, CancelReason, Charge, CoreId, MESSAGE_OVERHEAD_BYTES, Outcome, Parcel, Payment, PeerMessage,
    RealmIndex, RegisterLetter, RegisterOutcome, ReplyHead, Revocation, Sitting, Ticket,
};
use super::sharding::KeyHash;
use super::terms::Input;
use super::uri_map::{EntryKey, UriMap};
use crate::wamp::error::uri;
use crate::wamp::options::{CancelMode, Passthru};
use crate::wamp::uri::is_reserved;
use crate::wamp::{Arguments, MatchPolicy, Payload, RegistrationId, RequestId};

/// Why a callee lost its registration to another.
const FORCED: &str = "crosspoint.reason.reregistered";

/// Names a pool as long as it is there, and no other after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PoolId(u64);

/// The registrations of a realm.
#[derive(Debug)]
pub(super) struct Dealer {
    /// Ends with UNREGISTER and with the last callee.
    registrations: UriMap<Registration>,
    /// Ends together with its entry above.
    by_id: HashMap<RegistrationId, EntryKey, FixedState>,
    /// Ends with the callee's last registration.
    by_callee: HashMap<Sitting, Vec<Held>, FixedState>,
    /// The callees of shared and limited registrations; ends with the last of them.
    pools: HashMap<PoolId, Pool, FixedState>,
    calls: Calls,
    takeovers: Takeovers,
    seed: u64,
    /// What nodes and resources are hashed with, on every core.
    node_hasher: FixedState,
    last_id: RegistrationId,
    last_pool: PoolId,
    last_sequence: Sequence,
    /// Callees that want to know who calls, and whether the other cores have been told of any.
    disclosing: usize,
    is_disclosing_announced: bool,
    /// Where the rest of calls in parts goes.
    inputs: InputRoutes,
    /// What databases offer; ends when they offer nothing any more, and all cores know.
    offered: HashMap<DatabaseIndex, Offered, FixedState>,
    /// What of it others have. Ends with the offer, and when it is free.
    shadowed: BTreeSet<(Box<str>, DatabaseIndex)>,
    pub(super) all_calls: AllCalls,
}

/// A callee that a call goes to, and what the callee's core has to know of it.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    callee: Sitting,
    registration: RegistrationId,
    /// INVOCATION.Details.procedure is due.
    pattern: bool,
    /// The callee wants to know who calls.
    disclose_caller: bool,
    ticket: Ticket,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// To the one callee.
    One(Chosen),
    /// To one of these, or into their queue.
    Pool(PoolId),
    /// Back to its caller's core, which runs it there.
    Database,
}

impl Dealer {
    pub(super) fn new(seed: u64, node_hasher: FixedState) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            registrations: UriMap::new(seed),
            by_id: HashMap::with_hasher(hasher.clone()),
            by_callee: HashMap::with_hasher(hasher.clone()),
            pools: HashMap::with_hasher(hasher.clone()),
            calls: Calls::new(hasher.clone()),
            takeovers: Takeovers::new(hasher.clone()),
            seed,
            node_hasher,
            last_id: RegistrationId(0),
            last_pool: PoolId::default(),
            last_sequence: Sequence::default(),
            disclosing: 0,
            is_disclosing_announced: false,
            inputs: InputRoutes::new(hasher.clone()),
            offered: HashMap::with_hasher(hasher),
            shadowed: BTreeSet::new(),
            all_calls: AllCalls::default(),
        }
    }

    /// How many registrations there are.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.registrations.len(), self.by_id.len());
        debug_assert!(self.pools.len() <= self.registrations.len());
        self.registrations.len()
    }

    /// Whether no callee is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.registrations.is_empty()
            && self.by_callee.is_empty()
            && self.pools.is_empty()
            && self.offered.is_empty()
            && self.shadowed.is_empty()
    }

    /// How many calls have input to come.
    pub(super) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// How many calls are remembered: those that wait, count, or may be re-routed.
    pub(super) fn remembered_calls(&self) -> usize {
        self.calls.len() + self.all_calls.len()
    }

    /// How many REGISTERs wait for the holder of what they want.
    pub(super) fn waiting_registers(&self) -> usize {
        self.takeovers.len()
    }

    fn route(&self, procedure: &str, effects: &mut impl Effects) -> Option<Route> {
        // Those are the router's own: a client's pattern that matches them must not answer in its place.
        if is_reserved(procedure) {
            return None;
        }
        let mut matching = self.registrations.matching(procedure);
        let best = matching.by_ref().find_map(|entry| {
            let registration = self.registrations.get(entry)?;
            // What a database takes back is called by who has not heard so, and those do not come by home.
            (!self.is_retiring(entry, registration)).then_some((entry, registration))
        });
        effects.searched(matching.shapes_tried());
        let (entry, registration) = best?;
        let callee = match registration.serves {
            Serves::One(callee) => callee,
            Serves::Pool(pool) => return Some(Route::Pool(pool)),
            Serves::Database(_) => return Some(Route::Database),
        };
        let pattern = self.registrations.uri(entry).is_some_and(|(_, policy)| policy != MatchPolicy::Exact);
        let (registration, disclose_caller) = (registration.id, registration.disclose_caller);
        Some(Route::One(Chosen { callee, registration, pattern, disclose_caller, ticket: Ticket::NONE }))
    }

    /// The nodes of a registration, in the order of their keys.
    pub(super) fn nodes_of(&self, pool: PoolId) -> Vec<(KeyHash, Box<str>)> {
        let nodes = self.pools.get(&pool).and_then(Pool::nodes);
        let by_key = nodes.map(Nodes::by_key).unwrap_or_default();
        by_key.into_iter().map(|(node, nkey)| (node, nkey.into())).collect()
    }

    /// What the policy `hash` goes by: the kwarg that its callees name, or the caller where there is none. The same value
    /// has the same key in every serializer.
    fn key_of(&self, pool: PoolId, call: &Parcel<'_, CallHead>) -> u64 {
        let Some(pool) = self.pools.get(&pool).filter(|pool| pool.hashes()) else { return 0 };
        let registration = self.registrations.get(pool.entry);
        let kwarg = registration.and_then(|registration| registration.sharing.kwarg.as_deref());
        let value = kwarg.and_then(|kwarg| {
            let arguments = Arguments::read(&Payload { args: &[], ..call.payload() }).ok()?;
            arguments.kwargs.get(kwarg).map(ToString::to_string)
        });
        match value {
            Some(value) => self.key(value),
            None => self.key(call.head().caller),
        }
    }

    fn key(&self, of: impl Hash) -> u64 {
        foldhash::quality::FixedState::with_seed(self.seed).hash_one(of)
    }
}

impl Router {
    /// At home: finds the callee and hands the call to its core, or answers.
    pub(super) fn route_call(&mut self, call: Parcel<'_, CallHead>, effects: &mut impl Effects) {
        self.route_call_or(NOBODY, call, effects);
    }

    /// The same; what the caller is told where nobody has registered the procedure.
    fn route_call_or(&mut self, nobody: Refusal, call: Parcel<'_, CallHead>, effects: &mut impl Effects) {
        let &CallHead { realm, caller, request, charge, ref terms, .. } = call.head();
        let Some(dealer) = self.realms[realm.0 as usize].dealer.as_mut() else { return };
        if let Some(input @ (Input::More | Input::Last)) = terms.as_deref().map(|terms| terms.input) {
            let route = dealer.inputs.next(caller, request, input == Input::Last);
            self.route_input(route, call, effects);
            return;
        }
        let route = dealer.route(call.uri(), effects);
        if call.head().is_for_all()
            && let Some(route) = route
        {
            let pool = if let Route::Pool(pool) = route { Some(pool) } else { None };
            self.call_all(pool, &call, effects);
            return;
        }
        match route {
            Some(Route::One(chosen)) => self.hand_over(chosen, call, effects),
            Some(Route::Pool(pool)) => self.route_to_pool(pool, call, effects),
            Some(Route::Database) => {
                let letter = give_back(call, effects);
                let core = letter.head.caller.core;
                if core == self.core {
                    self.run_here(&letter, effects);
                } else {
                    effects.peer(core, PeerMessage::RunHere(letter));
                }
            }
            None => {
                effects.credit(caller.session(), charge, CreditTime::Now);
                self.answer_call(caller, request, nobody.0, nobody.1, effects);
            }
        }
    }

    /// More input of a call goes where the first went, whatever registrations there are now.
    fn route_input(
        &mut self,
        route: Option<InputRoute>,
        call: Parcel<'_, CallHead>,
        effects: &mut impl Effects,
    ) {
        let Some(InputRoute { callee, registration, pattern, .. }) = route else {
            // The call is over, and its caller will hear so, or has.
            let head = call.head();
            effects.credit(head.caller.session(), head.charge, CreditTime::Now);
            return;
        };
        let ticket = Ticket::NONE;
        let chosen = Chosen { callee, registration, pattern, disclose_caller: false, ticket };
        self.hand_over(chosen, call, effects);
    }

    /// To the callee's core.
    fn hand_over(&mut self, chosen: Chosen, mut call: Parcel<'_, CallHead>, effects: &mut impl Effects) {
        let Chosen { callee, registration, pattern, disclose_caller, ticket } = chosen;
        self.decide_disclosure(call.head_mut(), disclose_caller);
        let head = call.head_mut();
        head.ticket = ticket;
        if head.is(Input::First)
            && let Some(dealer) = self.realms[head.realm.0 as usize].dealer.as_mut()
        {
            let route = InputRoute { request: head.request, callee, registration, pattern };
            dealer.inputs.insert(head.caller, route);
        }
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
            charge: Charge::default(),
            passthru: Passthru::default(),
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
    pub(super) fn register_at_home(&mut self, letter: RegisterLetter, effects: &mut impl Effects) {
        let mut revoked = Vec::new();
        let Some(mut home) = self.home(letter.realm) else { return };
        match home.takeover_of(&letter) {
            Takeover::No => {}
            Takeover::Of { holder, id, is_asked } => {
                self.wait_for_holder((holder, id), is_asked, letter, effects);
                return;
            }
        }
        let before = home.changes.len();
        let outcome = home.register(&letter, &mut revoked);
        let is_credited = letter.has_waited || self.changes_are_paid(before, letter.callee);
        self.announce_disclosing(letter.realm, effects);
        for revoked in revoked {
            self.tell_revoked(revoked, FORCED, effects);
        }
        self.reply_to_registrar(letter.callee, letter.request, outcome, is_credited, effects);
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
        let Some(mut home) = self.home(realm) else { return };
        let before = home.changes.len();
        let outcome = home.unregister(callee, registration);
        let is_credited = self.changes_are_paid(before, callee);
        self.announce_disclosing(realm, effects);
        self.reply_to_registrar(callee, request, outcome, is_credited, effects);
    }

    /// At home: what a REGISTER or UNREGISTER was charged goes back when the meta events that come of it have left (R8),
    /// if any do. The last of them has it.
    fn changes_are_paid(&mut self, before: usize, callee: Sitting) -> bool {
        let Some((_, last)) = self.meta.changes.get_mut(before..).and_then(<[_]>::last_mut) else {
            return false;
        };
        let charge = Charge { bytes: MESSAGE_OVERHEAD_BYTES, paused: false };
        last.payment = Some(Payment { session: callee.session(), charge });
        true
    }

    /// At home: takes a registration from one callee, or from all of them. Those that can be told are told why; who had
    /// it is returned.
    pub(super) fn revoke_registration(
        &mut self,
        realm: RealmIndex,
        registration: RegistrationId,
        callee: Option<Sitting>,
        reason: &str,
        effects: &mut impl Effects,
    ) -> Vec<Revoked> {
        let Some(mut home) = self.home(realm) else { return Vec::new() };
        let revoked = match (callee, home.dealer.by_id.get(&registration).copied()) {
            (Some(callee), _) => home.remove_one(callee, registration).into_iter().collect(),
            (None, Some(entry)) => home.remove_all(entry),
            (None, None) => Vec::new(),
        };
        self.announce_disclosing(realm, effects);
        for revoked in &revoked {
            self.tell_revoked(*revoked, reason, effects);
        }
        revoked
    }

    fn tell_revoked(&mut self, revoked: Revoked, reason: &str, effects: &mut impl Effects) {
        let Revoked { callee, registration, uri_bytes } = revoked;
        if callee.core == self.core {
            self.lose_registration(callee, registration, uri_bytes, reason, effects);
        } else {
            let revocation = Revocation { callee, registration, uri_bytes, reason: reason.into() };
            effects.peer(callee.core, PeerMessage::Revoked(Box::new(revocation)));
        }
    }

    fn reply_to_registrar(
        &mut self,
        callee: Sitting,
        request: RequestId,
        outcome: RegisterOutcome,
        is_credited: bool,
        effects: &mut impl Effects,
    ) {
        if callee.core == self.core {
            self.finish_register(callee, request, outcome, is_credited, effects);
        } else {
            let reply = PeerMessage::RegisterReply { callee, request, outcome, is_credited };
            effects.peer(callee.core, reply);
        }
    }

    /// At home: a session that ever registered is gone.
    pub(super) fn callee_gone(&mut self, realm: RealmIndex, callee: Sitting, effects: &mut impl Effects) {
        if let Some(mut home) = self.home(realm) {
            home.callee_gone(callee);
            self.announce_disclosing(realm, effects);
        }
    }

    /// At home: passes a cancel on to every core, behind the call itself (R4), unless the call has not got further.
    pub(super) fn cancel_at_home(
        &mut self,
        realm: RealmIndex,
        caller: Sitting,
        request: RequestId,
        (mode, reason): (CancelMode, CancelReason),
        effects: &mut impl Effects,
    ) {
        self.end_input(realm, caller, request);
        if self.cancel_all_call(realm, caller, request, (mode, reason), effects) {
            return;
        }
        if self.cancel_waiting(realm, caller, request) {
            if mode == CancelMode::Kill {
                // There is no callee whose answer ends it.
                self.answer_call(caller, request, uri::CANCELED, "the call was cancelled", effects);
            }
            return;
        }
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            effects.peer(core, PeerMessage::Interrupt { caller, request, mode, reason });
        }
        self.interrupt(caller, request, (mode, reason), effects);
    }

    /// At home: no more input of this call will come, or what comes is too late.
    pub(super) fn end_input(&mut self, realm: RealmIndex, caller: Sitting, request: RequestId) {
        if let Some(dealer) = self.realms[realm.0 as usize].dealer.as_mut() {
            dealer.inputs.next(caller, request, true);
        }
    }

    /// At home: the caller left with calls open (R4).
    pub(super) fn caller_gone(&mut self, realm: RealmIndex, caller: Sitting, effects: &mut impl Effects) {
        self.forget_waiting(realm, caller);
        self.forget_all_calls(realm, caller, effects);
        if let Some(dealer) = self.realms[realm.0 as usize].dealer.as_mut() {
            dealer.inputs.remove_all(caller);
        }
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            effects.peer(core, PeerMessage::InterruptAll { caller });
        }
        self.interrupt_all(caller, effects);
    }
}
