"""What the advanced profile promises to every pair of clients; the rules are those of checks.py."""

from checks import CheckFailed, again, check, equal, events_that_pass, refused, still_in_order

KEPT = "com.example.kept"  # the prefix whose events the router of these checks keeps
GUARDED = "com.example.guarded"  # a realm where com.example.authorize decides


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


@check("payload passthru", "a.passthru", "b.passthru", cross=True)
async def passthru(a, b, uri):
    sealed = {"ppt_scheme": "x_own", "ppt_serializer": "native"}
    await b.register(uri, "echo")
    result = await a.call(uri, ["sealed"], {"key": 1}, options=sealed)
    equal("result", (result["args"], result["kwargs"]), (["sealed"], {"key": 1}))
    subscription = await b.subscribe(uri)
    await a.publish(uri, ["sealed"], {"key": 1}, acknowledge=True, **sealed)
    events = await b.events(subscription, count=1)
    equal("event", (events[0]["args"], events[0]["kwargs"]), (["sealed"], {"key": 1}))


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


@check("registration revocation", "b.revoked")
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


async def logs_in(a, method, authid):
    login = {"method": method, "authid": authid, "secret": "open sesame"}
    user = await again(a, login=login)
    details = one(await a.call("wamp.session.get", [user.id]))
    equal("who it is", (details["authid"], details["authmethod"]), (authid, method))
    await user.leave()
    await refused(
        "a wrong secret", "wamp.error.authentication_denied", again(a, login=login | {"secret": "open barley"}))


@check("ticket")
async def ticket(a, b, uri):
    await logs_in(a, "ticket", "joe")


@check("WAMP-CRA")
async def wampcra(a, b, uri):
    await logs_in(a, "wampcra", "joe")


@check("WAMP-CRA, salted")
async def wampcra_salted(a, b, uri):
    await logs_in(a, "wampcra", "salted")


@check("dynamic authorizer")
async def authorizer(a, b, uri):
    guard, guest = await again(b, realm=GUARDED), await again(a, realm=GUARDED)
    await guard.register("com.example.authorize", "authorize", suffix=".good")
    await guest.subscribe(uri + ".good")
    await refused("what the authorizer denies", "wamp.error.not_authorized", guest.subscribe(uri + ".bad"))
    await guest.leave()
    await guard.leave()
