"""Listeners: binding, accepting, and who lives on when one is closed."""

import gc
import socket

import pytest

from netasync import Buffer, BufferEmpty, Closed, Reason
from support.faces import aio, blocking
from support.peer import RawPeer
from support.wires import ORIGINAL

# Where it listens


@ORIGINAL
async def test_an_integer_means_the_loopback_address(world):
    listener = world.listen(0)
    host, _, port = listener.address.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    await world.raw_dial(f"127.0.0.1:{port}")


async def test_a_bare_port_as_text_means_the_loopback_address(world):
    assert world.listen(":0").address.startswith("127.0.0.1:")


@pytest.mark.parametrize("target", ["127.0.0.1:0", "tcp://127.0.0.1:0", ("127.0.0.1", 0), "localhost:0"])
async def test_an_address_is_listened_on_as_spelled(world, target):
    listener = world.listen(target)
    assert int(listener.address.rpartition(":")[2]) > 0
    client = world.connect(listener.address)
    await world.up(client)


@ORIGINAL
async def test_other_interfaces_are_asked_for_by_address(world):
    listener = world.listen("0.0.0.0:0")
    port = listener.address.rpartition(":")[2]
    await world.raw_dial(f"127.0.0.2:{port}")
    assert await world.accept(listener)


async def test_ipv6_addresses_stand_in_brackets(world):
    try:
        listener = world.listen("[::1]:0")
    except OSError as problem:
        pytest.skip(f"no IPv6 loopback here: {problem}")
    assert listener.address.startswith("[::1]:")
    await world.up(world.connect(listener.address))


async def test_a_name_other_than_localhost_is_a_value_error(world):
    with pytest.raises(ValueError, match=r"example\.com"):
        world.listen("example.com:0")


async def test_the_address_can_be_given_to_connect(world):
    listener = world.listen(0)
    client = world.connect(listener.address)
    await world.up(client)
    assert client.peer == listener.address


async def test_a_taken_port_is_an_oserror(world):
    taken = world.outsider(socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(OSError, match=r"(?i)in use"):
        world.listen(taken.getsockname()[1])


async def test_an_address_that_is_not_ours_is_an_oserror(world):
    with pytest.raises(OSError, match=r".+"):
        world.listen("192.0.2.1:0")


# Accepting


@ORIGINAL
async def test_accept_returns_a_connection_as_soon_as_tcp_is_up(world):
    listener = world.listen(0)
    peer = await world.raw_dial(listener.address)  # and says nothing
    conn = await world.accept(listener)
    up = await world.up(conn)
    assert (up.attempt, up.peer, conn.peer) == (0, peer.address, peer.address)


@ORIGINAL
async def test_accept_waits_for_a_dial(world):
    listener = world.listen(0)
    with pytest.raises(TimeoutError):
        await world.accept(listener, timeout=0.05)
    waiting = world.spawn(world.accept(listener))
    await world.settle(waiting)
    peer = await world.raw_dial(listener.address)
    conn = await world.join(waiting)
    assert conn.peer == peer.address


@ORIGINAL
async def test_connections_are_accepted_in_the_order_of_their_dials(world):
    listener = world.listen(0)
    dialled = [(await world.raw_dial(listener.address)).address for _ in range(20)]
    assert [(await world.accept(listener)).peer for _ in range(20)] == dialled


@ORIGINAL
async def test_accept_nowait_raises_buffer_empty_when_nobody_waits(world):
    listener = world.listen(0)
    with pytest.raises(BufferEmpty):
        world.accept_nowait(listener)
    await world.raw_dial(listener.address)
    await world.eventually(lambda: listener.stats().waiting == 1)
    await world.up(world.accept_nowait(listener))


@ORIGINAL
async def test_iterating_yields_connections_until_the_listener_is_closed(world):
    listener = world.listen(0)
    for _ in range(3):
        await world.raw_dial(listener.address)
    count = 0
    async for conn in world.accepted_by(listener):
        await world.up(conn)
        count += 1
        if count == 3:
            world.start_close(listener)
    assert count == 3


@ORIGINAL
async def test_the_accept_channel_accepts_iterates_and_closes(world):
    listener = world.listen(0)
    for _ in range(3):
        await world.raw_dial(listener.address)
    chan = listener.accept_chan
    await world.up(await world.accept(listener, via=chan))
    await world.eventually(lambda: listener.stats().waiting == 2)
    await world.up(world.watch(chan.accept_nowait(), dialler=False))
    async for conn in world.accepted_by(chan):
        await world.up(conn)
        aio(listener).accept_chan.close()
    await world.wait_closed(listener)
    with pytest.raises(OSError, match=r".+"):
        await world.raw_dial(listener.address)


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_a_cancelled_accept_loses_no_connection(world):
    listener = world.listen(0)
    for number in range(20):
        waiting = world.spawn(world.accept(listener))
        await world.settle(waiting)
        peer = await world.raw_dial(listener.address)
        waiting.cancel()
        await world.settle(waiting)
        conn = await world.accept(listener) if waiting.cancelled() else await waiting
        assert conn.peer == peer.address, number


@ORIGINAL
async def test_a_connection_that_ended_while_it_waited_is_still_accepted_with_what_it_had_received(world):
    listener = world.listen(0)
    peer = await world.raw_dial(listener.address)
    peer.send(b"said", b"and gone")
    peer.close()
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.take(conn, 2) == [b"said", b"and gone"]
    assert (await world.end(conn)).reason is world.farewell


@ORIGINAL
async def test_further_dials_wait_while_the_accept_buffer_is_full(world):
    listener = world.listen(0, accept_buffer=Buffer.fixed(1))
    peers = [await world.raw_dial(listener.address) for _ in range(5)]
    for peer in peers:
        peer.send(peer.address.encode())
    await world.eventually(lambda: listener.stats().waiting == 1)
    for peer in peers:
        conn = await world.accept(listener)
        await world.up(conn)
        assert await world.recv(conn) == peer.address.encode()
    assert listener.stats().refused == 0


@ORIGINAL
async def test_each_accepted_connection_has_its_own_buffers(world):
    listener = world.listen(0, read_buffer=4)
    first, second = [await world.raw_dial(listener.address) for _ in range(2)]
    unread, read = [await world.accept(listener) for _ in range(2)]
    first.send(*[b"nobody reads this"] * 50)
    await world.up(read)
    for number in range(50):
        second.send(b"%d" % number)
        assert await world.recv(read) == b"%d" % number
    await world.up(unread)


# What it says of itself


@ORIGINAL
async def test_connections_is_a_snapshot_of_those_alive(world):
    listener = world.listen(0)
    assert listener.connections == ()
    peers = [await world.raw_dial(listener.address) for _ in range(3)]
    conns = [await world.accept(listener) for _ in peers]
    snapshot = listener.connections
    assert isinstance(snapshot, tuple)
    assert {id(aio(conn)) for conn in snapshot} == {id(aio(conn)) for conn in conns}
    ended = next(conn for conn in conns if conn.peer == peers[0].address)
    peers[0].close()
    await world.up(ended)
    await world.end(ended)
    await world.eventually(lambda: len(listener.connections) == 2)
    assert len(snapshot) == 3


@ORIGINAL
async def test_stats_count_what_was_accepted_what_waits_and_what_lives(world):
    listener = world.listen(0)
    peer, *_ = [await world.raw_dial(listener.address) for _ in range(3)]
    await world.eventually(lambda: listener.stats().waiting == 3)
    conn = await world.accept(listener)
    stats = listener.stats()
    assert (stats.accepted, stats.waiting, stats.refused, stats.connections) == (3, 2, 0, 3)
    await world.up(conn)
    peer.close()
    await world.end(conn)
    await world.eventually(lambda: listener.stats().connections == 2)


async def test_both_faces_are_one_listener(world):
    listener = world.listen(0)
    assert aio(blocking(listener)) is aio(listener)
    assert blocking(aio(listener)) is blocking(listener)
    assert blocking(listener).address == aio(listener).address


@ORIGINAL
async def test_a_listener_dropped_without_close_is_closed_with_a_resource_warning(world):
    listener = world.face.api.listen(0, runtime=world.runtime)
    address = listener.address
    with pytest.warns(ResourceWarning, match="without close"):
        del listener
        gc.collect()
    await world.eventually(lambda: _is_refused(address))


# Closing


@ORIGINAL
async def test_closing_frees_the_port_before_it_returns(world):
    port = world.reserved_port().port
    for _ in range(20):
        listener = world.listen(port)
        await world.raw_dial(listener.address)
        await world.up(await world.accept(listener))
        await world.close(listener)


async def test_accepted_connections_live_on(world):
    client, served, listener = await world.pair()
    await world.close(listener)
    await world.send(client, b"still")
    assert await world.recv(served) == b"still"
    await world.send(served, b"here")
    assert await world.recv(client) == b"here"


@ORIGINAL
async def test_those_that_nobody_accepted_are_closed(world):
    listener = world.listen(0)
    peer = await world.raw_dial(listener.address)
    await world.eventually(lambda: listener.stats().waiting == 1)
    await world.close(listener)
    data, _ = await world.outside(peer.recv_to_end)
    assert data == b""
    await world.eventually(lambda: listener.stats().connections == 0)


async def test_a_waiting_accept_is_told_that_the_listener_was_closed(world):
    listener = world.listen(0)
    waiting = [world.spawn(world.accept(listener)), world.spawn(world.wait_closed(listener))]
    for one in waiting:
        await world.settle(one)
    world.start_close(listener)
    for one in waiting:
        end = await world.join(one)
        assert isinstance(end, Closed)
        assert end.reason is Reason.CLOSED_HERE
    assert (await world.accept(listener)).reason is Reason.CLOSED_HERE
    end = world.accept_nowait(listener)
    assert end.reason is Reason.CLOSED_HERE


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_leaving_async_with_closes(world):
    async with world.listen(0) as listener:
        address = listener.address
    with pytest.raises(ConnectionRefusedError):
        await world.raw_dial(address)


@ORIGINAL
@pytest.mark.faces("threads")
async def test_leaving_with_closes(world):
    with world.listen(0) as listener:
        address = listener.address
    with pytest.raises(ConnectionRefusedError):
        await world.raw_dial(address)


async def test_closing_twice_is_closing_once(world):
    listener = world.listen(0)
    await world.close(listener)
    await world.close(listener)
    assert (await world.wait_closed(listener)).reason is Reason.CLOSED_HERE


@ORIGINAL
def test_a_listener_accepts_though_no_loop_runs(world):
    async def open_it(_):
        return world.listen(0)

    listener = world.run(open_it(world))
    peer = world.outsider(RawPeer.dial(listener.address))
    conn = world.watch(blocking(listener).accept(timeout=20), dialler=False)
    assert conn.peer == peer.address


def _is_refused(address):
    try:
        RawPeer.dial(address).close()
    except ConnectionRefusedError:
        return True
    return False
