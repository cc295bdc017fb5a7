//! Values in the order in which they are written: what a payload is between two serializers.

use std::borrow::Cow;
use std::cmp::Ordering;

/// One value, or the head of a list or map, followed by what it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node<'t> {
    List(Extent),
    /// Key, value, key, value, …
    Map(Extent),
    Text(Cow<'t, str>),
    Bytes(Cow<'t, [u8]>),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
    Boolean(bool),
    Null,
}

/// How much of the tape a list or map is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    /// Elements, or entries.
    pub(super) count: usize,
    /// The index behind its last node.
    pub(super) end: usize,
}

impl Node<'_> {
    pub(super) fn signed(value: i64) -> Self {
        match u64::try_from(value) {
            Ok(value) => Self::Unsigned(value),
            Err(_) => Self::Negative(value),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Text(_) => 0,
            Self::Bytes(_) => 1,
            Self::Unsigned(_) => 2,
            Self::Negative(_) => 3,
            Self::Float(_) => 4,
            Self::Boolean(_) => 5,
            Self::Null => 6,
            Self::List(_) | Self::Map(_) => 7,
        }
    }

    /// Any total order in which equal keys are neighbours.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one.cmp(two),
            (Self::Bytes(one), Self::Bytes(two)) => one.cmp(two),
            (Self::Unsigned(one), Self::Unsigned(two)) => one.cmp(two),
            (Self::Negative(one), Self::Negative(two)) => one.cmp(two),
            (Self::Float(one), Self::Float(two)) => one.total_cmp(two),
            (Self::Boolean(one), Self::Boolean(two)) => one.cmp(two),
            (one, two) => one.rank().cmp(&two.rank()),
        }
    }

    /// Whether both are the same key. Lists and maps are never taken for the same.
    pub(super) fn is_same_key(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one == two,
            (one, two) => one.rank() < 7 && one.order(two).is_eq(),
        }
    }
}

/// The most values of one payload that changes serializers: a value of one byte takes more than 50 here, and with
/// simd-json's own notes more than 80.
pub(super) const VALUES_MAX: usize = 1 << 20;

/// Nodes, one value after the other.
#[derive(Debug, Default)]
pub(super) struct Tape<'t> {
    nodes: Vec<Node<'t>>,
    /// There were more than [`VALUES_MAX`]; what is on the tape is not all.
    overflowed: bool,
}

impl<'t> Tape<'t> {
    pub(super) fn push(&mut self, node: Node<'t>) {
        if self.nodes.len() < VALUES_MAX {
            self.nodes.push(node);
        } else {
            self.overflowed = true;
        }
    }

    /// Opens a list or map, which `close` completes.
    pub(super) fn open(&mut self) -> usize {
        self.push(Node::Null);
        self.nodes.len() - 1
    }

    /// Whether there were too many values.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    pub(super) fn close_list(&mut self, opened: usize, count: usize) {
        let end = self.nodes.len();
        self.nodes[opened] = Node::List(Extent { count, end });
    }

    pub(super) fn close_map(&mut self, opened: usize, count: usize) {
        let end = self.nodes.len();
        self.nodes[opened] = Node::Map(Extent { count, end });
    }

    pub(super) fn node(&self, at: usize) -> Option<&Node<'t>> {
        self.nodes.get(at)
    }

    pub(super) fn replace(&mut self, at: usize, node: Node<'t>) {
        if let Some(place) = self.nodes.get_mut(at) {
            *place = node;
        }
    }

    /// The index behind the value at `at`.
    pub(super) fn after(&self, at: usize) -> usize {
        match self.nodes.get(at) {
            Some(Node::List(extent) | Node::Map(extent)) => extent.end,
            _ => at + 1,
        }
    }

    /// An empty tape with the same room: collecting in place keeps the allocation.
    pub(super) fn emptied<'other>(mut self) -> Tape<'other> {
        self.nodes.clear();
        // Nothing is left, so the closure is never called; only the lifetime changes.
        Tape { nodes: self.nodes.into_iter().map_while(|_| None).collect(), overflowed: false }
    }

    pub(super) fn capacity_in_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<'_>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_tape_keeps_its_room() {
        let text = String::from("short lived");
        let mut tape = Tape::default();
        (0..1000).for_each(|_| tape.push(Node::Text(Cow::Borrowed(&text))));
        let before = tape.capacity_in_bytes();
        let tape: Tape<'static> = tape.emptied();
        drop(text);
        assert_eq!(tape.capacity_in_bytes(), before);
        assert_eq!(tape.node(0), None);
    }
}
