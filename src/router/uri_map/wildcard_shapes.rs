//! Wildcard patterns by their shapes.
//!
//! The shape of a pattern is its length and which of its components are named. A URI and a shape leave one pattern that
//! could match: the one that has the URI's own components in the named places. So a look-up is one probe of a hash table
//! for each shape that patterns of the URI's length have, however many patterns there are, and whoever bounds the
//! shapes bounds the look-up. (A tree over components would go down every path that begins like the URI.)

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::HashedKey;
use crate::wamp::uri::COMPONENTS_MAX;

/// Entry numbers under wildcard patterns.
#[derive(Clone, Debug)]
pub(super) struct WildcardShapes {
    patterns: HashTable<HashedKey>,
    /// The shapes that patterns have, by the number of components less one; those of each length the best first.
    by_length: Vec<Vec<Shape>>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    named: Named,
    /// How many patterns have it.
    count: u32,
}

/// Which components are named: the first one is the highest bit. The greater of two is the better one: two patterns
/// that match one URI are equal up to the first place where only one of them has a name, and there that one's run of
/// names is longer (advanced profile, "Pattern-based Registrations").
type Named = u128;

const _: () = assert!(COMPONENTS_MAX == Named::BITS as usize);

/// Where a search is, and all that it has to know of the URI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    /// Of the components, each in its place.
    hashes: [u64; COMPONENTS_MAX],
    /// The sum of them.
    sum: u64,
    length: usize,
    /// How many shapes have been tried.
    pub(super) tried: usize,
}

impl Search {
    /// The sum of the components in the named places: of them, or of all without the others, whichever are fewer.
    fn sum_of(&self, named: Named) -> u64 {
        let unnamed = !named & all(self.length);
        let add = named.count_ones() < unnamed.count_ones();
        let mut places = if add { named } else { unnamed };
        let mut sum = 0_u64;
        while places != 0 {
            let place = places.leading_zeros();
            places &= !(FIRST >> place);
            sum = sum.wrapping_add(self.hashes[place as usize]);
        }
        if add { sum } else { self.sum.wrapping_sub(sum) }
    }
}

impl WildcardShapes {
    pub(super) const fn new() -> Self {
        Self { patterns: HashTable::new(), by_length: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The entry for which `is_it`, which is asked of very few: that of exactly this pattern.
    pub(super) fn find(
        &self,
        hasher: &FixedState,
        pattern: &str,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        HashedKey::find(&self.patterns, hash_of(hasher, pattern), is_it)
    }

    /// Whether a pattern can be added without more than `shapes_max` shapes of one length.
    pub(super) fn has_room(&self, pattern: &str, shapes_max: usize) -> bool {
        let (named, length) = shape_of(pattern);
        let Some(shapes) = self.by_length.get(length - 1) else { return shapes_max > 0 };
        shapes.len() < shapes_max || shapes.binary_search_by(|shape| named.cmp(&shape.named)).is_ok()
    }

    /// Adds a pattern that is not there.
    pub(super) fn insert(&mut self, hasher: &FixedState, pattern: &str, entry: u32) {
        HashedKey::insert(&mut self.patterns, hash_of(hasher, pattern), entry);
        let (named, length) = shape_of(pattern);
        if self.by_length.len() < length {
            self.by_length.resize_with(length, Vec::new);
        }
        let shapes = &mut self.by_length[length - 1];
        match shapes.binary_search_by(|shape| named.cmp(&shape.named)) {
            Ok(place) => shapes[place].count += 1,
            Err(place) => shapes.insert(place, Shape { named, count: 1 }),
        }
    }

    /// Removes a pattern that is there, and its shape if it was the last one that has it.
    pub(super) fn remove(&mut self, hasher: &FixedState, pattern: &str, entry: u32) {
        HashedKey::remove(&mut self.patterns, hash_of(hasher, pattern), entry);
        let (named, length) = shape_of(pattern);
        let Some(shapes) = self.by_length.get_mut(length - 1) else { return };
        let Ok(place) = shapes.binary_search_by(|shape| named.cmp(&shape.named)) else { return };
        shapes[place].count -= 1;
        if shapes[place].count == 0 {
            shapes.remove(place);
        }
        if shapes.is_empty() {
            *shapes = Vec::new();
        }
        while self.by_length.last().is_some_and(Vec::is_empty) {
            self.by_length.pop();
        }
        if self.by_length.is_empty() {
            self.by_length = Vec::new();
        }
    }

    /// Where the search for the patterns that match `uri` begins; `None` if none has its length.
    pub(super) fn search(&self, hasher: &FixedState, uri: &str) -> Option<Search> {
        if self.is_empty() {
            return None;
        }
        let length = component_count(uri);
        if length > COMPONENTS_MAX || self.by_length.get(length - 1).is_none_or(Vec::is_empty) {
            return None;
        }
        let mut search = Search { hashes: [0; COMPONENTS_MAX], sum: 0, length, tried: 0 };
        for (place, component) in uri.split('.').enumerate() {
            let hash = component_hash(hasher, place, component);
            search.hashes[place] = hash;
            search.sum = search.sum.wrapping_add(hash);
        }
        Some(search)
    }

    /// The entry of the next pattern that matches. `has_shape` tells whether an entry is the pattern of this shape that
    /// matches; it is asked of very few.
    pub(super) fn next_match(
        &self,
        hasher: &FixedState,
        search: &mut Search,
        has_shape: impl Fn(u32, u128) -> bool,
    ) -> Option<u32> {
        let shapes = self.by_length.get(search.length - 1)?;
        while let Some(shape) = shapes.get(search.tried) {
            search.tried += 1;
            let sum = search.sum_of(shape.named);
            let hash = finish(hasher, search.length, sum);
            if let Some(entry) = HashedKey::find(&self.patterns, hash, |key| has_shape(key, shape.named)) {
                return Some(entry);
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn holds_heap(&self) -> bool {
        self.patterns.capacity() > 0 || self.by_length.capacity() > 0
    }
}

/// The first component.
const FIRST: Named = 1 << (COMPONENTS_MAX - 1);

/// All components of a URI of this length.
fn all(length: usize) -> Named {
    !(Named::MAX.checked_shr(length as u32).unwrap_or(0))
}

/// Which components of a pattern are named, and how many there are.
pub(super) fn shape_of(pattern: &str) -> (Named, usize) {
    let mut named = 0;
    let mut length = 0;
    for (place, component) in pattern.split('.').enumerate() {
        if !component.is_empty() {
            named |= FIRST.checked_shr(place as u32).unwrap_or(0);
        }
        length = place + 1;
    }
    (named, length)
}

fn component_count(uri: &str) -> usize {
    uri.bytes().filter(|byte| *byte == b'.').count() + 1
}

fn component_hash(hasher: &FixedState, place: usize, component: &str) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_usize(place);
    state.write(component.as_bytes());
    state.finish()
}

/// Sums, because what is not named can be taken out of the sum of all.
fn finish(hasher: &FixedState, length: usize, sum: u64) -> u32 {
    hasher.hash_one((length, sum)) as u32
}

fn hash_of(hasher: &FixedState, pattern: &str) -> u32 {
    let mut sum = 0_u64;
    let mut length = 0;
    for (place, component) in pattern.split('.').enumerate() {
        if !component.is_empty() {
            sum = sum.wrapping_add(component_hash(hasher, place, component));
        }
        length = place + 1;
    }
    finish(hasher, length, sum)
}
