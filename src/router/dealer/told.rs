//! What the meta API asks of the dealer, and what it hears of registrations.

use super::Dealer;
use super::registration::{Registration, Serves};
use crate::router::effects::Effects;
use crate::router::peer::{Payment, Sitting};
use crate::wamp::options::InvocationPolicy;
use crate::wamp::uri::is_reserved;
use crate::wamp::{MatchPolicy, RegistrationId, SessionId};

/// Something that happened to a registration, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) struct Change {
    pub(in crate::router) session: SessionId,
    pub(in crate::router) registration: RegistrationId,
    pub(in crate::router) kind: ChangeKind,
    /// What the callee that did it was charged.
    pub(in crate::router) payment: Option<Payment>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::router) enum ChangeKind {
    /// It is there, because a callee registered.
    Created { uri: Box<str>, policy: MatchPolicy, invoke: InvocationPolicy, created_us: u64 },
    /// A callee serves it.
    Registered,
    /// A callee serves it no longer.
    Unregistered,
    /// It is gone, because its last callee is.
    Deleted,
}

/// A registration, as the meta API tells of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::router) struct Told<'a> {
    pub(in crate::router) uri: &'a str,
    pub(in crate::router) policy: MatchPolicy,
    pub(in crate::router) invoke: InvocationPolicy,
    pub(in crate::router) created_us: u64,
}

impl Dealer {
    /// All registrations.
    pub(in crate::router) fn all(&self) -> impl Iterator<Item = (RegistrationId, MatchPolicy)> {
        self.registrations.iter().map(|(_, _, policy, registration)| (registration.id, policy))
    }

    /// The registration of a procedure or pattern.
    pub(in crate::router) fn find(&self, policy: MatchPolicy, procedure: &str) -> Option<RegistrationId> {
        Some(self.registrations.get(self.registrations.find(policy, procedure)?)?.id)
    }

    /// The registration that a call goes to.
    pub(in crate::router) fn best(
        &self,
        procedure: &str,
        effects: &mut impl Effects,
    ) -> Option<RegistrationId> {
        if is_reserved(procedure) {
            return None;
        }
        let mut matching = self.registrations.matching(procedure);
        let best = matching.next();
        effects.searched(matching.shapes_tried());
        Some(self.registrations.get(best?)?.id)
    }

    /// What there is to tell of a registration.
    pub(in crate::router) fn told(&self, id: RegistrationId) -> Option<Told<'_>> {
        let entry = *self.by_id.get(&id)?;
        let (uri, policy) = self.registrations.uri(entry)?;
        let registration = self.registrations.get(entry)?;
        let (invoke, created_us) = (registration.sharing.policy, registration.created_us);
        Some(Told { uri, policy, invoke, created_us })
    }

    /// How many callees a registration has.
    pub(in crate::router) fn callee_count(&self, id: RegistrationId) -> Option<usize> {
        let registration = self.registrations.get(*self.by_id.get(&id)?)?;
        Some(match registration.serves {
            Serves::One(_) => 1,
            Serves::Database(_) => 0,
            Serves::Pool(pool) => self.pools.get(&pool).map_or(0, |pool| pool.len()),
        })
    }

    /// The callees of a registration, in the order in which they registered.
    pub(in crate::router) fn callees_of(&self, id: RegistrationId) -> Vec<(SessionId, Sitting)> {
        let registration = self.by_id.get(&id).and_then(|entry| self.registrations.get(*entry));
        let sittings = registration.map_or_else(Vec::new, |registration| self.sittings(registration));
        sittings.into_iter().filter_map(|sitting| Some((self.session_of(sitting)?, sitting))).collect()
    }

    fn sittings(&self, registration: &Registration) -> Vec<Sitting> {
        match registration.serves {
            Serves::One(callee) => vec![callee],
            Serves::Database(_) => Vec::new(),
            Serves::Pool(pool) => {
                let pool = self.pools.get(&pool);
                pool.map_or_else(Vec::new, |pool| pool.callees().map(|callee| callee.sitting).collect())
            }
        }
    }

    /// The session of a callee: each of its registrations says it.
    fn session_of(&self, callee: Sitting) -> Option<SessionId> {
        Some(self.by_callee.get(&callee)?.first()?.session)
    }
}
