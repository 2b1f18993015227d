"""Plain blocking sockets: `TCP_NODELAY`, and two `recv` for each message, header and body."""

from __future__ import annotations

import socket

from . import threaded
from .framing import HEADER_SIZE, unpack_length, write_frame
from .setup import Setup, say_address


class Plain:
    """A connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._write = connected.sendall

    def send(self, message: bytes) -> None:
        """Send one message."""
        write_frame(self._write, message)

    def recv(self) -> bytes:
        """Wait for the next message."""
        (size,) = unpack_length(self._exactly(HEADER_SIZE))
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = self._socket.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise EOFError(f"{len(data)} of {size} bytes")
        return data


def _connect(setup: Setup) -> Plain:
    return Plain(socket.create_connection(setup.endpoint))


def serve(setup: Setup) -> None:
    """Be the server."""
    listening = socket.create_server(("127.0.0.1", 0))
    say_address(listening.getsockname())
    threaded.answer(Plain(listening.accept()[0]), setup)


def drive(setup: Setup) -> None:
    """Be the client."""
    threaded.drive(setup, _connect)
