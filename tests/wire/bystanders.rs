//! Sessions that have nothing to do with an offender, and must not notice it.

use super::client::{Client, RawSocket, WebSocket};
use super::router::Router;

/// A caller and a callee, a publisher and a subscriber, each pair across the two cores.
pub(super) struct Bystanders {
    caller: Client,
    callee: Client,
    publisher: Client,
    subscriber: Client,
    rounds: u64,
}

impl Bystanders {
    pub(super) fn join(router: &Router) -> Self {
        let mut bystanders = Self {
            caller: Client::join(&router.near, WebSocket),
            callee: Client::join(&router.far, RawSocket),
            publisher: Client::join(&router.far, WebSocket),
            subscriber: Client::join(&router.near, RawSocket),
            rounds: 0,
        };
        bystanders.callee.register("bystander.echo");
        bystanders.subscriber.subscribe("bystander.topic");
        bystanders.check();
        bystanders
    }

    /// A call and an event get through, with what was said in them, and nothing else has come.
    pub(super) fn check(&mut self) {
        self.rounds += 1;
        let round = self.rounds;
        let request = self.caller.call("bystander.echo", &round.to_string());
        self.publisher.publish("bystander.topic", &round.to_string());
        assert_eq!(self.callee.echo_invocation()[4][0], round);
        let result = self.caller.message();
        assert_eq!((&result[0], &result[1], &result[3][0]), (&50.into(), &request.into(), &round.into()));
        let event = self.subscriber.message();
        assert_eq!((&event[0], &event[4][0]), (&36.into(), &round.into()));
    }

    /// They leave in good order, so that they count as GOODBYE alone.
    pub(super) fn leave(mut self) {
        self.check();
        for client in [self.caller, self.callee, self.publisher, self.subscriber] {
            client.leave();
        }
    }
}
