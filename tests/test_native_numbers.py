"""The numbers that tell what was consumed: when they go out, and of which moment they are."""

import time

import pytest

from netasync import Buffer
from support.frames import ACK, CLOSE, PONG, ack, close, message, ping, read_numbers
from support.native import TELLING
from support.native_world import native_answered, native_reserved
from support.wires import OURS

pytestmark = OURS

#: Neither a PING nor a look of the runtime (a third of the shortest of these) comes in time to tell anything.
SELDOM = {"heartbeat_interval": 20, "heartbeat_timeout": 60, "close_timeout": 60}

#: A quarter second is promised; the next heartbeat is twenty seconds away.
SOON = 2.5


async def ends(world, **options):
    """A dialler and an accepted connection, each with a peer that says nothing on its own."""
    dialler, its_peer, _ = await native_reserved(world, **options)
    accepted, other_peer = await native_answered(world, **options)
    other_peer.answers = False
    return [(dialler, its_peer), (accepted, other_peer)]


def told(peer, number):
    """Reads until so many messages are told as consumed; how long that took, and by which frames."""
    began, frames = time.monotonic(), []
    while peer.heard[0] < number:
        frame = peer.read()
        if frame.kind in TELLING:
            frames.append(frame.kind)
    return time.monotonic() - began, frames


async def test_every_consumption_is_told_within_a_quarter_second(world):
    for conn, peer in await ends(world, **SELDOM):
        for number in range(1, 8):
            peer.send(b"%d" % number)
            assert await world.recv(conn) == b"%d" % number
            took, frames = await world.outside(told, peer, number)
            assert took < SOON
            assert frames[-1] == ACK


async def test_what_was_told_meanwhile_by_other_frames_changes_nothing_of_that(world):
    for conn, peer in await ends(world, **SELDOM):
        for number in range(1, 8):
            peer.send(b"m")
            await world.recv(conn)
            if number % 2:
                # PONG tells of it, and the next one is told in time all the same.
                peer.ping(number)
                await world.outside(peer.wait_for, PONG)
                assert peer.heard[0] == number
            else:
                took, _ = await world.outside(told, peer, number)
                assert took < SOON


async def test_it_is_told_whoever_takes_it(world):
    ways = [world.recv, lambda conn: world.take(conn, 1), lambda conn: world.recv_many(conn, 5)]
    for conn, peer in await ends(world, **SELDOM):
        for number in range(1, 7):
            peer.send(b"m")
            await world.arrived(conn, number)
            await ways[number % len(ways)](conn)
            took, _ = await world.outside(told, peer, number)
            assert took < SOON


async def test_what_a_lossy_buffer_consumes_is_told_in_time_each_time(world):
    for conn, peer in await ends(world, read_buffer=Buffer.sliding(1), **SELDOM):
        for number in range(1, 6):
            peer.send(b"m")
            took, _ = await world.outside(told, peer, number)
            assert took < SOON
        assert conn.stats().read_dropped == 4


async def test_what_a_closed_channel_consumes_is_told_in_time_each_time(world):
    for conn, peer in await ends(world, **SELDOM):
        conn.read_chan.close()
        for number in range(1, 6):
            peer.send(b"m")
            took, _ = await world.outside(told, peer, number)
            assert took < SOON


async def test_it_is_told_in_time_beside_data_that_tells_nothing(world):
    for conn, peer in await ends(world, **SELDOM):
        for number in range(1, 6):
            peer.send(b"m")
            await world.recv(conn)
            await world.send(conn, b"answer")
            took, _ = await world.outside(told, peer, number)
            assert took < SOON


@pytest.mark.parametrize("policy", [Buffer.sliding, Buffer.dropping])
async def test_pong_tells_what_a_lossy_buffer_consumed_in_front_of_its_ping(world, policy):
    for _conn, peer in await ends(world, read_buffer=policy(2), **SELDOM):
        for round in range(1, 11):
            _, credit = peer.numbers()
            peer.count_sent(*[b"m"] * 5)
            peer.pinged(round)
            peer.send_bytes(message(b"m") * 5 + ping(round, 0, credit))
            pong = await world.outside(peer.wait_for, PONG)
            assert read_numbers(pong)[:2] == (round, 5 * round)


@pytest.mark.parametrize("code", [0, 1])
async def test_the_account_in_front_of_close_has_what_a_lossy_buffer_consumed_in_front_of_it(world, code):
    for _conn, peer in await ends(world, read_buffer=Buffer.sliding(2), **SELDOM):
        peer.count_sent(*[b"m"] * 5)
        peer.send_bytes(message(b"m") * 5 + ack(*peer.numbers()) + close(code))
        while (frame := await world.outside(peer.read)).kind != CLOSE:
            account = frame
        assert account.kind == ACK
        assert read_numbers(account)[1] == 5
