"""`send(…, confirm=)`: waiting for what becomes of one message."""

import asyncio
import statistics
import time

import pytest

from netasync import Backoff, Buffer, ClosedError, Connected, MessageTooLarge
from support.frames import ASK, PING, read_numbers
from support.native_world import RARELY, native_answer, native_connect, native_listener, native_reserved
from support.wires import ORIGINAL, OURS


@ORIGINAL
@pytest.mark.parametrize("confirm", ["received", "consumed"])
async def test_on_the_originals_wire_it_is_a_value_error(world, confirm):
    conn, _, _ = await world.dialled()
    with pytest.raises(ValueError, match="confirm"):
        await world.send(conn, b"x", confirm=confirm)
    assert conn.stats().accepted == 0


async def test_any_other_word_is_a_value_error(world):
    client, _, _ = await world.pair()
    with pytest.raises(ValueError, match="'received', 'consumed' or None"):
        await world.send(client, b"x", confirm="delivered")


@OURS
async def test_received_sends_a_ping_behind_its_message(world):
    conn, peer, _ = await native_reserved(world, **RARELY)
    await world.outside(peer.expect, PING)
    sending = world.spawn(world.send(conn, b"sure?", confirm="received"))
    assert await world.outside(peer.recv) == b"sure?"
    nonce, _, _ = read_numbers(await world.outside(peer.expect, PING))
    peer.pong(nonce)
    assert await world.join(sending) is True
    assert conn.stats().confirmed == 0


@OURS
async def test_consumed_sends_ask_behind_its_message(world):
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


@OURS
async def test_received_is_before_the_application_takes_it_and_consumed_is_after(world):
    client, served, _ = await world.pair()
    assert await world.send(client, b"one", confirm="received") is True
    assert served.stats().waiting == 1
    sending = world.spawn(world.send(client, b"two", confirm="consumed"))
    await world.arrived(served, 2)
    assert await world.recv(served) == b"one"
    await world.settle(sending)
    assert client.stats().unconfirmed
    assert await world.recv(served) == b"two"
    assert await world.join(sending) is True
    assert client.stats().confirmed == 2


@OURS
@pytest.mark.faces("asyncio", "uvloop")
async def test_a_cancelled_wait_says_nothing_and_loses_nothing(world):
    client, served, _ = await world.pair()
    sending = asyncio.ensure_future(client.send(b"one", confirm="consumed"))
    await world.arrived(served, 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await world.send(client, b"two", confirm="received") is True
    assert await world.take(served, 2) == [b"one", b"two"]


@OURS
@pytest.mark.faces("threads")
async def test_a_wait_that_timed_out_says_nothing_and_loses_nothing(world):
    client, served, _ = await world.pair()
    with pytest.raises(TimeoutError):
        client.send(b"one", 0.05, confirm="consumed")
    assert await world.recv(served) == b"one"


@OURS
@pytest.mark.parametrize("confirm", ["received", "consumed"])
async def test_it_survives_a_break(world, confirm):
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, reconnect=Backoff(0.005, maximum=0.05))
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    proxy.hold()
    sending = world.spawn(world.send(client, b"over", confirm=confirm))
    await world.eventually(lambda: client.stats().unconfirmed == 1)
    proxy.cut("rst")
    proxy.resume()
    while (item := await world.recv(served)) != b"over":
        assert not isinstance(item, bytes)
    assert await world.join(sending) is True
    assert [item for item in world.taken(served) if isinstance(item, Connected)][-1].resumed


@OURS
async def test_what_a_sliding_buffer_discards_was_not_confirmed(world):
    conn = world.connect(world.reserved_port().address, write_buffer=Buffer.sliding(1))
    sending = world.spawn(world.send(conn, b"oldest", confirm="consumed"))
    await world.settle(sending)
    await world.send(conn, b"newer")
    assert await world.join(sending) is False
    assert conn.stats().write_dropped == 1


@OURS
async def test_what_turns_out_too_large_for_the_peer_raises(world):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    sending = world.spawn(world.send(conn, bytes(500), confirm="received"))
    await world.settle(sending)
    await native_answer(world, server, max_size=499)
    with pytest.raises(MessageTooLarge, match="499"):
        await world.join(sending)


@OURS
async def test_a_handle_that_ends_ends_the_wait(world):
    conn = world.connect(world.reserved_port().address)
    sending = world.spawn(world.send(conn, b"nobody there", confirm="consumed"))
    await world.settle(sending)
    await world.outside(conn.abort)
    with pytest.raises(ClosedError):
        await world.join(sending)


@OURS
@pytest.mark.faces("threads")
async def test_a_thread_that_waits_for_a_confirmation_reads_it_itself(world):
    """Also when it has received before, and its place as the reader lingers for 50 ms."""
    client, served, _ = await world.pair()
    round_trips, confirmations = [], []
    for _ in range(15):
        echoing = world.spawn(world.recv(served))
        begun = time.perf_counter()
        await world.send(client, b"to be taken", confirm="consumed")
        await world.join(echoing)
        round_trips.append(time.perf_counter() - begun)
        await world.send(served, b"a reply")
        await world.recv(client)
        taking = world.spawn(world.take(served, 2))
        await world.settle(taking)
        begun = time.perf_counter()
        await world.send(client, b"to be held", confirm="received")
        confirmations.append(time.perf_counter() - begun)
        await world.send(client, b"and the last")
        await world.join(taking)
    # A thread had to be begun for the first, and none for the second.
    assert statistics.median(confirmations) < 10 * statistics.median(round_trips)


@OURS
async def test_each_of_many_that_wait_hears_of_its_own_message_when_that_is_taken(world):
    conn, peer, _ = await native_reserved(world, **RARELY)
    count = 20
    sending = []
    for number in range(count):
        sending.append(world.spawn(world.send(conn, b"%d" % number, confirm="consumed")))
        assert await world.outside(peer.recv) == b"%d" % number
    for taken in range(count):
        assert conn.stats().confirmed == taken
        peer.consume(1)
        peer.ack()
        assert await world.join(sending[taken]) is True
        if taken + 1 < count:
            await world.settle(sending[taken + 1])
