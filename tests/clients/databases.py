"""What a database behind the router promises to every client: procedures, and events that are resumed (`_after`)."""

import json

from checks import again, check, equal, payload_bytes, refused

PREFIX = "com.example.database"
SAY = f"{PREFIX}.say"
POSITION = f"{PREFIX}.position"
COUNT = f"{PREFIX}.count"
VALUES = f"{PREFIX}.values"
FAIL = f"{PREFIX}.fail"
SOLD_OUT = "com.example.error.sold_out"
# By URI: what a call answers, and the SQL of SQLite.
PROCEDURES = {
    SAY: ("value", "select publish(:topic, json_array(:number))"),
    POSITION: ("value", "select coalesce(max(seq), 0) from sqlite_sequence where name = 'wamp_outbox'"),
    COUNT: ("rows", "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < :last)"
                    " select n, 'Nº ' || n as name, n / 2.0 as half from numbers"),
    VALUES: ("row", "select :integer as integer, :float as float, :text as text, :bytes as bytes, :empty as empty"),
    FAIL: ("value", f"select wamp_error('{SOLD_OUT}', :text)"),
}


def config(realm, path):
    """The database of a realm."""
    text = f"""
[[database]]
name = "checks"
type = "sqlite"
realm = "{realm}"
path = {json.dumps(str(path))}
publish = true
"""
    for uri, (result, sql) in PROCEDURES.items():
        text += f"""
[[database.procedure]]
uri = "{uri}"
result = "{result}"
sql = {json.dumps(sql, ensure_ascii=False)}
"""
    return text


def one(result):
    return result["args"][0]


def rows(first, last):
    return [{"n": n, "name": f"Nº {n}", "half": n / 2} for n in range(first, last + 1)]


@check("database: rows, values and errors")
async def procedures(a, b, uri):
    equal("rows", (await a.call(COUNT, [3]))["args"], [rows(1, 3)])
    equal("rows by name", (await a.call(COUNT, kwargs={"last": 2}))["args"], [rows(1, 2)])
    wanted = {"integer": 2**53 - 1, "float": 0.1, "text": "Grüße \U0001f980", "bytes": payload_bytes(b"\x00\xff"), "empty": None}
    equal("a row", one(await a.call(VALUES, kwargs=wanted)), wanted)
    error = await refused("what fails", SOLD_OUT, a.call(FAIL, ["no tea"]))
    equal("text of the error", error.args_, ["no tea"])
    error = await refused("an argument too few", "wamp.error.invalid_argument", a.call(COUNT))
    equal("text of the error", error.args_, ["the argument `last` is missing"])
    equal("a value behind it", one(await a.call(SAY, [uri, 1])) > 0, True)


@check("database: rows in parts", "a.receive_progress")
async def rows_in_parts(a, b, uri):
    result = await a.call(COUNT, [1200], progress=True)
    parts = [step[0] for step in result["progress"]] + [one(result)]
    equal("parts", [len(part) for part in parts], [500, 500, 200])
    equal("rows", sum(parts, []), rows(1, 1200))
    equal("how many", result["kwargs"], {"rows": 1200})
    equal("rows without parts", len(one(await a.call(COUNT, [1200]))), 1200)


@check("database: events are resumed", "b.resume", cross=True)
async def resuming(a, b, uri):
    for policy in ("exact", "prefix"):
        topic, pattern, options = f"{uri}.{policy}.topic", f"{uri}.{policy}", {"match": policy}
        if policy == "exact":
            pattern, options = topic, {}
        reader = await again(b)
        subscription = await reader.subscribe(pattern, options)
        # What is published, by a call: its position is the answer.
        positions = [one(await a.call(SAY, [topic, number])) for number in (1, 2)]
        seen = await reader.events(subscription, count=2)
        equal("events", [event["args"] for event in seen], [[1], [2]])
        if "see_event_id" in b.client.cannot:
            last = one(await reader.call(POSITION))
        else:
            equal("ids of events", [event["event_id"] for event in seen], positions)
            last = seen[-1]["event_id"]
        await reader.leave()
        positions += [one(await a.call(SAY, [topic, number])) for number in (3, 4, 5)]
        reader = await again(b)
        subscription = await reader.subscribe(pattern, options | {"_after": last})
        positions += [one(await a.call(SAY, [topic, number])) for number in (6, 7)]
        events = await reader.events(subscription, count=5)
        equal("events that were missed, and what came then", [event["args"] for event in events],
              [[number] for number in (3, 4, 5, 6, 7)])
        equal("topics", {event["topic"] for event in events}, {topic})
        if "see_event_id" not in b.client.cannot:
            equal("their ids", [event["event_id"] for event in events], positions[2:])
        await reader.leave()


@check("database: a position that nobody has seen", "b.resume")
async def unknown_position(a, b, uri):
    subscription = b.subscribe(uri, {"_after": 2**50})
    await refused("resuming behind the future", "crosspoint.error.events_not_kept", subscription)
    # And otherwise it may.
    subscription = await b.subscribe(uri)
    await a.call(SAY, [uri, 1])
    equal("an event", one((await b.events(subscription, count=1))[0]), 1)
