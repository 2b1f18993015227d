"""What both acts of the demo need: real input, a server in a process of its own, a clock, a table."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netasync

try:
    from rich.console import Console
    from rich.table import Table
except ImportError:
    Console = None

ROOT = Path(__file__).resolve().parent.parent
# Small, so that a value does not have to wait behind many messages.
BUFFER = netasync.Buffer.fixed(2_048)


@dataclass
class Text:
    """Real input: the lines of every text file of this repository."""

    files: int = 0
    lines: list[bytes] = field(default_factory=list)

    @classmethod
    def of_repository(cls) -> Text:
        text = cls()
        for path in filter(Path.is_file, tracked_files()):
            content = path.read_bytes()
            if b"\0" not in content:
                text.files += 1
                text.lines += filter(None, content.splitlines())
        return text

    def __str__(self) -> str:
        return f"{len(self.lines):,} lines of {self.files} files, over and over"


def tracked_files() -> list[Path]:
    """What git tracks; without git, what lies in the directories of the sources."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        return [ROOT / name for name in listed.split("\0") if name]
    folders = ("src", "python", "tests", "examples", "docs")
    return [*ROOT.glob("*.*"), *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.*")))]


class Server:
    """A service, a process of its own, always on the same port."""

    def __init__(self, program: Path) -> None:
        self._program = program
        # Bound and never listening: the port is ours for as long as the act runs, and refuses who dials it
        # while no server is there.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._reservation.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str | Path) -> int:
        """Start the process; return its id."""
        self._process = subprocess.Popen([sys.executable, self._program, self.target, *arguments])
        return self._process.pid

    def kill(self) -> None:
        """Kill it where it stands."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended by itself; return whether it did, and all was well."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process is not None and self._process.wait(seconds) == 0
        return False

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reservation.close()


class Story:
    """Tells what happens, with the seconds since it began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def tell(self, who: str, what: object) -> None:
        print(f"{time.monotonic() - self._began:7.2f} s  {who:<6}  {what}", flush=True)


async def until_stuck(work: Coroutine[Any, Any, None], conn: netasync.Connection, patience: float) -> bool:
    """Do `work`; give it up when no message has moved for `patience` seconds. Return whether it was done.

    What is slow is no fault, on whatever machine this is; what stands still is one.
    """
    doing = asyncio.ensure_future(work)
    moved = None
    while not (await asyncio.wait({doing}, timeout=patience))[0]:
        before, stats = moved, conn.stats()
        moved = stats.confirmed, stats.received
        if moved == before:
            doing.cancel()
            await asyncio.wait({doing})
            return False
    await doing
    return True


def show(title: str, rows: Iterable[tuple[str, str]], faults: list[str]) -> None:
    """Print an act's table, with rich if it is there, and what was wrong."""
    print()
    if Console is None:
        print(title)
        for name, value in rows:
            print(f"  {name:<32}{value}")
    else:
        table = Table(show_header=False, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    for fault in faults:
        print("FAULT:", fault)
    print()
