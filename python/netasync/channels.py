"""The two sides of a connection and the accepting side of a listener, each by itself, for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from typing_extensions import Buffer as BytesLike

    from . import blocking
    from .aio import Connection, Listener
    from .values import Closed, Item

__all__ = ["AcceptChannel", "ReadChannel", "WriteChannel"]


class ReadChannel:
    """The receiving side of a connection."""

    __slots__ = ("__weakref__", "_connection")

    def __init__(self, connection: Connection) -> None:
        """Made by `Connection.read_chan`."""
        self._connection = connection

    async def recv(self) -> Item:
        """As `Connection.recv`."""
        return await self._connection.recv()

    def recv_nowait(self) -> Item:
        """As `Connection.recv_nowait`."""
        return self._connection.recv_nowait()

    async def recv_many(self, limit: int) -> list[Item]:
        """As `Connection.recv_many`."""
        return await self._connection.recv_many(limit)

    def close(self) -> None:
        """Throw away what arrives from now on. What had arrived can be taken, then only values come."""
        self._connection._close_reading()

    @property
    def blocking(self) -> blocking.ReadChannel:
        """The same channel for threads."""
        return self._connection.blocking.read_chan

    def __aiter__(self) -> AsyncIterator[Item]:
        """As `Connection`: every item, `Closed` the last one."""
        return aiter(self._connection)

    @property
    def _source(self) -> Connection:
        """For `select`."""
        return self._connection

    def __repr__(self) -> str:
        return f"<netasync.ReadChannel of {self._connection!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadChannel) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash((ReadChannel, self._connection))


class WriteChannel:
    """The sending side of a connection."""

    __slots__ = ("__weakref__", "_connection")

    def __init__(self, connection: Connection) -> None:
        """Made by `Connection.write_chan`."""
        self._connection = connection

    async def send(self, data: BytesLike, confirm: Literal["received", "consumed"] | None = None) -> bool:
        """As `Connection.send`."""
        return await self._connection.send(data, confirm=confirm)

    def send_nowait(self, data: BytesLike) -> bool:
        """As `Connection.send_nowait`."""
        return self._connection.send_nowait(data)

    async def send_many(self, iterable: Iterable[BytesLike]) -> int:
        """As `Connection.send_many`."""
        return await self._connection.send_many(iterable)

    def close(self) -> None:
        """Close the connection: as `Connection.close`."""
        self._connection.close()

    @property
    def blocking(self) -> blocking.WriteChannel:
        """The same channel for threads."""
        return self._connection.blocking.write_chan

    def __repr__(self) -> str:
        return f"<netasync.WriteChannel of {self._connection!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WriteChannel) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash((WriteChannel, self._connection))


class AcceptChannel:
    """The accepting side of a listener."""

    __slots__ = ("__weakref__", "_listener")

    def __init__(self, listener: Listener) -> None:
        """Made by `Listener.accept_chan`."""
        self._listener = listener

    async def accept(self) -> Connection | Closed:
        """As `Listener.accept`."""
        return await self._listener.accept()

    def accept_nowait(self) -> Connection | Closed:
        """As `Listener.accept_nowait`."""
        return self._listener.accept_nowait()

    def close(self) -> None:
        """Close the listener: as `Listener.close`."""
        self._listener.close()

    @property
    def blocking(self) -> blocking.AcceptChannel:
        """The same channel for threads."""
        return self._listener.blocking.accept_chan

    def __aiter__(self) -> AsyncIterator[Connection]:
        """As `Listener`: connections, until the listener is closed."""
        return aiter(self._listener)

    @property
    def _source(self) -> Listener:
        """For `select`."""
        return self._listener

    def __repr__(self) -> str:
        return f"<netasync.AcceptChannel of {self._listener!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AcceptChannel) and other._listener is self._listener

    def __hash__(self) -> int:
        return hash((AcceptChannel, self._listener))
