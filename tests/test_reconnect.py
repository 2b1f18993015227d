"""Reconnecting: a dialler comes back, in its own time, and loses nothing that it had not begun to send."""

import contextlib
import itertools
import socket

import pytest

from netasync import Backoff, Buffer, ClosedError, Disconnected, Reason, State
from support.faces import aio
from support.grammar import spell
from support.wires import ORIGINAL


@ORIGINAL
async def test_the_client_may_start_long_before_the_server(world):
    port = world.reserved_port()
    conn = world.connect(port.address, reconnect=0.01)
    await world.send(conn, b"queued", b"in order")
    await world.eventually(lambda: conn.stats().attempts >= 10)
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(peer.recv_many, 2) == [b"queued", b"in order"]
    down, up = await world.take(conn, 2)
    assert down.reason is Reason.REFUSED
    assert up.attempt > 10


@ORIGINAL
async def test_an_outage_is_one_disconnected_however_many_dials_fail(world):
    conn, peer, server = await world.dialled(reconnect=0.01)
    server.close()
    attempts = conn.stats().attempts
    await world.eventually(lambda: conn.stats().attempts >= attempts + 5)
    assert isinstance(await world.recv(conn), Disconnected)
    await world.stays_quiet(conn)
    assert conn.state is State.DISCONNECTED
    assert peer.socket.fileno() == -1


@ORIGINAL
async def test_disconnected_says_how_many_dials_failed_and_when_the_next_begins(world):
    conn, peer, server = await world.dialled(reconnect=7)
    server.close()
    broken = await world.down(conn)
    assert (broken.attempt, broken.unconfirmed) == (0, 0)
    assert 0 < broken.retry_in <= 7
    assert peer.socket.fileno() == -1

    failed = world.connect(world.reserved_port().address, reconnect=7)
    await world.send(failed, b"1", b"2")
    down = await world.down(failed)
    assert (down.attempt, down.reason) == (1, Reason.REFUSED)
    assert 0 < down.retry_in <= 7
    assert failed.stats().queued == 2
    failed.abort()


@ORIGINAL
async def test_disconnected_says_how_many_messages_are_unconfirmed(world):
    server = world.raw_listener(receive_buffer=16_384)
    conn = world.connect(server.address, max_size=2**26, write_buffer=Buffer.fixed(9, max_bytes=2**26))
    peer = await world.outside(server.accept)
    await world.up(conn)
    await world.send(conn, b"x" * 2**24)
    await world.send(conn, b"y")
    assert await world.outside(peer.recv_exactly, 4)
    peer.reset()
    assert (await world.down(conn)).unconfirmed == 2
    conn.abort()


@ORIGINAL
async def test_connected_says_which_dial_succeeded_and_counts_each_outage_afresh(world):
    port = world.reserved_port()
    server = world.raw_listener(port.port)
    conn = world.connect(port.address, reconnect=0.01)
    await world.outside(server.accept)
    assert (await world.up(conn)).attempt == 1
    server.close()
    await world.down(conn)
    before = conn.stats().attempts
    await world.eventually(lambda: conn.stats().attempts >= before + 3)
    server = world.raw_listener(port.port)
    await world.outside(server.accept)
    up = await world.up(conn)
    assert up.attempt >= 3
    assert up.attempt == conn.stats().attempts - before


@ORIGINAL
async def test_reconnecting_never_waits_for_the_application_to_read(world):
    server = world.raw_listener()
    conn = world.connect(server.address, reconnect=0.01, read_buffer=Buffer.fixed(1))
    peer = await world.outside(server.accept)
    for _ in range(10):
        peer.close()
        peer = await world.outside(server.accept)
    await world.eventually(lambda: conn.stats().links == 11)
    await world.send(conn, b"fresh")
    assert await world.outside(peer.recv) == b"fresh"
    assert spell(await world.take(conn, 3)) == "CDC"
    await world.stays_quiet(conn)


@ORIGINAL
async def test_values_that_nobody_has_taken_merge_but_never_across_a_message(world):
    server = world.raw_listener()
    conn = world.connect(server.address, reconnect=0.01)
    peer = await world.outside(server.accept)
    for link in range(4):
        peer.send(b"%d" % link)
        for _ in range(3):
            peer.half_close()
            peer = await world.outside(server.accept)
    await world.eventually(lambda: conn.stats().links == 13)
    await world.arrived(conn, 4)
    items = await world.take(conn, 1 + 4 * 3)
    assert spell(items) == "C" + "MDC" * 4
    await world.stays_quiet(conn)


@ORIGINAL
async def test_what_was_received_before_a_break_is_taken_before_the_break(world):
    conn, peer, _ = await world.dialled()
    sent = [b"%d" % number for number in range(1000)]
    peer.send(*sent)
    peer.close()
    assert await world.take(conn, 1000) == sent
    await world.down(conn)


@ORIGINAL
async def test_a_server_that_restarts_again_and_again_gets_what_is_sent_in_between(world):
    port = world.reserved_port()
    conn = world.connect(port.address, reconnect=0.01)
    for round_ in range(15):
        await world.send(conn, b"%d" % round_)
        server = world.raw_listener(port.port)
        peer = await world.outside(server.accept)
        assert await world.outside(peer.recv) == b"%d" % round_
        links = conn.stats().links
        server.close()
        await world.eventually(
            lambda links=links: conn.state is State.DISCONNECTED or conn.stats().links > links
        )


@ORIGINAL
async def test_each_attempt_tries_the_addresses_of_a_name_again(world):
    port = world.reserved_port()
    conn = world.connect(f"localhost:{port.port}", reconnect=0.01)
    await world.down(conn)
    peer = await world.outside(world.raw_listener(port.port).accept)
    await world.up(conn)
    assert peer.socket.fileno() >= 0


async def test_a_name_that_does_not_resolve_is_a_value_and_a_retry(world):
    world.may_leave_lookups = True
    conn = world.connect("no-such-host.invalid:9", reconnect=20, close_timeout=0.1)
    down = await world.down(conn)
    assert down.reason is Reason.NAME_NOT_FOUND
    assert down.retry_in is not None
    assert conn.state is State.DISCONNECTED


async def test_connect_returns_while_the_name_is_still_looked_up(world):
    world.may_leave_lookups = True
    conns = [world.connect("no-such-host.invalid:9", close_timeout=0.1) for _ in range(5)]
    assert all(conn.state in (State.CONNECTING, State.DISCONNECTED) for conn in conns)


@ORIGINAL
async def test_a_dial_that_nobody_answers_is_an_open_timeout(world):
    server = world.raw_listener(backlog=0)
    await world.outside(server.fill)
    conn = world.connect(server.address, open_timeout=0.2)
    assert (await world.down(conn)).reason is Reason.OPEN_TIMEOUT


async def test_a_dial_whose_two_ends_are_one_socket_counts_as_refused(world):
    port = world.reserved_port()
    port.close()
    conn = world.connect(port.address, local_address=port.address, reconnect=0.05)
    assert (await world.down(conn)).reason is Reason.REFUSED
    before = conn.stats().attempts
    await world.eventually(lambda: conn.stats().attempts > before + 2)
    assert conn.stats().links == 0


async def test_a_dial_that_has_met_itself_leaves_its_port_to_everybody(world):
    for _ in range(10):
        port = world.reserved_port()
        port.close()
        conn = world.connect(port.address, local_address=port.address, reconnect=600)
        assert (await world.down(conn)).detail == "dialled itself"
        with socket.socket() as server:
            # Without SO_REUSEADDR: not even a connection that has ended may keep it.
            server.bind(("127.0.0.1", port.port))
            server.listen()
        aio(conn).abort()


async def test_full_jitter_waits_differ_and_stay_below_their_bound(world):
    waits = []
    for _ in range(30):
        conn = world.connect(world.reserved_port().address, reconnect=Backoff(initial=5, maximum=5))
        waits.append((await world.down(conn)).retry_in)
        conn.abort()
        await world.wait_closed(conn)
    assert all(0 <= wait <= 5 for wait in waits)
    assert len(set(waits)) > 20
    assert max(waits) - min(waits) > 0.5


async def test_a_plain_number_is_a_fixed_period(world):
    for period in (3, 4.5):
        conn = world.connect(world.reserved_port().address, reconnect=period)
        assert (await world.down(conn)).retry_in == pytest.approx(period)
        conn.abort()


async def test_the_wait_grows_by_its_factor_up_to_its_maximum(world):
    conn = world.connect(
        world.reserved_port().address,
        reconnect=Backoff(initial=0.02, factor=2, maximum=0.08, jitter="none"),
        close_timeout=0.1,
    )
    await world.eventually(lambda: conn.stats().attempts >= 6)
    down = await world.down(conn)
    assert down.attempt >= 1
    assert down.retry_in == pytest.approx(min(0.02 * 2 ** (down.attempt - 1), 0.08), abs=0.001)


@ORIGINAL
async def test_links_cut_at_any_byte_keep_the_order_and_double_nothing(world, seeded):
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, reconnect=0.01)
    asked, answered = [], []

    async def answer():
        async for conn in world.accepted_by(listener):
            async for item in world.items(conn):
                if isinstance(item, bytes):
                    asked.append(item)
                    with contextlib.suppress(ClosedError):
                        await world.send(conn, item)

    async def listen_to_answers():
        answered.extend([item async for item in world.items(client) if isinstance(item, bytes)])

    beside = [world.spawn(answer()), world.spawn(listen_to_answers())]
    numbers = itertools.count()
    for cut in range(1, 15):
        where, how = seeded.choice(["up", "down"]), seeded.choice(["fin", "rst"])
        proxy.cut_after(seeded.randrange(1, 3000), where, how)
        while proxy.accepted <= cut:
            await world.send(client, b"%d" % next(numbers) + b"." * seeded.randrange(50))
            await world.wait_connected(client)
            await world.face.pause(0.001)
    world.start_close(client)
    assert (await world.wait_closed(client)).reason is Reason.CLOSED_HERE
    world.start_close(listener)
    for one in beside:
        await world.join(one)

    assert len(asked) > 15
    for received in (asked, answered):
        order = [int(data.partition(b".")[0]) for data in received]
        assert order == sorted(set(order)), "out of order or twice"
    assert client.stats().consumed == len(answered)
