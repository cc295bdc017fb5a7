"""What every pair of clients must see. In each check, a calls or publishes, and b is called or subscribed."""

import base64
from dataclasses import dataclass

from conversation import CheckFailed, NotAnnounced, Refused

ID_MAX = 2**53
FEATURES_WANTED = {
    "broker": ("publisher_exclusion", "subscriber_blackwhite_listing", "pattern_based_subscription"),
    "dealer": ("call_canceling", "pattern_based_registration", "caller_identification", "call_trustlevels",
               "call_timeout", "progressive_call_results", "progressive_call_invocations", "payload_passthru_mode"),
}
# Younger than the tables of some libraries.
FEATURES_NEWER = ("progressive_call_invocations", "payload_passthru_mode")
CHECKS = []


@dataclass(frozen=True)
class Check:
    """A check: `needs` are keys of clients.Client.cannot, by side; `cross` those that pairs of unlike clients run."""

    name: str
    function: object
    needs: tuple
    cross: bool

    def obstacle(self, a, b):
        """Why this pair cannot run it, or None."""
        for need in self.needs:
            side, key = need.split(".")
            client = {"a": a, "b": b}[side].client
            if key in client.cannot:
                return f"{client.name} {client.cannot[key]}"
        return None


def check(name, *needs, cross=False):
    def declare(function):
        CHECKS.append(Check(name, function, needs, cross))
        return function

    return declare


def equal(what, seen, wanted):
    if seen != wanted:
        raise CheckFailed(f"{what} is {shortened(seen)}, not {shortened(wanted)}")


def shortened(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:150]}... ({len(text)} characters)"


async def refused(what, uri, request):
    """The request must meet this error."""
    try:
        value = await request
    except Refused as error:
        if error.uri != uri:
            raise CheckFailed(f"{what} met {error}, not {uri}") from None
        return error
    raise CheckFailed(f"{what} gave {shortened(value)}, not {uri}")


def payload_bytes(value):
    return {"$bytes": base64.b64encode(value).decode()}


PAYLOADS = {
    "no payload": ([], {}),
    "positional arguments": ([1, "two", True, None], {}),
    "keyword arguments": ([], {"one": 1, "two": "zwei"}),
    "both kinds of arguments": ([23], {"key": "value"}),
    "empty values": (["", [], {}, 0, False], {"empty": ""}),
    "unicode": (["Grüße \u4e16\u754c \U0001f980 \u200b\ufeff \"\\/\b\f\n\r\t\x7f \u2028"], {"schlüssel": "ключ"}),
    "nesting": ([[[[[[[[["deep"]]]]]]]], {"a": {"b": [{"c": [1, {"d": None}]}]}}], {}),
    "integers": ([0, -1, 23, 24, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536, -32769, 2**31, -(2**31) - 1,
                  2**32, 2**53 - 1, -(2**53) + 1], {}),
    "floats": ([0.5, -0.25, 0.1, 1e300, -1e-300, 3.141592653589793, 65504.5, 1 / 3], {}),
    "bytes": ([payload_bytes(b""), payload_bytes(bytes(range(256))), [payload_bytes(b"\x00")]],
              {"key": payload_bytes(b"\xff\x00")}),
    "200 kB of text": (["0123456789\u00e9" * 17_000], {}),
    "200 kB of bytes": ([payload_bytes(bytes(range(256)) * 800)], {}),
    "many values": ([list(range(5_000))], {f"key{i}": i for i in range(500)}),
}


@check("WELCOME", cross=True)
async def welcome(a, b, uri):
    for peer in (a, b):
        if not 1 <= peer.id <= ID_MAX:
            raise CheckFailed(f"session id {peer.id} is not in 1..2^53")
    if a.id == b.id:
        raise CheckFailed(f"two sessions have the id {a.id}")


@check("features announced", "a.see_features")
async def features(a, b, uri):
    for role, wanted in FEATURES_WANTED.items():
        if "see_newer_features" in a.client.cannot:
            wanted = [feature for feature in wanted if feature not in FEATURES_NEWER]
        missing = [feature for feature in wanted if not a.features.get(role, {}).get(feature)]
        if missing:
            raise CheckFailed(f"{role} does not announce {', '.join(missing)}")


@check("call and result: every payload", cross=True)
async def payloads(a, b, uri):
    await b.register(uri, "echo")
    for name, (args, kwargs) in PAYLOADS.items():
        result = await a.call(uri, args, kwargs)
        equal(f"result with {name}", (result["args"], result["kwargs"]), (args, kwargs))


@check("event: every payload", cross=True)
async def event_payloads(a, b, uri):
    subscription = await b.subscribe(uri)
    for args, kwargs in PAYLOADS.values():
        await a.publish(uri, args, kwargs, acknowledge=True)
    events = await b.events(subscription, count=len(PAYLOADS))
    for event, (name, (args, kwargs)) in zip(events, PAYLOADS.items(), strict=True):
        equal(f"event with {name}", (event["args"], event["kwargs"]), (args, kwargs))


@check("application error with arguments", cross=True)
async def application_error(a, b, uri):
    await b.register(uri, "fail", uri="com.example.error.out_of_cheese")
    error = await refused("a failing call", "com.example.error.out_of_cheese", a.call(uri, ["redo", 42, [None]]))
    equal("arguments of the error", error.args_, ["redo", 42, [None]])


@check("application error with keyword arguments", "b.raise_kwargs", cross=True)
async def application_error_kwargs(a, b, uri):
    await b.register(uri, "fail", uri="com.example.error.out_of_cheese")
    error = await refused("a failing call", "com.example.error.out_of_cheese", a.call(uri, [1], {"key": "Käse"}))
    equal("keyword arguments of the error", (error.args_, error.kwargs), ([1], {"key": "Käse"}))


@check("call of an unregistered procedure")
async def no_such_procedure(a, b, uri):
    await refused("a call to nobody", "wamp.error.no_such_procedure", a.call(uri, [1]))


@check("registering twice")
async def registering_twice(a, b, uri):
    await b.register(uri, "constant", value="b")
    await refused("a second register", "wamp.error.procedure_already_exists", a.register(uri, "constant", value="a"))
    result = await a.call(uri)
    equal("who answers", result["args"], ["b"])


@check("unregistering")
async def unregistering(a, b, uri):
    name = await b.register(uri, "constant", value="b")
    await b.unregister(name)
    await refused("a call after unregister", "wamp.error.no_such_procedure", a.call(uri))
    await a.register(uri, "constant", value="a")
    result = await b.call(uri)
    equal("who answers", result["args"], ["a"])


@check("a callee that left answers no more")
async def callee_left(a, b, uri):
    callee = await again(b)
    await callee.register(uri, "constant", value="callee")
    await callee.leave()
    await refused("a call to a callee that left", "wamp.error.no_such_procedure", a.call(uri))


@check("a callee that drops its link fails its calls")
async def callee_dropped(a, b, uri):
    callee = await again(b)
    name = await callee.register(uri, "wait")
    call = await a.start_call(uri)
    await callee.invocations(name, invoked=1)
    await callee.drop()
    await refused("a call whose callee is gone", "wamp.error.canceled", a.wait_call(call))


@check("publish with acknowledge", cross=True)
async def publish_acknowledged(a, b, uri):
    subscription = await b.subscribe(uri)
    await a.publish(uri, ["hello"], acknowledge=True)
    events = await b.events(subscription, count=1)
    equal("events", [event["args"] for event in events], [["hello"]])


@check("publication ids agree", "a.see_publication", "b.see_publication", "b.see_event_publication")
async def publication_ids(a, b, uri):
    subscription = await b.subscribe(uri)
    published = [await a.publish(uri, [i], acknowledge=True) for i in range(2)]
    events = await b.events(subscription, count=2)
    equal("publication ids of the events", [event["publication"] for event in events], published)
    if published[0] == published[1] or not all(1 <= publication <= ID_MAX for publication in published):
        raise CheckFailed(f"publication ids are {published}")


@check("publish without acknowledge", "a.publish_unacknowledged", cross=True)
async def publish_unacknowledged(a, b, uri):
    subscription = await b.subscribe(uri)
    await a.publish(uri, ["hello"], {"key": 1})
    events = await b.events(subscription, count=1)
    equal("events", [(event["args"], event["kwargs"]) for event in events], [(["hello"], {"key": 1})])


@check("unsubscribing")
async def unsubscribing(a, b, uri):
    first = await b.subscribe(uri)
    fence = await b.subscribe(uri + ".fence")
    await a.publish(uri, [1], acknowledge=True)
    await b.events(first, count=1)
    await b.unsubscribe(first)
    await a.publish(uri, [2], acknowledge=True)
    await a.publish(uri + ".fence", ["fence"], acknowledge=True)
    await b.events(fence, count=1)
    equal("events before unsubscribe", [event["args"] for event in await b.events(first, count=1)], [[1]])


@check("a publisher does not get its own event")
async def exclude_me(a, b, uri):
    subscription = await a.subscribe(uri)
    await a.publish(uri, ["own"], acknowledge=True)
    await b.publish(uri, ["foreign"], acknowledge=True)
    events = await a.events(subscription, count=1)
    equal("events", [event["args"] for event in events], [["foreign"]])


@check("exclude_me false", "a.exclude_me_false")
async def exclude_me_false(a, b, uri):
    subscription = await a.subscribe(uri)
    await a.publish(uri, ["own"], acknowledge=True, exclude_me=False)
    events = await a.events(subscription, count=1)
    equal("events", [event["args"] for event in events], [["own"]])


async def events_that_pass(a, b, uri, **options):
    """What b gets of an event with these options, with an ordinary one behind it."""
    subscription = await b.subscribe(uri)
    await a.publish(uri, ["chosen"], acknowledge=True, **options)
    await a.publish(uri, ["fence"], acknowledge=True)
    events = await b.events(subscription, count=1)
    if events[0]["args"] != ["fence"]:
        events = await b.events(subscription, count=2)
    return [event["args"][0] for event in events]


@check("exclude")
async def exclude(a, b, uri):
    equal("events when b is excluded", await events_that_pass(a, b, uri, exclude=[b.id]), ["fence"])
    equal("events when another is", await events_that_pass(a, b, uri + ".2", exclude=[a.id]), ["chosen", "fence"])


@check("eligible")
async def eligible(a, b, uri):
    equal("events when b is eligible", await events_that_pass(a, b, uri, eligible=[b.id]), ["chosen", "fence"])
    equal("events when another is", await events_that_pass(a, b, uri + ".2", eligible=[a.id]), ["fence"])


@check("eligible, nobody", "a.eligible_nobody")
async def eligible_nobody(a, b, uri):
    equal("events when nobody is eligible", await events_that_pass(a, b, uri, eligible=[]), ["fence"])


@check("exclude beats eligible")
async def exclude_and_eligible(a, b, uri):
    passed = await events_that_pass(a, b, uri, eligible=[a.id, b.id], exclude=[b.id])
    equal("events when b is eligible and excluded", passed, ["fence"])


@check("prefix subscription", cross=True)
async def prefix_subscription(a, b, uri):
    subscription = await b.subscribe(uri, {"match": "prefix"})
    for topic in (f"{uri}.one", f"{uri}.two.three", uri, f"other.{uri}", f"{uri}.last"):
        await a.publish(topic, [topic], acknowledge=True)
    events = await b.events(subscription, count=4)
    wanted = [f"{uri}.one", f"{uri}.two.three", uri, f"{uri}.last"]
    equal("arguments of the events", [event["args"][0] for event in events], wanted)
    equal("topics of the events", [event["topic"] for event in events], wanted)


@check("wildcard subscription", cross=True)
async def wildcard_subscription(a, b, uri):
    subscription = await b.subscribe(f"{uri}..leaf", {"match": "wildcard"})
    for topic in (f"{uri}.one.leaf", f"{uri}.two.stem", f"{uri}.one.two.leaf", f"{uri}.two.leaf"):
        await a.publish(topic, [topic], acknowledge=True)
    events = await b.events(subscription, count=2)
    wanted = [f"{uri}.one.leaf", f"{uri}.two.leaf"]
    equal("arguments of the events", [event["args"][0] for event in events], wanted)
    equal("topics of the events", [event["topic"] for event in events], wanted)


@check("prefix registration", cross=True)
async def prefix_registration(a, b, uri):
    await b.register(uri, "procedure", {"match": "prefix"})
    for procedure in (f"{uri}.one", f"{uri}.two.three"):
        equal("procedure seen", (await a.call(procedure))["args"], [procedure])
    await b.register(f"{uri}.one", "constant", value="exact")
    equal("who answers where an exact one is", (await a.call(f"{uri}.one"))["args"], ["exact"])


@check("wildcard registration", cross=True)
async def wildcard_registration(a, b, uri):
    await b.register(f"{uri}..leaf", "procedure", {"match": "wildcard"})
    equal("procedure seen", (await a.call(f"{uri}.any.leaf"))["args"], [f"{uri}.any.leaf"])
    await refused("a call beside the pattern", "wamp.error.no_such_procedure", a.call(f"{uri}.any.stem"))


@check("progressive results", "a.see_features", "a.receive_progress", "b.send_progress", cross=True)
async def progressive_results(a, b, uri):
    if not a.features["dealer"].get("progressive_call_results"):
        raise NotAnnounced("dealer", "progressive_call_results")
    await b.register(uri, "progress", steps=5)
    result = await a.call(uri, progress=True)
    equal("progress", (result["progress"], result["args"]), ([[0], [1], [2], [3], [4]], ["done"]))
    result = await a.call(uri)
    equal("result without asking for progress", (result["progress"], result["args"]), ([], ["done"]))


async def cancelled_call(a, b, uri, mode):
    """Cancels a call that b has begun; gives the name of b's procedure and of a's call."""
    name = await b.register(uri, "wait")
    call = await a.start_call(uri)
    await b.invocations(name, invoked=1)
    await a.cancel_call(call, mode)
    return name, call


async def still_in_order(a, b, uri):
    """Both sessions go on after what was cancelled."""
    await b.register(uri, "echo")
    equal("result of a later call", (await a.call(uri, ["later"]))["args"], ["later"])


@check("cancel, mode skip", "a.cancel", "a.cancel_mode", "a.cancel_at_once", "a.see_canceled")
async def cancel_skip(a, b, uri):
    name, call = await cancelled_call(a, b, uri, "skip")
    await refused("a skipped call", "wamp.error.canceled", a.wait_call(call))
    equal("interrupts", (await b.invocations(name))["interrupted"], 0)
    await b.release(name)
    await still_in_order(a, b, uri + ".later")


@check("cancel, mode killnowait", "a.cancel", "a.cancel_mode", "a.cancel_at_once", "a.see_canceled")
async def cancel_killnowait(a, b, uri):
    name, call = await cancelled_call(a, b, uri, "killnowait")
    await refused("a killed call", "wamp.error.canceled", a.wait_call(call))
    await b.release(name)
    await still_in_order(a, b, uri + ".later")


@check("cancel, mode kill", "a.cancel", "a.cancel_mode", "a.see_canceled")
async def cancel_kill(a, b, uri):
    name, call = await cancelled_call(a, b, uri, "kill")
    try:
        await a.wait_call(call)
    except Refused as error:
        # The callee that was interrupted chooses the error; where none can be, the router answers.
        wanted = ("wamp.error.canceled", "wamp.error.cancelled") if "interrupted" not in b.client.cannot else (
            "wamp.error.canceled",)
        if error.uri not in wanted:
            raise CheckFailed(f"a killed call met {error}") from None
    else:
        raise CheckFailed("a killed call gave a result")
    await b.release(name)
    await still_in_order(a, b, uri + ".later")


@check("cancel interrupts the callee", "a.cancel", "b.interrupted")
async def cancel_interrupts(a, b, uri):
    name, _ = await cancelled_call(a, b, uri, None if "cancel_mode" in a.client.cannot else "kill")
    await b.invocations(name, invoked=1, interrupted=1)
    await still_in_order(a, b, uri + ".later")


@check("invalid URIs", "a.send_bad_uri")
async def invalid_uris(a, b, uri):
    for bad in ("com.example bad", "com.example#bad", "com..example", "com.example.", ""):
        await refused(f"call of {bad!r}", "wamp.error.invalid_uri", a.call(bad))
        await refused(f"publish to {bad!r}", "wamp.error.invalid_uri", a.publish(bad, [1], acknowledge=True))
        await refused(f"subscribe to {bad!r}", "wamp.error.invalid_uri", a.subscribe(bad))
        await refused(f"register of {bad!r}", "wamp.error.invalid_uri", a.register(bad, "echo"))
    await still_in_order(a, b, uri)


@check("order of 1,000 events over two topics", cross=True)
async def order_of_events(a, b, uri):
    topics = [f"{uri}.even", f"{uri}.odd"]
    subscriptions = [await b.subscribe(topic) for topic in topics]
    await a.publish_many(topics, 1000)
    events = await b.events(*subscriptions, count=1000)
    equal("order of the events", [event["args"][0] for event in events], list(range(1000)))


@check("200 concurrent calls", cross=True)
async def concurrent_calls(a, b, uri):
    await b.register(uri, "echo")
    calls = [[i, f"call {i}"] for i in range(200)]
    equal("results", await a.call_many(uri, calls), calls)


@check("orderly GOODBYE", cross=True)
async def goodbye(a, b, uri):
    leaving = await again(a)
    left = await leaving.leave()
    if "see_goodbye" not in a.client.cannot:
        equal("reason", left["reason"], "wamp.close.goodbye_and_out")


@check("a realm that does not exist", cross=True)
async def no_such_realm(a, b, uri):
    await refused("joining", "wamp.error.no_such_realm", again(a, realm="com.example.nowhere"))


def again(peer, realm=None, login=None, announce=None):
    """A new session like this one. `announce` has features by role that the library does not announce by itself."""
    return type(peer)(peer.party, peer.serializer, peer.place, realm or peer.realm, login, announce).connect()
