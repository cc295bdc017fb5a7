//! The index of URIs: what a broker and a dealer look topics and procedures up in.
//!
//! Exact URIs are in a hash table, prefixes in a radix tree over bytes, wildcard patterns in a hash table by their shapes.
//! No look-up allocates; without patterns one costs a hash and a comparison. The same inputs give the same order:
//! the hash is keyed by the seed alone.

mod prefix_tree;
mod slab;
mod wildcard_shapes;

use std::hash::BuildHasher;
use std::iter::FusedIterator;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use crate::wamp::options::MatchPolicy;
use crate::wamp::uri::matches;
use prefix_tree::PrefixTree;
use slab::Slab;
use wildcard_shapes::{Search, WildcardShapes};

/// Names an entry of a [`UriMap`] as long as it is there.
///
/// It is a small number: the map uses it again after the entry is removed, the last removed one first. Whoever keeps
/// one must drop it before the entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey(pub u32);

/// Values under (match policy, URI).
///
/// The map does not check URIs: `wamp::uri::check_pattern` does, and bounds their length. How many entries there may
/// be is the caller's to bound (limits a session). An empty map holds no heap.
#[derive(Clone, Debug)]
pub struct UriMap<T> {
    entries: Slab<Entry<T>>,
    exact: HashTable<HashedKey>,
    prefixes: PrefixTree,
    wildcards: WildcardShapes,
    hasher: FixedState,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    uri: Box<str>,
    policy: MatchPolicy,
    value: T,
}

impl<T> UriMap<T> {
    /// An empty map. Maps of one seed behave alike; peers must not know it, or they could choose colliding URIs.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            entries: Slab::new(),
            exact: HashTable::new(),
            prefixes: PrefixTree::new(),
            wildcards: WildcardShapes::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of exactly this policy and URI (or pattern, as it was registered).
    #[must_use]
    pub fn find(&self, policy: MatchPolicy, uri: &str) -> Option<EntryKey> {
        let key = match policy {
            MatchPolicy::Exact => self.find_exact(uri),
            MatchPolicy::Prefix => self.prefixes.find(uri),
            MatchPolicy::Wildcard => {
                self.wildcards.find(&self.hasher, uri, |key| self.wildcard(key).is_some_and(|it| *it == *uri))
            }
        };
        key.map(EntryKey)
    }

    /// Whether an entry can be added without wildcard patterns of more than `shapes_max` shapes among those of its
    /// length: a look-up tries them all. A URI that is there has room.
    #[must_use]
    pub fn has_room(&self, policy: MatchPolicy, uri: &str, shapes_max: usize) -> bool {
        policy != MatchPolicy::Wildcard || self.wildcards.has_room(uri, shapes_max)
    }

    /// Adds an entry. If the policy and URI have one, its value is replaced and its key stays.
    pub fn insert(&mut self, policy: MatchPolicy, uri: &str, value: T) -> EntryKey {
        if let Some(key) = self.find(policy, uri)
            && let Some(entry) = self.entries.get_mut(key.0)
        {
            entry.value = value;
            return key;
        }
        let key = self.entries.insert(Entry { uri: uri.into(), policy, value });
        match policy {
            MatchPolicy::Exact => {
                let hash = self.hash_of(uri);
                HashedKey::insert(&mut self.exact, hash, key);
            }
            MatchPolicy::Prefix => self.prefixes.insert(uri, key),
            MatchPolicy::Wildcard => self.wildcards.insert(&self.hasher, uri, key),
        }
        EntryKey(key)
    }

    /// The value of an entry; `None` if it is gone.
    #[must_use]
    pub fn get(&self, key: EntryKey) -> Option<&T> {
        Some(&self.entries.get(key.0)?.value)
    }

    /// The value of an entry; `None` if it is gone.
    #[must_use]
    pub fn get_mut(&mut self, key: EntryKey) -> Option<&mut T> {
        Some(&mut self.entries.get_mut(key.0)?.value)
    }

    /// What an entry is under; `None` if it is gone.
    #[must_use]
    pub fn uri(&self, key: EntryKey) -> Option<(&str, MatchPolicy)> {
        let entry = self.entries.get(key.0)?;
        Some((&entry.uri, entry.policy))
    }

    /// Removes an entry, and with it every node that only it needed; `None` if it is gone already.
    pub fn remove(&mut self, key: EntryKey) -> Option<T> {
        let Entry { uri, policy, value } = self.entries.remove(key.0)?;
        match policy {
            MatchPolicy::Exact => {
                let hash = self.hash_of(&uri);
                HashedKey::remove(&mut self.exact, hash, key.0);
            }
            MatchPolicy::Prefix => drop(self.prefixes.remove(&uri)),
            MatchPolicy::Wildcard => self.wildcards.remove(&self.hasher, &uri, key.0),
        }
        Some(value)
    }

    /// Every entry, by key.
    pub fn iter(&self) -> impl Iterator<Item = (EntryKey, &str, MatchPolicy, &T)> {
        self.entries.iter().map(|(key, entry)| (EntryKey(key), &*entry.uri, entry.policy, &entry.value))
    }

    /// Every entry that matches `uri` (`wamp::uri::matches`), the best first: the exact one, then prefixes, the longest
    /// first, then wildcard patterns by their runs of named components (advanced profile, "Pattern-based
    /// Registrations": calls matching multiple registrations).
    pub fn matching<'a>(&'a self, uri: &'a str) -> Matching<'a, T> {
        Matching { map: self, uri, stage: Stage::Exact, shapes_tried: 0 }
    }

    /// The one entry that a call of `uri` goes to: the first of [`Self::matching`].
    #[must_use]
    pub fn best(&self, uri: &str) -> Option<EntryKey> {
        self.matching(uri).next()
    }

    /// The pattern of an entry, if it is a wildcard pattern.
    fn wildcard(&self, key: u32) -> Option<&str> {
        let entry = self.entries.get(key)?;
        (entry.policy == MatchPolicy::Wildcard).then_some(&entry.uri)
    }

    fn hash_of(&self, uri: &str) -> u32 {
        self.hasher.hash_one(uri) as u32
    }

    fn find_exact(&self, uri: &str) -> Option<u32> {
        if self.exact.is_empty() {
            return None;
        }
        HashedKey::find(&self.exact, self.hash_of(uri), |key| {
            self.entries.get(key).is_some_and(|entry| *entry.uri == *uri)
        })
    }
}

/// The entries that match a URI: [`UriMap::matching`].
#[derive(Debug)]
pub struct Matching<'a, T> {
    map: &'a UriMap<T>,
    uri: &'a str,
    stage: Stage,
    shapes_tried: usize,
}

impl<T> Matching<'_, T> {
    /// What the look-up has cost so far: the shapes of wildcard patterns that it tried.
    #[must_use]
    pub fn shapes_tried(&self) -> usize {
        self.shapes_tried
    }
}

/// What is looked at next. A look-up that stops early has done nothing for the later stages.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lies on the stack, and a look-up must not allocate")]
enum Stage {
    Exact,
    DeepestPrefix,
    Prefixes(u32),
    FirstWildcard,
    Wildcards(Search),
    Done,
}

impl<T> Iterator for Matching<'_, T> {
    type Item = EntryKey;

    fn next(&mut self) -> Option<EntryKey> {
        loop {
            match &mut self.stage {
                Stage::Exact => {
                    self.stage = Stage::DeepestPrefix;
                    if let Some(key) = self.map.find_exact(self.uri) {
                        return Some(EntryKey(key));
                    }
                }
                Stage::DeepestPrefix if self.map.prefixes.is_empty() => self.stage = Stage::FirstWildcard,
                Stage::DeepestPrefix => self.stage = Stage::Prefixes(self.map.prefixes.deepest(self.uri)),
                Stage::Prefixes(node) => match self.map.prefixes.next_match(*node) {
                    Some((key, parent)) => {
                        *node = parent;
                        return Some(EntryKey(key));
                    }
                    None => self.stage = Stage::FirstWildcard,
                },
                Stage::FirstWildcard => {
                    let search = self.map.wildcards.search(&self.map.hasher, self.uri);
                    self.stage = search.map_or(Stage::Done, Stage::Wildcards);
                }
                Stage::Wildcards(search) => {
                    let (map, uri) = (self.map, self.uri);
                    // The hash is no proof: another pattern may have it, and match as well.
                    let has_shape = |key, named| {
                        map.wildcard(key).is_some_and(|pattern| {
                            wildcard_shapes::shape_of(pattern).0 == named
                                && matches(pattern, MatchPolicy::Wildcard, uri)
                        })
                    };
                    let found = map.wildcards.next_match(&map.hasher, search, has_shape);
                    self.shapes_tried = search.tried;
                    match found {
                        Some(key) => return Some(EntryKey(key)),
                        None => self.stage = Stage::Done,
                    }
                }
                Stage::Done => return None,
            }
        }
    }
}

impl<T> FusedIterator for Matching<'_, T> {}

/// An element of a hash table of keys: with its hash, so that a growing table reads nothing but itself, and a look-up
/// only strings that are very likely the right one.
#[derive(Clone, Copy, Debug)]
struct HashedKey {
    hash: u32,
    key: u32,
}

impl HashedKey {
    /// Tables shrink when they hold less than this part of what they could.
    const SHRINK_BELOW: usize = 8;
    /// Tables of at most this many do not shrink before they are empty.
    const SHRINK_ABOVE: usize = 64;

    /// The table takes its place from the lower bits and its tag from the topmost.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }

    fn find(table: &HashTable<Self>, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found = table.find(Self::spread(hash), |element| element.hash == hash && is_it(element.key));
        found.map(|element| element.key)
    }

    fn insert(table: &mut HashTable<Self>, hash: u32, key: u32) {
        table.insert_unique(Self::spread(hash), Self { hash, key }, |element| Self::spread(element.hash));
    }

    fn remove(table: &mut HashTable<Self>, hash: u32, key: u32) {
        if let Ok(element) = table.find_entry(Self::spread(hash), |element| element.key == key) {
            element.remove();
        }
        if table.is_empty() {
            *table = HashTable::new();
        } else if table.capacity() > Self::SHRINK_ABOVE.max(table.len() * Self::SHRINK_BELOW) {
            table.shrink_to(table.len() * 2, |element| Self::spread(element.hash));
        }
    }
}

// The cost sheet: what a subscription or registration costs beside its URI and value.
const _: () = assert!(size_of::<HashedKey>() == 8);
const _: () = assert!(size_of::<Entry<u64>>() <= 32);
const _: () = assert!(size_of::<Option<Entry<u64>>>() == size_of::<Entry<u64>>());

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;
    use crate::wamp::uri::COMPONENTS_MAX;
    use MatchPolicy::{Exact, Prefix, Wildcard};

    fn uris<'a>(map: &'a UriMap<&'static str>, uri: &'a str) -> Vec<&'static str> {
        map.matching(uri).map(|key| *map.get(key).unwrap()).collect()
    }

    #[test]
    fn the_best_is_that_of_the_specification() {
        // The shape of the example of the advanced profile, under names of our own.
        let mut map = UriMap::new(7);
        for (name, policy, uri) in [
            ("exact", Exact, "shop.eu.order.add.v12"),
            ("short prefix", Prefix, "shop.eu.order"),
            ("long prefix", Prefix, "shop.eu.order.add"),
            ("late name", Wildcard, "shop.eu..add.v1"),
            ("early name", Wildcard, "shop.eu.stock..v1"),
            ("long second run", Wildcard, "shop.eu..add.v1..log"),
            ("short second run", Wildcard, "shop.eu..add..raw.log"),
        ] {
            map.insert(policy, uri, name);
        }
        for (call, expected) in [
            ("shop.eu.order.add.v12", Some("exact")),
            ("shop.eu.order.drop.v9", Some("short prefix")),
            ("shop.eu.order.add.v3", Some("long prefix")),
            ("shop.eu.price.add.v1", Some("late name")),
            ("shop.eu.stock.add.v1", Some("early name")),
            ("shop.eu.price.add.v1.raw.log", Some("long second run")),
            ("mall.eu.price.add.v1", None),
        ] {
            assert_eq!(map.best(call).map(|key| *map.get(key).unwrap()), expected, "{call}");
        }
        assert_eq!(uris(&map, "shop.eu.order.add.v12"), ["exact", "long prefix", "short prefix"]);
        assert_eq!(uris(&map, "shop.eu.stock.add.v1"), ["early name", "late name"]);
    }

    #[test]
    fn keys_are_stable_and_policies_apart() {
        let mut map = UriMap::new(1);
        let keys = [Exact, Prefix, Wildcard].map(|policy| map.insert(policy, "com.a", policy.as_str()));
        for (key, policy) in keys.into_iter().zip([Exact, Prefix, Wildcard]) {
            assert_eq!(map.find(policy, "com.a"), Some(key));
            assert_eq!(map.uri(key), Some(("com.a", policy)));
        }
        assert_eq!(uris(&map, "com.a"), ["exact", "prefix", "wildcard"]);
        assert_eq!(map.remove(keys[1]), Some("prefix"));
        assert_eq!(map.remove(keys[1]), None);
        assert_eq!((map.get(keys[1]), map.uri(keys[1]), map.len()), (None, None, 2));
        assert_eq!(map.insert(Exact, "com.a", "again"), keys[0]);
        *map.get_mut(keys[2]).unwrap() = "changed";
        assert_eq!(uris(&map, "com.a"), ["again", "changed"]);
        assert_eq!(map.iter().map(|(key, ..)| key).collect::<Vec<_>>(), [keys[0], keys[2]]);
    }

    #[test]
    fn the_empty_prefix_and_the_single_wildcard() {
        let mut map = UriMap::new(1);
        map.insert(Prefix, "", "all");
        map.insert(Wildcard, "", "one");
        map.insert(Wildcard, ".", "two");
        assert_eq!(uris(&map, "com"), ["all", "one"]);
        assert_eq!(uris(&map, "com.a"), ["all", "two"]);
        assert_eq!(uris(&map, "com.a.b"), ["all"]);
    }

    #[test]
    fn tables_shrink_and_an_empty_map_holds_no_heap() {
        let mut map = UriMap::new(3);
        let name = |index: usize| format!("com.example.{index}.topic");
        let keys: Vec<EntryKey> = (0..20_000)
            .map(|index| map.insert([Exact, Prefix, Wildcard][index % 3], &name(index), index))
            .collect();
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(map.best(&name(index)), Some(*key));
        }
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(map.remove(*key), Some(index));
            assert!(map.exact.capacity() <= 64.max(16 * map.exact.len()));
        }
        assert!(map.is_empty() && map.prefixes.is_empty());
        assert_eq!((map.exact.capacity(), map.prefixes.node_count()), (0, 0));
        assert!(!map.wildcards.holds_heap());
    }

    #[test]
    fn a_look_up_costs_shapes_and_not_patterns() {
        let mut map = UriMap::new(5);
        let uri = |number: usize| format!("com.{number}.a.b.c.d.e.f");
        // A thousand patterns that begin and end in names of their own, in three shapes.
        for number in 0..1000 {
            for pattern in ["com.{}..b.c.d.e.", "com.{}.a..c.d.e.f", "com.{}.a.b.c...g"] {
                map.insert(Wildcard, &pattern.replace("{}", &number.to_string()), "pattern");
            }
        }
        let looked_up = uri(7);
        let mut matching = map.matching(&looked_up);
        assert_eq!(matching.by_ref().count(), 2);
        assert_eq!(matching.shapes_tried(), 3);
        let other_length = "com.7.a";
        let mut matching = map.matching(other_length);
        assert_eq!((matching.by_ref().count(), matching.shapes_tried()), (0, 0));
    }

    #[test]
    fn shapes_have_room_up_to_their_bound() {
        let mut map = UriMap::new(5);
        let first = map.insert(Wildcard, "com..a", "one");
        assert!(map.has_room(Wildcard, "com..b", 1), "a shape that is there");
        assert!(!map.has_room(Wildcard, ".com.b", 1));
        assert!(map.has_room(Wildcard, ".com", 1), "shapes of another length");
        assert!(map.has_room(Exact, "com.a.b", 0) && map.has_room(Prefix, "com.a", 0));
        map.insert(Wildcard, "com..b", "two");
        map.remove(first);
        assert!(!map.has_room(Wildcard, ".com.b", 1), "one pattern still has it");
    }

    #[test]
    fn patterns_as_long_as_may_be_match() {
        let mut map = UriMap::new(9);
        let longest = vec!["c"; COMPONENTS_MAX].join(".");
        map.insert(Wildcard, &".".repeat(COMPONENTS_MAX - 1), "any");
        map.insert(Wildcard, &format!("{}x", longest.trim_end_matches('c')), "other end");
        map.insert(Wildcard, &longest[..longest.len() - 1], "open end");
        assert_eq!(uris(&map, &longest), ["open end", "any"]);
        let longer = format!("{longest}.c");
        let key = map.insert(Wildcard, &longer, "too long");
        assert_eq!(uris(&map, &longer), Vec::<&str>::new());
        assert_eq!(map.remove(key), Some("too long"));
    }

    /// Runs of named components, as the specification counts them.
    fn runs(pattern: &str) -> Vec<usize> {
        let mut runs = vec![0];
        for component in pattern.split('.') {
            match runs.last_mut() {
                Some(run) if !component.is_empty() => *run += 1,
                _ => runs.push(0),
            }
        }
        runs
    }

    fn naive(entries: &[(MatchPolicy, String, EntryKey)], uri: &str) -> Vec<EntryKey> {
        let mut found: Vec<_> =
            entries.iter().filter(|(policy, pattern, _)| matches(pattern, *policy, uri)).collect();
        found.sort_by_key(|(policy, pattern, _)| match policy {
            Wildcard => (*policy, Reverse(runs(pattern))),
            _ => (*policy, Reverse(vec![pattern.len()])),
        });
        found.into_iter().map(|(_, _, key)| *key).collect()
    }

    /// Few components, some of which begin alike, two inside one character.
    fn any_uri() -> impl Strategy<Value = String> {
        let component = prop::sample::select(vec!["", "", "a", "b", "ab", "abc", "é", "è"]);
        prop::collection::vec(component, 1..6).prop_map(|components| components.join("."))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(MatchPolicy, String),
        Remove(prop::sample::Index),
        Look(String),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let policy = prop::sample::select(vec![Exact, Prefix, Wildcard]);
        prop_oneof![
            3 => (policy, any_uri()).prop_map(|(policy, uri)| Step::Insert(policy, uri)),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            3 => any_uri().prop_map(Step::Look),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_matcher(seed: u64, steps in prop::collection::vec(any_step(), 1..120)) {
            let mut map = UriMap::new(seed);
            let mut entries: Vec<(MatchPolicy, String, EntryKey)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(policy, uri) => {
                        let known = entries.iter().find(|(p, u, _)| (*p, u) == (policy, &uri)).map(|e| e.2);
                        prop_assert_eq!(map.find(policy, &uri), known);
                        let key = map.insert(policy, &uri, number);
                        prop_assert_eq!(known.unwrap_or(key), key);
                        prop_assert_eq!(map.get(key), Some(&number));
                        if known.is_none() {
                            prop_assert!(entries.iter().all(|entry| entry.2 != key));
                            entries.push((policy, uri, key));
                        }
                    }
                    Step::Remove(index) if !entries.is_empty() => {
                        let (policy, uri, key) = entries.swap_remove(index.index(entries.len()));
                        prop_assert_eq!(map.uri(key), Some((&*uri, policy)));
                        prop_assert!(map.remove(key).is_some());
                        prop_assert_eq!(map.find(policy, &uri), None);
                    }
                    Step::Remove(_) => {}
                    Step::Look(uri) => {
                        let expected = naive(&entries, &uri);
                        prop_assert_eq!(map.best(&uri), expected.first().copied());
                        prop_assert_eq!(map.matching(&uri).collect::<Vec<_>>(), expected);
                    }
                }
                prop_assert_eq!(map.len(), entries.len());
                let prefix_count = entries.iter().filter(|entry| entry.0 == Prefix).count();
                prop_assert!(map.prefixes.node_count() <= 2 * prefix_count + 1);
            }
            for (_, _, key) in entries {
                prop_assert!(map.remove(key).is_some());
            }
            prop_assert!(map.is_empty() && map.exact.is_empty());
            prop_assert_eq!(map.prefixes.node_count(), 0);
            prop_assert!(!map.wildcards.holds_heap());
        }
    }
}
