"""What each published client can do, so that every gap in the matrix has its reason here and nowhere else."""

from dataclasses import dataclass, field

SERIALIZERS = ("json", "msgpack", "cbor")
WEBSOCKET = ("ws-tcp", "ws-unix")
RAWSOCKET = ("rs-tcp", "rs-unix")
# Methods of authentication. A token is shown like a ticket, which takes nothing but room for its name.
METHODS = ("ticket", "wampcra", "cryptosign", "jwt")


@dataclass(frozen=True)
class Client:
    """A client library: `links` maps each serializer to the links that it can take, `cannot` a need to the reason.

    `methods` are those by which it logs in.
    """

    name: str
    language: str
    links: dict
    cannot: dict = field(default_factory=dict)
    methods: tuple = METHODS

    def variants(self):
        """Every (serializer, link) of it."""
        return [(serializer, link) for serializer in SERIALIZERS for link in self.links[serializer]]


EVERY_LINK = {serializer: WEBSOCKET + RAWSOCKET for serializer in SERIALIZERS}
NO_DISCLOSE_ME = "has no disclose_me"
NO_PASSTHRU = "has no payload passthru"
NO_CALLEE_CANCELLING = "its callee does not announce call_canceling"
NO_REVOCATION = "does not announce subscription_revocation, so that its events just stop"
NO_SHARDING = "leaves nkey and rkey out"
NO_FURTHER_INPUT = "has no call with input in parts"
NO_INPUT_IN_PARTS = "its callee does not announce progressive_call_invocations, and cannot be told to"

CLIENTS = {
    client.name: client
    for client in (
        Client("autobahn-python", "python", EVERY_LINK, {
            "send_bad_uri": "checks URIs before it sends them",
            "cancel_mode": "sends CANCEL without a mode",
            "subscription_revoked": "announces subscription_revocation, and closes its link at an UNSUBSCRIBED that it did not ask for",
            "shards": NO_SHARDING,
            "send_parts": NO_FURTHER_INPUT,
            "receive_parts": "closes its link at a second INVOCATION of the same id",
            "disclose_me": NO_DISCLOSE_ME,
            "passthru": NO_PASSTHRU,
            "resume": "sends no options of SUBSCRIBE but those that it knows, so no _after; nor does it show _event_id",
            "see_newer_features": "shows only those features of WELCOME that it knows",
            "see_canceled": "ends a cancelled call itself and does not show the router's ERROR",
        }, METHODS + ("scram", "cookie")),
        Client("xconn", "python", EVERY_LINK, {
            "see_features": "does not show the details of WELCOME",
            "see_goodbye": "does not show the reason of GOODBYE",
            "see_revocation": NO_REVOCATION,
            "see_publication": "shows no publication ids",
            "raise_kwargs": "sends no keyword arguments in the ERROR of a callee",
            "cancel": "has no cancel",
            "interrupted": NO_CALLEE_CANCELLING,
            "receive_progress": "has no progressive results",
            "send_progress": "has no progressive results",
            "send_parts": NO_FURTHER_INPUT,
        }),
        Client("autobahn-js", "javascript", {
            "json": WEBSOCKET + RAWSOCKET,
            "msgpack": WEBSOCKET,
            "cbor": WEBSOCKET,
        }, {
            "passthru": NO_PASSTHRU,
            "send_parts": NO_FURTHER_INPUT,
            "receive_parts": NO_INPUT_IN_PARTS,
            "see_event_id": "shows only those details of an event that it knows, so no _event_id",
            "cancel_at_once": "takes the ERROR of a call cancelled by skip or killnowait as a protocol violation",
            "interrupted": NO_CALLEE_CANCELLING,
        }),
        Client("wampy", "javascript", {serializer: WEBSOCKET for serializer in SERIALIZERS}, {
            "send_bad_uri": "checks URIs before it sends them",
            "shards": NO_SHARDING,
            "receive_parts": NO_INPUT_IN_PARTS,
            "retain": "leaves retain out of PUBLISH",
            "concurrency": "leaves concurrency out of REGISTER",
            "publish_unacknowledged": "always asks for an acknowledgement",
            "exclude_me_false": "leaves exclude_me out unless it is true",
            "eligible_nobody": "refuses an empty list",
            "see_goodbye": "does not show the reason of GOODBYE",
            "see_revocation": NO_REVOCATION,
            "see_event_publication": "does not show the publication id of an event",
            "interrupted": NO_CALLEE_CANCELLING,
            "send_progress": "its callee does not announce progressive_call_results",
        }),
    )
}
