"""What netasync raises: misuse, and nothing else.

The network never raises. What a peer or the world does is a value, `Disconnected` or `Closed`, with a
`Reason`. An exception says that the caller can do something about it:

    NetasyncError
    ├── ClosedError        sending on a handle that has ended
    ├── BufferFull         not waiting, and no room      (also asyncio.QueueFull, queue.Full)
    ├── BufferEmpty        not waiting, and nothing there (also asyncio.QueueEmpty, queue.Empty)
    ├── MessageTooLarge    a message above max_size      (also ValueError)
    └── ForkedError        a handle of the parent process, in a forked child

Built-in exceptions stand for the rest: `TimeoutError` for a `timeout=` that ran out, `TypeError` and
`ValueError` for a wrong argument, `OSError` for an address that cannot be bound.

`UndeliveredWarning` is a warning, and raises only where warnings are turned into errors.
"""

from __future__ import annotations

import asyncio
import queue
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._native import Connection
    from .values import Closed

__all__ = [
    "BufferEmpty",
    "BufferFull",
    "ClosedError",
    "ForkedError",
    "MessageTooLarge",
    "NetasyncError",
    "UndeliveredWarning",
]


class NetasyncError(Exception):
    """The base of every exception that only netasync raises.

    Attributes:
        accepted: After `send_many`, how many of its messages were accepted before this happened. They stay
            accepted. 0 after any other call.
    """

    __module__ = "netasync"

    accepted: int = 0


class ClosedError(NetasyncError):
    """The handle, or the runtime, has ended, and the call needs a living one.

    Raised by sending and flushing on a handle that has ended, and by connecting and listening on a
    runtime that was shut down. The caller is responsible for going on without it: nobody will ever take that
    message. Receiving never raises this; it returns `Closed`, whose reason says who ended the handle.
    """

    __module__ = "netasync"


class BufferFull(NetasyncError, asyncio.QueueFull, queue.Full):
    """There was no room, and the call was one that does not wait.

    Raised by the `_nowait` calls that send. The caller is responsible for what to do with the message: wait
    for room with `send`, choose a buffer that drops, or let it go.
    """

    __module__ = "netasync"


class BufferEmpty(NetasyncError, asyncio.QueueEmpty, queue.Empty):
    """There was nothing to take, and the call was one that does not wait.

    Raised by the `_nowait` calls that receive or accept. Nobody did anything wrong: the caller has only to
    come back later, or to wait with `recv` or `accept`.
    """

    __module__ = "netasync"


class MessageTooLarge(NetasyncError, ValueError):
    """The message is larger than `max_size`.

    Raised by every call that sends, before anything of the message was accepted. The caller is responsible:
    send it in parts, or raise `max_size` on both sides. The text names the limit and the message's length,
    in bytes.
    """

    __module__ = "netasync"


class ForkedError(NetasyncError):
    """The handle belongs to the parent process, and this is a child that `os.fork` made.

    Raised in the child by every call on a connection, listener, channel or runtime that was made before the
    fork, also by a wait that had begun. Nothing was sent or taken, and the parent's links go on. The child
    opens handles of its own.
    """

    __module__ = "netasync"


class UndeliveredWarning(UserWarning):
    """A connection was left with messages of which it is not known that the peer holds them.

    Given once for each connection, as its `async with` or `with` block is left, where nobody sees its
    `Closed`. The text names the target and the count. To look at `Closed.undelivered` and decide, call
    `aclose()`, or `close()` of the face for threads, which return it. Nothing is given of a connection that
    was aborted here, or was made with `on_new_session="discard"`.
    """

    __module__ = "netasync"


def warn_of_undelivered(connection: Connection, closed: Closed, error: BaseException | None) -> None:
    """Say what the block that is being left did not deliver; `error` is what leaves it."""
    count = closed.undelivered
    target = connection._undelivered_to() if count else None
    if target is None:
        return
    messages = "1 message" if count == 1 else f"{count} messages"
    text = f"{messages} to {target} left undelivered: {closed.reason}"
    try:
        warnings.warn(text, UndeliveredWarning, stacklevel=3)
    except UndeliveredWarning:
        # Warnings are errors here; what leaves the block says more.
        if error is None:
            raise
