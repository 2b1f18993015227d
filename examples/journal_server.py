"""A service that writes down what it takes: `python examples/journal_server.py 127.0.0.1:9988 FILE`.

Every message is a record of its own, behind its length in 4 bytes, in the file before the next one is taken.
What is there survives the process, however that ends. It serves one connection, and ends with it.
"""

import contextlib
import sys
from typing import BinaryIO

import netasync

try:
    from uvloop import run
except ImportError:
    from asyncio import run


async def write_down(target: str, journal: BinaryIO) -> None:
    """Accept one connection and write down what it brings, until it is over."""
    async with netasync.listen(target) as listener, await listener.accept() as conn:
        async for message in conn.messages():
            journal.write(len(message).to_bytes(4, "big") + message)


if __name__ == "__main__":
    # Unbuffered: the kernel has it when `write` returns. Ctrl-C is how one ends it early.
    with open(sys.argv[2], "ab", buffering=0) as file, contextlib.suppress(KeyboardInterrupt):
        run(write_down(sys.argv[1], file))
