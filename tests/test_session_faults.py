"""Sessions under peers that lie about them, outages that last, and handles that end amid a break."""

import asyncio
import concurrent.futures
import contextlib

import pytest

from netasync import Backoff, Buffer, BufferEmpty, BufferFull, Closed, ClosedError, Reason, State
from support.counts import counts
from support.frames import AMPLE, Hello
from support.hostile import neighbour
from support.native_world import (
    NATIVE,
    native_answer,
    native_call,
    native_dial,
    native_reserved,
    reason_of_break,
)
from support.streams import drain, pour_until
from support.wires import OURS

pytestmark = OURS

LOOPS = pytest.mark.faces("asyncio", "uvloop")
QUICK = Backoff(initial=0.005, factor=1.5, maximum=0.05)


async def begun(world, listener, count, read, **fields):
    """An accepted connection that has begun `count` messages, and its peer that has read some of them."""
    conn, peer = await native_call(world, listener, **fields)
    peer.answers = False
    await world.send(conn, *[b"%d" % number for number in range(count)])
    await world.eventually(lambda: conn.stats().unconfirmed == count)
    assert await world.outside(peer.recv_many, read) == [b"%d" % number for number in range(read)]
    return conn, peer


async def returned(world, listener, conn, peer, **fields):
    """The peer on its next link; the connection has been told, and waits for the first ACK."""
    again = await native_dial(world, listener.address)
    known = {"session": peer.theirs.session, "token": peer.theirs.token, "link": peer.theirs.link + 1}
    await world.outside(lambda: again.greet(**{**known, "credit": peer.ours.credit, **fields}))
    again.answers = False
    await world.down(conn)
    assert (await world.up(conn)).resumed
    again.take_up(peer)
    return again


# F 51


@pytest.mark.parametrize(
    "numbers",
    [(1, AMPLE), (5, AMPLE), (2**64 - 1, AMPLE), (2, AMPLE - 1)],
    ids=lambda numbers: str(numbers[0]),
)
async def test_numbers_that_cannot_be_after_a_resume_end_that_session_only(world, numbers):
    """F 51: what an older link said still counts, below it nothing goes, nor above what was begun."""
    _, is_well = await neighbour(world, **NATIVE)
    listener = world.listen(0)
    conn, peer = await begun(world, listener, 4, 4, credit=AMPLE)
    peer.tell(2, AMPLE)
    await world.eventually(lambda: conn.stats().confirmed == 2)
    again = await returned(world, listener, conn, peer, received=4)
    again.tell(*numbers)
    assert await reason_of_break(world, conn) is Reason.PROTOCOL
    assert conn.stats().confirmed == 2
    await is_well()


async def test_numbers_that_are_as_before_a_resume_are_legal(world):
    """F 51: an ACK that was lost with its link, or said twice, is no sin."""
    listener = world.listen(0)
    conn, peer = await begun(world, listener, 4, 4, credit=AMPLE)
    peer.tell(2, AMPLE)
    await world.eventually(lambda: conn.stats().confirmed == 2)
    again = await returned(world, listener, conn, peer, received=4)
    for consumed in (2, 2, 4, 4):
        again.tell(consumed, AMPLE)
    await world.eventually(lambda: conn.stats().confirmed == 4)
    assert conn.state is State.CONNECTED


async def test_nothing_that_arrives_on_the_older_link_counts(world):
    """F 51, F 55: neither its confirmations, which are true, nor its messages."""
    listener = world.listen(0)
    conn, peer = await begun(world, listener, 3, 3)
    again = await returned(world, listener, conn, peer, received=3)
    with contextlib.suppress(ConnectionError):
        peer.consume()
        peer.ack()
        peer.send(b"from the older link")
    # Had that ACK of three counted, one of two would go backwards.
    again.tell(2, again.ours.credit)
    again.send(b"from the newer link")
    assert await world.recv(conn) == b"from the newer link"
    assert (conn.stats().confirmed, conn.stats().received) == (2, 1)
    assert conn.state is State.CONNECTED


async def test_what_is_new_follows_what_goes_again_through_a_narrow_window(world):
    """F 51: confirmations and back-pressure in the middle of a repeat neither reorder nor stop it."""
    listener = world.listen(0)
    conn, peer = await begun(world, listener, 20, 5, max_messages=20)
    again = await returned(world, listener, conn, peer, received=5, max_messages=7)
    again.answers = True
    await world.outside(again.ack)
    sending = world.spawn(world.send(conn, *[b"%d" % number for number in range(20, 40)]))
    again.consume()
    await world.outside(again.ack)
    assert await world.outside(again.recv_many, 35) == [b"%d" % number for number in range(5, 40)]
    await world.join(sending)
    await world.eventually(lambda: conn.stats().confirmed == 40)


# HELLO twice


async def test_a_second_hello_ends_that_session_only(world):
    """The very one that was welcome, or one that asks for a session: behind the greeting is no other."""
    _, is_well = await neighbour(world, **NATIVE)
    listener = world.listen(0)
    for session in (False, True):
        conn, peer = await native_call(world, listener)
        known = {"session": peer.theirs.session, "token": peer.theirs.token} if session else {}
        peer.send_bytes(Hello(**known).frame())
        assert await reason_of_break(world, conn) is Reason.PROTOCOL
        dialler, peer, server = await native_reserved(world)
        await world.send(dialler, b"begun")
        assert await world.outside(peer.recv) == b"begun"
        peer.send_bytes(peer.ours.frame())
        assert (await world.down(dialler)).reason is Reason.PROTOCOL
        again = await native_answer(world, server)
        assert (await world.up(dialler)).redelivered == 1
        assert await world.outside(again.recv) == b"begun"
    await is_well()


# F 52


async def test_an_outage_longer_than_the_buffer_makes_its_sender_wait_and_nobody_else(world):
    """F 52: what waits is as much as the buffer takes, and all of it arrives once the peer is there again."""
    _, is_well = await neighbour(world, **NATIVE)
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, reconnect=QUICK, write_buffer=Buffer.fixed(10))
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(client)
    payloads = [b"%d" % number for number in range(200)]
    sending = world.spawn(world.send(client, *payloads))
    await world.eventually(lambda: client.stats().queued == 10)
    await world.settle(sending)
    with pytest.raises(BufferFull):
        client.send_nowait(b"one more")
    for _ in range(20):
        await is_well()
    assert (client.stats().queued, client.stats().accepted) == (10, 10)
    proxy.allow()
    assert (await world.up(client)).resumed
    await world.down(served)
    assert (await world.up(served)).resumed
    assert await world.take(served, 200) == payloads
    await world.join(sending)


# C 35


async def test_quiet_links_pass_beside_a_firehose_and_peers_that_stand_still(world):
    """C 35 without broadcast: answers come while one link streams without a pause and others are full."""
    listener = world.listen(0, write_buffer=Buffer.fixed(50, max_bytes=50_000))
    stopped = [await native_call(world, listener, credit=AMPLE) for _ in range(5)]
    full = []
    for conn, peer in stopped:
        peer.answers = False
        full.append(world.spawn(world.send(conn, *[bytes(900)] * 200)))
        await world.eventually(lambda conn=conn: conn.stats().queued == 50)
    quiet = []
    for _ in range(30):
        client = world.connect(listener.address, write_buffer=Buffer.fixed(50))
        served = await world.accept(listener)
        await world.up(client)
        await world.up(served)
        quiet.append((client, served))
    (hose, sink), *quiet = quiet
    answered = []
    pouring = world.spawn(pour_until(world, hose, answered))
    draining = world.spawn(drain(world, sink))
    await world.eventually(lambda: sink.stats().consumed > 100)
    for number in range(3):
        for client, served in quiet:
            await world.send(client, b"%d" % number)
            assert await world.recv(served) == b"%d" % number
            await world.send(served, b"back")
            assert await world.recv(client) == b"back"
    answered.append(True)
    assert await world.join(pouring) == await world.join(draining) > 100
    for (conn, _), sending in zip(stopped, full, strict=True):
        assert (conn.state, conn.stats().queued) == (State.CONNECTED, 50)
        await world.outside(conn.abort)
        with pytest.raises(ClosedError):
            await world.join(sending)


# D 38


@LOOPS
@pytest.mark.parametrize("count", counts(40, 3000))
async def test_an_end_at_any_moment_of_a_break_is_seen_once_and_hangs_nobody(world, seeded, count):
    """D 38 with sessions: the link is cut and comes back while either handle ends, from any thread."""
    small = {"read_buffer": Buffer.fixed(20), "write_buffer": Buffer.fixed(20), "close_timeout": 0.3}
    listener = world.listen(0, session_timeout=0.3, **small)
    proxy = world.proxy(listener.address)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(count):
            client = world.connect(proxy.address, watch=False, reconnect=QUICK, **small)
            served = await listener.accept()
            calls = [asyncio.ensure_future(call) for call in waiting_calls(client, served)]
            proxy.cut_after(
                seeded.randrange(1, 30_000), seeded.choice(["up", "down"]), seeded.choice(["rst", "fin"])
            )
            for _ in range(seeded.randrange(30)):
                await asyncio.sleep(0)
            conn = seeded.choice([client, served])
            end = seeded.choice([conn.close, conn.abort])
            end() if seeded.randrange(2) else await asyncio.wrap_future(pool.submit(end))
            assert isinstance(await conn.wait_closed(), Closed)
            # A dialler goes on with a session of its own, an accepted handle learns of the end or expires.
            client.abort()
            for taken, conn in zip(await asyncio.gather(*calls), (client, served), strict=False):
                assert taken[-1] == await conn.wait_closed()
                assert [type(item) for item in taken].count(Closed) == 1
            for again in listener.connections:
                again.abort()
            with contextlib.suppress(BufferEmpty):
                while True:
                    listener.accept_nowait()


def waiting_calls(client, served):
    """What is under way on both handles: everything taken, everything sent, the end awaited."""
    return [
        items(client),
        items(served),
        pour(client),
        pour(served),
        client.wait_closed(),
        served.wait_closed(),
    ]


async def items(conn):
    return [item async for item in conn]


async def pour(conn):
    with contextlib.suppress(ClosedError):
        for _ in range(200):
            await conn.send(bytes(500))
