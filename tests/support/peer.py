"""A peer of the original's wire, by hand: blocking sockets and `struct`, nothing of netasync.

A frame is a big-endian signed 32-bit length and that many bytes; length 0 is a heartbeat.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from typing import TypeVar

from support.waiting import DEADLINE

Peer = TypeVar("Peer", bound="RawPeer")

HEARTBEAT = bytes(4)


def frame(payload: bytes) -> bytes:
    """The bytes of one message on the wire."""
    return struct.pack(">i", len(payload)) + payload


def header(length: int) -> bytes:
    """A length alone, negative ones included."""
    return struct.pack(">i", length)


def split_target(target: str) -> tuple[str, int]:
    """`"127.0.0.1:9988"` or `"[::1]:9988"` as host and port."""
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


class ReservedPort:
    """A port of 127.0.0.1 on which nobody listens, and which nobody else gets.

    A dial to it is refused. Whoever binds it with `SO_REUSEADDR` may listen on it.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._socket.close()


class RawListener:
    """Accepts raw peers. Port 0 picks a free port; `address` is a target for `connect`."""

    def __init__(
        self, port: int = 0, backlog: int = 128, receive_buffer: int = 0, host: str = "127.0.0.1"
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.bind((host, port))
        self._socket.listen(backlog)
        self._socket.settimeout(DEADLINE)
        self.port: int = self._socket.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._accepted: list[RawPeer] = []
        self._fillers: list[socket.socket] = []

    def accept(self) -> RawPeer:
        """Wait for the next dial."""
        accepted, _ = self._socket.accept()
        peer = self.peer_of(accepted)
        self._accepted.append(peer)
        return peer

    def peer_of(self, accepted: socket.socket) -> RawPeer:
        """What a dial becomes."""
        return RawPeer(accepted)

    def has_dial(self) -> bool:
        """Whether a further dial waits to be accepted; does not wait."""
        self._socket.settimeout(0)
        try:
            accepted, _ = self._socket.accept()
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(DEADLINE)
        self._accepted.append(self.peer_of(accepted))
        return True

    def fill(self) -> None:
        """Fill the backlog (make the listener with `backlog=0`): a further dial is never answered."""
        while True:
            filler = socket.socket()
            filler.settimeout(0.1)
            self._fillers.append(filler)
            try:
                filler.connect(self._socket.getsockname())
            except TimeoutError:
                return

    def close(self) -> None:
        """Stop listening, and close what was accepted."""
        self._socket.close()
        for filler in self._fillers:
            filler.close()
        for peer in self._accepted:
            peer.close()


class RawPeer:
    """One connection. Every waiting call gives up after `DEADLINE`."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(DEADLINE)
        self.heartbeats = 0
        self._stop_beating = threading.Event()
        self._beater: threading.Thread | None = None

    @classmethod
    def dial(cls: type[Peer], target: str) -> Peer:
        """Connect to a listener."""
        return cls(socket.create_connection(split_target(target), timeout=DEADLINE))

    @property
    def address(self) -> str:
        """This end's own address, as the other side sees it."""
        return "{}:{}".format(*self.socket.getsockname()[:2])

    # Sending

    def send_bytes(self, data: bytes) -> None:
        """Exactly these bytes."""
        self.socket.sendall(data)

    def send(self, *payloads: bytes) -> None:
        """Messages, in one write."""
        self.socket.sendall(b"".join(frame(payload) for payload in payloads))

    def send_heartbeat(self) -> None:
        self.socket.sendall(HEARTBEAT)

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Each piece in a write of its own, one right behind the other."""
        for piece in pieces:
            self.socket.sendall(piece)

    def beat(self, interval: float) -> None:
        """Send heartbeats from a thread until `stop_beating` or the end of the link."""
        self._beater = threading.Thread(target=self._beat, args=(interval,), name="heartbeats of a raw peer")
        self._beater.start()

    def stop_beating(self) -> None:
        self._stop_beating.set()
        if self._beater is not None:
            self._beater.join()

    def drip(self, data: bytes, interval: float) -> int:
        """One byte at a time, `interval` seconds apart, until done or the link ends; return how many went."""
        for sent in range(len(data)):
            try:
                self.socket.sendall(data[sent : sent + 1])
            except OSError:
                return sent
            self._stop_beating.wait(interval)
        return len(data)

    def _beat(self, interval: float) -> None:
        with contextlib.suppress(OSError):
            while not self._stop_beating.wait(interval):
                self.socket.sendall(HEARTBEAT)

    # Receiving

    def recv_exactly(self, count: int) -> bytes:
        """The next `count` raw bytes; `EOFError` names how many came when the stream ends before."""
        parts = bytearray()
        while len(parts) < count:
            piece = self.socket.recv(min(count - len(parts), 1 << 20))
            if not piece:
                raise EOFError(f"{len(parts)} of {count} bytes")
            parts += piece
        return bytes(parts)

    def recv(self) -> bytes:
        """The next message; counts heartbeats and skips them. `EOFError` at the end of the stream."""
        while True:
            (length,) = struct.unpack(">i", self.recv_exactly(4))
            if length:
                return self.recv_exactly(length)
            self.heartbeats += 1

    def recv_many(self, count: int) -> list[bytes]:
        return [self.recv() for _ in range(count)]

    def recv_heartbeats(self, count: int) -> None:
        """Wait until `count` heartbeats came and nothing else did."""
        for _ in range(count):
            assert self.recv_exactly(4) == HEARTBEAT
            self.heartbeats += 1

    def recv_to_end(self) -> tuple[bytes, str]:
        """All bytes up to the end, and how it ended: `"eof"` or `"reset"`."""
        parts = bytearray()
        while True:
            try:
                piece = self.socket.recv(1 << 20)
            except (ConnectionResetError, BrokenPipeError):
                return bytes(parts), "reset"
            if not piece:
                return bytes(parts), "eof"
            parts += piece

    def messages_to_end(self) -> list[bytes]:
        """Every message up to the end of the stream, which must fall between two frames."""
        data, how = self.recv_to_end()
        assert how == "eof", f"the stream ended by {how} after {len(data)} bytes"
        return decode(data)

    # Ending

    def half_close(self) -> None:
        """Send the end of the stream; receiving goes on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with RST: what is on the way is lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.stop_beating()
        self.socket.close()


def decode(data: bytes) -> list[bytes]:
    """The messages in `data`, heartbeats left out; fails on a part of a frame at the end."""
    found = []
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at)
        assert at + 4 + length <= len(data), f"a frame of {length} bytes is cut off"
        if length:
            found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found
