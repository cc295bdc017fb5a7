//! Subscriptions that the router takes back (advanced profile, "Subscription Revocation").

use super::Router;
use super::effects::Effects;
use super::peer::SessionKey;
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Message, MessageType, Unsubscribed};
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
        let request = self.pending_at(key, place);
        self.remove_subscription(key, place, effects);
        if let Some(request) = request {
            // It was not confirmed yet.
            let (kind, error) = (MessageType::Subscribe, uri::CANCELED);
            self.refuse(key, kind, request, error, "the subscription was taken back", effects);
            return true;
        }
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
