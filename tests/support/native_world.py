"""Handles of a world on our own wire, with a native peer at the other end."""

from __future__ import annotations

import functools
from typing import Any

from support.frames import CLOSE, read_close
from support.native import NativeListener, NativePeer
from support.world import World

#: `World.pair` and `neighbour` with this are on our own wire.
NATIVE = {"listen": {"protocol": "netasync"}, "connect": {"protocol": "netasync"}}

#: Timers so rare that no PING comes on its own but the first.
RARELY = {"heartbeat_interval": 100, "heartbeat_timeout": 300}


def native_listener(world: World, **options: Any) -> NativeListener:
    return world.outsider(NativeListener(**options))


async def native_dial(world: World, target: str) -> NativePeer:
    """A peer that has connected and said nothing yet."""
    return world.outsider(await world.outside(NativePeer.dial, target))


def native_connect(world: World, target: Any, **options: Any) -> Any:
    return world.connect(target, **{"protocol": "netasync", **options})


def native_listen(world: World, target: Any = 0, **options: Any) -> Any:
    return world.listen(target, **{"protocol": "netasync", **options})


async def native_dialled(
    world: World, answer: dict[str, Any] | None = None, **options: Any
) -> tuple[Any, NativePeer, NativeListener]:
    """A dialler whose link is up, and the peer that answered it with these fields."""
    server = native_listener(world)
    conn = native_connect(world, server.address, **options)
    peer = await native_answer(world, server, **(answer or {}))
    await world.up(conn)
    return conn, peer, server


async def native_answer(world: World, server: NativeListener, **fields: Any) -> NativePeer:
    """Accept the next dial and answer it, up to the first ACK of both sides."""
    peer = await world.outside(server.accept)
    await world.outside(functools.partial(peer.answer, **fields))
    return peer


async def native_answered(
    world: World, hello: dict[str, Any] | None = None, **options: Any
) -> tuple[Any, NativePeer]:
    """An accepted connection whose link is up, and the peer that dialled with these fields."""
    return await native_call(world, native_listen(world, **options), **(hello or {}))


async def native_call(world: World, listener: Any, **fields: Any) -> tuple[Any, NativePeer]:
    """Dial a listener with these fields; the connection accepted from it, up, and the peer."""
    peer = await native_dial(world, listener.address)
    await world.outside(functools.partial(peer.open, **fields))
    conn = await world.accept(listener)
    await world.up(conn)
    return conn, peer


async def native_pair(
    world: World, *, listen: dict[str, Any] | None = None, connect: dict[str, Any] | None = None
) -> tuple[Any, Any, Any]:
    """`World.pair` on our own wire."""
    native = {"protocol": "netasync"}
    return await world.pair(listen={**native, **(listen or {})}, connect={**native, **(connect or {})})


async def native_ends(world: World, **options: Any) -> list[tuple[Any, NativePeer]]:
    """A dialler and an accepted connection, each with the peer at its other end."""
    conn, peer, _ = await native_dialled(world, **options)
    return [(conn, peer), await native_answered(world, **options)]


async def native_reserved(
    world: World, answer: dict[str, Any] | None = None, **options: Any
) -> tuple[Any, NativePeer, NativeListener]:
    """`native_dialled`, with a peer that from now on says nothing on its own."""
    conn, peer, server = await native_dialled(world, answer, **options)
    peer.answers = False
    return conn, peer, server


async def codes_to_end(world: World, peer: NativePeer) -> list[int]:
    """The codes of the CLOSEs with which the other side ends the link."""
    frames, _ = await world.outside(peer.read_to_end)
    return [read_close(frame)[0] for frame in frames if frame.kind == CLOSE]


async def reason_of_break(world: World, conn: Any) -> Any:
    """Why the link of this handle went, by its next value, messages in front of it thrown away."""
    while isinstance(item := await world.recv(conn), bytes):
        pass
    return item.reason
