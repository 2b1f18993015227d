"""pyzmq on asyncio, DEALER to DEALER."""

from __future__ import annotations

import zmq
import zmq.asyncio

from . import awaited
from .setup import Setup, say


async def _connect(setup: Setup) -> zmq.asyncio.Socket:
    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    socket.connect(f"tcp://{setup.address}")
    return socket


async def _serve(setup: Setup) -> None:
    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    say(f"127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    await awaited.answer(socket, setup)


def serve(setup: Setup) -> None:
    """Be the server."""
    awaited.run(setup, _serve(setup))


def drive(setup: Setup) -> None:
    """Be the client."""
    awaited.run(setup, awaited.drive(setup, _connect))
