"""Large messages on our own wire: in parts, so that control frames never wait long behind one."""

import pytest

from netasync import Buffer, Reason
from support.frames import (
    AMPLE,
    ASK,
    HELLO,
    LONGEST_PART,
    MESSAGE,
    PART,
    PONG,
    ack,
    close,
    control,
    cost,
    in_parts,
    message,
    ping,
    read_numbers,
)
from support.hostile import neighbour
from support.native_world import (
    NATIVE,
    native_answered,
    native_call,
    native_dialled,
    native_listen,
    native_pair,
    reason_of_break,
)
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

LARGE = bytes(range(256)) * 4000


def part(data):
    return control(PART, data)


def first_part(length, data=b""):
    return part(length.to_bytes(4, "big") + data)


# Sending


@pytest.mark.parametrize("length", [LONGEST_PART + 1, 2 * LONGEST_PART - 4, len(LARGE), 3_000_000])
async def test_a_message_above_256_kib_goes_out_in_parts_and_a_last_frame(world, length):
    conn, peer, _ = await native_dialled(world)
    payload = (LARGE * 3)[:length]
    sending = world.spawn(world.send(conn, payload))
    frames = []

    def collect():
        while not frames or frames[-1].kind != MESSAGE:
            frames.append(peer.read())

    await world.outside(collect)
    await world.join(sending)
    frames = [frame for frame in frames if frame.kind in (PART, MESSAGE)]
    assert len(frames) > 1 and all(len(frame.body) <= LONGEST_PART for frame in frames)
    assert frames[0].body[:4] == length.to_bytes(4, "big")
    assert b"".join(frame.body for frame in frames)[4:] == payload


async def test_a_message_of_256_kib_goes_out_whole(world):
    conn, peer, _ = await native_dialled(world)
    await world.send(conn, bytes(LONGEST_PART))
    assert await world.outside(peer.recv) == bytes(LONGEST_PART)
    assert PART not in {frame.kind for frame in peer.controls}


async def test_a_pong_comes_between_the_parts_of_a_message(world):
    conn, peer, _ = await native_dialled(world, {"max_size": 2**27 - 1})
    sending = world.spawn(world.send(conn, bytes(50_000_000)))
    while (await world.outside(peer.read)).kind != PART:
        pass
    peer.ping(3)
    await world.outside(peer.wait_for, PONG)
    assert peer.received == 0
    assert await world.outside(peer.recv) == bytes(50_000_000)
    await world.join(sending)


async def test_the_cost_of_a_large_message_is_counted_once(world):
    conn, peer, _ = await native_dialled(world, {"credit": cost(LARGE) + 1})
    peer.answers = False
    await world.send(conn, LARGE, b"2", b"3")
    assert await world.outside(peer.recv_many, 2) == [LARGE, b"2"]
    await world.outside(peer.stays_silent)


async def test_two_of_ours_send_what_is_largest(world):
    client, served, _ = await native_pair(world, listen={"max_size": 2**27 - 1})
    payload = bytes(range(256)) * (2**19 - 1) + bytes(255)
    sending = world.spawn(world.send(client, payload))
    assert await world.recv(served) == payload
    await world.join(sending)


# Receiving


@pytest.mark.parametrize("size", [4, 5, 1000, 65_537, LONGEST_PART])
async def test_parts_of_any_length_are_put_together(world, size):
    conn, peer = await native_answered(world)
    payload = LARGE[: size * 50 + 3][:1_000_000]
    await world.outside(peer.send_bytes, message(b"before") + in_parts(payload, size) + message(b"behind"))
    assert await world.take(conn, 3) == [b"before", payload, b"behind"]


async def test_the_last_frame_may_be_empty_and_a_part_a_single_byte(world):
    conn, peer = await native_answered(world)
    peer.send_bytes(first_part(3) + part(b"a") + part(b"b") + part(b"c") + message(b""))
    peer.send_bytes(first_part(0) + message(b""))
    assert await world.take(conn, 2) == [b"abc", b""]


async def test_control_frames_may_come_between_parts(world):
    conn, peer = await native_answered(world, {"credit": AMPLE})
    between = ping(1, 0, AMPLE) + ack(0, AMPLE) + control(ASK) + control(0x55, b"skip")
    peer.send_bytes(first_part(4, b"ab") + between + part(b"c") + between + message(b"d"))
    assert await world.recv(conn) == b"abcd"


ILLEGAL = {
    "empty": part(b""),
    "empty second": first_part(4) + part(b""),
    "first too short": part(b"\0\0\0"),
    "too long": control(PART, bytes(LONGEST_PART + 1)),
    "more than announced": first_part(4, b"abcde"),
    "more in the second": first_part(4, b"ab") + part(b"cde"),
    "more in the last": first_part(4, b"ab") + message(b"cde"),
    "less in the last": first_part(4, b"ab") + message(b"c"),
    "close between": first_part(4, b"ab") + ack(0, AMPLE) + close(0),
    "leaving between": first_part(4, b"ab") + ack(0, AMPLE) + close(1),
    "hello between": first_part(4, b"ab") + control(HELLO),
    "unknown between": first_part(4, b"ab") + control(0x20),
}


@pytest.mark.parametrize("wire", ILLEGAL.values(), ids=ILLEGAL)
async def test_parts_that_do_not_add_up_are_protocol_for_that_link_only(world, wire):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener, credit=AMPLE)
    await world.outside(peer.send_bytes, message(b"good") + wire)
    assert await world.recv(conn) == b"good"
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    await is_well()


@pytest.mark.parametrize("code", [2, 5])
async def test_a_fault_may_be_told_between_parts(world, code):
    conn, peer = await native_answered(world)
    peer.send_bytes(first_part(4, b"ab") + close(code, b"words"))
    assert await reason_of_break(world, conn) in (Reason.RESET, Reason.CLOSED_BY_PEER)
    assert conn.stats().received == 0


@pytest.mark.parametrize("length", [1001, 2**27 - 1, 2**32 - 1])
async def test_the_whole_length_is_tested_before_memory_is_taken(world, length):
    listener = native_listen(world, max_size=1000)
    conn, peer = await native_call(world, listener)
    before = resident_bytes()
    peer.send_bytes(first_part(length, b"x" * 10))
    assert (await world.end(conn)).reason is Reason.TOO_LARGE
    assert resident_bytes() - before < 8 * 2**20


async def test_credit_is_tested_at_the_first_part(world):
    conn, peer = await native_answered(world, read_buffer=Buffer.fixed(10, max_bytes=100))
    peer.send_bytes(first_part(2000, bytes(1000)) + message(bytes(1000)))  # alone, it may pass
    assert await world.recv(conn) == bytes(2000)
    peer.count_sent(bytes(2000))
    peer.ask()
    while peer.heard[0] < 1:
        await world.outside(peer.read)
    assert read_numbers(peer.controls[-1])[2] == 100 + cost(bytes(2000))
    peer.send_bytes(message(bytes(100)) + first_part(5))
    assert await world.recv(conn) == bytes(100)
    assert (await world.end(conn)).reason is Reason.PROTOCOL


async def test_the_parts_of_a_message_have_one_deadline_together(world):
    conn, peer = await native_answered(world, heartbeat_interval=0.05, heartbeat_timeout=0.3)

    def drip():
        peer.send_bytes(first_part(10_000))
        peer.drip(part(b"x") * 200, 0.02)

    dripping = world.spawn(world.outside(drip))
    assert await reason_of_break(world, conn) is Reason.SLOW_FRAME
    await world.join(dripping)
