"""What our own wire confirms, and on which occasions."""

import pytest

from netasync import Buffer
from support.frames import ACK, AMPLE, ASK, PING, PONG, cost, read_numbers
from support.native_world import (
    RARELY,
    native_answered,
    native_reserved,
)

EMPTY = 64


async def only(world, peer, count):
    """Exactly so many messages come, and nothing behind them."""
    got = await world.outside(peer.recv_many, count)
    if not count:
        await world.outside(peer.expect, PING)
    await world.outside(peer.stays_silent)
    return got


# What is confirmed, and when


async def test_credit_grows_as_messages_are_consumed(world):
    conn, peer = await native_answered(world, read_buffer=Buffer.fixed(8, max_bytes=1024))
    peer.send(b"", b"x" * 10)
    await world.take(conn, 2)  # a quarter of the 8 messages
    assert read_numbers(await world.outside(peer.wait_for, ACK)) == (None, 2, 1024 + cost(b"", b"x" * 10))


async def test_what_was_parsed_but_not_taken_is_not_consumed(world):
    conn, peer = await native_answered(world, **RARELY)
    peer.send(b"1", b"2", b"3")
    await world.arrived(conn, 3)
    assert await world.recv(conn) == b"1"
    peer.ping(5)
    assert read_numbers(await world.outside(peer.wait_for, PONG))[1] == 1
    assert (await world.recv_many(conn, 10)) == [b"2", b"3"]
    peer.ping(6)
    assert read_numbers(await world.outside(peer.wait_for, PONG))[1] == 3


async def test_an_ack_comes_with_each_quarter_of_the_window(world):
    """Were it the quarter second alone, this would take minutes."""
    conn, peer = await native_answered(world, read_buffer=Buffer.fixed(1000, max_bytes=4 * EMPTY), **RARELY)
    pouring = world.spawn(world.outside(peer.pour, [b""] * 2000))
    await world.take(conn, 2000)
    await world.join(pouring)


async def test_an_ack_comes_with_each_quarter_of_max_messages(world):
    conn, peer = await native_answered(world, read_buffer=Buffer.fixed(4), **RARELY)
    pouring = world.spawn(world.outside(peer.pour, [b""] * 2000))
    await world.take(conn, 2000)
    await world.join(pouring)


async def test_an_ack_comes_with_each_quarter_of_the_peers_hold(world):
    conn, peer = await native_answered(world, {"hold": 4 * EMPTY}, **RARELY)

    def feed():
        for _ in range(500):
            peer.send(b"", b"", b"", b"")
            while peer.heard[0] < peer.begun:
                peer.read()

    feeding = world.spawn(world.outside(feed))
    await world.take(conn, 2000)
    await world.join(feeding)


@pytest.mark.parametrize(("count", "length"), [(64, 0), (2, 16 * 512)])
async def test_an_ack_goes_with_data_for_each_64_messages_or_16_kib(world, count, length):
    conn, peer = await native_answered(world, **RARELY)
    for _ in range(200):
        peer.send(*[bytes(length)] * count)
        await world.take(conn, count)
        await world.send(conn, b"reply")
        await world.outside(peer.recv)
        while peer.heard[0] < peer.begun:
            await world.outside(peer.read)


async def test_an_ask_is_answered_once_what_came_before_it_is_consumed(world):
    conn, peer = await native_answered(world, **RARELY)
    await world.outside(peer.expect, PING)
    peer.send(b"1", b"2")
    peer.ask()
    peer.send(b"behind")
    await world.outside(peer.stays_silent)
    await world.take(conn, 2)
    while read_numbers(await world.outside(peer.expect, ACK))[1] < 2:
        pass
    assert conn.stats().waiting == 1


async def test_each_ask_is_answered(world):
    _, peer = await native_answered(world, **RARELY)
    for _ in range(20):
        peer.ask()
        await world.outside(peer.wait_for, ACK)


async def test_a_single_message_is_confirmed_before_long(world):
    conn, peer = await native_answered(world, **RARELY)
    peer.send(b"alone")
    await world.recv(conn)
    assert read_numbers(await world.outside(peer.wait_for, ACK))[1:] == (
        1,
        peer.theirs.credit + cost(b"alone"),
    )


async def test_a_ping_of_ours_carries_the_numbers_of_the_moment(world):
    conn, peer = await native_answered(world, heartbeat_interval=0.1, heartbeat_timeout=300)
    peer.send(b"x")
    await world.recv(conn)
    while read_numbers(await world.outside(peer.wait_for, PING))[1] < 1:
        pass


@pytest.mark.parametrize("policy", [Buffer.dropping, Buffer.sliding])
async def test_with_a_lossy_read_buffer_received_is_consumed(world, policy):
    conn, peer = await native_answered(world, read_buffer=policy(2))
    peer.send(*[b"%d" % number for number in range(10)])
    peer.ask()
    while read_numbers(await world.outside(peer.wait_for, ACK))[1] < 10:
        pass
    assert conn.stats().read_dropped == 8
    assert await world.take(conn, 2) == ([b"0", b"1"] if policy == Buffer.dropping else [b"8", b"9"])


async def test_confirmed_is_what_the_peers_application_took(world):
    conn, peer, _ = await native_reserved(world)
    await world.send(conn, b"1", b"2", b"3")
    await world.outside(peer.recv_many, 3)
    assert (conn.stats().confirmed, conn.stats().unconfirmed) == (0, 3)
    peer.tell(2, AMPLE)
    await world.eventually(lambda: conn.stats().confirmed == 2)
    peer.tell(2, AMPLE)
    peer.tell(3, AMPLE)
    await world.eventually(lambda: conn.stats().confirmed == 3)


@pytest.mark.faces("asyncio", "threads")
async def test_confirm_received_sends_a_ping_behind_its_message(world):
    conn, peer, _ = await native_reserved(world, **RARELY)
    await world.outside(peer.expect, PING)
    sending = world.spawn(world.send(conn, b"sure?", confirm="received"))
    assert await world.outside(peer.recv) == b"sure?"
    nonce, _, _ = read_numbers(await world.outside(peer.expect, PING))
    peer.pong(nonce)
    assert await world.join(sending) is True
    assert conn.stats().confirmed == 0


@pytest.mark.faces("asyncio", "threads")
async def test_confirm_consumed_sends_ask_behind_its_message(world):
    conn, peer, _ = await native_reserved(world, **RARELY)
    await world.outside(peer.expect, PING)
    sending = world.spawn(world.send(conn, b"sure?", confirm="consumed"))
    assert await world.outside(peer.recv) == b"sure?"
    await world.outside(peer.expect, ASK)
    peer.ack()
    await world.outside(peer.stays_silent)
    assert conn.stats().confirmed == 0
    peer.consume()
    peer.ack()
    assert await world.join(sending) is True
