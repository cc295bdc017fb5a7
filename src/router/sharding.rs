//! Sharded subscriptions (advanced profile, "Sharded Subscription"): who subscribes with a node key shares the events that
//! have a resource key with the others that do.
//!
//! The specification names the two keys and no more. Here an event with an `rkey` goes, for each subscription, to the
//! sessions of one `nkey`: the same one for the same `rkey` as long as that node is there, and to another node only if it
//! leaves or a new one takes it over (highest random weight). Who subscribes without an `nkey` gets all events, and an
//! event without an `rkey` goes to everybody.
//!
//! The publisher's core chooses, so that there is one choice however many cores have subscribers; so every core knows the
//! node keys of all. One that has not heard of any node of a subscription leaves the choice to the subscribers' cores.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Router;
use super::effects::Effects;
use super::peer::{CoreId, PeerMessage, RealmIndex, SessionKey};
use super::uri_map::{EntryKey, UriMap};
use crate::wamp::{MatchPolicy, SubscriptionId};

/// A node key, or a resource key, hashed: the same on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyHash(pub(super) u64);

/// Where the events of one publication go among nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Of its `rkey`.
    pub(super) resource: KeyHash,
    /// For each subscription with nodes that the publisher's core knew: the node that gets it.
    pub(super) chosen: Vec<(SubscriptionId, KeyHash)>,
}

impl Shard {
    /// The node of a subscription, if the publisher's core knew of any.
    pub(super) fn chosen_for(&self, subscription: SubscriptionId) -> Option<KeyHash> {
        self.chosen.iter().find(|(id, _)| *id == subscription).map(|(_, node)| *node)
    }

    /// What it holds beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.chosen.len() * size_of::<(SubscriptionId, KeyHash)>()
    }
}

/// A node came to a subscription, or left it, on some core; on its way to all others.
#[derive(Clone, Debug)]
pub struct NodeNews {
    realm: RealmIndex,
    policy: MatchPolicy,
    node: KeyHash,
    is_there: bool,
    uri: Box<str>,
}

impl NodeNews {
    /// What it holds beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.uri.len()
    }
}

/// The nodes of one subscription on this core.
#[derive(Debug)]
pub(super) struct LocalNodes {
    /// By the slot of the session. Ends with the subscription of the session.
    by_slot: HashMap<u32, KeyHash, FixedState>,
    /// How many sessions each node has here. Ends with the last of them.
    sessions: HashMap<KeyHash, u32, FixedState>,
}

impl LocalNodes {
    pub(super) fn new() -> Self {
        // Slots and hashes with a key of their own.
        let hasher = FixedState::default();
        Self { by_slot: HashMap::with_hasher(hasher.clone()), sessions: HashMap::with_hasher(hasher) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    pub(super) fn node_of(&self, slot: u32) -> Option<KeyHash> {
        self.by_slot.get(&slot).copied()
    }

    /// Whether it is the first session of this node.
    fn add(&mut self, slot: u32, node: KeyHash) -> bool {
        self.by_slot.insert(slot, node);
        let sessions = self.sessions.entry(node).or_insert(0);
        *sessions += 1;
        *sessions == 1
    }

    /// The node that a session belonged to, and whether it was the last one of it.
    fn remove(&mut self, slot: u32) -> Option<(KeyHash, bool)> {
        let node = self.by_slot.remove(&slot)?;
        let sessions = self.sessions.get_mut(&node)?;
        *sessions -= 1;
        let is_last = *sessions == 0;
        if is_last {
            self.sessions.remove(&node);
        }
        Some((node, is_last))
    }

    /// Which node of this core gets a resource.
    pub(super) fn choose(&self, resource: KeyHash, hasher: &FixedState) -> Option<KeyHash> {
        choose(self.sessions.keys().copied(), resource, hasher)
    }
}

/// The nodes of one subscription on all cores.
#[derive(Debug)]
struct Nodes {
    id: SubscriptionId,
    /// With the number of cores that have sessions of it.
    nodes: Vec<(KeyHash, u16)>,
}

/// The nodes of all subscriptions of a realm, alike on every core but for what is on its way.
#[derive(Debug)]
pub(super) struct Sharding {
    /// Ends with the last node.
    subscriptions: UriMap<Nodes>,
}

impl Sharding {
    pub(super) fn new(map_seed: u64) -> Self {
        Self { subscriptions: UriMap::new(map_seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    fn is_known(&self, policy: MatchPolicy, uri: &str, node: KeyHash) -> bool {
        self.nodes(policy, uri).is_some_and(|nodes| nodes.iter().any(|(other, _)| *other == node))
    }

    fn nodes(&self, policy: MatchPolicy, uri: &str) -> Option<&[(KeyHash, u16)]> {
        let entry = self.subscriptions.find(policy, uri)?;
        self.subscriptions.get(entry).map(|it| &it.nodes[..])
    }

    /// Which node gets a resource, of those of one subscription on all cores.
    pub(super) fn choose(
        &self,
        (policy, uri): (MatchPolicy, &str),
        resource: KeyHash,
        hasher: &FixedState,
    ) -> Option<KeyHash> {
        let nodes = self.nodes(policy, uri)?;
        choose(nodes.iter().map(|(node, _)| *node), resource, hasher)
    }

    fn set(&mut self, id: SubscriptionId, news: &NodeNews) {
        let NodeNews { policy, uri, node, is_there, .. } = news;
        let entry = match self.subscriptions.find(*policy, uri) {
            Some(entry) => entry,
            None => self.subscriptions.insert(*policy, uri, Nodes { id, nodes: Vec::new() }),
        };
        let Some(Nodes { nodes, .. }) = self.subscriptions.get_mut(entry) else { return };
        let place = nodes.iter().position(|(other, _)| other == node);
        match (place, is_there) {
            (Some(place), true) => nodes[place].1 += 1,
            (None, true) => nodes.push((*node, 1)),
            (Some(place), false) => {
                nodes[place].1 -= 1;
                if nodes[place].1 == 0 {
                    nodes.swap_remove(place);
                }
            }
            (None, false) => {}
        }
        if nodes.is_empty() {
            self.subscriptions.remove(entry);
        }
    }
}

/// The node with the greatest weight: when one leaves only its own resources go elsewhere, and when one comes it takes some
/// from each.
pub(super) fn choose(
    nodes: impl Iterator<Item = KeyHash>,
    resource: KeyHash,
    hasher: &FixedState,
) -> Option<KeyHash> {
    nodes.max_by_key(|node| (hasher.hash_one((node.0, resource.0)), node.0))
}

impl Router {
    /// Where a publication with a resource key goes among nodes, by what this core knows.
    pub(super) fn shard(
        &self,
        realm: RealmIndex,
        topic: &str,
        rkey: &str,
        effects: &mut impl Effects,
    ) -> Box<Shard> {
        let realm = &self.realms[usize::from(realm.0)];
        let hasher = realm.broker.id_hasher();
        let resource = resource_hash(hasher, rkey);
        let subscriptions = &realm.sharding.subscriptions;
        let mut chosen = Vec::new();
        let mut seen = 0;
        for entry in subscriptions.matching(topic) {
            let Some(Nodes { id, nodes }) = subscriptions.get(entry) else { continue };
            seen += nodes.len();
            if let Some(node) = choose(nodes.iter().map(|(node, _)| *node), resource, hasher) {
                chosen.push((*id, node));
            }
        }
        effects.searched(seen);
        Box::new(Shard { resource, chosen })
    }

    /// Whether a subscription may have one more node.
    pub(super) fn has_room_for_node(
        &self,
        realm: RealmIndex,
        (policy, uri): (MatchPolicy, &str),
        nkey: &str,
    ) -> bool {
        let realm = &self.realms[usize::from(realm.0)];
        let count = realm.sharding.nodes(policy, uri).map_or(0, <[_]>::len);
        count < self.limits.nodes_per_subscription_max
            || realm.sharding.is_known(policy, uri, node_hash(realm.broker.id_hasher(), nkey))
    }

    /// A session of this core subscribes with a node key, or with none.
    pub(super) fn join_node(
        &mut self,
        key: SessionKey,
        realm: RealmIndex,
        entry: EntryKey,
        nkey: Option<&str>,
        effects: &mut impl Effects,
    ) {
        self.leave_node(key.slot, realm, entry, effects);
        let Some(nkey) = nkey else { return };
        let broker = &mut self.realms[usize::from(realm.0)].broker;
        let node = node_hash(broker.id_hasher(), nkey);
        let Some(nodes) = broker.local_nodes(entry) else { return };
        if nodes.get_or_insert_with(|| Box::new(LocalNodes::new())).add(key.slot, node) {
            self.tell_of_node(realm, entry, node, true, effects);
        }
    }

    /// A session of this core subscribes no longer, or otherwise. The entry is still there.
    pub(super) fn leave_node(
        &mut self,
        slot: u32,
        realm: RealmIndex,
        entry: EntryKey,
        effects: &mut impl Effects,
    ) {
        let broker = &mut self.realms[usize::from(realm.0)].broker;
        let Some(place) = broker.local_nodes(entry) else { return };
        let Some((node, is_last)) = place.as_mut().and_then(|nodes| nodes.remove(slot)) else { return };
        if place.as_ref().is_some_and(|nodes| nodes.is_empty()) {
            *place = None;
        }
        if is_last {
            self.tell_of_node(realm, entry, node, false, effects);
        }
    }

    fn tell_of_node(
        &mut self,
        realm: RealmIndex,
        entry: EntryKey,
        node: KeyHash,
        is_there: bool,
        effects: &mut impl Effects,
    ) {
        let broker = &self.realms[usize::from(realm.0)].broker;
        let Some((_, uri, policy)) = broker.subscription(entry) else { return };
        let news = NodeNews { realm, policy, node, is_there, uri: uri.into() };
        for core in (0..self.cores).map(CoreId).filter(|core| *core != self.core) {
            effects.peer(core, PeerMessage::NodeNews(Box::new(news.clone())));
        }
        self.handle_node_news(&news);
    }

    /// A node came or left, here or on another core.
    pub(super) fn handle_node_news(&mut self, news: &NodeNews) {
        let realm = &mut self.realms[usize::from(news.realm.0)];
        let id = realm.broker.subscription_id(&news.uri, news.policy);
        realm.sharding.set(id, news);
    }
}

pub(super) fn node_hash(hasher: &FixedState, nkey: &str) -> KeyHash {
    KeyHash(hasher.hash_one(("node", nkey)))
}

pub(super) fn resource_hash(hasher: &FixedState, rkey: &str) -> KeyHash {
    KeyHash(hasher.hash_one(("resource", rkey)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(uri: &str, node: u64, is_there: bool) -> NodeNews {
        let (realm, policy) = (RealmIndex(0), MatchPolicy::Exact);
        NodeNews { realm, policy, node: KeyHash(node), is_there, uri: uri.into() }
    }

    #[test]
    fn a_node_that_leaves_takes_only_its_own_with_it() {
        let hasher = FixedState::with_seed(3);
        let of = |nodes: &[u64], resource| {
            choose(nodes.iter().map(|node| KeyHash(*node)), KeyHash(resource), &hasher).map(|node| node.0)
        };
        let mut shares = [0; 4];
        for resource in 0..4_000 {
            let before = of(&[0, 1, 2, 3], resource).unwrap();
            shares[before as usize] += 1;
            let after = of(&[3, 1, 0], resource).unwrap();
            assert!(before == 2 || after == before, "{resource} went from {before} to {after}");
        }
        assert!(shares.iter().all(|share| (800..1_200).contains(share)), "{shares:?}");
        assert_eq!(of(&[], 1), None);
    }

    #[test]
    fn a_node_is_there_as_long_as_any_core_has_it() {
        let mut sharding = Sharding::new(1);
        let id = SubscriptionId(5);
        for is_there in [true, true, false] {
            sharding.set(id, &news("com.a", 7, is_there));
            assert!(sharding.is_known(MatchPolicy::Exact, "com.a", KeyHash(7)));
        }
        sharding.set(id, &news("com.a", 8, true));
        sharding.set(id, &news("com.a", 7, false));
        assert!(!sharding.is_known(MatchPolicy::Exact, "com.a", KeyHash(7)));
        assert_eq!(sharding.len(), 1);
        sharding.set(id, &news("com.a", 8, false));
        assert_eq!(sharding.len(), 0);
    }

    #[test]
    fn sessions_of_a_node_are_counted() {
        let mut nodes = LocalNodes::new();
        assert!(nodes.add(1, KeyHash(7)));
        assert!(!nodes.add(2, KeyHash(7)));
        assert!(nodes.add(3, KeyHash(8)));
        assert_eq!(nodes.remove(1), Some((KeyHash(7), false)));
        assert_eq!(nodes.remove(1), None);
        assert_eq!(nodes.remove(2), Some((KeyHash(7), true)));
        assert_eq!((nodes.node_of(2), nodes.node_of(3)), (None, Some(KeyHash(8))));
        assert_eq!(nodes.choose(KeyHash(1), &FixedState::with_seed(1)), Some(KeyHash(8)));
        assert_eq!(nodes.remove(3), Some((KeyHash(8), true)));
        assert!(nodes.is_empty());
    }
}
