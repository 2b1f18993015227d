"""netasync, its blocking calls."""

from __future__ import annotations

import netasync

from . import threaded
from .ours_awaited import listen_options, options
from .setup import Setup, say


def _connect(setup: Setup) -> netasync.blocking.Connection:
    connection = netasync.blocking.connect(setup.address, **options(setup))
    connection.recv()
    return connection


def serve(setup: Setup) -> None:
    """Be the server."""
    listener = netasync.blocking.listen(":0", **listen_options(setup))
    say(listener.address)
    connection = listener.accept()
    connection.recv()
    threaded.answer(connection, setup)


def drive(setup: Setup) -> None:
    """Be the client."""
    threaded.drive(setup, _connect)
