"""The original's wire, byte for byte in both directions: one test for each sentence of its page."""

import pytest

from netasync import Backoff, Buffer, MessageTooLarge, Reason
from support.peer import HEARTBEAT, frame, header
from support.wires import ORIGINAL

pytestmark = ORIGINAL

GOLDEN = [
    (b"a", bytes.fromhex("00000001 61")),
    (b"hello", bytes.fromhex("00000005 68656c6c6f")),
    (bytes(range(256)), bytes.fromhex("00000100") + bytes(range(256))),
    (b"\x00\x00\x00\x00", bytes.fromhex("00000004 00000000")),
    (b"\xff" * 70_000, bytes.fromhex("00011170") + b"\xff" * 70_000),
    (b"\x80" * 1_000_000, bytes.fromhex("000f4240") + b"\x80" * 1_000_000),
]


# A frame is a 4-byte signed length and that many bytes.


@pytest.mark.parametrize(("payload", "wire"), GOLDEN, ids=lambda value: str(len(value)))
async def test_a_message_goes_out_as_its_length_and_its_bytes(world, payload, wire):
    conn, peer, _ = await world.dialled()
    await world.send(conn, payload)
    assert await world.outside(peer.recv_exactly, len(wire)) == wire


@pytest.mark.parametrize(("payload", "wire"), GOLDEN, ids=lambda value: str(len(value)))
async def test_a_length_and_its_bytes_come_in_as_a_message(world, payload, wire):
    conn, peer = await world.answered()
    await world.outside(peer.send_bytes, wire)
    assert await world.recv(conn) == payload


async def test_messages_follow_each_other_without_anything_between(world):
    conn, peer, _ = await world.dialled()
    await world.send_many(conn, [payload for payload, _ in GOLDEN])
    expected = b"".join(wire for _, wire in GOLDEN)
    assert await world.outside(peer.recv_exactly, len(expected)) == expected
    await world.outside(peer.send_bytes, expected)
    assert await world.take(conn, len(GOLDEN)) == [payload for payload, _ in GOLDEN]


# Length 0 is a heartbeat, so an empty message cannot be sent.


async def test_length_0_is_a_heartbeat_and_no_message(world):
    conn, peer = await world.answered()
    peer.send_bytes(HEARTBEAT + frame(b"1") + HEARTBEAT * 3 + frame(b"2") + HEARTBEAT)
    assert await world.take(conn, 2) == [b"1", b"2"]
    await world.stays_quiet(conn)
    assert conn.stats().received == 2


async def test_an_empty_message_is_a_value_error_and_nothing_goes_out(world):
    conn, peer, _ = await world.dialled()
    for empty in (b"", bytearray(), memoryview(b"")):
        with pytest.raises(ValueError, match="empty"):
            await world.send(conn, empty)
        with pytest.raises(ValueError, match="empty"):
            conn.send_nowait(empty)
    with pytest.raises(ValueError, match="empty") as stopped:
        await world.send_many(conn, [b"before", b"", b"behind"])
    assert stopped.value.accepted == 1
    await world.send(conn, b"x")
    assert await world.outside(peer.recv_exactly, 15) == frame(b"before") + frame(b"x")
    assert conn.stats().accepted == 2


# There is no greeting, no close frame, no limit, no identity.


async def test_there_is_no_greeting_and_no_close_frame(world):
    for conn, peer in ((await world.dialled())[:2], await world.answered()):
        await world.send(conn, b"all there is")
        world.start_close(conn)
        assert await world.outside(peer.recv_to_end) == (frame(b"all there is"), "eof")
        peer.close()
        await world.wait_closed(conn)


async def test_there_is_no_identity(world):
    client, served, _ = await world.pair()
    assert client.session is None
    assert served.session is None


# Negative lengths, and lengths above our own max_size, end the link before anything is allocated.


@pytest.mark.parametrize("length", [-1, -5, -(2**31)])
async def test_a_negative_length_ends_the_link(world, length):
    conn, peer = await world.answered()
    peer.send_bytes(frame(b"good") + header(length))
    assert await world.recv(conn) == b"good"
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    assert (await world.outside(peer.recv_to_end))[0] == b""


@pytest.mark.parametrize("length", [101, 2**24 + 1, 2**31 - 1])
async def test_a_length_above_max_size_ends_the_link(world, length):
    conn, peer = await world.answered(max_size=100)
    peer.send_bytes(frame(b"x" * 100) + header(length))
    assert await world.recv(conn) == b"x" * 100
    end = await world.end(conn)
    assert end.reason is Reason.TOO_LARGE
    assert "100" in end.detail
    assert (await world.outside(peer.recv_to_end))[0] == b""


@pytest.mark.parametrize(
    ("noise", "reason"), [(header(-1), Reason.PROTOCOL), (header(101), Reason.TOO_LARGE)]
)
async def test_a_dialler_takes_an_illegal_length_as_a_break_and_dials_again(world, noise, reason):
    conn, peer, server = await world.dialled(max_size=100)
    peer.send_bytes(noise)
    assert (await world.down(conn)).reason is reason
    again = await world.outside(server.accept)
    await world.up(conn)
    again.send(b"good")
    assert await world.recv(conn) == b"good"


async def test_a_negative_length_is_judged_by_its_fourth_byte_at_the_latest(world):
    conn, peer = await world.answered()
    for byte in header(-2):
        peer.send_bytes(bytes([byte]))
    assert (await world.end(conn)).reason is Reason.PROTOCOL


# max_size also limits what we send.


async def test_a_message_above_max_size_is_refused_at_the_call_and_names_both_numbers(world):
    conn, peer, _ = await world.dialled(max_size=1000)
    with pytest.raises(MessageTooLarge, match=r"1000\b.*\b1001|1001\b.*\b1000"):
        await world.send(conn, b"x" * 1001)
    with pytest.raises(ValueError, match="1001"):
        conn.send_nowait(b"x" * 1001)
    await world.send(conn, b"x" * 1000)
    assert await world.outside(peer.recv) == b"x" * 1000
    assert conn.stats().accepted == 1


# Reading stops when the read buffer is full.


async def test_reading_stops_when_the_read_buffer_is_full(world):
    conn, peer = await world.answered(read_buffer=Buffer.fixed(8, max_bytes=100_000))
    payload = b"x" * 10_000
    sending = world.spawn(world.outside(peer.send_pieces, [frame(payload)] * 3000))  # 30 MB
    await world.eventually(lambda: conn.stats().waiting >= 8)
    await world.face.pause(0.2)
    assert conn.stats().bytes_received < 2_000_000
    for _ in range(3000):
        assert await world.recv(conn) == payload
    await world.join(sending)


# A message is gone once its last byte was handed to the kernel.
# The frame that was partly written goes again whole.


async def test_a_message_that_the_kernel_has_is_not_sent_again(world):
    conn, peer, server = await world.dialled()
    await world.send(conn, b"handed over")
    await world.flush(conn)
    peer.reset()
    again = await world.outside(server.accept)
    await world.send(conn, b"the next")
    assert await world.outside(again.recv) == b"the next"
    await world.flush(conn)
    stats = await world.balanced(conn)
    assert (stats.confirmed, stats.links) == (2, 2)


async def test_a_frame_that_was_partly_written_goes_again_whole_and_then_what_was_queued(world):
    server = world.raw_listener(receive_buffer=16_384)
    conn = world.connect(server.address, max_size=2**26, write_buffer=Buffer.fixed(100, max_bytes=2**26))
    peer = await world.outside(server.accept)
    await world.up(conn)
    large = bytes(range(256)) * 2**16  # 16 MiB: more than the kernel takes
    await world.send(conn, large, b"behind it", b"and behind that")
    assert await world.outside(peer.recv_exactly, 1000) == frame(large)[:1000]
    assert conn.stats().confirmed == 0
    peer.reset()

    again = await world.outside(server.accept)
    assert await world.outside(again.recv) == large
    assert await world.outside(again.recv_many, 2) == [b"behind it", b"and behind that"]
    assert (await world.down(conn)).reason in (Reason.RESET, Reason.EOF)
    stats = await world.balanced(conn)
    assert stats.confirmed == 3


# The peer's end of stream.


async def test_the_accepting_side_writes_what_is_queued_before_it_ends_with_eof(world):
    conn, peer = await world.answered(write_buffer=Buffer.fixed(3000, max_bytes=2**26))
    replies = [b"%d" % number * 2000 for number in range(1000)]
    await world.send_many(conn, replies)
    peer.half_close()
    assert await world.outside(peer.messages_to_end) == replies
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.EOF, 0)


async def test_the_accepting_side_may_answer_what_it_received_before_the_half_close(world):
    conn, peer = await world.answered()
    peer.send(b"first question", b"second question")
    peer.half_close()
    assert await world.recv(conn) == b"first question"
    await world.send(conn, b"first answer")
    assert await world.recv(conn) == b"second question"
    await world.send(conn, b"second answer")
    assert (await world.end(conn)).reason is Reason.EOF
    assert await world.outside(peer.messages_to_end) == [b"first answer", b"second answer"]


async def test_a_peer_that_takes_no_answer_holds_its_end_back_no_longer_than_close_timeout(world):
    conn, peer = await world.answered(close_timeout=0.2, write_buffer=Buffer.fixed(100, max_bytes=2**28))
    for _ in range(4):
        await world.send(conn, b"x" * 2**24)
    peer.half_close()
    end = await world.end(conn)
    assert end.reason in (Reason.EOF, Reason.CLOSE_TIMEOUT)
    assert end.undelivered >= 1


async def test_a_dialler_takes_the_end_of_stream_as_a_break_keeps_its_queue_and_dials_again(world):
    port = world.reserved_port()
    first = world.raw_listener(port.port)
    conn = world.connect(port.address, reconnect=Backoff(initial=0.05, maximum=0.1))
    peer = await world.outside(first.accept)
    await world.up(conn)
    first.close()
    await world.eventually(lambda: conn.state.name == "DISCONNECTED")
    await world.send(conn, b"kept", b"in order")
    assert (await world.down(conn)).reason is Reason.EOF
    again = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(again.recv_many, 2) == [b"kept", b"in order"]
    assert peer.socket.fileno() == -1


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 9])
async def test_an_end_in_the_middle_of_a_frame_is_truncated(world, cut):
    wire = frame(b"whole") + frame(b"part of it")[:cut]
    conn, peer = await world.answered()
    peer.send_bytes(wire)
    peer.half_close()
    assert await world.recv(conn) == b"whole"
    assert (await world.end(conn)).reason is Reason.TRUNCATED

    dialler, peer, _ = await world.dialled()
    peer.send_bytes(wire)
    peer.half_close()
    assert await world.recv(dialler) == b"whole"
    assert (await world.down(dialler)).reason is Reason.TRUNCATED


async def test_a_reset_is_reset(world):
    conn, peer = await world.answered()
    peer.reset()
    assert (await world.end(conn)).reason is Reason.RESET
    dialler, peer, _ = await world.dialled()
    peer.reset()
    assert (await world.down(dialler)).reason is Reason.RESET


async def test_net_async_is_the_protocol_whether_named_or_not(world):
    listener = world.listen(0, protocol="net.async")
    client = world.connect(listener.address, protocol="net.async")
    served = await world.accept(listener)
    await world.send(client, b"named")
    await world.up(served)
    assert await world.recv(served) == b"named"
