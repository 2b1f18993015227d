"""netasync, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import netasync

from . import awaited
from .setup import Setup, say


class Counted:
    """A connection of ours whose heartbeats can be counted."""

    __slots__ = ("_connection", "recv", "send")

    def __init__(self, connection: netasync.Connection) -> None:
        self._connection = connection
        self.send: Callable[[bytes], Awaitable[bool]] = connection.send
        self.recv: Callable[[], Awaitable[Any]] = connection.recv

    def bytes_received(self) -> int:
        """Return how much has come, heartbeats included."""
        return self._connection.stats().bytes_received


def options(setup: Setup) -> dict[str, Any]:
    """Return what a setup asks of `connect` and `listen` alike."""
    chosen: dict[str, Any] = {"protocol": setup.protocol} if setup.protocol else {}
    if setup.workload.connections:
        chosen["heartbeat_interval"] = setup.heartbeat
    return chosen


def listen_options(setup: Setup) -> dict[str, Any]:
    """Return what a setup asks of `listen`."""
    return options(setup) | ({} if setup.keeps_sessions else {"session_timeout": 0})


async def _connect(setup: Setup) -> Counted:
    connection = netasync.connect(setup.address, **options(setup))
    await connection.recv()
    return Counted(connection)


async def _serve(setup: Setup) -> None:
    async def handle(connection: netasync.Connection) -> None:
        await connection.recv()
        await awaited.answer(connection, setup)

    listener = netasync.listen(":0", accept_buffer=1024, **listen_options(setup))
    say(listener.address)
    tasks = set()
    async for connection in listener:
        tasks.add(asyncio.ensure_future(handle(connection)))


def serve(setup: Setup) -> None:
    """Be the server."""
    awaited.run(setup, _serve(setup))


def drive(setup: Setup) -> None:
    """Be the client."""
    awaited.run(setup, awaited.drive(setup, _connect))
