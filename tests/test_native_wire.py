"""The frames of our own wire, byte for byte in both directions, and what is no frame of it."""

import pytest

from netasync import Buffer, MessageTooLarge, Reason
from support.frames import (
    ACK,
    AMPLE,
    ASK,
    CLOSE,
    HELLO,
    MOVE,
    PING,
    PONG,
    REFUSE,
    Frame,
    ack,
    control,
    message,
    move,
    ping,
    pong,
    read_close,
    read_numbers,
)
from support.hostile import neighbour
from support.native_world import (
    NATIVE,
    native_answer,
    native_answered,
    native_call,
    native_connect,
    native_dialled,
    native_listener,
    native_pair,
)
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

GOLDEN = [
    (b"", bytes.fromhex("00000000")),
    (b"a", bytes.fromhex("00000001 61")),
    (b"hello", bytes.fromhex("00000005 68656c6c6f")),
    (b"\x81\x00\x00\x00", bytes.fromhex("00000004 81000000")),
    (bytes(range(256)), bytes.fromhex("00000100") + bytes(range(256))),
    (b"\xff" * 70_000, bytes.fromhex("00011170") + b"\xff" * 70_000),
    (b"\x80" * 256 * 1024, bytes.fromhex("00040000") + b"\x80" * 256 * 1024),
]


async def ended_by(world, conn):
    """The reason with which an accepted connection ends, its messages thrown away."""
    return (await world.wait_closed(conn)).reason


async def answers_of(world, peer):
    """The frames with which the other side ended, those of the greeting left out."""
    frames, _ = await world.outside(peer.read_to_end)
    return [frame for frame in frames if frame.kind not in (ACK, PING, PONG)]


# Messages


@pytest.mark.parametrize(("payload", "wire"), GOLDEN, ids=lambda value: str(len(value)))
async def test_a_message_goes_out_as_its_length_and_its_bytes(world, payload, wire):
    conn, peer, _ = await native_dialled(world)
    await world.outside(peer.expect, PING)
    await world.send(conn, payload)
    assert await world.outside(peer.recv_exactly, len(wire)) == wire


@pytest.mark.parametrize(("payload", "wire"), GOLDEN, ids=lambda value: str(len(value)))
async def test_a_length_and_its_bytes_come_in_as_a_message(world, payload, wire):
    conn, peer = await native_answered(world)
    await world.outside(peer.send_bytes, wire)
    assert await world.recv(conn) == payload


async def test_an_empty_message_is_a_message(world):
    client, served, _ = await native_pair(world)
    await world.send(client, b"", b"", b"x", b"")
    assert await world.take(served, 4) == [b"", b"", b"x", b""]


async def test_control_frames_between_messages_are_none(world):
    conn, peer = await native_answered(world, {"credit": AMPLE})
    between = control(0x40) + control(0x7F, b"?" * 1000) + ack(0, AMPLE) + ping(1, 0, AMPLE)
    peer.send_bytes(message(b"1") + between + message(b"2") + between + message(b""))
    assert await world.take(conn, 3) == [b"1", b"2", b""]
    assert conn.stats().received == 3


async def test_an_ordinary_frame_up_to_max_size_is_received(world):
    conn, peer = await native_answered(world, max_size=3_000_000)
    await world.outside(peer.send, bytes(3_000_000))
    assert await world.recv(conn) == bytes(3_000_000)


@pytest.mark.parametrize("length", [1001, 2**24, 2**27 - 1])
async def test_a_message_above_our_max_size_is_too_large_and_takes_no_memory(world, length):
    listener, is_well = await neighbour(
        world, listen={**NATIVE["listen"], "max_size": 1000}, connect=NATIVE["connect"]
    )
    conn, peer = await native_call(world, listener)
    before = resident_bytes()
    peer.send_bytes(message(bytes(1000)) + length.to_bytes(4, "big"))
    assert await world.recv(conn) == bytes(1000)
    assert (await world.end(conn)).reason is Reason.TOO_LARGE
    assert resident_bytes() - before < 8 * 2**20
    assert all(read_close(frame)[0] == 5 for frame in await answers_of(world, peer))
    await is_well()


@pytest.mark.parametrize("first", [0x08, 0x16, 0x47, 0x7F])
async def test_a_first_byte_from_08_to_7f_is_never_legal(world, first):
    conn, peer = await native_answered(world, max_size=2**27 - 1)
    peer.send_bytes(bytes([first, 0, 0, 0]))
    assert await ended_by(world, conn) in (Reason.TOO_LARGE, Reason.PROTOCOL)


# Control frames: what may be skipped, and what is protocol


@pytest.mark.parametrize("kind", [0x40, 0x41, 0x5A, 0x7F])
@pytest.mark.parametrize("length", [0, 1, 65_535])
async def test_types_from_40_to_7f_are_skipped(world, kind, length):
    conn, peer = await native_answered(world)
    peer.send_bytes(control(kind, bytes(length)) + message(b"behind"))
    assert await world.recv(conn) == b"behind"


@pytest.mark.parametrize("kind", [0x00, 0x0A, 0x0B, 0x20, 0x3F])
async def test_any_other_unknown_type_is_protocol(world, kind):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener)
    peer.send_bytes(control(kind))
    assert await ended_by(world, conn) is Reason.PROTOCOL
    await is_well()


ILLEGAL = {
    "hello": control(HELLO, b"NA"),
    "refuse": control(REFUSE, b"\0\1"),
    "short ping": control(PING, bytes(23)),
    "short pong": control(PONG, bytes(23)),
    "short ack": control(ACK, bytes(15)),
    "empty ack": control(ACK),
    "short close": control(CLOSE, b"\0"),
    "empty close": control(CLOSE),
    "short move": control(MOVE, bytes(3)),
    "long skippable": control(0x50, bytes(65_536)),
    "long ping": control(PING, bytes(65_536)),
    "long close": control(CLOSE, bytes(65_536)),
    "longest": b"\xd0\xff\xff\xff",
}


@pytest.mark.parametrize("wire", ILLEGAL.values(), ids=ILLEGAL)
async def test_an_illegal_control_frame_is_protocol_to_both_sides_and_voids_the_session(world, wire):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener)
    await world.outside(peer.send_bytes, message(b"good") + wire)
    assert await world.recv(conn) == b"good"
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    assert all(read_close(frame)[0] == 5 for frame in await answers_of(world, peer))
    conn, peer, _ = await native_dialled(world)
    await world.outside(peer.send_bytes, message(b"good") + wire)
    assert await world.recv(conn) == b"good"
    assert (await world.down(conn)).reason is Reason.PROTOCOL
    await is_well()


async def test_an_illegal_frame_is_known_by_its_header(world):
    conn, peer = await native_answered(world)
    peer.send_bytes(control(0x50, bytes(65_536))[:4])
    assert await ended_by(world, conn) is Reason.PROTOCOL


async def test_move_to_a_listener_is_protocol(world):
    conn, peer = await native_answered(world)
    peer.send_bytes(move(1000, b"127.0.0.1:1"))
    assert await ended_by(world, conn) is Reason.PROTOCOL


async def test_who_breaks_the_protocol_is_told_so_by_close_5(world):
    conn, peer = await native_answered(world)
    peer.send_bytes(control(0x20))
    assert [read_close(frame)[0] for frame in await answers_of(world, peer)] == [5]
    conn, peer, _ = await native_dialled(world)
    peer.send_bytes(control(0x20))
    assert [read_close(frame)[0] for frame in await answers_of(world, peer)] == [5]
    await world.down(conn)


@pytest.mark.parametrize("rest", [b"\0", b"from a later minor version", bytes(5000)], ids=len)
async def test_what_a_body_has_beyond_its_known_fields_is_ignored(world, rest):
    conn, peer = await native_answered(world, {"credit": AMPLE})
    longer = [Frame(PING, ping(7, 0, AMPLE)[4:]), Frame(ACK, ack(0, AMPLE)[4:]), Frame(ASK)]
    peer.pinged(7)
    peer.send_bytes(b"".join(control(frame.kind, frame.body + rest) for frame in longer))
    assert read_numbers(await world.outside(peer.wait_for, PONG))[0] == 7
    await world.outside(peer.wait_for, ACK)  # to ASK
    peer.send(b"still there")
    assert await world.recv(conn) == b"still there"


# PING and PONG


async def test_a_ping_is_answered_with_its_nonce(world):
    _conn, peer = await native_answered(world)
    for nonce in (0, 1, 2**64 - 1):
        peer.ping(nonce)
        assert read_numbers(await world.outside(peer.wait_for, PONG))[0] == nonce


async def test_of_many_pings_the_newest_is_answered(world):
    _conn, peer = await native_answered(world)
    numbers = peer.numbers()
    peer.pinged(*range(1, 51))
    peer.send_bytes(b"".join(ping(nonce, *numbers) for nonce in range(1, 51)))
    answered = [0]
    while answered[-1] != 50:
        answered.append(read_numbers(await world.outside(peer.wait_for, PONG))[0])
    assert answered == sorted(answered) and len(answered) <= 51


async def test_a_pong_overtakes_queued_messages(world):
    conn, peer, _ = await native_dialled(
        world, {"credit": AMPLE}, write_buffer=Buffer.fixed(10_000, max_bytes=AMPLE)
    )
    for number in range(300):
        await world.send(conn, b"%03d" % number + bytes(100_000))
    peer.ping(9)
    await world.outside(peer.wait_for, PONG)
    assert peer.received < 300
    assert await world.outside(peer.recv_many, 300) == [b"%03d" % n + bytes(100_000) for n in range(300)]


async def test_a_pong_that_nobody_asked_for_is_ignored(world):
    conn, peer = await native_answered(world)
    peer.send_bytes(pong(123_456_789, *peer.numbers()))
    peer.send(b"fine")
    assert await world.recv(conn) == b"fine"


async def test_the_round_trip_is_measured_once_the_first_pong_came(world):
    conn, peer, _ = await native_dialled(world)
    assert conn.latency is None
    await world.outside(peer.expect, PING)  # and answers it
    latency = await world.eventually(lambda: conn.latency, "a latency")
    assert 0 < latency < 30


async def test_two_of_ours_measure_each_other(world):
    client, served, _ = await native_pair(world)
    assert await world.eventually(lambda: client.latency and served.latency) > 0


# A message that is too large for the peer


async def test_a_message_above_the_peers_max_size_is_refused_at_the_call_and_the_link_stays(world):
    conn, peer, _ = await native_dialled(world, {"max_size": 100})
    for sending in (world.send(conn, bytes(101)), world.send(conn, bytes(10**6))):
        with pytest.raises(MessageTooLarge, match="100"):
            await sending
    with pytest.raises(MessageTooLarge, match="100"):
        conn.send_nowait(bytes(101))
    await world.send(conn, bytes(100))
    assert await world.outside(peer.recv) == bytes(100)
    assert conn.stats().links == 1


async def test_our_own_max_size_does_not_limit_what_we_send(world):
    conn, peer, _ = await native_dialled(world, {"max_size": 2**32 - 1}, max_size=100)
    await world.send(conn, bytes(5000))
    assert await world.outside(peer.recv) == bytes(5000)


async def test_until_the_first_hello_our_own_max_size_stands_in(world):
    server = native_listener(world)
    conn = native_connect(world, server.address, max_size=1000)
    with pytest.raises(MessageTooLarge, match="1000"):
        await world.send(conn, bytes(1001))
    await world.send(conn, b"small", bytes(1000), b"behind")
    peer = await native_answer(world, server, max_size=999)
    assert await world.outside(peer.recv_many, 2) == [b"small", b"behind"]
    await world.up(conn)
    await world.eventually(lambda: conn.stats().lost == 1, "what was too large is counted")
