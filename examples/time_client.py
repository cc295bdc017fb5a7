"""Asks the time service for the time, once."""

from autobahn.asyncio.component import Component, run

component = Component(transports="ws://127.0.0.1:8080/ws", realm="realm1")


@component.on_join
async def joined(session, details):
    print("Current time from time service:", await session.call("com.example.time.now"))
    session.leave()


if __name__ == "__main__":
    run([component], log_level="warn")
