//! The nodes of a sharded registration (advanced profile, "Sharded Registration"): callees that registered with node keys.
//!
//! A call with a resource key goes to the node with the greatest weight, as events do ([`crate::router::sharding`]), and
//! within it to the callee that the invocation policy says. What another node has is none of this one's: a call does not go
//! there because its own node has no room, or refuses it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use foldhash::fast::FixedState;

use super::pool::Sequence;
use crate::router::sharding::{KeyHash, choose};

/// Which of a registration's callees a call may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::router) enum Aim {
    /// All of them.
    #[default]
    Any,
    /// Those of the node that has this resource; all of them where no callee has a node.
    Resource(KeyHash),
    /// Those of this node.
    Node(KeyHash),
}

/// The callees of one node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) nkey: Box<str>,
    /// Who its first callee is; `None` for an anonymous session. Only of that one may it be taken over.
    pub(super) authid: Option<Box<str>>,
    /// In the order in which they registered. Ends with the last of them.
    pub(super) callees: BTreeSet<Sequence>,
    /// `roundrobin`: the one that was chosen last.
    last: Sequence,
}

impl Node {
    /// The next in turn of those that may be chosen.
    pub(super) fn next(&mut self, may: impl Fn(&Sequence) -> bool) -> Option<Sequence> {
        let after = self.callees.range((Excluded(self.last), Unbounded));
        let found = after.chain(self.callees.range(..=self.last)).find(|sequence| may(sequence)).copied()?;
        self.last = found;
        Some(found)
    }
}

/// The nodes of one registration.
#[derive(Debug)]
pub(super) struct Nodes {
    /// A node ends with its last callee.
    by_hash: BTreeMap<KeyHash, Node>,
    /// The same as that of subscriptions, so that a resource has its calls where it has its events.
    hasher: FixedState,
}

impl Nodes {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { by_hash: BTreeMap::new(), hasher }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) fn add(&mut self, node: KeyHash, nkey: &str, authid: Option<&str>, sequence: Sequence) {
        let new = || Node {
            nkey: nkey.into(),
            authid: authid.map(Box::from),
            callees: BTreeSet::new(),
            last: Sequence(u64::MAX),
        };
        self.by_hash.entry(node).or_insert_with(new).callees.insert(sequence);
    }

    pub(super) fn remove(&mut self, node: KeyHash, sequence: Sequence) {
        let Some(callees) = self.by_hash.get_mut(&node).map(|node| &mut node.callees) else { return };
        callees.remove(&sequence);
        if callees.is_empty() {
            self.by_hash.remove(&node);
        }
    }

    /// The node that a call is meant for; it may be gone.
    pub(super) fn of(&self, aim: Aim) -> Option<KeyHash> {
        match aim {
            Aim::Any => None,
            Aim::Resource(resource) => choose(self.by_hash.keys().copied(), resource, &self.hasher),
            Aim::Node(node) => Some(node),
        }
    }

    pub(super) fn get(&self, node: KeyHash) -> Option<&Node> {
        self.by_hash.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: KeyHash) -> Option<&mut Node> {
        self.by_hash.get_mut(&node)
    }

    /// All of them, in the order of their keys.
    pub(super) fn by_key(&self) -> Vec<(KeyHash, &str)> {
        let mut all: Vec<_> = self.by_hash.iter().map(|(hash, node)| (*hash, &*node.nkey)).collect();
        all.sort_unstable_by_key(|(_, nkey)| *nkey);
        all
    }
}
