//! Wildcard patterns in a tree of components, one tree for each number of components.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::HashedKey;
use super::slab::{NONE, Slab};

/// Entry numbers under wildcard patterns.
///
/// Every leaf has an entry and only leaves have one: a pattern ends where all patterns of its length end. So a search
/// visits no node that is not the beginning of a pattern of the URI's length.
#[derive(Clone, Debug)]
pub(super) struct WildcardTree {
    nodes: Slab<Node>,
    /// The named children of all nodes, by (parent, component).
    named: HashTable<HashedKey>,
    /// The roots, by the number of components less one.
    roots: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node {
    /// Empty in roots and in those that stand for any component.
    component: Box<str>,
    parent: u32,
    /// The child that stands for any component.
    any: u32,
    named_count: u32,
    entry: u32,
}

/// Where a search is. It goes down from `node` with the component that begins at byte `at` (after the whole URI that
/// is its length + 1), or back up from it. All that it needs to go back is in the tree and in the URI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    node: u32,
    at: usize,
    down: bool,
}

impl WildcardTree {
    pub(super) const fn new() -> Self {
        Self { nodes: Slab::new(), named: HashTable::new(), roots: Vec::new() }
    }

    /// The entry of exactly this pattern.
    pub(super) fn find(&self, hasher: &FixedState, pattern: &str) -> Option<u32> {
        Some(self.nodes[self.node_of(hasher, pattern)?].entry)
    }

    /// Adds a pattern; if it was there, its entry is replaced.
    pub(super) fn insert(&mut self, hasher: &FixedState, pattern: &str, entry: u32) {
        let length = dot_count(pattern);
        if self.roots.len() <= length {
            self.roots.resize(length + 1, NONE);
        }
        if self.roots[length] == NONE {
            self.roots[length] = self.nodes.insert(Node::new("", NONE));
        }
        let mut at = self.roots[length];
        for component in pattern.split('.') {
            at = match self.child(hasher, at, component) {
                Some(child) => child,
                None => self.add_child(hasher, at, component),
            };
        }
        self.nodes[at].entry = entry;
    }

    /// Removes a pattern and the nodes that only it needed.
    pub(super) fn remove(&mut self, hasher: &FixedState, pattern: &str) -> Option<u32> {
        let mut at = self.node_of(hasher, pattern)?;
        let entry = self.nodes[at].entry;
        while self.nodes[at].is_childless() {
            let Some(Node { component, parent, .. }) = self.nodes.remove(at) else { break };
            if parent == NONE {
                self.remove_root(dot_count(pattern));
                break;
            }
            if component.is_empty() {
                self.nodes[parent].any = NONE;
            } else {
                self.nodes[parent].named_count -= 1;
                let hash = hash_of(hasher, parent, &component);
                HashedKey::remove(&mut self.named, hash, at);
            }
            at = parent;
        }
        Some(entry)
    }

    /// Where the search for the patterns that match `uri` begins.
    pub(super) fn search(&self, uri: &str) -> Option<Cursor> {
        if self.roots.is_empty() {
            return None;
        }
        let root = *self.roots.get(dot_count(uri))?;
        (root != NONE).then_some(Cursor { node: root, at: 0, down: true })
    }

    /// The entry of the next pattern that matches.
    ///
    /// Named components come before those that stand for any, first components count first. That is the precedence of
    /// the advanced profile ("Pattern-based Registrations"): two patterns that match one URI are equal up to the
    /// first place where only one of them has a name, and there that one's run of names is longer.
    pub(super) fn next_match(&self, hasher: &FixedState, uri: &str, cursor: &mut Cursor) -> Option<u32> {
        let Cursor { mut node, mut at, mut down } = *cursor;
        loop {
            if !down {
                let Node { parent, .. } = self.nodes[node];
                if parent == NONE {
                    return None;
                }
                // `at` is behind the dot that ends the component which led here.
                let before = &uri.as_bytes()[..at - 1];
                let any = self.nodes[parent].any;
                if any != NONE && any != node {
                    node = any;
                    down = true;
                } else {
                    at = before.iter().rposition(|&byte| byte == b'.').map_or(0, |dot| dot + 1);
                    node = parent;
                }
            } else if at > uri.len() {
                *cursor = Cursor { node, at, down: false };
                return Some(self.nodes[node].entry);
            } else {
                let component = component_at(uri, at);
                let Node { any, .. } = self.nodes[node];
                match self.named_child(hasher, node, component).or_else(|| (any != NONE).then_some(any)) {
                    Some(child) => {
                        node = child;
                        at += component.len() + 1;
                    }
                    None => down = false,
                }
            }
        }
    }

    fn node_of(&self, hasher: &FixedState, pattern: &str) -> Option<u32> {
        let root = *self.roots.get(dot_count(pattern))?;
        if root == NONE {
            return None;
        }
        pattern.split('.').try_fold(root, |node, component| self.child(hasher, node, component))
    }

    /// The child for a component of a pattern.
    fn child(&self, hasher: &FixedState, parent: u32, component: &str) -> Option<u32> {
        if component.is_empty() {
            return Some(self.nodes[parent].any).filter(|&child| child != NONE);
        }
        self.named_child(hasher, parent, component)
    }

    fn named_child(&self, hasher: &FixedState, parent: u32, component: &str) -> Option<u32> {
        if self.nodes[parent].named_count == 0 {
            return None;
        }
        HashedKey::find(&self.named, hash_of(hasher, parent, component), |node| {
            let node = &self.nodes[node];
            node.parent == parent && *node.component == *component
        })
    }

    fn add_child(&mut self, hasher: &FixedState, parent: u32, component: &str) -> u32 {
        let child = self.nodes.insert(Node::new(component, parent));
        if component.is_empty() {
            self.nodes[parent].any = child;
            return child;
        }
        self.nodes[parent].named_count += 1;
        HashedKey::insert(&mut self.named, hash_of(hasher, parent, component), child);
        child
    }

    fn remove_root(&mut self, length: usize) {
        self.roots[length] = NONE;
        while self.roots.last() == Some(&NONE) {
            self.roots.pop();
        }
        if self.roots.is_empty() {
            self.roots = Vec::new();
        }
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len() + self.named.len() + self.roots.len()
    }
}

impl Node {
    fn new(component: &str, parent: u32) -> Self {
        Self { component: component.into(), parent, any: NONE, named_count: 0, entry: NONE }
    }

    const fn is_childless(&self) -> bool {
        self.any == NONE && self.named_count == 0
    }
}

fn hash_of(hasher: &FixedState, parent: u32, component: &str) -> u32 {
    let mut state = hasher.build_hasher();
    state.write_u32(parent);
    state.write(component.as_bytes());
    state.finish() as u32
}

fn dot_count(uri: &str) -> usize {
    uri.bytes().filter(|&byte| byte == b'.').count()
}

fn component_at(uri: &str, at: usize) -> &str {
    let rest = &uri[at..];
    rest.find('.').map_or(rest, |dot| &rest[..dot])
}
