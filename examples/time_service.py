"""A time service: tells the time to whoever calls, and publishes it every second."""

import asyncio
from datetime import datetime, timezone

from autobahn.asyncio.component import Component, run

component = Component(transports="ws://127.0.0.1:8080/ws", realm="realm1")


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@component.on_join
async def joined(session, details):
    await session.register(now, "com.example.time.now")
    print("time service is ready")
    while session.is_attached():
        session.publish("com.example.time.tick", now())
        await asyncio.sleep(1)


if __name__ == "__main__":
    run([component])
