"""Autobahn|Python on asyncio, as party.py drives it."""

import asyncio

import txaio

txaio.use_asyncio()

from autobahn.asyncio.rawsocket import WampRawSocketClientFactory  # noqa: E402
from autobahn.asyncio.wamp import ApplicationSession  # noqa: E402
from autobahn.asyncio.websocket import WampWebSocketClientFactory, WampWebSocketClientProtocol  # noqa: E402
from autobahn.wamp import auth  # noqa: E402
from autobahn.wamp.exception import ApplicationError  # noqa: E402
from autobahn.wamp.exception import Error as WampError  # noqa: E402
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer  # noqa: E402
from autobahn.wamp.types import (  # noqa: E402
    CallOptions,
    CallResult,
    ComponentConfig,
    PublishOptions,
    RegisterOptions,
    SubscribeOptions,
)
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept  # noqa: E402
from values import Failure  # noqa: E402

AUTHENTICATORS = {
    "ticket": (auth.AuthTicket, "ticket"),
    "wampcra": (auth.AuthWampCra, "secret"),
    "scram": (auth.AuthScram, "password"),
    "cryptosign": (auth.AuthCryptoSign, "privkey"),
}
SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer, "cbor": CBORSerializer}


class Application(ApplicationSession):
    """The session of the library, with its beginning and its end as futures."""

    def __init__(self, realm):
        super().__init__(ComponentConfig(realm))
        loop = asyncio.get_running_loop()
        self.joined = loop.create_future()
        self.left = loop.create_future()
        self.disconnected = loop.create_future()
        self.roles = {}
        self.authenticator = None

    def onConnect(self):
        if self.login is None:
            return super().onConnect()
        method, authid, secret = self.login["method"], self.login["authid"], self.login["secret"]
        extra = None
        if method in AUTHENTICATORS:
            known, named = AUTHENTICATORS[method]
            self.authenticator = known(authid=authid, **{named: secret})
            extra = self.authenticator.authextra
        self.join(self.config.realm, [method], authid, authextra=extra)

    def onChallenge(self, challenge):
        # A token is shown as it is, which needs nothing of the library.
        return self.authenticator.on_challenge(self, challenge) if self.authenticator else self.login["secret"]

    def onWelcome(self, message):
        self.roles = {name: dict(role.__dict__) for name, role in message.roles.items()}
        return self.authenticator and self.authenticator.on_welcome(self, message.authextra)

    def onJoin(self, details):
        self.joined.set_result(details)

    def onLeave(self, details):
        if not self.left.done():
            self.left.set_result(details)
        if not self.joined.done():
            self.joined.set_exception(Failure(details.reason))
        return super().onLeave(details)

    def onDisconnect(self):
        if not self.joined.done():
            self.joined.set_exception(ConnectionError("the link closed before WELCOME"))
        if not self.disconnected.done():
            self.disconnected.set_result(None)
        return super().onDisconnect()


class Browser(WampWebSocketClientProtocol):
    """Keeps the cookie that the handshake brings, which the library leaves to others."""

    def onConnect(self, response):
        self.factory.cookie = response.headers.get("set-cookie", "").partition(";")[0] or None
        return super().onConnect(response)


def failure(error):
    return Failure(error.error, error.args, error.kwargs)


class Session:
    """One session."""

    async def connect(self, link, serializer, realm, login=None, announce=None):
        self.application = Application(realm)
        self.application.login = login
        loop = asyncio.get_running_loop()
        cookie = login and login.get("cookie")
        if link["framing"] == "websocket":
            host = f"{link['host']}:{link['port']}" if "port" in link else "localhost"
            factory = WampWebSocketClientFactory(
                lambda: self.application, url=f"ws://{host}{link['path']}", serializers=[SERIALIZERS[serializer]()],
                headers={"Cookie": cookie} if cookie else None)
            factory.protocol, factory.cookie = Browser, None
            if link.get("compressed"):
                factory.setProtocolOptions(
                    perMessageCompressionOffers=[PerMessageDeflateOffer()],
                    perMessageCompressionAccept=PerMessageDeflateResponseAccept)
        else:
            factory = WampRawSocketClientFactory(lambda: self.application, serializer=SERIALIZERS[serializer]())
        if "unix" in link:
            self.transport, _ = await loop.create_unix_connection(factory, link["unix"])
        else:
            self.transport, _ = await loop.create_connection(factory, link["host"], link["port"])
        details = await self.application.joined
        features = {
            role: {key: True for key, value in values.items() if value is True}
            for role, values in self.application.roles.items()
        }
        cookie = getattr(factory, "cookie", None)
        return {"session": details.session, "features": features, "cookie": cookie}

    async def leave(self):
        self.application.leave()
        details = await self.application.left
        await self.application.disconnected
        return {"reason": details.reason}

    async def drop(self):
        self.transport.abort()

    async def register(self, name, procedure, options, behaviour):
        async def endpoint(*args, details, **kwargs):
            progress = details.progress and (lambda args, kwargs: details.progress(*args, **kwargs))
            try:
                args, kwargs = await behaviour(list(args), kwargs, details.procedure, progress, details.caller)
            except Failure as error:
                raise ApplicationError(error.uri, *error.arguments, **error.keywords) from None
            return CallResult(*args, **kwargs)

        try:
            registration = await self.application.register(
                endpoint, procedure, RegisterOptions(details_arg="details", **options))
        except WampError as error:
            raise failure(error) from None
        self.__dict__.setdefault("registrations", {})[name] = registration

    async def unregister(self, name):
        await self.registrations.pop(name).unregister()

    def start_call(self, procedure, args, options, kwargs=None, progress=None):
        # With details=True the library stumbles over progressive results that have no keyword arguments.
        on_progress = progress and (lambda *args, **kwargs: progress(args, kwargs))
        return self.application.call(
            procedure, *(args or []), **(kwargs or {}),
            options=CallOptions(details=not progress, on_progress=on_progress, **options))

    def cancel_call(self, call, mode):
        if mode is not None:
            raise ValueError("this client cannot say how a call is cancelled")
        call.cancel()

    async def wait_call(self, call):
        try:
            result = await call
        except WampError as error:
            raise failure(error) from None
        except asyncio.CancelledError:
            raise Failure("cancelled by the client itself") from None
        if not isinstance(result, CallResult):
            return [result], {}
        return result.results, result.kwresults

    async def call(self, procedure, args, kwargs, options, progress):
        try:
            call = self.start_call(procedure, args, options, kwargs, progress)
        except WampError as error:
            raise failure(error) from None
        return await self.wait_call(call)

    async def subscribe(self, name, topic, options, on_event):
        async def handler(*args, details, **kwargs):
            on_event(
                args, kwargs, details.topic, details.publication, details.publisher, details.retained)

        try:
            subscription = await self.application.subscribe(
                handler, topic, SubscribeOptions(details_arg="details", **options))
        except WampError as error:
            raise failure(error) from None
        self.__dict__.setdefault("subscriptions", {})[name] = subscription

    async def unsubscribe(self, name):
        await self.subscriptions.pop(name).unsubscribe()

    async def publish(self, topic, args, kwargs, options):
        try:
            publication = self.application.publish(
                topic, *(args or []), **(kwargs or {}), options=PublishOptions(**options))
            return {"publication": (await publication).id if publication is not None else None}
        except WampError as error:
            raise failure(error) from None

    async def publish_many(self, publications):
        for topic, args in publications:
            self.application.publish(topic, *args)
