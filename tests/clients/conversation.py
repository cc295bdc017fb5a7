"""The two sides of a check: processes that hold a client library, and sessions inside them."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

LINE_BYTES_MAX = 16 * 1024 * 1024
ANSWER_TIMEOUT_S = 60
HERE = Path(__file__).resolve().parent


class CheckFailed(Exception):
    """Something was not as it must be; the text says what."""


class NotAnnounced(Exception):
    """The router does not announce a feature that nobody promised yet."""

    def __init__(self, role, feature):
        super().__init__(f"the router's {role} does not announce {feature}")


class Refused(Exception):
    """A request met an error: `uri` of the WAMP error, or None where the library itself failed."""

    def __init__(self, error):
        super().__init__(error["text"])
        self.uri = error["uri"]
        self.args_ = error["args"]
        self.kwargs = error["kwargs"]


class Party:
    """A process with one client library."""

    def __init__(self, client, clients_path, log_path):
        self.client = client
        self.clients_path = clients_path
        self.log_path = log_path
        self.waiting = {}
        self.requests = 0

    async def start(self):
        if self.client.language == "python":
            command = [self.clients_path / "venv/bin/python", HERE / "party.py"]
        else:
            command = ["node", HERE / "party.mjs"]
        environment = os.environ | {
            "CROSSPOINT_CLIENTS": str(self.clients_path), "PYTHONDONTWRITEBYTECODE": "1", "NODE_NO_WARNINGS": "1"}
        with open(self.log_path, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, self.client.name, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=environment, limit=LINE_BYTES_MAX)
        ready = asyncio.get_running_loop().create_future()
        self.waiting[0] = ready
        self.reading = asyncio.create_task(self.read())
        await asyncio.wait_for(ready, ANSWER_TIMEOUT_S)

    async def read(self):
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            waiter = self.waiting.pop(answer["id"], None)
            if waiter is None or waiter.done():
                continue
            if "error" in answer:
                waiter.set_exception(Refused(answer["error"]))
            else:
                waiter.set_result(answer["value"])
        waiters, self.waiting = self.waiting, {}
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_exception(CheckFailed(f"the process of {self.client.name} ended; see {self.log_path}"))

    async def ask(self, op, **fields):
        """One request to the process; its value, or Refused."""
        self.requests += 1
        request = {"id": self.requests, "op": op} | fields
        waiter = asyncio.get_running_loop().create_future()
        self.waiting[self.requests] = waiter
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        try:
            return await asyncio.wait_for(waiter, ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise CheckFailed(f"no answer to {op} in {ANSWER_TIMEOUT_S} s") from None

    async def revive(self):
        """Starts the process again if it ended."""
        if self.reading.done():
            await self.start()

    async def stop(self):
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self.reading


@dataclass(frozen=True)
class Place:
    """How a session reaches the router: `link` is one of clients.py, `core` the core that its listener is bound to."""

    link: str
    core: int
    address: dict

    def __str__(self):
        return f"{self.link}@{self.core}"


class Peer:
    """One session of a party. Operations are those of party.py."""

    count = 0

    def __init__(self, party, serializer, place, realm, login=None, announce=None):
        Peer.count += 1
        self.party = party
        self.client = party.client
        self.serializer = serializer
        self.place = place
        self.realm = realm
        self.login = login
        self.announce = announce
        self.session = f"session{Peer.count}"
        self.names = 0

    def __str__(self):
        return f"{self.client.name} {self.serializer} {self.place}"

    def ask(self, op, **fields):
        return self.party.ask(op, session=self.session, **fields)

    def new_name(self):
        self.names += 1
        return f"name{self.names}"

    async def connect(self):
        await self.party.revive()
        welcome = await self.ask(
            "connect", link=self.place.address, serializer=self.serializer, realm=self.realm, login=self.login,
            announce=self.announce)
        self.id = welcome["session"]
        self.features = welcome["features"]
        # The cookie that the handshake brought, of clients that show it.
        self.cookie = welcome.get("cookie")
        return self

    def leave(self):
        return self.ask("leave")

    def drop(self):
        return self.ask("drop")

    async def register(self, procedure, kind, options=None, **behaviour):
        name = self.new_name()
        await self.ask("register", name=name, procedure=procedure, options=options, behaviour={"kind": kind} | behaviour)
        return name

    def unregister(self, name):
        return self.ask("unregister", name=name)

    def invocations(self, name, invoked=0, interrupted=0):
        return self.ask("invocations", name=name, invoked=invoked, interrupted=interrupted)

    def release(self, name):
        return self.ask("release", name=name)

    def call(self, procedure, args=None, kwargs=None, **more):
        return self.ask("call", procedure=procedure, args=args, kwargs=kwargs, **more)

    def call_many(self, procedure, calls):
        return self.ask("call_many", procedure=procedure, calls=calls)

    def call_in_parts(self, procedure, parts, in_turn):
        """With `in_turn` each part waits for a result of the one before."""
        return self.ask("call_in_parts", procedure=procedure, parts=parts, in_turn=in_turn)

    async def start_call(self, procedure, args=None, options=None):
        name = self.new_name()
        await self.ask("call_start", name=name, procedure=procedure, args=args, options=options)
        return name

    def cancel_call(self, name, mode=None):
        return self.ask("call_cancel", name=name, mode=mode)

    def wait_call(self, name):
        return self.ask("call_wait", name=name)

    async def subscribe(self, topic, options=None):
        name = self.new_name()
        await self.ask("subscribe", name=name, topic=topic, options=options)
        return name

    def revocation(self, name):
        return self.ask("revocation", name=name)

    def unsubscribe(self, name):
        return self.ask("unsubscribe", name=name)

    async def publish(self, topic, args=None, kwargs=None, **options):
        published = await self.ask("publish", topic=topic, args=args, kwargs=kwargs, options=options)
        return published["publication"]

    def publish_many(self, topics, count):
        return self.ask("publish_many", topics=topics, count=count)

    def events(self, *names, count):
        return self.ask("events", names=names, count=count)
