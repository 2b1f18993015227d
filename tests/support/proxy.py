"""A TCP proxy on loopback that breaks links in the ways in which networks do, when it is told to.

"up" is from the client to the target, "down" the way back. One thread with a selector; the methods
may be called from any thread and have taken effect when they return.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from support.peer import ReservedPort, split_target
from support.waiting import DEADLINE

DIRECTIONS = ("up", "down")
_CHUNK = 65536


class FaultProxy:
    """Forwards every connection to `target`; `address` is what a client dials.

    Attributes:
        address: Where it listens.
        accepted: How many connections it has taken since it was made.
        forwarded: How many bytes it has handed on, by direction, all connections together.
        cuts: How many connections it has ended at a counted byte.
    """

    def __init__(self, target: str) -> None:
        self.accepted = 0
        self.cuts = 0
        self.forwarded = dict.fromkeys(DIRECTIONS, 0)
        self._target = split_target(target)
        self._port = ReservedPort()
        self.address = self._port.address
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._run_orders)
        self._orders: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._links: list[_Link] = []
        self._held: set[str] = set()
        self._cut_after: dict[str, tuple[int, str]] = {}
        self._next_cuts: Iterator[tuple[int, str, str]] = iter(())
        self._listener: socket.socket | None = None
        self._stopped = False
        self._listen()
        self._thread = threading.Thread(target=self._run, name="fault proxy")
        self._thread.start()

    @property
    def live(self) -> int:
        """How many connections are open right now."""
        return self._order(lambda: len(self._links))

    def refuse(self) -> None:
        """Stop listening: further dials are refused; live connections stay."""
        self._order(self._unlisten)

    def allow(self) -> None:
        """Listen again, on the same port."""
        self._order(self._listen)

    def cut(self, how: str = "rst") -> None:
        """End every live connection towards both sides, by `"fin"`, `"rst"` or for ever `"silence"`."""
        self._order(lambda: [link.cut(how) for link in list(self._links)])

    def cut_after(self, count: int, direction: str, how: str = "rst") -> None:
        """End one connection right behind the next `count` bytes that travel in `direction`, once.

        The bytes count from this call on, in whichever connection they travel.
        """
        self._order(lambda: self._cut_after.update({direction: (count, how)}))

    def cut_again_and_again(self, cuts: Iterable[tuple[int, str, str]]) -> None:
        """As `cut_after` with each of `cuts` in turn: the bytes of one count from the cut before it."""
        self._order(lambda: self._plan(iter(cuts)))

    def hold(self, direction: str = "both") -> None:
        """Forward nothing more in a direction, or both, and say nothing about it: a black hole."""
        self._order(lambda: self._set_held(direction, True))

    def resume(self, direction: str = "both") -> None:
        """Go on where `hold` stopped."""
        self._order(lambda: self._set_held(direction, False))

    def close(self) -> None:
        """Reset what is live and end the thread."""
        if self._thread.is_alive():
            self.cut("rst")
            self._order(self._stop)
            self._thread.join()

    # On the proxy's thread

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select():
                key.data()
        self._unlisten()
        # A dialler that closes dials at once: one may have come behind the cut.
        for link in list(self._links):
            link.cut("rst")
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
        self._port.close()

    def _order(self, action: Callable[[], Any]) -> Any:
        done: Future[Any] = Future()
        self._orders.append((action, done))
        self._wake_writer.send(b"!")
        return done.result(DEADLINE)

    def _run_orders(self) -> None:
        self._wake_reader.recv(_CHUNK)
        while self._orders:
            action, done = self._orders.pop(0)
            try:
                done.set_result(action())
            except Exception as problem:
                done.set_exception(problem)

    def _stop(self) -> None:
        self._stopped = True

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self._port.port))
            self._listener.listen(128)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        self.accepted += 1
        try:
            server = socket.create_connection(self._target, timeout=DEADLINE)
        except OSError:
            _reset(client)
            return
        self._links.append(_Link(self, client, server))

    def _plan(self, cuts: Iterator[tuple[int, str, str]]) -> None:
        self._next_cuts = cuts
        self._arm_next_cut()

    def _arm_next_cut(self) -> None:
        for count, direction, how in self._next_cuts:
            self._cut_after[direction] = (count, how)
            return

    def _set_held(self, direction: str, held: bool) -> None:
        chosen = set(DIRECTIONS) if direction == "both" else {direction}
        self._held = self._held | chosen if held else self._held - chosen
        for link in self._links:
            link.watch()


class _Link:
    """One connection through the proxy: two sockets, and for each direction what waits to be written."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.source = {"up": client, "down": server}
        self.sink = {"up": server, "down": client}
        self.waiting = dict.fromkeys(DIRECTIONS, b"")
        self.ended = dict.fromkeys(DIRECTIONS, False)
        self.shut = dict.fromkeys(DIRECTIONS, False)
        self.is_discarding = False
        self.is_silent = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        self.watch()

    def cut(self, how: str) -> None:
        if how == "rst":
            self._forget()
            _reset(self.source["up"])
            _reset(self.source["down"])
            return
        if how == "silence":
            self.is_silent = True
            return self.watch()
        # Closing with unread input would send RST: send the end, and throw away until the other side ends.
        self.is_discarding = True
        for direction in DIRECTIONS:
            self.waiting[direction] = b""
            self._shut(direction)
        self.watch()

    def watch(self) -> None:
        """Register each socket for what it can do next."""
        for direction in DIRECTIONS:
            events = 0
            if self._reads(direction):
                events |= selectors.EVENT_READ
            if self._writes(_other(direction)):
                events |= selectors.EVENT_WRITE
            _watch(self.proxy._selector, self.source[direction], events, self._serve)

    def _reads(self, direction: str) -> bool:
        if self.ended[direction] or self.is_silent:
            return False
        return self.is_discarding or (not self.waiting[direction] and direction not in self.proxy._held)

    def _writes(self, direction: str) -> bool:
        return bool(self.waiting[direction]) and not self.is_silent and direction not in self.proxy._held

    def _serve(self) -> None:
        if self not in self.proxy._links:
            return  # both ends were ready in one look, and the first to be served ended the link
        for direction in DIRECTIONS:
            try:
                self._forward(direction)
            except BlockingIOError:
                continue
            except OSError:
                self.cut("rst")
            if self not in self.proxy._links:
                return
        if all(self.shut.values()) and all(self.ended.values()):
            self._forget()
            self.source["up"].close()
            self.source["down"].close()
        else:
            self.watch()

    def _forward(self, direction: str) -> None:
        if self._reads(direction):
            with contextlib.suppress(BlockingIOError):
                data = self.source[direction].recv(_CHUNK)
                self.ended[direction] = not data
                if not self.is_discarding:
                    self.waiting[direction] = data
        if self._writes(direction):
            self._flush(direction)
        if self.ended[direction] and not self.waiting[direction]:
            self._shut(direction)

    def _flush(self, direction: str) -> None:
        limit, how = self.proxy._cut_after.get(direction, (_CHUNK, ""))
        sent = self.sink[direction].send(self.waiting[direction][:limit])
        self.waiting[direction] = self.waiting[direction][sent:]
        self.proxy.forwarded[direction] += sent
        if how and sent == limit:
            del self.proxy._cut_after[direction]
            # Counted and planned first: whoever sees the cut sees that too.
            self.proxy.cuts += 1
            self.proxy._arm_next_cut()
            self.cut(how)
        elif how:
            self.proxy._cut_after[direction] = (limit - sent, how)

    def _shut(self, direction: str) -> None:
        if not self.shut[direction]:
            self.shut[direction] = True
            with contextlib.suppress(OSError):
                self.sink[direction].shutdown(socket.SHUT_WR)

    def _forget(self) -> None:
        for direction in DIRECTIONS:
            _watch(self.proxy._selector, self.source[direction], 0, self._serve)
        if self in self.proxy._links:
            self.proxy._links.remove(self)


def _other(direction: str) -> str:
    return "down" if direction == "up" else "up"


def _watch(
    selector: selectors.BaseSelector, sock: socket.socket, events: int, serve: Callable[[], None]
) -> None:
    known = sock.fileno() in selector.get_map()
    if events and known:
        selector.modify(sock, events, serve)
    elif events:
        selector.register(sock, events, serve)
    elif known:
        selector.unregister(sock)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
