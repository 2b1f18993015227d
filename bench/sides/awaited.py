"""The loops of every library whose calls are awaited. A channel is anything with `send` and `recv`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Any, Protocol

from bench.messages import Messages
from bench.workloads import ECHO, IDLE, ONE_WAY

from .setup import CHECK, Setup, next_order_awaited, say

#: How many connections are opened at a time.
_AT_ONCE = 50


class Channel(Protocol):
    """Takes and brings whole messages."""

    async def send(self, message: bytes, /) -> object:
        """Send one message."""

    async def recv(self) -> Any:
        """Wait for the next message."""


Connect = Callable[[Setup], Awaitable[Channel]]


def run(setup: Setup, main: Coroutine[Any, Any, None]) -> None:
    """Run a side on its loop."""
    if setup.loop == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    if not setup.address:
        # Nobody orders a server: it hears when the process that measures is gone, and goes too.
        loop.add_reader(sys.stdin.fileno(), os._exit, 0)
    loop.run_until_complete(main)


async def answer(channel: Channel, setup: Setup) -> None:
    """Be the server's end of one connection."""
    if setup.workload.kind == ONE_WAY:
        await _check_rounds(channel, Messages(setup.workload.size))
    send, recv = channel.send, channel.recv
    while True:
        await send(await recv())


async def drive(setup: Setup, connect: Connect) -> None:
    """Be the client: do a round for each order."""
    messages = Messages(setup.workload.size, is_damaged=setup.is_damaged)
    if setup.workload.kind == IDLE:
        await _hold(setup, connect, messages)
    channel = await connect(setup)
    say("connected")
    while True:
        count = await next_order_awaited()
        began = time.perf_counter()
        if setup.workload.kind == ECHO:
            wrong = await _echo(channel, messages, count, setup.workload.window)
        else:
            wrong = await _one_way(channel, messages, count)
        say(time.perf_counter() - began, wrong)


async def _echo(channel: Channel, messages: Messages, count: int, window: int) -> int:
    send, recv = channel.send, channel.recv
    outgoing, expected = messages.to_send(count), messages.expected(count)
    wrong = 0
    for message in islice(outgoing, window):
        await send(message)
    for message, true in zip(outgoing, expected, strict=False):
        if await recv() != true:
            wrong += 1
        await send(message)
    # `zip` asks the first one first: nothing of what is expected was lost at its end.
    for true in expected:
        if await recv() != true:
            wrong += 1
    return wrong


async def _one_way(channel: Channel, messages: Messages, count: int) -> int:
    send = channel.send
    await send(b"%d" % count)
    for message in messages.to_send(count):
        await send(message)
    return int(await channel.recv())


async def _check_rounds(channel: Channel, messages: Messages) -> None:
    recv = channel.recv
    while True:
        wrong = 0
        for true in messages.expected(int(await recv())):
            if await recv() != true:
                wrong += 1
        await channel.send(b"%d" % wrong)


class _Held:
    """An idle connection with somebody who waits for what it brings."""

    def __init__(self, channel: Channel, message: bytes, true: bytes) -> None:
        self._channel = channel
        self._message = message
        self._true = true
        self._heard = 0
        self._waiting: asyncio.Task[Any]

    async def open(self) -> bool:
        """Make the first round trip, and wait from then on; return whether all was well."""
        await self._channel.send(self._message)
        is_well = await self._channel.recv() == self._true
        self._heard = self._bytes_received()
        self._waiting = asyncio.ensure_future(self._channel.recv())
        return is_well

    async def check(self) -> bool:
        """Return whether heartbeats came, where there are some, and whether it still carries a message."""
        has_heard = self._heard == 0 or self._bytes_received() > self._heard
        await self._channel.send(self._message)
        return await self._waiting == self._true and has_heard

    def _bytes_received(self) -> int:
        count = getattr(self._channel, "bytes_received", None)
        return count() if count else 0


async def _hold(setup: Setup, connect: Connect, messages: Messages) -> None:
    """Open as many connections as each order says, and keep them."""
    held: list[_Held] = []
    message, true = next(messages.to_send(1)), next(messages.expected(1))

    async def open_one() -> bool:
        held.append(_Held(await connect(setup), message, true))
        return await held[-1].open()

    say("ready")
    while True:
        count = await next_order_awaited()
        began = time.perf_counter()
        are_well: list[bool] = []
        if count == CHECK:
            are_well += await asyncio.gather(*(each.check() for each in held))
        while len(are_well) < count:
            at_once = min(_AT_ONCE, count - len(are_well))
            are_well += await asyncio.gather(*(open_one() for _ in range(at_once)))
        say(time.perf_counter() - began, are_well.count(False))
