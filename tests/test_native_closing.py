"""Endings on our own wire: CLOSE with its account in front, its codes, and the end of stream in its place."""

import pytest

from netasync import Backoff, ClosedError, Reason, State
from support.frames import ACK, AMPLE, CLOSE, NOBODY, PART, PING, ack, close, control, message
from support.hostile import neighbour
from support.native_world import (
    NATIVE,
    RARELY,
    codes_to_end,
    native_answer,
    native_answered,
    native_call,
    native_dialled,
    native_ends,
    native_pair,
    reason_of_break,
)
from support.wires import OURS

pytestmark = OURS

STEADY = Backoff(initial=0.01, factor=1, maximum=50, jitter="none")


# We close


async def test_close_follows_the_last_message_with_its_ack_in_front(world):
    for conn, peer in await native_ends(world, **RARELY):
        await world.send(conn, b"1", b"2", b"last")
        world.start_close(conn)
        assert await world.outside(peer.answer_close) == (0, b"")
        assert list(peer.messages) == [b"1", b"2", b"last"]
        assert [frame.kind for frame in peer.controls][-2:] == [ACK, CLOSE]
        end = await world.wait_closed(conn)
        assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


async def test_the_end_of_our_stream_follows_when_the_peers_close_was_read(world):
    for conn, peer in await native_ends(world):
        world.start_close(conn)
        await world.outside(peer.wait_for, CLOSE)
        await world.outside(peer.stays_silent)
        assert conn.state is State.CLOSING
        peer.say_close(0)
        assert (await world.outside(peer.recv_to_end)) == (b"", "eof")
        await world.wait_closed(conn)


async def test_who_closes_discards_what_was_not_taken_and_says_so(world):
    for conn, peer in await native_ends(world, **RARELY):
        peer.send(b"taken", b"not", b"not either")
        await world.arrived(conn, 3)
        assert await world.recv(conn) == b"taken"
        world.start_close(conn)
        await world.outside(peer.answer_close)
        assert peer.heard[0] == 1
        await world.wait_closed(conn)
        assert conn.stats().read_dropped == 2


async def test_what_arrives_after_the_close_is_not_consumed_either(world):
    for conn, peer in await native_ends(world, **RARELY):
        world.start_close(conn)
        await world.outside(peer.wait_for, CLOSE)
        peer.send(b"late", b"later")
        peer.ask()
        await world.outside(peer.wait_for, ACK)
        assert peer.heard[0] == 0
        peer.say_close(0)
        await world.wait_closed(conn)


async def test_pings_are_answered_while_a_close_waits(world):
    for conn, peer in await native_ends(world):
        world.start_close(conn)
        await world.outside(peer.wait_for, CLOSE)
        for nonce in (7, 8):
            peer.ping(nonce)
            await world.outside(peer.read)
        peer.say_close(0)
        await world.wait_closed(conn)


async def test_undelivered_counts_what_the_peer_does_not_hold(world):
    conn, peer, _ = await native_dialled(world, {"max_messages": 2}, close_timeout=0.2, reconnect=None)
    peer.answers = False
    await world.send(conn, b"1", b"2", b"3", b"4")
    await world.outside(peer.recv_many, 2)
    world.start_close(conn)
    end = await world.wait_closed(conn)
    assert end.reason is Reason.CLOSE_TIMEOUT
    assert 2 <= end.undelivered <= 4


async def test_close_timeout_bounds_the_wait_for_the_answer(world):
    for conn, _peer in await native_ends(world, close_timeout=0.1):
        world.start_close(conn)
        assert (await world.wait_closed(conn)).reason is Reason.CLOSE_TIMEOUT


async def test_closing_waits_for_credit_before_it_says_close(world):
    conn, peer, _ = await native_dialled(world, {"max_messages": 2})
    peer.answers = False
    await world.send(conn, b"1", b"2", b"3")
    world.start_close(conn)
    await world.outside(peer.recv_many, 2)
    await world.outside(peer.stays_silent)
    peer.consume()
    peer.ack()
    assert await world.outside(peer.recv) == b"3"
    peer.answers = True
    assert (await world.outside(peer.answer_close))[0] == 0
    assert (await world.wait_closed(conn)).undelivered == 0


async def test_sending_on_a_handle_that_closes_is_told(world):
    for conn, peer in await native_ends(world):
        world.start_close(conn)
        with pytest.raises(ClosedError):
            await world.send(conn, b"too late")
        await world.outside(peer.answer_close)


async def test_aclose_returns_when_the_peer_answered(world):
    for conn, peer in await native_ends(world):
        await world.send(conn, b"last")
        closing = world.spawn(world.close(conn))
        await world.outside(peer.answer_close)
        await world.join(closing)
        assert conn.state is State.CLOSED


async def test_two_of_ours_close_with_exact_counts_though_nobody_reads(world):
    client, served, _ = await native_pair(world)
    await world.send_many(client, [b"%d" % number for number in range(500)])
    await world.close(client)
    assert (await world.wait_closed(client)).undelivered == 0
    assert await world.take(served, 500) == [b"%d" % number for number in range(500)]
    assert (await world.end(served)).reason is Reason.CLOSED_BY_PEER


# The peer closes


async def test_the_answer_has_the_same_code_and_the_account_in_front(world):
    for code in (0, 1, 4):
        for conn, peer in await native_ends(world):
            peer.send(b"last words")
            assert await world.outside(peer.goodbye, code) == code
            assert peer.heard[0] == 1, "who answers delivers"
            assert [frame.kind for frame in peer.controls][-2:] == [ACK, CLOSE]
            assert await world.recv(conn) == b"last words"


async def test_the_answer_does_not_wait_for_the_application_to_read(world):
    for conn, peer in await native_ends(world, read_buffer=4):
        peer.send(b"1", b"2", b"3", b"4")
        await world.outside(peer.goodbye)
        assert peer.heard[0] == 4
        assert await world.take(conn, 4) == [b"1", b"2", b"3", b"4"]


async def test_what_was_queued_goes_out_before_the_answer(world):
    for conn, peer in await native_ends(world):
        await world.send(conn, *[b"%d" % number for number in range(50)])
        await world.outside(peer.goodbye)
        assert list(peer.messages) == [b"%d" % number for number in range(50)]


async def test_as_far_as_the_credit_of_that_moment_reaches(world):
    conn, peer = await native_answered(world, {"max_messages": 3})
    peer.answers = False
    await world.send(conn, *[b"%d" % number for number in range(5)])
    await world.outside(peer.recv_many, 3)
    assert await world.outside(peer.goodbye) == 0
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_BY_PEER, 5)


async def test_an_accepted_handle_sends_no_more_once_it_answered(world):
    conn, peer = await native_answered(world)
    await world.outside(peer.goodbye)
    await world.wait_closed(conn)
    with pytest.raises(ClosedError):
        await world.send(conn, b"nobody will take it")


async def test_what_the_closer_had_not_taken_is_undelivered_at_an_accepted_handle(world):
    conn, peer = await native_answered(world)
    peer.answers = False
    await world.send(conn, b"1", b"2", b"3")
    await world.outside(peer.recv_many, 3)
    peer.consume(1)
    await world.outside(peer.goodbye)
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_BY_PEER, 2)
    assert conn.stats().confirmed == 1


async def test_a_dialler_keeps_what_it_is_given_for_the_next_session(world):
    conn, peer, server = await native_dialled(world)
    await world.outside(peer.goodbye)
    assert (await world.down(conn)).reason is Reason.CLOSED_BY_PEER
    await world.send(conn, b"for the next")
    again = await native_answer(world, server)
    assert (again.theirs.session, again.theirs.token) == (NOBODY, NOBODY)
    assert await world.outside(again.recv) == b"for the next"


# Codes


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, Reason.CLOSED_BY_PEER),
        (1, Reason.MOVED),
        (2, Reason.RESET),
        (3, Reason.ABORTED),
        (4, Reason.BUSY),
        (5, Reason.PROTOCOL),
        (6, Reason.MOVED),
        (65_535, Reason.MOVED),
    ],
)
async def test_each_code_has_its_reason_at_a_dialler_which_dials_again(world, code, reason):
    conn, peer, server = await native_dialled(world)
    peer.say_close(code, b"the peer's words")
    peer.half_close()
    down = await world.down(conn)
    assert down.reason is reason
    if code in (2, 5):
        assert "the peer's words" in down.detail
    await native_answer(world, server)
    assert (await world.up(conn)).resumed is False


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, Reason.CLOSED_BY_PEER),
        (1, Reason.CLOSED_BY_PEER),
        (3, Reason.ABORTED),
        (4, Reason.CLOSED_BY_PEER),
        (5, Reason.CLOSED_BY_PEER),
        (77, Reason.CLOSED_BY_PEER),
    ],
)
async def test_each_code_that_ends_an_accepted_handle_has_its_reason(world, code, reason):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener)
    peer.send(b"last")
    peer.say_close(code, b"words")
    peer.half_close()
    assert await world.recv(conn) == b"last"
    assert (await world.end(conn)).reason is reason
    await is_well()


async def test_a_fault_told_to_an_accepted_handle_is_a_break(world):
    conn, peer = await native_answered(world)
    peer.send_bytes(close(2, b"something is wrong"))
    item = await world.recv(conn)
    assert item.reason is Reason.RESET
    assert "something is wrong" in item.detail


async def test_an_abort_is_told_by_close_3_and_awaits_no_answer(world):
    for conn, peer in await native_ends(world):
        peer.answers = False  # whose PONG to one that is gone would draw a reset
        conn.abort()
        end = await world.wait_closed(conn)
        assert end.reason is Reason.ABORTED
        assert await codes_to_end(world, peer) == [3]


async def test_an_abort_takes_nothing_more(world):
    for conn, peer in await native_ends(world, **RARELY):
        peer.send(b"not taken")
        await world.arrived(conn, 1)
        conn.abort()
        await codes_to_end(world, peer)
        assert peer.heard[0] == 0


async def test_a_leaving_peer_is_dialled_again_at_once_but_not_in_circles(world):
    """The first time at once, though the wait would be long; a second within that time waits."""
    slow = Backoff(initial=40, factor=1, maximum=50, jitter="none")
    conn, peer, server = await native_dialled(world, reconnect=slow)
    await world.outside(peer.goodbye, 1)
    assert (await world.down(conn)).retry_in == 0
    again = await native_answer(world, server)
    await world.up(conn)
    await world.outside(again.goodbye, 1)
    assert (await world.down(conn)).retry_in >= 40


@pytest.mark.parametrize("code", [0, 4])
async def test_done_and_busy_wait_the_back_off(world, code):
    conn, peer, _ = await native_dialled(world, reconnect=STEADY)
    await world.outside(peer.goodbye, code)
    assert (await world.down(conn)).retry_in == pytest.approx(0.01)


async def test_the_words_of_a_close_are_cut_and_made_text(world):
    for words, shown in ((b"q" * 5000, "q" * 256), (b"\xff\x80fine", "fine")):
        conn, peer, _ = await native_dialled(world)
        peer.send_bytes(close(2, words))
        down = await world.down(conn)
        assert shown in down.detail and shown + "q" not in down.detail


# What must not come, and what comes in place of CLOSE


#: A message, an empty one, one in pieces, and the header alone of one that is still to come.
MESSAGES = {
    "message": message(b"late"),
    "empty": message(b""),
    "part": control(PART, b"\0\4\0\0" + bytes(9)),
    "header": message(bytes(9))[:4],
}


@pytest.mark.parametrize("code", [0, 1, 4])
@pytest.mark.parametrize("late", sorted(MESSAGES))
async def test_a_message_behind_close_is_protocol_and_is_not_delivered(world, code, late):
    said = message(b"last") + ack(0, AMPLE) + close(code) + MESSAGES[late]
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener)
    peer.send_bytes(said)
    assert await world.recv(conn) == b"last"
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    assert conn.stats().received == 1
    await is_well()
    conn, peer, server = await native_dialled(world)
    peer.send_bytes(said)
    assert await world.recv(conn) == b"last"
    assert (await world.down(conn)).reason is Reason.PROTOCOL
    # The session is over, as after every CLOSE of this kind.
    again = await native_answer(world, server)
    assert again.theirs.session == NOBODY


async def test_a_second_close_changes_nothing(world):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener)
    peer.send_bytes(message(b"last") + ack(0, AMPLE) + close(0) + close(1))
    assert await world.recv(conn) == b"last"
    assert (await world.end(conn)).reason is Reason.CLOSED_BY_PEER
    await is_well()


async def test_to_a_side_that_closes_a_message_behind_close_changes_nothing_of_its_reason(world):
    for conn, peer in await native_ends(world):
        world.start_close(conn)
        await world.outside(peer.wait_for, CLOSE)
        peer.send_bytes(ack(0, AMPLE) + close(0) + message(b"late"))
        assert (await world.wait_closed(conn)).reason is Reason.CLOSED_HERE


@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
async def test_an_end_of_stream_in_place_of_close_is_a_break(world, end):
    for conn, peer in await native_ends(world):
        await world.outside(peer.expect, PING)
        getattr(peer, end)()
        assert await reason_of_break(world, conn) in (Reason.EOF, Reason.RESET)


@pytest.mark.parametrize("count", [1, 3])
async def test_an_end_of_stream_within_a_frame_is_truncated(world, count):
    for conn, peer in await native_ends(world):
        await world.outside(peer.expect, PING)
        peer.send_bytes(message(b"abc")[:count])
        peer.half_close()
        assert await reason_of_break(world, conn) is Reason.TRUNCATED


async def test_when_both_close_at_once_each_keeps_its_code(world):
    for conn, peer in await native_ends(world):
        world.start_close(conn)
        peer.say_close(1)
        assert (await world.outside(peer.wait_for, CLOSE)).body[:2] == b"\0\0"
        peer.half_close()
        assert await codes_to_end(world, peer) == []
        assert (await world.wait_closed(conn)).reason is Reason.CLOSED_HERE
