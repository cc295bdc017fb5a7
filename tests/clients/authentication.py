"""Logs in with Autobahn|Python, and says what came of it: `authentication.py URL REALM METHOD AUTHID SECRET`."""

import asyncio
import json
import sys

from autobahn.asyncio.component import Component

url, realm, method, authid, secret = sys.argv[1:]
options = {
    "ticket": {"ticket": secret},
    "wampcra": {"secret": secret},
    "scram": {"nonce": "", "kdf": "", "salt": "", "iterations": 0, "memory": 0, "password": secret},
    "cryptosign": {"privkey": secret},
}[method]
if method == "scram":
    options = {"password": secret}
component = Component(
    transports=[{"type": "websocket", "url": url, "serializers": ["cbor"], "max_retries": 0}],
    realm=realm,
    authentication={method: {"authid": authid, **options}},
)
outcome = {}


@component.on_join
async def joined(session, details):
    outcome.update(authid=details.authid, authrole=details.authrole, authmethod=details.authmethod)
    # The session is one: it can do something.
    await session.publish("com.example.topic", 1)
    session.leave()


@component.on_leave
async def left(session, details):
    if not outcome:
        outcome.update(reason=details.reason)


async def main():
    try:
        await asyncio.wait_for(component.start(), 20)
    except Exception as error:  # noqa: BLE001: what is wrong is told in words
        outcome.setdefault("error", str(error))


asyncio.new_event_loop().run_until_complete(main()) if False else None
loop = asyncio.get_event_loop()
loop.run_until_complete(asyncio.wait_for(component.start(loop), 20)) if False else None
try:
    loop.run_until_complete(asyncio.wait_for(component.start(loop=loop), 20))
except Exception as error:  # noqa: BLE001
    outcome.setdefault("error", f"{type(error).__name__}: {error}")
print(json.dumps(outcome))
