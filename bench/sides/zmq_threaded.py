"""pyzmq, its blocking calls, DEALER to DEALER."""

from __future__ import annotations

import zmq

from . import threaded
from .setup import Setup, say


def _connect(setup: Setup) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(f"tcp://{setup.address}")
    return socket


def serve(setup: Setup) -> None:
    """Be the server."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    say(f"127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    threaded.answer(socket, setup)


def drive(setup: Setup) -> None:
    """Be the client."""
    threaded.drive(setup, _connect)
