"""xconn for Python on asyncio, as party.py drives it."""

import asyncio

from wampproto import auth, exception, serializers
from xconn import types
from xconn.async_session import AsyncSession
from xconn.exception import ApplicationError
from xconn.joiner import AsyncRawSocketJoiner, AsyncWebsocketsJoiner

from values import Failure, from_json, to_json

SERIALIZERS = {
    "json": serializers.JSONSerializer,
    "msgpack": serializers.MsgPackSerializer,
    "cbor": serializers.CBORSerializer,
}


class Session:
    """One session. The joiner is used directly because connect() of the library knows no WebSocket on a Unix socket."""

    async def connect(self, link, serializer, realm, login=None):
        self.outgoing, self.incoming = (to_json, from_json) if serializer == "json" else (lambda value: value, lambda value: value)
        address = link.get("unix") or f"{link.get('host')}:{link.get('port')}"
        authenticator = auth.AnonymousAuthenticator("")
        if login is not None:
            known = {"ticket": auth.TicketAuthenticator, "wampcra": auth.WAMPCRAAuthenticator}
            authenticator = known[login["method"]](login["authid"], login["secret"])
        if link["framing"] == "websocket":
            joiner = AsyncWebsocketsJoiner(authenticator, SERIALIZERS[serializer](), types.TransportConfig())
            url = f"unix+ws://{address}" if "unix" in link else f"ws://{address}{link['path']}"
        else:
            joiner = AsyncRawSocketJoiner(authenticator, SERIALIZERS[serializer](), types.TransportConfig())
            url = f"unix://{address}" if "unix" in link else f"rs://{address}"
        try:
            self.base = await joiner.join(url, realm)
        except exception.ApplicationError as error:
            raise Failure(error.message) from None
        self.session = AsyncSession(self.base)
        self.registrations = {}
        self.subscriptions = {}
        return {"session": self.base.id, "features": None}

    async def leave(self):
        await self.session.leave()
        return {"reason": None}

    async def drop(self):
        await self.base.close()

    async def register(self, name, procedure, options, behaviour):
        async def endpoint(invocation):
            try:
                args, kwargs = await behaviour(
                    self.incoming(invocation.args or []), self.incoming(invocation.kwargs or {}),
                    (invocation.details or {}).get("procedure", procedure), None,
                    (invocation.details or {}).get("caller"))
            except Failure as error:
                raise ApplicationError(error.uri, *self.outgoing(error.arguments)) from None
            return types.Result(self.outgoing(args) or None, self.outgoing(kwargs) or None)

        self.registrations[name] = await self.request(self.session.register(procedure, endpoint, options))

    async def unregister(self, name):
        await self.registrations.pop(name).unregister()

    async def request(self, request):
        try:
            return await request
        except ApplicationError as error:
            raise Failure(error.message, self.incoming(list(error.args)), self.incoming(error.kwargs)) from None

    def start_call(self, procedure, args, options, kwargs=None):
        call = self.session.call(procedure, self.outgoing(args), self.outgoing(kwargs), options)
        return asyncio.get_running_loop().create_task(call)

    async def wait_call(self, call):
        result = await self.request(call)
        return self.incoming(result.args), self.incoming(result.kwargs)

    async def call(self, procedure, args, kwargs, options, progress):
        return await self.wait_call(self.start_call(procedure, args, options, kwargs))

    async def subscribe(self, name, topic, options, on_event):
        async def handler(event):
            details = event.details or {}
            on_event(
                self.incoming(event.args), self.incoming(event.kwargs), details.get("topic", topic),
                publisher=details.get("publisher"), retained=details.get("retained"))

        self.subscriptions[name] = await self.request(self.session.subscribe(topic, handler, options))

    async def unsubscribe(self, name):
        await self.subscriptions.pop(name).unsubscribe()

    async def publish(self, topic, args, kwargs, options):
        await self.request(self.session.publish(topic, self.outgoing(args), self.outgoing(kwargs), options))
        return {"publication": None}

    async def publish_many(self, publications):
        for topic, args in publications:
            await self.session.publish(topic, args)
