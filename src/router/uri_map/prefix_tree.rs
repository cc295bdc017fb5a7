//! Prefixes in a radix tree over bytes: one walk along the URI, whatever the number of prefixes.

use super::slab::{NONE, Slab};

/// Entry numbers under prefixes.
///
/// Every node but the root has an entry or at least two children, so n prefixes need at most 2 n + 1 nodes.
#[derive(Clone, Debug)]
pub(super) struct PrefixTree {
    nodes: Slab<Node>,
    root: u32,
}

#[derive(Clone, Debug)]
struct Node {
    /// The bytes between the parent and this node; may begin or end inside a character.
    label: Box<[u8]>,
    parent: u32,
    entry: u32,
    /// By the first byte of their label, in order.
    children: Vec<(u8, u32)>,
}

impl PrefixTree {
    pub(super) const fn new() -> Self {
        Self { nodes: Slab::new(), root: NONE }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.root == NONE
    }

    /// The entry of exactly this prefix.
    pub(super) fn find(&self, prefix: &str) -> Option<u32> {
        let node = self.node_of(prefix)?;
        Some(self.nodes[node].entry).filter(|&entry| entry != NONE)
    }

    /// Adds a prefix; if it was there, its entry is replaced.
    pub(super) fn insert(&mut self, prefix: &str, entry: u32) {
        if self.root == NONE {
            self.root = self.nodes.insert(Node::new(b"", NONE, NONE));
        }
        let mut at = self.root;
        let mut rest = prefix.as_bytes();
        while let Some(&first) = rest.first() {
            let Ok(position) = self.nodes[at].position(first) else {
                let leaf = self.nodes.insert(Node::new(rest, at, entry));
                self.nodes[at].link(first, leaf);
                return;
            };
            let mut child = self.nodes[at].children[position].1;
            let common = common_length(&self.nodes[child].label, rest);
            if common < self.nodes[child].label.len() {
                child = self.split(child, common);
            }
            at = child;
            rest = &rest[common..];
        }
        self.nodes[at].entry = entry;
    }

    /// Removes a prefix and the nodes that only it needed.
    pub(super) fn remove(&mut self, prefix: &str) -> Option<u32> {
        let node = self.node_of(prefix)?;
        let entry = std::mem::replace(&mut self.nodes[node].entry, NONE);
        self.prune(node);
        Some(entry).filter(|&entry| entry != NONE)
    }

    /// The node of the longest string in the tree that `uri` begins with: where a walk by `next_match` starts.
    pub(super) fn deepest(&self, uri: &str) -> u32 {
        let mut at = self.root;
        let mut rest = uri.as_bytes();
        if at == NONE {
            return NONE;
        }
        while let Some(child) = self.nodes[at].child(rest)
            && let Some(after) = rest.strip_prefix(&*self.nodes[child].label)
        {
            at = child;
            rest = after;
        }
        at
    }

    /// The first entry from `node` towards the root, which is the longest prefix, and the node to go on from.
    pub(super) fn next_match(&self, mut node: u32) -> Option<(u32, u32)> {
        while node != NONE {
            let Node { entry, parent, .. } = self.nodes[node];
            if entry != NONE {
                return Some((entry, parent));
            }
            node = parent;
        }
        None
    }

    fn node_of(&self, prefix: &str) -> Option<u32> {
        let mut at = self.root;
        let mut rest = prefix.as_bytes();
        if at == NONE {
            return None;
        }
        while !rest.is_empty() {
            at = self.nodes[at].child(rest)?;
            rest = rest.strip_prefix(&*self.nodes[at].label)?;
        }
        Some(at)
    }

    /// Puts a node between `child` and its parent, `length` bytes down the label, and returns it.
    fn split(&mut self, child: u32, length: usize) -> u32 {
        let label = std::mem::take(&mut self.nodes[child].label);
        let (upper, lower) = label.split_at(length);
        let parent = self.nodes[child].parent;
        let middle = self.nodes.insert(Node::new(upper, parent, NONE));
        self.nodes[middle].link(lower[0], child);
        self.nodes[parent].link(upper[0], middle);
        self.nodes[child].label = lower.into();
        self.nodes[child].parent = middle;
        middle
    }

    fn prune(&mut self, mut node: u32) {
        loop {
            let Node { ref label, parent, entry, ref children } = self.nodes[node];
            if entry != NONE {
                return;
            }
            match (children.as_slice(), parent) {
                ([], NONE) => {
                    self.nodes.remove(node);
                    self.root = NONE;
                    return;
                }
                ([], _) => {
                    let first = label[0];
                    self.nodes.remove(node);
                    self.nodes[parent].unlink(first);
                    node = parent;
                }
                (&[(_, child)], _) if parent != NONE => {
                    let merged = [&**label, &*self.nodes[child].label].concat().into_boxed_slice();
                    self.nodes.remove(node);
                    self.nodes[parent].link(merged[0], child);
                    self.nodes[child].label = merged;
                    self.nodes[child].parent = parent;
                    return;
                }
                _ => return,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

impl Node {
    fn new(label: &[u8], parent: u32, entry: u32) -> Self {
        Self { label: label.into(), parent, entry, children: Vec::new() }
    }

    fn position(&self, first: u8) -> Result<usize, usize> {
        self.children.binary_search_by_key(&first, |&(byte, _)| byte)
    }

    fn child(&self, rest: &[u8]) -> Option<u32> {
        let position = self.position(*rest.first()?).ok()?;
        Some(self.children[position].1)
    }

    /// Sets the child under this byte.
    fn link(&mut self, first: u8, child: u32) {
        match self.position(first) {
            Ok(position) => self.children[position].1 = child,
            Err(position) => self.children.insert(position, (first, child)),
        }
    }

    fn unlink(&mut self, first: u8) {
        if let Ok(position) = self.position(first) {
            self.children.remove(position);
        }
        if self.children.len() * 4 < self.children.capacity() {
            self.children.shrink_to_fit();
        }
    }
}

fn common_length(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}
