"""One side of a conversation: drives a published Python client as the lines on standard input say.

Every line in is one JSON object {"id", "op", "session", ...}; every line out answers one of them, in any order, as
{"id", "value"} or {"id", "error": {"uri", "args", "kwargs", "text"}}. Bytes travel as {"$bytes": base64}. What a client
library itself does is in autobahn_python.py and xconn_python.py, each with one class Session.
"""

import asyncio
import importlib
import json
import os
import sys

from values import Failure, from_control, to_control

CLIENTS = {"autobahn-python": "autobahn_python", "xconn": "xconn_python"}
LINE_BYTES_MAX = 16 * 1024 * 1024


class Change:
    """Lets others wait until something became true."""

    def __init__(self):
        self.waiters = []

    def notify(self):
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, true):
        while not true():
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter


class Procedure:
    """What a registered procedure does when it is called, and how often it was."""

    def __init__(self, behaviour):
        self.behaviour = behaviour
        self.invoked = 0
        self.interrupted = 0
        self.parts = []
        self.released = asyncio.Event()
        self.changed = Change()

    async def __call__(self, args, kwargs, procedure, progress, caller=None):
        """The result as (args, kwargs), or Failure. `progress` sends one progressive result, or is None."""
        self.invoked += 1
        self.changed.notify()
        kind = self.behaviour["kind"]
        if kind == "echo":
            return args, kwargs
        if kind == "fail":
            raise Failure(self.behaviour["uri"], args, kwargs)
        if kind == "procedure":
            return [procedure], {}
        if kind == "caller":
            return [caller], {}
        if kind == "authorize":
            return [args[1].endswith(self.behaviour["suffix"])], {}
        if kind == "authenticate":
            # Who may come in is `users`: what each has to show, if anything, and what the router is told.
            user = self.behaviour["users"].get(args[1])
            shown = args[2].get("ticket") or args[2]["authextra"].get("pubkey")
            if user is None or user["shows"] not in (None, shown):
                raise Failure("com.example.error.no_such_user")
            return [user["answer"]], {}
        if kind == "constant":
            return [self.behaviour["value"]], {}
        if kind == "collect":
            self.parts += args
            return [list(self.parts)], {}
        if kind == "progress":
            if progress is not None:
                for step in range(self.behaviour["steps"]):
                    progress([step], {})
            return ["done"], {}
        if kind == "wait":
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.interrupted += 1
                self.changed.notify()
                raise
            return ["released"], {}
        raise ValueError(f"no such behaviour: {kind}")


class Party:
    """All sessions of this process, by name."""

    def __init__(self, session_class, output):
        self.session_class = session_class
        self.output = output
        self.sessions = {}

    def answer(self, answer):
        self.output.write(json.dumps(answer) + "\n")
        self.output.flush()

    async def handle(self, request):
        try:
            operation = getattr(self, "op_" + request["op"])
            value = await operation(request)
            self.answer({"id": request["id"], "value": to_control(value)})
        except Failure as failure:
            self.answer({"id": request["id"], "error": {
                "uri": failure.uri, "args": to_control(failure.arguments), "kwargs": to_control(failure.keywords),
                "text": f"{failure.uri} {failure.arguments} {failure.keywords}"}})
        except Exception as error:
            self.answer({"id": request["id"], "error": {"uri": None, "args": [], "kwargs": {}, "text": repr(error)}})

    def session(self, request):
        return self.sessions[request["session"]]

    async def op_connect(self, request):
        session = self.session_class()
        session.events = []
        session.event_came = Change()
        session.procedures = {}
        session.calls = {}
        welcome = await session.connect(
            request["link"], request["serializer"], request["realm"], request.get("login"), request.get("announce"))
        self.sessions[request["session"]] = session
        return welcome

    async def op_leave(self, request):
        return await self.session(request).leave()

    async def op_drop(self, request):
        return await self.sessions.pop(request["session"]).drop()

    async def op_register(self, request):
        procedure = Procedure(request["behaviour"])
        session = self.session(request)
        await session.register(request["name"], request["procedure"], request.get("options") or {}, procedure)
        session.procedures[request["name"]] = procedure

    async def op_unregister(self, request):
        await self.session(request).unregister(request["name"])

    async def op_invocations(self, request):
        procedure = self.session(request).procedures[request["name"]]
        await procedure.changed.until(
            lambda: procedure.invoked >= request["invoked"] and procedure.interrupted >= request["interrupted"])
        return {"invoked": procedure.invoked, "interrupted": procedure.interrupted}

    async def op_release(self, request):
        self.session(request).procedures[request["name"]].released.set()

    async def call(self, session, request, progress=None):
        args, kwargs = await session.call(
            request["procedure"], from_control(request.get("args")), from_control(request.get("kwargs")),
            request.get("options") or {}, progress)
        return {"args": list(args or []), "kwargs": dict(kwargs or {})}

    async def op_call(self, request):
        steps = []
        progress = (lambda args, kwargs: steps.append(list(args))) if request.get("progress") else None
        result = await self.call(self.session(request), request, progress)
        return result | {"progress": steps}

    async def op_call_many(self, request):
        session = self.session(request)
        calls = [self.call(session, {"procedure": request["procedure"], "args": args}) for args in request["calls"]]
        return [result["args"] for result in await asyncio.gather(*calls)]

    async def op_call_start(self, request):
        session = self.session(request)
        session.calls[request["name"]] = session.start_call(
            request["procedure"], from_control(request.get("args")), request.get("options") or {})

    async def op_call_cancel(self, request):
        session = self.session(request)
        session.cancel_call(session.calls[request["name"]], request.get("mode"))

    async def op_call_wait(self, request):
        session = self.session(request)
        args, kwargs = await session.wait_call(session.calls.pop(request["name"]))
        return {"args": list(args or []), "kwargs": dict(kwargs or {})}

    async def op_subscribe(self, request):
        session = self.session(request)
        name = request["name"]

        def on_event(args, kwargs, topic=None, publication=None, publisher=None, retained=None, event_id=None):
            session.events.append({
                "name": name, "args": list(args or []), "kwargs": dict(kwargs or {}),
                "topic": topic, "publication": publication, "publisher": publisher, "retained": bool(retained),
                "event_id": event_id})
            session.event_came.notify()

        await session.subscribe(name, request["topic"], request.get("options") or {}, on_event)

    async def op_unsubscribe(self, request):
        await self.session(request).unsubscribe(request["name"])

    async def op_publish(self, request):
        return await self.session(request).publish(
            request["topic"], from_control(request.get("args")), from_control(request.get("kwargs")),
            request.get("options") or {})

    async def op_publish_many(self, request):
        """Event i goes to topic i modulo their count, with the one argument i. Nothing is awaited between them."""
        session = self.session(request)
        topics = request["topics"]
        await session.publish_many([(topics[i % len(topics)], [i]) for i in range(request["count"])])

    async def op_events(self, request):
        """Waits until there are at least `count` events of the subscriptions in `names`, then gives all of them."""
        session = self.session(request)

        def wanted():
            return [event for event in session.events if event["name"] in request["names"]]

        await session.event_came.until(lambda: len(wanted()) >= request["count"])
        return wanted()


async def main():
    # Client libraries print to standard output at times; the answers have it for themselves.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    party = Party(importlib.import_module(CLIENTS[sys.argv[1]]).Session, output)
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    party.answer({"id": 0, "value": "ready"})
    while line := await reader.readline():
        task = loop.create_task(party.handle(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)  # what is still under way belongs to nobody


if __name__ == "__main__":
    asyncio.run(main())
