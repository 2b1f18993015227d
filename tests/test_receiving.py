"""Receiving: every call takes the next item, in order, and nothing is lost by leaving."""

import pytest

from netasync import BufferEmpty, Closed, Reason
from support.faces import aio
from support.wires import ORIGINAL

pytestmark = ORIGINAL


async def test_recv_returns_items_in_order_and_bytes_are_bytes(world):
    conn, peer, _ = await world.dialled()
    peer.send(b"1", b"2", b"3")
    items = await world.take(conn, 3)
    assert items == [b"1", b"2", b"3"]
    assert all(type(item) is bytes for item in items)


async def test_after_closed_recv_always_returns_closed_again(world):
    conn, peer = await world.answered()
    peer.close()
    end = await world.end(conn)
    assert [await world.recv(conn), await world.recv(conn)] == [end, end]
    assert world.recv_nowait(conn) == end
    assert await world.recv_many(conn, 5) == [end]


async def test_recv_nowait_takes_an_item_or_raises_buffer_empty(world):
    conn, peer = await world.answered()
    with pytest.raises(BufferEmpty):
        world.recv_nowait(conn)

    def taken():
        try:
            return world.recv_nowait(conn)
        except BufferEmpty:
            return None

    peer.send(b"here")
    assert await world.eventually(taken) == b"here"


async def test_recv_many_returns_what_is_there_up_to_its_limit(world):
    conn, peer = await world.answered()
    sent = [b"%d" % number for number in range(50)]
    peer.send(*sent)
    taken = []
    while len(taken) < 50:
        some = await world.recv_many(conn, 8)
        assert 1 <= len(some) <= 8
        taken += some
    assert taken == sent


async def test_recv_many_waits_for_the_first_item_only(world):
    conn, peer = await world.answered()
    reader = world.spawn(world.recv_many(conn, 100))
    await world.settle(reader)
    peer.send(b"alone")
    assert await world.join(reader) == [b"alone"]


async def test_recv_many_yields_values_too_and_ends_with_closed(world):
    conn, peer, _ = await world.dialled(reconnect=None)
    peer.send(b"last words")
    peer.close()
    items = []
    while not items or not isinstance(items[-1], Closed):
        items += await world.recv_many(conn, 100)
    assert items[0] == b"last words"
    assert [type(item).__name__ for item in items[1:]] == ["Disconnected", "Closed"]


async def test_iterating_yields_every_item_and_closed_last_and_ends(world):
    conn, peer = await world.answered()
    again = []
    peer.send(b"1", b"2")
    peer.close()
    items = [item async for item in world.items(conn)]
    assert items[:-1] == [b"1", b"2"]
    assert items[-1].reason is Reason.EOF
    again = [item async for item in world.items(conn)]
    assert again in ([], [items[-1]])


async def test_messages_yields_messages_only_and_ends_at_closed(world):
    server = world.raw_listener()
    conn = world.connect(server.address)
    first = await world.outside(server.accept)
    first.send(b"1", b"2")
    first.close()
    second = await world.outside(server.accept)
    second.send(b"3")
    taken = []
    async for data in world.messages(conn):
        taken.append(data)
        if data == b"3":
            aio(conn).close()
            second.close()
    assert taken == [b"1", b"2", b"3"]


@pytest.mark.faces("asyncio", "uvloop")
async def test_a_cancelled_recv_loses_nothing(world):
    conn, peer = await world.answered()
    received = []
    for number in range(200):
        reader = world.spawn(world.recv(conn))
        if number % 3:
            await world.settle(reader)
        peer.send(b"%d" % number)
        if number % 2:
            await world.face.pause(0)
        reader.cancel()
        try:
            received.append(await reader)
        except BaseException as stopped:
            assert type(stopped).__name__ == "CancelledError", stopped
    while len(received) < 200:
        received.append(await world.recv(conn))
    assert received == [b"%d" % number for number in range(200)]


async def test_a_recv_that_timed_out_loses_nothing(world):
    conn, peer = await world.answered()
    with pytest.raises(TimeoutError):
        await world.recv(conn, timeout=0.05)
    peer.send(b"later")
    assert await world.recv(conn) == b"later"


async def test_many_consumers_share_a_handle_and_each_message_goes_to_one(world):
    conn, peer = await world.answered()
    world.forget_order(conn)
    readers = [world.spawn(_take_until_closed(world, conn)) for _ in range(5)]
    for reader in readers:
        await world.settle(reader)
    sent = [b"%d" % number for number in range(500)]
    peer.send(*sent)
    peer.half_close()
    taken = [await world.join(reader) for reader in readers]
    assert sorted((data for some in taken for data in some), key=int) == sent
    for some in taken:
        assert some == sorted(some, key=int)


async def _take_until_closed(world, conn):
    taken = []
    while isinstance(item := await world.recv(conn), bytes):
        taken.append(item)
    assert isinstance(item, Closed)
    return taken
