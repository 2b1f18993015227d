"""Reliable, message-oriented, bidirectional communication over TCP.

You hold a handle, not a socket. Messages go in and come out whole; when the network breaks, the handle
stays valid, reconnects by itself and tells you: `Connected`, `Disconnected` and `Closed` are values that
you read. Everything here is for asyncio; `netasync.blocking` is the same for threads.
"""

import atexit as _atexit
import os as _os

from . import _native, blocking
from ._native import Backoff, Buffer
from ._native import __version__ as __version__
from .aio import Connection, Listener, Runtime, connect, listen
from .channels import AcceptChannel, ReadChannel, WriteChannel
from .errors import (
    BufferEmpty,
    BufferFull,
    ClosedError,
    ForkedError,
    MessageTooLarge,
    NetasyncError,
    UndeliveredWarning,
)
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
    "UndeliveredWarning",
    "WriteChannel",
    "blocking",
    "connect",
    "listen",
    "select",
]

# What was accepted is written for at most 250 ms; then the process ends, whatever is still connected.
_atexit.register(_native.flush_at_exit)
_os.register_at_fork(after_in_child=_native.after_fork_in_child)


def __dir__() -> list[str]:
    """What is for users; the modules in which it is declared are not."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
