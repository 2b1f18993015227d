"""A client, a server, and a break in the middle: `make demo`.

The client starts first and streams this repository's own text, line by line, through an echo service that
is started later, killed in the middle and started again. What the client's connection yields is shown as
it comes; at the end a table compares what was sent with what came back.

Ends with status 1 if the library broke one of its promises. What the break itself cost is no fault: the
server that is killed takes its session with it, and with `on_new_session="discard"` what it may have taken is
not sent to the next one, but counted and shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ledger import Ledger

import netasync

try:
    from uvloop import run
except ImportError:
    from asyncio import run
try:
    from rich.console import Console
    from rich.table import Table
except ImportError:
    Console = None

ROOT = Path(__file__).resolve().parent.parent
SERVER = Path(__file__).with_name("echo_server.py")
# Enough to be a stream and not a moment; whole passes over the text.
MESSAGES = 300_000
ROUND_TRIPS = 5_000
# Small, so that a value does not have to wait behind many messages.
BUFFER = netasync.Buffer.fixed(2_048)
# Seconds.
PAUSE = 0.7
STREAM_LIMIT = 18.0
ROUND_TRIP_LIMIT = 5.0


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

    def passes(self) -> int:
        return -(-MESSAGES // len(self.lines))


def tracked_files() -> list[Path]:
    """What git tracks; without git, what lies in the directories of the sources."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        return [ROOT / name for name in listed.split("\0") if name]
    folders = ("src", "python", "tests", "examples", "docs")
    return [*ROOT.glob("*.*"), *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.*")))]


class Server:
    """The echo service, a process of its own, always on the same port."""

    def __init__(self) -> None:
        # Bound and never listening: the port is ours for as long as the demo runs, and refuses who dials it
        # while no server is there.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._reservation.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        self._process = subprocess.Popen([sys.executable, SERVER, self.target])
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

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


class Client:
    """One connection, and what became of every message that went through it."""

    def __init__(self, conn: netasync.Connection, text: Text, story: Story) -> None:
        self.conn = conn
        self.ledger = Ledger()
        self.round_trips: list[float] = []
        self.rate = "not measured"
        self.streamed = len(text.lines) * text.passes()
        self.is_down = asyncio.Event()
        self.is_half_back = asyncio.Event()
        self._lines = itertools.cycle(text.lines)
        self._story = story
        # Seconds for which a link was up before the present one, and since when this one is.
        self._was_up = 0.0
        self._up_since = time.monotonic()

    async def stream(self) -> None:
        """Send everything, as fast as there is room, and take what comes back."""
        sending = asyncio.create_task(self._send_all())
        try:
            while self.ledger.next_back < self.streamed:
                await self._take()
                if self.ledger.next_back >= self.streamed // 2:
                    self.is_half_back.set()
            seconds = self._was_up + time.monotonic() - self._up_since
            messages, megabytes = self.ledger.taken / seconds, self.ledger.bytes_taken / seconds / 1e6
            self.rate = f"{messages:,.0f} messages/s, {megabytes:.1f} MB/s"
        finally:
            sending.cancel()

    async def measure_round_trips(self) -> None:
        """Send one message at a time, and wait for each."""
        for line in itertools.islice(self._lines, ROUND_TRIPS):
            began = time.perf_counter()
            await self._send(line)
            while not await self._take():
                pass
            self.round_trips.append(time.perf_counter() - began)

    async def _send_all(self) -> None:
        for line in itertools.islice(self._lines, self.streamed):
            await self._send(line)

    async def _send(self, line: bytes) -> None:
        message = self.ledger.next_message(line)
        await self.conn.send(message)
        self.ledger.note_sent(message)

    async def _take(self) -> bool:
        """Take the next item; return whether it was a message."""
        item = await self.conn.recv()
        if isinstance(item, bytes):
            self.ledger.note_back(item)
            return True
        self._story.tell("client", item)
        if isinstance(item, netasync.Connected):
            self.ledger.note_link()
            self._up_since = time.monotonic()
            self.is_down.clear()
        elif isinstance(item, netasync.Disconnected):
            if self.ledger.links:
                self._was_up += time.monotonic() - self._up_since
            self.ledger.note_break(self.conn.stats())
            self.is_down.set()
        return False


async def direct(server: Server, client: Client, story: Story) -> None:
    """Start the server late, kill it in the middle of the stream, and start it again."""
    await client.is_down.wait()
    await asyncio.sleep(PAUSE)
    story.tell("server", f"starts, as process {server.start()}")
    await client.is_half_back.wait()
    server.kill()
    story.tell("server", f"killed (SIGKILL), when {client.ledger.returned:,} messages were back")
    await client.is_down.wait()
    await asyncio.sleep(PAUSE)
    story.tell("server", f"starts again on the same port, as process {server.start()}")


async def play(server: Server, text: Text) -> int:
    """Run the whole story; return the exit status."""
    story = Story()
    retry = netasync.Backoff(maximum=0.5)
    dialling = netasync.connect(
        server.target, reconnect=retry, on_new_session="discard", read_buffer=BUFFER, write_buffer=BUFFER
    )
    async with dialling as conn:
        client = Client(conn, text, story)
        story.tell("client", f"dials {server.target}, where nobody listens yet, and begins to send")
        directing = asyncio.create_task(direct(server, client, story))
        try:
            await asyncio.wait_for(client.stream(), STREAM_LIMIT)
            story.tell("client", f"{client.streamed:,} messages are through; now one at a time")
            await asyncio.wait_for(client.measure_round_trips(), ROUND_TRIP_LIMIT)
        except asyncio.TimeoutError:
            story.tell("client", "gives up waiting for what did not come back")
        finally:
            directing.cancel()
        await conn.finish()  # what came back was confirmed a moment later
        stats = conn.stats()
    closed = await conn.recv()
    story.tell("client", closed)
    return report(text, client, stats)


def report(text: Text, client: Client, stats: netasync.Stats) -> int:
    """Draw the table and the verdict; return the exit status."""
    ledger = client.ledger
    disagreements = ledger.disagreements(stats)
    faults = ledger.faults()
    if ledger.links < 2:
        faults.append("the link did not come back")
    draw(rows(text, client, "disagrees" if disagreements else "agrees with what was seen"))
    for line in (*faults, *(f"not true: {claim}" for claim in disagreements)):
        print("FAULT:", line)
    if faults or disagreements:
        return 1
    print(f"Whole, once and in order. The break cost {ledger.lost_to_breaks:,} messages on their way.")
    return 0


def rows(text: Text, client: Client, account: str) -> Iterator[tuple[str, str]]:
    """What the table says, line by line."""
    ledger = client.ledger
    yield "text", f"{len(text.lines):,} lines of {text.files} files, {text.passes()} times"
    yield "sent", f"{ledger.sent:,}"
    yield "came back", f"{ledger.returned:,}"
    yield "damaged · twice · out of order", f"{ledger.damaged} · {ledger.twice} · {ledger.out_of_order}"
    yield "lost to the break", f"{ledger.lost_to_breaks:,}"
    yield "missing without a break", f"{ledger.missing - ledger.lost_to_breaks:,}"
    yield "account (stats)", account
    yield "rate, there and back", client.rate
    if len(client.round_trips) > 1:
        percentiles = statistics.quantiles(client.round_trips, n=100)
        yield "round trip", f"{percentiles[49] * 1e6:.0f} µs median, {percentiles[98] * 1e6:.0f} µs at 99 %"


def draw(lines: Iterator[tuple[str, str]]) -> None:
    """Print the table, with rich if it is there."""
    print()
    if Console is None:
        for name, value in lines:
            print(f"  {name:<32}{value}")
    else:
        table = Table(show_header=False)
        for line in lines:
            table.add_row(*line)
        Console().print(table)
    print()


def main() -> int:
    with Server() as server:
        return run(play(server, Text.of_repository()))


if __name__ == "__main__":
    sys.exit(main())
