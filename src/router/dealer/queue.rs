//! Calls that home remembers: those that wait for a callee, and those that count at one or may be re-routed (R10).
//!
//! Everything else about a call lives on its caller's core, which alone answers it; home only ever asks it to.

use std::collections::{BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::nodes::Aim;
use super::pool::{Lane, Pick, Sequence};
use super::{Chosen, Dealer, PoolId};
use crate::config::Limits;
use crate::router::Router;
use crate::router::database::DatabaseIndex;
use crate::router::effects::{CreditTime, Effects};
use crate::router::peer::{
    CallHead, Charge, InvocationEnd, Letter, MESSAGE_OVERHEAD_BYTES, Parcel, PeerMessage, RealmIndex,
    RegisterLetter, Sitting, Ticket,
};
use crate::router::random::Random;
use crate::router::sharding::KeyHash;
use crate::router::terms::Input;
use crate::wamp::RequestId;
use crate::wamp::error::uri;

/// How many re-routed calls are looked at when a callee has room: others wait behind those.
const REROUTED_TRIED_MAX: usize = 16;

/// What a caller is told: an error and a text.
pub(super) type Refusal = (&'static str, &'static str);

pub(super) const NOBODY: Refusal = (uri::NO_SUCH_PROCEDURE, "nobody has registered the procedure");
const LEFT: Refusal = (uri::NO_AVAILABLE_CALLEE, "the last callee left while the call waited for it");
const REFUSED: Refusal = (uri::NO_AVAILABLE_CALLEE, "no callee of the procedure can take the call now");
pub(super) const NO_NODE: Refusal = (uri::NO_AVAILABLE_CALLEE, "the node of the call is gone");
const FULL: Refusal =
    (uri::UNAVAILABLE, "every callee has as many calls as it takes at a time, and as many wait as may wait");
const IN_PARTS: Refusal = (
    uri::UNAVAILABLE,
    "no callee has room for the call now, and a call whose input comes in parts does not wait",
);
const WAITED: Refusal = (uri::UNAVAILABLE, "no callee had room for the call in time");
const CANCELED: Refusal = (uri::CANCELED, "the call was cancelled");

/// Where a remembered call is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It waits in its lane, by age, until then.
    Waiting { lane: Lane, order: u64, deadline_us: u64 },
    /// It went to this callee.
    At(Sequence),
}

/// A call that home remembers.
#[derive(Debug)]
struct Remembered {
    pool: PoolId,
    place: Place,
    /// It counts at its callee.
    is_counted: bool,
    caller: Sitting,
    request: RequestId,
    /// What was called, while it waits or may be re-routed.
    letter: Option<Box<Letter<CallHead>>>,
    /// What `hash` goes by.
    key: u64,
    /// Which callees it may go to.
    aim: Aim,
    /// Callees that have refused it.
    tried: Vec<Sequence>,
}

/// All remembered calls of a realm.
#[derive(Debug)]
pub(super) struct Calls {
    /// Ends with the one `Done` of the callee's core; what waits ends with its callees, its call, or its deadline.
    by_number: HashMap<u32, Remembered, FixedState>,
    /// Those whose payload is here, so that a cancel and the caller's end find them.
    by_caller: BTreeSet<(Sitting, RequestId, u32)>,
    last_number: u32,
    last_order: u64,
    /// What the payloads hold, in bytes.
    bytes: usize,
}

impl Calls {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self {
            by_number: HashMap::with_hasher(hasher),
            by_caller: BTreeSet::new(),
            last_number: 0,
            last_order: 0,
            bytes: 0,
        }
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.by_caller.len() <= self.by_number.len());
        debug_assert!(
            !self.by_caller.is_empty() || self.bytes == 0,
            "payloads are gone, their bytes are not"
        );
        self.by_number.len()
    }

    fn next_number(&mut self) -> u32 {
        loop {
            self.last_number = self.last_number % Ticket::NUMBER_MAX + 1;
            if !self.by_number.contains_key(&self.last_number) {
                return self.last_number;
            }
        }
    }
}

/// What is left to do at home once an input is handled: nothing here calls itself, however long a queue is.
#[derive(Debug)]
pub(in crate::router) enum Work {
    /// An invocation is over, as its callee's core says.
    Done(RealmIndex, Ticket, InvocationEnd),
    /// Some callee may have room for calls that wait.
    Pump(RealmIndex, PoolId, Lane),
    /// A call whose last callee left before it got there: as if it came now.
    Again(Box<Letter<CallHead>>),
    /// A REGISTER that waited for another callee.
    Register(Box<RegisterLetter>),
    /// A URI is free that this database offers.
    Offer(RealmIndex, DatabaseIndex),
    /// A call that nobody can take.
    Fail(Sitting, RequestId, Refusal),
}

/// When calls stop waiting, of all realms.
pub(in crate::router) type Deadlines = BTreeSet<(u64, RealmIndex, u32)>;

enum Admitted<'a> {
    Now(Chosen, Parcel<'a, CallHead>),
    Waits,
    No(Refusal),
}

/// A dealer, and what its decisions need.
pub(super) struct Home<'a> {
    pub(super) realm: RealmIndex,
    pub(super) dealer: &'a mut Dealer,
    pub(super) limits: &'a Limits,
    pub(super) work: &'a mut VecDeque<Work>,
    /// What the meta API has to tell, and whether the realm has one.
    pub(super) changes: &'a mut Vec<(RealmIndex, super::Change)>,
    pub(super) is_told: bool,
    /// When a registration is created now, for people.
    pub(super) created_us: u64,
    random: &'a mut Random,
    deadlines: &'a mut Deadlines,
    now_us: u64,
}

fn bytes_of(letter: &Letter<CallHead>) -> usize {
    letter.body.len() + letter.head.carried_bytes() + MESSAGE_OVERHEAD_BYTES as usize
}

impl Home<'_> {
    /// A call of a pool: to a callee, or into the queue.
    fn admit<'c>(&mut self, pool_id: PoolId, key: u64, call: Parcel<'c, CallHead>) -> Admitted<'c> {
        let head = call.head();
        let remembered = Remembered {
            pool: pool_id,
            place: Place::At(Sequence::default()),
            is_counted: false,
            caller: head.caller,
            request: head.request,
            letter: None,
            key,
            aim: head.aim(),
            tried: Vec::new(),
        };
        let aim = remembered.aim;
        let Some(pool) = self.dealer.pools.get_mut(&pool_id) else { return Admitted::No(NOBODY) };
        // What is to follow would have to wait, or to be kept, as well.
        let in_parts = head.is(Input::First);
        match pool.choose_for(aim, key, &[], self.random) {
            Pick::Now(sequence) => {
                let lane = pool.lane_of(sequence, aim);
                if pool.is_waited_for(lane) && in_parts {
                    return Admitted::No(IN_PARTS);
                }
                if pool.is_waited_for(lane) {
                    // What came before goes first.
                    self.work.push_back(Work::Pump(self.realm, pool_id, lane));
                    return self.wait(lane, remembered, call.into_letter());
                }
                let bytes = call.body_len() + call.head().carried_bytes();
                let kept = !in_parts && self.may_keep(&remembered, sequence, bytes);
                let kept = kept.then(|| Box::new(call.to_letter()));
                match self.go(remembered, sequence, kept) {
                    Some(chosen) => Admitted::Now(chosen, call),
                    None => Admitted::No(NOBODY),
                }
            }
            Pick::Wait(_) if in_parts => Admitted::No(IN_PARTS),
            Pick::Wait(lane) => self.wait(lane, remembered, call.into_letter()),
            Pick::Nobody if aim != Aim::Any => Admitted::No(NO_NODE),
            Pick::Nobody => Admitted::No(NOBODY),
        }
    }

    /// Whether the payload is kept so that the call can go to another callee if this one refuses it.
    fn may_keep(&self, call: &Remembered, sequence: Sequence, body_bytes: usize) -> bool {
        let Some(pool) = self.dealer.pools.get(&call.pool) else { return false };
        let bytes = body_bytes + MESSAGE_OVERHEAD_BYTES as usize;
        pool.callee(sequence).is_some_and(|callee| callee.can_reroute)
            && pool.reach(call.aim) > call.tried.len() + 1
            && call.tried.len() < self.limits.reroutes_per_call_max
            && pool.kept_bytes + bytes <= self.limits.reroute_bytes_per_registration_max
            && self.dealer.calls.bytes + bytes <= self.limits.queued_bytes_per_realm_max
    }

    /// A call goes to a callee. It is remembered if it counts there, or its payload is kept.
    fn go(
        &mut self,
        mut call: Remembered,
        sequence: Sequence,
        kept: Option<Box<Letter<CallHead>>>,
    ) -> Option<Chosen> {
        let calls = &mut self.dealer.calls;
        let pool = self.dealer.pools.get_mut(&call.pool)?;
        let callee = pool.callee(sequence)?;
        let (sitting, disclose_caller) = (callee.sitting, callee.disclose_caller);
        call.is_counted = pool.counts(callee);
        call.place = Place::At(sequence);
        if call.is_counted {
            pool.begin(sequence);
        }
        let mut ticket = Ticket::NONE;
        if call.is_counted || kept.is_some() {
            let number = calls.next_number();
            ticket = Ticket::new(number, kept.is_some());
            if let Some(mut kept) = kept {
                kept.head.charge = Charge::default();
                pool.kept_bytes += bytes_of(&kept);
                calls.bytes += bytes_of(&kept);
                calls.by_caller.insert((call.caller, call.request, number));
                call.letter = Some(kept);
            }
            calls.by_number.insert(number, call);
        }
        let (registration, pattern) = (pool.registration, pool.is_pattern);
        Some(Chosen { callee: sitting, registration, pattern, disclose_caller, ticket })
    }

    /// A call waits, if that many may.
    fn wait<'c>(
        &mut self,
        lane: Lane,
        mut call: Remembered,
        mut letter: Box<Letter<CallHead>>,
    ) -> Admitted<'c> {
        let limits = self.limits;
        let calls = &mut self.dealer.calls;
        let Some(pool) = self.dealer.pools.get_mut(&call.pool) else { return Admitted::No(NOBODY) };
        let bytes = bytes_of(&letter);
        if pool.waiting.len() >= limits.queued_calls_per_registration_max
            || pool.waiting_bytes + bytes > limits.queued_bytes_per_registration_max
            || calls.bytes + bytes > limits.queued_bytes_per_realm_max
        {
            return Admitted::No(FULL);
        }
        calls.last_order += 1;
        let order = calls.last_order;
        let number = calls.next_number();
        let deadline_us = self.now_us + limits.queue_timeout.as_micros() as u64;
        pool.waiting.insert((lane, order), number);
        pool.waiting_bytes += bytes;
        calls.bytes += bytes;
        calls.by_caller.insert((call.caller, call.request, number));
        self.deadlines.insert((deadline_us, self.realm, number));
        // What it was charged is given back: credit never waits for a client (R8).
        letter.head.charge = Charge::default();
        letter.head.ticket = Ticket::NONE;
        call.letter = Some(letter);
        call.place = Place::Waiting { lane, order, deadline_us };
        calls.by_number.insert(number, call);
        Admitted::Waits
    }

    /// Takes the payload of a remembered call, and with it its place in the queue.
    fn release(&mut self, number: u32) -> Option<Box<Letter<CallHead>>> {
        let calls = &mut self.dealer.calls;
        let call = calls.by_number.get_mut(&number)?;
        let letter = call.letter.take()?;
        let bytes = bytes_of(&letter);
        calls.bytes -= bytes;
        calls.by_caller.remove(&(call.caller, call.request, number));
        let pool = self.dealer.pools.get_mut(&call.pool);
        match call.place {
            Place::Waiting { lane, order, deadline_us } => {
                self.deadlines.remove(&(deadline_us, self.realm, number));
                if let Some(pool) = pool {
                    pool.waiting.remove(&(lane, order));
                    pool.waiting_bytes -= bytes;
                }
            }
            Place::At(_) => {
                if let Some(pool) = pool {
                    pool.kept_bytes -= bytes;
                }
            }
        }
        Some(letter)
    }

    fn forget(&mut self, number: u32) -> Option<(Remembered, Option<Box<Letter<CallHead>>>)> {
        let letter = self.release(number);
        Some((self.dealer.calls.by_number.remove(&number)?, letter))
    }

    /// The next call of a lane that can go.
    fn next(&mut self, pool_id: PoolId, lane: Lane) -> Option<(Chosen, Box<Letter<CallHead>>)> {
        let mut blocked = 0;
        let mut from = 0;
        while blocked < if lane == Lane::Rerouted { REROUTED_TRIED_MAX } else { 1 } {
            let pool = self.dealer.pools.get_mut(&pool_id)?;
            let (&(_, order), &number) = pool.waiting.range((lane, from)..=(lane, u64::MAX)).next()?;
            from = order + 1;
            let call = self.dealer.calls.by_number.get(&number)?;
            match pool.choose_for(call.aim, call.key, &call.tried, self.random) {
                Pick::Now(sequence) => {
                    let (call, letter) = self.forget(number)?;
                    let letter = letter?;
                    let kept = self
                        .may_keep(&call, sequence, letter.body.len() + letter.head.carried_bytes())
                        .then(|| letter.clone());
                    return Some((self.go(call, sequence, kept)?, letter));
                }
                Pick::Wait(other) if other != lane => self.change_lane(number, other),
                Pick::Wait(_) => blocked += 1,
                Pick::Nobody => self.fail(number, REFUSED),
            }
        }
        None
    }

    /// Another callee is the one to wait for. Among those that wait for it the call is as old as it is.
    fn change_lane(&mut self, number: u32, to: Lane) {
        let Some(call) = self.dealer.calls.by_number.get_mut(&number) else { return };
        let Place::Waiting { lane, order, .. } = &mut call.place else { return };
        if let Some(pool) = self.dealer.pools.get_mut(&call.pool) {
            pool.waiting.remove(&(*lane, *order));
            pool.waiting.insert((to, *order), number);
        }
        *lane = to;
        self.work.push_back(Work::Pump(self.realm, call.pool, to));
    }

    fn fail(&mut self, number: u32, refusal: Refusal) {
        if let Some((call, _)) = self.forget(number) {
            self.work.push_back(Work::Fail(call.caller, call.request, refusal));
        }
    }

    /// A callee of a pool is gone: who waited for it waits for another.
    pub(super) fn callee_left(&mut self, pool_id: PoolId, sequence: Sequence, node: Option<KeyHash>) {
        let Some(pool) = self.dealer.pools.get_mut(&pool_id) else { return };
        if pool.is_empty() {
            while let Some(number) = pool_first(self.dealer, pool_id) {
                let Some((call, letter)) = self.forget(number) else { break };
                match letter {
                    Some(letter) if call.tried.is_empty() => self.work.push_back(Work::Again(letter)),
                    _ => self.work.push_back(Work::Fail(call.caller, call.request, REFUSED)),
                }
            }
            return;
        }
        let has_node = |node: &KeyHash| pool.nodes().is_some_and(|nodes| nodes.get(*node).is_some());
        let gone = node.filter(|node| !has_node(node));
        self.leave_lane(pool_id, Lane::Of(sequence));
        if let Some(node) = gone {
            self.leave_lane(pool_id, Lane::Node(node));
        }
        // It may have been the last that a re-routed call could still try.
        self.work.push_back(Work::Pump(self.realm, pool_id, Lane::Rerouted));
    }

    /// Nobody will take what waits here.
    fn leave_lane(&mut self, pool_id: PoolId, lane: Lane) {
        while let Some(pool) = self.dealer.pools.get_mut(&pool_id)
            && let Some((_, &number)) = pool.waiting.range((lane, 0)..=(lane, u64::MAX)).next()
            && let Some(call) = self.dealer.calls.by_number.get(&number)
        {
            match pool.choose_for(call.aim, call.key, &call.tried, self.random) {
                Pick::Now(other) => {
                    let other = pool.lane_of(other, call.aim);
                    self.change_lane(number, other);
                }
                Pick::Wait(other) => self.change_lane(number, other),
                Pick::Nobody => self.fail(number, REFUSED),
            }
        }
    }

    /// A callee joined a pool.
    pub(super) fn callee_came(&mut self, pool_id: PoolId) {
        let Some(pool) = self.dealer.pools.get(&pool_id) else { return };
        // There may be as many lanes as callees; what waits there goes on as those callees do.
        if pool.hashes() {
            return;
        }
        let mut lane = pool.first_lane();
        while let Some(waiting) = lane {
            self.work.push_back(Work::Pump(self.realm, pool_id, waiting));
            lane = pool.lane_after(waiting);
        }
    }

    /// An invocation is over. What goes on because of that, if the call itself does.
    fn done(&mut self, ticket: Ticket, end: InvocationEnd) -> Option<(Chosen, Box<Letter<CallHead>>)> {
        let (mut call, letter) = self.forget(ticket.number())?;
        let Place::At(sequence) = call.place else { return None };
        if let Some(pool) = self.dealer.pools.get_mut(&call.pool)
            && call.is_counted
        {
            pool.end(sequence);
            let lanes = pool.lanes_of(sequence);
            self.work.push_back(Work::Pump(self.realm, call.pool, Lane::Rerouted));
            for lane in lanes.into_iter().flatten() {
                self.work.push_back(Work::Pump(self.realm, call.pool, lane));
            }
        }
        if end != InvocationEnd::Refused {
            return None;
        }
        // Who cancelled it has forgotten it, or waits for any answer (mode kill).
        let (caller, request) = (call.caller, call.request);
        let Some(letter) = letter else {
            self.work.push_back(Work::Fail(caller, request, CANCELED));
            return None;
        };
        call.tried.push(sequence);
        let pool = self.dealer.pools.get_mut(&call.pool);
        let pick =
            pool.map_or(Pick::Nobody, |pool| pool.choose_for(call.aim, call.key, &call.tried, self.random));
        let refusal = match pick {
            Pick::Now(sequence) => {
                let kept = self
                    .may_keep(&call, sequence, letter.body.len() + letter.head.carried_bytes())
                    .then(|| letter.clone());
                return Some((self.go(call, sequence, kept)?, letter));
            }
            Pick::Wait(lane) => match self.wait(lane, call, letter) {
                Admitted::No(refusal) => refusal,
                _ => return None,
            },
            Pick::Nobody => REFUSED,
        };
        self.work.push_back(Work::Fail(caller, request, refusal));
        None
    }

    /// The numbers of a caller's remembered calls; of one of them.
    fn of_caller(&self, caller: Sitting, requests: (RequestId, RequestId)) -> Option<u32> {
        let range = (caller, requests.0, 0)..=(caller, requests.1, u32::MAX);
        self.dealer.calls.by_caller.range(range).next().map(|(_, _, number)| *number)
    }

    /// Whoever asked is gone, or no longer asks: what waits is forgotten, and what runs is not re-routed. Whether
    /// something waited.
    fn give_up(&mut self, caller: Sitting, requests: (RequestId, RequestId)) -> bool {
        let mut waited = false;
        while let Some(number) = self.of_caller(caller, requests) {
            let letter = self.release(number);
            debug_assert!(letter.is_some(), "a call without its payload is in the list of its caller");
            let calls = &mut self.dealer.calls;
            let place = calls.by_number.get(&number).map(|call| call.place);
            if matches!(place, Some(Place::Waiting { .. })) {
                calls.by_number.remove(&number);
                waited = true;
            }
        }
        waited
    }
}

fn pool_first(dealer: &Dealer, pool_id: PoolId) -> Option<u32> {
    let pool = dealer.pools.get(&pool_id)?;
    pool.waiting.first_key_value().map(|(_, number)| *number)
}

impl Router {
    /// The dealer of a realm whose home is here.
    pub(super) fn home(&mut self, realm: RealmIndex) -> Option<Home<'_>> {
        let created_us = self.for_people_us();
        let of_realm = &mut self.realms[realm.0 as usize];
        Some(Home {
            realm,
            is_told: of_realm.meta_api,
            created_us,
            changes: &mut self.meta.changes,
            dealer: of_realm.dealer.as_mut()?,
            limits: &self.limits,
            work: &mut self.work,
            random: &mut self.random,
            deadlines: &mut self.queue_deadlines,
            now_us: self.now.monotonic_us,
        })
    }

    /// A call of a shared or limited registration.
    pub(in crate::router) fn route_to_pool(
        &mut self,
        pool: PoolId,
        call: Parcel<'_, CallHead>,
        effects: &mut impl Effects,
    ) {
        let &CallHead { realm, caller, request, charge, .. } = call.head();
        let aim = call.head().aim();
        let Some(mut home) = self.home(realm) else { return };
        if aim != Aim::Any {
            // A node is looked for among all of them.
            effects.searched(home.dealer.pools.get(&pool).map_or(0, |pool| pool.effort(aim)));
        }
        let key = home.dealer.key_of(pool, &call);
        let admitted = home.admit(pool, key, call);
        match admitted {
            Admitted::Now(chosen, call) => self.hand_over(chosen, call, effects),
            Admitted::Waits => {
                effects.counters().calls_queued += 1;
                effects.credit(caller.session(), charge, CreditTime::Now);
            }
            Admitted::No((error, text)) => {
                if (error, text) == FULL {
                    effects.counters().queue_full += 1;
                }
                effects.credit(caller.session(), charge, CreditTime::Now);
                self.answer_call(caller, request, error, text, effects);
            }
        }
    }

    /// On a callee's core: tells home that an invocation is over, if it asked.
    pub(in crate::router) fn report_done(
        &mut self,
        realm: RealmIndex,
        ticket: Ticket,
        end: InvocationEnd,
        effects: &mut impl Effects,
    ) {
        if ticket == Ticket::NONE {
            return;
        }
        let home = self.realms[realm.0 as usize].home;
        if home == self.core {
            self.work.push_back(Work::Done(realm, ticket, end));
        } else {
            effects.peer(home, PeerMessage::Done { realm, ticket, end });
        }
    }

    /// At home: does what inputs left to do.
    pub(in crate::router) fn finish_work(&mut self, effects: &mut impl Effects) {
        self.tell_registration_changes(effects);
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Done(realm, ticket, end) => {
                    let next = self.home(realm).and_then(|mut home| home.done(ticket, end));
                    if let Some((chosen, letter)) = next {
                        effects.counters().calls_rerouted += 1;
                        self.hand_over(chosen, Parcel::Owned(letter), effects);
                    }
                }
                Work::Pump(realm, pool, lane) => {
                    while let Some((chosen, letter)) =
                        self.home(realm).and_then(|mut home| home.next(pool, lane))
                    {
                        self.hand_over(chosen, Parcel::Owned(letter), effects);
                    }
                }
                Work::Again(letter) => self.route_call_or(LEFT, Parcel::Owned(letter), effects),
                Work::Register(letter) => {
                    self.register_at_home(*letter, effects);
                    self.tell_registration_changes(effects);
                }
                Work::Offer(realm, database) => {
                    self.offer_again(realm, database, effects);
                    self.tell_registration_changes(effects);
                }
                Work::Fail(caller, request, (error, text)) => {
                    self.answer_call(caller, request, error, text, effects);
                }
            }
        }
    }

    /// At home: a caller cancels. Whether its call waited here, and so went nowhere.
    pub(super) fn cancel_waiting(&mut self, realm: RealmIndex, caller: Sitting, request: RequestId) -> bool {
        self.home(realm).is_some_and(|mut home| {
            // Nothing to look for is what it is like almost always.
            !home.dealer.calls.by_caller.is_empty() && home.give_up(caller, (request, request))
        })
    }

    /// At home: a caller is gone.
    pub(super) fn forget_waiting(&mut self, realm: RealmIndex, caller: Sitting) {
        if let Some(mut home) = self.home(realm) {
            home.give_up(caller, (RequestId(0), RequestId(u64::MAX)));
        }
    }

    /// Ends the waiting of calls that no callee had room for in time.
    pub(in crate::router) fn handle_queue_timeouts(&mut self, effects: &mut impl Effects) {
        while let Some(&(deadline_us, realm, number)) = self.queue_deadlines.first()
            && deadline_us <= self.now.monotonic_us
        {
            effects.counters().queue_timeouts += 1;
            // Forgetting it takes it off the list.
            if let Some(mut home) = self.home(realm) {
                home.fail(number, WAITED);
            }
            self.queue_deadlines.remove(&(deadline_us, realm, number));
        }
    }
}
