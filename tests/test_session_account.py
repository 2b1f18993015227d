"""F 57: whatever way a message takes out, and however often the link breaks, both sides count the same."""

import contextlib

import pytest

from netasync import Backoff, Buffer, BufferFull, Closed
from support.cancelling import interrupted
from support.counts import counts
from support.grammar import check_account
from support.wires import OURS

pytestmark = OURS

QUICK = Backoff(initial=0.002, factor=1.5, maximum=0.03)
#: The largest message here; above 256 KiB it travels in PARTs.
MAX = 300_000
SIZES = (0, 0, 1, 60, 500, 70_000, MAX - 8)


class Writing:
    """Sends numbered messages in every way there is, and knows what became of them."""

    def __init__(self, world, conn, source):
        self.world, self.conn, self.source = world, conn, source
        self.made = 0
        #: Those of which the caller was told that they were accepted, and those of which it cannot know.
        self.accepted, self.doubtful = [], []

    def make(self):
        self.made += 1
        return self.made.to_bytes(8, "big") + bytes(self.source.choice(SIZES))

    async def write(self, count):
        ways = [self.single, self.batch, self.without_waiting, self.confirmed, self.empty]
        ways.append(self.given_up if self.world.face.awaited else self.in_time)
        for _ in range(count):
            await self.source.choice(ways)()

    async def single(self):
        data = self.make()
        assert await self.world.send(self.conn, data)
        self.accepted.append(data)

    async def batch(self):
        batch = [self.make() for _ in range(self.source.randrange(30))]
        assert await self.world.send_many(self.conn, iter(batch)) == len(batch)
        self.accepted += batch

    async def without_waiting(self):
        data = self.make()
        with contextlib.suppress(BufferFull):
            assert self.conn.send_nowait(data)
            self.accepted.append(data)

    async def confirmed(self):
        data = self.make()
        assert await self.world.send(self.conn, data, confirm=self.source.choice(["received", "consumed"]))
        self.accepted.append(data)

    async def empty(self):
        assert await self.world.send(self.conn, b"")
        self.accepted.append(b"")

    async def given_up(self):
        data, confirm = self.make(), self.source.choice([None, "received", "consumed"])
        sent = await interrupted(self.source, self.conn.send(data, confirm))
        if sent:
            self.accepted.append(data)
        elif confirm:
            self.doubtful.append(data)

    async def in_time(self):
        data = self.make()
        try:
            await self.world.send(self.conn, data, timeout=self.source.choice([0, 0.001]))
        except TimeoutError:
            return
        self.accepted.append(data)


async def take(world, conn, into, source):
    """Everything that comes, one by one or many at once, up to the end."""
    while True:
        items = [await world.recv(conn)] if source.random() < 0.5 else await world.recv_many(conn, 7)
        into += [item for item in items if isinstance(item, bytes)]
        if isinstance(items[-1], Closed):
            return


def assert_exactly_once(writing, taken):
    """What was accepted came once, in order; what is in doubt came so or not at all."""
    assert sum(not data for data in taken) == sum(not data for data in writing.accepted)
    numbers = [data[:8] for data in taken if data]
    assert numbers == sorted(set(numbers))
    sure, doubtful = {data for data in writing.accepted if data}, set(writing.doubtful)
    assert sure <= {data for data in taken if data} <= sure | doubtful


def assert_quiet_accounts(sender, receiver, count):
    """Both equations on both sides, and between them."""
    check_account(sender)
    check_account(receiver)
    assert sender.accepted == sender.confirmed == receiver.received == receiver.consumed == count
    assert (sender.lost, sender.redelivered, sender.write_dropped, receiver.read_dropped) == (0, 0, 0, 0)


@pytest.mark.parametrize("rounds", counts(3, 60))
async def test_both_sides_count_the_same_at_every_quiet_moment(world, seeded, rounds):
    listener = world.listen(0, max_size=MAX, read_buffer=Buffer.fixed(20), write_buffer=Buffer.fixed(5))
    proxy = world.proxy(listener.address)
    client = world.connect(
        proxy.address,
        max_size=MAX,
        read_buffer=Buffer.fixed(9),
        write_buffer=Buffer.fixed(40),
        reconnect=QUICK,
    )
    served = await world.accept(listener)
    writings = [Writing(world, client, seeded), Writing(world, served, seeded)]
    taken = [], []
    taking = [
        world.spawn(take(world, served, taken[0], seeded)),
        world.spawn(take(world, client, taken[1], seeded)),
    ]
    for _ in range(rounds):
        proxy.cut_after(
            seeded.randrange(1, 400_000), seeded.choice(["up", "down"]), seeded.choice(["rst", "fin"])
        )
        writes = [world.spawn(writing.write(40)) for writing in writings]
        for spawned in writes:
            await world.join(spawned)
        for conn, other, into in ((client, served, taken[0]), (served, client, taken[1])):
            await world.eventually(
                lambda conn=conn, other=other, into=into: (
                    not conn.stats().queued + conn.stats().unconfirmed and other.stats().consumed == len(into)
                )
            )
            assert_quiet_accounts(conn.stats(), other.stats(), len(into))
        for writing, into in zip(writings, taken, strict=True):
            assert_exactly_once(writing, into)
    await world.close(client)
    for spawned in taking:
        await world.join(spawned)
