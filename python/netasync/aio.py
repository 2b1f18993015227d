"""Connections, listeners and runtimes for asyncio: waiting, iteration and context managers.

The native classes try; what is here waits for them. Every waiting method may be cancelled at any time:
what that does stands with each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from . import _native
from ._native import Await, Backoff, Buffer
from .channels import AcceptChannel, ReadChannel, WriteChannel
from .errors import ForkedError, warn_of_undelivered
from .values import Closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
    from types import TracebackType

    from typing_extensions import Buffer as BytesLike
    from typing_extensions import Self

    from . import blocking
    from .values import Connected, Item

__all__ = [
    "Connection",
    "Listener",
    "Runtime",
    "connect",
    "listen",
]

Target: TypeAlias = str | tuple[str, int]


def connect(
    target: Target,
    *,
    heartbeat_interval: float = 5.0,
    heartbeat_timeout: float | None = None,
    open_timeout: float = 10.0,
    close_timeout: float = 5.0,
    max_size: int = 16 * 2**20,
    read_buffer: Buffer | int = Buffer.fixed(65536),
    write_buffer: Buffer | int = Buffer.fixed(65536),
    protocol: Literal["netasync", "net.async"] = "netasync",
    name: str | None = None,
    runtime: Runtime | None = None,
    nodelay: bool = True,
    cork: bool = True,
    reconnect: Backoff | float | None = Backoff(),
    on_new_session: Literal["redeliver", "discard"] = "redeliver",
    local_address: str | None = None,
) -> Connection:
    """Dial `target` for as long as it takes. Returns at once; the server may start later.

    Args:
        target: `"host:port"`, `"[::1]:9988"`, `(host, port)` or `"tcp://host:port"`. Every attempt looks
            the name up again and tries its addresses in turn, the one that answered last first. A session
            is shown only to the address that issued it; another one begins a session of its own.
        heartbeat_interval: seconds without a write after which a heartbeat goes out.
        heartbeat_timeout: seconds of silence after which the peer is taken for dead, at least twice the
            interval and 0.1; None is four intervals and at least 20.
        open_timeout: seconds for one attempt, name lookup included.
        close_timeout: seconds that closing takes at most.
        max_size: bytes of the largest message that the peer may send, at most 2**27 - 1; the greeting tells
            it so. How large a message may be that is sent is up to the peer's own `max_size`, as its last
            greeting told it; before the first one ours counts in its place, and what turns out to be too
            large for the peer is given up and counted (`Stats.lost`). On `net.async`, which has no greeting,
            ours counts in both directions.
        read_buffer: what may wait to be received; a number is `Buffer.fixed` of it.
        write_buffer: what may wait to be sent; a number is `Buffer.fixed` of it.
        protocol: the wire; `"netasync"` is ours, `"net.async"` that of the Clojure library.
        name: for `repr` and logs.
        runtime: the `Runtime` to live in; None is the default one.
        nodelay: send small messages at once (`TCP_NODELAY`).
        cork: gather what one turn of the loop sends after its first message into one system call.
        reconnect: a `Backoff`, a fixed number of seconds, or None: the first break ends the connection.
        on_new_session: what becomes of messages that the peer's application is not known to have taken when
            the peer knows the session no more, because it was restarted or we were away for too long:
            `"redeliver"` sends them again in front of everything newer (`Connected.redelivered`; it may have
            taken them), `"discard"` gives them up (`Connected.lost`). Means nothing on `net.async`.
        local_address: `"host"` or `"host:port"` to dial from.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a value that makes no sense; the message names the limit and the value.
        ClosedError: `runtime` was shut down.
        OSError: the runtime cannot be started: the system has no thread or no descriptor left.
    """
    options: dict[str, Any] = locals()
    return _native.connect(options.pop("target"), options)


def listen(
    target: Target | int,
    *,
    heartbeat_interval: float = 5.0,
    heartbeat_timeout: float | None = None,
    open_timeout: float = 10.0,
    close_timeout: float = 5.0,
    max_size: int = 16 * 2**20,
    read_buffer: Buffer | int = Buffer.fixed(65536),
    write_buffer: Buffer | int = Buffer.fixed(65536),
    protocol: Literal["netasync", "net.async", "auto"] = "netasync",
    name: str | None = None,
    runtime: Runtime | None = None,
    nodelay: bool = True,
    cork: bool = True,
    accept_buffer: Buffer | int = 128,
    max_connections: int | None = None,
    session_timeout: float = 120.0,
    max_sessions: int = 10_000,
    max_held_bytes: int = 256 * 2**20,
) -> Listener:
    """Bind and listen.

    Args:
        target: a port or `":9988"` on 127.0.0.1; other interfaces by address, as in `"0.0.0.0:9988"`,
            `"[::]:9988"`, `"[fe80::1%eth0]:9988"` or `(address, port)`. Port 0 picks one: see
            `Listener.address`.
        heartbeat_interval: as in `connect`; like the rest, for every accepted connection.
        heartbeat_timeout: as in `connect`.
        open_timeout: as in `connect`.
        close_timeout: as in `connect`.
        max_size: as in `connect`.
        read_buffer: as in `connect`; each accepted connection has its own.
        write_buffer: as in `connect`; each accepted connection has its own.
        protocol: as in `connect`; with `"auto"` each connection speaks what its dialler speaks.
        name: as in `connect`.
        runtime: as in `connect`.
        nodelay: as in `connect`.
        cork: as in `connect`.
        accept_buffer: how many connections may wait to be accepted; a number is `Buffer.fixed` of it. With
            that, further dials wait. `Buffer.dropping` refuses them, and `Buffer.sliding` ends the connection
            that waits longest to make room, both with `BUSY` and counted (`ListenerStats.refused`). Only
            the buffer's count matters.
        max_connections: how many connections may live at once, those that wait to be accepted included;
            a further one takes the place of the connection that has been without a link longest, which ends
            with `SESSION_EXPIRED`; where all are linked it is refused with `BUSY`, and counted. None is no
            limit.
        session_timeout: seconds that an accepted connection waits for its peer to come back after a break;
            then it ends with `SESSION_EXPIRED`. 0: it ends with its link. Means nothing on `net.async`.
        max_sessions: how many of them may wait for their peers at once; the longest absent goes first.
        max_held_bytes: what their buffers may hold together, 64 bytes for each message included, also while
            they are written to; the longest absent goes first.

    Raises:
        OSError: the address is taken or is none of this machine, or the system has no descriptor or thread
            left.
        TypeError: an argument of the wrong kind.
        ValueError: a value that makes no sense; the message names the limit and the value.
        ClosedError: `runtime` was shut down.
    """
    options: dict[str, Any] = locals()
    return _native.listen(options.pop("target"), options)


class Connection(_native.TaskConnection):
    """A connection that outlives its links.

    Made by `connect` and `Listener.accept`; safe to use from several tasks, event loops and threads at once.
    """

    __slots__ = ()

    async def recv(self) -> Item:
        """Wait for the next item, in order: a message as `bytes`, or a value.

        After `Closed`, always `Closed` again. Cancelling loses nothing.

        Raises:
            MemoryError: there is none for the message, which stays for a later call.
        """
        item = self._recv()
        if type(item) is Await:
            return await item
        return item

    async def recv_many(self, limit: int) -> list[Item]:
        """Wait for at least one item and return what is there, up to `limit`.

        `Closed` is the last of a list. Cancelling loses nothing.

        Raises:
            ValueError: `limit` is below 1.
            MemoryError: there is none for the first message, which stays for a later call.
        """
        return await self._wait_recv_many(limit)

    async def send(self, data: BytesLike, confirm: Literal["received", "consumed"] | None = None) -> bool:
        """Wait until the write buffer has accepted a message; queue while the link is down.

        Cancelling means that it was not sent; with `confirm`, once it was accepted, it says nothing about
        the message.

        Args:
            data: any C-contiguous bytes-like object of at most the peer's `max_size` bytes; its content at
                the call is what is sent. It may be empty, but not on `net.async`.
            confirm: what to wait for beyond that: `"received"`, the peer process holds it, or `"consumed"`,
                its application has taken it. On `net.async`, which confirms nothing, a `ValueError`.

        Returns:
            True; False when a dropping write buffer refused it, and with `confirm` also when a sliding one
            discarded it, or it was lost with its session (`on_new_session="discard"`).

        Raises:
            MessageTooLarge: `data` is above the peer's `max_size`; before the first greeting, and on
                `net.async`, above our own. With `confirm` also when the greeting came later and says so.
            MemoryError: there is none for it; it was not accepted.
            ValueError: `data` is not C-contiguous, or is empty on `net.async`.
            ClosedError: the connection has ended.
        """
        if confirm is not None:
            return await self._wait_confirmed(data, confirm)
        sent = self._send(data)
        if sent is True or sent is False:
            return sent
        return await sent

    async def send_many(self, iterable: Iterable[BytesLike]) -> int:
        """Send many, crossing into Rust once for each batch.

        A sequence (`list`, `tuple` or another `collections.abc.Sequence`) is sent in batches. Any other
        iterable may wait for its next item, and holds the loop for as long as it does, so what it gave goes
        out before it is asked for more: each item by itself, which takes longer.

        Whatever ends it early, cancelling included: the messages before that stay accepted, and the
        exception's `accepted` says for how many `send` would have said True.

        Returns:
            For how many messages `send` would have said True.

        Raises:
            ClosedError: the connection has ended. Besides, what the iterable raises and what `send` raises.
        """
        sending = self._wait_send_many(iterable)
        try:
            return await sending
        except BaseException as error:
            error.accepted = sending.accepted  # type: ignore[attr-defined]
            raise

    async def flush(self) -> None:
        """Wait until everything accepted so far was handed to the kernel. Cancelling takes nothing back.

        Raises:
            ClosedError: the connection has ended, or ends meanwhile.
        """
        await self._wait_flush()

    async def finish(self, timeout: float | None = None) -> int:
        """Accept nothing more, and wait until the peer's application has taken what was accepted.

        On `net.async` confirmed means handed to the kernel. Receiving goes on; close as usual. Cancelled or
        timed out, nothing more is accepted all the same and delivery goes on.

        Args:
            timeout: seconds; None is `close_timeout`.

        Returns:
            How many messages could not be confirmed in time.

        Raises:
            ClosedError: the connection has ended before.
        """
        return await self._wait_finish(timeout)

    def close(self) -> None:
        """Start to close and return at once.

        What was accepted for sending is delivered, within `close_timeout`; what has arrived and was not
        taken is discarded and counted (`read_dropped`). The next item is `Closed`. While the link is down a
        connection that dials does so at once, whatever its back-off. Where everything is confirmed already
        `Closed` comes at once, and the peer is told in the background, as long as this process and the
        runtime live.
        """
        self._close()

    async def aclose(self) -> Closed:
        """Close, and wait until that is done, as `close` says. Cancelling leaves it to go on by itself.

        Returns:
            The `Closed` value; its `undelivered` says how many messages are not known to be held by the peer.
        """
        self._close()
        return await self._wait_closed()

    async def wait_connected(self) -> Connected | Closed:
        """Wait until the link is up. Takes nothing; cancelling changes nothing.

        Returns:
            The current `Connected` at once if the link is up, else the next one, or `Closed`.
        """
        return await self._wait_connected()

    async def wait_closed(self) -> Closed:
        """Wait for the end and return its `Closed`. Takes nothing; cancelling changes nothing."""
        return await self._wait_closed()

    async def messages(self) -> AsyncIterator[bytes]:
        """Iterate over the messages only, until `Closed`. Cancelling loses nothing."""
        while True:
            item = await self.recv()
            if type(item) is bytes:
                yield item
            elif type(item) is Closed:
                return

    def __aiter__(self) -> AsyncIterator[Item]:
        """Iterate over every item, `Closed` the last one. Cancelling loses nothing."""
        return _Items(self.recv)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            closed = await self.aclose()
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
    def blocking(self) -> blocking.Connection:
        """The same connection for threads."""
        return self._blocking()


class Listener(_native.TaskListener):
    """A bound socket that accepts connections. Made by `listen`."""

    __slots__ = ()

    async def accept(self) -> Connection | Closed:
        """Wait for the next connection; `Closed` when the listener is closed. Cancelling loses none."""
        return await self._wait_accept()

    def close(self) -> None:
        """Stop listening and return at once.

        Accepted connections live on until their link breaks; those that have none at this moment end with
        `SESSION_EXPIRED`, for nobody is there to come back to. Those that nobody accepted are closed.
        """
        self._close()

    async def aclose(self) -> Closed:
        """Stop listening, and wait until the port is free. Cancelling leaves it to go on by itself.

        Returns:
            The `Closed` value.
        """
        self._close()
        return await self._wait_closed()

    async def wait_closed(self) -> Closed:
        """Wait until the port is free and return the `Closed` value. Cancelling changes nothing."""
        return await self._wait_closed()

    def __aiter__(self) -> AsyncIterator[Connection]:
        """Iterate over connections until the listener is closed. Cancelling loses none."""
        return _Connections(self.accept)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except ForkedError:
            # What leaves the block in a forked child says more: a SystemExit, say.
            if kind is None:
                raise

    @property
    def accept_chan(self) -> AcceptChannel:
        """The accepting side by itself. Holding it keeps the listener alive."""
        return AcceptChannel(self)

    @property
    def blocking(self) -> blocking.Listener:
        """The same listener for threads."""
        return self._blocking()


class Runtime(_native.Runtime):
    """The thread behind connections and listeners: started by the first of them, ended by `shutdown`.

    One for the whole process is there by default; further ones separate what should not share a thread,
    or an end.
    """

    __slots__ = ()

    async def shutdown(self, timeout: float = 5.0) -> None:
        """Stop every listener, close every connection, and wait for that.

        Every reader, writer and accepter is told; ports are free and the thread is gone when it returns.
        Safe to repeat. Cancelling leaves it to go on by itself.

        Args:
            timeout: seconds, after which what is left is aborted; 0 aborts at once, `inf` waits for ever.
        """
        await self._wait_shutdown(timeout)
        self._join()

    @property
    def blocking(self) -> blocking.Runtime:
        """The same runtime for threads."""
        from . import blocking

        return blocking.Runtime(self)


class _Items:
    """Every item of a connection, `Closed` the last one."""

    __slots__ = ("_is_over", "_recv")

    def __init__(self, recv: Callable[[], Coroutine[Any, Any, Item]]) -> None:
        self._recv = recv
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        if self._is_over:
            raise StopAsyncIteration
        item = await self._recv()
        self._is_over = type(item) is Closed
        return item


class _Connections:
    """The connections of a listener, until it is closed."""

    __slots__ = ("_accept",)

    def __init__(self, accept: Callable[[], Coroutine[Any, Any, Connection | Closed]]) -> None:
        self._accept = accept

    def __aiter__(self) -> AsyncIterator[Connection]:
        return self

    async def __anext__(self) -> Connection:
        connection = await self._accept()
        if isinstance(connection, Closed):
            raise StopAsyncIteration
        return connection
