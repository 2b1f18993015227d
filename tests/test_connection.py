"""Connections: targets, what a handle says of itself, and who ends it."""

import gc

import pytest

from netasync import Closed, ClosedError, Connected, Reason, State
from support.wires import ORIGINAL

# Targets


@ORIGINAL
@pytest.mark.parametrize("spell", ["{}:{}", "tcp://{}:{}"])
async def test_a_target_is_host_and_port_as_text(world, spell):
    server = world.raw_listener()
    conn = world.connect(spell.format("127.0.0.1", server.port))
    await world.outside(server.accept)
    assert (await world.up(conn)).peer == server.address


@ORIGINAL
async def test_a_target_is_a_pair_of_host_and_port(world):
    server = world.raw_listener()
    conn = world.connect(("127.0.0.1", server.port))
    await world.outside(server.accept)
    assert conn.peer in (None, server.address)
    await world.up(conn)
    assert conn.peer == server.address


@ORIGINAL
async def test_a_name_is_looked_up_and_its_addresses_tried_in_turn(world):
    server = world.raw_listener()
    conn = world.connect(f"localhost:{server.port}")  # ::1, where nobody listens, is passed over
    await world.outside(server.accept)
    assert (await world.up(conn)).peer == server.address


@ORIGINAL
async def test_a_target_of_ipv6_stands_in_brackets(world):
    try:
        server = world.raw_listener(host="::1")
    except OSError as problem:
        pytest.skip(f"no IPv6 loopback here: {problem}")
    conn = world.connect(f"[::1]:{server.port}")
    await world.outside(server.accept)
    assert (await world.up(conn)).peer == f"[::1]:{server.port}"


async def test_peer_can_be_dialled_again(world):
    client, served, listener = await world.pair()
    assert client.peer == listener.address
    assert served.peer is not None
    again = world.connect(client.peer)
    await world.accept(listener)
    await world.up(again)


@ORIGINAL
async def test_local_address_is_where_the_dial_comes_from(world):
    port = world.reserved_port()
    port.close()
    for local, expected in (("127.0.0.2", "127.0.0.2:"), (port.address, port.address)):
        server = world.raw_listener()
        world.connect(server.address, local_address=local)
        peer = await world.outside(server.accept)
        assert "{}:{}".format(*peer.socket.getpeername()).startswith(expected)


# What a handle says of itself


async def test_wait_connected_takes_nothing(world):
    port = world.reserved_port()
    conn = world.connect(port.address)
    waiting = world.spawn(world.wait_connected(conn))
    await world.eventually(lambda: conn.state is State.DISCONNECTED)
    listener = world.listen(port.port)
    up = await world.join(waiting)
    assert isinstance(up, Connected)
    assert await world.wait_connected(conn) == up
    served = await world.accept(listener)
    assert isinstance(await world.wait_connected(served), Connected)
    await world.down(conn)
    await world.up(conn)


async def test_wait_connected_returns_closed_if_the_handle_ends(world):
    conn = world.connect(world.reserved_port().address)
    waiting = world.spawn(world.wait_connected(conn))
    await world.settle(waiting)
    world.start_close(conn)
    assert isinstance(await world.join(waiting), Closed)
    assert await world.wait_connected(conn) == await world.wait_closed(conn)


@ORIGINAL
async def test_wait_closed_returns_the_closed_value(world):
    conn, peer = await world.answered()
    waiting = world.spawn(world.wait_closed(conn))
    await world.settle(waiting)
    peer.close()
    end = await world.join(waiting)
    assert end.reason is world.farewell
    assert await world.end(conn) == end


@ORIGINAL
async def test_state_follows_the_life_of_a_dialler(world):
    port = world.reserved_port()
    conn = world.connect(port.address)
    assert conn.state in (State.CONNECTING, State.DISCONNECTED)
    await world.eventually(lambda: conn.state is State.DISCONNECTED)
    server = world.raw_listener(port.port)
    peer = await world.outside(server.accept)
    await world.wait_connected(conn)
    assert conn.state is State.CONNECTED
    await world.send(conn, b"x" * 100)
    server.close()
    await world.eventually(lambda: conn.state is State.DISCONNECTED)
    await world.send(conn, b"held")
    world.start_close(conn)
    assert conn.state is State.CLOSING
    conn.abort()
    await world.wait_closed(conn)
    assert conn.state is State.CLOSED
    assert peer.socket.fileno() == -1


@ORIGINAL
async def test_state_is_connecting_while_nothing_was_shown_yet(world):
    server = world.raw_listener(backlog=0)
    await world.outside(server.fill)
    conn = world.connect(server.address, open_timeout=20, close_timeout=0.1)
    assert conn.state is State.CONNECTING
    await world.stays_quiet(conn)
    assert conn.state is State.CONNECTING


@ORIGINAL
async def test_an_accepted_connection_is_connected_then_closed(world):
    conn, peer = await world.answered()
    assert conn.state is State.CONNECTED
    peer.close()
    await world.end(conn)
    assert conn.state is State.CLOSED


@ORIGINAL
async def test_stats_hold_their_equations_and_count_both_directions(world):
    conn, peer, _ = await world.dialled()
    await world.send(conn, b"12345", b"678")
    peer.send(b"abc", b"d", b"ef")
    assert await world.take(conn, 2) == [b"abc", b"d"]
    await world.flush(conn)
    await world.arrived(conn, 3)
    stats = await world.balanced(conn)
    assert (stats.accepted, stats.confirmed, stats.queued) == (2, 2, 0)
    assert (stats.received, stats.consumed, stats.waiting) == (3, 2, 1)
    assert (stats.bytes_sent, stats.bytes_received) == (4 + 5 + 4 + 3, 3 * 4 + 6)
    assert (stats.links, stats.attempts) == (1, 1)


@ORIGINAL
async def test_the_session_of_the_originals_wire_is_none(world):
    conn, _, _ = await world.dialled()
    assert conn.session is None


@ORIGINAL
async def test_an_item_waiting_at_close_is_discarded_and_counted(world):
    conn, peer = await world.answered()
    peer.send(b"1", b"2", b"3")
    await world.arrived(conn, 3)
    assert await world.recv(conn) == b"1"
    world.start_close(conn)
    peer.close()
    await world.end(conn)
    assert (conn.stats().consumed, conn.stats().read_dropped) == (1, 2)


# Who ends a handle


@ORIGINAL
async def test_a_dialler_outlives_its_peer(world):
    conn, peer, server = await world.dialled()
    peer.close()
    assert (await world.down(conn)).reason is world.farewell
    again = await world.outside(server.accept)
    await world.up(conn)
    await world.send(conn, b"still here")
    assert await world.outside(again.recv) == b"still here"


@ORIGINAL
async def test_without_reconnect_the_first_break_ends_a_dialler(world):
    conn, peer, _ = await world.dialled(reconnect=None)
    peer.close()
    down = await world.down(conn)
    assert (down.reason, down.retry_in) == (Reason.EOF, None)
    assert (await world.end(conn)).reason is world.farewell


async def test_without_reconnect_the_first_failed_dial_ends_a_dialler(world):
    conn = world.connect(world.reserved_port().address, reconnect=None)
    down = await world.down(conn)
    assert (down.reason, down.retry_in) == (Reason.REFUSED, None)
    assert down.attempt == 1
    assert (await world.end(conn)).reason is Reason.REFUSED


@ORIGINAL
async def test_sending_on_a_handle_that_has_ended_is_a_closed_error(world):
    for conn, peer in (await world.answered(), (await world.dialled(reconnect=None))[:2]):
        peer.close()
        await world.wait_closed(conn)
        for sending in (world.send(conn, b"x"), world.send_many(conn, [b"x"]), world.flush(conn)):
            with pytest.raises(ClosedError):
                await sending
        with pytest.raises(ClosedError):
            conn.send_nowait(b"x")


@ORIGINAL
async def test_sending_is_a_closed_error_from_the_closing_call_on(world):
    conn, peer, _ = await world.dialled()
    await world.send(conn, b"before")
    world.start_close(conn)
    with pytest.raises(ClosedError):
        await world.send(conn, b"after")
    assert await world.outside(peer.messages_to_end) == [b"before"]


async def test_a_send_that_waits_for_room_is_told_when_the_handle_ends(world):
    conn = world.connect(world.reserved_port().address, write_buffer=1, close_timeout=0.1)
    await world.send(conn, b"fills")
    waiting = [world.spawn(world.send(conn, b"waits")), world.spawn(world.flush(conn))]
    for one in waiting:
        await world.settle(one)
    world.start_close(conn)
    for one in waiting:
        with pytest.raises(ClosedError):
            await world.join(one)


async def test_a_handle_dropped_without_close_is_closed_with_a_resource_warning(world):
    listener = world.listen(0)
    conn = world.connect(listener.address, watch=False)
    served = await world.accept(listener)
    await world.up(served)
    await world.send(conn, b"accepted before")
    with pytest.warns(ResourceWarning, match="without close"):
        del conn
        gc.collect()
    assert await world.recv(served) == b"accepted before"
    assert (await world.end(served)).reason is world.farewell


@ORIGINAL
async def test_a_handle_that_has_ended_may_be_dropped_without_a_word(world):
    server = world.raw_listener()
    conn = world.connect(server.address, watch=False, reconnect=None)
    (await world.outside(server.accept)).close()
    await world.wait_closed(conn)
    del conn
    gc.collect()  # a warning would be an error here
    assert world.runtime.running


async def test_a_name_shows_in_the_repr(world):
    listener = world.listen(0, name="the server")
    conn = world.connect(listener.address, name="the client")
    assert "the client" in repr(conn)
    assert "the server" in repr(listener)
    assert "the server" in repr(await world.accept(listener))
