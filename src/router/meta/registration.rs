//! Registrations as the meta API tells of them: all of it at home.
//!
//! A registration comes to be at home, whenever it was asked for, and so its events are home's own.

use serde_json::{Value, json};

use super::Refusal;
use super::backlog::Waiting;
use super::gather::{Findings, Topic};
use super::news::Cause;
use crate::router::Router;
use crate::router::dealer::{Change, ChangeKind, Told};
use crate::router::effects::Effects;
use crate::router::peer::RealmIndex;
use crate::wamp::codec::timestamp_text;
use crate::wamp::error::uri;
use crate::wamp::{Arguments, RegistrationId, SessionId};

/// What a callee is told that lost a registration by the meta API, unless its caller says why.
/// A URI, because Autobahn|Python closes its connection on a reason that is none.
const REMOVED: &str = "crosspoint.reason.removed";

/// What the specification calls RegistrationDetails.
fn details(id: RegistrationId, told: Told<'_>) -> Value {
    let Told { uri, policy, invoke, created_us } = told;
    let (created, policy, invoke) = (timestamp_text(created_us), policy.as_str(), invoke.as_str());
    json!({"id": id.0, "created": created, "uri": uri, "match": policy, "invoke": invoke})
}

/// The id of a registration that is the first argument.
pub(super) fn registration(arguments: &Arguments) -> Result<RegistrationId, Refusal> {
    let text = "the first argument must be the id of a registration";
    super::procedure::id(arguments.args.first()).map(RegistrationId).ok_or((uri::INVALID_ARGUMENT, text))
}

impl Router {
    /// At home: tells what has happened to registrations since the last time.
    pub(in crate::router) fn tell_registration_changes(&mut self, effects: &mut impl Effects) {
        while !self.meta.changes.is_empty() {
            for (realm, change) in std::mem::take(&mut self.meta.changes) {
                let cause = self.own_cause();
                if self.must_wait(change.payment.is_some(), effects) {
                    self.let_wait(Waiting::Change(realm, Box::new(change), cause), effects);
                } else {
                    self.tell_registration_change(realm, &change, cause, effects);
                }
            }
        }
    }

    pub(super) fn tell_registration_change(
        &mut self,
        realm: RealmIndex,
        change: &Change,
        cause: Option<Cause>,
        effects: &mut impl Effects,
    ) {
        let &Change { session, registration, ref kind, payment } = change;
        let payment = Some(payment.unwrap_or_else(|| self.pay_for(0, effects)));
        let topic = match kind {
            ChangeKind::Created { .. } => "wamp.registration.on_create",
            ChangeKind::Registered => "wamp.registration.on_register",
            ChangeKind::Unregistered => "wamp.registration.on_unregister",
            ChangeKind::Deleted => "wamp.registration.on_delete",
        };
        self.publish_meta_event(realm, (cause, payment), topic, effects, || {
            let second = match *kind {
                ChangeKind::Created { ref uri, policy, invoke, created_us } => {
                    details(registration, Told { uri, policy, invoke, created_us })
                }
                _ => registration.0.into(),
            };
            vec![session.0.into(), second]
        });
    }

    pub(super) fn list_registrations(&self, realm: RealmIndex, effects: &mut impl Effects) -> Findings {
        let mut ids = [Vec::new(), Vec::new(), Vec::new()];
        if let Some(dealer) = &self.realms[usize::from(realm.0)].dealer {
            effects.searched(dealer.len());
            for (id, policy) in dealer.all() {
                ids[policy as usize].push(id.0);
            }
        }
        Findings { ids, ..Findings::default() }
    }

    pub(super) fn look_up_registration(&self, realm: RealmIndex, topic: &Topic) -> Findings {
        let dealer = self.realms[usize::from(realm.0)].dealer.as_ref();
        let found = dealer.and_then(|dealer| dealer.find(topic.policy, &topic.uri));
        Findings::of_ids(found.map(|id| id.0).into_iter().collect())
    }

    pub(super) fn match_registration(
        &self,
        realm: RealmIndex,
        procedure: &str,
        effects: &mut impl Effects,
    ) -> Findings {
        let dealer = self.realms[usize::from(realm.0)].dealer.as_ref();
        let found = dealer.and_then(|dealer| dealer.best(procedure, effects));
        Findings::of_ids(found.map(|id| id.0).into_iter().collect())
    }

    pub(super) fn find_registration(&self, realm: RealmIndex, id: RegistrationId) -> Findings {
        let dealer = self.realms[usize::from(realm.0)].dealer.as_ref();
        let Some(told) = dealer.and_then(|dealer| dealer.told(id)) else { return Findings::default() };
        let details = details(id, told).as_object().cloned().unwrap_or_default();
        Findings { is_found: true, details, ..Findings::default() }
    }

    pub(super) fn find_callees(
        &self,
        realm: RealmIndex,
        id: RegistrationId,
        list: bool,
        effects: &mut impl Effects,
    ) -> Findings {
        let dealer = self.realms[usize::from(realm.0)].dealer.as_ref();
        let Some((dealer, count)) = dealer.and_then(|dealer| Some((dealer, dealer.callee_count(id)?))) else {
            return Findings::default();
        };
        let mut ids = Vec::new();
        if list {
            effects.searched(count);
            ids = dealer.callees_of(id).into_iter().map(|(session, _)| session.0).collect();
        }
        Findings { is_found: true, count: count as u64, ..Findings::of_ids(ids) }
    }

    /// Takes a registration from one of its callees. The count is 1 if there was the registration and no such callee.
    pub(super) fn remove_callee(
        &mut self,
        realm: RealmIndex,
        id: RegistrationId,
        session: SessionId,
        reason: Option<&str>,
        effects: &mut impl Effects,
    ) -> Findings {
        let Some(dealer) = &self.realms[usize::from(realm.0)].dealer else { return Findings::default() };
        if dealer.callee_count(id).is_none() {
            return Findings::default();
        }
        effects.searched(dealer.callee_count(id).unwrap_or_default());
        let callee = dealer.callees_of(id).into_iter().find(|(other, _)| *other == session);
        let Some((_, callee)) = callee else { return Findings { count: 1, ..Findings::default() } };
        self.revoke_registration(realm, id, Some(callee), reason.unwrap_or(REMOVED), effects);
        self.tell_registration_changes(effects);
        Findings { is_found: true, ..Findings::default() }
    }
}
