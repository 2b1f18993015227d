"""Closing: what was accepted is delivered before the end, within its time, and abort ends now."""

import asyncio
import pathlib
import warnings

import pytest

from netasync import Buffer, Closed, ClosedError, Connected, Reason, State, UndeliveredWarning
from support import faces
from support.peer import RawPeer, frame
from support.wires import ORIGINAL, OURS

ROOMY = Buffer.fixed(10_000, max_bytes=2**28)


@ORIGINAL
async def test_what_was_accepted_is_delivered_before_the_end(world):
    for conn, peer in (
        (await world.dialled(write_buffer=ROOMY))[:2],
        await world.answered(write_buffer=ROOMY),
    ):
        payloads = [b"%d" % number * 3000 for number in range(1000)]
        await world.send_many(conn, payloads)
        world.start_close(conn)
        assert await world.outside(peer.messages_to_end) == payloads
        peer.close()
        end = await world.end(conn)
        assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)
        assert conn.stats().confirmed == 1000


@ORIGINAL
async def test_closing_waits_until_everything_was_handed_over(world):
    conn, peer, _ = await world.dialled(write_buffer=ROOMY)
    await world.send_many(conn, [b"x" * 10_000] * 1000)
    reading = world.spawn(world.outside(_read_and_close, peer))
    await world.close(conn)
    assert conn.state is State.CLOSED
    assert len(await world.join(reading)) == 1000
    assert (await world.end(conn)).undelivered == 0


async def test_both_ends_may_close_at_once(world):
    for _ in range(20):
        client, served, _ = await world.pair()
        await world.send(client, b"last")
        await world.send(served, b"words")
        world.start_close(client)
        world.start_close(served)
        ends = [await world.wait_closed(client), await world.wait_closed(served)]
        assert ends[0].reason is Reason.CLOSED_HERE
        assert ends[1].reason in (Reason.CLOSED_HERE, world.farewell)  # the client may have been quicker
        # Who closes takes nothing more; ours says so, the original's cannot.
        assert max(end.undelivered for end in ends) <= (world.wire == "netasync")


async def test_the_other_end_takes_all_of_it_and_then_the_end(world):
    client, served, _ = await world.pair()
    sent = [b"%d" % number for number in range(2000)]
    await world.send_many(client, sent)
    closing = world.spawn(world.close(client))
    assert await world.take(served, 2000) == sent
    assert (await world.end(served)).reason is world.farewell
    await world.join(closing)
    assert (await world.end(client)).reason is Reason.CLOSED_HERE


@ORIGINAL
async def test_unread_input_never_destroys_data_on_its_way_out(world):
    for _ in range(30):
        conn, peer = await world.answered(write_buffer=ROOMY)
        peer.send(b"nobody", b"takes", b"these")
        await world.arrived(conn, 3)
        peer.send(b"this neither")
        await world.send(conn, b"x" * 100_000)
        world.start_close(conn)
        assert await world.outside(peer.recv_to_end) == (frame(b"x" * 100_000), "eof")
        peer.close()
        await world.end(conn)


@ORIGINAL
async def test_input_that_keeps_coming_does_not_destroy_data_on_its_way_out(world):
    conn, peer = await world.answered(write_buffer=ROOMY)
    chatter = world.spawn(world.outside(_chatter, peer))
    await world.send(conn, b"x" * 1_000_000)
    world.start_close(conn)
    assert await world.outside(peer.recv_exactly, 1_000_004) == frame(b"x" * 1_000_000)
    peer.half_close()
    await world.join(chatter)
    assert (await world.end(conn)).undelivered == 0


@ORIGINAL
async def test_a_peer_that_does_not_read_cannot_hold_a_close_longer_than_close_timeout(world):
    for conn, peer in (
        (await world.dialled(write_buffer=ROOMY, close_timeout=0.2))[:2],
        await world.answered(write_buffer=ROOMY, close_timeout=0.2),
    ):
        for _ in range(4):
            await world.send(conn, b"x" * 2**24)
        world.start_close(conn)
        end = await world.end(conn)
        assert end.reason is Reason.CLOSE_TIMEOUT
        assert 1 <= end.undelivered <= 4
        assert peer.socket.fileno() >= 0


@ORIGINAL
async def test_a_peer_that_never_hangs_up_cannot_hold_a_close(world):
    conn, peer, _ = await world.dialled(close_timeout=0.2)
    await world.send(conn, b"taken")
    await world.close(conn)
    end = await world.end(conn)
    assert end.undelivered == 0
    assert end.reason in (Reason.CLOSED_HERE, Reason.CLOSE_TIMEOUT)
    assert await world.outside(peer.recv_to_end) == (frame(b"taken"), "eof")


async def test_a_dialler_without_link_and_queue_closes_at_once(world):
    conn = world.connect(world.reserved_port().address, reconnect=3000, close_timeout=3000)
    await world.down(conn)
    world.start_close(conn)
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


@ORIGINAL
async def test_a_dialler_without_link_goes_on_dialling_for_what_it_has_queued(world):
    port = world.reserved_port()
    conn = world.connect(port.address, close_timeout=20)
    await world.send(conn, b"to the", b"last")
    await world.down(conn)
    world.start_close(conn)
    assert conn.state is State.CLOSING
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(peer.messages_to_end) == [b"to the", b"last"]
    peer.close()
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


async def test_a_dialler_that_finds_nobody_says_how_many_were_not_delivered(world):
    conn = world.connect(world.reserved_port().address, close_timeout=0.2)
    await world.send(conn, b"1", b"2", b"3")
    world.start_close(conn)
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSE_TIMEOUT, 3)


@ORIGINAL
async def test_the_next_item_after_close_is_closed(world):
    conn, peer = await world.answered()
    peer.send(b"1", b"2", b"3")
    await world.arrived(conn, 3)
    world.start_close(conn)
    peer.close()
    assert isinstance(await world.recv(conn), Closed)
    assert conn.stats().read_dropped == 3


@ORIGINAL
async def test_a_recv_that_waits_is_told(world):
    conn, peer, _ = await world.dialled()
    readers = [world.spawn(world.recv(conn)) for _ in range(3)]
    for reader in readers:
        await world.settle(reader)
    world.start_close(conn)
    peer.close()
    ends = [await world.join(reader) for reader in readers]
    assert [end.reason for end in ends] == [Reason.CLOSED_HERE] * 3


@ORIGINAL
async def test_closing_twice_is_closing_once(world):
    conn, peer, _ = await world.dialled()
    world.start_close(conn)
    world.start_close(conn)
    peer.close()
    await world.close(conn)
    await world.close(conn)
    end = await world.end(conn)
    assert end.reason is Reason.CLOSED_HERE
    assert await world.wait_closed(conn) == end


@ORIGINAL
async def test_after_its_timeout_closing_goes_on(world):
    conn, peer, _ = await world.dialled(write_buffer=ROOMY, close_timeout=20)
    for _ in range(2):
        await world.send(conn, b"x" * 2**24)
    with pytest.raises(TimeoutError):
        await world.close(conn, timeout=0.1)
    assert conn.state is State.CLOSING
    assert await world.outside(peer.messages_to_end) == [b"x" * 2**24] * 2
    peer.close()
    assert (await world.end(conn)).undelivered == 0


# abort


@ORIGINAL
async def test_abort_ends_now(world):
    conn, peer, _ = await world.dialled(write_buffer=ROOMY, close_timeout=3000)
    for _ in range(4):
        await world.send(conn, b"x" * 2**24)
    conn.abort()
    assert conn.state is State.CLOSED
    end = world.recv_nowait(conn)
    assert end.reason is Reason.ABORTED
    assert 1 <= end.undelivered <= 4
    with pytest.raises(ClosedError):
        await world.send(conn, b"x")
    await world.outside(_read_whatever_comes, peer)


async def test_abort_ends_a_close_that_goes_on(world):
    conn = world.connect(world.reserved_port().address, close_timeout=3000)
    await world.send(conn, b"waits")
    closing = world.spawn(world.wait_closed(conn))
    world.start_close(conn)
    await world.settle(closing)
    conn.abort()
    assert (await world.join(closing)).undelivered == 1


@ORIGINAL
async def test_abort_ends_a_dialler_that_dials(world):
    full = world.raw_listener(backlog=0)
    await world.outside(full.fill)
    conns = [world.connect(full.address, open_timeout=3000) for _ in range(5)]
    for conn in conns:
        conn.abort()
        await world.wait_closed(conn)


async def test_the_peer_of_an_aborted_handle_sees_the_end(world):
    client, served, _ = await world.pair()
    client.abort()
    assert (await world.end(served)).reason in (world.farewell, Reason.RESET, Reason.ABORTED, Reason.BUSY)


# async with, with


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_leaving_async_with_closes_and_delivers(world):
    server = world.raw_listener()
    async with world.connect(server.address) as conn:
        await conn.send(b"inside")
        peer = await world.outside(server.accept)
        reading = world.spawn(world.outside(_read_and_close, peer))
    assert conn.state is State.CLOSED
    assert await world.join(reading) == [b"inside"]


@ORIGINAL
@pytest.mark.faces("threads")
async def test_leaving_with_closes_and_delivers(world):
    server = world.raw_listener()
    with world.connect(server.address) as conn:
        conn.send(b"inside")
        peer = await world.outside(server.accept)
        reading = world.spawn(world.outside(_read_and_close, peer))
    assert conn.state is State.CLOSED
    assert await world.join(reading) == [b"inside"]


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_an_exception_passes_through_async_with(world):
    conn, peer, _ = await world.dialled()
    peer.half_close()
    with pytest.raises(LookupError):
        async with conn:
            raise LookupError
    assert conn.state is State.CLOSED


@ORIGINAL
@pytest.mark.faces("threads")
async def test_an_exception_passes_through_with(world):
    conn, peer, _ = await world.dialled()
    peer.half_close()
    with pytest.raises(LookupError), conn:
        raise LookupError
    assert conn.state is State.CLOSED


@pytest.mark.faces("asyncio", "uvloop")
async def test_async_with_gives_the_handle_itself(world):
    listener = world.listen(0)
    conn = world.connect(listener.address)
    async with conn as entered:
        assert entered is conn
        assert isinstance(await world.recv(conn), Connected)


# The end is returned, and said where nobody looks at it


async def test_closing_returns_the_end(world):
    conn = world.connect(world.reserved_port().address, close_timeout=0.1)
    await world.send(conn, b"1", b"2")
    end = await world.close(conn)
    assert (type(end), end.reason, end.undelivered) == (Closed, Reason.CLOSE_TIMEOUT, 2)
    assert await world.close(conn) == end == await world.end(conn)
    listener = world.listen()
    assert await world.close(listener) == Closed(reason=Reason.CLOSED_HERE)
    again = world.listen()
    if world.face.awaited:
        again.accept_chan.close()
    else:
        assert again.accept_chan.close() == Closed(reason=Reason.CLOSED_HERE)
        assert conn.write_chan.close() == end


async def test_leaving_a_block_with_undelivered_messages_warns_once_and_names_target_and_count(world):
    port = world.reserved_port()
    conn = world.connect(port.address, close_timeout=0.1)
    await world.send(conn, b"1", b"2", b"3")
    with pytest.warns(UndeliveredWarning, match=f"^3 messages to {port.address} left undelivered: ") as told:
        await world.leave(conn)
    assert [pathlib.Path(one.filename) for one in told] == [pathlib.Path(faces.__file__)]  # whose block it is
    await world.leave(conn)
    with faces.blocking(conn):
        pass
    assert issubclass(UndeliveredWarning, UserWarning)


async def test_one_message_is_one_message(world):
    port = world.reserved_port()
    conn = world.connect(("127.0.0.1", port.port), close_timeout=0.1)
    await world.send(conn, b"1")
    with pytest.warns(UndeliveredWarning, match=f"^1 message to 127.0.0.1:{port.port} left undelivered"):
        await world.leave(conn)


@OURS
async def test_leaving_an_accepted_connection_warns_too_and_names_its_peer(world):
    listener = world.listen(close_timeout=0.1)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address)
    served = await world.accept(listener)
    await world.up(client), await world.up(served)
    peer = served.peer
    proxy.refuse()
    proxy.cut("rst")
    await world.down(served)
    await world.send(served, b"x")
    with pytest.warns(UndeliveredWarning, match=f"^1 message to {peer} left undelivered"):
        await world.leave(served)


@pytest.mark.parametrize("why", ["discard", "abort", "delivered"])
async def test_leaving_a_block_warns_of_nothing_where_nothing_is_missed(world, why):
    listener = world.listen()
    target = listener.address if why == "delivered" else world.reserved_port().address
    choice = "discard" if why == "discard" else "redeliver"
    conn = world.connect(target, close_timeout=0.1 if why == "discard" else 20, on_new_session=choice)
    await world.send(conn, b"x")
    if why == "abort":
        conn.abort()
    await world.leave(conn)
    assert (await world.wait_closed(conn)).undelivered == (0 if why == "delivered" else 1)


async def test_an_exception_that_leaves_a_block_is_not_hidden_by_the_warning(world):
    conn = world.connect(world.reserved_port().address, close_timeout=0.1)
    await world.send(conn, b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LookupError, match="more important"):
            await world.leave(conn, LookupError("more important"))
    other = world.connect(world.reserved_port().address, close_timeout=0.1)
    await world.send(other, b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UndeliveredWarning):
            await world.leave(other)
    assert (conn.state, other.state) == (State.CLOSED, State.CLOSED)


@pytest.mark.faces("asyncio", "uvloop")
async def test_a_task_that_is_cancelled_in_its_block_warns_and_stays_cancelled(world):
    conn = world.connect(world.reserved_port().address, close_timeout=0.1)
    await world.send(conn, b"x")
    waiting = world.spawn(world.leave(conn, asyncio.CancelledError()))
    with pytest.warns(UndeliveredWarning), pytest.raises(asyncio.CancelledError):
        await waiting


# Accepted handles


async def test_an_accepted_handle_ends_with_its_link(world):
    client, served, _ = await world.pair()
    await world.send(client, b"1", b"2")
    world.start_close(client)
    assert await world.take(served, 2) == [b"1", b"2"]
    end = await world.end(served)
    assert end.reason is world.farewell


async def test_closing_an_accepted_handle_makes_its_dialler_dial_again(world):
    client, served, listener = await world.pair()
    await world.close(served)
    assert (await world.down(client)).reason is world.farewell
    again = await world.accept(listener)
    await world.up(client)
    await world.up(again)


def _read_and_close(peer: RawPeer) -> list[bytes]:
    messages = peer.messages_to_end()
    peer.close()
    return messages


def _read_whatever_comes(peer: RawPeer) -> None:
    data, _ = peer.recv_to_end()
    assert len(data) < 4 * 2**24


def _chatter(peer: RawPeer) -> None:
    try:
        for _ in range(20_000):
            peer.send(b"chatter, chatter")
    except OSError:
        return
