//! Subscriptions of this core as the meta API tells of them.

use serde_json::json;

use super::gather::{Findings, Topic};
use crate::router::Router;
use crate::router::effects::Effects;
use crate::router::peer::RealmIndex;
use crate::wamp::{SessionId, SubscriptionId};

impl Router {
    pub(super) fn list_subscriptions(&self, realm: RealmIndex, effects: &mut impl Effects) -> Findings {
        let broker = &self.realms[usize::from(realm.0)].broker;
        effects.searched(broker.len());
        let mut ids = [Vec::new(), Vec::new(), Vec::new()];
        for (id, policy) in broker.all() {
            ids[policy as usize].push(id.0);
        }
        Findings { ids, ..Findings::default() }
    }

    pub(super) fn look_up_subscription(&self, realm: RealmIndex, topic: &Topic) -> Findings {
        let broker = &self.realms[usize::from(realm.0)].broker;
        let found = broker.find(topic.policy, &topic.uri);
        let ids = [found.map(|id| id.0).into_iter().collect(), Vec::new(), Vec::new()];
        Findings { ids, ..Findings::default() }
    }

    pub(super) fn match_subscriptions(
        &self,
        realm: RealmIndex,
        uri: &str,
        effects: &mut impl Effects,
    ) -> Findings {
        let broker = &self.realms[usize::from(realm.0)].broker;
        let ids = broker.matching_ids(uri, effects).into_iter().map(|id| id.0).collect();
        Findings { ids: [ids, Vec::new(), Vec::new()], ..Findings::default() }
    }

    pub(super) fn find_subscription(&self, realm: RealmIndex, id: SubscriptionId) -> Findings {
        let realm = &self.realms[usize::from(realm.0)];
        let mut findings = Findings::default();
        if let Some((uri, policy)) = realm.broker.topic_of(id) {
            findings.is_found = true;
            let details = json!({"id": id.0, "uri": uri, "match": policy.as_str()});
            findings.details = details.as_object().cloned().unwrap_or_default();
        }
        if let Some(directory) = &realm.directory {
            // A core that has it has told, but may not have been heard yet: then it was created just now.
            findings.created_us = Some(directory.created_us(id).unwrap_or_else(|| self.for_people_us()));
        }
        findings
    }

    /// Takes a subscription from a session, if both are here.
    pub(super) fn remove_subscriber(
        &mut self,
        realm: RealmIndex,
        id: SubscriptionId,
        session: SessionId,
        reason: Option<&str>,
        effects: &mut impl Effects,
    ) -> Findings {
        let is_found = self.realms[usize::from(realm.0)].broker.topic_of(id).is_some();
        let there = self.sessions.find(session).filter(|(_, session)| session.realm == realm);
        let key = there.map(|(key, _)| key);
        let is_removed = key.is_some_and(|key| self.revoke_subscription(key, id, reason, effects));
        Findings { is_found, count: u64::from(is_removed), ..Findings::default() }
    }

    pub(super) fn find_subscribers(
        &self,
        realm: RealmIndex,
        id: SubscriptionId,
        list: bool,
        effects: &mut impl Effects,
    ) -> Findings {
        let slots = self.realms[usize::from(realm.0)].broker.subscriber_slots(id);
        let Some(slots) = slots else { return Findings::default() };
        let count = slots.len() as u64;
        let mut ids = Vec::new();
        if list {
            effects.searched(slots.len());
            ids = slots.map(|slot| self.sessions.at(slot).id.0).collect();
        }
        Findings { is_found: true, count, ids: [ids, Vec::new(), Vec::new()], ..Findings::default() }
    }
}
