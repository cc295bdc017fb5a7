"""What the advanced profile promises to every pair of clients; the rules are those of checks.py."""

from checks import again, check, equal, events_that_pass, refused, still_in_order
from users import PASSWORD, PRIVATE_KEY, PUBLIC_KEY, SCRAM, login

KEPT = "com.example.kept"  # the prefix whose events the router of these checks keeps
GUARDED = "com.example.guarded"  # a realm where com.example.authorize decides
DYNAMIC = "com.example.dynamic"  # a realm whose users AUTHENTICATE knows, a procedure of the other one
AUTHENTICATE = "com.example.authenticate"


def one(result):
    return result["args"][0] if result["args"] else None


@check("call timeout", cross=True)
async def call_timeout(a, b, uri):
    name = await b.register(uri, "wait")
    await refused("a call that takes too long", "wamp.error.timeout", a.call(uri, options={"timeout": 20}))
    await b.release(name)
    await still_in_order(a, b, uri + ".later")


@check("caller identification", "a.disclose_me", cross=True)
async def caller_identification(a, b, uri):
    await b.register(uri, "caller")
    equal("caller without asking", one(await a.call(uri)), None)
    equal("caller", one(await a.call(uri, options={"disclose_me": True})), a.id)


@check("publisher identification", "a.disclose_me", cross=True)
async def publisher_identification(a, b, uri):
    subscription = await b.subscribe(uri)
    await a.publish(uri, [1], acknowledge=True)
    await a.publish(uri, [2], acknowledge=True, disclose_me=True)
    events = await b.events(subscription, count=2)
    equal("publishers", [event["publisher"] for event in events], [None, a.id])


@check("shared registration")
async def shared_registration(a, b, uri):
    second = await again(b)
    for policy, wanted in {"first": [1] * 6, "last": [2] * 6, "roundrobin": None, "random": None}.items():
        procedure = f"{uri}.{policy}"
        await b.register(procedure, "constant", {"invoke": policy}, value=1)
        await second.register(procedure, "constant", {"invoke": policy}, value=2)
        answers = [one(await a.call(procedure)) for _ in range(6)]
        if policy == "roundrobin":
            wanted = [1, 2] * 3 if answers[0] == 1 else [2, 1] * 3
        if policy == "random":
            wanted = [1 if answer == 1 else 2 for answer in answers]
        equal(f"who answers with {policy}", answers, wanted)
        await refused("another policy", "wamp.error.procedure_already_exists", a.register(procedure, "echo"))
    await second.leave()
    equal("who answers when one left", one(await a.call(f"{uri}.last")), 1)


@check("concurrency", "b.concurrency")
async def concurrency(a, b, uri):
    name = await b.register(uri, "wait", {"invoke": "roundrobin", "concurrency": 1})
    await b.register(uri + ".fence", "constant", value="fence")
    calls = [await a.start_call(uri) for _ in range(3)]
    await b.invocations(name, invoked=1)
    await a.call(uri + ".fence")
    equal("calls under way", (await b.invocations(name, invoked=1))["invoked"], 1)
    await b.release(name)
    equal("results", [one(await a.wait_call(call)) for call in calls], ["released"] * 3)


@check("event retention", "a.retain", cross=True)
async def event_retention(a, b, uri):
    await a.publish(uri, ["old"], acknowledge=True, retain=True)
    await a.publish(uri, ["kept"], acknowledge=True, retain=True)
    await a.publish(uri, ["lost"], acknowledge=True)
    subscription = await b.subscribe(uri, {"get_retained": True})
    await a.publish(uri, ["new"], acknowledge=True)
    events = await b.events(subscription, count=2)
    equal("events", [(event["args"], event["retained"]) for event in events], [(["kept"], True), (["new"], False)])


@check("event history", cross=True)
async def event_history(a, b, uri):
    topic = f"{KEPT}.{uri}"
    await b.subscribe(KEPT, {"match": "prefix"})
    for i in range(3):
        await a.publish(topic, [i], {"key": i}, acknowledge=True)
    subscription = one(await b.call("wamp.subscription.lookup", [KEPT, {"match": "prefix"}]))
    kept = await b.call("wamp.subscription.get_events", [subscription], {"topic": topic, "limit": 2, "reverse": True})
    wanted = [([2], {"key": 2}), ([1], {"key": 1})]
    equal("what is kept", [(event["args"], event["kwargs"]) for event in kept["args"]], wanted)


@check("black- and whitelisting by authid and authrole")
async def listing(a, b, uri):
    details = one(await a.call("wamp.session.get", [b.id]))
    for key in ("authid", "authrole"):
        value = details[key]
        for name, given, wanted in (
            ("eligible", [value], ["chosen", "fence"]), ("eligible", ["nobody"], ["fence"]),
            ("exclude", [value], ["fence"]), ("exclude", ["nobody"], ["chosen", "fence"]),
        ):
            topic = f"{uri}.{name}.{key}.{given[0] == value}"
            equal(f"{name}_{key} {given}", await events_that_pass(a, b, topic, **{f"{name}_{key}": given}), wanted)


# Of the two that have it, xconn announces nothing.
PASSTHRU = {role: ["payload_passthru_mode"] for role in ("caller", "callee", "publisher", "subscriber")}


@check("payload passthru", "a.passthru", "b.passthru", cross=True)
async def passthru(a, b, uri):
    sealed = {"ppt_scheme": "x_own", "ppt_serializer": "native"}
    a, b = await again(a, announce=PASSTHRU), await again(b, announce=PASSTHRU)
    await b.register(uri, "echo")
    result = await a.call(uri, ["sealed"], {"key": 1}, options=sealed)
    equal("result", (result["args"], result["kwargs"]), (["sealed"], {"key": 1}))
    subscription = await b.subscribe(uri)
    await a.publish(uri, ["sealed"], {"key": 1}, acknowledge=True, **sealed)
    events = await b.events(subscription, count=1)
    equal("event", (events[0]["args"], events[0]["kwargs"]), (["sealed"], {"key": 1}))
    await a.leave()
    await b.leave()


@check("session meta API", cross=True)
async def session_meta(a, b, uri):
    joins, leaves = await a.subscribe("wamp.session.on_join"), await a.subscribe("wamp.session.on_leave")
    visitor = await again(b)
    joined = [event["args"][0] for event in await a.events(joins, count=1)]
    equal("who joined", [(join["session"], join["authrole"]) for join in joined], [(visitor.id, "anonymous")])
    equal("who is there", {a.id, b.id, visitor.id} <= set(one(await a.call("wamp.session.list"))), True)
    equal("session", one(await a.call("wamp.session.get", [visitor.id]))["session"], visitor.id)
    before = one(await a.call("wamp.session.count"))
    await a.call("wamp.session.kill", [visitor.id], {"reason": "com.example.bye"})
    left = await a.events(leaves, count=1)
    equal("who left", [event["args"][0] for event in left], [visitor.id])
    equal("count", one(await a.call("wamp.session.count")), before - 1)
    await refused("the killed session", "wamp.error.no_such_session", a.call("wamp.session.get", [visitor.id]))
    await a.unsubscribe(joins)
    await a.unsubscribe(leaves)


@check("subscription meta API", cross=True)
async def subscription_meta(a, b, uri):
    created = await a.subscribe("wamp.subscription.on_create")
    subscription = await b.subscribe(uri)
    events = await a.events(created, count=1)
    equal("created", (events[0]["args"][0], events[0]["args"][1]["uri"]), (b.id, uri))
    await a.unsubscribe(created)
    identifier = one(await a.call("wamp.subscription.lookup", [uri]))
    equal("id", identifier, events[0]["args"][1]["id"])
    equal("subscribers", one(await a.call("wamp.subscription.list_subscribers", [identifier])), [b.id])
    equal("count", one(await a.call("wamp.subscription.count_subscribers", [identifier])), 1)
    equal("uri", one(await a.call("wamp.subscription.get", [identifier]))["uri"], uri)
    await b.unsubscribe(subscription)
    equal("id after unsubscribe", one(await a.call("wamp.subscription.lookup", [uri])), None)


@check("registration meta API", cross=True)
async def registration_meta(a, b, uri):
    created = await a.subscribe("wamp.registration.on_create")
    name = await b.register(uri, "echo")
    events = await a.events(created, count=1)
    equal("created", (events[0]["args"][0], events[0]["args"][1]["uri"]), (b.id, uri))
    await a.unsubscribe(created)
    identifier = one(await a.call("wamp.registration.lookup", [uri]))
    equal("id", identifier, events[0]["args"][1]["id"])
    equal("match", one(await a.call("wamp.registration.match", [uri])), identifier)
    equal("callees", one(await a.call("wamp.registration.list_callees", [identifier])), [b.id])
    equal("count", one(await a.call("wamp.registration.count_callees", [identifier])), 1)
    equal("uri", one(await a.call("wamp.registration.get", [identifier]))["uri"], uri)
    await b.unregister(name)
    equal("id after unregister", one(await a.call("wamp.registration.lookup", [uri])), None)


@check("registration revocation")
async def registration_revocation(a, b, uri):
    callee = await again(b)
    await callee.register(uri, "constant", value="old")
    identifier = one(await a.call("wamp.registration.lookup", [uri]))
    await a.call("wamp.registration.remove_callee", [identifier, callee.id])
    await refused("a call of what was revoked", "wamp.error.no_such_procedure", a.call(uri))
    await b.register(uri, "constant", value="new")
    equal("who answers", one(await a.call(uri)), "new")
    await still_in_order(a, callee, uri + ".later")
    await callee.leave()


@check("subscription revocation", "b.subscription_revoked", cross=True)
async def subscription_revocation(a, b, uri):
    subscriber = await again(b)
    subscription, fence = await subscriber.subscribe(uri), await subscriber.subscribe(uri + ".fence")
    identifier = one(await a.call("wamp.subscription.lookup", [uri]))
    await a.call("wamp.subscription.remove_subscriber", [identifier, subscriber.id, "com.example.reason"])
    for topic in (uri, uri + ".fence"):
        await a.publish(topic, ["later"], acknowledge=True)
    await subscriber.events(fence, count=1)
    equal("events after the revocation", await subscriber.events(subscription, count=0), [])
    if "see_revocation" not in b.client.cannot:
        equal("reason", await subscriber.revocation(subscription), "com.example.reason")
    await subscriber.leave()


@check("testaments", cross=True)
async def testaments(a, b, uri):
    subscription = await b.subscribe(uri)
    for end, flushed, wanted in (("drop", False, ["detached", "destroyed"]), ("leave", True, ["destroyed"])):
        testator = await again(a)
        for scope in ("destroyed", "detached"):
            await testator.call("wamp.session.add_testament", [uri, [scope], {"key": 1}], {"scope": scope})
        if flushed:
            await testator.call("wamp.session.flush_testaments", kwargs={"scope": "detached"})
        await getattr(testator, end)()
        # What was flushed would come first, so that what comes proves that it does not.
        events = (await b.events(subscription, count=3 if flushed else 2))[2 if flushed else 0:]
        equal(f"testaments at {end}", [(event["args"], event["kwargs"]) for event in events],
              [([scope], {"key": 1}) for scope in wanted])


@check("sharded subscription", "a.shards", "b.shards", cross=True)
async def sharded_subscription(a, b, uri):
    nodes = [b, await again(b)]
    seen = [(peer, await peer.subscribe(uri, {"nkey": f"node {i}"}), await peer.subscribe(uri + ".fence"))
            for i, peer in enumerate(nodes)]
    for i in range(32):
        await a.publish(uri, [i], acknowledge=True, rkey=f"resource {i % 8}")
    await a.publish(uri, ["everybody"], acknowledge=True)
    await a.publish(uri + ".fence", ["fence"], acknowledge=True)
    shares = []
    for peer, subscription, fence in seen:
        await peer.events(fence, count=1)
        shares.append([one(event) for event in await peer.events(subscription, count=1)])
    equal("what has no resource", [share.pop() for share in shares], ["everybody"] * 2)
    equal("what both get together", sorted(shares[0] + shares[1]), list(range(32)))
    equal("resources of both", {i % 8 for i in shares[0]} & {i % 8 for i in shares[1]}, set())
    await nodes[1].leave()


@check("sharded registration", "a.shards", "b.shards", cross=True)
async def sharded_registration(a, b, uri):
    nodes = [b, await again(b)]
    for i, node in enumerate(nodes):
        await node.register(uri, "constant", {"nkey": f"node {i}"}, value=i)
    first, second = [
        [one(await a.call(uri, options={"rkey": f"resource {i}"})) for i in range(16)] for _ in range(2)]
    equal("nodes that answer the second time", second, first)
    equal("all nodes", set(first), {0, 1})
    both = await a.call(uri, options={"runmode": "all"})
    equal("what all answer", both["args"], [{"nkey": f"node {i}", "args": [i]} for i in range(2)])
    await nodes[1].leave()


SENDS_PARTS = {"caller": ["progressive_call_invocations"]}
TAKES_PARTS = {"callee": ["progressive_call_invocations", "progressive_call_results", "call_canceling"]}


@check("progressive call invocations", "a.send_parts", "b.receive_parts", cross=True)
async def progressive_invocations(a, b, uri):
    caller, callee = await again(a, announce=SENDS_PARTS), await again(b, announce=TAKES_PARTS)
    await callee.register(uri, "collect")
    result = await caller.call_in_parts(uri, [[1], [2], [3], [4]], in_turn=True)
    equal("progress", result["progress"], [[[1]], [[1, 2]], [[1, 2, 3]]])
    equal("result", result["args"], [[1, 2, 3, 4]])
    await caller.leave()
    await callee.leave()


@check("progressive call invocations to who cannot take them", "a.send_parts", cross=True)
async def progressive_invocations_refused(a, b, uri):
    caller = await again(a, announce=SENDS_PARTS)
    await b.register(uri, "echo")
    await refused("a call in parts", "wamp.error.feature_not_supported", caller.call_in_parts(uri, [[1], [2], [3]], in_turn=False))
    # The parts behind the first came too late, which is nobody's mistake.
    await still_in_order(caller, b, uri + ".later")
    await caller.leave()


# What the procedure says about a user of each method, whose name is that of the method.
AUTHENTICATED = {
    "ticket": {"shows": PASSWORD, "answer": "known"},
    "wampcra": {"shows": None, "answer": {"role": "known", "secret": PASSWORD}},
    "scram": {"shows": None, "answer": {"role": "known"} | SCRAM},
    "cryptosign": {"shows": PUBLIC_KEY, "answer": {"role": "known"}},
}


@check("dynamic authenticator")
async def authenticator(a, b, uri):
    helper = await again(b)
    await helper.register(AUTHENTICATE, "authenticate", users=AUTHENTICATED)
    for method in AUTHENTICATED:
        if method not in a.client.methods:
            continue
        secret = PRIVATE_KEY if method == "cryptosign" else PASSWORD
        user = await again(a, realm=DYNAMIC, login=login(method, method, secret))
        details = one(await user.call("wamp.session.get", [user.id]))
        equal("who it is", [details[key] for key in ("authid", "authrole", "authmethod", "authprovider")],
              [method, "known", method, "dynamic"])
        await user.leave()
        stranger = again(a, realm=DYNAMIC, login=login(method, "nobody", secret))
        await refused("a stranger", "wamp.error.authentication_denied", stranger)
    await helper.leave()


@check("dynamic authorizer")
async def authorizer(a, b, uri):
    guard, guest = await again(b, realm=GUARDED), await again(a, realm=GUARDED)
    await guard.register("com.example.authorize", "authorize", suffix=".good")
    await guest.subscribe(uri + ".good")
    await refused("what the authorizer denies", "wamp.error.not_authorized", guest.subscribe(uri + ".bad"))
    await guest.leave()
    await guard.leave()
