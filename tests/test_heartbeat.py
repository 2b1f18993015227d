"""Heartbeats and deadlines: who is silent is found, who is only slow is left alone."""

import signal
import subprocess

import pytest

from netasync import Buffer, Reason, State
from support.peer import HEARTBEAT, frame, header
from support.process import script_command
from support.waiting import pause
from support.wires import ORIGINAL

#: Timers that find a silent peer soon.
SHORT = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.25}

#: Timers for a peer that must not be taken for dead: a loaded machine may hold a thread up for a while.
PATIENT = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.8}


@ORIGINAL
async def test_a_heartbeat_goes_out_when_nothing_was_written_for_the_interval(world):
    conn, peer, _ = await world.dialled(heartbeat_interval=0.05)
    assert await world.outside(peer.recv_exactly, 12) == HEARTBEAT * 3
    assert conn.stats().accepted == 0
    served, peer = await world.answered(heartbeat_interval=0.05)
    assert await world.outside(peer.recv_exactly, 12) == HEARTBEAT * 3
    assert served.state is State.CONNECTED


@ORIGINAL
async def test_no_heartbeat_goes_out_while_messages_do(world):
    conn, peer, _ = await world.dialled(heartbeat_interval=2)
    for _ in range(30):
        await world.send(conn, b"x")
        await world.face.pause(0.01)
    await world.outside(peer.recv_many, 30)
    assert peer.heartbeats == 0


@ORIGINAL
async def test_heartbeats_and_messages_never_mix_within_a_frame(world):
    conn, peer, _ = await world.dialled(heartbeat_interval=0.02)
    for number in range(40):
        await world.send(conn, b"%d" % number * 30_000)
        if number % 4 == 0:
            await world.face.pause(0.03)
    assert await world.outside(peer.recv_many, 40) == [b"%d" % number * 30_000 for number in range(40)]


@ORIGINAL
async def test_a_silent_peer_is_found_by_a_dialler_that_dials_again(world):
    conn, peer, server = await world.dialled(**SHORT)
    down = await world.down(conn)
    assert (down.reason, down.attempt) == (Reason.HEARTBEAT_TIMEOUT, 0)
    await world.outside(server.accept)
    await world.up(conn)
    assert peer.socket.fileno() >= 0


@ORIGINAL
async def test_a_silent_peer_ends_an_accepted_connection(world):
    conn, _ = await world.answered(**SHORT)
    assert (await world.end(conn)).reason is Reason.HEARTBEAT_TIMEOUT


@ORIGINAL
async def test_a_handle_that_nobody_reads_still_finds_a_silent_peer(world):
    conn, _ = await world.answered(**SHORT)
    assert (await world.wait_closed(conn)).reason is Reason.HEARTBEAT_TIMEOUT


@ORIGINAL
async def test_a_handle_that_nobody_reads_still_notices_a_hang_up(world):
    conn, peer, server = await world.dialled()
    peer.close()
    again = await world.outside(server.accept)
    again.close()
    await world.outside(server.accept)
    assert conn.stats().links >= 2


@ORIGINAL
async def test_heartbeats_alone_keep_a_link_up(world):
    conn, peer = await world.answered(**PATIENT)
    peer.beat(0.05)
    await world.stays_quiet(conn, 1.5)
    assert conn.state is State.CONNECTED


@ORIGINAL
async def test_any_byte_received_counts_as_life(world):
    conn, peer = await world.answered(**PATIENT)
    payload = bytes(8000)
    flowing = world.spawn(world.outside(flow, peer, frame(payload), 500, 0.1))  # 1.6 s, and no whole message
    assert await world.recv(conn) == payload
    await world.join(flowing)


async def test_two_idle_handles_keep_each_other_alive(world):
    client, served, _ = await world.pair(listen=PATIENT, connect=PATIENT)
    await world.stays_quiet(client, 1.5)
    await world.send(served, b"still the first link")
    assert await world.recv(client) == b"still the first link"


async def test_an_idle_handle_that_nobody_reads_keeps_its_link(world):
    client, served, _ = await world.pair(listen=PATIENT, connect=PATIENT)
    await world.face.pause(1.5)
    assert client.stats().links == 1
    await world.send(client, b"same link")
    assert await world.recv(served) == b"same link"


# A slow or absent reader is never taken for a dead peer.


@ORIGINAL
async def test_a_peer_is_not_judged_while_the_read_buffer_is_full(world):
    conn, peer = await world.answered(**PATIENT, read_buffer=Buffer.fixed(4))
    sent = [b"%d" % number for number in range(10)]
    peer.send(*sent)
    await world.eventually(lambda: conn.stats().waiting >= 4)
    await world.face.pause(1.5)  # and the peer is silent all the time
    assert conn.state is State.CONNECTED
    assert await world.take(conn, 10) == sent


@ORIGINAL
async def test_nor_in_the_middle_of_a_frame(world):
    conn, peer = await world.answered(**PATIENT, read_buffer=Buffer.fixed(2))
    last = b"x" * 400_000
    peer.send(b"1", b"2", b"3")
    await world.eventually(lambda: conn.stats().waiting >= 2)
    wire = frame(last)
    peer.send_bytes(wire[:100])
    await world.face.pause(1.5)
    assert conn.state is State.CONNECTED
    rest = world.spawn(world.outside(peer.send_bytes, wire[100:]))
    assert await world.take(conn, 4) == [b"1", b"2", b"3", last]
    await world.join(rest)


@ORIGINAL
async def test_silence_is_judged_again_once_reading_goes_on(world):
    conn, peer = await world.answered(**SHORT, read_buffer=Buffer.fixed(1))
    peer.send(b"1", b"2", b"3")
    await world.face.pause(0.6)
    assert await world.take(conn, 3) == [b"1", b"2", b"3"]
    assert (await world.end(conn)).reason is Reason.HEARTBEAT_TIMEOUT


@ORIGINAL
async def test_a_peer_that_does_not_read_is_not_judged(world):
    conn, peer, _ = await world.dialled(
        **PATIENT, write_buffer=Buffer.fixed(100, max_bytes=2**26), close_timeout=0.2
    )
    for _ in range(4):
        await world.send(conn, b"x" * 2**23)
    peer.beat(0.05)
    await world.stays_quiet(conn, 1.5)
    assert conn.state is State.CONNECTED
    assert await world.outside(peer.recv_many, 4) == [b"x" * 2**23] * 4


@ORIGINAL
async def test_a_stuck_write_does_not_stop_receiving(world):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(100, max_bytes=2**26), close_timeout=0.2)
    for _ in range(4):
        await world.send(conn, b"x" * 2**23)
    peer.send(b"still heard")
    assert await world.recv(conn) == b"still heard"


# Nor is a peer whose Python is busy, or whose loop is blocked.


@ORIGINAL
async def test_a_blocked_application_keeps_its_link_and_its_peer_hears_it(world):
    conn, peer = await world.answered(**PATIENT)
    peer.beat(0.05)
    pause(1.5)  # in the loop's own thread: it is blocked
    await world.outside(peer.recv_heartbeats, 10)
    assert conn.state is State.CONNECTED
    peer.send(b"and goes on")
    assert await world.recv(conn) == b"and goes on"


@ORIGINAL
async def test_what_arrives_while_the_application_is_blocked_is_not_lost(world):
    conn, peer = await world.answered(**PATIENT)
    sent = [b"%d" % number for number in range(20)]
    for data in sent:
        peer.send(data)
        pause(0.1)
    assert await world.take(conn, 20) == sent


async def test_busy_python_keeps_its_link(world):
    client, served, _ = await world.pair(listen=PATIENT, connect=PATIENT)
    for _ in range(2):
        sum(number * number for number in range(6_000_000))  # holds the interpreter, never waits
    await world.send(client, b"same link")
    assert await world.recv(served) == b"same link"
    assert client.stats().links == 1


# A stopped process is found.


ECHO = """
    import sys, netasync.blocking as na
    conn = na.connect(sys.argv[1], heartbeat_interval=0.05, protocol=sys.argv[2])
    for item in conn:
        if isinstance(item, bytes):
            conn.send(item)
"""


async def test_a_stopped_process_is_found(world):
    listener = world.listen(0, **PATIENT)
    with subprocess.Popen(
        script_command(ECHO, listener.address, world.wire), stderr=subprocess.DEVNULL
    ) as echo:
        try:
            conn = await world.accept(listener)
            await world.up(conn)
            await world.send(conn, b"there?")
            assert await world.recv(conn) == b"there?"
            echo.send_signal(signal.SIGSTOP)
            assert (await world.lost(conn)).reason is Reason.HEARTBEAT_TIMEOUT
        finally:
            echo.kill()


async def test_a_black_hole_is_found_and_left_behind(world):
    listener = world.listen(0, **SHORT)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, **SHORT)
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    proxy.hold()
    assert (await world.down(client)).reason is Reason.HEARTBEAT_TIMEOUT
    assert (await world.lost(served)).reason is Reason.HEARTBEAT_TIMEOUT
    proxy.resume()
    await world.eventually(lambda: client.state is State.CONNECTED)
    await world.send(client, b"on a new link")
    await world.eventually(lambda: proxy.accepted >= 2)


# Frame deadline.


@ORIGINAL
async def test_a_frame_dripped_to_look_alive_is_a_slow_frame(world):
    conn, peer = await world.answered(**SHORT)
    dripping = world.spawn(world.outside(peer.drip, header(100_000) + bytes(1000), 0.02))
    assert (await world.end(conn)).reason is Reason.SLOW_FRAME
    assert await world.join(dripping) < 1004


@ORIGINAL
async def test_a_dripped_header_is_a_slow_frame_too(world):
    conn, peer = await world.answered(heartbeat_interval=0.05, heartbeat_timeout=0.2)
    dripping = world.spawn(world.outside(peer.drip, header(1000), 0.15))
    assert (await world.end(conn)).reason in (Reason.SLOW_FRAME, Reason.HEARTBEAT_TIMEOUT)
    await world.join(dripping)


@ORIGINAL
async def test_a_large_frame_that_keeps_flowing_is_no_slow_frame(world):
    conn, peer = await world.answered(**SHORT)
    payload = bytes(200_000)
    # 0.75 s: three timeouts, and far above 1 KiB/s
    flowing = world.spawn(world.outside(flow, peer, frame(payload), 4000, 0.015))
    assert await world.recv(conn) == payload
    await world.join(flowing)


# Budget.


@ORIGINAL
async def test_heartbeats_as_fast_as_possible_are_a_flood(world):
    conn, peer = await world.answered()
    sending = world.spawn(world.outside(_send_all, peer, HEARTBEAT * 10_000))
    assert (await world.end(conn)).reason is Reason.FLOOD
    await world.join(sending)


@ORIGINAL
async def test_a_burst_within_the_budget_is_no_flood(world):
    conn, peer = await world.answered()
    peer.send_bytes(HEARTBEAT * 900 + frame(b"fine"))
    assert await world.recv(conn) == b"fine"
    assert conn.state is State.CONNECTED


@ORIGINAL
async def test_messages_refill_the_budget(world):
    conn, peer = await world.answered()
    sending = world.spawn(world.outside(peer.send_bytes, (HEARTBEAT + frame(b"m")) * 5000))
    assert await world.take(conn, 5000) == [b"m"] * 5000
    await world.join(sending)
    assert conn.state is State.CONNECTED


def flow(peer, data, size, interval):
    """Send pieces of that size, `interval` seconds apart."""
    for at in range(0, len(data), size):
        peer.send_bytes(data[at : at + size])
        pause(interval)


def _send_all(peer, data):
    try:
        peer.send_bytes(data)
    except OSError:
        return


@pytest.mark.parametrize(("ours", "theirs"), [(0.05, 0.4), (0.4, 0.05)])
async def test_mismatched_intervals_do_not_flap(world, ours, theirs):
    client, _, _ = await world.pair(
        listen={"heartbeat_interval": ours, "heartbeat_timeout": 2},
        connect={"heartbeat_interval": theirs, "heartbeat_timeout": 2},
    )
    await world.face.pause(1.0)
    assert client.stats().links == 1
