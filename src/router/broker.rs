//! This core's subscriptions of a realm: subscribe, unsubscribe, publish, fan out.
//!
//! Every core knows only the subscriptions of its own sessions, and every publication is offered to every core, so a
//! SUBSCRIBE needs no word to anybody and a subscription's id must come out the same everywhere: it is a keyed hash.

mod interested;
mod told;

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use self::interested::Interested;
use super::Router;
use super::authorize::Action;
use super::authorizer::Permit;
use super::database::{Passage, Refused};
use super::delivery::{Delivery, deliver};
use super::effects::{Effects, EventFrames, Sent, Transcoded};
use super::fault::Fault;
use super::peer::{
    Attributes, Audience, Body, Charge, CoreId, Eras, Letter, MESSAGE_OVERHEAD_BYTES, PeerMessage,
    PublicationHead, RealmIndex, SessionKey, SessionRef,
};
use super::session::{Active, Subscribed};
use super::sharding::{KeyHash, LocalNodes};
use super::terms::{DISCLOSE_ME_DENIED, carried};
use super::uri_map::{EntryKey, UriMap};
use crate::config::SlowPolicy;
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::id::ID_MAX;
use crate::wamp::message::{
    Message, MessageType, Publish, Published, Subscribe, Subscribed as SubscribedMessage, Unsubscribe,
    Unsubscribed,
};
use crate::wamp::options::{Passthru, PublishOptions};
use crate::wamp::uri::{check_pattern, is_reserved};
use crate::wamp::{CloseReason, MatchPolicy, Payload, ProtocolError, SubscriptionId};

/// A session that subscribes: its slot, and the place of this subscription in its list.
#[derive(Clone, Copy, Debug)]
struct Subscriber {
    slot: u32,
    /// The place, and above it what it asked for.
    index_and_wishes: u32,
}

impl Subscriber {
    /// It wants what is retained.
    const RETAINED: u32 = 1 << 31;
    /// A session has fewer subscriptions: the range of `subscriptions_per_session_max`.
    const INDEX: u32 = (1 << 24) - 1;

    fn index(self) -> u32 {
        self.index_and_wishes & Self::INDEX
    }

    fn set_index(&mut self, index: u32) {
        self.index_and_wishes = self.index_and_wishes & !Self::INDEX | index;
    }

    fn wants(self, wish: u32) -> bool {
        self.index_and_wishes & wish != 0
    }

    fn wish(&mut self, wish: u32, wanted: bool) {
        self.index_and_wishes = self.index_and_wishes & !wish | if wanted { wish } else { 0 };
    }
}

/// One topic or pattern, and who subscribes to it on this core.
#[derive(Debug)]
struct Subscription {
    id: SubscriptionId,
    /// The era of this core's interest that it began in.
    era: u32,
    subscribers: Vec<Subscriber>,
    /// Of those that share events; ends with the last of them.
    nodes: Option<Box<LocalNodes>>,
}

impl Subscription {
    /// The place of this subscription in the list of a session, looked for in the shorter of the two lists: a gateway has
    /// many subscriptions, and a news topic many subscribers.
    fn place_of(&self, slot: u32, entry: EntryKey, held: &[Subscribed]) -> Option<usize> {
        if self.subscribers.len() < held.len() {
            let own = self.subscribers.iter().find(|subscriber| subscriber.slot == slot);
            return own.map(|subscriber| subscriber.index() as usize);
        }
        held.iter().position(|held| held.entry == entry)
    }
}

/// This core's part of a realm's broker.
#[derive(Debug)]
pub(super) struct Broker {
    /// Ends with the last subscriber of this core.
    subscriptions: UriMap<Subscription>,
    /// Ends together with its entry above.
    by_id: HashMap<SubscriptionId, EntryKey, FixedState>,
    id_hasher: FixedState,
    /// Subscribers that meta events may reach, and what was the last to happen on this core before them (R11). Ends
    /// with the subscription.
    late: HashMap<(EntryKey, u32), u64, FixedState>,
}

impl Eras {
    /// When a publication is sent to a core, in that one's measure. Read behind the decision to send it: so of two
    /// publications the later one never has the earlier era.
    fn read(core: CoreId, numbers: [u64; 2], effects: &impl Effects) -> Self {
        let [exact, patterns] = numbers.map(|number| effects.interest(core, number).1);
        Self { exact, patterns }
    }
}

impl Broker {
    pub(super) fn new(map_seed: u64, subscription_seed: u64) -> Self {
        Self {
            subscriptions: UriMap::new(map_seed),
            by_id: HashMap::with_hasher(FixedState::with_seed(map_seed)),
            id_hasher: FixedState::with_seed(subscription_seed),
            late: HashMap::with_hasher(FixedState::with_seed(map_seed)),
        }
    }

    /// The same on every core, without a word between them. Realms have tables of their own, so their ids may meet.
    pub(super) fn subscription_id(&self, topic: &str, policy: MatchPolicy) -> SubscriptionId {
        SubscriptionId(self.id_hasher.hash_one((policy as u8, topic)) % ID_MAX + 1)
    }

    /// What the other cores are told of when the first of this core subscribes, and asked for when somebody publishes: a
    /// number for each topic of a realm, and one for all its patterns, any of which may match; those below `wamp` have one
    /// of their own.
    fn interest(&self, realm: RealmIndex, topic: &str, policy: MatchPolicy) -> u64 {
        let topic = match policy {
            MatchPolicy::Exact => topic,
            _ if is_reserved(topic) => "wamp",
            _ => "",
        };
        self.id_hasher.hash_one((realm.0, policy == MatchPolicy::Exact, topic))
    }

    /// Those of a topic, and of the patterns that may match it.
    fn interests(&self, realm: RealmIndex, topic: &str) -> [u64; 2] {
        [MatchPolicy::Exact, MatchPolicy::Prefix].map(|policy| self.interest(realm, topic, policy))
    }

    /// How many topics and patterns have subscribers here.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.subscriptions.len(), self.by_id.len());
        self.subscriptions.len()
    }

    /// The id, URI and policy of an entry.
    pub(super) fn subscription(&self, entry: EntryKey) -> Option<(SubscriptionId, &str, MatchPolicy)> {
        let (uri, policy) = self.subscriptions.uri(entry)?;
        Some((self.subscriptions.get(entry)?.id, uri, policy))
    }

    /// Where the nodes of an entry are kept.
    pub(super) fn local_nodes(&mut self, entry: EntryKey) -> Option<&mut Option<Box<LocalNodes>>> {
        self.subscriptions.get_mut(entry).map(|subscription| &mut subscription.nodes)
    }

    /// The node of this core that a session belongs to in one subscription.
    pub(super) fn node_of(&self, entry: EntryKey, slot: u32) -> Option<KeyHash> {
        self.subscriptions.get(entry)?.nodes.as_deref()?.node_of(slot)
    }

    /// Hashes alike on every core.
    pub(super) fn id_hasher(&self) -> &FixedState {
        &self.id_hasher
    }

    /// The entry of a topic or pattern that a session of this core subscribes to.
    pub(super) fn held(
        &self,
        slot: u32,
        session: Option<&Active>,
        policy: MatchPolicy,
        uri: &str,
    ) -> Option<EntryKey> {
        let entry = self.subscriptions.find(policy, uri)?;
        let held = &session?.subscriptions;
        self.subscriptions.get(entry)?.place_of(slot, entry, held).map(|_| entry)
    }

    /// Notes what a subscriber asked for, the last time that it subscribed.
    fn note_wish(&mut self, slot: u32, entry: EntryKey, held: &[Subscribed], wish: u32, wanted: bool) {
        let Some(subscription) = self.subscriptions.get_mut(entry) else { return };
        if let Some(place) = subscription.place_of(slot, entry, held)
            && let Some(held) = held.get(place)
        {
            subscription.subscribers[held.index as usize].wish(wish, wanted);
        }
    }

    /// Adds a subscriber. `None` when another URI has the same id, which happens once in 2^53 pairs.
    fn subscribe(
        &mut self,
        session: &mut Active,
        slot: u32,
        topic: &str,
        policy: MatchPolicy,
        shapes_max: usize,
    ) -> Subscribing {
        let entry = match self.subscriptions.find(policy, topic) {
            Some(entry) => entry,
            None => {
                if !self.subscriptions.has_room(policy, topic, shapes_max) {
                    return Subscribing::TooManyShapes;
                }
                let id = self.subscription_id(topic, policy);
                if self.by_id.contains_key(&id) {
                    return Subscribing::IdTaken;
                }
                let entry = self.subscriptions.insert(
                    policy,
                    topic,
                    Subscription { id, era: 0, subscribers: Vec::new(), nodes: None },
                );
                self.by_id.insert(id, entry);
                entry
            }
        };
        let Some(subscription) = self.subscriptions.get_mut(entry) else { return Subscribing::IdTaken };
        let id = subscription.id;
        if subscription.place_of(slot, entry, &session.subscriptions).is_some() {
            return Subscribing::Already { id, entry };
        }
        let index = subscription.subscribers.len() as u32;
        let index_and_wishes = session.subscriptions.len() as u32;
        subscription.subscribers.push(Subscriber { slot, index_and_wishes });
        session.subscriptions.push(Subscribed { entry, index });
        Subscribing::Added { id, entry, is_first: index == 0 }
    }

    /// Removes a subscriber by its place; returns whose back-reference must be mended, and the length of the URI.
    fn remove_subscriber(&mut self, held: Subscribed) -> (Option<(Subscriber, u32)>, u32) {
        let uri_bytes = self.subscriptions.uri(held.entry).map_or(0, |(uri, _)| uri.len() as u32);
        let Some(subscription) = self.subscriptions.get_mut(held.entry) else { return (None, 0) };
        subscription.subscribers.swap_remove(held.index as usize);
        let moved = subscription.subscribers.get(held.index as usize).map(|moved| (*moved, held.index));
        if subscription.subscribers.is_empty() {
            let id = subscription.id;
            self.by_id.remove(&id);
            self.subscriptions.remove(held.entry);
        } else if subscription.subscribers.capacity() > 64
            && subscription.subscribers.capacity() / 4 > subscription.subscribers.len()
        {
            let half = subscription.subscribers.capacity() / 2;
            subscription.subscribers.shrink_to(half);
        }
        (moved, uri_bytes)
    }
}

/// Which receivers of each subscription a fan-out is for. All of them, but for [`Fault::ChunkFanOut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    First,
    Rest,
}

enum Subscribing {
    /// And whether the entry was made for this subscriber.
    Added {
        id: SubscriptionId,
        entry: EntryKey,
        is_first: bool,
    },
    Already {
        id: SubscriptionId,
        entry: EntryKey,
    },
    IdTaken,
    TooManyShapes,
}

impl Router {
    /// Whether a session of this core subscribes to a topic or pattern.
    pub(super) fn holds_subscription(&self, key: SessionKey, policy: MatchPolicy, uri: &str) -> bool {
        let (realm, session) = self.realm_and_session(key);
        realm.broker.held(key.slot, session.active.as_deref(), policy, uri).is_some()
    }

    pub(super) fn handle_subscribe(
        &mut self,
        key: SessionKey,
        message: &Subscribe<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        self.check_request(key, message.request)?;
        let policy = message.options.match_policy;
        let topic = &*message.topic;
        let (realm, _) = self.realm_and_session(key);
        if let Err(error) = check_pattern(topic, policy, realm.uri_rule, realm.uri_limits) {
            self.refuse(
                key,
                MessageType::Subscribe,
                message.request,
                uri::INVALID_URI,
                error.as_str(),
                effects,
            );
            return Ok(());
        }
        if let Err(refusal) = self.permits(key, Action::Subscribe, topic, policy) {
            self.not_authorized(key, MessageType::Subscribe, message.request, refusal, effects);
            return Ok(());
        }
        let nkey = message.options.nkey.as_deref();
        let realm = self.sessions.at(key.slot).realm;
        if nkey.is_some_and(|nkey| !self.has_room_for_node(realm, (policy, topic), nkey)) {
            effects.counters().limit_reached += 1;
            let text = "the subscription has as many node keys as it may have";
            self.refuse(key, MessageType::Subscribe, message.request, uri::LIMIT_REACHED, text, effects);
            return Ok(());
        }
        let resumes = match self.resumes(key, message, effects) {
            Ok(resumes) => resumes,
            Err(Refused) => return Ok(()),
        };
        let hash_seed = self.hash_seed;
        let limits = &self.limits;
        let session = self.sessions.at_mut(key.slot);
        let broker = &mut self.realms[realm.0 as usize].broker;
        let active = session.active(hash_seed);
        let at_limit = active.subscriptions.len() >= limits.subscriptions_per_session_max
            || active.uri_bytes as usize + topic.len() > limits.uri_bytes_per_session_max;
        let is_held = || {
            let entry = broker.subscriptions.find(policy, topic)?;
            broker.subscriptions.get(entry)?.place_of(key.slot, entry, &active.subscriptions)
        };
        if at_limit && is_held().is_none() {
            effects.counters().limit_reached += 1;
            let text = "the session has as many subscriptions, or as long ones, as it may have";
            self.refuse(key, MessageType::Subscribe, message.request, uri::LIMIT_REACHED, text, effects);
            return Ok(());
        }
        let mut added = None;
        let (subscription, entry) =
            match broker.subscribe(active, key.slot, topic, policy, limits.wildcard_shapes_max) {
                Subscribing::Added { id, entry, is_first } => {
                    added = Some(is_first);
                    active.uri_bytes += topic.len() as u32;
                    if is_first {
                        // Before SUBSCRIBED: who publishes after it was received finds that this core wants it (O5).
                        let era = effects.announce(broker.interest(realm, topic, policy), true);
                        if let Some(subscription) = broker.subscriptions.get_mut(entry) {
                            subscription.era = era;
                        }
                    }
                    (id, entry)
                }
                Subscribing::Already { id, entry } => (id, entry),
                Subscribing::TooManyShapes => {
                    effects.counters().limit_reached += 1;
                    let (kind, error) = (MessageType::Subscribe, uri::LIMIT_REACHED);
                    self.refuse(key, kind, message.request, error, super::TOO_MANY_SHAPES, effects);
                    return Ok(());
                }
                Subscribing::IdTaken => {
                    let text = "another topic has the same subscription id; subscribe to a different one";
                    self.refuse(
                        key,
                        MessageType::Subscribe,
                        message.request,
                        uri::UNAVAILABLE,
                        text,
                        effects,
                    );
                    return Ok(());
                }
            };
        let wants_retained = message.options.get_retained;
        if wants_retained {
            broker.note_wish(key.slot, entry, &active.subscriptions, Subscriber::RETAINED, true);
        }
        if nkey.is_some() || broker.node_of(entry, key.slot).is_some() {
            self.join_node(key, realm, entry, nkey, effects);
        }
        if resumes.is_none() {
            // O2: inserted and answered in one step, so that no EVENT can come between.
            let reply = SubscribedMessage { request: message.request, subscription };
            let _ = effects.reply(key, &Message::Subscribed(reply));
            if wants_retained {
                self.send_retained(key, realm, entry, effects);
            }
        }
        if let Some(is_first) = added {
            self.realms[usize::from(realm.0)].counts.subscribed.add(1);
            if is_reserved(topic) {
                let sequence = self.next_meta_sequence();
                self.realms[usize::from(realm.0)].broker.late.insert((entry, key.slot), sequence);
            }
            self.tell_subscribed(key, subscription, is_first, (policy, topic), effects);
        }
        if let Some(resumes) = resumes {
            self.resume((key, entry), message.request, resumes, wants_retained, effects);
        }
        Ok(())
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        key: SessionKey,
        message: &Unsubscribe,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        self.check_request(key, message.request)?;
        let place = self.place_of_subscription(key, message.subscription);
        // What was not confirmed is not there yet.
        let is_confirmed = |place: &usize| self.pending_at(key, *place).is_none();
        let Some(place) = place.filter(is_confirmed) else {
            let text = "the session does not hold this subscription";
            self.refuse(
                key,
                MessageType::Unsubscribe,
                message.request,
                uri::NO_SUCH_SUBSCRIPTION,
                text,
                effects,
            );
            return Ok(());
        };
        self.remove_subscription(key, place, effects);
        let reply = Unsubscribed { request: message.request, details: None };
        let _ = effects.reply(key, &Message::Unsubscribed(reply));
        Ok(())
    }

    /// The place of a subscription in the list of a session of this core, if it holds it.
    pub(super) fn place_of_subscription(&self, key: SessionKey, id: SubscriptionId) -> Option<usize> {
        let (realm, session) = self.realm_and_session(key);
        let entry = *realm.broker.by_id.get(&id)?;
        let held = &session.active.as_ref()?.subscriptions;
        realm.broker.subscriptions.get(entry)?.place_of(key.slot, entry, held)
    }

    /// Takes one subscription out of both lists, and mends the two entries that moved into the gaps.
    pub(super) fn remove_subscription(&mut self, key: SessionKey, place: usize, effects: &mut impl Effects) {
        let (realm, session) = self.realm_and_session(key);
        let held = session.active.as_ref().and_then(|active| active.subscriptions.get(place));
        if let Some(held) = held.copied()
            && realm.broker.subscriptions.get(held.entry).is_some_and(|it| it.nodes.is_some())
        {
            let realm = session.realm;
            self.leave_node(key.slot, realm, held.entry, effects);
        }
        let session = self.sessions.at_mut(key.slot);
        let realm = session.realm;
        let broker = &mut self.realms[realm.0 as usize].broker;
        let Some(active) = session.active.as_mut() else { return };
        let held = active.subscriptions.swap_remove(place);
        if let Some(moved) = active.subscriptions.get(place)
            && let Some(subscription) = broker.subscriptions.get_mut(moved.entry)
        {
            subscription.subscribers[moved.index as usize].set_index(place as u32);
        }
        let left = broker.subscriptions.get(held.entry);
        let left = left.map(|subscription| (subscription.id, subscription.subscribers.len() == 1));
        if left.is_some_and(|(_, is_last)| is_last)
            && let Some((uri, policy)) = broker.subscriptions.uri(held.entry)
        {
            effects.announce(broker.interest(realm, uri, policy), false);
        }
        if !broker.late.is_empty() {
            broker.late.remove(&(held.entry, key.slot));
        }
        self.resumptions.forget(held.entry, key.slot);
        let (moved, uri_bytes) = broker.remove_subscriber(held);
        self.realms[usize::from(realm.0)].counts.unsubscribed.add(1);
        active.uri_bytes -= uri_bytes;
        if let Some((subscriber, index)) = moved
            && let Some(active) = self.sessions.at_mut(subscriber.slot).active.as_mut()
        {
            active.subscriptions[subscriber.index() as usize].index = index;
        }
        if let Some((id, is_last)) = left {
            self.tell_unsubscribed(key, id, is_last, effects);
        }
    }

    /// The session ends: O(1) for each of its subscriptions.
    pub(super) fn remove_subscriptions(&mut self, key: SessionKey, effects: &mut impl Effects) {
        while let Some(last) = self
            .sessions
            .at(key.slot)
            .active
            .as_ref()
            .and_then(|active| active.subscriptions.len().checked_sub(1))
        {
            self.remove_subscription(key, last, effects);
        }
    }

    pub(super) fn handle_publish(
        &mut self,
        key: SessionKey,
        message: &Publish<'_>,
        effects: &mut impl Effects,
    ) -> Result<(), ProtocolError> {
        self.check_request(key, message.request)?;
        if message.options.passthru.is_used()
            && !self.sessions.at(key.slot).features.contains(ClientFeatures::PUBLISHER_PAYLOAD_PASSTHRU_MODE)
        {
            let text =
                "PUBLISH: ppt_scheme is used, but the publisher did not announce payload_passthru_mode";
            return Err(ProtocolError::new(text));
        }
        let topic = &*message.topic;
        let (realm, _) = self.realm_and_session(key);
        if let Err(error) = realm.check_uri(topic) {
            self.refuse_publish(key, message, uri::INVALID_URI, error, effects);
            return Ok(());
        }
        let permit = match self.permits(key, Action::Publish, topic, MatchPolicy::Exact) {
            Ok(permit) => permit,
            Err(refusal) => {
                effects.counters().not_authorized += 1;
                self.refuse_publish(key, message, refusal.error, refusal.text, effects);
                return Ok(());
            }
        };
        if self.may_not_disclose(key, message.options.disclose_me, permit) {
            self.refuse_publish(key, message, uri::DISCLOSE_ME_DISALLOWED, DISCLOSE_ME_DENIED, effects);
            return Ok(());
        }
        effects.counters().publications += 1;
        self.publish(key, message, permit, effects);
        Ok(())
    }

    /// Publishes what a session may publish.
    pub(super) fn publish(
        &mut self,
        key: SessionKey,
        message: &Publish<'_>,
        permit: Permit,
        effects: &mut impl Effects,
    ) {
        let topic = &*message.topic;
        let session = self.sessions.at(key.slot);
        let realm_index = session.realm;
        // A testament is published when there is nobody to acknowledge it to.
        let acknowledge = message.options.acknowledge && session.state == super::session::State::Open;
        let publication = self.random.publication_id();
        let head = PublicationHead {
            realm: realm_index,
            publisher: SessionRef { core: self.core, key },
            publication,
            audience: Audience::of(&message.options),
            attributes: self.attributes(key, topic, &message.options, permit, effects),
            cause: None,
        };
        let excluded_slot = message.options.exclude_me.then_some(key.slot);
        if self.dispatch(head, topic, message.payload, excluded_slot, effects) && acknowledge {
            let reply = Published { request: message.request, publication };
            let _ = effects.reply(key, &Message::Published(reply));
        }
    }

    /// Sends a publication to everybody who wants it, on this core and the others, and keeps it where it is to be kept. Whoever
    /// published it is charged. `false`: a design of [`Fault`] sent it elsewhere.
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        head: PublicationHead,
        topic: &str,
        payload: Payload<'_>,
        excluded_slot: Option<u32>,
        effects: &mut impl Effects,
    ) -> bool {
        let (realm_index, publisher) = (head.realm, head.publisher);
        let is_kept = head.attributes.as_deref().is_some_and(|attributes| attributes.retain.is_some());
        let bytes = (topic.len() + payload.len() + head.bytes()) as u32 + MESSAGE_OVERHEAD_BYTES;
        let mut wanted = self.interested_cores(realm_index, topic, effects);
        if is_kept {
            wanted.all();
        }
        let realm = &self.realms[usize::from(realm_index.0)];
        realm.counts.publications.add(1);
        let is_recorded =
            realm.history.as_deref().is_some_and(|history| history.wants(topic, head.audience.as_deref()));
        if is_recorded {
            wanted.add(realm.home);
        }
        let is_recorded_here = is_recorded && realm.home == self.core;
        let paused = effects.charge(publisher.key, bytes.saturating_mul(1 + wanted.count()));
        if self.is_broken(Fault::PublishByTopic) {
            let letter = Arc::new(Letter { head: head.clone(), body: Body::new(topic, payload) });
            if self.publish_by_topic(&letter, Charge { bytes, paused }, effects) {
                return false;
            }
        }
        let delivery = Delivery { head: &head, topic, payload, eras: None, is_retained: is_kept };
        self.fan_out(delivery, excluded_slot, effects);
        effects.credit(publisher, Charge { bytes, paused }, self.credit_time(publisher));
        if is_kept || is_recorded_here {
            let letter = Arc::new(Letter { head, body: Body::new(topic, payload) });
            if is_kept {
                self.retain(&letter, effects);
            }
            if is_recorded_here {
                self.record(&letter);
            }
            self.send_letter(wanted, &letter, Charge { bytes, paused }, effects);
        } else {
            self.send_publication(wanted, head, topic, payload, Charge { bytes, paused }, effects);
        }
        true
    }

    /// Sends a publication to the other cores that want it.
    fn send_publication(
        &self,
        wanted: Interested,
        head: PublicationHead,
        topic: &str,
        payload: Payload<'_>,
        charge: Charge,
        effects: &mut impl Effects,
    ) {
        if wanted.count() == 0 {
            return;
        }
        let letter = Arc::new(Letter { head, body: Body::new(topic, payload) });
        self.send_letter(wanted, &letter, charge, effects);
    }

    /// As [`Self::send_publication`], where this core keeps it too.
    fn send_letter(
        &self,
        wanted: Interested,
        letter: &Arc<Letter<PublicationHead>>,
        charge: Charge,
        effects: &mut impl Effects,
    ) {
        for core in (0..self.cores).map(CoreId).filter(|core| wanted.has(*core)) {
            let eras = Eras::read(core, wanted.numbers, effects);
            effects.peer(core, PeerMessage::Publish { publication: Arc::clone(letter), charge, eras });
        }
    }

    /// The other cores that may have subscribers of a topic, asked once: the answer may be another one a moment later.
    fn interested_cores(&self, realm: RealmIndex, topic: &str, effects: &impl Effects) -> Interested {
        let mut interested = Interested { own: self.core, cores: self.cores, first: 0, numbers: [0; 2] };
        if self.cores == 1 {
            return interested;
        }
        let numbers = self.realms[usize::from(realm.0)].broker.interests(realm, topic);
        interested.numbers = numbers;
        let relays = self.is_broken(Fault::PublishByTopic);
        for core in (0..self.cores.min(Interested::ASKED_MAX)).map(CoreId).filter(|core| *core != self.core) {
            if relays || numbers.iter().any(|number| effects.interest(core, *number).0) {
                interested.first |= 1 << core.0;
            }
        }
        interested
    }

    /// What only some publications have; `None` for all others.
    fn attributes(
        &mut self,
        key: SessionKey,
        topic: &str,
        options: &PublishOptions<'_>,
        permit: Permit,
        effects: &mut impl Effects,
    ) -> Option<Box<Attributes>> {
        let (realm, session) = self.realm_and_session(key);
        let trust_level = realm.roles[usize::from(session.role)].trust_level;
        let is_disclosed = options.disclose_me || permit.disclose;
        let is_sealed = options.passthru.is_used();
        let is_plain = !options.retain && options.rkey.is_none() && !is_disclosed && !is_sealed;
        if is_plain && trust_level.is_none() {
            return None;
        }
        let (id, realm) = (session.id, session.realm);
        let disclosed = is_disclosed.then(|| self.disclosed(key));
        let shard = options.rkey.as_deref().map(|rkey| self.shard(realm, topic, rkey, effects));
        let mut passthru = carried(&options.passthru);
        if self.is_broken(Fault::UnsealEvents) {
            passthru = Passthru::default();
        }
        let retained = &mut self.realms[usize::from(realm.0)].retained;
        let retain = retained.stamp(self.now.monotonic_us, self.core, id, options);
        Some(Box::new(Attributes {
            retain,
            disclosed,
            trust_level,
            passthru,
            shard,
            ..Attributes::default()
        }))
    }

    /// For the designs of [`Fault`]: as [`Eras::read`].
    pub(super) fn eras(&self, core: CoreId, realm: RealmIndex, topic: &str, effects: &impl Effects) -> Eras {
        Eras::read(core, self.realms[usize::from(realm.0)].broker.interests(realm, topic), effects)
    }

    /// A PUBLISH without acknowledge is never answered, not even with ERROR (basic profile, "Publishing and Events").
    fn refuse_publish(
        &mut self,
        key: SessionKey,
        message: &Publish<'_>,
        error: &'static str,
        text: &str,
        effects: &mut impl Effects,
    ) {
        if message.options.acknowledge {
            self.refuse(key, MessageType::Publish, message.request, error, text, effects);
        } else {
            effects.counters().request_errors += 1;
            self.realm_and_session(key).0.counts.errors.add(1);
        }
    }

    /// A publication of another core.
    pub(super) fn handle_peer_publish(
        &mut self,
        publication: &Arc<Letter<PublicationHead>>,
        charge: Charge,
        eras: Eras,
        effects: &mut impl Effects,
    ) {
        let realm = &self.realms[usize::from(publication.head.realm.0)];
        if let Some(history) = realm.history.as_deref()
            && realm.home == self.core
            && history.wants(publication.body.uri(), publication.head.audience.as_deref())
        {
            self.record(publication);
        }
        let is_retained = publication.head.attributes.is_some() && self.retain(publication, effects);
        let delivery = Delivery { eras: Some(eras), is_retained, ..Delivery::of(publication) };
        self.fan_out(delivery, None, effects);
        // Of meta events that come of an end nobody is charged, and there is nobody to hold for a slow reader.
        if charge.bytes > 0 {
            let publisher = publication.head.publisher;
            effects.credit(publisher, charge, self.credit_time(publisher));
        }
    }

    /// Delivers to every subscriber of this core, in one step (R6).
    fn fan_out(&mut self, delivery: Delivery<'_>, excluded_slot: Option<u32>, effects: &mut impl Effects) {
        if self.is_broken(Fault::ChunkFanOut) {
            let body = Body::new(delivery.topic, delivery.payload);
            let letter = Letter { head: delivery.head.clone(), body };
            self.fan_out_part(delivery, excluded_slot, Part::First, effects);
            self.faults.postponed.push_back((letter, excluded_slot));
            return;
        }
        self.fan_out_part(delivery, excluded_slot, Part::All, effects);
    }

    /// For [`Fault::ChunkFanOut`].
    pub(super) fn fan_out_letter(
        &mut self,
        letter: &Letter<PublicationHead>,
        excluded_slot: Option<u32>,
        part: Part,
        effects: &mut impl Effects,
    ) {
        self.fan_out_part(Delivery::of(letter), excluded_slot, part, effects);
    }

    fn fan_out_part(
        &mut self,
        delivery: Delivery<'_>,
        excluded_slot: Option<u32>,
        part: Part,
        effects: &mut impl Effects,
    ) {
        let realm = &self.realms[delivery.head.realm.0 as usize];
        let broker = &realm.broker;
        let sessions = &mut self.sessions;
        let doomed = &mut self.doomed;
        let resumptions = &self.resumptions;
        let mut caught_up = Vec::new();
        let audience = delivery.head.audience.as_deref();
        let own_cause = delivery.head.cause.filter(|cause| cause.core() == self.core);
        let spared_door = self.database_doors.spared_by(delivery.head);
        let mut counted = delivery.is_counted().then(Vec::new);
        let mut transcoded = Transcoded::default();
        let mut events = 0;
        let mut matching = broker.subscriptions.matching(delivery.topic);
        for entry in matching.by_ref() {
            let Some(subscription) = broker.subscriptions.get(entry) else { continue };
            let pattern =
                broker.subscriptions.uri(entry).is_some_and(|(_, policy)| policy != MatchPolicy::Exact);
            // It would have been among what is retained, had it come a moment earlier; and who asked for that would
            // otherwise never hear of it.
            let is_late = delivery.is_older_than(subscription.era, pattern);
            if is_late && !delivery.is_retained {
                continue;
            }
            if pattern && delivery.head.cause.is_some() && !broker.is_named_reserved(entry) {
                continue;
            }
            let mut event = delivery.event(subscription.id, pattern);
            event.details.retained = is_late;
            let is_sole = subscription.subscribers.len() == 1;
            let mut frames = if is_sole { EventFrames::sole() } else { EventFrames::default() };
            let receivers = match (part, subscription.subscribers.split_first()) {
                (Part::All, _) | (_, None) => &subscription.subscribers[..],
                (Part::First, Some((first, _))) => std::slice::from_ref(first),
                (Part::Rest, Some((_, rest))) => rest,
            };
            let sharing = subscription.nodes.as_deref().zip(delivery.shard());
            let chosen = sharing.and_then(|(nodes, shard)| {
                let known = shard.chosen_for(subscription.id);
                known.or_else(|| nodes.choose(shard.resource, &broker.id_hasher))
            });
            for subscriber in receivers {
                if let Some((nodes, _)) = sharing
                    && nodes.node_of(subscriber.slot).is_some_and(|node| Some(node) != chosen)
                {
                    continue;
                }
                if Some(subscriber.slot) == excluded_slot
                    || is_late && !subscriber.wants(Subscriber::RETAINED)
                {
                    continue;
                }
                // R11: nobody hears of what was before its subscription.
                if let Some(cause) = own_cause
                    && broker.late.get(&(entry, subscriber.slot)).is_some_and(|at| cause.sequence() <= *at)
                {
                    continue;
                }
                let session = sessions.at_mut(subscriber.slot);
                let role = &realm.roles[session.role as usize];
                if spared_door == Some(session.listener) {
                    continue;
                }
                if audience.is_some_and(|audience| !audience.admits(session, &role.name)) {
                    continue;
                }
                let key = SessionKey { slot: subscriber.slot, generation: session.generation };
                if !resumptions.is_empty() {
                    match resumptions.passage(entry, subscriber.slot, &delivery) {
                        Passage::Passes => {}
                        Passage::PassesForGood => caught_up.push((entry, subscriber.slot)),
                        Passage::HeldBack => continue,
                    }
                }
                let Some(active) = session.active.as_mut() else { continue };
                let sent = deliver(key, active, &mut event, &mut frames, &mut transcoded, effects);
                events += u64::from(sent == Sent::Accepted);
                if let Some(slots) = counted.as_mut().filter(|_| sent == Sent::Accepted) {
                    slots.push(subscriber.slot);
                }
                if sent == Sent::Full && role.slow == SlowPolicy::Drop {
                    active.events_lost += 1;
                    effects.counters().events_dropped += 1;
                } else if sent == Sent::Full {
                    // The lists must not change while they are walked.
                    doomed.push((key, CloseReason::SlowConsumer));
                }
            }
        }
        realm.counts.events.add(events);
        effects.searched(matching.shapes_tried());
        for (entry, slot) in caught_up {
            self.resumptions.forget(entry, slot);
        }
        if let Some(slots) = counted {
            self.tell_received(delivery.head, slots, effects);
        }
    }
}
