//! What the meta API asks of the broker, and what the router publishes by itself.

use super::super::Router;
use super::super::effects::{CreditTime, Effects};
use super::super::meta::Cause;
use super::super::peer::{Charge, Payment, PublicationHead, RealmIndex, SessionKey, SessionRef};
use super::super::uri_map::EntryKey;
use super::{Broker, Delivery};
use crate::wamp::options::MatchPolicy;
use crate::wamp::uri::is_reserved;
use crate::wamp::{Payload, SubscriptionId};

impl Broker {
    /// How many subscribers are remembered because of meta events.
    pub(in crate::router) fn late_count(&self) -> usize {
        self.late.len()
    }

    /// Whether anybody here gets what the router publishes to a topic.
    pub(in crate::router) fn has_meta_subscribers(&self, topic: &str) -> bool {
        self.subscriptions.matching(topic).any(|entry| self.is_named_reserved(entry))
    }

    /// Whether a subscription names `wamp`: a pattern that only happens to match gets no meta events.
    pub(super) fn is_named_reserved(&self, entry: EntryKey) -> bool {
        self.subscriptions.uri(entry).is_some_and(|(uri, _)| is_reserved(uri))
    }

    /// All subscriptions of this core.
    pub(in crate::router) fn all(&self) -> impl Iterator<Item = (SubscriptionId, MatchPolicy)> {
        self.subscriptions.iter().map(|(_, _, policy, subscription)| (subscription.id, policy))
    }

    /// The subscription of a topic or pattern.
    pub(in crate::router) fn find(&self, policy: MatchPolicy, topic: &str) -> Option<SubscriptionId> {
        Some(self.subscriptions.get(self.subscriptions.find(policy, topic)?)?.id)
    }

    /// The subscriptions that match a topic.
    pub(in crate::router) fn matching_ids(
        &self,
        topic: &str,
        effects: &mut impl Effects,
    ) -> Vec<SubscriptionId> {
        let mut matching = self.subscriptions.matching(topic);
        let reserved = is_reserved(topic);
        let gets = |entry: &EntryKey| !reserved || self.is_named_reserved(*entry);
        let entries = matching.by_ref().filter(gets);
        let found = entries.filter_map(|entry| Some(self.subscriptions.get(entry)?.id)).collect();
        effects.searched(matching.shapes_tried());
        found
    }

    /// What a subscription is to.
    pub(in crate::router) fn topic_of(&self, id: SubscriptionId) -> Option<(&str, MatchPolicy)> {
        self.subscriptions.uri(*self.by_id.get(&id)?)
    }

    /// Who subscribes here, if there is the subscription.
    pub(in crate::router) fn subscriber_slots(
        &self,
        id: SubscriptionId,
    ) -> Option<impl ExactSizeIterator<Item = u32> + use<'_>> {
        let subscription = self.subscriptions.get(*self.by_id.get(&id)?)?;
        Some(subscription.subscribers.iter().map(|subscriber| subscriber.slot))
    }
}

impl Router {
    /// Publishes as the router itself, whom nobody has to allow it. Who caused it has paid for it, as a publisher does, and
    /// is held for slow readers like one.
    pub(in crate::router) fn publish_as_router(
        &mut self,
        realm: RealmIndex,
        topic: &str,
        payload: Payload<'_>,
        (cause, payment): (Option<Cause>, Option<Payment>),
        effects: &mut impl Effects,
    ) {
        let nobody = SessionRef { core: self.core, key: SessionKey { slot: u32::MAX, generation: 0 } };
        let publication = self.random.publication_id();
        let head = PublicationHead {
            realm,
            publisher: payment.map_or(nobody, |payment| payment.session),
            publication,
            audience: None,
            attributes: None,
            cause,
        };
        let wanted = self.interested_cores(realm, topic, effects);
        let delivery = Delivery { head: &head, topic, payload, eras: None, is_retained: false };
        self.fan_out(delivery, None, effects);
        let mut part = Charge::default();
        if let Some(Payment { session, charge }) = payment {
            part = Charge { bytes: charge.bytes / (1 + wanted.count()), ..charge };
            let own = Charge { bytes: charge.bytes - part.bytes * wanted.count(), ..charge };
            effects.credit(session, own, CreditTime::AfterFlush);
        }
        self.send_publication(wanted, head, topic, payload, part, effects);
    }

    /// Whether another core may have subscribers of a topic.
    pub(in crate::router) fn is_wanted_elsewhere(
        &self,
        realm: RealmIndex,
        topic: &str,
        effects: &impl Effects,
    ) -> bool {
        self.interested_cores(realm, topic, effects).count() > 0
    }
}
