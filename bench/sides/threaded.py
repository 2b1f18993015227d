"""The loops of every library whose calls block. A channel is anything with `send` and `recv`."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

from bench.messages import Messages
from bench.workloads import ECHO, ONE_WAY

from .setup import Setup, next_order, say


class Channel(Protocol):
    """Takes and brings whole messages."""

    def send(self, message: bytes, /) -> object:
        """Send one message."""

    def recv(self) -> Any:
        """Wait for the next message."""


def answer(channel: Channel, setup: Setup) -> None:
    """Be the server's end of one connection."""
    if setup.workload.kind == ONE_WAY:
        _check_rounds(channel, Messages(setup.workload.size))
    send, recv = channel.send, channel.recv
    while True:
        send(recv())


def drive(setup: Setup, connect: Callable[[Setup], Channel]) -> None:
    """Be the client: do a round for each order."""
    messages = Messages(setup.workload.size, is_damaged=setup.is_damaged)
    channel = connect(setup)
    say("connected")
    while True:
        count = next_order()
        began = time.perf_counter()
        if setup.workload.kind == ECHO:
            wrong = _echo(channel, messages, count, setup.workload.window)
        else:
            wrong = _one_way(channel, messages, count)
        say(time.perf_counter() - began, wrong)


def _echo(channel: Channel, messages: Messages, count: int, window: int) -> int:
    send, recv = channel.send, channel.recv
    outgoing, expected = messages.to_send(count), messages.expected(count)
    wrong = 0
    for message in islice(outgoing, window):
        send(message)
    for message, true in zip(outgoing, expected, strict=False):
        if recv() != true:
            wrong += 1
        send(message)
    # `zip` asks the first one first: nothing of what is expected was lost at its end.
    for true in expected:
        if recv() != true:
            wrong += 1
    return wrong


def _one_way(channel: Channel, messages: Messages, count: int) -> int:
    send = channel.send
    send(b"%d" % count)
    for message in messages.to_send(count):
        send(message)
    return int(channel.recv())


def _check_rounds(channel: Channel, messages: Messages) -> None:
    recv = channel.recv
    while True:
        wrong = 0
        for true in messages.expected(int(recv())):
            if recv() != true:
                wrong += 1
        channel.send(b"%d" % wrong)
