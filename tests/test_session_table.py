"""What a listener keeps of sessions whose peers are gone, were never there, or lie."""

import collections
import contextlib
import gc

import pytest

from netasync import Buffer, ClosedError, Reason, State
from support.counts import counts
from support.faces import aio
from support.frames import close, message
from support.native import NativePeer, Refused
from support.native_world import native_call, native_dial
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

TOKEN, BUSY, OVER = 3, 4, 6


def back(peer, link=2, token=None):
    """The fields of a HELLO that asks for the session which `peer` was in."""
    answer = peer.theirs
    return {
        "session": answer.session,
        "token": token or answer.token,
        "link": link,
        "received": 0,
        "credit": peer.ours.credit,
    }


def refusal(address, fields):
    """The code of the REFUSE that answers this, or None for an answer."""
    peer = NativePeer.dial(address)
    try:
        peer.greet(**fields)
    except Refused as refused:
        return refused.refuse.code
    finally:
        peer.close()
    return None


async def abandoned(world, listener, number):
    """So many sessions whose diallers went without a word, up to the end of each."""
    conns = []
    for _ in range(number):
        peer = await world.outside(NativePeer.dial, listener.address)
        await world.outside(peer.open)
        conns.append(await world.face.call(listener, "accept"))
        peer.close()
    await world.eventually(lambda: all(conn.state is State.CLOSED for conn in conns))
    reasons = {(await world.wait_closed(conn)).reason for conn in conns}
    assert reasons == {Reason.SESSION_EXPIRED}


@pytest.mark.parametrize("number", counts(400, 10_000))
async def test_abandoned_sessions_expire_and_give_their_memory_back(world, number):
    """F 54: expired sessions leave no tombstone, and the allocator keeps little of what they held."""
    listener = world.listen(0, session_timeout=0.1, max_sessions=20_000)
    await abandoned(world, listener, number)
    gc.collect()
    before = resident_bytes()
    await abandoned(world, listener, number)
    await abandoned(world, listener, number)
    gc.collect()
    assert not listener.connections
    assert resident_bytes() - before < 2 * number * 1024


@pytest.mark.parametrize("number", counts(60, 34_000))
async def test_guessing_a_token_leads_nowhere_and_costs_nothing(world, number):
    """F 56, a third of 100 000 on each face: after ten guesses nobody looks, and nothing notices."""
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    codes = collections.Counter()
    before = resident_bytes()
    for guess in range(1, number + 1):
        fields = back(peer, token=guess.to_bytes(16, "big"))
        codes[await world.outside(refusal, listener.address, fields)] += 1
    assert codes[TOKEN] >= 10 and codes[TOKEN] + codes[BUSY] == number
    assert resident_bytes() - before < 2**20
    peer.send(b"still there")
    assert await world.recv(conn) == b"still there"
    neighbour = await native_dial(world, listener.address)
    await world.outside(neighbour.open)
    assert peer.theirs.token.hex() not in f"{conn!r}{conn.stats()!r}{listener!r}{listener.stats()!r}"


async def test_of_two_clients_with_one_token_the_first_of_a_number_wins(world):
    """F 56: a copy of a session's HELLO cannot fence the link that it is a copy of."""
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    winner = await native_dial(world, listener.address)
    await world.outside(lambda: winner.greet(**back(peer)))
    assert (await world.down(conn)).reason is Reason.REPLACED
    assert (await world.up(conn)).resumed
    assert await world.outside(refusal, listener.address, back(peer)) == TOKEN
    winner.take_up(peer)
    await world.outside(winner.ack)
    winner.send(b"the winner's")
    assert await world.recv(conn) == b"the winner's"


async def test_a_session_whose_peer_is_back_already_makes_no_room(world):
    """Only what has no link is bounded, and what fences an older link is the next one."""
    listener = world.listen(0, max_held_bytes=1000)
    conn, peer = await native_call(world, listener)
    peer.send(bytes(2000))
    await world.arrived(conn, 1)
    again = await native_dial(world, listener.address)
    await world.outside(lambda: again.greet(**back(peer)))
    assert await world.recv(conn) == bytes(2000)
    assert (await world.down(conn)).reason is Reason.REPLACED
    assert (await world.up(conn)).resumed


async def test_what_absent_sessions_hold_is_bounded_while_they_are_written_to(world):
    """The longest absent goes first, whichever of them grew; what was taken makes room."""
    listener = world.listen(0, max_held_bytes=10_000)
    conns = []
    for number in range(4):
        conn, peer = await native_call(world, listener)
        peer.send(bytes(936))
        await world.arrived(conn, 1)
        if number == 3:
            assert await world.recv(conn) == bytes(936)
        peer.close()
        conns.append(conn)
        await world.eventually(lambda conn=conn: conn.state is State.DISCONNECTED)
    # Three of them hold 1000 each.
    await world.send(conns[3], *[bytes(936)] * 7)
    assert all(conn.state is State.DISCONNECTED for conn in conns)
    await world.send(conns[3], bytes(936))
    assert await world.recv(conns[0]) == bytes(936)
    await world.down(conns[0])
    assert (await world.end(conns[0])).reason is Reason.SESSION_EXPIRED
    assert await world.recv(conns[1]) == bytes(936), "what is taken is held no longer"
    await world.send(conns[2], bytes(936))
    assert all(conn.state is State.DISCONNECTED for conn in conns[1:])
    await world.send_many(conns[2], [bytes(936)])
    await world.down(conns[1])
    assert (await world.end(conns[1])).reason is Reason.SESSION_EXPIRED
    assert (await world.wait_closed(conns[2])).reason is Reason.SESSION_EXPIRED
    assert conns[3].state is State.DISCONNECTED


async def test_an_absent_session_that_alone_holds_too_much_makes_room_itself(world):
    listener = world.listen(0, max_held_bytes=1000)
    conn, peer = await native_call(world, listener)
    peer.close()
    await world.down(conn)
    assert await world.send(conn, bytes(500))
    assert await world.send(conn, bytes(500))
    assert (await world.end(conn)).reason is Reason.SESSION_EXPIRED


#: How a session is over in any other way than by expiry: what its dialler says, or its own side does.
ENDS = {
    "the peer is done": lambda peer, conn: peer.say_close(0),
    "the peer leaves": lambda peer, conn: peer.say_close(1),
    "the peer aborts": lambda peer, conn: peer.say_close(3),
    "the peer aborts without a word before": lambda peer, conn: peer.send_bytes(close(3)),
    "the peer says that it is void": lambda peer, conn: peer.send_bytes(close(5)),
    "the peer closes as nobody knows": lambda peer, conn: peer.say_close(77),
    "the peer breaks the rules": lambda peer, conn: peer.send_bytes(b"GET / HTTP/1.1"),
    "a message behind close": lambda peer, conn: peer.send_bytes(close(0) + message(b"late")),
    "aborted here": lambda peer, conn: conn.abort(),
    "closed here": lambda peer, conn: (aio(conn).close(), peer.answer_close()),
    "closed here without a link": lambda peer, conn: (peer.close(), aio(conn).close()),
    "aborted here without a link": lambda peer, conn: (peer.close(), conn.abort()),
}


@pytest.mark.parametrize("way", sorted(ENDS))
async def test_a_session_that_is_over_is_remembered_however_it_ended(world, way):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    peer.send(b"one", b"two")
    await world.arrived(conn, 2)
    assert await world.recv(conn) == b"one"
    await world.outside(ENDS[way], peer, conn)
    with contextlib.suppress(OSError):  # where it has closed already
        peer.half_close()
    await world.wait_closed(conn)
    for link in (2, 2, 7):
        refuse = await refused(world, listener, back(peer, link))
        assert (refuse.code, refuse.consumed) == (OVER, 2 if BY_PEER.get(way) else 1)
    assert (await refused(world, listener, back(peer, token=b"w" * 16))).code == TOKEN


#: Who answers delivers: what was received whole when CLOSE came counts as taken.
BY_PEER = {
    "the peer is done": True,
    "the peer leaves": True,
    "the peer closes as nobody knows": True,
    "a message behind close": True,
}


async def refused(world, listener, fields):
    again = await native_dial(world, listener.address)
    with pytest.raises(Refused) as told:
        await world.outside(lambda: again.greet(**fields))
    return told.value.refuse


async def test_who_aborts_on_the_resumed_link_is_remembered(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    again = await native_dial(world, listener.address)
    await world.outside(lambda: again.greet(**back(peer)))
    again.send_bytes(close(3))
    await world.down(conn)
    await world.up(conn)
    # The link may have gone before its value could be seen.
    assert (await world.end(conn)).reason is Reason.ABORTED
    assert (await refused(world, listener, back(peer, 3))).code == OVER


@pytest.mark.parametrize("code", [3, 5])
async def test_a_session_that_ended_with_its_first_frame_is_remembered(world, code):
    listener = world.listen(0)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.greet)
    peer.send_bytes(close(code))
    await world.outside(peer.recv_to_end)
    refuse = await refused(world, listener, back(peer))
    assert (refuse.code, refuse.consumed) == (OVER, 0)
    assert listener.stats().accepted == 0


@pytest.mark.faces("asyncio", "threads")
async def test_an_abort_that_nobody_has_looked_at_is_not_undone_by_a_return(world):
    """The return comes while what was read of the older link is not judged yet: many times, in one write."""
    listener = world.listen(0)
    for _ in range(50):
        conn, peer = await native_call(world, listener)
        again = await native_dial(world, listener.address)
        peer.say_close(3)
        again.say_hello(**back(peer))
        try:
            await world.outside(again.hear_hello)
        except Refused as told:
            assert told.refuse.code == OVER
            assert (await world.end(conn)).reason is Reason.ABORTED
        else:
            # The return was there first; what came on the older link does not count.
            assert again.theirs.session == peer.theirs.session
            conn.abort()
            await world.wait_closed(conn)


async def test_a_peer_that_never_confirms_makes_its_sender_wait_and_nobody_else(world):
    """F 52: what is begun stays within the write buffer, and the neighbour's messages pass."""
    listener = world.listen(0, write_buffer=Buffer.fixed(10, max_bytes=10_000))
    conn, peer = await native_call(world, listener, credit=2**40, max_messages=2**32 - 1)
    neighbour, other = await native_call(world, listener)
    peer.answers = False
    sending = world.spawn(world.send(conn, *[bytes(936)] * 100))
    await world.outside(lambda: [peer.read() for _ in range(9)])
    await world.eventually(lambda: conn.stats().queued == 10)
    for number in range(50):
        await world.send(neighbour, b"%d" % number)
        assert await world.outside(other.recv) == b"%d" % number
    stats = conn.stats()
    assert (stats.unconfirmed, stats.queued, stats.confirmed) == (10, 10, 0)
    assert conn.state is State.CONNECTED
    peer.close()
    await world.down(conn)
    await world.outside(conn.abort)
    with pytest.raises(ClosedError):
        await world.join(sending)
