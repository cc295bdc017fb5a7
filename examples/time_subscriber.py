"""Prints every tick of the time service."""

from autobahn.asyncio.component import Component, run

component = Component(transports="ws://127.0.0.1:8080/ws", realm="realm1")


@component.on_join
async def joined(session, details):
    await session.subscribe(lambda time: print("tick:", time), "com.example.time.tick")


if __name__ == "__main__":
    run([component])
