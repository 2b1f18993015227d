#!/usr/bin/env python3
"""Counts the processor instructions that one message takes, by valgrind's callgrind: noise does not touch it.

Usage: instructions.py [--json FILE] [--against FILE]

Both ends run in this one process and thread, so that a figure is the work of both; the runtime's thread is
left out. Each workload runs with a small and a large number of messages: the difference is free of start and
end. Polling before a sleep depends on the time, so the smallest of several runs counts. `--against` compares
with the JSON of an earlier run and fails where a figure has grown by more than one percent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path

import netasync

PAYLOAD = b"x" * 64
BURST = 50
TOLERANCE = 1.01
REPEATS = 3


async def _round_trips(count: int) -> None:
    async with netasync.listen(0) as listener, netasync.connect(listener.address) as client:
        server = await listener.accept()
        await client.recv()
        await server.recv()

        async def echo() -> None:
            async for message in server.messages():
                await server.send(message)

        echoing = asyncio.create_task(echo())
        for _ in range(count):
            await client.send(PAYLOAD)
            await client.recv()
        client.close()
        server.close()
        await echoing


async def _one_way(count: int) -> None:
    async with netasync.listen(0) as listener, netasync.connect(listener.address) as client:
        server = await listener.accept()
        await client.recv()
        await server.recv()

        async def take() -> None:
            for _ in range(count):
                await server.recv()

        taking = asyncio.create_task(take())
        for _ in range(count):
            await client.send(PAYLOAD)
        await taking
        client.close()
        server.close()


def _blocking(exchange: Callable[[netasync.blocking.Connection, netasync.blocking.Connection], None]) -> None:
    with netasync.blocking.listen(0) as listener, netasync.blocking.connect(listener.address) as client:
        server = listener.accept()
        client.recv()
        server.recv()
        exchange(client, server)
        client.close()
        server.close()


def _blocking_round_trips(count: int) -> None:
    def exchange(client: netasync.blocking.Connection, server: netasync.blocking.Connection) -> None:
        for _ in range(count):
            client.send(PAYLOAD)
            server.send(server.recv())
            client.recv()

    _blocking(exchange)


def _blocking_one_way(count: int) -> None:
    def exchange(client: netasync.blocking.Connection, server: netasync.blocking.Connection) -> None:
        for _ in range(count // BURST):
            for _ in range(BURST):
                client.send(PAYLOAD)
            for _ in range(BURST):
                server.recv()

    _blocking(exchange)


def _on_asyncio(work: Callable[[int], Coroutine[None, None, None]]) -> Callable[[int], None]:
    return lambda count: asyncio.run(work(count))


def _on_uvloop(work: Callable[[int], Coroutine[None, None, None]]) -> Callable[[int], None]:
    def run(count: int) -> None:
        import uvloop

        uvloop.run(work(count))

    return run


# Name: the workload, and the two numbers of messages.
WORKLOADS: dict[str, tuple[Callable[[int], None], int, int]] = {
    "round trip 64 B, asyncio": (_on_asyncio(_round_trips), 2000, 8000),
    "round trip 64 B, uvloop": (_on_uvloop(_round_trips), 2000, 8000),
    "round trip 64 B, blocking": (_blocking_round_trips, 2000, 8000),
    "one way 64 B, asyncio": (_on_asyncio(_one_way), 5000, 20000),
    "one way 64 B, uvloop": (_on_uvloop(_one_way), 5000, 20000),
    "one way 64 B, blocking": (_blocking_one_way, 5000, 20000),
}


def main() -> int:
    """Count, print, compare; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--against", type=Path, help="compare with the figures of an earlier run")
    parser.add_argument("--run", nargs=2, metavar=("WORKLOAD", "COUNT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        workload, count = chosen.run
        WORKLOADS[workload][0](int(count))
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is needed", file=sys.stderr)
        return 2
    before = json.loads(chosen.against.read_text()) if chosen.against else {}
    figures = {}
    has_grown = False
    for name, (_, few, many) in WORKLOADS.items():
        figures[name] = min((_count(name, many) - _count(name, few)) // (many - few) for _ in range(REPEATS))
        ratio = figures[name] / before[name] if name in before else None
        has_grown = has_grown or (ratio is not None and ratio > TOLERANCE)
        print(f"{name}: {figures[name]} instructions" + (f", {ratio:.3f} times" if ratio else ""), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if has_grown else 0


def _count(name: str, count: int) -> int:
    """Return the instructions of the main thread."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "callgrind"
        command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
        command += [sys.executable, __file__, "--run", name, str(count)]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        main_thread = out.with_name("callgrind-01")
        if done.returncode or not main_thread.exists():
            raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
        found = re.search(r"^totals: (\d+)", main_thread.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{name}: callgrind printed no total")
    return int(found.group(1))


if __name__ == "__main__":
    raise SystemExit(main())
