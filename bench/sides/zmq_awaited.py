"""pyzmq on asyncio, DEALER to DEALER; where many are held, DEALERs to one ROUTER, with heartbeats."""

from __future__ import annotations

import zmq
import zmq.asyncio

from bench.workloads import IDLE

from . import awaited
from .setup import Setup, say


def _socket(kind: int, setup: Setup) -> zmq.asyncio.Socket:
    context = zmq.asyncio.Context.instance()
    if setup.workload.kind != IDLE:
        return context.socket(kind)
    # Some more than are held: those that warm up.
    context.set(zmq.MAX_SOCKETS, 2 * setup.workload.connections + 100)
    socket = context.socket(kind)
    socket.set(zmq.HEARTBEAT_IVL, round(setup.heartbeat * 1000))
    return socket


async def _connect(setup: Setup) -> zmq.asyncio.Socket:
    socket = _socket(zmq.DEALER, setup)
    socket.connect(f"tcp://{setup.address}")
    return socket


async def _serve(setup: Setup) -> None:
    is_idle = setup.workload.kind == IDLE
    socket = _socket(zmq.ROUTER if is_idle else zmq.DEALER, setup)
    say(f"127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    while is_idle:
        await socket.send_multipart(await socket.recv_multipart())
    await awaited.answer(socket, setup)


def serve(setup: Setup) -> None:
    """Be the server."""
    awaited.run(setup, _serve(setup))


def drive(setup: Setup) -> None:
    """Be the client."""
    awaited.run(setup, awaited.drive(setup, _connect))
