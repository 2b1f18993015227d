"""A Protocol: frames are parsed in `data_received`, and what answers them is written from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

from bench.messages import Messages
from bench.workloads import IDLE, ONE_WAY

from . import awaited
from .framing import HEADER_SIZE, unpack_length, write_frame
from .setup import CHECK, Setup, next_order_awaited, say, say_address


class Framed(asyncio.Protocol):
    """Calls `message_received` for each message."""

    def __init__(self) -> None:
        # The beginning of a frame, and how much more is needed before looking at it again.
        self._pieces: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.write = transport.write

    def message_received(self, message: bytes) -> None:
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        if self._pieces:
            self._pieces.append(data)
            if len(data) < self._missing:
                self._missing -= len(data)
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        start, end = 0, len(data)
        needed = HEADER_SIZE
        while end - start >= HEADER_SIZE:
            needed = HEADER_SIZE + unpack_length(data, start)[0]
            if end - start < needed:
                break
            self.message_received(data[start + HEADER_SIZE : start + needed])
            start += needed
            needed = HEADER_SIZE
        if start < end:
            self._pieces.append(data[start:])
            self._missing = needed - (end - start)


class Echo(Framed):
    """Sends back what comes."""

    def message_received(self, message: bytes) -> None:
        write_frame(self.write, message)


class Checker(Framed):
    """Compares a round of messages with what they must be, and answers at its end."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages
        self._left = 0
        self._wrong = 0
        self._expected: Iterator[bytes] = iter(())

    def message_received(self, message: bytes) -> None:
        if not self._left:
            self._left, self._wrong = int(message), 0
            self._expected = self._messages.expected(self._left)
            return
        if message != next(self._expected):
            self._wrong += 1
        self._left -= 1
        if not self._left:
            write_frame(self.write, b"%d" % self._wrong)


class Client(Framed):
    """Does a round and sets a future when it is over."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages
        self._outgoing: Iterator[bytes] = iter(())
        self._done: asyncio.Future[int]

    def begin(self, count: int) -> asyncio.Future[int]:
        self._outgoing = self._messages.to_send(count)
        self._done = asyncio.get_running_loop().create_future()
        return self._done


class EchoClient(Client):
    """Answers each message that comes back with the next one."""

    def __init__(self, messages: Messages, window: int) -> None:
        super().__init__(messages)
        self._window = window

    def begin(self, count: int) -> asyncio.Future[int]:
        done = super().begin(count)
        self._expected = self._messages.expected(count)
        self._left, self._wrong = count, 0
        for message in islice(self._outgoing, self._window):
            write_frame(self.write, message)
        return done

    def message_received(self, message: bytes) -> None:
        if message != next(self._expected):
            self._wrong += 1
        self._left -= 1
        following = next(self._outgoing, None)
        if following is not None:
            write_frame(self.write, following)
        elif not self._left:
            self._done.set_result(self._wrong)


class OneWayClient(Client):
    """Writes until the transport asks for a pause."""

    _is_paused = False

    def begin(self, count: int) -> asyncio.Future[int]:
        done = super().begin(count)
        write_frame(self.write, b"%d" % count)
        self.resume_writing()
        return done

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        write = self.write
        for message in self._outgoing:
            write_frame(write, message)
            if self._is_paused:
                return

    def message_received(self, message: bytes) -> None:
        self._done.set_result(int(message))


async def _serve(setup: Setup) -> None:
    messages = Messages(setup.workload.size)
    make = (lambda: Checker(messages)) if setup.workload.kind == ONE_WAY else Echo
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=1024)
    say_address(server.sockets[0].getsockname())
    await server.serve_forever()


def _client(setup: Setup, messages: Messages) -> Client:
    if setup.workload.kind == ONE_WAY:
        return OneWayClient(messages)
    return EchoClient(messages, setup.workload.window)


async def _drive(setup: Setup) -> None:
    loop = asyncio.get_running_loop()
    messages = Messages(setup.workload.size, is_damaged=setup.is_damaged)

    async def connect() -> Client:
        return (await loop.create_connection(lambda: _client(setup, messages), *setup.endpoint))[1]

    clients = [] if setup.workload.kind == IDLE else [await connect()]
    say("connected")
    while True:
        count = await next_order_awaited()
        began = time.perf_counter()
        if setup.workload.kind == IDLE and count != CHECK:
            clients += [await connect() for _ in range(count)]
        # An idle connection carries one message when it is opened and when it is checked.
        each = 1 if setup.workload.kind == IDLE else count
        wrong = sum([await client.begin(each) for client in clients])
        say(time.perf_counter() - began, wrong)


def serve(setup: Setup) -> None:
    """Be the server."""
    awaited.run(setup, _serve(setup))


def drive(setup: Setup) -> None:
    """Be the client."""
    awaited.run(setup, _drive(setup))
