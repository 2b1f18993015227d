"""An echo service, `python examples/echo_server.py 127.0.0.1:9988`: every message goes back."""

import asyncio
import contextlib
import sys

import netasync

try:
    from uvloop import run
except ImportError:
    from asyncio import run


async def echo(conn: netasync.Connection) -> None:
    """Serve one connection until it ends."""
    # Sending raises once the connection has ended: nobody is left to answer.
    with contextlib.suppress(netasync.ClosedError):
        async with conn:
            async for message in conn.messages():
                await conn.send(message)


async def serve(target: str) -> None:
    """Accept connections for ever, a task for each."""
    tasks = set()
    async with netasync.listen(target) as listener:
        async for conn in listener:
            task = asyncio.create_task(echo(conn))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    # Ctrl-C is how one ends it.
    with contextlib.suppress(KeyboardInterrupt):
        run(serve(sys.argv[1]))
