//! What a realm retains for those who subscribe later (advanced profile, "Event Retention").
//!
//! Every core has a copy of its own: a publication to be retained goes to all of them, whoever subscribes there, and the
//! payload itself is shared. Cores hear of two publications in any order, so it is not the order that decides but the
//! stamp (R12): whatever came when, all of them end with the same events.
//!
//! Of a topic the newest event that everybody may receive is kept, and those newer than it that have lists of who may. A
//! subscriber gets the newest of them that it would have received.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::Router;
use super::delivery::{Delivery, deliver};
use super::effects::{Effects, EventFrames, Sent, Transcoded};
use super::fault::Fault;
use super::peer::{CoreId, Letter, PublicationHead, RealmIndex, Retain, SessionKey, Stamp};
use super::uri_map::EntryKey;
use crate::config;
use crate::wamp::options::PublishOptions;
use crate::wamp::uri::matches;
use crate::wamp::{MatchPolicy, PublicationId, SessionId};

/// A publication as it crosses rings, and as it is kept.
pub(super) type Publication = Arc<Letter<PublicationHead>>;

/// How many events with lists of receivers a topic may have beside the one for everybody.
const LISTED_MAX: usize = 16;

/// What ended stays for this long, so that what is older than it and still on its way does not take its place.
const GRACE_US: u64 = 10_000_000;

/// What an event costs beside what it holds: its places in the maps below.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// An event that is retained.
#[derive(Debug)]
struct Kept {
    retain: Retain,
    publication: Publication,
}

impl Kept {
    fn lives(&self, now_us: u64) -> bool {
        self.retain.until_us.is_none_or(|until_us| now_us < until_us)
    }

    fn is_for_everybody(&self) -> bool {
        self.publication.head.audience.is_none()
    }

    fn bytes(&self) -> usize {
        self.publication.body.len() + self.publication.head.bytes() + EVENT_OVERHEAD_BYTES
    }
}

/// The events of all realms of a core that end by themselves, by the time when they are forgotten; each ends with its event.
pub(super) type Endings = BTreeSet<(u64, RealmIndex, Stamp)>;

/// What a realm retains, on one core.
#[derive(Debug)]
pub(super) struct Retained {
    /// By topic, the newest event first. Ends when its last event does: replaced, over its time, or the oldest of the realm
    /// when there are too many.
    topics: BTreeMap<Arc<str>, Vec<Kept>>,
    /// The topic of every event, the oldest first.
    by_stamp: BTreeMap<Stamp, Arc<str>>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// The largest stamp seen, so that the next one is larger wherever its core's clock stands.
    largest_us: u64,
    /// The largest stamp that was forgotten. What is older came too late, and all cores must agree on that.
    floor: Stamp,
}

impl Retained {
    pub(super) fn new(limits: &config::Limits) -> Self {
        Self {
            topics: BTreeMap::new(),
            by_stamp: BTreeMap::new(),
            bytes: 0,
            events_max: limits.retained_events_per_realm_max,
            bytes_max: limits.retained_bytes_per_realm_max,
            largest_us: 0,
            floor: Stamp::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.by_stamp.len(), self.topics.values().map(Vec::len).sum::<usize>());
        self.by_stamp.len()
    }

    /// How a publication of this core is to be retained, if it is.
    pub(super) fn stamp(
        &mut self,
        now_us: u64,
        core: CoreId,
        publisher: SessionId,
        options: &PublishOptions<'_>,
    ) -> Option<Retain> {
        if !options.retain || self.events_max == 0 {
            return None;
        }
        let time_us = now_us.max(self.largest_us + 1);
        self.largest_us = time_us;
        let until_us = options.ttl_ms.map(|ttl_ms| now_us.saturating_add(ttl_ms.saturating_mul(1000)));
        let excluded = options.exclude_me.then_some(publisher);
        Some(Retain { stamp: Stamp { time_us, core: core.0 }, until_us, excluded })
    }

    /// Keeps a publication, unless a later one is there already. Whether it did, and how many were forgotten for it.
    fn keep(&mut self, publication: &Publication, retain: Retain, endings: &mut Endings) -> (bool, usize) {
        let stamp = retain.stamp;
        self.largest_us = self.largest_us.max(stamp.time_us);
        if stamp <= self.floor {
            return (false, 0);
        }
        let kept = Kept { retain, publication: Arc::clone(publication) };
        // For it all others of the realm would be forgotten, and then itself.
        if kept.bytes() > self.bytes_max {
            return (false, 1);
        }
        let topic = publication.body.uri();
        let audience = &publication.head.audience;
        let replaces = |kept: &Kept| audience.is_none() || kept.publication.head.audience == *audience;
        let before = self.topics.get_key_value(topic).map(|(topic, kept)| (Arc::clone(topic), kept));
        let topic = match before {
            Some((topic, kept)) => {
                let is_late = kept.iter().any(|kept| {
                    kept.retain.stamp >= stamp
                        && (kept.is_for_everybody() || kept.publication.head.audience == *audience)
                });
                if is_late {
                    return (false, 0);
                }
                let replaced: Vec<Stamp> = kept
                    .iter()
                    .filter(|kept| kept.retain.stamp < stamp && replaces(kept))
                    .map(|kept| kept.retain.stamp)
                    .collect();
                replaced.into_iter().for_each(|stamp| self.remove(stamp, endings));
                topic
            }
            None => Arc::from(topic),
        };
        self.bytes += kept.bytes();
        self.by_stamp.insert(stamp, Arc::clone(&topic));
        if let Some(until_us) = retain.until_us {
            endings.insert((forgotten_at(until_us), publication.head.realm, stamp));
        }
        let all = self.topics.entry(topic).or_default();
        let place = all.partition_point(|other| other.retain.stamp > stamp);
        all.insert(place, kept);
        let mut listed = all.iter().filter(|kept| !kept.is_for_everybody());
        if listed.clone().count() > LISTED_MAX
            && let Some(oldest) = listed.next_back().map(|kept| kept.retain.stamp)
        {
            self.remove(oldest, endings);
        }
        let forgotten = self.forget_oldest(endings);
        (self.by_stamp.contains_key(&stamp), forgotten)
    }

    /// Above a bound the oldest of the realm goes: which ones are kept does not depend on the order they came in.
    fn forget_oldest(&mut self, endings: &mut Endings) -> usize {
        let mut forgotten = 0;
        while self.by_stamp.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.by_stamp.keys().next().copied() else { break };
            self.remove(oldest, endings);
            self.floor = self.floor.max(oldest);
            forgotten += 1;
        }
        forgotten
    }

    fn remove(&mut self, stamp: Stamp, endings: &mut Endings) {
        let Some(topic) = self.by_stamp.remove(&stamp) else { return };
        let Some(all) = self.topics.get_mut(&topic) else { return };
        if let Some(place) = all.iter().position(|kept| kept.retain.stamp == stamp) {
            let kept = all.remove(place);
            self.bytes -= kept.bytes();
            if let Some(until_us) = kept.retain.until_us {
                endings.remove(&(forgotten_at(until_us), kept.publication.head.realm, stamp));
            }
        }
        if all.is_empty() {
            self.topics.remove(&topic);
        }
    }

    /// The topics that a subscription matches, each with its events, and all that had to be looked at for it.
    fn matching<'a>(&'a self, pattern: &'a str, policy: MatchPolicy) -> Matching<'a> {
        // Topics lie in order, so those that begin alike lie together.
        let shared = match policy {
            MatchPolicy::Exact | MatchPolicy::Prefix => pattern,
            MatchPolicy::Wildcard => named_beginning(pattern),
        };
        let topics = self.topics.range::<str, _>((Bound::Included(shared), Bound::Unbounded));
        Matching { topics, shared, pattern, policy, seen: 0 }
    }
}

/// When an event that ends at a time is forgotten.
fn forgotten_at(until_us: u64) -> u64 {
    until_us.saturating_add(GRACE_US)
}

/// What all topics begin with that a wildcard pattern matches: its components up to the first that is empty.
fn named_beginning(pattern: &str) -> &str {
    let mut end = 0;
    for component in pattern.split_inclusive('.') {
        if component == "." {
            break;
        }
        end += component.len();
    }
    &pattern[..end]
}

/// See [`Retained::matching`].
struct Matching<'a> {
    topics: std::collections::btree_map::Range<'a, Arc<str>, Vec<Kept>>,
    shared: &'a str,
    pattern: &'a str,
    policy: MatchPolicy,
    seen: usize,
}

impl<'a> Iterator for Matching<'a> {
    type Item = &'a [Kept];

    fn next(&mut self) -> Option<&'a [Kept]> {
        loop {
            if self.policy == MatchPolicy::Exact && self.seen > 0 {
                return None;
            }
            let (topic, kept) = self.topics.next()?;
            if !topic.starts_with(self.shared) {
                return None;
            }
            self.seen += 1;
            if matches(self.pattern, self.policy, topic) {
                return Some(kept);
            }
        }
    }
}

impl Router {
    /// Keeps a publication on this core. Whether it is the newest that anybody there may receive.
    pub(super) fn retain(&mut self, publication: &Publication, effects: &mut impl Effects) -> bool {
        let Some(retain) = publication.head.attributes.as_deref().and_then(|attributes| attributes.retain)
        else {
            return false;
        };
        let takes_all = self.is_broken(Fault::RetainAsItComes);
        let retained = &mut self.realms[usize::from(publication.head.realm.0)].retained;
        let mut retain = retain;
        if takes_all {
            retain.stamp = Stamp { time_us: retained.largest_us + 1, core: self.core.0 };
        }
        let (kept, forgotten) = retained.keep(publication, retain, &mut self.retained_endings);
        effects.counters().retained_forgotten += forgotten as u64;
        kept
    }

    /// Forgets what was over some time ago.
    pub(super) fn end_retained(&mut self, now_us: u64) {
        while let Some((at_us, realm, stamp)) = self.retained_endings.first().copied()
            && at_us <= now_us
        {
            let retained = &mut self.realms[usize::from(realm.0)].retained;
            retained.remove(stamp, &mut self.retained_endings);
            retained.floor = retained.floor.max(stamp);
        }
    }

    /// Gives a subscriber what is retained for it, behind its SUBSCRIBED (`get_retained`).
    ///
    /// In one step, so that nothing can come between an event and a later one; and with a bound, so that no core stops for
    /// long and no outbox is filled by it. What is left out counts as lost.
    pub(super) fn send_retained(
        &mut self,
        key: SessionKey,
        realm: RealmIndex,
        entry: EntryKey,
        effects: &mut impl Effects,
    ) {
        let now_us = self.now.monotonic_us;
        let realm = &self.realms[usize::from(realm.0)];
        let Some((id, pattern, policy)) = realm.broker.subscription(entry) else { return };
        let session = self.sessions.at_mut(key.slot);
        let role = &realm.roles[usize::from(session.role)];
        let mut events_left = self.limits.retained_per_subscribe_max;
        // What comes next must find room as well.
        let mut bytes_left =
            self.limits.retained_bytes_per_subscribe_max.min(self.limits.outbox_hard_bytes / 4);
        let node = realm.broker.node_of(entry, key.slot);
        let mut matching = realm.retained.matching(pattern, policy);
        let mut left_out = 0;
        for topic in matching.by_ref() {
            let newest = topic.iter().find(|kept| {
                // By the nodes that there are now, as when it is published now.
                let shard = Delivery::of(&kept.publication).shard().zip(node);
                let is_elsewhere = shard.is_some_and(|(shard, node)| {
                    let hasher = realm.broker.id_hasher();
                    realm.sharding.choose((policy, pattern), shard.resource, hasher) != Some(node)
                });
                let audience = kept.publication.head.audience.as_deref();
                kept.lives(now_us)
                    && !is_elsewhere
                    && kept.retain.excluded != Some(session.id)
                    && audience.is_none_or(|audience| audience.admits(session, &role.name))
            });
            let Some(kept) = newest else { continue };
            let bytes = kept.bytes();
            // One that is larger than all of it passes alone.
            let is_first = events_left == self.limits.retained_per_subscribe_max;
            if events_left == 0 || bytes > bytes_left && !is_first {
                // Nothing smaller behind it either: what arrives is a beginning, not a selection.
                events_left = 0;
                left_out += 1;
                continue;
            }
            events_left -= 1;
            bytes_left = bytes_left.saturating_sub(bytes);
            let delivery = Delivery::of(&kept.publication);
            let mut event = delivery.event(id, policy != MatchPolicy::Exact);
            event.details.retained = true;
            let Some(active) = session.active.as_mut() else { return };
            let (mut frames, mut transcoded) = (EventFrames::sole(), Transcoded::default());
            // Whatever its role says of full outboxes: it is not slow because of what it asked for.
            match deliver(key, active, &mut event, &mut frames, &mut transcoded, effects) {
                Sent::Accepted => realm.counts.events.add(1),
                Sent::Full => left_out += 1,
                _ => {}
            }
        }
        let seen = matching.seen;
        if left_out > 0 {
            effects.counters().retained_left_out += left_out;
            if let Some(active) = session.active.as_mut() {
                active.events_lost += left_out;
            }
        }
        effects.searched(seen);
    }

    /// All that is retained, by realm, topic and age, the newest first; for tests: it must be the same on every core.
    #[doc(hidden)]
    pub fn retained(&self) -> impl Iterator<Item = (&str, Stamp, PublicationId)> {
        self.realms.iter().flat_map(|realm| &realm.retained.topics).flat_map(|(topic, all)| {
            all.iter().map(|kept| (&**topic, kept.retain.stamp, kept.publication.head.publication))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::router::peer::{Attributes, Audience, Body, SessionRef};
    use crate::wamp::Payload;

    fn retained(events_max: usize) -> Retained {
        let limits = config::parse("a test", "", &[]).unwrap().limits;
        Retained { events_max, ..Retained::new(&limits) }
    }

    /// A publication to one of a few topics, for everybody or for one of a few sessions.
    fn publication(topic: u8, receiver: Option<u8>, time_us: u64, until_us: Option<u64>) -> Publication {
        let retain = Retain { stamp: Stamp { time_us, core: 0 }, until_us, excluded: None };
        let audience = receiver.map(|receiver| {
            Box::new(Audience { eligible: Some(vec![SessionId(receiver.into())]), ..Audience::default() })
        });
        let head = PublicationHead {
            realm: RealmIndex(0),
            publisher: SessionRef { core: CoreId(0), key: SessionKey { slot: 0, generation: 0 } },
            publication: PublicationId(time_us),
            audience,
            attributes: Some(Box::new(Attributes { retain: Some(retain), ..Attributes::default() })),
            cause: None,
        };
        Arc::new(Letter { head, body: Body::new(&format!("com.{topic}"), Payload::EMPTY) })
    }

    fn keep_all(retained: &mut Retained, endings: &mut Endings, publications: &[Publication]) {
        for publication in publications {
            let retain = publication.head.attributes.as_deref().and_then(|attributes| attributes.retain);
            retained.keep(publication, retain.unwrap(), endings);
        }
    }

    fn held(retained: &Retained) -> Vec<Stamp> {
        let all: Vec<Stamp> =
            retained.topics.values().flatten().map(|kept: &Kept| kept.retain.stamp).collect();
        let mut sorted = all.clone();
        sorted.sort();
        assert!(sorted.iter().eq(retained.by_stamp.keys()));
        assert_eq!(retained.bytes, retained.topics.values().flatten().map(Kept::bytes).sum::<usize>());
        all
    }

    fn published() -> impl Strategy<Value = Vec<(u8, Option<u8>, bool)>> {
        proptest::collection::vec((0..4_u8, proptest::option::of(0..3_u8), any::<bool>()), 0..40)
    }

    proptest! {
        /// R12: whatever the order in which cores hear of publications, they end with the same.
        #[test]
        fn the_order_does_not_matter(
            published in published(),
            bound in proptest::option::of(1..5_usize),
            places in proptest::collection::vec(any::<u16>(), 40),
        ) {
            let publications: Vec<Publication> = published
                .iter()
                .zip(1..)
                .map(|((topic, receiver, ends), time_us)| {
                    // At the bound one for everybody may take the place of several, and it matters when.
                    let receiver = receiver.filter(|_| bound.is_none());
                    publication(*topic, receiver, time_us, ends.then_some(1_000))
                })
                .collect();
            let mut shuffled: Vec<usize> = (0..publications.len()).collect();
            shuffled.sort_by_key(|index| places[*index]);
            let shuffled: Vec<Publication> =
                shuffled.into_iter().map(|index| Arc::clone(&publications[index])).collect();
            let events_max = bound.unwrap_or(1_000);
            let (mut first, mut second) = (retained(events_max), retained(events_max));
            let (mut endings, mut others) = (Endings::new(), Endings::new());
            keep_all(&mut first, &mut endings, &publications);
            keep_all(&mut second, &mut others, &shuffled);
            prop_assert_eq!(held(&first), held(&second));
            prop_assert_eq!(&endings, &others);
            prop_assert_eq!(first.bytes, second.bytes);
        }
    }

    #[test]
    fn the_oldest_goes_at_the_bound_whatever_came_first() {
        let publications: Vec<Publication> =
            (1..=20).map(|time| publication(time as u8, None, time, None)).collect();
        for rotated in 0..20 {
            let mut order = publications.clone();
            order.rotate_left(rotated);
            let (mut retained, mut endings) = (retained(5), Endings::new());
            keep_all(&mut retained, &mut endings, &order);
            let mut held: Vec<u64> = held(&retained).iter().map(|stamp| stamp.time_us).collect();
            held.sort_unstable();
            assert_eq!(held, [16, 17, 18, 19, 20], "{rotated}");
        }
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (mut retained, mut endings) = (retained(1_000), Endings::new());
        retained.bytes_max = 2_000;
        let publications: Vec<Publication> =
            (1..=20).map(|time| publication(time as u8, None, time, Some(9))).collect();
        keep_all(&mut retained, &mut endings, &publications);
        assert!(retained.bytes <= 2_000 && held(&retained).len() > 2);
        assert_eq!(endings.len(), retained.len(), "an ending goes with its event");
    }

    #[test]
    fn what_is_larger_than_the_bound_pushes_nothing_out() {
        let (mut retained, mut endings) = (retained(1_000), Endings::new());
        let publications: Vec<Publication> =
            (1..=5).map(|time| publication(time as u8, None, time, Some(9))).collect();
        keep_all(&mut retained, &mut endings, &publications);
        retained.bytes_max = retained.bytes;
        let receivers = (0..1_000).map(SessionId).collect();
        let audience = Audience { eligible: Some(receivers), ..Audience::default() };
        let mut large = Letter::clone(&publication(1, None, 6, Some(9)));
        large.head.audience = Some(Box::new(audience));
        keep_all(&mut retained, &mut endings, &[Arc::new(large)]);
        assert_eq!((held(&retained).len(), endings.len(), retained.floor), (5, 5, Stamp::default()));
    }

    #[test]
    fn what_is_older_than_what_was_forgotten_comes_too_late() {
        let (mut retained, mut endings) = (retained(10), Endings::new());
        let (older, cleared) = (publication(1, None, 5, None), publication(1, None, 6, Some(6)));
        keep_all(&mut retained, &mut endings, std::slice::from_ref(&cleared));
        assert_eq!(endings.first(), Some(&(forgotten_at(6), RealmIndex(0), Stamp { time_us: 6, core: 0 })));
        retained.remove(Stamp { time_us: 6, core: 0 }, &mut endings);
        retained.floor = Stamp { time_us: 6, core: 0 };
        keep_all(&mut retained, &mut endings, &[older]);
        assert_eq!((retained.len(), retained.bytes, endings.len()), (0, 0, 0));
    }

    #[test]
    fn lists_of_one_topic_are_bounded() {
        let (mut retained, mut endings) = (retained(1_000), Endings::new());
        let publications: Vec<Publication> =
            (1..=40).map(|time| publication(1, Some(time as u8), time, None)).collect();
        keep_all(&mut retained, &mut endings, &publications);
        assert_eq!(held(&retained).len(), LISTED_MAX);
        assert_eq!(held(&retained)[0].time_us, 40);
    }

    #[test]
    fn a_pattern_sees_only_topics_that_begin_like_it() {
        assert_eq!(named_beginning("com..light"), "com.");
        assert_eq!(named_beginning("com.house"), "com.house");
        assert_eq!(named_beginning(".light"), "");
        assert_eq!(named_beginning("com."), "com.");
        assert_eq!(named_beginning(""), "");
        let (mut retained, mut endings) = (retained(1_000), Endings::new());
        let publications: Vec<Publication> =
            (0..200).map(|topic| publication(topic, None, 1 + u64::from(topic), None)).collect();
        keep_all(&mut retained, &mut endings, &publications);
        let seen = |pattern, policy| {
            let mut matching = retained.matching(pattern, policy);
            let found = matching.by_ref().count();
            (found, matching.seen)
        };
        assert_eq!(seen("com.7", MatchPolicy::Exact), (1, 1));
        assert_eq!(seen("com.19", MatchPolicy::Prefix), (11, 11));
        assert_eq!(seen("com.", MatchPolicy::Wildcard), (200, 200));
        assert_eq!(seen("org.", MatchPolicy::Wildcard), (0, 0));
    }
}
