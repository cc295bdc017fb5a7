"""xconn for Python on asyncio, as party.py drives it."""

import asyncio

from wampproto import auth, exception, joiner, messages, serializers
from xconn import helpers, types
from xconn.async_session import AsyncSession
from xconn.exception import ApplicationError
from xconn.joiner import AsyncRawSocketJoiner, AsyncWebsocketsJoiner
from xconn.transports import AsyncRawSocketTransport, AsyncWebSocketTransport

from values import Failure, from_json, to_json

SERIALIZERS = {
    "json": serializers.JSONSerializer,
    "msgpack": serializers.MsgPackSerializer,
    "cbor": serializers.CBORSerializer,
}


class TokenAuthenticator(auth.IClientAuthenticator):
    """Shows a token as it is."""

    def __init__(self, authid, token):
        super().__init__("jwt", authid)
        self.token = token

    def authenticate(self, challenge):
        return messages.Authenticate(messages.AuthenticateFields(self.token, {}))


AUTHENTICATORS = {
    "ticket": auth.TicketAuthenticator,
    "wampcra": auth.WAMPCRAAuthenticator,
    "cryptosign": auth.CryptoSignAuthenticator,
    "jwt": TokenAuthenticator,
}


async def join(websocket, url, realm, authenticator, serializer, announce):
    """A session that announces features, each a role with their names, which the joiners of the library do not take."""
    if websocket:
        transport = await AsyncWebSocketTransport.connect(
            url, subprotocols=[helpers.get_ws_subprotocol(serializer=serializer)], config=types.TransportConfig())
    else:
        transport = await AsyncRawSocketTransport.connect(
            url, helpers.get_rs_protocol(serializer), config=types.TransportConfig())
    joining = joiner.Joiner(realm, serializer, authenticator)
    roles = {
        role: {"features": {feature: True for feature in announce.get(role, ())}} for role in joiner.CLIENT_ROLES}
    await transport.write(joining.send_hello(roles))
    while (answer := joining.receive(await transport.read())) is not None:
        await transport.write(answer)
    return types.AsyncBaseSession(transport, joining.get_session_details(), serializer)


def sealed(options, args, kwargs):
    """The payload for these options: sealed, in the form that wampy.js has for it, if they say so."""
    return ([{"args": args, "kwargs": kwargs}], None) if (options or {}).get("ppt_scheme") else (args, kwargs)


def unsealed(message):
    """Positional and keyword arguments of an event, an invocation or a result."""
    if (message.details or {}).get("ppt_scheme"):
        return message.args[0].get("args") or [], message.args[0].get("kwargs") or {}
    return message.args or [], message.kwargs or {}


class Session:
    """One session. The joiner is used directly because connect() of the library knows no WebSocket on a Unix socket."""

    async def connect(self, link, serializer, realm, login=None, announce=None):
        self.outgoing, self.incoming = (to_json, from_json) if serializer == "json" else (lambda value: value, lambda value: value)
        address = link.get("unix") or f"{link.get('host')}:{link.get('port')}"
        authenticator = auth.AnonymousAuthenticator("")
        if login is not None:
            authenticator = AUTHENTICATORS[login["method"]](login["authid"], login["secret"])
        if link["framing"] == "websocket":
            known = AsyncWebsocketsJoiner(authenticator, SERIALIZERS[serializer](), types.TransportConfig())
            url = f"unix+ws://{address}" if "unix" in link else f"ws://{address}{link['path']}"
        else:
            known = AsyncRawSocketJoiner(authenticator, SERIALIZERS[serializer](), types.TransportConfig())
            url = f"unix://{address}" if "unix" in link else f"rs://{address}"
        try:
            if announce:
                self.base = await join(
                    link["framing"] == "websocket", url, realm, authenticator, SERIALIZERS[serializer](), announce)
            else:
                self.base = await known.join(url, realm)
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
            args, kwargs = unsealed(invocation)
            try:
                args, kwargs = await behaviour(
                    self.incoming(args), self.incoming(kwargs), (invocation.details or {}).get("procedure", procedure), None,
                    (invocation.details or {}).get("caller"))
            except Failure as error:
                raise ApplicationError(error.uri, *self.outgoing(error.arguments)) from None
            # As long as more input comes, what is answered is not the last either.
            more = {"progress": True} if (invocation.details or {}).get("progress") else None
            return types.Result(self.outgoing(args) or None, self.outgoing(kwargs) or None, more)

        self.registrations[name] = await self.request(self.session.register(procedure, endpoint, options))

    async def unregister(self, name):
        await self.registrations.pop(name).unregister()

    async def request(self, request):
        try:
            return await request
        except ApplicationError as error:
            raise Failure(error.message, self.incoming(list(error.args)), self.incoming(error.kwargs)) from None

    def start_call(self, procedure, args, options, kwargs=None):
        args, kwargs = sealed(options, self.outgoing(args), self.outgoing(kwargs))
        call = self.session.call(procedure, args, kwargs, options)
        return asyncio.get_running_loop().create_task(call)

    async def wait_call(self, call):
        args, kwargs = unsealed(await self.request(call))
        return self.incoming(args), self.incoming(kwargs)

    async def call(self, procedure, args, kwargs, options, progress):
        return await self.wait_call(self.start_call(procedure, args, options, kwargs))

    async def subscribe(self, name, topic, options, on_event):
        async def handler(event):
            details = event.details or {}
            args, kwargs = unsealed(event)
            on_event(
                self.incoming(args), self.incoming(kwargs), details.get("topic", topic),
                publisher=details.get("publisher"), retained=details.get("retained"), event_id=details.get("_event_id"))

        self.subscriptions[name] = await self.request(self.session.subscribe(topic, handler, options))

    async def unsubscribe(self, name):
        await self.subscriptions.pop(name).unsubscribe()

    async def publish(self, topic, args, kwargs, options):
        args, kwargs = sealed(options, self.outgoing(args), self.outgoing(kwargs))
        await self.request(self.session.publish(topic, args, kwargs, options))
        return {"publication": None}

    async def publish_many(self, publications):
        for topic, args in publications:
            await self.session.publish(topic, args)
