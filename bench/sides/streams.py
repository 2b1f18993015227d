"""asyncio streams, `readexactly` twice for each message."""

from __future__ import annotations

import asyncio

from . import awaited
from .framing import HEADER_SIZE, unpack_length, write_frame
from .setup import Setup, say_address


class Stream:
    """A reader and a writer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, message: bytes) -> None:
        """Write one message, and wait while too much is unwritten."""
        write_frame(self._writer.write, message)
        await self._writer.drain()

    async def recv(self) -> bytes:
        """Wait for the next message."""
        (size,) = unpack_length(await self._reader.readexactly(HEADER_SIZE))
        return await self._reader.readexactly(size)


async def _connect(setup: Setup) -> Stream:
    return Stream(*await asyncio.open_connection(*setup.endpoint))


async def _serve(setup: Setup) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await awaited.answer(Stream(reader, writer), setup)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    say_address(server.sockets[0].getsockname())
    await server.serve_forever()


def serve(setup: Setup) -> None:
    """Be the server."""
    awaited.run(setup, _serve(setup))


def drive(setup: Setup) -> None:
    """Be the client."""
    awaited.run(setup, awaited.drive(setup, _connect))
