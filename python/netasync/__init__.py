"""Reliable, message-oriented, bidirectional communication over TCP.

You hold a handle, not a socket. Messages go in and come out whole; when the network breaks, the handle
stays valid, reconnects by itself and tells you: `Connected`, `Disconnected` and `Closed` are values that
you read. Everything here is for asyncio; `netasync.blocking` is the same for threads.
"""

import atexit
import os

from . import blocking
from ._native import Backoff, Buffer, after_fork_in_child, flush_at_exit
from .aio import Connection, Listener, Runtime, connect, listen
from .channels import AcceptChannel, ReadChannel, WriteChannel
from .errors import BufferEmpty, BufferFull, ClosedError, ForkedError, MessageTooLarge, NetasyncError
from .selecting import select
from .values import Closed, Connected, Disconnected, Event, Item, ListenerStats, Reason, State, Stats

__all__ = [
    "AcceptChannel",
    "Backoff",
    "Buffer",
    "BufferEmpty",
    "BufferFull",
    "Closed",
    "ClosedError",
    "Connected",
    "Connection",
    "Disconnected",
    "Event",
    "ForkedError",
    "Item",
    "Listener",
    "ListenerStats",
    "MessageTooLarge",
    "NetasyncError",
    "ReadChannel",
    "Reason",
    "Runtime",
    "State",
    "Stats",
    "WriteChannel",
    "blocking",
    "connect",
    "listen",
    "select",
]

# What was accepted is written for at most 250 ms; then the process ends, whatever is still connected.
atexit.register(flush_at_exit)
os.register_at_fork(after_in_child=after_fork_in_child)
