"""A listener that has closed: its connections live on, and nobody comes back to one that lost its link."""

import gc
import time

import pytest

from netasync import Backoff, ClosedError, Connected, Disconnected, Reason, State
from support.faces import aio
from support.native_world import native_call
from support.wires import OURS

pytestmark = OURS

#: Far below `session_timeout`, which is what a test here would wait out if its claim were wrong.
SOON = 20

CLOSINGS = {
    "close": lambda world, listener: world.outside(aio(listener).close),
    "aclose": lambda world, listener: world.close(listener),
    "its channel": lambda world, listener: world.outside(listener.accept_chan.close),
}


async def ended(world, conn, reason, within=SOON):
    began = time.monotonic()
    end = await world.end(conn)
    assert end.reason is reason
    assert time.monotonic() - began < within
    return end


@pytest.mark.parametrize("way", sorted(CLOSINGS))
async def test_after_its_listener_has_closed_a_break_ends_an_accepted_connection(world, way):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    await CLOSINGS[way](world, listener)
    peer.send(b"it lives on")
    assert await world.recv(conn) == b"it lives on"
    await world.send(conn, b"and answers")
    assert await world.outside(peer.recv) == b"and answers"
    peer.close()
    # Whatever the kernel made of the crash: it ends with the reason of the break.
    end = await world.end(conn)
    assert end.reason in (Reason.EOF, Reason.RESET)
    with pytest.raises(ClosedError):
        await world.send(conn, b"nobody is there")


@pytest.mark.parametrize("way", sorted(CLOSINGS))
async def test_who_is_without_a_link_when_its_listener_closes_ends_then(world, way):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    linked, other = await native_call(world, listener)
    peer.send(b"read first")
    peer.close()
    assert await world.recv(conn) == b"read first"
    await world.down(conn)
    await world.send(conn, b"for nobody")
    await CLOSINGS[way](world, listener)
    assert (await ended(world, conn, Reason.SESSION_EXPIRED)).undelivered == 1
    other.send(b"undisturbed")
    assert await world.recv(linked) == b"undisturbed"


async def test_a_graceful_stop_does_not_wait_for_a_client_that_died(world):
    """`close`, wait for the handlers: the way in which a server stops."""
    listener = world.listen(0)
    conns = [await native_call(world, listener) for _ in range(4)]

    async def handle(conn):
        async for _ in world.items(conn):
            pass

    handlers = [world.spawn(handle(conn)) for conn, _ in conns]
    conns[0][1].close()
    await world.eventually(lambda: conns[0][0].state is State.DISCONNECTED)
    await world.close(listener)
    conns[1][1].close()
    for _, peer in conns[2:]:
        await world.outside(peer.goodbye)
    began = time.monotonic()
    for handler in handlers:
        await world.join(handler)
    assert time.monotonic() - began < SOON


async def test_a_listener_that_the_collector_closes_leaves_nobody_waiting(world):
    listener = world.face.api.listen(0, runtime=world.runtime, protocol="netasync")
    conn, peer = await native_call(world, listener)
    peer.close()
    await world.down(conn)
    with pytest.warns(ResourceWarning, match="without close"):
        del listener
        gc.collect()
    await ended(world, conn, Reason.SESSION_EXPIRED)


async def test_a_connection_that_closes_without_a_link_waits_for_nobody_either(world):
    listener = world.listen(0, close_timeout=100)
    conn, peer = await native_call(world, listener)
    peer.close()
    await world.down(conn)
    await world.send(conn, b"for nobody")
    await world.outside(aio(conn).close)
    assert conn.state is State.CLOSING
    await world.outside(aio(listener).close)
    assert (await ended(world, conn, Reason.CLOSED_HERE)).undelivered == 1


async def test_a_goodbye_that_a_break_cuts_ends_where_the_listener_has_closed(world):
    listener = world.listen(0, close_timeout=100)
    conn, peer = await native_call(world, listener, credit=1)
    await world.send(conn, b"begun", b"waits for credit")
    await world.outside(aio(listener).close)
    await world.outside(aio(conn).close)
    peer.close()
    assert (await ended(world, conn, Reason.CLOSED_HERE)).undelivered == 2


async def test_a_shutdown_says_so_to_those_without_a_link_too(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    peer.close()
    await world.down(conn)
    await world.shutdown(world.runtime)
    await ended(world, conn, Reason.SHUTDOWN)


async def test_of_two_listeners_only_the_one_that_closes_sends_its_absent_away(world):
    first, second = world.listen(0), world.listen(0)
    gone, one = await native_call(world, first)
    held, other = await native_call(world, second)
    for conn, peer in ((gone, one), (held, other)):
        peer.close()
        await world.down(conn)
    await world.outside(aio(first).close)
    await ended(world, gone, Reason.SESSION_EXPIRED)
    await world.stays_quiet(held)
    assert held.state is State.DISCONNECTED


async def test_who_returns_while_its_listener_closes_goes_on_or_has_ended_but_does_not_hang(world, seeded):
    """The moment in between, many times: either the return came first, or nobody is there any more."""
    for _ in range(30):
        listener = world.listen(0)
        proxy = world.proxy(listener.address)
        client = world.connect(proxy.address, reconnect=Backoff(initial=0.001, factor=1, maximum=0.001))
        served = await world.accept(listener)
        await world.up(served)
        await world.up(client)
        proxy.cut("rst")
        if seeded.random() < 0.7:
            await world.down(served)
        await world.outside(aio(listener).close)
        item = await world.recv(served)
        while isinstance(item, Disconnected | Connected):
            if isinstance(item, Connected):
                await world.send(served, b"it goes on")
                while (taken := await world.recv(client)) != b"it goes on":
                    assert isinstance(taken, Disconnected | Connected)
                proxy.cut("rst")
            item = await world.recv(served)
        assert item.reason in (Reason.SESSION_EXPIRED, Reason.RESET, Reason.EOF)
        client.abort()
        proxy.close()
