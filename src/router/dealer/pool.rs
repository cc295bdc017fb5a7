//! The callees of one shared or limited registration, and which of them a call goes to.
//!
//! Ten thousand callees are as good as two: joining, leaving and choosing cost their logarithm.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Bound::{Excluded, Unbounded};

use foldhash::fast::FixedState as FastState;
use foldhash::quality::FixedState;

use super::nodes::{Aim, Nodes};
use crate::router::peer::{RegisterLetter, Sitting};
use crate::router::random::Random;
use crate::router::sharding::{KeyHash, node_hash};
use crate::router::uri_map::EntryKey;
use crate::wamp::RegistrationId;
use crate::wamp::options::InvocationPolicy;

/// The place of a callee in the order in which all callees of a realm registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::router) struct Sequence(pub(super) u64);

impl Sequence {
    /// The next one.
    pub(super) fn after(last: &mut Self) -> Self {
        last.0 += 1;
        *last
    }
}

/// Which calls of a pool wait one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::router) enum Lane {
    /// For the first callee that has room.
    Any,
    /// For the first callee of this node that has room.
    Node(KeyHash),
    /// For the first callee that has room and has not refused it.
    Rerouted,
    /// For this one callee: another would not do.
    Of(Sequence),
}

/// How many points of the ring a callee has: with so few, the busiest of a hundred gets about half more than its share.
const POINTS: u64 = 32;

/// A callee, and how much of it is in use.
#[derive(Debug)]
pub(in crate::router) struct Callee {
    pub(in crate::router) sitting: Sitting,
    /// Calls that it takes at a time; 0 is no limit.
    pub(in crate::router) concurrency: u32,
    /// Calls on their way to it, running there, or on their way back; not counted where nobody asks.
    running: u32,
    /// It announced `call_reroute`, so that `unavailable` is not its last word.
    pub(super) can_reroute: bool,
    /// It wants to know who calls.
    pub(super) disclose_caller: bool,
    /// The node that it belongs to.
    node: Option<KeyHash>,
    /// `random`: its place in the list.
    place: usize,
    /// `least_busy`: when it was chosen last.
    turn: u64,
}

impl Callee {
    fn has_room(&self) -> bool {
        self.concurrency == 0 || self.running < self.concurrency
    }
}

/// What the policy needs to know, and nothing else. Of those that balance, `ready` are the callees that have room.
#[derive(Debug)]
enum Choice {
    Single,
    First,
    Last,
    RoundRobin {
        ready: BTreeSet<Sequence>,
        /// The one that was chosen last.
        last: Sequence,
    },
    Random {
        ready: Vec<Sequence>,
    },
    LeastBusy {
        /// By calls that run, then by when it was chosen last.
        ready: BTreeSet<(u32, u64, Sequence)>,
        turns: u64,
    },
    Hash {
        ring: BTreeMap<u64, Sequence>,
    },
}

/// What a policy says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// To this one, now.
    Now(Sequence),
    /// It has to wait until somebody has room.
    Wait(Lane),
    /// All have been tried.
    Nobody,
}

/// The callees of a registration, or of one shard of it.
#[derive(Debug)]
pub(in crate::router) struct Pool {
    pub(super) registration: RegistrationId,
    pub(super) entry: EntryKey,
    pub(super) is_pattern: bool,
    callees: BTreeMap<Sequence, Callee>,
    choice: Choice,
    /// Those of the callees; ends with the last of them.
    nodes: Option<Box<Nodes>>,
    seed: u64,
    /// Calls that wait, by lane and age; each ends when a callee has room, or with its call.
    pub(super) waiting: BTreeMap<(Lane, u64), u32>,
    /// What they hold, in bytes.
    pub(super) waiting_bytes: usize,
    /// What is kept of calls that may be re-routed, in bytes.
    pub(super) kept_bytes: usize,
}

impl Pool {
    pub(super) fn new(
        registration: RegistrationId,
        entry: EntryKey,
        is_pattern: bool,
        policy: InvocationPolicy,
        seed: u64,
    ) -> Self {
        let choice = match policy {
            InvocationPolicy::Single => Choice::Single,
            InvocationPolicy::First => Choice::First,
            InvocationPolicy::Last => Choice::Last,
            InvocationPolicy::RoundRobin => {
                Choice::RoundRobin { ready: BTreeSet::new(), last: Sequence(u64::MAX) }
            }
            InvocationPolicy::Random => Choice::Random { ready: Vec::new() },
            InvocationPolicy::LeastBusy => Choice::LeastBusy { ready: BTreeSet::new(), turns: 0 },
            InvocationPolicy::Hash => Choice::Hash { ring: BTreeMap::new() },
        };
        Self {
            registration,
            entry,
            is_pattern,
            callees: BTreeMap::new(),
            choice,
            nodes: None,
            seed,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            kept_bytes: 0,
        }
    }

    pub(in crate::router) fn len(&self) -> usize {
        self.callees.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.callees.is_empty()
    }

    /// In the order in which they registered.
    pub(in crate::router) fn callees(&self) -> impl Iterator<Item = &Callee> {
        self.callees.values()
    }

    pub(super) fn callee(&self, sequence: Sequence) -> Option<&Callee> {
        self.callees.get(&sequence)
    }

    /// Where a call waits that goes to this callee as soon as that has room.
    pub(super) fn lane_of(&self, sequence: Sequence, aim: Aim) -> Lane {
        match self.choice {
            Choice::Single | Choice::First | Choice::Last | Choice::Hash { .. } => Lane::Of(sequence),
            Choice::RoundRobin { .. } | Choice::Random { .. } | Choice::LeastBusy { .. } => {
                let node = || self.callees.get(&sequence).and_then(|callee| callee.node);
                if aim == Aim::Any { Lane::Any } else { node().map_or(Lane::Any, Lane::Node) }
            }
        }
    }

    /// Where calls wait that this callee may take, the one that has waited longest first.
    pub(super) fn lanes_of(&self, sequence: Sequence) -> [Option<Lane>; 2] {
        let lane = self.lane_of(sequence, Aim::Any);
        let node = self.callees.get(&sequence).and_then(|callee| callee.node).map(Lane::Node);
        let Some(node) = node.filter(|_| lane == Lane::Any) else { return [Some(lane), None] };
        let oldest = |lane: Lane| {
            let first = self.waiting.range((lane, 0)..=(lane, u64::MAX)).next();
            first.map_or(u64::MAX, |((_, order), _)| *order)
        };
        if oldest(node) < oldest(lane) { [Some(node), Some(lane)] } else { [Some(lane), Some(node)] }
    }

    /// Whether a call waits in a lane.
    pub(super) fn is_waited_for(&self, lane: Lane) -> bool {
        self.waiting.range((lane, 0)..=(lane, u64::MAX)).next().is_some()
    }

    /// The first lane in which a call waits.
    pub(super) fn first_lane(&self) -> Option<Lane> {
        self.waiting.first_key_value().map(|((lane, _), _)| *lane)
    }

    /// The next lane in which a call waits.
    pub(super) fn lane_after(&self, lane: Lane) -> Option<Lane> {
        let behind = self.waiting.range((Excluded((lane, u64::MAX)), Unbounded)).next();
        behind.map(|((lane, _), _)| *lane)
    }

    /// Whether calls must be counted while they run at this callee.
    pub(super) fn counts(&self, callee: &Callee) -> bool {
        callee.concurrency > 0 || matches!(self.choice, Choice::LeastBusy { .. })
    }

    /// Whether the policy looks at what was called with.
    pub(super) fn hashes(&self) -> bool {
        matches!(self.choice, Choice::Hash { .. })
    }

    pub(super) fn insert(&mut self, sequence: Sequence, letter: &RegisterLetter, hasher: &FastState) {
        let node = letter.nkey.as_deref().map(|nkey| (node_hash(hasher, nkey), nkey));
        if let Some((node, nkey)) = node {
            let nodes = self.nodes.get_or_insert_with(|| Box::new(Nodes::new(hasher.clone())));
            nodes.add(node, nkey, letter.authid.as_deref(), sequence);
        }
        let callee = Callee {
            sitting: letter.callee,
            concurrency: letter.concurrency,
            running: 0,
            can_reroute: letter.can_reroute,
            disclose_caller: letter.disclose_caller,
            node: node.map(|(node, _)| node),
            place: 0,
            turn: 0,
        };
        self.callees.insert(sequence, callee);
        if let Choice::Hash { ring } = &mut self.choice {
            for point in 0..POINTS {
                ring.insert(point_of(self.seed, sequence, point), sequence);
            }
        }
        self.make_ready(sequence);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, sequence: Sequence) -> bool {
        self.make_unready(sequence);
        if let Choice::Hash { ring } = &mut self.choice {
            for point in 0..POINTS {
                let at = point_of(self.seed, sequence, point);
                if ring.get(&at) == Some(&sequence) {
                    ring.remove(&at);
                }
            }
        }
        let Some(callee) = self.callees.remove(&sequence) else { return false };
        if let (Some(node), Some(nodes)) = (callee.node, self.nodes.as_deref_mut()) {
            nodes.remove(node, sequence);
            if nodes.is_empty() {
                self.nodes = None;
            }
        }
        true
    }

    /// A call goes to it.
    pub(super) fn begin(&mut self, sequence: Sequence) {
        self.make_unready(sequence);
        if let Some(callee) = self.callees.get_mut(&sequence) {
            callee.running += 1;
            if let Choice::LeastBusy { turns, .. } = &mut self.choice {
                *turns += 1;
                callee.turn = *turns;
            }
        }
        self.make_ready(sequence);
    }

    /// A call is over. A callee that is gone has taken its count with it.
    pub(super) fn end(&mut self, sequence: Sequence) {
        self.make_unready(sequence);
        if let Some(callee) = self.callees.get_mut(&sequence) {
            debug_assert!(callee.running > 0, "more calls ended than began");
            callee.running = callee.running.saturating_sub(1);
        }
        self.make_ready(sequence);
    }

    /// Puts a callee where the policy looks for it, if it has room.
    fn make_ready(&mut self, sequence: Sequence) {
        let Some(callee) = self.callees.get_mut(&sequence).filter(|callee| callee.has_room()) else { return };
        match &mut self.choice {
            Choice::RoundRobin { ready, .. } => {
                let _ = ready.insert(sequence);
            }
            Choice::Random { ready } => {
                callee.place = ready.len();
                ready.push(sequence);
            }
            Choice::LeastBusy { ready, .. } => {
                let _ = ready.insert((callee.running, callee.turn, sequence));
            }
            Choice::Single | Choice::First | Choice::Last | Choice::Hash { .. } => {}
        }
    }

    fn make_unready(&mut self, sequence: Sequence) {
        let Some(callee) = self.callees.get(&sequence) else { return };
        match &mut self.choice {
            Choice::RoundRobin { ready, .. } => {
                let _ = ready.remove(&sequence);
            }
            Choice::Random { ready } => {
                let place = callee.place;
                if ready.get(place) == Some(&sequence) {
                    ready.swap_remove(place);
                    let moved = ready.get(place).copied();
                    if let Some(moved) = moved.and_then(|moved| self.callees.get_mut(&moved)) {
                        moved.place = place;
                    }
                }
            }
            Choice::LeastBusy { ready, .. } => {
                let _ = ready.remove(&(callee.running, callee.turn, sequence));
            }
            Choice::Single | Choice::First | Choice::Last | Choice::Hash { .. } => {}
        }
    }

    /// The nodes, where there are any.
    pub(super) fn nodes(&self) -> Option<&Nodes> {
        self.nodes.as_deref()
    }

    /// How many callees a call may go to.
    pub(super) fn reach(&self, aim: Aim) -> usize {
        match self.nodes.as_deref().and_then(|nodes| Some((nodes, nodes.of(aim)?))) {
            Some((nodes, node)) => nodes.get(node).map_or(0, |node| node.callees.len()),
            None => self.len(),
        }
    }

    /// What it takes to find a node and its callee, in entries that are looked at.
    pub(super) fn effort(&self, aim: Aim) -> usize {
        self.nodes.as_deref().map_or(0, Nodes::len) + self.reach(aim)
    }

    /// As [`Self::choose`], among those that the call is for. Looks at every callee of the node.
    pub(super) fn choose_for(&mut self, aim: Aim, key: u64, tried: &[Sequence], random: &mut Random) -> Pick {
        if aim == Aim::Any {
            return self.choose(key, tried, random);
        }
        let Some((nodes, hash)) = self.nodes.as_deref_mut().and_then(|nodes| {
            let hash = nodes.of(aim)?;
            Some((nodes, hash))
        }) else {
            return match aim {
                Aim::Node(_) => Pick::Nobody,
                _ => self.choose(key, tried, random),
            };
        };
        let Some(node) = nodes.get_mut(hash) else { return Pick::Nobody };
        let untried = |sequence: &&Sequence| !tried.contains(sequence);
        let callees = &self.callees;
        let has_room = |sequence: &Sequence| callees.get(sequence).is_some_and(Callee::has_room);
        let one = |sequence: Option<&Sequence>| match sequence {
            Some(sequence) if has_room(sequence) => Pick::Now(*sequence),
            Some(sequence) => Pick::Wait(Lane::Of(*sequence)),
            None => Pick::Nobody,
        };
        let found = match self.choice {
            Choice::Single | Choice::First => return one(node.callees.iter().find(untried)),
            Choice::Last => return one(node.callees.iter().rev().find(untried)),
            Choice::Hash { .. } => {
                let all = node.callees.iter().filter(untried);
                return one(all.max_by_key(|sequence| point_of(self.seed, **sequence, key)));
            }
            Choice::RoundRobin { .. } => node.next(|sequence| untried(&sequence) && has_room(sequence)),
            Choice::Random { .. } => {
                let ready = || node.callees.iter().filter(untried).filter(|sequence| has_room(sequence));
                let count = ready().count();
                (count > 0).then(|| random.below(count)).and_then(|place| ready().nth(place).copied())
            }
            Choice::LeastBusy { .. } => {
                let ready = node.callees.iter().filter(untried).filter_map(|sequence| {
                    let callee = callees.get(sequence).filter(|callee| callee.has_room())?;
                    Some((callee.running, callee.turn, *sequence))
                });
                ready.min().map(|(_, _, sequence)| sequence)
            }
        };
        match found {
            Some(sequence) => Pick::Now(sequence),
            None if !node.callees.iter().any(|sequence| untried(&sequence)) => Pick::Nobody,
            None if tried.is_empty() => Pick::Wait(Lane::Node(hash)),
            None => Pick::Wait(Lane::Rerouted),
        }
    }

    /// Whom a call goes to (advanced profile, "Shared Registration"). Those in `tried` have refused it, and as to it
    /// do not exist ("Call Re-Routing"); they are few.
    ///
    /// Where the policy names one callee, a call waits for that one: a hot stand-by is no helper, and a key belongs to
    /// one callee. Where it balances, a call waits for whoever has room first.
    pub(super) fn choose(&mut self, key: u64, tried: &[Sequence], random: &mut Random) -> Pick {
        let untried = |sequence: &Sequence| !tried.contains(sequence);
        let callees = &self.callees;
        let one = |sequence: Option<Sequence>| match sequence {
            Some(sequence) if callees.get(&sequence).is_some_and(Callee::has_room) => Pick::Now(sequence),
            Some(sequence) => Pick::Wait(Lane::Of(sequence)),
            None => Pick::Nobody,
        };
        let found = match &mut self.choice {
            Choice::Single | Choice::First => {
                return one(callees.keys().find(|sequence| untried(sequence)).copied());
            }
            Choice::Last => return one(callees.keys().rev().find(|sequence| untried(sequence)).copied()),
            Choice::Hash { ring } => {
                let mut from_key = ring.range(key..).chain(ring.range(..key)).map(|(_, sequence)| sequence);
                return one(from_key.find(|sequence| untried(sequence)).copied());
            }
            Choice::RoundRobin { ready, last } => {
                let after = ready.range((Excluded(*last), Unbounded));
                let found = after.chain(ready.range(..=*last)).find(|sequence| untried(sequence)).copied();
                if let Some(sequence) = found {
                    *last = sequence;
                }
                found
            }
            Choice::Random { ready } if ready.is_empty() => None,
            Choice::Random { ready } => {
                let start = random.below(ready.len());
                let from_start = ready[start..].iter().chain(&ready[..start]);
                from_start.copied().find(untried)
            }
            Choice::LeastBusy { ready, .. } => ready.iter().map(|(_, _, sequence)| *sequence).find(untried),
        };
        match found {
            Some(sequence) => Pick::Now(sequence),
            None if !callees.keys().any(untried) => Pick::Nobody,
            None if tried.is_empty() => Pick::Wait(Lane::Any),
            None => Pick::Wait(Lane::Rerouted),
        }
    }
}

fn point_of(seed: u64, sequence: Sequence, point: u64) -> u64 {
    FixedState::with_seed(seed).hash_one((sequence.0, point))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::dealer::Sharing;
    use crate::router::peer::{CoreId, RealmIndex, SessionKey};
    use crate::wamp::{MatchPolicy, RequestId};

    fn random() -> Random {
        Random::new([3; 32], CoreId(0))
    }

    fn letter(callee: Sitting, concurrency: u32) -> RegisterLetter {
        RegisterLetter {
            realm: RealmIndex(0),
            callee,
            session: crate::wamp::SessionId(1),
            request: RequestId(1),
            match_policy: MatchPolicy::Exact,
            procedure: "com.p".into(),
            sharing: Sharing::default(),
            concurrency,
            force_reregister: false,
            disclose_caller: false,
            can_reroute: true,
            nkey: None,
            authid: None,
            has_waited: false,
        }
    }

    fn pool(policy: InvocationPolicy, callees: u64, concurrency: u32) -> Pool {
        let mut pool = Pool::new(RegistrationId(1), EntryKey(0), false, policy, 5);
        for sequence in 1..=callees {
            let key = SessionKey { slot: sequence as u32, generation: 1 };
            let sitting = Sitting { core: CoreId(0), number: 0, key };
            pool.insert(Sequence(sequence), &letter(sitting, concurrency), &FastState::with_seed(1));
        }
        pool
    }

    /// Where as many calls go, each running on.
    fn run(pool: &mut Pool, calls: u64) -> Vec<u64> {
        let mut random = random();
        (0..calls)
            .map(|key| match pool.choose(key << 58, &[], &mut random) {
                Pick::Now(sequence) => {
                    pool.begin(sequence);
                    sequence.0
                }
                _ => 0,
            })
            .collect()
    }

    /// Callees 1 and 3 are of node a, 2 and 4 of node b.
    fn sharded(policy: InvocationPolicy) -> Pool {
        let mut pool = Pool::new(RegistrationId(1), EntryKey(0), false, policy, 5);
        for (sequence, nkey) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
            let key = SessionKey { slot: sequence, generation: 1 };
            let sitting = Sitting { core: CoreId(0), number: 0, key };
            let letter = RegisterLetter { nkey: Some(nkey.into()), ..letter(sitting, 1) };
            pool.insert(Sequence(u64::from(sequence)), &letter, &FastState::with_seed(1));
        }
        pool
    }

    #[test]
    fn policies_choose_within_a_node() {
        use InvocationPolicy::{First, Hash, Last, LeastBusy, Random as AnyOf, RoundRobin};
        let node = node_hash(&FastState::with_seed(1), "b");
        for (policy, first) in [
            (First, Some(2)),
            (Last, Some(4)),
            (RoundRobin, Some(2)),
            (LeastBusy, Some(2)),
            (AnyOf, None),
            (Hash, None),
        ] {
            let mut pool = sharded(policy);
            let next = |pool: &mut Pool, tried: &[Sequence]| {
                pool.choose_for(Aim::Node(node), 7, tried, &mut random())
            };
            let Pick::Now(chosen) = next(&mut pool, &[]) else { panic!("{policy:?}: nobody is busy") };
            assert!(first.is_none_or(|first| first == chosen.0), "{policy:?}: {chosen:?}");
            assert!([2, 4].contains(&chosen.0), "{policy:?}: {chosen:?} is of another node");
            pool.begin(chosen);
            let other = Sequence(6 - chosen.0);
            let (lane, is_one) =
                (pool.lane_of(chosen, Aim::Node(node)), matches!(policy, First | Last | Hash));
            let expected = if is_one { Pick::Wait(Lane::Of(chosen)) } else { Pick::Now(other) };
            assert_eq!(next(&mut pool, &[]), expected, "{policy:?}");
            assert_eq!(next(&mut pool, &[chosen]), Pick::Now(other), "{policy:?}");
            pool.begin(other);
            assert_eq!(next(&mut pool, &[]), Pick::Wait(lane), "{policy:?}");
            let waits = if is_one { Lane::Of(other) } else { Lane::Rerouted };
            assert_eq!(next(&mut pool, &[chosen]), Pick::Wait(waits), "{policy:?}");
            assert_eq!(next(&mut pool, &[chosen, other]), Pick::Nobody, "{policy:?}");
            // Its own callees gone, the node is.
            assert_eq!(pool.reach(Aim::Node(node)), 2);
            assert!(pool.remove(chosen) && pool.remove(other));
            assert_eq!(next(&mut pool, &[]), Pick::Nobody, "{policy:?}");
            assert_eq!(pool.reach(Aim::Any), 2);
            assert!(pool.remove(Sequence(1)) && pool.remove(Sequence(3)) && pool.nodes().is_none());
        }
    }

    #[test]
    fn policies_choose_as_their_names_say() {
        use InvocationPolicy::{First, Last, LeastBusy, RoundRobin};
        assert_eq!(run(&mut pool(First, 3, 0), 3), [1, 1, 1]);
        assert_eq!(run(&mut pool(Last, 3, 0), 3), [3, 3, 3]);
        assert_eq!(run(&mut pool(RoundRobin, 3, 0), 5), [1, 2, 3, 1, 2]);
        let mut busy = pool(LeastBusy, 3, 0);
        assert_eq!(run(&mut busy, 4), [1, 2, 3, 1]);
        busy.end(Sequence(3));
        assert_eq!(run(&mut busy, 2), [3, 2]);
    }

    #[test]
    fn a_pool_with_room_for_n_takes_n() {
        use InvocationPolicy::{First, Hash, LeastBusy, Random, RoundRobin};
        for policy in [RoundRobin, Random, LeastBusy] {
            let mut pool = pool(policy, 4, 2);
            let mut placed = run(&mut pool, 9);
            assert_eq!(placed.pop(), Some(0), "{policy:?}");
            placed.sort_unstable();
            assert_eq!(placed, [1, 1, 2, 2, 3, 3, 4, 4], "{policy:?}");
            assert_eq!(pool.choose(0, &[], &mut random()), Pick::Wait(Lane::Any));
            pool.end(Sequence(3));
            assert_eq!(pool.choose(0, &[], &mut random()), Pick::Now(Sequence(3)));
            assert_eq!(pool.choose(0, &[Sequence(3)], &mut random()), Pick::Wait(Lane::Rerouted));
        }
        // A hot stand-by does not help out, and a key has one callee.
        let mut first = pool(First, 2, 1);
        assert_eq!(run(&mut first, 2), [1, 0]);
        assert_eq!(first.choose(0, &[], &mut random()), Pick::Wait(Lane::Of(Sequence(1))));
        let mut hash = pool(Hash, 2, 1);
        let Pick::Now(callee) = hash.choose(9, &[], &mut random()) else { panic!("nobody has a call yet") };
        hash.begin(callee);
        assert_eq!(hash.choose(9, &[], &mut random()), Pick::Wait(Lane::Of(callee)));
    }

    #[test]
    fn random_reaches_everybody_and_survives_departures() {
        let mut pool = pool(InvocationPolicy::Random, 50, 0);
        let mut random = random();
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            let Pick::Now(sequence) = pool.choose(0, &[], &mut random) else { panic!("there are callees") };
            seen.insert(sequence);
        }
        assert_eq!(seen.len(), 50);
        for sequence in (1..=50).step_by(2) {
            assert!(pool.remove(Sequence(sequence)));
            assert!(!pool.remove(Sequence(sequence)));
        }
        for _ in 0..1000 {
            let Pick::Now(sequence) = pool.choose(0, &[], &mut random) else { panic!("there are callees") };
            assert_eq!(sequence.0 % 2, 0);
        }
    }

    #[test]
    fn a_key_moves_only_when_its_callee_leaves() {
        let mut pool = pool(InvocationPolicy::Hash, 10, 0);
        let mut random = random();
        let mut of =
            |pool: &mut Pool, key: u64| match pool.choose(point_of(77, Sequence(key), 0), &[], &mut random) {
                Pick::Now(sequence) => sequence,
                other => panic!("{other:?}"),
            };
        let before: Vec<_> = (0..1000).map(|key| of(&mut pool, key)).collect();
        assert!(pool.remove(Sequence(4)));
        let mut moved = 0;
        for (key, was) in (0..1000).zip(before) {
            let is = of(&mut pool, key);
            assert!(is == was || was == Sequence(4));
            moved += u32::from(is != was);
        }
        assert!((30..300).contains(&moved), "{moved} of 1,000 keys were of one callee of ten");
    }

    #[test]
    fn each_is_tried_once() {
        use InvocationPolicy::{First, Hash, Last, LeastBusy, Random, RoundRobin, Single};
        for policy in [Single, First, Last, RoundRobin, Random, LeastBusy, Hash] {
            let callees = if policy == Single { 1 } else { 6 };
            let mut pool = pool(policy, callees, 0);
            let mut random = random();
            let mut tried = Vec::new();
            while let Pick::Now(sequence) = pool.choose(123, &tried, &mut random) {
                assert!(!tried.contains(&sequence), "{policy:?}");
                tried.push(sequence);
            }
            assert_eq!(tried.len() as u64, callees, "{policy:?}");
            assert_eq!(pool.choose(123, &tried, &mut random), Pick::Nobody);
        }
    }
}
