"""The two processes of a peer, seen from outside: orders, answers, CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .peers import FLOOR, Peer
from .sides.setup import Setup
from .workloads import ECHO, Workload

#: Seconds after which a side that says nothing has failed.
PATIENCE = 60.0

_ROOT = Path(__file__).resolve().parent.parent


class SideError(Exception):
    """A side ended, fell silent or found a wrong message."""


class Side:
    """A process, started on the cores that this process has at that moment."""

    def __init__(self, command: list[str]) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `end`)
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        # What `clock_getcpuclockid` returns, which Python lacks: all the CPU time of another process.
        self._clock = (~self._process.pid << 3) | 2

    def answer(self, patience: float = PATIENCE) -> str:
        """Wait for the next line."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(patience):
                raise SideError(f"said nothing for {patience:.0f} s")
        # Lines are short and written at once: what has begun is there.
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise SideError(f"ended: {self._last_words()}")
        return line

    def order(self, count: int) -> None:
        """Ask for a round."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"%d\n" % count)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideError(f"ended: {self._last_words()}") from None

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads so far."""
        return time.clock_gettime(self._clock)

    def resident_bytes(self) -> int:
        """Return its resident memory."""
        statm = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            # What could not be flushed to a process that is gone is lost, as it should be.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def _last_words(self) -> str:
        self._process.wait(PATIENCE)
        self._said.seek(0)
        return (self._said.read().strip().splitlines() or [f"status {self._process.returncode}"])[-1]


class Pair:
    """A server and its connected client."""

    def __init__(self, peer: Peer, workload: Workload, place: Place, **chosen: Any) -> None:
        setup = Setup(
            module=peer.module,
            workload=workload,
            loop=peer.loop,
            protocol=peer.protocol,
            keeps_sessions=peer.keeps_sessions,
            **chosen,
        )
        self.peer = peer
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo, place.pinned():
            self.server = Side(place.command(setup))
            undo.callback(self.server.end)
            address = self.server.answer()
            self.client = Side(place.command(replace(setup, address=address)))
            # The server ends first, so that no client's end makes it complain.
            undo.callback(self.client.end)
            undo.callback(self.server.end)
            self.client.answer()
            self._stack = undo.pop_all()

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of the client and of the server."""
        return self.client.cpu_seconds(), self.server.cpu_seconds()

    def do(self, count: int) -> float:
        """Have a round done; return the seconds that it took.

        Raises:
            SideError: a message was wrong, or a side failed.
        """
        self.client.order(count)
        seconds, wrong = self.client.answer().split()
        if int(wrong):
            raise SideError(f"{wrong} of {abs(count)} messages are wrong")
        return float(seconds)

    def close(self) -> None:
        """End both processes."""
        self._stack.close()


class Place:
    """Where sides run: one core for both, and this process on the others while it can."""

    def __init__(self, floor: Path | None) -> None:
        self._floor = floor
        self.problem = ""
        try:
            self._all = os.sched_getaffinity(0)
            self._core = {max(self._all)}
            os.sched_setaffinity(0, self._core)
            os.sched_setaffinity(0, self._all - self._core or self._all)
        except (AttributeError, OSError) as error:
            self.problem = f"not pinned to a core: {error}"

    def __str__(self) -> str:
        return self.problem or f"both processes pinned to core {min(self._core)}"

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        """Start processes on the one core: they inherit it, with every thread of theirs."""
        if self.problem:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._core)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def command(self, setup: Setup) -> list[str]:
        """Return the command line of a side."""
        if setup.module != FLOOR.module:
            return [sys.executable, "-m", "bench.sides", setup.to_text()]
        load = setup.workload
        kind = "echo" if load.kind == ECHO else "one-way"
        port = [str(setup.endpoint[1])] if setup.address else []
        return [
            str(self._floor),
            *(kind, str(load.size), str(load.window), str(int(setup.is_damaged)), *port),
        ]
