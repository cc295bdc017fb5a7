//! Subscriptions that the router takes back (advanced profile, "Subscription Revocation").

use super::Router;
use super::effects::Effects;
use super::peer::SessionKey;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Message, Unsubscribed};
use crate::wamp::options::{RevocationDetails, Text};
use crate::wamp::{RequestId, SubscriptionId};

impl Router {
    /// Takes a subscription from a session of this core. Whether it had it. Who can be told is told; to all others the events
    /// just stop, as the specification demands.
    pub(super) fn revoke_subscription(
        &mut self,
        key: SessionKey,
        subscription: SubscriptionId,
        reason: Option<&str>,
        effects: &mut impl Effects,
    ) -> bool {
        let Some(place) = self.place_of_subscription(key, subscription) else { return false };
        effects.counters().subscriptions_revoked += 1;
        self.remove_subscription(key, place, effects);
        let features = self.sessions.at(key.slot).features;
        if features.contains(ClientFeatures::SUBSCRIBER_SUBSCRIPTION_REVOCATION) {
            let details = RevocationDetails {
                subscription: Some(subscription),
                reason: reason.map(Text::Borrowed),
                ..RevocationDetails::default()
            };
            let message = Unsubscribed { request: RequestId(0), details: Some(details) };
            let _ = effects.reply(key, &Message::Unsubscribed(message));
        }
        true
    }
}
