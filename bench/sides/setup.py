"""What a side is told, and how it speaks with the process that measures."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass

from bench.workloads import Workload

#: To clients of idle connections: show that every connection lives.
CHECK = -1


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a side is told: `address` makes it a client."""

    module: str
    workload: Workload
    loop: str = "asyncio"
    protocol: str = ""
    address: str = ""
    heartbeat: float = 1.0
    is_damaged: bool = False
    keeps_sessions: bool = True

    def to_text(self) -> str:
        """Return it as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Setup:
        """Return what `to_text` was called on."""
        values = json.loads(text)
        return cls(**{**values, "workload": Workload(**values["workload"])})

    @property
    def endpoint(self) -> tuple[str, int]:
        """The address in its parts."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)


def say(*words: object) -> None:
    """Print one line for the process that measures."""
    print(*words, flush=True)


def say_address(endpoint: tuple[str, int]) -> None:
    """Print where this server listens."""
    say(f"{endpoint[0]}:{endpoint[1]}")


def next_order() -> int:
    """Wait for the next order. The process ends where there are no more."""
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    return int(line)


async def next_order_awaited() -> int:
    """Wait for the next order without holding the loop."""
    loop = asyncio.get_running_loop()
    there = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), there.set_result, None)
    try:
        await there
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return next_order()
