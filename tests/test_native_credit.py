"""Flow control of our own wire: what may be begun, what is confirmed when, and who breaks the rules."""

import pytest

from netasync import Buffer, Reason, State
from support.frames import ACK, AMPLE, LONGEST_PART, PING, PONG, ack, cost, message, ping, pong
from support.hostile import neighbour
from support.native_world import (
    NATIVE,
    RARELY,
    native_answer,
    native_answered,
    native_call,
    native_dialled,
    native_listen,
    native_pair,
    native_reserved,
    reason_of_break,
)
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

EMPTY = 64


async def only(world, peer, count):
    """Exactly so many messages come, and nothing behind them."""
    got = await world.outside(peer.recv_many, count)
    if not count:
        await world.outside(peer.expect, PING)
    await world.outside(peer.stays_silent)
    return got


# What may be begun


@pytest.mark.parametrize(("credit", "count"), [(0, 0), (1, 1), (64, 1), (65, 2), (200, 4)])
async def test_a_message_is_begun_while_the_cost_sent_is_below_the_credit(world, credit, count):
    conn, peer, _ = await native_reserved(world, {"credit": credit})
    await world.send(conn, *[b""] * 10)
    await only(world, peer, count)
    assert (conn.stats().unconfirmed, conn.stats().queued) == (count, 10 - count)
    peer.tell(0, count * EMPTY + 1)
    await world.outside(peer.recv)
    await world.outside(peer.stays_silent)


async def test_the_cost_of_a_message_is_its_length_plus_64(world):
    conn, peer, _ = await native_reserved(world, {"credit": cost(b"x" * 100, b"y" * 50)})
    await world.send(conn, b"x" * 100, b"y" * 50, b"z")
    assert await only(world, peer, 2) == [b"x" * 100, b"y" * 50]


async def test_a_message_larger_than_the_window_passes_alone(world):
    conn, peer, _ = await native_reserved(world, {"credit": 100})
    await world.send(conn, bytes(5000), b"next")
    assert await only(world, peer, 1) == [bytes(5000)]
    peer.tell(1, cost(bytes(5000)) + 1)
    assert await world.outside(peer.recv) == b"next"


async def test_at_most_max_messages_are_unconsumed(world):
    conn, peer, _ = await native_reserved(world, {"max_messages": 3})
    await world.send(conn, *[b"%d" % number for number in range(8)])
    assert await only(world, peer, 3) == [b"0", b"1", b"2"]
    peer.tell(2, AMPLE)
    assert await world.outside(peer.recv_many, 2) == [b"3", b"4"]
    await world.outside(peer.stays_silent)


async def test_what_is_unconfirmed_stays_below_our_own_hold(world):
    conn, peer, _ = await native_reserved(world, write_buffer=Buffer.fixed(100, max_bytes=200))
    assert peer.theirs.hold == 200
    sending = world.spawn(world.send_many(conn, [b""] * 10))
    await only(world, peer, 4)
    peer.tell(2, AMPLE)
    await world.outside(peer.recv_many, 2)
    await world.outside(peer.stays_silent)
    peer.tell(6, AMPLE)
    await world.outside(peer.recv_many, 4)
    assert await world.join(sending) == 10


async def test_the_largest_credit_there_is_overflows_nothing(world):
    conn, peer, _ = await native_reserved(
        world, {"credit": 2**64 - 1, "max_messages": 2**32 - 1, "hold": 2**64 - 1}
    )
    await world.send(conn, bytes(10_000), b"")
    assert await world.outside(peer.recv_many, 2) == [bytes(10_000), b""]
    peer.tell(2, 2**64 - 1)
    await world.eventually(lambda: conn.stats().confirmed == 2)


async def test_a_thousand_messages_pass_through_the_smallest_window(world):
    client, served, _ = await native_pair(
        world, listen={"read_buffer": Buffer.fixed(1, max_bytes=1)}, connect={"write_buffer": Buffer.fixed(1)}
    )
    sent = [b"%d" % number * (number % 50) for number in range(1000)]
    sending = world.spawn(world.send_many(client, sent))
    assert await world.take(served, 1000) == sent
    assert await world.join(sending) == 1000


# The socket is always read


async def test_a_full_window_hides_neither_heartbeats_nor_confirmations(world):
    conn, peer = await native_answered(world, read_buffer=Buffer.fixed(2), **RARELY)
    peer.send(b"1", b"2")
    for nonce in range(20):
        peer.ping(nonce)
        await world.outside(peer.wait_for, PONG)
    await world.send(conn, b"mine")
    assert await world.outside(peer.recv) == b"mine"
    peer.ack()
    await world.eventually(lambda: conn.stats().confirmed == 1)
    assert conn.stats().waiting == 2


async def test_a_slow_application_is_no_dead_peer_and_no_stall(world):
    timers = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.6}
    client, served, _ = await native_pair(
        world, listen={**timers, "read_buffer": 4}, connect={**timers, "write_buffer": 4}
    )
    sending = world.spawn(world.send_many(client, [b"%d" % number for number in range(20)]))
    await world.eventually(lambda: served.stats().waiting == 4)
    await world.face.pause(2)
    assert (client.state, served.state) == (State.CONNECTED, State.CONNECTED)
    assert client.stats().links == 1
    assert await world.take(served, 20) == [b"%d" % number for number in range(20)]
    await world.join(sending)


async def test_who_only_writes_is_not_stopped_by_a_peer_that_only_chatters(world):
    small = {"read_buffer": Buffer.fixed(8), "write_buffer": Buffer.fixed(8)}
    client, served, _ = await native_pair(world, listen=small, connect=small)
    chatter = 0
    while chatter < 8 or served.stats().queued < 8:  # until it reaches nobody any more
        if served.stats().queued < 8:
            served.send_nowait(b"chatter" * 100)
            chatter += 1
        await world.face.pause(0.001)
    sent = [b"%d" % number for number in range(3000)]
    sending = world.spawn(world.send_many(client, sent))
    assert await world.take(served, 3000) == sent
    await world.join(sending)


async def test_memory_is_bounded_by_settings_whatever_peers_send(world):
    window = 2**19
    listener = native_listen(world, read_buffer=Buffer.fixed(10**6, max_bytes=window), max_size=2**16)
    before = resident_bytes()
    for _ in range(20):
        conn, peer = await native_call(world, listener)
        payload = bytes(2000)
        count = 0
        while peer.may_begin():
            peer.send(payload)
            count += 1
        await world.arrived(conn, count)
        assert count == -(-window // cost(payload))
    assert resident_bytes() - before < 20 * (window + 2**16) + 16 * 2**20


# Who breaks the rules


async def breaks(world, listener, is_well, wire, count):
    """A peer of this listener that writes this gets `count` messages through, and ends by `PROTOCOL`."""
    conn, peer = await native_call(world, listener)
    peer.send_bytes(wire)
    messages = await world.take(conn, count)
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    await is_well()
    return messages


async def test_more_than_the_credit_is_protocol_for_that_link_only(world):
    narrow = {**NATIVE["listen"], "read_buffer": Buffer.fixed(100, max_bytes=200)}
    listener, is_well = await neighbour(world, listen=narrow, connect=NATIVE["connect"])
    four = message(b"") * 4
    await breaks(world, listener, is_well, four + message(b"5"), 4)
    await breaks(world, listener, is_well, four + b"\0\0\0\x05", 4)  # its header is enough
    conn, peer = await native_call(world, listener)
    peer.send(b"", b"", b"", bytes(100))  # begun below the credit
    assert len(await world.take(conn, 4)) == 4
    peer.ask()
    await world.outside(peer.wait_for, ACK)
    assert conn.state is State.CONNECTED


async def test_more_than_max_messages_is_protocol_for_that_link_only(world):
    narrow = {**NATIVE["listen"], "read_buffer": Buffer.fixed(3)}
    listener, is_well = await neighbour(world, listen=narrow, connect=NATIVE["connect"])
    await breaks(world, listener, is_well, message(b"x") * 4, 3)
    conn, peer = await native_call(world, listener)
    peer.send(b"", b"", b"")
    await world.take(conn, 3)
    assert conn.state is State.CONNECTED


@pytest.mark.parametrize(
    "wire",
    [
        ack(3, AMPLE),
        ping(1, 3, AMPLE),
        pong(1, 3, AMPLE),
        ack(2**64 - 1, AMPLE),
        ack(2, AMPLE) + ack(1, AMPLE),
        ack(2, AMPLE) + ping(1, 0, AMPLE),
        ack(0, AMPLE) + ack(0, AMPLE - 1),
        ack(2, 1000),
        ack(2, 0),
    ],
    ids=lambda wire: wire.hex(),
)
async def test_to_confirm_what_was_never_sent_or_to_go_backwards_is_protocol(world, wire):
    _, is_well = await neighbour(world, **NATIVE)
    listener = native_listen(world)
    conn, peer = await native_call(world, listener)
    await world.send(conn, b"1", b"2")
    await world.outside(peer.recv_many, 2)
    peer.send_bytes(wire)
    assert await reason_of_break(world, conn) is Reason.PROTOCOL
    dialler, peer, server = await native_reserved(world)
    await world.send(dialler, b"1", b"2")
    await world.outside(peer.recv_many, 2)
    peer.send_bytes(wire)
    assert (await world.down(dialler)).reason is Reason.PROTOCOL
    again = await native_answer(world, server)
    assert (again.theirs.session, again.theirs.received) == (bytes(16), 0)
    await world.up(dialler)
    await is_well()


async def test_equal_numbers_are_legal(world):
    conn, peer, _ = await native_reserved(world)
    await world.send(conn, b"1")
    await world.outside(peer.recv)
    for _ in range(50):
        peer.tell(1, AMPLE)
    peer.send(b"fine")
    assert await world.recv(conn) == b"fine"


# A break


async def test_what_was_begun_and_not_confirmed_at_a_break_is_counted(world):
    conn, peer, server = await native_reserved(world, {"max_messages": 4})
    await world.send(conn, *[b"%d" % number for number in range(6)])
    await world.outside(peer.recv_many, 4)
    peer.tell(1, AMPLE)
    await world.outside(peer.recv)
    peer.reset()
    assert (await world.down(conn)).unconfirmed == 5
    again = await native_answer(world, server)
    up = await world.up(conn)
    assert (up.resumed, up.lost + up.redelivered) == (False, 4)
    got = await world.outside(again.recv_many, 1 + up.redelivered)
    assert got[-1] == b"5"
    assert conn.stats().lost == up.lost


async def test_large_messages_do_not_stand_in_the_way_of_control_frames(world):
    """Sent as PARTs or whole: whatever its peer announced, it takes its credit once."""
    conn, peer, _ = await native_dialled(world, {"credit": 2**20})
    sent = [b"%d" % number * (LONGEST_PART + number) for number in range(8)]
    sending = world.spawn(world.send_many(conn, sent))
    assert await world.outside(peer.recv_many, 8) == sent
    await world.join(sending)
