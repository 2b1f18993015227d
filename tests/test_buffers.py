"""Buffers: fixed, dropping and sliding, by count and by bytes, against a plain model."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netasync import Buffer, BufferEmpty, BufferFull
from support.grammar import spell
from support.peer import frame
from support.wires import ORIGINAL
from support.world import World

COST = 64

POLICIES = st.sampled_from(["fixed", "dropping", "sliding"])
LOSSY = st.sampled_from(["dropping", "sliding"])
COUNTS = st.integers(1, 6)
BYTES = st.sampled_from([1, COST, 200, 500, 4 << 20])
SIZES = st.lists(st.sampled_from([1, 2, 36, 100, 700]), max_size=30)


@dataclasses.dataclass
class Model:
    """A buffer as the design words it: it accepts while what it holds is below its limits."""

    policy: str
    count: int
    max_bytes: int
    held: list = dataclasses.field(default_factory=list)
    dropped: int = 0

    @property
    def buffer(self):
        return getattr(Buffer, self.policy)(self.count, max_bytes=self.max_bytes)

    def has_room(self):
        return len(self.held) < self.count and sum(len(one) + COST for one in self.held) < self.max_bytes

    def put(self, data):
        """Return what `send` says, or None where it would wait."""
        if self.policy == "sliding":
            while not self.has_room():
                self.held.pop(0)
                self.dropped += 1
        if not self.has_room():
            if self.policy == "fixed":
                return None
            self.dropped += 1
            return False
        self.held.append(data)
        return True


def payload(number, size):
    """A message of that size which tells its number if it can."""
    return (b"%d." % number * size)[:size]


@given(policy=POLICIES, count=COUNTS, max_bytes=BYTES, sizes=SIZES)
def test_a_write_buffer_does_what_the_model_does(face, policy, count, max_bytes, sizes):
    model = Model(policy, count, max_bytes)

    async def scenario(world):
        port = world.reserved_port()
        conn = world.connect(port.address, write_buffer=model.buffer)
        accepted = 0
        for number, size in enumerate(sizes):
            data = payload(number, size)
            said = model.put(data)
            if said is None:
                with pytest.raises(BufferFull):
                    conn.send_nowait(data)
                continue
            assert conn.send_nowait(data) is said
            accepted += 1
        stats = conn.stats()
        assert (stats.accepted, stats.queued, stats.write_dropped) == (
            accepted,
            len(model.held),
            model.dropped,
        )
        peer = await world.outside(world.raw_listener(port.port).accept)
        assert await world.outside(peer.recv_many, len(model.held)) == model.held
        await world.flush(conn)
        assert conn.stats().confirmed == len(model.held)

    with World(face, "net.async") as world:
        world.run(scenario(world))


@given(
    policy=LOSSY,
    count=COUNTS,
    max_bytes=BYTES,
    rounds=st.lists(st.tuples(SIZES, st.integers(0, 8)), min_size=1, max_size=4),
)
def test_a_lossy_read_buffer_does_what_the_model_does(face, policy, count, max_bytes, rounds):
    model = Model(policy, count, max_bytes)

    async def scenario(world):
        conn, peer = await world.answered(read_buffer=model.buffer)
        sent = 0
        for sizes, takes in rounds:
            batch = [payload(sent + nth, size) for nth, size in enumerate(sizes)]
            sent += len(batch)
            peer.send(*batch)
            await world.arrived(conn, sent)
            for data in batch:
                model.put(data)
            taken, model.held = model.held[:takes], model.held[takes:]
            assert await world.take(conn, len(taken)) == taken
        stats = await world.balanced(conn)
        assert (stats.waiting, stats.read_dropped) == (len(model.held), model.dropped)
        assert await world.take(conn, len(model.held)) == model.held

    with World(face, "net.async") as world:
        world.run(scenario(world))


@given(count=COUNTS, max_bytes=BYTES, sizes=SIZES)
def test_a_fixed_read_buffer_loses_nothing_and_keeps_the_order(face, count, max_bytes, sizes):
    sent = [payload(number, size) for number, size in enumerate(sizes)]

    async def scenario(world):
        conn, peer = await world.answered(read_buffer=Buffer.fixed(count, max_bytes=max_bytes))
        peer.send_pieces([frame(data) for data in sent])
        assert await world.take(conn, len(sent)) == sent
        assert conn.stats().read_dropped == 0

    with World(face, "net.async") as world:
        world.run(scenario(world))


async def test_one_message_above_the_bytes_of_a_buffer_passes_alone(world):
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=Buffer.fixed(100, max_bytes=100))
    await world.send(conn, b"x" * 10_000)
    with pytest.raises(BufferFull):
        conn.send_nowait(b"y")
    listener = world.listen(port.port, read_buffer=Buffer.fixed(100, max_bytes=100))
    served = await world.accept(listener)
    await world.up(served)
    assert await world.recv(served) == b"x" * 10_000


async def test_a_plain_number_is_a_fixed_buffer_of_it(world):
    conn = world.connect(world.reserved_port().address, write_buffer=2, close_timeout=0.1)
    conn.send_nowait(b"1")
    conn.send_nowait(b"2")
    with pytest.raises(BufferFull):
        conn.send_nowait(b"3")


async def test_a_buffer_without_max_bytes_has_4_mib(world):
    conn = world.connect(
        world.reserved_port().address, write_buffer=Buffer.fixed(1000), max_size=2**23, close_timeout=0.1
    )
    conn.send_nowait(b"x" * ((4 << 20) - COST - 1))
    conn.send_nowait(b"below the limit by one")
    with pytest.raises(BufferFull):
        conn.send_nowait(b"x")


@ORIGINAL
@pytest.mark.parametrize("make", [Buffer.dropping, Buffer.sliding])
async def test_a_lossy_write_buffer_never_makes_a_sender_wait(world, make):
    conn, peer, _ = await world.dialled(write_buffer=make(10, max_bytes=10_000), close_timeout=0.2)
    data = b"x" * 50_000
    said = [conn.send_nowait(data) for _ in range(1000)]  # 50 MB that nobody reads
    assert said[0] is True
    stats = await world.balanced(conn)
    assert stats.accepted == 1000
    assert stats.write_dropped > 0
    assert said.count(False) == (stats.write_dropped if make is Buffer.dropping else 0)
    kept = 1000 - stats.write_dropped
    assert await world.outside(peer.recv_many, kept) == [data] * kept
    await world.flush(conn)
    assert conn.stats().confirmed == kept


@ORIGINAL
@pytest.mark.parametrize(
    ("make", "kept", "order"),
    [(Buffer.dropping, b"0", "CM(DC)+"), (Buffer.sliding, b"2", "C(DC)+MDC")],
    ids=["dropping", "sliding"],
)
async def test_values_are_never_dropped_by_a_read_buffer(world, make, kept, order):
    conn, peer, server = await world.dialled(read_buffer=make(1))
    for link in range(3):
        peer.send(b"%d" % link)
        await world.arrived(conn, link + 1)
        peer.half_close()
        peer = await world.outside(server.accept)
    await world.eventually(lambda: conn.stats().links == 4)
    peer.half_close()
    await world.outside(server.accept)
    await world.eventually(lambda: conn.stats().links == 5)
    while conn.stats().waiting:
        await world.recv(conn)
    while True:
        try:
            world.recv_nowait(conn)
        except BufferEmpty:
            break
    taken = world.taken(conn)
    assert kept in taken
    assert re.fullmatch(order, spell(taken))


@ORIGINAL
async def test_a_sliding_write_buffer_discards_only_what_was_not_begun(world):
    server = world.raw_listener(receive_buffer=16_384)
    conn = world.connect(server.address, write_buffer=Buffer.sliding(2, max_bytes=2**26), max_size=2**26)
    peer = await world.outside(server.accept)
    await world.up(conn)
    large = b"L" * 2**24
    await world.send(conn, large)
    assert await world.outside(peer.recv_exactly, 4) == frame(large)[:4]
    for number in range(10):
        await world.send(conn, b"%d" % number)
    assert await world.outside(peer.recv_exactly, len(large)) == large
    received = await world.outside(peer.recv_many, 2)
    assert received == [b"8", b"9"]
    assert conn.stats().write_dropped == 8
