"""The demo's second act: both processes live, and the link between them is cut again and again.

A session outlives its links. Everything sent comes back, exactly once, whatever was on its way at a cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from ledger import Ledger
from stage import BUFFER, ROOT, Server, Story, Text, show, until_stuck

import netasync

# The tool that breaks links for the tests.
sys.path.append(str(ROOT / "tests"))
from support.proxy import DIRECTIONS, FaultProxy

SERVER = Path(__file__).with_name("echo_server.py")
# Bytes from one cut to the next: at most this power of two, and as often below 512 as above.
MOST_BITS = 18
# Seconds.
PATIENCE = 10.0


def random_cuts(seed: int, count: int) -> Iterator[tuple[int, str, str]]:
    """Yield `count` cuts: after how many bytes, in which direction, and how.

    The size of the distance is what is drawn, so that many cuts hit a greeting and others hit full buffers.
    """
    chosen = random.Random(seed)
    for _ in range(count):
        yield int(2 ** chosen.uniform(0, MOST_BITS)), chosen.choice(DIRECTIONS), chosen.choice(("fin", "rst"))


class Client:
    """One connection through the proxy, and what became of every message."""

    def __init__(self, conn: netasync.Connection, proxy: FaultProxy, text: Text, story: Story) -> None:
        self.conn = conn
        self.ledger = Ledger()
        self.proxy = proxy
        self.resumed = 0
        # How many messages it will have been in all, once that is known.
        self._total = sys.maxsize
        self._told = 0
        self._lines = itertools.cycle(text.lines)
        self._story = story

    async def stream(self, seed: int, cuts: int) -> None:
        """Send, and take what comes back, until the link was cut `cuts` times; then the rest."""
        sending = asyncio.create_task(self._send_until(cuts))
        try:
            # A first message is through before the first cut: from then on there is a session to hold.
            await self._take_message()
            self.proxy.cut_again_and_again(random_cuts(seed, cuts))
            while self.ledger.back.end < self._total:
                await self._take_message()
                self._tell_progress(cuts)
        finally:
            sending.cancel()

    async def _send_until(self, cuts: int) -> None:
        while self.ledger.sent < self._total:
            if self.proxy.cuts >= cuts:
                self._total = self.ledger.sent + 1
            message = self.ledger.next_message(next(self._lines))
            await self.conn.send(message)
            self.ledger.note_sent(message)

    async def _take_message(self) -> None:
        """Take items up to the next message."""
        while not isinstance(item := await self.conn.recv(), bytes):
            if isinstance(item, netasync.Closed):
                raise EOFError(f"a connection that nobody closed is {item}")
            if isinstance(item, netasync.Connected):
                self.ledger.note_link()
                self.resumed += item.resumed
        self.ledger.note_back(item)

    def _tell_progress(self, cuts: int) -> None:
        if self.proxy.cuts * 5 // cuts > self._told * 5 // cuts:
            self._told = self.proxy.cuts
            returned = f"{len(self.ledger.back.numbers):,} messages are back"
            self._story.tell("proxy", f"{self._told} of {cuts} cuts, {returned}")


async def play(text: Text, story: Story, cuts: int, seed: int) -> bool:
    """Run the act; return whether every promise was kept."""
    faults: list[str] = []
    with Server(SERVER) as server, contextlib.closing(FaultProxy(server.target)) as proxy:
        story.tell("server", f"starts, as process {server.start()}, and sends back what it is sent")
        # A cut costs the pause before the next dial: a short one, for there are many.
        retry = netasync.Backoff(initial=0.005, maximum=0.05)
        dialling = netasync.connect(proxy.address, reconnect=retry, read_buffer=BUFFER, write_buffer=BUFFER)
        async with dialling as conn:
            client = Client(conn, proxy, text, story)
            story.tell("client", f"dials the proxy, which cuts the link {cuts} times, seed {seed}")
            try:
                if await until_stuck(client.stream(seed, cuts), conn, PATIENCE):
                    await conn.finish(PATIENCE)
                else:
                    faults.append(f"nothing came back for {PATIENCE:.0f} s")
                    conn.abort()
            except EOFError as error:
                faults.append(str(error))
            stats = conn.stats()
        story.tell("client", await conn.recv())
        return judge(text, client, stats, seed, cuts, faults)


def judge(text: Text, client: Client, stats: netasync.Stats, seed: int, cuts: int, faults: list[str]) -> bool:
    """Show the table; return whether nothing was wrong."""
    ledger = client.ledger
    lost = ledger.sent - len(ledger.back.numbers)
    claims = {
        "every link but the first resumed the session": client.resumed == ledger.links - 1,
        "the link was cut as often as was asked for": client.proxy.cuts == cuts,
        "each cut ended one link at most": ledger.links <= stats.links <= cuts + 1,
        "nothing was redelivered": stats.redelivered == 0,
    }
    disagreements = ledger.disagreements(stats)
    disagreements += [f"not true: {claim}" for claim, is_true in claims.items() if not is_true]
    account = "disagrees" if disagreements else "agrees with what was seen"
    faults = [*faults, *ledger.back.faults(), *([f"{lost} lost"] if lost else []), *disagreements]
    show("the link is cut at random bytes", rows(text, client, stats, seed, account), faults)
    return not faults


def rows(
    text: Text, client: Client, stats: netasync.Stats, seed: int, account: str
) -> Iterator[tuple[str, str]]:
    """What the table says, line by line."""
    ledger = client.ledger
    yield "text", str(text)
    yield "links cut", f"{client.proxy.cuts}, after 1 to {2**MOST_BITS:,} bytes, seed {seed}"
    yield "links resumed", f"{stats.links - 1}; the other cuts hit their greetings"
    yield "sent", f"{ledger.sent:,}"
    yield "came back", f"{len(ledger.back.numbers):,}"
    yield "lost", f"{ledger.sent - len(ledger.back.numbers)}"
    yield "twice", f"{ledger.back.twice}"
    yield "damaged · out of order", f"{ledger.back.damaged} · {ledger.back.out_of_order}"
    yield "account (stats)", account
