"""Handing over what is left on our own wire: finish, a listener that closes, a shutdown."""

import functools

import pytest

from netasync import Backoff, Closed, ClosedError, Reason, State
from support.frames import ASK, PING, read_numbers
from support.native_world import (
    RARELY,
    native_answered,
    native_call,
    native_dial,
    native_ends,
    native_listen,
)
from support.waiting import A_WHILE
from support.wires import OURS

pytestmark = OURS

STEADY = Backoff(initial=0.01, factor=1, maximum=50, jitter="none")


# finish


async def test_finish_asks_behind_the_last_message_and_waits_for_the_peers_application(world):
    for conn, peer in await native_ends(world, **RARELY):
        peer.answers = False
        await world.outside(peer.expect, PING)
        await world.send(conn, b"1", b"2")
        finishing = world.spawn(world.face.call(conn, "finish"))
        assert await world.outside(peer.recv_many, 2) == [b"1", b"2"]
        await world.outside(peer.expect, ASK)
        peer.send(b"receiving goes on")
        assert await world.recv(conn) == b"receiving goes on"
        peer.consume()
        peer.ack()
        assert await world.join(finishing) == 0
        assert conn.state is State.CONNECTED
        with pytest.raises(ClosedError):
            await world.send(conn, b"nothing more")


async def test_finish_counts_what_could_not_be_confirmed(world):
    conn, peer = await native_answered(world, **RARELY)
    peer.answers = False
    await world.send(conn, b"1", b"2", b"3")
    await world.outside(peer.recv_many, 3)
    peer.consume(1)
    peer.ack()
    await world.eventually(lambda: conn.stats().confirmed == 1)
    left = conn.finish(timeout=0.1)
    assert (await left if world.face.awaited else left) == 2


async def test_a_closed_listener_leaves_its_connections_alone(world):
    listener = native_listen(world)
    conn, peer = await native_call(world, listener)
    await world.close(listener)
    peer.send(b"still here")
    assert await world.recv(conn) == b"still here"
    with pytest.raises(ConnectionRefusedError):
        await native_dial(world, listener.address)


async def test_a_connection_nobody_accepted_is_closed_with_its_listener(world):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.open)
    await world.eventually(lambda: listener.stats().waiting == 1)
    closing = world.spawn(world.close(listener))
    code, _ = await world.outside(peer.answer_close)
    await world.join(closing)
    assert code in (0, 1)


async def test_a_shutdown_says_goodbye_to_every_peer(world):
    (dialler, its_peer), (served, other) = await native_ends(world)
    stopping = world.spawn(world.shutdown(world.runtime))
    answers = [world.spawn(world.outside(functools.partial(peer.answer_close))) for peer in (its_peer, other)]
    for answer in answers:
        await world.join(answer)
    await world.join(stopping)
    for conn in (dialler, served):
        end = await world.wait_closed(conn)
        assert isinstance(end, Closed) and end.reason is Reason.SHUTDOWN


async def test_a_quiet_link_stays_quiet(world):
    (_, its_peer), (_, other) = await native_ends(world, **RARELY)
    for peer in (its_peer, other):
        _, consumed, credit = read_numbers(await world.outside(peer.expect, PING))
        assert (consumed, credit) == (0, peer.theirs.credit)
        await world.outside(peer.stays_silent, 3 * A_WHILE)
