"""The demo's first act: the server is killed in the middle, and another one takes its place.

A session does not outlive the processes that hold it. What the dead server had not confirmed goes again to
the next one: at least once, and `Connected.redelivered` says how many may come twice.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from journal import Crash, records
from ledger import Arrivals, Ledger
from stage import BUFFER, Server, Story, Text, show, until_stuck

import netasync

SERVER = Path(__file__).with_name("journal_server.py")
RECEIPTS = 2_000
# Seconds.
PAUSE = 0.7
PATIENCE = 10.0


class Client:
    """One connection that only sends, and what the library says about it."""

    def __init__(self, conn: netasync.Connection, text: Text, story: Story) -> None:
        self.conn = conn
        self.ledger = Ledger()
        self.receipts: list[float] = []
        self.redelivered = 0
        self.rate = "not measured"
        self.at_break = netasync.Stats()
        self.is_down = asyncio.Event()
        self.is_half_sent = asyncio.Event()
        self._lines = itertools.cycle(text.lines)
        self._story = story
        # Seconds for which a link was up before the present one, and since when this one is.
        self._was_up = 0.0
        self._up_since = time.monotonic()

    async def stream(self, count: int) -> None:
        """Send `count` messages as fast as there is room, and wait until the last one was taken."""
        for number in range(count - 1):
            await self._send()
            if number == (count - 1) // 2:
                self.is_half_sent.set()
        await self._send(confirm="consumed")
        seconds = self._was_up + time.monotonic() - self._up_since
        self.rate = f"{count / seconds:,.0f} messages/s, {self.ledger.bytes_sent / seconds / 1e6:.1f} MB/s"

    async def measure_receipts(self, count: int) -> None:
        """Send one message at a time, and wait until the server's application has taken it."""
        for _ in range(count):
            began = time.perf_counter()
            await self._send(confirm="consumed")
            self.receipts.append(time.perf_counter() - began)

    async def watch(self) -> netasync.Closed:
        """Tell every value that the connection yields, to its end."""
        async for item in self.conn:
            self._story.tell("client", item)
            if isinstance(item, netasync.Connected):
                self.ledger.note_link()
                self.redelivered += item.redelivered
                self._up_since = time.monotonic()
                self.is_down.clear()
            elif isinstance(item, netasync.Disconnected):
                if self.ledger.links:
                    self.at_break = self.conn.stats()
                    self._was_up += time.monotonic() - self._up_since
                self.is_down.set()
        return item

    async def _send(self, confirm: str | None = None) -> None:
        message = self.ledger.next_message(next(self._lines))
        await self.conn.send(message, confirm=confirm)
        self.ledger.note_sent(message)


async def direct(server: Server, journals: list[Path], client: Client, story: Story) -> None:
    """Start the server late, kill it in the middle of the stream, and start it again."""
    await client.is_down.wait()
    await asyncio.sleep(PAUSE)
    story.tell("server", f"starts, as process {server.start(journals[0])}")
    await client.is_half_sent.wait()
    server.kill()
    story.tell("server", f"killed (SIGKILL), when {client.ledger.sent:,} messages were sent")
    await client.is_down.wait()
    await asyncio.sleep(PAUSE)
    story.tell("server", f"starts again on the same port, as process {server.start(journals[1])}")


async def play(text: Text, story: Story, messages: int) -> bool:
    """Run the act; return whether every promise was kept."""
    with tempfile.TemporaryDirectory() as directory, Server(SERVER) as server:
        journals = [Path(directory, name) for name in ("first", "second")]
        dialling = netasync.connect(
            server.target, reconnect=netasync.Backoff(maximum=0.5), read_buffer=BUFFER, write_buffer=BUFFER
        )
        async with dialling as conn:
            client = Client(conn, text, story)
            story.tell("client", f"dials {server.target}, where nobody listens yet, and begins to send")
            watching = asyncio.create_task(client.watch())
            directing = asyncio.create_task(direct(server, journals, client, story))
            faults = await stream(client, messages, story)
            directing.cancel()
            if faults:
                conn.abort()
            else:
                await conn.finish()
            stats = conn.stats()
        await watching
        # It has written everything down when it ends.
        if not await asyncio.to_thread(server.wait, PATIENCE):
            faults.append("the server did not end with its connection")
        return judge(text, client, stats, journals, faults)


async def stream(client: Client, messages: int, story: Story) -> list[str]:
    """Send everything; return what was wrong with that."""
    if not await until_stuck(client.stream(messages), client.conn, PATIENCE):
        return [f"nothing was confirmed for {PATIENCE:.0f} s"]
    story.tell("client", f"{messages:,} messages are through; now one at a time")
    if not await until_stuck(client.measure_receipts(RECEIPTS), client.conn, PATIENCE):
        return [f"no receipt came for {PATIENCE:.0f} s"]
    return []


def judge(text: Text, client: Client, stats: netasync.Stats, journals: list[Path], faults: list[str]) -> bool:
    """Show the table; return whether nothing was wrong."""
    ledger = client.ledger
    first, second = (Arrivals.of(records(path), ledger.sent) for path in journals)
    crash = Crash(
        sent=ledger.sent,
        confirmed=client.at_break.confirmed,
        redelivered=client.redelivered,
        first=first,
        second=second,
    )
    claims = {
        "the link came up once for each server": stats.links == ledger.links == 2,
        "redelivered is what was begun and not confirmed": crash.redelivered == client.at_break.unconfirmed,
        "redelivered is what the account says": crash.redelivered == stats.redelivered,
    }
    disagreements = ledger.disagreements(stats)
    disagreements += [f"not true: {claim}" for claim, is_true in claims.items() if not is_true]
    account = "disagrees" if disagreements else "agrees with what was seen"
    faults = [*faults, *crash.faults(), *disagreements]
    show("the server is killed in the middle", rows(text, client, crash, account), faults)
    return not faults


def rows(text: Text, client: Client, crash: Crash, account: str) -> Iterator[tuple[str, str]]:
    """What the table says, line by line."""
    damaged = crash.first.damaged + crash.second.damaged
    yield "text", str(text)
    yield "sent", f"{crash.sent:,}"
    yield "taken by the server, killed", f"{crash.first.taken:,}"
    yield "taken by the next one", f"{crash.second.taken:,}"
    yield "damaged", f"{damaged}"
    yield "lost", f"{crash.lost}"
    yield "redelivered", f"{crash.redelivered:,}"
    yield "of these, seen by both servers", f"{len(crash.seen_by_both):,}"
    yield "in the dead server's hands", f"{len(crash.in_hand)}"
    yield "account (stats)", account
    yield "rate, one way", client.rate
    if len(client.receipts) > 1:
        percentiles = statistics.quantiles(client.receipts, n=100)
        yield (
            "to the receipt, one at a time",
            (f"{percentiles[49] * 1e6:.0f} µs median, {percentiles[98] * 1e6:.0f} µs at 99 %"),
        )
