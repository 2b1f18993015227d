"""Arbitrary frames, cut at arbitrary places, over a real socket: what arrives is always the same."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from netasync import Buffer, Reason
from support.peer import HEARTBEAT, frame
from support.wires import ORIGINAL
from support.world import World

pytestmark = ORIGINAL

#: A frame: None is a heartbeat. Around 128 KiB and 256 KiB the core changes how it reads.
SMALL = st.none() | st.binary(min_size=1, max_size=40)
LARGE = st.sampled_from([1000, 65_535, 65_536, 131_071, 131_072, 131_073, 262_140, 262_144, 400_000]).map(
    lambda size: bytes([size % 251]) * size
)
FRAMES = st.lists(SMALL | LARGE, max_size=12)


def encode(frames):
    return b"".join(HEARTBEAT if payload is None else frame(payload) for payload in frames)


def messages(frames):
    return [payload for payload in frames if payload is not None]


def cut(wire, places):
    edges = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    return [wire[start:stop] for start, stop in itertools.pairwise(edges)]


@given(frames=FRAMES, places=st.lists(st.integers(0, 2**22), max_size=20))
def test_frames_cut_anywhere_arrive_as_they_were(face, frames, places):
    async def scenario(world):
        conn, peer = await world.answered()
        sending = world.spawn(world.outside(peer.send_pieces, cut(encode(frames), places)))
        assert await world.take(conn, len(messages(frames))) == messages(frames)
        await world.join(sending)
        peer.half_close()
        assert (await world.end(conn)).reason is Reason.EOF

    with World(face, "net.async") as world:
        world.run(scenario(world))


@given(frames=st.lists(SMALL, min_size=1, max_size=6))
@settings(max_examples=8)
def test_one_byte_at_a_time_is_as_good(face, frames):
    wire = encode(frames)

    async def scenario(world):
        conn, peer = await world.answered(read_buffer=Buffer.fixed(2))
        sending = world.spawn(world.outside(peer.send_pieces, [wire[at : at + 1] for at in range(len(wire))]))
        assert await world.take(conn, len(messages(frames))) == messages(frames)
        await world.join(sending)

    with World(face, "net.async") as world:
        world.run(scenario(world))


@given(frames=FRAMES.filter(messages), where=st.integers(0, 2**22))
def test_a_stream_that_ends_anywhere_delivers_whole_messages_only(face, frames, where):
    wire = encode(frames)
    where %= len(wire) + 1
    whole, edges = [], {0}
    at = 0
    for payload in frames:
        at += 4 + len(payload or b"")
        edges.add(at)
        if payload is not None and at <= where:
            whole.append(payload)

    async def scenario(world):
        conn, peer = await world.answered()
        sending = world.spawn(world.outside(_send_and_end, peer, wire[:where]))
        assert await world.take(conn, len(whole)) == whole
        assert (await world.end(conn)).reason is (Reason.EOF if where in edges else Reason.TRUNCATED)
        await world.join(sending)

    with World(face, "net.async") as world:
        world.run(scenario(world))


@given(payloads=st.lists(st.binary(min_size=1, max_size=60) | LARGE, max_size=12))
def test_what_goes_out_is_what_was_sent(face, payloads):
    async def scenario(world):
        conn, peer, _ = await world.dialled()
        sending = world.spawn(world.send_many(conn, payloads))
        assert await world.outside(peer.recv_many, len(payloads)) == payloads
        assert await world.join(sending) == len(payloads)

    with World(face, "net.async") as world:
        world.run(scenario(world))


async def test_ten_thousand_messages_in_pieces_of_any_size(world, seeded):
    sent = [b"%d" % number + bytes(seeded.randrange(30)) for number in range(10_000)]
    wire = encode(sent)
    places = [seeded.randrange(len(wire)) for _ in range(1000)]
    conn, peer = await world.answered()
    sending = world.spawn(world.outside(peer.send_pieces, cut(wire, places)))
    taken = []
    while len(taken) < 10_000:
        taken += await world.recv_many(conn, random.Random(len(taken)).randrange(1, 500))
    assert taken == sent
    await world.join(sending)


def _send_and_end(peer, data):
    peer.send_bytes(data)
    peer.half_close()
