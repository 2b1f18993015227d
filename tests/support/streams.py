"""A stream without a pause, and who takes it."""

from __future__ import annotations

from typing import Any

from support.world import World


async def pour_until(world: World, conn: Any, done: list[Any]) -> int:
    """Send without a pause until there is something in `done`; return how many messages that were."""
    while not done:
        await world.send(conn, bytes(1000))
    await world.send(conn, b"the last")
    return conn.stats().accepted


async def drain(world: World, conn: Any) -> int:
    """Take what `pour_until` sends; return how many messages that were."""
    while await world.recv(conn) != b"the last":
        pass
    return conn.stats().consumed
