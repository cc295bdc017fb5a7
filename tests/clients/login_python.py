"""Logs in with Autobahn|Python and prints what came of it: login_python.py URL REALM METHOD AUTHID SECRET [PUBLIC-KEY]."""

import asyncio
import json
import sys

from autobahn.asyncio.component import Component

TIME_LIMIT_S = 20

url, realm, method, authid, secret = sys.argv[1:6]
key = {"ticket": "ticket", "wampcra": "secret", "scram": "password", "cryptosign": "privkey"}[method]
component = Component(
    transports=[{"type": "websocket", "url": url, "serializers": ["cbor"], "max_retries": 0}],
    realm=realm,
    authentication={method: {"authid": authid, key: secret}},
)
outcome = {}


@component.on_join
async def joined(session, details):
    outcome.update(authid=details.authid, role=details.authrole, method=details.authmethod)
    await session.leave()


@component.on_leave
async def left(_session, details):
    outcome.setdefault("reason", details.reason)


try:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(asyncio.wait_for(component.start(loop=loop), TIME_LIMIT_S))
except Exception as error:  # noqa: BLE001: what is wrong is told in words
    outcome.setdefault("reason", f"{type(error).__name__}: {error}")
print(json.dumps(outcome))
