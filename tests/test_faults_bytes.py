"""The fault programme, A: bytes. What a peer may write, and how it may cut it, harms only its own link."""

import subprocess
import sys
import time

import pytest

from netasync import Buffer, Disconnected, Reason, State
from support.counts import counts
from support.hostile import STRANGERS, neighbour, noise, throw
from support.peer import HEARTBEAT, frame, header
from support.process import resident_bytes
from support.waiting import A_WHILE, DEADLINE
from support.wires import ORIGINAL

PROTOCOL_REASONS = (Reason.TOO_LARGE, Reason.PROTOCOL)

#: Ends of a link that its bytes were no reason for.
STREAM_ENDS = (Reason.EOF, Reason.TRUNCATED, Reason.RESET)

#: What the interpreter and the allocator may keep for themselves.
SLACK = 8 * 2**20


# A 1


@ORIGINAL
@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_an_end_within_the_header_is_truncated_and_an_end_before_it_eof(world, count):
    listener, is_well = await neighbour(world)
    peer = await world.raw_dial(listener.address)
    peer.send_bytes(header(500)[:count])
    peer.half_close()
    conn = await world.accept(listener)
    await world.up(conn)
    assert (await world.end(conn)).reason is (Reason.TRUNCATED if count else Reason.EOF)
    await is_well()


@ORIGINAL
@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_to_a_dialler_it_is_a_break_with_that_reason(world, count):
    conn, peer, server = await world.dialled()
    peer.send_bytes(header(500)[:count])
    peer.half_close()
    assert (await world.down(conn)).reason is (Reason.TRUNCATED if count else Reason.EOF)
    await world.outside(server.accept)
    await world.up(conn)


# A 2


@ORIGINAL
@pytest.mark.parametrize(
    "step", [pytest.param(23, id="few"), pytest.param(1, id="full", marks=pytest.mark.soak)]
)
async def test_a_frame_cut_at_any_offset_is_never_delivered_in_part(world, step):
    listener = world.listen(0)
    wire = frame(b"before") + frame(bytes(range(256)) * 4)
    behind = len(frame(b"before"))
    for number, offset in enumerate(range(behind, len(wire) + 1, step)):
        peer = await world.raw_dial(listener.address)
        peer.send_bytes(wire[:offset])
        conn = await world.accept(listener)
        await world.up(conn)
        assert await world.recv(conn) == b"before"
        is_whole = offset == len(wire)
        if is_whole:
            assert await world.recv(conn) == bytes(range(256)) * 4
        if number % 2:
            peer.reset()
            assert (await world.end(conn)).reason in STREAM_ENDS
        else:
            peer.half_close()
            assert (await world.end(conn)).reason is (
                Reason.EOF if is_whole or offset == behind else Reason.TRUNCATED
            )
        peer.close()


@ORIGINAL
@pytest.mark.parametrize(
    "step", [pytest.param(41, id="few"), pytest.param(1, id="full", marks=pytest.mark.soak)]
)
async def test_a_frame_cut_behind_the_kernel_is_neither_delivered_in_part_nor_sent_again(world, step):
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address)
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    await world.close(served)
    await world.down(client)
    wire = frame(bytes(range(256)) * 4)
    for offset in range(1, len(wire), step):
        served = await world.accept(listener)
        await world.up(served)
        await world.up(client)
        proxy.cut_after(offset, "up", "fin")
        await world.send(client, wire[4:])
        # The kernel had it whole: it counts as delivered, and is not sent again.
        assert (await world.end(served)).reason is Reason.TRUNCATED
        assert isinstance(await world.recv(client), Disconnected)
    assert client.stats().queued == 0


# A 3


@ORIGINAL
@pytest.mark.parametrize("count", counts(60, 1000))
async def test_illegal_lengths_end_their_link_at_once_and_allocate_nothing(world, seeded, count):
    listener, is_well = await neighbour(world, listen={"max_size": 1000})
    lengths = [-1, -(2**31), 2**31 - 1, 1001, 2**27]
    lengths += [seeded.choice([-1, 1]) * seeded.randrange(1001, 2**31) for _ in range(count - len(lengths))]
    before = resident_bytes()
    for length in lengths:
        peer = await world.raw_dial(listener.address)
        peer.send_bytes(header(length))
        conn = await world.accept(listener)
        await world.up(conn)
        assert (await world.end(conn)).reason in PROTOCOL_REASONS
        assert conn.stats().bytes_received == 4
        assert (await world.outside(peer.recv_to_end))[0] == b""
        peer.close()
    assert resident_bytes() - before < SLACK + count * 2**14
    await is_well()


@ORIGINAL
async def test_an_illegal_length_behind_messages_takes_none_of_them_along(world):
    listener, is_well = await neighbour(world)
    peer = await world.raw_dial(listener.address)
    peer.send_bytes(frame(b"1") + frame(b"2") + header(-5) + frame(b"never"))
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.take(conn, 2) == [b"1", b"2"]
    assert (await world.end(conn)).reason in PROTOCOL_REASONS
    await is_well()


# A 5

#: Writes a message byte by byte, each in a segment of its own as far as the kernel lets it.
DRIP = """
import socket, sys
port, size = int(sys.argv[1]), int(sys.argv[2])
with socket.create_connection(("127.0.0.1", port)) as peer:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = size.to_bytes(4, "big") + bytes(size)
    for at in range(len(wire)):
        peer.send(wire[at:at + 1])
    peer.recv(1)
"""


@ORIGINAL
async def test_a_message_in_single_bytes_costs_in_proportion_to_its_length(world):
    """Four times the bytes; what grows with their square would cost sixteen times as much."""
    listener = world.listen(0)
    port = listener.address.rpartition(":")[2]

    async def cost(size):
        with subprocess.Popen([sys.executable, "-S", "-c", DRIP, port, str(size)]) as dripping:
            conn = await world.accept(listener)
            await world.up(conn)
            before = time.process_time()
            assert await world.recv(conn) == bytes(size)
            spent = time.process_time() - before
            conn.abort()
            dripping.wait(DEADLINE)
        return spent

    ratios = []
    for _ in range(4):  # a machine that does other things meanwhile gets a few tries
        small, large = await cost(30_000), await cost(120_000)
        ratios.append(large / small)
        if ratios[-1] < 8:
            return
    raise AssertionError(f"four times the bytes cost {ratios} times as much")


# A 7


@ORIGINAL
async def test_many_frames_dripped_at_once_end_as_slow_frames_and_a_neighbour_does_not_notice(world):
    _, is_well = await neighbour(world)
    slow = world.listen(0, heartbeat_interval=0.05, heartbeat_timeout=0.5)
    peers = [await world.raw_dial(slow.address) for _ in range(4)]

    async def drip(peer):
        return await world.outside(peer.drip, header(100_000) + bytes(600), 0.02)

    dripping = [world.spawn(drip(peer)) for peer in peers]
    conns = [await world.accept(slow) for _ in peers]
    for conn in conns:
        await world.up(conn)
        await is_well()
        assert (await world.end(conn)).reason is Reason.SLOW_FRAME
    for one in dripping:
        await world.join(one)
    await is_well()


@ORIGINAL
async def test_a_large_frame_that_flows_slowly_for_long_is_delivered(world):
    """An honest slow link: more than 1 KiB a second, for several times the timeout."""
    conn, peer = await world.answered(heartbeat_interval=0.05, heartbeat_timeout=0.6)
    payload = bytes(40_000)
    wire = frame(payload)

    def flow():
        for at in range(0, len(wire), 1000):
            peer.send_bytes(wire[at : at + 1000])
            peer._stop_beating.wait(0.05)

    flowing = world.spawn(world.outside(flow))
    assert await world.recv(conn) == payload
    await world.join(flowing)
    assert conn.state is State.CONNECTED


# A 8


@ORIGINAL
@pytest.mark.parametrize("count", counts(150, 10_000))
async def test_every_stranger_is_shown_out_and_memory_stays(world, seeded, count):
    listener, is_well = await neighbour(world)

    async def visit(number):
        peer = await world.raw_dial(listener.address)
        kind = seeded.choice(["noise", "zeros", *STRANGERS])
        if kind == "noise":
            data = noise(seeded, seeded.randrange(4, 3000))
        elif kind == "zeros":
            data = bytes(seeded.choice([1, 3, 4, 400, 5000]))  # heartbeats, as it happens
        else:
            data = STRANGERS[kind]
        await world.outside(throw, peer, data)
        if kind == "zeros" or number % 3 == 0:
            peer.close()
        conn = await world.face.call(listener, "accept")
        end = await world.wait_closed(conn)
        allowed = (*STREAM_ENDS, Reason.FLOOD) if kind == "zeros" else (*PROTOCOL_REASONS, Reason.RESET)
        assert end.reason in allowed, (kind, end)
        assert conn.stats().received == 0
        peer.close()

    for number in range(count // 3):
        await visit(number)
    before = resident_bytes()
    for number in range(count):
        await visit(number)
    assert resident_bytes() - before < 32 * 2**20
    await is_well()


# A 10


@pytest.mark.parametrize("count", counts(250_000, 1_000_000))
async def test_one_byte_messages_that_nobody_reads_make_the_sender_wait_and_none_is_lost(world, count):
    client, served, _ = await world.pair(
        listen={"read_buffer": Buffer.fixed(500)}, connect={"write_buffer": Buffer.fixed(500)}
    )
    letters = [b"%c" % (65 + number % 26) for number in range(26)]
    sent = 0

    def messages():
        nonlocal sent
        for number in range(count):
            sent = number
            yield letters[number % 26]

    before = resident_bytes()
    sending = world.spawn(world.send_many(client, messages()))
    await world.eventually(lambda: served.stats().waiting >= 500 and client.stats().queued >= 500)
    # Between the two windows lies what the kernel holds. Nothing moves until somebody reads.
    await world.face.pause(A_WHILE)
    assert 500 <= client.stats().queued <= 500 + 1  # and the one of which the kernel has a part
    assert served.stats().waiting < 500 + 2**18 // 5
    assert sent < count - 1
    taken = bytearray()
    while len(taken) < count:
        for item in await world.face.call(served, "recv_many", 5000):
            assert type(item) is bytes and len(item) == 1
            world.note(served, item)
            taken += item
    assert await world.join(sending) == count
    assert bytes(taken) == (b"".join(letters) * (count // 26 + 1))[:count]
    assert resident_bytes() - before < 64 * 2**20 + 200 * count


async def test_a_sender_to_a_reader_that_never_reads_waits_within_its_buffers(world):
    client, served, _ = await world.pair(
        listen={"read_buffer": Buffer.fixed(10)},
        connect={"write_buffer": Buffer.fixed(10), "close_timeout": 0.1},
    )
    accepted = 0
    with pytest.raises(TimeoutError):
        while True:
            await world.send(client, b"%07d" % accepted + bytes(9_000), timeout=1)
            accepted += 1
    stats = client.stats()
    assert stats.queued <= 10 + 1  # and the one of which the kernel has a part
    assert stats.accepted == accepted
    # A read brings at most its buffer of 256 KiB beyond what the read buffer allows.
    assert served.stats().waiting <= 10 + 2**18 // 9_000
    for number in range(accepted):
        assert int((await world.recv(served))[:7]) == number


# A 11


@ORIGINAL
@pytest.mark.parametrize("times", counts(6, 1000))
async def test_a_stream_is_the_same_however_it_is_cut(world, seeded, times):
    sizes = (1, 3, 20, 200, 3000)
    sent = [b"%d " % number + bytes(seeded.choice(sizes)) for number in range(2000)]
    wire = b"".join(
        frame(data) + (HEARTBEAT if number % 40 == 0 else b"") for number, data in enumerate(sent)
    )
    listener = world.listen(0)
    for _ in range(times):
        peer = await world.raw_dial(listener.address)
        longest = seeded.choice([50, 1000, 70_000, 400_000])
        pieces, at = [], 0
        while at < len(wire):
            step = seeded.randrange(1, longest)
            pieces.append(wire[at : at + step])
            at += step
        conn = await world.accept(listener)
        await world.up(conn)
        feeding = world.spawn(world.outside(peer.send_pieces, pieces))
        taken = []
        while len(taken) < len(sent):
            taken += await world.recv_many(conn, seeded.randrange(1, 300))
        assert taken == sent
        await world.join(feeding)
        peer.half_close()
        assert (await world.end(conn)).reason is Reason.EOF
        peer.close()
