"""What a listener keeps of sessions whose peers are gone, were never there, or lie."""

import collections
import gc

import pytest

from netasync import Buffer, ClosedError, Reason, State
from support.counts import counts
from support.native import NativePeer, Refused
from support.native_world import native_call, native_dial
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

TOKEN, BUSY = 3, 4


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
