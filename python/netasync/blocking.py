"""The same connections, listeners and runtimes for threads.

Every waiting call is native, takes `timeout=` in seconds (`TimeoutError` when it is over; None waits for
ever) and is interrupted by Ctrl-C within 100 ms, leaving the handle usable.

A thread that waits here keeps the process alive when the main thread is over, as one in `queue.Queue.get`
does: Python waits for all threads that are no daemons. Close its handle, give it a `timeout=`, or make it a
`daemon=True` thread, which the end of the process does not wait for.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from . import _native, aio
from ._native import select
from .errors import ForkedError, warn_of_undelivered
from .values import Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Literal

    from typing_extensions import Buffer as BytesLike
    from typing_extensions import Self

    from . import channels
    from .values import Item

__all__ = [
    "AcceptChannel",
    "Connection",
    "Listener",
    "ReadChannel",
    "Runtime",
    "WriteChannel",
    "connect",
    "listen",
    "select",
]

_P = ParamSpec("_P")


class Connection(_native.ThreadConnection):
    """A connection that outlives its links, for threads."""

    __slots__ = ()

    def messages(self) -> Iterator[bytes]:
        """Iterate over the messages only, until `Closed`."""
        for item in self:
            if type(item) is bytes:
                yield item

    def __iter__(self) -> Iterator[Item]:
        """Iterate over every item, `Closed` the last one."""
        recv = self.recv
        while True:
            item = recv()
            yield item
            if type(item) is Closed:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            closed = self.close()
        except ForkedError:
            # What leaves the block in a forked child says more: a SystemExit, say.
            if kind is None:
                raise
        else:
            warn_of_undelivered(self, closed, error)

    @property
    def read_chan(self) -> ReadChannel:
        """The receiving side by itself. Holding it keeps the connection alive."""
        return ReadChannel(self)

    @property
    def write_chan(self) -> WriteChannel:
        """The sending side by itself. Holding it keeps the connection alive."""
        return WriteChannel(self)

    @property
    def aio(self) -> aio.Connection:
        """The same connection for asyncio."""
        return self._aio()


class Listener(_native.ThreadListener):
    """A bound socket that accepts connections, for threads."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over connections until the listener is closed."""
        while not isinstance(connection := self.accept(), Closed):
            yield connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ForkedError:
            # What leaves the block in a forked child says more: a SystemExit, say.
            if kind is None:
                raise

    @property
    def accept_chan(self) -> AcceptChannel:
        """The accepting side by itself. Holding it keeps the listener alive."""
        return AcceptChannel(self)

    @property
    def aio(self) -> aio.Listener:
        """The same listener for asyncio."""
        return self._aio()


class Runtime:
    """The thread behind connections and listeners, as threads see it."""

    __slots__ = ("__weakref__", "_runtime")

    def __init__(self, runtime: aio.Runtime) -> None:
        """Made by `Runtime.blocking`."""
        self._runtime = runtime

    def __repr__(self) -> str:
        return repr(self._runtime).replace("netasync.", f"{__name__}.", 1)

    @property
    def running(self) -> bool:
        """Whether it may be used: True until `shutdown` is called."""
        return self._runtime.running

    def shutdown(self, timeout: float = 5.0) -> None:
        """Stop every listener, close every connection, and wait for that.

        Every reader, writer and accepter is told; ports are free and the thread is gone when it returns.
        Safe to repeat. Ctrl-C interrupts the wait; shutting down goes on.

        Args:
            timeout: seconds, after which what is left is aborted; 0 aborts at once, `inf` waits for ever.
        """
        self._runtime._shutdown(timeout)

    @property
    def aio(self) -> aio.Runtime:
        """The same runtime for asyncio."""
        return self._runtime


class ReadChannel:
    """The receiving side of a connection, for threads.

    `recv`, `recv_many` and `recv_nowait` are the connection's own.
    """

    __slots__ = ("__weakref__", "_connection", "recv", "recv_many", "recv_nowait")

    def __init__(self, connection: Connection) -> None:
        """Made by `Connection.read_chan`. Its calls are the connection's own."""
        self._connection = connection
        self.recv = connection.recv
        self.recv_many = connection.recv_many
        self.recv_nowait = connection.recv_nowait

    def close(self) -> None:
        """Throw away what arrives from now on. What had arrived can be taken, then only values come."""
        self._connection._close_reading()

    @property
    def aio(self) -> channels.ReadChannel:
        """The same channel for asyncio."""
        return self._connection.aio.read_chan

    def __iter__(self) -> Iterator[Item]:
        """As `Connection`: every item, `Closed` the last one."""
        return iter(self._connection)

    @property
    def _source(self) -> Connection:
        """For `select`."""
        return self._connection

    def __repr__(self) -> str:
        return f"<{__name__}.ReadChannel of {self._connection!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadChannel) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash((ReadChannel, self._connection))


class WriteChannel:
    """The sending side of a connection, for threads."""

    __slots__ = ("__weakref__", "_connection")

    def __init__(self, connection: Connection) -> None:
        """Made by `Connection.write_chan`."""
        self._connection = connection

    def send(
        self,
        data: BytesLike,
        timeout: float | None = None,
        *,
        confirm: Literal["received", "consumed"] | None = None,
    ) -> bool:
        """As `Connection.send`."""
        return self._connection.send(data, timeout, confirm=confirm)

    def send_nowait(self, data: BytesLike) -> bool:
        """As `Connection.send_nowait`."""
        return self._connection.send_nowait(data)

    def send_many(self, iterable: Iterable[BytesLike], timeout: float | None = None) -> int:
        """As `Connection.send_many`."""
        return self._connection.send_many(iterable, timeout)

    def close(self, timeout: float | None = None) -> Closed:
        """Close the connection: as `Connection.close`."""
        return self._connection.close(timeout)

    @property
    def aio(self) -> channels.WriteChannel:
        """The same channel for asyncio."""
        return self._connection.aio.write_chan

    def __repr__(self) -> str:
        return f"<{__name__}.WriteChannel of {self._connection!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WriteChannel) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash((WriteChannel, self._connection))


class AcceptChannel:
    """The accepting side of a listener, for threads."""

    __slots__ = ("__weakref__", "_listener")

    def __init__(self, listener: Listener) -> None:
        """Made by `Listener.accept_chan`."""
        self._listener = listener

    def accept(self, timeout: float | None = None) -> Connection | Closed:
        """As `Listener.accept`."""
        return self._listener.accept(timeout)

    def accept_nowait(self) -> Connection | Closed:
        """As `Listener.accept_nowait`."""
        return self._listener.accept_nowait()

    def close(self, timeout: float | None = None) -> Closed:
        """Close the listener: as `Listener.close`."""
        return self._listener.close(timeout)

    @property
    def aio(self) -> channels.AcceptChannel:
        """The same channel for asyncio."""
        return self._listener.aio.accept_chan

    def __iter__(self) -> Iterator[Connection]:
        """As `Listener`: connections, until the listener is closed."""
        return iter(self._listener)

    @property
    def _source(self) -> Listener:
        """For `select`."""
        return self._listener

    def __repr__(self) -> str:
        return f"<{__name__}.AcceptChannel of {self._listener!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AcceptChannel) and other._listener is self._listener

    def __hash__(self) -> int:
        return hash((AcceptChannel, self._listener))


def _connect(make: Callable[_P, aio.Connection]) -> Callable[_P, Connection]:
    @wraps(make)
    def connect(*args: _P.args, **kwargs: _P.kwargs) -> Connection:
        return make(*args, **kwargs).blocking

    return connect


def _listen(make: Callable[_P, aio.Listener]) -> Callable[_P, Listener]:
    @wraps(make)
    def listen(*args: _P.args, **kwargs: _P.kwargs) -> Listener:
        return make(*args, **kwargs).blocking

    return listen


connect = _connect(aio.connect)
listen = _listen(aio.listen)

_native.register(aio.Connection, Connection)
_native.register_listeners(aio.Listener, Listener)


def __dir__() -> list[str]:
    """What is for users."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
