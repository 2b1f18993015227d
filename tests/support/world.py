"""The world of one test: it makes every handle, writes down what each yields, and settles up at the end.

When a test is over, each of its handles is closed, its grammar and its account are checked, the runtime is
shut down, and the descriptors and threads of the process must be as they were before.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import netasync
from netasync import Closed, Connected, Disconnected, Reason
from support.faces import Beside, Face, aio, blocking
from support.grammar import LOCAL_ENDS, check_account, check_grammar
from support.peer import RawListener, RawPeer, ReservedPort
from support.process import native_threads, open_descriptors
from support.proxy import FaultProxy
from support.waiting import A_WHILE, DEADLINE, eventually

#: What tests dial with unless they say otherwise: a break should not cost them time.
QUICK = 0.02


class World:
    """Makes and watches the handles of one test, on one face.

    Handles that came from here are those of the face: `netasync.blocking.Connection` on threads. Calls
    that wait are coroutines, whatever the face; calls that do not wait are made on the handle itself,
    except those that take items, which are here so that the item is written down.
    """

    def __init__(self, face: Face, wire: str) -> None:
        self.face = face
        #: What every handle speaks unless the test says otherwise.
        self.wire = wire
        self.failed = False
        #: A lookup that the system has not answered keeps its thread until it is: nothing ends it.
        self.may_leave_lookups = False
        self._records: dict[int, Record] = {}
        self._listeners: list[Any] = []
        self._outsiders: list[Any] = []
        self._beside: list[Any] = []

    def __enter__(self) -> World:
        self._descriptors = open_descriptors()
        self._threads = native_threads()
        self.runtime = netasync.Runtime()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = self.failed or kind is not None
        try:
            self._settle_up()
        except Exception:
            if not failed:
                raise
        finally:
            self._close_outsiders()
            # What hangs must not make every later test fail.
            with contextlib.suppress(Exception) if failed else contextlib.nullcontext():
                self.runtime.blocking.shutdown(timeout=DEADLINE)
        if not failed and not self.may_leave_lookups:
            self._check_nothing_is_left()

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Run a scenario on this world's face."""
        try:
            return self.face.run(scenario)
        except BaseException:
            self.failed = True
            raise

    @property
    def _ours(self) -> dict[str, Any]:
        return {"runtime": self.runtime, "protocol": self.wire}

    @property
    def farewell(self) -> Reason:
        """What an end says whose peer has closed: the original's wire has no word for it."""
        return Reason.EOF if self.wire == "net.async" else Reason.CLOSED_BY_PEER

    # Making handles

    def connect(self, target: Any, *, watch: bool = True, **options: Any) -> Any:
        """`connect` on this face, in this world's runtime, with a quick fixed reconnect.

        With `watch=False` it is not held, not checked and not closed here.
        """
        conn = self.face.api.connect(target, **{**self._ours, "reconnect": QUICK, **options})
        return self.watch(conn, dialler=True) if watch else conn

    def listen(self, target: Any = 0, **options: Any) -> Any:
        """`listen` on this face, in this world's runtime."""
        listener = self.face.api.listen(target, **{**self._ours, **options})
        self._listeners.append(listener)
        return listener

    def watch(self, conn: Any, *, dialler: bool) -> Any:
        """Check this handle too when the test is over."""
        face = aio(conn)  # held by the record, so that its id stays its own
        if id(face) not in self._records:
            self._records[id(face)] = Record(face, dialler)
        return conn

    async def accept(self, listener: Any, timeout: float | None = None, via: Any = None) -> Any:
        """The listener's next connection, or its `Closed`."""
        return self._accepted(await self.face.call(via or listener, "accept", timeout=timeout))

    def accept_nowait(self, listener: Any) -> Any:
        return self._accepted(listener.accept_nowait())

    async def accepted_by(self, listener: Any) -> AsyncIterator[Any]:
        """Iterate a listener or its accept channel."""
        async for conn in self.face.items(listener):
            yield self._accepted(conn)

    async def pair(
        self, *, listen: dict[str, Any] | None = None, connect: dict[str, Any] | None = None
    ) -> tuple[Any, Any, Any]:
        """A dialler, the connection accepted from it and the listener; both links up, `Connected` taken."""
        listener = self.listen(**(listen or {}))
        client = self.connect(listener.address, **(connect or {}))
        served = await self.accept(listener)
        await self.up(client)
        await self.up(served)
        return client, served, listener

    async def dialled(self, **options: Any) -> tuple[Any, RawPeer, RawListener]:
        """A dialler whose link is up, and the raw peer at its other end."""
        server = self.raw_listener()
        conn = self.connect(server.address, **options)
        peer = await self.outside(server.accept)
        await self.up(conn)
        return conn, peer, server

    async def answered(self, **options: Any) -> tuple[Any, RawPeer]:
        """An accepted connection whose link is up, and the raw peer that dialled."""
        listener = self.listen(**options)
        peer = await self.raw_dial(listener.address)
        conn = await self.accept(listener)
        await self.up(conn)
        return conn, peer

    def _accepted(self, conn: Any) -> Any:
        return conn if isinstance(conn, Closed) else self.watch(conn, dialler=False)

    # The rest of the world

    def raw_listener(self, port: int = 0, **options: Any) -> RawListener:
        return self.outsider(RawListener(port, **options))

    async def raw_dial(self, target: str) -> RawPeer:
        return self.outsider(await self.outside(RawPeer.dial, target))

    def reserved_port(self) -> ReservedPort:
        """A port that refuses, on which the test may listen later."""
        return self.outsider(ReservedPort())

    def proxy(self, target: str) -> FaultProxy:
        return self.outsider(FaultProxy(target))

    def outsider(self, thing: Any) -> Any:
        """Close this (it has `close`) when the test is over."""
        self._outsiders.append(thing)
        return thing

    # Taking items: each is written down

    async def recv(self, conn: Any, timeout: float | None = None, via: Any = None) -> Any:
        """The next item, taken from the handle or `via` one of its channels."""
        return self.note(conn, await self.face.call(via or conn, "recv", timeout=timeout))

    def recv_nowait(self, conn: Any, via: Any = None) -> Any:
        return self.note(conn, (via or conn).recv_nowait())

    async def recv_many(
        self, conn: Any, limit: int, timeout: float | None = None, via: Any = None
    ) -> list[Any]:
        items = await self.face.call(via or conn, "recv_many", limit, timeout=timeout)
        for item in items:
            self.note(conn, item)
        return items

    async def select(self, *chans: Any, timeout: float | None = None) -> tuple[Any, Any]:
        """The first of these that has something, and what that is."""
        chan, item = await self.face.select(*chans, timeout=timeout)
        if isinstance(item, netasync.Connection | netasync.blocking.Connection):
            return chan, self.watch(item, dialler=False)
        return chan, self.note(getattr(chan, "_source", chan), item)

    async def take(self, conn: Any, count: int) -> list[Any]:
        """The next `count` items, one `recv` each."""
        return [await self.recv(conn) for _ in range(count)]

    async def up(self, conn: Any) -> Connected:
        """The next item, which is `Connected`."""
        return await self._one(conn, Connected)

    async def down(self, conn: Any) -> Disconnected:
        """The next item, which is `Disconnected`."""
        return await self._one(conn, Disconnected)

    async def end(self, conn: Any) -> Closed:
        """The next item, which is `Closed`."""
        return await self._one(conn, Closed)

    async def lost(self, conn: Any) -> Closed | Disconnected:
        """The next item of an accepted connection whose link broke: here `Disconnected`, there `Closed`."""
        return await self._one(conn, Closed if self.wire == "net.async" else Disconnected)

    async def items(self, conn: Any, via: Any = None) -> AsyncIterator[Any]:
        """Iterate the handle, or one of its channels."""
        async for item in self.face.items(via or conn):
            yield self.note(conn, item)

    async def messages(self, conn: Any) -> AsyncIterator[bytes]:
        """Iterate `conn.messages()`; it shows no values, so the handle's grammar cannot be checked."""
        self.forget_order(conn)
        async for data in self.face.items(conn.messages()):
            yield data

    def note(self, conn: Any, item: Any) -> Any:
        """Write down an item that the test took from the handle in its own way."""
        record = self._records.get(id(aio(conn)))
        if record is not None:
            record.items.append(item)
        return item

    def taken(self, conn: Any) -> list[Any]:
        """Everything taken from the handle so far."""
        return list(self._records[id(aio(conn))].items)

    def forget_order(self, conn: Any) -> None:
        """The test takes items by several consumers, or past this world: only the account can be checked."""
        self._records[id(aio(conn))].is_ordered = False

    # Everything else that waits

    async def send(self, conn: Any, *data: Any, timeout: float | None = None, **options: Any) -> Any:
        """Send one or several messages to a handle or a channel; return what the last `send` returned."""
        accepted = None
        for one in data:
            accepted = await self.face.call(conn, "send", one, timeout=timeout, **options)
        return accepted

    async def send_many(self, conn: Any, data: Any, timeout: float | None = None) -> int:
        return await self.face.call(conn, "send_many", data, timeout=timeout)

    async def finish(self, conn: Any, limit: float | None = None) -> int:
        """`finish`, whose timeout is its own on every face."""
        if self.face.awaited:
            return await conn.finish(limit)
        return conn.finish(limit)

    async def flush(self, conn: Any, timeout: float | None = None) -> None:
        await self.face.call(conn, "flush", timeout=timeout)

    async def wait_connected(self, conn: Any, timeout: float | None = None) -> Any:
        return await self.face.call(conn, "wait_connected", timeout=timeout)

    async def wait_closed(self, handle: Any, timeout: float | None = None) -> Any:
        return await self.face.call(handle, "wait_closed", timeout=timeout)

    async def close(self, handle: Any, timeout: float | None = None) -> Any:
        """Close and wait: `aclose`, or `close` of the face for threads. Return the `Closed`."""
        return await self.face.close(handle, timeout)

    async def leave(self, handle: Any, error: BaseException | None = None) -> None:
        """Enter and leave the handle's block: `async with`, or `with` on the face for threads."""
        await self.face.leave(handle, error)

    def start_close(self, handle: Any) -> None:
        """Close and do not wait, on any face."""
        aio(handle).close()

    async def shutdown(self, runtime: Any, **options: Any) -> None:
        if self.face.awaited:
            await runtime.shutdown(**options)
        else:
            runtime.blocking.shutdown(**options)

    async def outside(self, action: Callable[..., Any], *args: Any) -> Any:
        return await self.face.outside(action, *args)

    def spawn(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Begin a scenario beside this one."""
        spawned = self.face.spawn(scenario)
        self._beside.append(spawned)
        return spawned

    async def join(self, spawned: Any) -> Any:
        return await self.face.join(spawned)

    async def settle(self, spawned: Any) -> None:
        await self.face.settle(spawned)

    async def eventually(
        self, condition: Callable[[], Any], claim: str = "", deadline: float = DEADLINE
    ) -> Any:
        return await self.face.eventually(condition, claim, deadline)

    async def stays_quiet(self, conn: Any, seconds: float = A_WHILE) -> None:
        """For this long nothing comes."""
        try:
            item = await self.recv(conn, timeout=seconds)
        except TimeoutError:
            return
        raise AssertionError(f"something came: {item!r:.200}")

    async def arrived(self, conn: Any, count: int) -> None:
        """Wait until `count` messages have been received in all, taken or not."""
        await self.eventually(lambda: conn.stats().received == count, f"{count} messages received")

    async def balanced(self, conn: Any) -> Any:
        """Wait for a quiet moment, in which the account must be balanced; return the `Stats`."""

        def is_quiet() -> Any:
            stats = conn.stats()
            with contextlib.suppress(AssertionError):
                check_account(stats)
                return stats
            return None

        with contextlib.suppress(AssertionError):
            return await self.eventually(is_quiet, deadline=5)
        check_account(conn.stats())
        raise AssertionError("unreachable")

    # Settling up

    async def _one(self, conn: Any, kind: type[Any]) -> Any:
        item = await self.recv(conn)
        assert isinstance(item, kind), f"{kind.__name__} was expected, {item!r:.200} came"
        return item

    def _settle_up(self) -> None:
        for record in self._records.values():
            # A plain peer grants and confirms nothing more: closing would wait for it in vain.
            stats = record.conn.stats()
            if self.wire == "netasync" and stats.queued + stats.unconfirmed:
                record.conn.abort()
            else:
                record.conn.close()
        for listener in self._listeners:
            aio(listener).close()
        self._close_outsiders()
        for record in self._records.values():
            record.settle()
        for listener in self._listeners:
            blocking(listener).wait_closed(timeout=DEADLINE)
        for spawned in self._beside:
            if isinstance(spawned, Beside):
                spawned.thread.join(DEADLINE)
                assert not spawned.thread.is_alive(), "a call waits though its handle has ended"

    def _close_outsiders(self) -> None:
        for outsider in reversed(self._outsiders):
            outsider.close()

    def _check_nothing_is_left(self) -> None:
        assert not self.runtime.running

        def is_as_before() -> bool:
            # Fewer than before: something of an earlier test was still on its way out then.
            return open_descriptors().keys() <= self._descriptors.keys() and native_threads() <= self._threads

        try:
            eventually(is_as_before, deadline=3)
        except AssertionError:
            left = {fd: what for fd, what in open_descriptors().items() if fd not in self._descriptors}
            raise AssertionError(
                f"left: {left}, threads {self._threads} before, {native_threads()} now"
            ) from None


class Record:
    """One handle and everything that was taken from it."""

    def __init__(self, conn: Any, dialler: bool) -> None:
        self.conn = conn
        self.dialler = dialler
        self.items: list[Any] = []
        self.is_ordered = True

    def settle(self) -> None:
        """Take what is left of a handle that was closed, up to its end, and check all that it yielded."""
        conn = self.conn.blocking
        while not isinstance(end := conn.recv(timeout=DEADLINE), Closed):
            self.items.append(end)
        self.items.append(end)
        assert conn.wait_closed(timeout=DEADLINE) == end
        stats = self.conn.stats()
        check_account(stats)
        if self.is_ordered:
            check_grammar(self.items, dialler=self.dialler, closed_here=end.reason in LOCAL_ENDS)
            messages = sum(isinstance(item, bytes) for item in self.items)
            assert stats.consumed == messages, f"{messages} messages were taken: {stats}"
