"""Each row of the table "From net.async to netasync": the original's words, awaited and blocking."""

import pytest

from netasync import (
    Backoff,
    Buffer,
    Closed,
    ClosedError,
    Connected,
    Disconnected,
    Reason,
    Runtime,
    State,
)
from support.faces import aio, blocking
from support.process import native_threads, run_script
from support.wires import ORIGINAL

# (event-loop)


def test_a_runtime_is_a_handle_and_not_a_thread_of_its_own():
    before = native_threads()
    runtime = Runtime()
    assert native_threads() == before
    runtime.blocking.shutdown()


def test_without_a_runtime_a_process_wide_default_starts_at_the_first_connect_or_listen():
    for first in ("listen(0)", "connect('127.0.0.1:1')"):
        said = run_script(f"""
            import os
            count = lambda: len(os.listdir("/proc/self/task"))
            import netasync.blocking
            print(count())
            handle = netasync.blocking.{first}
            print(count() > 1)
            other = netasync.blocking.connect("127.0.0.1:1")
            print(count())
            other.close(); handle.close()
        """).split()
        assert said[:2] == ["1", "True"], (first, said)
        assert int(said[2]) >= 2, (first, said)


# (shutdown! loop)


@ORIGINAL
async def test_shutdown_tells_every_reader_writer_and_accepter_and_frees_the_ports(world):
    client, served, listener = await world.pair(connect={"write_buffer": Buffer.fixed(1)})
    offline = world.connect(world.reserved_port().address, write_buffer=1)
    await world.down(offline)
    await world.send(offline, b"fills the buffer")
    reader = world.spawn(world.recv(served))
    writer = world.spawn(world.send(offline, b"waits for room"))
    accepter = world.spawn(world.accept(listener))
    for waiting in (reader, writer, accepter):
        await world.settle(waiting)

    await world.shutdown(world.runtime, timeout=0.3)

    assert (await world.join(reader)).reason is Reason.SHUTDOWN
    assert (await world.join(accepter)).reason is Reason.SHUTDOWN
    with pytest.raises(ClosedError):
        await world.join(writer)
    assert (await world.end(client)).reason is Reason.SHUTDOWN
    world.raw_listener(int(listener.address.rpartition(":")[2]))  # binds: the port is free


# :running?


async def test_running_says_whether_the_runtime_is_still_there(world):
    await world.pair()
    assert world.runtime.running
    assert world.runtime.blocking.running
    await world.shutdown(world.runtime)
    assert not world.runtime.running
    assert not world.runtime.blocking.running


# (connect loop {:host :port}) -> {:read-chan :write-chan}


async def test_connect_returns_at_once_and_the_server_may_start_later(world):
    port = world.reserved_port()
    conn = world.connect(port.address)
    assert conn.state in (State.CONNECTING, State.DISCONNECTED)
    assert conn.read_chan is not None
    assert conn.write_chan is not None
    assert (await world.down(conn)).reason is Reason.REFUSED

    listener = world.listen(port.port)
    served = await world.accept(listener)

    await world.up(conn)
    assert conn.state is State.CONNECTED
    await world.up(served)


# (accept loop {:port}) -> {:accept-chan}


@ORIGINAL
async def test_listen_binds_before_it_returns_and_a_taken_port_is_an_oserror(world):
    listener = world.listen(0)
    peer = await world.raw_dial(listener.address)  # nobody accepts yet, and the dial goes through
    with pytest.raises(OSError, match=r"(?i)in use"):
        world.listen(listener.address)
    served = await world.accept(listener, via=listener.accept_chan)
    assert (await world.up(served)).peer == peer.address


# (<!! read-chan), (<! read-chan)


@ORIGINAL
async def test_recv_takes_the_next_item_of_the_read_channel(world):
    conn, peer = await world.answered()
    peer.send(b"one", b"two")
    assert await world.recv(conn) == b"one"
    assert await world.recv(conn, via=conn.read_chan) == b"two"


@ORIGINAL
async def test_recv_waits_for_what_has_not_arrived_yet(world):
    conn, peer = await world.answered()
    reader = world.spawn(world.recv(conn))
    await world.settle(reader)
    peer.send(b"late")
    assert await world.join(reader) == b"late"


# :connected, :disconnected, :closed, <payload>


@ORIGINAL
async def test_connected_disconnected_closed_and_bytes_come_in_order_with_the_messages(world):
    server = world.raw_listener()
    conn = world.connect(server.address)
    first = await world.outside(server.accept)
    first.send(b"a", b"b")
    first.close()
    second = await world.outside(server.accept)
    second.send(b"c")
    second.half_close()
    third = await world.outside(server.accept)

    assert isinstance(await world.recv(conn), Connected)
    assert await world.take(conn, 2) == [b"a", b"b"]
    assert isinstance(await world.recv(conn), Disconnected)
    assert isinstance(await world.recv(conn), Connected)
    assert await world.recv(conn) == b"c"
    assert isinstance(await world.recv(conn), Disconnected)
    assert isinstance(await world.recv(conn), Connected)
    third.close()
    world.start_close(conn)
    assert isinstance(await world.recv(conn), Closed)


# (>!! write-chan payload), (>! write-chan payload)


@ORIGINAL
async def test_send_puts_a_payload_into_the_write_channel(world):
    conn, peer = await world.answered()
    assert await world.send(conn, b"by the handle") is True
    assert await world.send(conn.write_chan, b"by the channel") is True
    assert await world.outside(peer.recv_many, 2) == [b"by the handle", b"by the channel"]


# (close! write-chan)


@ORIGINAL
async def test_closing_the_write_channel_closes_and_delivers_what_was_accepted_first(world):
    conn, peer, _ = await world.dialled()
    payloads = [b"%d" % number * 1000 for number in range(300)]
    assert await world.send_many(conn, payloads) == 300
    aio(conn).write_chan.close()
    received = await world.outside(peer.messages_to_end)
    peer.close()
    assert received == payloads
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


# (close! accept-chan)


@ORIGINAL
async def test_closing_the_accept_channel_really_stops_listening(world):
    listener = world.listen(0)
    aio(listener).accept_chan.close()
    end = await world.wait_closed(listener)
    assert end.reason is Reason.CLOSED_HERE
    assert await world.accept(listener) == end
    with pytest.raises(ConnectionRefusedError):
        await world.raw_dial(listener.address)


# (chan n), (dropping-buffer n), (sliding-buffer n)


@ORIGINAL
@pytest.mark.parametrize(
    ("buffer", "answers", "kept"),
    [
        pytest.param(Buffer.dropping(3), [True] * 3 + [False] * 2, [b"0", b"1", b"2"], id="dropping"),
        pytest.param(Buffer.sliding(3), [True] * 5, [b"2", b"3", b"4"], id="sliding"),
    ],
)
async def test_dropping_refuses_the_newest_and_sliding_discards_the_oldest_and_both_count(
    world, buffer, answers, kept
):
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=buffer)
    assert [await world.send(conn, b"%d" % number) for number in range(5)] == answers
    stats = conn.stats()
    assert (stats.accepted, stats.queued, stats.write_dropped) == (5, 3, 2)
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(peer.recv_many, 3) == kept


async def test_a_fixed_buffer_makes_the_sender_wait(world):
    conn = world.connect(world.reserved_port().address, write_buffer=Buffer.fixed(2), close_timeout=0.1)
    await world.send(conn, b"1", b"2")
    with pytest.raises(TimeoutError):
        await world.send(conn, b"3", timeout=0.1)
    assert conn.stats().queued == 2


# :read-chan, :write-chan


@ORIGINAL
async def test_read_buffer_and_write_buffer_are_chosen_by_the_dialler(world):
    conn, peer, server = await world.dialled(
        read_buffer=Buffer.sliding(2),
        write_buffer=Buffer.dropping(1),
        reconnect=Backoff(initial=20, maximum=20),
    )
    peer.send(b"1", b"2", b"3")
    await world.arrived(conn, 3)
    assert await world.take(conn, 2) == [b"2", b"3"]
    assert conn.stats().read_dropped == 1
    server.close()
    await world.down(conn)
    assert await world.send(conn, b"kept") is True
    assert await world.send(conn, b"refused") is False
    conn.abort()


# :accept-chan (chan 2)


@ORIGINAL
async def test_accept_buffer_says_how_many_connections_may_wait_to_be_accepted(world):
    listener = world.listen(0, accept_buffer=2)
    for _ in range(4):
        (await world.raw_dial(listener.address)).send(b"hello")
    await world.eventually(lambda: listener.stats().waiting == 2)
    assert listener.stats().waiting == 2
    for _ in range(4):
        served = await world.accept(listener)
        await world.up(served)
        assert await world.recv(served) == b"hello"


@ORIGINAL
@pytest.mark.parametrize("policy", [Buffer.dropping, Buffer.sliding], ids=["dropping", "sliding"])
async def test_a_lossy_accept_buffer_refuses_the_newest_or_ends_the_oldest(world, policy):
    listener = world.listen(0, accept_buffer=policy(2))
    peers = [await world.raw_dial(listener.address) for _ in range(3)]
    await world.eventually(lambda: listener.stats().refused == 1 and listener.stats().waiting == 2)
    kept = peers[:2] if policy == Buffer.dropping else peers[1:]
    assert [(await world.up(await world.accept(listener))).peer for _ in kept] == [p.address for p in kept]


# :read-chan-fn, :write-chan-fn


@ORIGINAL
async def test_each_accepted_connection_gets_its_own_buffer(world):
    listener = world.listen(0, read_buffer=Buffer.dropping(2))
    peers = [await world.raw_dial(listener.address) for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.send(*[b"%d %d" % (number, nth) for nth in range(number + 1)])
    conns = [await world.accept(listener) for _ in peers]
    for conn in conns:
        number = [peer.address for peer in peers].index((await world.up(conn)).peer)
        await world.arrived(conn, number + 1)
        kept = [b"%d %d" % (number, nth) for nth in range(min(2, number + 1))]
        assert await world.take(conn, len(kept)) == kept
        assert conn.stats().read_dropped == number + 1 - len(kept)


# :reconnect-period


@ORIGINAL
@pytest.mark.parametrize("reconnect", [0.03, Backoff(initial=0.01, maximum=0.05)], ids=["seconds", "backoff"])
async def test_reconnect_takes_a_back_off_or_a_plain_number_of_seconds(world, reconnect):
    conn, peer, server = await world.dialled(reconnect=reconnect)
    peer.close()
    down = await world.down(conn)
    assert down.reason is world.farewell
    assert down.attempt == 0
    assert 0 <= down.retry_in <= 0.05
    await world.outside(server.accept)
    assert (await world.up(conn)).attempt == 1


# :heartbeat-period, :heartbeat-timeout


@ORIGINAL
async def test_heartbeat_interval_and_timeout_are_seconds(world):
    conn, peer, _ = await world.dialled(heartbeat_interval=0.05, heartbeat_timeout=0.3)
    await world.outside(peer.recv_heartbeats, 3)
    assert (await world.down(conn)).reason is Reason.HEARTBEAT_TIMEOUT


async def test_both_faces_are_one_connection(world):
    client, served, listener = await world.pair()
    assert aio(blocking(client)) is aio(client)
    assert blocking(aio(client)) is blocking(client)
    assert aio(blocking(listener)) is aio(listener)
    await world.send(client, b"either way")
    assert await world.recv(served) == b"either way"


# alts!, alts!! over channels


@ORIGINAL
async def test_select_takes_one_item_from_the_first_channel_that_has_one(world):
    listener = world.listen(0)
    peers = [await world.raw_dial(listener.address) for _ in range(2)]
    conns = [await world.accept(listener) for _ in peers]
    chans = [conn.read_chan for conn in conns]
    for conn in conns:
        await world.up(conn)
    waiting = world.spawn(world.select(*chans, listener.accept_chan))
    await world.settle(waiting)
    peers[1].send(b"first")
    chan, item = await world.join(waiting)
    assert chan is chans[1]
    assert item == b"first"

    dialled = await world.raw_dial(listener.address)
    chan, conn = await world.select(*chans, listener.accept_chan)
    assert chan == listener.accept_chan
    assert conn.peer == dialled.address
    with pytest.raises(TimeoutError):
        await world.select(*chans, listener.accept_chan, timeout=0.05)
