//! What happens on any core and becomes a meta event: told to the realm's home core, published from there (R11).
//!
//! Home keeps on how many cores each subscription has subscribers, so that a subscription is created once and deleted
//! once, whoever comes first and goes last. What nobody listens to is not told: whoever subscribes later must not hear of
//! it anyhow.

use std::num::NonZeroU64;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde_json::json;

use super::super::Router;
use super::super::effects::{CreditTime, Effects};
use super::super::peer::{
    Body, Charge, CoreId, MESSAGE_OVERHEAD_BYTES, Payment, PeerMessage, RealmIndex, SessionKey, SessionRef,
};
use super::super::session::State;
use super::backlog::Waiting;
use crate::wamp::codec::timestamp_text;
use crate::wamp::options::MatchPolicy;
use crate::wamp::{Arguments, SessionId, SubscriptionId};

/// What a meta event comes from: the core, and the place among all that happened there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause(NonZeroU64);

impl Cause {
    /// At a million a second they last for nine years.
    const SEQUENCE_BITS: u32 = 48;

    fn new(core: CoreId, sequence: u64) -> Option<Self> {
        NonZeroU64::new(u64::from(core.0) << Self::SEQUENCE_BITS | sequence).map(Self)
    }

    /// Where it happened.
    pub(in crate::router) fn core(self) -> CoreId {
        CoreId((self.0.get() >> Self::SEQUENCE_BITS) as u16)
    }

    /// When, in the measure of that core.
    pub(in crate::router) fn sequence(self) -> u64 {
        self.0.get() & ((1 << Self::SEQUENCE_BITS) - 1)
    }
}

/// Something that happened, on its way to home.
#[derive(Debug)]
pub struct News {
    realm: RealmIndex,
    cause: Option<Cause>,
    session: SessionId,
    /// In microseconds since 1970.
    at_us: u64,
    /// What the session was charged that did it (R8). One that has ended is not: for that home pays ([`super::backlog`]).
    payment: Option<Payment>,
    kind: NewsKind,
}

/// What happened.
#[derive(Debug)]
pub(in crate::router) enum NewsKind {
    /// To be published as it is.
    Event(Body),
    /// A session subscribed; with the topic where it is the first one of its core.
    Subscribed { subscription: SubscriptionId, first: Option<(MatchPolicy, Box<str>)> },
    /// A session subscribes no longer; it may have been the last one of its core.
    Unsubscribed { subscription: SubscriptionId, is_last: bool },
}

impl News {
    /// What it holds of a ring, in bytes.
    pub(in crate::router) fn bytes(&self) -> usize {
        self.kind.bytes()
    }
}

impl NewsKind {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(body) => body.len(),
            Self::Subscribed { first: Some((_, topic)), .. } => topic.len(),
            Self::Subscribed { first: None, .. } | Self::Unsubscribed { .. } => 0,
        }
    }
}

/// A subscription as home knows it.
#[derive(Debug)]
struct Known {
    /// How many cores have subscribers.
    cores: u16,
    created_us: u64,
}

/// The subscriptions of a realm, at its home.
#[derive(Debug)]
pub(in crate::router) struct Directory {
    /// Ends when no core has a subscriber any more.
    subscriptions: HashMap<SubscriptionId, Known, FixedState>,
}

impl Directory {
    pub(in crate::router) fn new(seed: u64) -> Self {
        Self { subscriptions: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    pub(in crate::router) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// When a subscription was created, in microseconds since 1970.
    pub(super) fn created_us(&self, subscription: SubscriptionId) -> Option<u64> {
        self.subscriptions.get(&subscription).map(|known| known.created_us)
    }

    /// A core has its first subscriber. Whether the subscription was created by that.
    fn add(&mut self, subscription: SubscriptionId, at_us: u64) -> bool {
        let known = self.subscriptions.entry(subscription).or_insert(Known { cores: 0, created_us: at_us });
        known.cores += 1;
        known.cores == 1
    }

    /// A core has no subscriber any more. Whether the subscription was deleted by that.
    fn remove(&mut self, subscription: SubscriptionId) -> bool {
        let Some(known) = self.subscriptions.get_mut(&subscription) else { return false };
        known.cores -= 1;
        if known.cores > 0 {
            return false;
        }
        self.subscriptions.remove(&subscription);
        true
    }
}

impl Router {
    /// Whether a meta event would be sent to anybody.
    pub(super) fn is_wanted(&self, realm: RealmIndex, topic: &str, effects: &impl Effects) -> bool {
        self.realms[usize::from(realm.0)].broker.has_meta_subscribers(topic)
            || self.is_wanted_elsewhere(realm, topic, effects)
    }

    /// The time, in microseconds since 1970, for people to read: nothing goes by it.
    pub(in crate::router) fn for_people_us(&self) -> u64 {
        self.now.wall_us
    }

    /// The place of what happens next among all that happens on this core.
    pub(in crate::router) fn next_meta_sequence(&self) -> u64 {
        self.meta.sequence + 1
    }

    /// For what happens at home.
    pub(super) fn own_cause(&mut self) -> Option<Cause> {
        Cause::new(self.core, self.take_sequence())
    }

    fn take_sequence(&mut self) -> u64 {
        self.meta.sequence += 1;
        self.meta.sequence
    }

    /// Hands news to home, which may be here.
    pub(super) fn tell_home(
        &mut self,
        realm: RealmIndex,
        (key, session): (SessionKey, SessionId),
        kind: NewsKind,
        effects: &mut impl Effects,
    ) {
        let cause = self.own_cause();
        let is_open = self.sessions.at(key.slot).state == State::Open;
        let payment = is_open.then(|| {
            let bytes = kind.bytes() as u32 + MESSAGE_OVERHEAD_BYTES;
            let charge = Charge { bytes, paused: effects.charge(key, bytes) };
            Payment { session: SessionRef { core: self.core, key }, charge }
        });
        let news = News { realm, cause, session, at_us: self.for_people_us(), payment, kind };
        let home = self.realms[usize::from(realm.0)].home;
        if home == self.core {
            self.handle_news(news, effects);
        } else {
            effects.peer(home, PeerMessage::News(Box::new(news)));
        }
    }

    /// A session of this core subscribed to something; `is_first` of all here.
    pub(in crate::router) fn tell_subscribed(
        &mut self,
        key: SessionKey,
        subscription: SubscriptionId,
        is_first: bool,
        (policy, topic): (MatchPolicy, &str),
        effects: &mut impl Effects,
    ) {
        let session = self.sessions.at(key.slot);
        let (realm, id) = (session.realm, session.id);
        if !self.realms[usize::from(realm.0)].meta_api {
            return;
        }
        if is_first || self.is_wanted(realm, "wamp.subscription.on_subscribe", effects) {
            let first = is_first.then(|| (policy, topic.into()));
            self.tell_home(realm, (key, id), NewsKind::Subscribed { subscription, first }, effects);
        } else {
            // It happened, whether somebody hears of it or not.
            self.take_sequence();
        }
    }

    /// A session of this core subscribes to something no longer; it was the last one here if `is_last`.
    pub(in crate::router) fn tell_unsubscribed(
        &mut self,
        key: SessionKey,
        subscription: SubscriptionId,
        is_last: bool,
        effects: &mut impl Effects,
    ) {
        let session = self.sessions.at(key.slot);
        let (realm, id) = (session.realm, session.id);
        if !self.realms[usize::from(realm.0)].meta_api {
            return;
        }
        if is_last || self.is_wanted(realm, "wamp.subscription.on_unsubscribe", effects) {
            self.tell_home(realm, (key, id), NewsKind::Unsubscribed { subscription, is_last }, effects);
        }
    }

    /// At home: something happened on some core.
    pub(in crate::router) fn handle_news(&mut self, news: News, effects: &mut impl Effects) {
        if self.must_wait(news.payment.is_some(), effects) {
            self.let_wait(Waiting::News(news), effects);
        } else {
            self.tell_news(&news, effects);
        }
    }

    pub(super) fn tell_news(&mut self, news: &News, effects: &mut impl Effects) {
        let News { realm: index, cause, session, payment, .. } = *news;
        let mut payment = Some(payment.unwrap_or_else(|| self.pay_for(news.bytes(), effects)));
        let realm = &mut self.realms[usize::from(index.0)];
        match &news.kind {
            NewsKind::Event(body) => {
                effects.counters().meta_events += 1;
                self.publish_as_router(index, body.uri(), body.payload(), (cause, payment), effects);
            }
            NewsKind::Subscribed { subscription, first } => {
                let id = subscription.0;
                let directory = realm.directory.as_mut();
                let is_created = directory
                    .is_some_and(|directory| first.is_some() && directory.add(*subscription, news.at_us));
                if let Some((policy, topic)) = first
                    && is_created
                {
                    let half = payment.as_mut().map(|payment| payment.part(2));
                    let source = (cause, half);
                    self.publish_meta_event(index, source, "wamp.subscription.on_create", effects, || {
                        let created = timestamp_text(news.at_us);
                        let (policy, topic) = (policy.as_str(), &**topic);
                        let details = json!({"id": id, "created": created, "uri": topic, "match": policy});
                        vec![session.0.into(), details]
                    });
                }
                let source = (cause, payment);
                self.publish_meta_event(index, source, "wamp.subscription.on_subscribe", effects, || {
                    vec![session.0.into(), id.into()]
                });
            }
            NewsKind::Unsubscribed { subscription, is_last } => {
                let id = subscription.0;
                let directory = realm.directory.as_mut();
                let is_deleted =
                    directory.is_some_and(|directory| *is_last && directory.remove(*subscription));
                let arguments = || vec![session.0.into(), id.into()];
                let half = payment.as_mut().filter(|_| is_deleted).map(|payment| payment.part(2));
                let source = (cause, payment);
                let topic = "wamp.subscription.on_unsubscribe";
                self.publish_meta_event(index, source, topic, effects, arguments);
                if is_deleted {
                    let source = (cause, half);
                    self.publish_meta_event(index, source, "wamp.subscription.on_delete", effects, arguments);
                }
            }
        }
    }

    /// At home: publishes a meta event, which is made only if somebody gets it. What was paid for it goes back.
    pub(super) fn publish_meta_event(
        &mut self,
        realm: RealmIndex,
        (cause, payment): (Option<Cause>, Option<Payment>),
        topic: &str,
        effects: &mut impl Effects,
        arguments: impl FnOnce() -> Vec<serde_json::Value>,
    ) {
        if !self.is_wanted(realm, topic, effects) {
            if let Some(Payment { session, charge }) = payment {
                effects.credit(session, charge, CreditTime::Now);
            }
            return;
        }
        effects.counters().meta_events += 1;
        let written = Arguments::from(arguments()).write();
        self.publish_as_router(realm, topic, written.as_payload(), (cause, payment), effects);
    }
}
