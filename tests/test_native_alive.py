"""Liveness on our own wire: who is silent, slow, stalled or noisy, and who only looks so."""

import pytest

from netasync import Buffer, Reason, State
from support.frames import (
    ACK,
    AMPLE,
    ASK,
    CLOSE,
    PING,
    PONG,
    ack,
    control,
    message,
    ping,
    pong,
    read_close,
    read_numbers,
)
from support.hostile import neighbour, throw
from support.native_world import (
    NATIVE,
    codes_to_end,
    native_answer,
    native_answered,
    native_call,
    native_dialled,
    native_pair,
    reason_of_break,
)
from support.process import resident_bytes, user_timeouts
from support.wires import OURS

pytestmark = OURS

#: Timers that find a silent peer soon.
SHORT = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.25}

#: Timers for a peer that must not be taken for dead: a loaded machine may hold a thread up for a while.
PATIENT = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.8}


# Heartbeats


async def test_a_ping_goes_out_when_nothing_was_written_for_the_interval(world):
    for conn, peer in ((await native_dialled(world, **PATIENT))[:2], await native_answered(world, **PATIENT)):
        nonces = [read_numbers(await world.outside(peer.wait_for, PING))[0] for _ in range(5)]
        assert len(set(nonces)) == 5
        assert conn.state is State.CONNECTED


async def test_it_goes_out_three_times_within_the_peers_timeout(world):
    """Its own interval alone would take minutes."""
    _, peer, _ = await native_dialled(
        world, {"heartbeat_timeout": 300}, heartbeat_interval=100, heartbeat_timeout=300
    )
    for _ in range(5):
        await world.outside(peer.wait_for, PING)


async def test_the_interval_counts_from_the_last_write_however_much_is_read(world):
    conn, peer = await native_answered(world, **PATIENT)
    peer.answers = False
    feeding = world.spawn(world.outside(peer.drip, message(b"x") * 40, 0.01))
    for _ in range(4):
        await world.outside(peer.wait_for, PING)
    await world.join(feeding)
    assert await world.take(conn, 40) == [b"x"] * 40


async def test_each_side_judges_by_its_own_timeout(world):
    conn, peer, server = await native_dialled(world, {"heartbeat_interval": 10**6}, **SHORT)
    assert (await world.down(conn)).reason is Reason.HEARTBEAT_TIMEOUT
    await native_answer(world, server)
    await world.up(conn)
    conn, peer = await native_answered(world, {"heartbeat_timeout": 10**7}, **SHORT)
    assert await reason_of_break(world, conn) is Reason.HEARTBEAT_TIMEOUT
    assert peer.socket.fileno() >= 0


async def test_mismatched_settings_do_not_make_a_link_flap(world):
    quick = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.8}
    slow = {"heartbeat_interval": 60, "heartbeat_timeout": 200}
    client, served, _ = await native_pair(world, listen=quick, connect=slow)
    other, served_other, _ = await native_pair(world, listen=slow, connect=quick)
    await world.face.pause(2.5)
    for one, there in ((client, served), (other, served_other)):
        assert one.stats().links == 1
        await world.send(there, b"same link")
        assert await world.recv(one) == b"same link"


@pytest.mark.parametrize(
    "sign", [ping(1, 0, AMPLE), pong(1, 0, AMPLE), ack(0, AMPLE), control(0x44, b"x"), control(ASK)]
)
async def test_any_frame_counts_as_life(world, sign):
    conn, peer = await native_answered(world, {"credit": AMPLE}, **PATIENT)

    def live():
        for _ in range(16):
            peer.send_bytes(sign)
            peer._stop_beating.wait(0.1)

    await world.outside(live)
    assert conn.state is State.CONNECTED


async def test_any_byte_counts_in_the_middle_of_a_message_too(world):
    conn, peer = await native_answered(world, **PATIENT)
    wire = message(bytes(8000))

    def flow():
        for at in range(0, len(wire), 500):
            peer.send_bytes(wire[at : at + 500])
            peer._stop_beating.wait(0.1)

    flowing = world.spawn(world.outside(flow))
    assert await world.recv(conn) == bytes(8000)
    await world.join(flowing)


# The frame deadline


@pytest.mark.parametrize(
    "start",
    [message(bytes(100_000)), control(0x50, bytes(60_000)), ping(1, 0, AMPLE), message(b"x")[:3]],
    ids=["message", "skippable", "ping", "header"],
)
async def test_a_frame_that_drips_is_slow_and_its_sender_is_told(world, start):
    conn, peer = await native_answered(world, {"credit": AMPLE}, **SHORT)
    dripping = world.spawn(world.outside(peer.drip, start[:-1] if len(start) < 100 else start[:600], 0.1))
    assert await reason_of_break(world, conn) in (Reason.SLOW_FRAME, Reason.HEARTBEAT_TIMEOUT)
    await world.join(dripping)


async def test_a_message_that_drips_is_slow_to_both_sides_and_told_by_close_2(world):
    for meet in (native_dialled, native_answered):  # one after the other: who waits here would be silent
        conn, peer, *_ = await meet(world, **SHORT)
        dripping = world.spawn(world.outside(peer.drip, message(bytes(100_000))[:600], 0.02))
        assert await reason_of_break(world, conn) is Reason.SLOW_FRAME
        await world.join(dripping)
        assert await codes_to_end(world, peer) in ([2], [])


async def test_a_slow_frame_is_told_by_close_2(world):
    conn, peer = await native_answered(world, **SHORT)
    peer.send_bytes(message(bytes(100_000))[:10])
    peer.answers = False

    def drip_and_listen():
        peer.drip(bytes(20), 0.02)
        return peer.wait_for(CLOSE)

    assert read_close(await world.outside(drip_and_listen))[0] == 2
    assert await reason_of_break(world, conn) is Reason.SLOW_FRAME


# The stall


async def test_a_peer_that_reads_nothing_is_a_stall_whatever_it_sends(world):
    conn, peer, _ = await native_dialled(
        world,
        {"credit": AMPLE},
        **PATIENT,
        write_buffer=Buffer.fixed(10_000, max_bytes=AMPLE),
    )
    peer.beat(0.05)
    await world.send_many(conn, [bytes(2**20)] * 64)
    assert (await world.down(conn)).reason is Reason.WRITE_STALLED


async def test_a_peer_that_reads_slowly_is_no_stall(world):
    conn, peer, _ = await native_dialled(
        world, {"credit": AMPLE}, **PATIENT, write_buffer=Buffer.fixed(10_000, max_bytes=AMPLE)
    )
    peer.beat(0.05)
    await world.send_many(conn, [bytes(2**18)] * 64)

    def read_slowly():
        peer.answers = False
        for _ in range(64):
            peer.recv()
            peer._stop_beating.wait(0.04)

    await world.outside(read_slowly)
    assert conn.stats().links == 1


# The budget


NOISE = {
    "ping": ping(1, 0, AMPLE),
    "ask": control(ASK),
    "skippable": control(0x66, b"nothing"),
    "ack that moves nothing": ack(0, AMPLE),
    "pong that moves nothing": pong(5, 0, AMPLE),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
async def test_noise_is_a_flood_and_the_neighbour_and_memory_do_not_notice(world, noise):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener, credit=AMPLE)
    before = resident_bytes()
    await world.outside(throw, peer, noise * 20_000)
    assert await reason_of_break(world, conn) is Reason.FLOOD
    assert resident_bytes() - before < 8 * 2**20
    await is_well()


async def test_a_flood_is_a_break_to_a_dialler(world):
    conn, peer, server = await native_dialled(world, {"credit": AMPLE})
    await world.outside(throw, peer, ping(1, 0, AMPLE) * 20_000)
    assert (await world.down(conn)).reason is Reason.FLOOD
    await native_answer(world, server)
    await world.up(conn)


async def test_who_floods_is_told_so_by_close_2(world):
    conn, peer = await native_answered(world, {"credit": AMPLE})
    peer.answers = False
    peer.send_bytes(control(0x66) * 1101)
    assert await codes_to_end(world, peer) == [2]
    assert await reason_of_break(world, conn) is Reason.FLOOD


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
async def test_noise_within_the_budget_is_none(world, noise):
    conn, peer = await native_answered(world, {"credit": AMPLE})
    peer.send_bytes(noise * 950 + message(b"behind"))
    assert await world.recv(conn) == b"behind"
    assert conn.state is State.CONNECTED


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
async def test_messages_pay_for_noise(world, noise):
    conn, peer = await native_answered(world, {"credit": AMPLE})
    await world.outside(peer.send_bytes, (message(b"x") + noise) * 5000)
    assert await world.take(conn, 5000) == [b"x"] * 5000


async def test_large_messages_pay_by_their_bytes(world):
    conn, peer = await native_answered(
        world, {"credit": AMPLE}, read_buffer=Buffer.fixed(1000, max_bytes=2**26)
    )
    wire = message(bytes(400_000)) + control(0x66) * 90
    feeding = world.spawn(world.outside(peer.send_bytes, wire * 50))
    for _ in range(50):
        assert len(await world.recv(conn)) == 400_000
    await world.join(feeding)


async def test_confirmations_that_move_something_cost_nothing(world):
    conn, peer, _ = await native_dialled(world)
    first = peer.ours.credit
    peer.send_bytes(b"".join(ack(0, first + number) for number in range(1, 5000)) + message(b"behind"))
    assert await world.recv(conn) == b"behind"


async def test_a_pong_to_our_own_ping_costs_nothing(world):
    conn, peer = await native_answered(world, heartbeat_interval=0.02, heartbeat_timeout=30)
    peer.send_bytes(control(0x66) * 900)
    for _ in range(30):
        await world.outside(peer.wait_for, PING)  # and answers
    assert conn.state is State.CONNECTED
    assert [frame.kind for frame in peer.controls].count(PONG) == 0
    assert peer.controls[0].kind == ACK


async def test_the_kernel_gives_up_what_is_not_acknowledged_within_the_timeout(world):
    """TCP_USER_TIMEOUT covers what it holds, as the stall covers what it does not take (`wire.md` §6)."""
    timers = {"heartbeat_interval": 0.3, "heartbeat_timeout": 1.75}
    conn, accepted, _ = await native_pair(world, listen=timers, connect=timers)
    limits = user_timeouts()
    assert limits[accepted.peer, conn.peer] == limits[conn.peer, accepted.peer] == 1750
    original = {**timers, "protocol": "net.async"}
    conn, accepted, _ = await world.pair(listen=original, connect=original)
    limits = user_timeouts()
    assert limits[accepted.peer, conn.peer] == limits[conn.peer, accepted.peer] == 0
