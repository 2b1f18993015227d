"""What a test about bad input throws at a port."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from support.peer import RawPeer
from support.world import World

#: The first bytes of other protocols, each an illegal length here.
STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: lost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(range(189)),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "ones": b"\xff" * 1000,
    "text": b"is anybody there?\n" * 10,
}


def throw(peer: RawPeer, data: bytes) -> None:
    """Send it, and do not mind that the other side hangs up in between."""
    with contextlib.suppress(OSError):
        peer.send_bytes(data)


def noise(source: random.Random, count: int) -> bytes:
    """Random bytes whose first makes an illegal length with the three behind it."""
    return bytes([source.randrange(0x08, 0x100)]) + source.randbytes(count - 1)


async def neighbour(world: World, **options: Any) -> tuple[Any, Callable[[], Awaitable[None]]]:
    """The listener of a pair that is well, and what asserts that it still is and has never lost its link."""
    client, served, listener = await world.pair(**options)

    async def is_well() -> None:
        await world.send(client, b"well?")
        assert await world.recv(served) == b"well?"
        await world.send(served, b"well")
        assert await world.recv(client) == b"well"
        assert client.stats().links == 1

    await is_well()
    return listener, is_well
