//! One publication on its way to the subscribers of a core.

use super::effects::{Effects, EventFrames, Sent, Transcoded};
use super::peer::{Attributes, Eras, Letter, PublicationHead, SessionKey};
use super::session::Active;
use super::sharding::Shard;
use crate::wamp::message::Event;
use crate::wamp::options::{EventDetails, Text};
use crate::wamp::{Payload, SubscriptionId};

/// A publication as it is delivered: borrowed from the PUBLISH itself, or from what crossed a ring.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    pub(super) head: &'a PublicationHead,
    pub(super) topic: &'a str,
    pub(super) payload: Payload<'a>,
    /// Where it came from another core.
    pub(super) eras: Option<Eras>,
    /// It is what its topic retains from now on.
    pub(super) is_retained: bool,
}

impl<'a> Delivery<'a> {
    /// What crossed a ring, or was kept.
    pub(super) fn of(publication: &'a Letter<PublicationHead>) -> Self {
        Self {
            head: &publication.head,
            topic: publication.body.uri(),
            payload: publication.body.payload(),
            eras: None,
            is_retained: false,
        }
    }

    /// Where it goes among nodes, if it has a resource key.
    pub(super) fn shard(&self) -> Option<&'a Shard> {
        self.head.attributes.as_deref()?.shard.as_deref()
    }

    /// Whether it is to be said how many sessions get it.
    pub(super) fn is_counted(&self) -> bool {
        self.head.attributes.as_deref().is_some_and(|attributes| attributes.is_counted)
    }

    /// The message to the subscribers of one subscription.
    pub(super) fn event(&self, subscription: SubscriptionId, is_pattern: bool) -> Event<'a> {
        Event {
            subscription,
            publication: self.head.publication,
            details: EventDetails {
                topic: is_pattern.then_some(Text::Borrowed(self.topic)),
                ..self
                    .head
                    .attributes
                    .as_deref()
                    .map_or_else(EventDetails::default, Attributes::event_details)
            },
            payload: self.payload,
        }
    }

    /// Whether it was sent before the interest began that a subscription belongs to.
    pub(super) fn is_older_than(&self, since: u32, is_pattern: bool) -> bool {
        self.eras.is_some_and(|eras| {
            let era = if is_pattern { eras.patterns } else { eras.exact };
            // Eras go round after four thousand million of them.
            era.wrapping_sub(since) > u32::MAX / 2
        })
    }
}

/// Queues an event for one subscriber, and tells it how many it lost before. What a full outbox means is the caller's to
/// say.
pub(super) fn deliver(
    key: SessionKey,
    active: &mut Active,
    event: &mut Event<'_>,
    frames: &mut EventFrames,
    transcoded: &mut Transcoded,
    effects: &mut impl Effects,
) -> Sent {
    let sent = if active.events_lost == 0 {
        effects.event(key, event, frames, transcoded)
    } else {
        event.details.lost = u32::try_from(active.events_lost).unwrap_or(u32::MAX);
        let sent = effects.event(key, event, &mut EventFrames::sole(), transcoded);
        event.details.lost = 0;
        if sent == Sent::Accepted {
            active.events_lost = 0;
        }
        sent
    };
    match sent {
        Sent::Accepted => effects.counters().events += 1,
        Sent::NotRepresentable => effects.counters().events_not_representable += 1,
        Sent::TooLarge => effects.counters().events_too_large += 1,
        Sent::Full | Sent::Gone => {}
    }
    sent
}
