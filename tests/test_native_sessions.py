"""Coming back to a session, as a peer that was written from the page alone sees it."""

import pytest

from netasync import Closed, Disconnected, Reason, State
from support.frames import ACK, CLOSE, message
from support.native import Refused
from support.native_world import native_answered, native_call, native_connect, native_dial, native_listener
from support.wires import OURS

pytestmark = OURS

TOKEN, MALFORMED, BUSY, CLOSED = 3, 2, 4, 6


def back(peer, **fields):
    """What a dialler says that returns to the session which `peer` was in."""
    answer = peer.theirs
    return {
        "session": answer.session,
        "token": answer.token,
        "link": 2,
        "received": 0,
        "credit": peer.ours.credit,
        **fields,
    }


async def refusal(world, listener, **fields):
    """The REFUSE that answers this HELLO."""
    peer = await native_dial(world, listener.address)
    with pytest.raises(Refused) as caught:
        await world.outside(lambda: peer.greet(**fields))
    return caught.value.refuse


async def test_the_answer_names_the_same_session_and_what_was_received(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    peer.send(b"one", b"two")
    assert await world.take(conn, 2) == [b"one", b"two"]
    peer.send_bytes(message(b"cut in the middle")[:9])
    again = await native_dial(world, listener.address)
    answer = await world.outside(lambda: again.greet(**back(peer)))
    assert (answer.session, answer.token, answer.link) == (peer.theirs.session, peer.theirs.token, 2)
    assert answer.received == 2
    assert (await world.down(conn)).reason in (Reason.REPLACED, Reason.TRUNCATED)
    assert (await world.up(conn)).resumed
    again.take_up(peer)
    assert (await world.outside(again.read)).kind == ACK, "without waiting for ours"
    await world.outside(again.ack)
    again.send_bytes(message(b"cut in the middle"))
    assert await world.recv(conn) == b"cut in the middle"


async def test_what_was_not_received_comes_again_and_what_was_does_not(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    await world.send(conn, b"zero", b"one", b"two")
    await world.outside(lambda: [peer.recv() for _ in range(3)])
    again = await native_dial(world, listener.address)
    await world.outside(lambda: again.greet(**back(peer, received=1)))
    await world.outside(again.ack)
    frames = [await world.outside(again.recv) for _ in range(2)]
    assert frames == [b"one", b"two"]


@pytest.mark.parametrize("fields", [{"received": 3}, {"credit": 10}, {"max_size": 5}])
async def test_numbers_that_cannot_be_void_the_session(world, fields):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    await world.send(conn, b"zero", b"one")
    await world.outside(lambda: [peer.recv() for _ in range(2)])
    refused = await refusal(world, listener, **back(peer, **fields))
    assert refused.code == MALFORMED
    items = [await world.recv(conn), await world.recv(conn)]
    assert isinstance(items[-1], Closed) and items[-1].reason is Reason.PROTOCOL, items


async def test_a_wrong_token_is_refused_and_touches_nothing(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    refused = await refusal(world, listener, **back(peer, token=bytes(15) + b"x"))
    assert refused.code == TOKEN
    assert conn.state is State.CONNECTED
    peer.send(b"still there")
    assert await world.recv(conn) == b"still there"


async def test_guesses_are_slowed_down(world):
    listener = world.listen(0)
    _, peer = await native_call(world, listener)
    for _ in range(10):
        assert (await refusal(world, listener, **back(peer, token=bytes(15) + b"x"))).code == TOKEN
    assert (await refusal(world, listener, **back(peer))).code == BUSY, "the right one too"
    stranger = await native_dial(world, listener.address)
    await world.outside(stranger.open)


async def test_a_late_duplicate_is_refused(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    assert (await refusal(world, listener, **back(peer, link=1))).code == TOKEN
    assert conn.state is State.CONNECTED


async def test_a_session_that_nobody_knows_is_a_new_one(world):
    listener = world.listen(0)
    peer = await native_dial(world, listener.address)
    unknown = {"session": bytes([1] * 16), "token": bytes([2] * 16), "link": 7, "received": 5}
    answer = await world.outside(lambda: peer.greet(**unknown))
    assert answer.session not in (bytes(16), unknown["session"]) and answer.received == 0
    await world.outside(lambda: peer.tell(0, 2**20))
    conn = await world.accept(listener)
    assert not (await world.up(conn)).resumed


async def test_a_session_that_is_over_is_remembered_with_what_was_consumed(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    peer.send(b"taken", b"not taken")
    assert await world.recv(conn) == b"taken"
    await world.arrived(conn, 2)
    await world.outside(conn.abort)
    await world.wait_closed(conn)
    refused = await refusal(world, listener, **back(peer))
    assert (refused.code, refused.consumed) == (CLOSED, 1)


async def test_a_dialler_comes_back_with_its_session_and_its_numbers(world):
    conn, peer, server = await dialled(world)
    peer.send(b"one", b"two")
    assert await world.take(conn, 2) == [b"one", b"two"]
    await world.send(conn, b"begun")
    await world.outside(peer.recv)
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    fields = {"session": peer.ours.session, "token": peer.ours.token, "received": 0}
    asked = await world.outside(lambda: again.answer_hello(**fields))
    assert (asked.session, asked.token, asked.link) == (peer.ours.session, peer.ours.token, 2)
    assert asked.received == 2
    again.take_up(peer)
    assert (await world.up(conn)).resumed
    await world.outside(again.ack)
    assert await world.outside(again.recv) == b"begun"


@pytest.mark.parametrize("received", [2, 2**63])
async def test_a_dialler_does_not_believe_what_cannot_be(world, received):
    conn, peer, server = await dialled(world)
    await world.send(conn, b"begun")
    await world.outside(peer.recv)
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    fields = {"session": peer.ours.session, "token": peer.ours.token, "received": received}
    await world.outside(lambda: again.answer_hello(**fields))
    third = await world.outside(server.accept)
    asked = await world.outside(third.answer)
    assert asked.session == bytes(16), "the session is void"
    assert (await world.up(conn)).redelivered == 1


@pytest.mark.parametrize("code", [TOKEN, MALFORMED])
async def test_a_dialler_whose_session_is_refused_begins_a_new_one(world, code):
    conn, peer, server = await dialled(world)
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    await world.outside(lambda: again.refuse(code))
    third = await world.outside(server.accept)
    assert (await world.outside(third.answer)).session == bytes(16)
    assert not (await world.up(conn)).resumed


async def test_a_refusal_of_what_is_over_settles_what_was_taken(world):
    conn, peer, server = await dialled(world)
    await world.send(conn, b"taken", b"not taken")
    await world.outside(lambda: [peer.recv() for _ in range(2)])
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    await world.outside(lambda: again.refuse(CLOSED, consumed=1))
    third = await world.outside(server.accept)
    assert (await world.outside(third.answer)).session == bytes(16)
    up = await world.up(conn)
    assert (up.redelivered, conn.stats().confirmed) == (1, 1)
    assert await world.outside(third.recv) == b"not taken"


async def test_no_token_is_ever_shown(world):
    conn, peer = await native_answered(world)
    shown = f"{conn!r} {conn.session} {conn.stats()!r} {conn.peer}"
    assert peer.theirs.session.hex() == conn.session
    assert peer.theirs.token.hex() not in shown and str(peer.theirs.token) not in shown


async def dialled(world):
    """A dialler, the peer at its other end, and the listener that it will dial again."""
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=0.01)
    peer = await world.outside(server.accept)
    await world.outside(peer.answer)
    await world.up(conn)
    return conn, peer, server


async def closing_and_unanswered(world):
    """A dialler that closes with everything confirmed, its peer, which hangs up, and the next link."""
    conn, peer, server = await dialled(world)
    world.start_close(conn)
    await world.outside(lambda: peer.wait_for(CLOSE))
    peer.close()
    return conn, peer, await world.outside(server.accept)


async def test_a_closing_dialler_that_was_not_answered_says_close_again(world):
    conn, peer, again = await closing_and_unanswered(world)
    fields = {"session": peer.ours.session, "token": peer.ours.token}
    asked = await world.outside(lambda: again.answer_hello(**fields))
    assert (asked.session, asked.token, asked.link) == (peer.ours.session, peer.ours.token, 2)
    again.take_up(peer)
    await world.outside(lambda: again.expect(ACK))
    await world.outside(again.ack)
    await world.outside(again.answer_close)
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


async def test_who_came_back_to_say_close_says_nothing_in_a_new_session(world):
    conn, _, again = await closing_and_unanswered(world)
    await world.outside(again.answer_hello)
    assert await world.outside(again.read_to_end) == ([], "eof")
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


async def test_silence_behind_the_greeting_of_a_resume_is_a_break(world):
    listener = world.listen(0, open_timeout=0.3)
    conn, peer = await native_call(world, listener)
    again = await native_dial(world, listener.address)
    await world.outside(lambda: again.greet(**back(peer)))
    assert (await world.down(conn)).reason is Reason.REPLACED
    assert (await world.up(conn)).resumed
    down = await world.recv(conn)
    assert isinstance(down, Disconnected) and down.reason is Reason.OPEN_TIMEOUT


async def test_a_link_that_comes_back_to_a_connection_that_ends_is_ended_too(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    await world.outside(lambda: peer.goodbye(0))
    again = await native_dial(world, listener.address)
    with pytest.raises(Refused) as caught:
        await world.outside(lambda: again.greet(**back(peer)))
    assert caught.value.refuse.code == CLOSED
    assert (await world.wait_closed(conn)).reason is Reason.CLOSED_BY_PEER
