"""Sending: what is accepted, what is not, and what each call says about it."""

import array
import asyncio
import itertools
import queue
import threading

import pytest

from netasync import Buffer, BufferFull, ClosedError, MessageTooLarge, State
from support.wires import ORIGINAL

try:
    import numpy  # here, since it starts threads
except ImportError:
    numpy = None


@ORIGINAL
async def test_send_returns_true_once_the_write_buffer_has_accepted_it(world):
    conn, peer, _ = await world.dialled()
    assert await world.send(conn, b"x") is True
    assert conn.send_nowait(b"y") is True
    assert await world.outside(peer.recv_many, 2) == [b"x", b"y"]


@ORIGINAL
async def test_what_is_sent_while_the_link_is_down_queues_up_to_the_buffer(world):
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=Buffer.fixed(3))
    for number in range(3):
        assert conn.send_nowait(b"%d" % number) is True
    with pytest.raises(BufferFull):
        conn.send_nowait(b"3")
    waiting = world.spawn(world.send(conn, b"3"))
    await world.settle(waiting)
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.join(waiting) is True
    assert await world.outside(peer.recv_many, 4) == [b"0", b"1", b"2", b"3"]


@ORIGINAL
async def test_a_send_that_timed_out_was_not_sent(world):
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=1)
    await world.send(conn, b"first")
    with pytest.raises(TimeoutError):
        await world.send(conn, b"given up", timeout=0.05)
    assert conn.stats().accepted == 1
    peer = await world.outside(world.raw_listener(port.port).accept)
    await world.send(conn, b"second")
    assert await world.outside(peer.recv_many, 2) == [b"first", b"second"]


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_a_cancelled_send_was_not_sent(world):
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=1)
    await world.send(conn, b"first")
    waiting = world.spawn(world.send(conn, b"given up"))
    await world.settle(waiting)
    waiting.cancel()
    await world.settle(waiting)
    assert waiting.cancelled()
    peer = await world.outside(world.raw_listener(port.port).accept)
    await world.send(conn, b"second")
    assert await world.outside(peer.recv_many, 2) == [b"first", b"second"]


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_nothing_is_sent_before_the_coroutine_is_awaited(world):
    conn, peer, _ = await world.dialled()
    later = conn.send(b"later")
    await world.send(conn, b"now")
    await later
    assert await world.outside(peer.recv_many, 2) == [b"now", b"later"]


@ORIGINAL
@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, lambda data: memoryview(bytearray(data)), lambda data: array.array("B", data)],
    ids=["bytes", "bytearray", "memoryview", "array"],
)
@pytest.mark.parametrize("size", [5, 300_000])
async def test_any_contiguous_bytes_like_object_can_be_sent(world, make, size):
    conn, peer, _ = await world.dialled()
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await world.send(conn, make(payload))
    assert await world.outside(peer.recv) == payload


@ORIGINAL
async def test_a_typed_array_is_sent_as_its_bytes(world):
    if numpy is None:
        pytest.skip("numpy is not installed")
    conn, peer, _ = await world.dialled()
    grid = numpy.arange(12, dtype="<i4").reshape(3, 4)
    await world.send(conn, grid)
    assert await world.outside(peer.recv) == grid.tobytes()


@ORIGINAL
@pytest.mark.parametrize("size", [10, 500_000])
async def test_the_content_at_the_call_is_what_is_sent(world, size):
    port = world.reserved_port()
    conn = world.connect(port.address)
    data = bytearray(b"a" * size)
    view = memoryview(data)
    for letter in b"abc":
        data[:] = bytes([letter]) * size
        await world.send(conn, view)
    data[:] = b"z" * size
    view.release()
    data.clear()  # possible: nothing of ours holds the buffer
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(peer.recv_many, 3) == [letter * size for letter in (b"a", b"b", b"c")]


@ORIGINAL
async def test_send_many_sends_all_of_an_iterable_and_counts(world):
    conn, peer, _ = await world.dialled()
    payloads = [b"%d" % number for number in range(3000)]
    assert await world.send_many(conn, iter(payloads)) == 3000
    assert await world.outside(peer.recv_many, 3000) == payloads
    assert await world.send_many(conn, []) == 0


#: Nothing but the call itself makes anything go out: no heartbeat comes along within a test.
SILENT = {"heartbeat_interval": 3000}


@pytest.mark.faces("threads")
async def test_what_an_iterator_gave_goes_out_before_it_is_waited_for(world):
    client, served, _ = await world.pair(connect=SILENT)
    source = queue.Queue()
    sending = world.spawn(world.send_many(client, iter(source.get, None)))
    try:
        for number in range(5):
            source.put(b"%d" % number)
            assert await world.recv(served) == b"%d" % number
    finally:
        source.put(None)
    assert await world.join(sending) == 5


@ORIGINAL
@pytest.mark.parametrize("size", [5, 300_000])
async def test_a_generator_that_waits_for_the_peer_hears_from_it_though_it_holds_the_loop(world, size):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(10, max_bytes=2**26), **SILENT)

    def messages():
        for number in range(5):
            yield bytes([number]) * size
            assert peer.recv() == bytes([number]) * size

    assert await world.send_many(conn, messages()) == 5


async def test_what_is_told_of_a_message_from_an_iterator_is_true_before_the_next_one_is_asked_for(world):
    client, _, _ = await world.pair(connect=SILENT)

    def messages():
        for number in range(1, 6):
            before = client.stats().bytes_sent
            yield bytes(100)
            stats = client.stats()
            assert (stats.accepted, stats.queued) == (number, 0)
            assert stats.bytes_sent >= before + 100

    assert await world.send_many(client, messages()) == 5


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_what_the_same_turn_has_sent_goes_out_before_an_iterator_is_waited_for(world):
    conn, peer, _ = await world.dialled(**SILENT)

    def messages():
        yield b"3"
        assert peer.recv_many(3) == [b"1", b"2", b"3"]

    await conn.send(b"1")
    await conn.send(b"2")  # corked
    assert await conn.send_many(messages()) == 1


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_what_the_kernel_has_no_room_for_goes_out_while_an_iterator_holds_the_loop(world):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(10, max_bytes=2**26), **SILENT)
    await conn.send(bytes(2**24))

    def messages():
        assert peer.recv() == bytes(2**24)
        yield bytes(2**24)
        assert peer.recv() == bytes(2**24)
        yield b"3"
        assert peer.recv() == b"3"

    assert await conn.send_many(messages()) == 2


@pytest.mark.faces("threads")
async def test_the_timeout_of_send_many_holds_for_an_iterator_that_is_slow(world):
    client, _, _ = await world.pair()
    never = threading.Event()

    def messages():
        for number in itertools.count():
            never.wait(0.01)
            yield b"%d" % number

    with pytest.raises(TimeoutError) as stopped:
        await world.send_many(client, messages(), timeout=0.1)
    assert 0 < stopped.value.accepted < 512


@pytest.mark.faces("asyncio", "uvloop")
async def test_an_iterator_that_is_slow_leaves_others_their_turns_on_the_loop(world):
    client, _, _ = await world.pair()
    turns, never = [], threading.Event()

    async def take_turns():
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    def messages():
        for _ in range(5):
            never.wait(0.02)
            yield b"%d" % len(turns)

    others = world.spawn(take_turns())
    await world.settle(others)
    before = len(turns)
    assert await client.send_many(messages()) == 5
    others.cancel()
    assert len(turns) >= before + 4


async def test_send_many_counts_only_what_a_dropping_buffer_accepted(world):
    conn = world.connect(world.reserved_port().address, write_buffer=Buffer.dropping(4), close_timeout=0.1)
    assert await world.send_many(conn, [b"x"] * 10) == 4
    assert conn.stats().write_dropped == 6


@ORIGINAL
async def test_whatever_ends_send_many_early_says_how_many_were_accepted(world):
    port = world.reserved_port()
    conn = world.connect(port.address, max_size=100, write_buffer=Buffer.fixed(10))

    def breaks_off():
        yield b"1"
        yield b"2"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more") as stopped:
        await world.send_many(conn, breaks_off())
    assert stopped.value.accepted == 2
    with pytest.raises(MessageTooLarge) as stopped:
        await world.send_many(conn, [b"3", b"x" * 101, b"never"])
    assert stopped.value.accepted == 1
    with pytest.raises(TypeError) as stopped:
        await world.send_many(conn, [b"4", b"5", "text"])
    assert stopped.value.accepted == 2
    server = world.raw_listener(port.port)
    peer = await world.outside(server.accept)
    assert await world.outside(peer.recv_many, 5) == [b"1", b"2", b"3", b"4", b"5"]


@ORIGINAL
async def test_send_many_that_timed_out_keeps_what_was_accepted(world):
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=3)
    with pytest.raises(TimeoutError) as stopped:
        await world.send_many(conn, [b"%d" % number for number in range(9)], timeout=0.1)
    if not world.face.awaited:
        assert stopped.value.accepted == 3
    assert conn.stats().accepted == 3
    peer = await world.outside(world.raw_listener(port.port).accept)
    await world.send(conn, b"next")
    assert await world.outside(peer.recv_many, 4) == [b"0", b"1", b"2", b"next"]


@pytest.mark.faces("asyncio", "uvloop")
async def test_a_cancelled_send_many_says_how_many_were_accepted(world):
    conn = world.connect(world.reserved_port().address, write_buffer=3, close_timeout=0.1)
    told = []

    async def sending():
        try:
            await conn.send_many([b"x"] * 9)
        except BaseException as stopped:
            told.append(stopped.accepted)
            raise

    waiting = world.spawn(sending())
    await world.settle(waiting)
    waiting.cancel()
    await world.settle(waiting)
    assert told == [3]


@ORIGINAL
async def test_flush_returns_when_the_kernel_has_everything(world):
    conn, peer, _ = await world.dialled()
    await world.send_many(conn, [b"x" * 1000] * 100)
    await world.flush(conn)
    stats = conn.stats()
    assert (stats.accepted, stats.confirmed, stats.queued) == (100, 100, 0)
    await world.outside(peer.recv_many, 100)


async def test_flush_has_nothing_to_wait_for_while_nothing_is_queued(world):
    conn = world.connect(world.reserved_port().address)
    await world.down(conn)
    await world.flush(conn)
    assert conn.state is State.DISCONNECTED


@ORIGINAL
async def test_flush_waits_for_the_link(world):
    port = world.reserved_port()
    conn = world.connect(port.address)
    await world.send(conn, b"queued")
    with pytest.raises(TimeoutError):
        await world.flush(conn, timeout=0.05)
    peer = await world.outside(world.raw_listener(port.port).accept)
    await world.flush(conn)
    assert conn.stats().confirmed == 1
    assert await world.outside(peer.recv) == b"queued"


@ORIGINAL
async def test_confirm_is_a_value_error_and_sends_nothing(world):
    conn, peer, _ = await world.dialled()
    for confirm in ("received", "consumed"):
        with pytest.raises(ValueError, match="confirm"):
            await world.send(conn, b"never", confirm=confirm)
    await world.send(conn, b"only this")
    assert await world.outside(peer.recv) == b"only this"
    assert conn.stats().accepted == 1


@ORIGINAL
async def test_many_producers_share_a_handle_and_each_keeps_its_order(world):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(8))

    async def produce(name):
        for number in range(100):
            await world.send(conn, b"%d %d" % (name, number))

    producers = [world.spawn(produce(name)) for name in range(5)]
    received = await world.outside(peer.recv_many, 500)
    for producer in producers:
        await world.join(producer)
    for name in range(5):
        own = [data for data in received if data.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, number) for number in range(100)]


# finish


async def test_finish_accepts_nothing_more_and_counts_nothing_that_was_taken(world):
    client, served, _ = await world.pair()
    await world.send(client, b"1", b"2")
    finishing = world.spawn(world.finish(client))
    assert await world.take(served, 2) == [b"1", b"2"]
    assert await world.join(finishing) == 0
    with pytest.raises(ClosedError):
        await world.send(client, b"3")
    assert client.state is State.CONNECTED
    await world.send(served, b"still heard")
    assert await world.recv(client) == b"still heard"


async def test_finish_without_a_link_returns_when_its_time_is_over_and_delivery_goes_on(world):
    port = world.reserved_port()
    conn = world.connect(port.address)
    await world.send(conn, b"late")
    assert await world.finish(conn, 0.01) == 1
    listener = world.listen(port.port)
    served = await world.accept(listener)
    await world.up(served)
    assert await world.recv(served) == b"late"


@ORIGINAL
async def test_finish_on_the_originals_wire_waits_until_the_kernel_has_it(world):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(1000, max_bytes=2**26))
    await world.send_many(conn, [bytes(100_000)] * 200)
    finishing = world.spawn(world.finish(conn, 60))
    await world.settle(finishing)
    await world.outside(peer.recv_many, 200)
    assert await world.join(finishing) == 0
