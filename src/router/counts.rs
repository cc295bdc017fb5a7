//! What a core counts of each realm. On the path of a message that is one addition through what it holds anyway; nobody looks
//! before the node asks.

use std::cell::Cell;

use super::Router;
use super::realm::Realm;
use crate::metrics::RealmCounters;

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.set(self.0.get() + more);
    }
}

/// See [`RealmCounters`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sessions_opened: Count,
    pub(super) sessions_ended: Count,
    pub(super) publications: Count,
    pub(super) events: Count,
    pub(super) calls: Count,
    pub(super) errors: Count,
    pub(super) subscribed: Count,
    pub(super) unsubscribed: Count,
    pub(super) registered: Count,
}

impl Router {
    /// What was counted of each realm, in the order of their numbers.
    pub fn realm_counters(&self) -> impl Iterator<Item = RealmCounters> {
        self.realms.iter().map(|Realm { counts, dealer, .. }| RealmCounters {
            sessions_opened: counts.sessions_opened.0.get(),
            sessions_ended: counts.sessions_ended.0.get(),
            publications: counts.publications.0.get(),
            events: counts.events.0.get(),
            calls: counts.calls.0.get(),
            errors: counts.errors.0.get(),
            subscribed: counts.subscribed.0.get(),
            unsubscribed: counts.unsubscribed.0.get(),
            registered: counts.registered.0.get(),
            registrations: dealer.as_ref().map_or(0, |dealer| dealer.len() as u64),
        })
    }
}
