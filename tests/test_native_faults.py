"""The fault programme, A: bytes, on our own wire. `test_faults_bytes.py` has the original's."""

import time

import pytest

from netasync import Buffer, Reason
from support.counts import counts
from support.frames import (
    ACK,
    AMPLE,
    Hello,
    ack,
    control,
    in_parts,
    message,
    ping,
)
from support.hostile import STRANGERS, neighbour, noise, throw
from support.native_world import (
    NATIVE,
    native_call,
    native_connect,
    native_dial,
    native_listen,
    native_pair,
    reason_of_break,
)
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

#: What the interpreter and the allocator may keep for themselves.
SLACK = 8 * 2**20

VOID = (Reason.PROTOCOL, Reason.TOO_LARGE)

STREAM_ENDS = (Reason.EOF, Reason.TRUNCATED, Reason.RESET)


def every(few, full=1):
    """Each n-th offset in every run, each one among the tests of `make soak`."""
    return pytest.mark.parametrize(
        "step", [pytest.param(few, id="few"), pytest.param(full, id="full", marks=pytest.mark.soak)]
    )


# A 2


@every(23)
async def test_a_frame_cut_at_any_offset_is_never_delivered_in_part(world, step):
    listener = native_listen(world)
    wire = message(bytes(range(256)) * 4)
    for number, offset in enumerate(range(0, len(wire) + 1, step)):
        conn, peer = await native_call(world, listener)
        peer.send_bytes(message(b"before") + wire[:offset])
        assert await world.recv(conn) == b"before"
        if offset == len(wire):
            assert await world.recv(conn) == bytes(range(256)) * 4
        if number % 2:
            peer.reset()
        else:
            peer.half_close()
        assert await reason_of_break(world, conn) in STREAM_ENDS
        assert conn.stats().received == 1 + (offset == len(wire))
        peer.close()


@every(9)
async def test_a_greeting_cut_at_any_offset_is_no_connection(world, step):
    listener, is_well = await neighbour(world, **NATIVE)
    wire = Hello().frame() + ack(0, AMPLE)
    for number, offset in enumerate(range(0, len(wire), step)):
        peer = await native_dial(world, listener.address)
        peer.send_bytes(wire[: min(offset, 88)])
        if offset > 88:
            await world.outside(peer.hear_hello)
            peer.send_bytes(wire[88:offset])
        if number % 2:
            peer.reset()
        peer.close()
    await is_well()
    assert (listener.stats().accepted, listener.stats().waiting) == (1, 0)


# A 3


def illegal(source):
    """A control frame that is `PROTOCOL`, or a length above `max_size`, at random."""
    return source.choice(
        [
            lambda: (0x80 << 24 | source.randrange(0x0A, 0x40) << 24 | source.randrange(2**24)).to_bytes(
                4, "big"
            ),
            lambda: (0xC0 << 24 | source.randrange(0x40) << 24 | source.randrange(2**16, 2**24)).to_bytes(
                4, "big"
            ),
            lambda: source.randrange(1001, 2**31).to_bytes(4, "big"),
            lambda: control(source.choice([0x01, 0x07]), source.randbytes(source.randrange(200))),
            lambda: control(source.choice([0x02, 0x03]), source.randbytes(source.randrange(24))),
            lambda: control(0x04, source.randbytes(source.randrange(16))),
            lambda: ack(source.randrange(1, 2**64), AMPLE),
            lambda: control(0x05),
            lambda: control(0x05, source.randrange(1001, 2**32).to_bytes(4, "big")),
        ]
    )()


@pytest.mark.parametrize("count", counts(60, 1000))
async def test_illegal_frames_end_their_link_at_once_and_allocate_nothing(world, seeded, count):
    _, is_well = await neighbour(world, **NATIVE)
    listener = native_listen(world, max_size=1000)
    before = resident_bytes()
    for _ in range(count):
        wire = illegal(seeded)
        conn, peer = await native_call(world, listener)
        await world.outside(throw, peer, wire)
        assert (await world.wait_closed(conn)).reason in VOID, wire[:64].hex()
        peer.close()
    assert resident_bytes() - before < SLACK + count * 2**14
    await is_well()


# A 4


@pytest.mark.parametrize("count", counts(40, 1000))
async def test_peers_that_announce_the_maximum_and_stop_take_no_memory(world, count):
    _, is_well = await neighbour(world, **NATIVE)
    largest = 2**27 - 1
    listener = native_listen(
        world,
        max_size=largest,
        heartbeat_interval=0.1,
        heartbeat_timeout=1.5,
        accept_buffer=count,
    )
    before = resident_bytes()
    stopped = []
    for number in range(count):
        conn, peer = await native_call(world, listener)
        start = largest.to_bytes(4, "big") + b"x"
        peer.send_bytes(start if number % 2 else in_parts(bytes(10))[:4] + largest.to_bytes(4, "big"))
        stopped.append(conn)
        await is_well()
    assert resident_bytes() - before < 100 * 2**20
    for conn in stopped:
        reason = await reason_of_break(world, conn)
        assert reason in (Reason.SLOW_FRAME, Reason.HEARTBEAT_TIMEOUT, Reason.PROTOCOL)
    await is_well()


# A 6


@pytest.mark.parametrize("count", counts(100, 2000))
async def test_unfinished_greetings_keep_no_good_client_out(world, count):
    listener = native_listen(world, open_timeout=5)
    dripping = [await native_dial(world, listener.address) for _ in range(count)]
    for number, peer in enumerate(dripping):
        await world.outside(throw, peer, Hello().frame()[: number % 88])
    began = time.monotonic()
    client = native_connect(world, listener.address)
    await world.up(client)
    print(f"let in after {time.monotonic() - began:.3f} s beside {count} unfinished greetings")
    served = await world.accept(listener)
    await world.up(served)
    assert (listener.stats().accepted, len(listener.connections)) == (1, 1)
    for peer in dripping:
        peer.close()


# A 8


@pytest.mark.parametrize("count", counts(150, 10_000))
async def test_every_stranger_is_shown_out_and_memory_stays(world, seeded, count):
    listener, is_well = await neighbour(world, **NATIVE)

    async def visit(number):
        peer = await native_dial(world, listener.address)
        kind = seeded.choice(["noise", "zeros", "nearly", *STRANGERS])
        if kind == "noise":
            data = noise(seeded, seeded.randrange(4, 3000))
        elif kind == "zeros":
            data = bytes(seeded.choice([4, 400, 5000]))
        elif kind == "nearly":
            data = Hello(flags=1 << 20).frame() + seeded.randbytes(1000)
        else:
            data = STRANGERS[kind]
        await world.outside(throw, peer, data)
        if number % 3:
            peer.half_close()
        await world.outside(peer.recv_to_end)
        peer.close()

    for number in range(count // 3):
        await visit(number)
    before = resident_bytes()
    for number in range(count):
        await visit(number)
    assert resident_bytes() - before < 32 * 2**20
    assert listener.stats().accepted == 1
    await is_well()


async def test_random_bytes_behind_a_greeting_harm_nobody_else(world, seeded):
    _, is_well = await neighbour(world, **NATIVE)
    listener = native_listen(world, max_size=10_000)
    for _ in range(40):
        conn, peer = await native_call(world, listener)
        await world.outside(throw, peer, seeded.randbytes(seeded.randrange(1, 5000)))
        peer.close()
        await reason_of_break(world, conn)
    await is_well()


# A 9


@pytest.mark.parametrize("count", counts(50_000, 1_000_000))
async def test_noise_as_fast_as_possible_is_a_flood_and_memory_is_flat(world, count):
    listener, is_well = await neighbour(world, **NATIVE)
    for sound in (ping(1, 0, AMPLE), control(0x08), ack(0, AMPLE), control(0x70, b"x")):
        conn, peer = await native_call(world, listener, credit=AMPLE)
        before = resident_bytes()
        piece = sound * 1000

        def pour(peer=peer, piece=piece):
            for _ in range(count // 1000):
                throw(peer, piece)

        await world.outside(pour)
        assert await reason_of_break(world, conn) is Reason.FLOOD
        assert resident_bytes() - before < SLACK
        await is_well()


# A 10


@pytest.mark.parametrize("count", counts(100_000, 1_000_000))
async def test_one_byte_messages_that_nobody_reads_make_the_sender_wait_and_none_is_lost(world, count):
    client, served, _ = await native_pair(
        world, listen={"read_buffer": Buffer.fixed(500)}, connect={"write_buffer": Buffer.fixed(500)}
    )
    before = resident_bytes()
    sending = world.spawn(world.send_many(client, (b"%c" % (65 + n % 26) for n in range(count))))
    await world.eventually(lambda: served.stats().waiting == 500 and client.stats().queued == 500)
    assert client.stats().unconfirmed == 500
    taken = bytearray()
    while len(taken) < count:
        for item in await world.face.call(served, "recv_many", 5000):
            assert type(item) is bytes and len(item) == 1
            world.note(served, item)
            taken += item
    assert await world.join(sending) == count
    assert bytes(taken) == (bytes(range(65, 91)) * (count // 26 + 1))[:count]
    assert resident_bytes() - before < 64 * 2**20 + 200 * count


# A 11


@pytest.mark.parametrize("times", counts(6, 1000))
async def test_a_stream_is_the_same_however_it_is_cut(world, seeded, times):
    sizes = (0, 1, 3, 20, 200, 3000)
    sent = [bytes(seeded.choice(sizes)) + b"%d" % number for number in range(2000)]
    between = {0: ping(1, 0, AMPLE), 1: ack(0, AMPLE), 2: control(0x50, b"skip"), 3: control(0x08)}
    wire = b"".join(message(data) + between.get(number % 80, b"") for number, data in enumerate(sent))
    listener = native_listen(world)
    for _ in range(times):
        conn, peer = await native_call(world, listener, credit=AMPLE)
        longest = seeded.choice([50, 1000, 70_000, 400_000])
        pieces, at = [], 0
        while at < len(wire):
            step = seeded.randrange(1, longest)
            pieces.append(wire[at : at + step])
            at += step
        feeding = world.spawn(world.outside(peer.send_pieces, pieces))
        taken = []
        while len(taken) < len(sent):
            taken += await world.recv_many(conn, seeded.randrange(1, 300))
        assert taken == sent
        await world.join(feeding)
        peer.count_sent(*sent)
        peer.pinged(1)
        while peer.heard[0] < len(sent):
            await world.outside(peer.read)
        assert ACK in {frame.kind for frame in peer.controls}
        peer.close()
        await reason_of_break(world, conn)
