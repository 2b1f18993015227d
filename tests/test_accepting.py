"""Which dials a listener lets in: the three accept buffers and `max_connections`."""

import asyncio
import collections
import contextlib
import gc
import time

import pytest

import netasync
from netasync import Buffer, Connected, Disconnected, Reason
from support.counts import counts
from support.faces import aio
from support.frames import ACK, CLOSE, Hello, read_close, read_numbers
from support.native import NativePeer, Refused
from support.native_world import native_call, native_dial
from support.peer import RawPeer
from support.process import open_descriptors, resident_bytes
from support.waiting import DEADLINE
from support.wires import ORIGINAL, OURS

LOSSY = pytest.mark.parametrize("policy", [Buffer.dropping, Buffer.sliding], ids=["dropping", "sliding"])


async def dial(world, listener):
    """Dial, and wait until the listener has let the dial in or refused it."""
    before = listener.stats()
    peer = await world.raw_dial(listener.address)

    def is_decided():
        now = listener.stats()
        return now.accepted + now.refused > before.accepted + before.refused

    await world.eventually(is_decided, "the dial is let in or refused")
    return peer


async def is_hung_up_on(world, peer):
    data, _ = await world.outside(peer.recv_to_end)
    return data == b""


async def settles(world, listener, expected):
    """The counters `accepted`, `waiting`, `refused` and `connections` become these."""

    def counters():
        stats = listener.stats()
        return stats.accepted, stats.waiting, stats.refused, stats.connections

    await world.eventually(lambda: counters() == expected, f"the counters become {expected}")


# The accept buffer


@ORIGINAL
async def test_a_dropping_accept_buffer_refuses_the_newest(world):
    listener = world.listen(0, accept_buffer=Buffer.dropping(2))
    first, second, third = [await dial(world, listener) for _ in range(3)]
    assert await is_hung_up_on(world, third)
    await settles(world, listener, (2, 2, 1, 2))

    for peer in (first, second):
        conn = await world.accept(listener)
        assert (await world.up(conn)).peer == peer.address
        peer.send(b"is served")
        assert await world.recv(conn) == b"is served"
    fourth = await dial(world, listener)  # there is room again
    assert (await world.up(await world.accept(listener))).peer == fourth.address
    await settles(world, listener, (3, 0, 1, 3))


@ORIGINAL
async def test_a_sliding_accept_buffer_ends_the_one_that_waits_longest(world):
    listener = world.listen(0, accept_buffer=Buffer.sliding(2))
    first = await dial(world, listener)
    (oldest,) = [world.watch(conn, dialler=False) for conn in listener.connections]
    second, third = [await dial(world, listener) for _ in range(2)]
    assert await is_hung_up_on(world, first)
    await settles(world, listener, (3, 2, 1, 2))
    end = await world.end(oldest)
    assert (end.reason, str(end.reason)) == (
        Reason.BUSY,
        "the peer takes no further connections at the moment",
    )

    for peer in (second, third):
        conn = await world.accept(listener)
        assert (await world.up(conn)).peer == peer.address
        peer.send(b"is served")
        assert await world.recv(conn) == b"is served"
    await settles(world, listener, (3, 0, 1, 2))


@ORIGINAL
async def test_what_had_arrived_for_the_one_thrown_out_is_dropped_and_counted(world):
    listener = world.listen(0, accept_buffer=Buffer.sliding(1))
    peer = await dial(world, listener)
    (held,) = [world.watch(conn, dialler=False) for conn in listener.connections]
    peer.send(b"said")
    await world.arrived(held, 1)
    await dial(world, listener)
    assert (await world.end(held)).reason is Reason.BUSY
    assert (await world.balanced(held)).read_dropped == 1


@ORIGINAL
async def test_a_number_is_a_fixed_buffer_and_refuses_nobody(world):
    listener = world.listen(0, accept_buffer=2)
    peers = [await world.raw_dial(listener.address) for _ in range(6)]
    await world.eventually(lambda: listener.stats().waiting == 2)
    for peer in peers:
        peer.send(peer.address.encode())
        conn = await world.accept(listener)
        await world.up(conn)
        assert await world.recv(conn) == peer.address.encode()
    await settles(world, listener, (6, 0, 0, 6))


@ORIGINAL
@LOSSY
async def test_whoever_waits_to_accept_gets_the_dial_and_nobody_is_refused(world, policy):
    listener = world.listen(0, accept_buffer=policy(1))
    for _ in range(30):
        accepting = world.spawn(world.accept(listener))
        await world.settle(accepting)
        peer = await dial(world, listener)
        assert (await world.join(accepting)).peer == peer.address
    await settles(world, listener, (30, 0, 0, 30))


@LOSSY
async def test_diallers_that_are_refused_come_back_until_they_are_accepted(world, policy):
    listener = world.listen(0, accept_buffer=policy(1))
    clients = [world.connect(listener.address) for _ in range(3)]
    await world.eventually(lambda: listener.stats().refused >= 3)

    async def accept_all():
        async for _ in world.accepted_by(listener):
            pass

    def all_are_served():
        are_up = all(client.state is netasync.State.CONNECTED for client in clients)
        return are_up and len(listener.connections) == 3 and listener.stats().waiting == 0

    accepting = world.spawn(accept_all())
    await world.eventually(all_are_served)
    world.start_close(listener)
    await world.join(accepting)


@ORIGINAL
@pytest.mark.parametrize("policy", [Buffer.fixed, Buffer.dropping, Buffer.sliding])
async def test_it_counts_exactly_as_a_plain_model_does(world, seeded, policy):
    room, most = seeded.randrange(1, 4), seeded.choice([None, 3, 5])
    if policy == Buffer.fixed:
        most = room  # the limit comes first: no dial waits
    listener = world.listen(0, accept_buffer=policy(room), max_connections=most, close_timeout=0.1)
    waiting, accepted, entered, refused = [], [], 0, 0
    for _ in range(120):
        step = seeded.choice(["dial", "dial", "accept", "abort", "leave"])
        if step == "dial":
            peer = await dial(world, listener)
            if most is not None and len(waiting) + len(accepted) >= most:
                refused += 1
            elif len(waiting) < room:
                entered += 1
                waiting.append(peer)
            elif policy == Buffer.dropping:
                refused += 1
            else:
                refused += 1
                entered += 1
                waiting = [*waiting[1:], peer]
        elif step == "accept" and waiting:
            conn = await world.accept(listener)
            assert (await world.up(conn)).peer == waiting[0].address
            accepted.append((conn, waiting.pop(0)))
        elif step == "abort" and accepted:
            conn, _ = accepted.pop(seeded.randrange(len(accepted)))
            aio(conn).abort()
        elif step == "leave" and accepted:
            conn, peer = accepted.pop(seeded.randrange(len(accepted)))
            peer.close()
            await world.end(conn)
        await settles(world, listener, (entered, len(waiting), refused, len(waiting) + len(accepted)))


# max_connections


@ORIGINAL
async def test_further_dials_are_refused_once_max_connections_live(world):
    listener = world.listen(0, max_connections=2)
    first, second = [await dial(world, listener) for _ in range(2)]
    conn = await world.accept(listener)  # one is accepted and one waits: both count
    await world.up(conn)
    for number in range(1, 4):
        assert await is_hung_up_on(world, await dial(world, listener))
        await settles(world, listener, (2, 1, number, 2))
    for peer, one in ((first, conn), (second, await world.accept(listener))):
        if one is not conn:
            await world.up(one)
        peer.send(b"is not disturbed")
        assert await world.recv(one) == b"is not disturbed"


@ORIGINAL
@pytest.mark.parametrize("way", ["abort", "close", "the peer leaves", "dropped"])
async def test_a_connection_that_ends_makes_room_for_a_dial(world, way):
    listener = world.listen(0, max_connections=1)
    for number in range(5):
        peer = await dial(world, listener)
        if way == "dropped":
            await drop(world, listener)
        else:
            conn = await world.accept(listener)
            await world.up(conn)
            assert await is_hung_up_on(world, await dial(world, listener))
            if way == "abort":
                aio(conn).abort()
            elif way == "close":
                aio(conn).close()
                peer.close()
                await world.end(conn)
            else:
                peer.close()
                await world.end(conn)
        assert listener.stats().connections == 0
        assert listener.stats().accepted == number + 1


async def drop(world, listener):
    conn = await world.face.call(listener, "accept")
    assert conn.state is netasync.State.CONNECTED
    assert await is_hung_up_on(world, await dial(world, listener))
    with pytest.warns(ResourceWarning, match="without close"):
        del conn
        gc.collect()


@ORIGINAL
async def test_the_limit_comes_before_every_buffer(world):
    for buffer in (3, Buffer.dropping(3), Buffer.sliding(3)):
        listener = world.listen(0, accept_buffer=buffer, max_connections=3)
        first, *_ = [await dial(world, listener) for _ in range(3)]
        assert await is_hung_up_on(world, await dial(world, listener))
        await settles(world, listener, (3, 3, 1, 3))
        conn = await world.accept(listener)
        assert (await world.up(conn)).peer == first.address
        assert await is_hung_up_on(world, await dial(world, listener))
        await settles(world, listener, (3, 2, 2, 3))


@ORIGINAL
async def test_a_dial_that_waits_is_let_in_when_there_is_room_and_not_lost(world):
    """The limit made the listener take it from the system; by then a full fixed buffer keeps it waiting."""
    listener = world.listen(0, accept_buffer=1, max_connections=2)
    await dial(world, listener)
    accepted = await world.accept(listener)
    await world.up(accepted)
    waits = await dial(world, listener)  # two live: a further one is refused
    assert await is_hung_up_on(world, await dial(world, listener))
    late = await dial_that_is_kept(world, listener, accepted)
    late.send(b"waited")
    assert (await world.up(await world.accept(listener))).peer == waits.address
    conn = await world.accept(listener)
    assert (await world.up(conn)).peer == late.address
    assert await world.recv(conn) == b"waited"
    await settles(world, listener, (3, 0, 1, 2))


async def dial_that_is_kept(world, listener, accepted):
    """Make a full buffer all that keeps a dial out, and dial; the listener has taken it from the system."""
    sockets = open_sockets()
    aio(accepted).abort()
    await world.eventually(lambda: open_sockets() == sockets - 1, "the one that ended gave its socket back")
    peer = await world.raw_dial(listener.address)
    await world.eventually(lambda: open_sockets() == sockets + 1, "both ends of the dial are here")
    return peer


def open_sockets():
    return sum(what.startswith("socket:") for what in open_descriptors().values())


@ORIGINAL
async def test_a_dial_that_waits_ends_with_its_listener(world):
    listener = world.listen(0, accept_buffer=1, max_connections=2)
    await dial(world, listener)
    accepted = await world.accept(listener)
    await world.up(accepted)
    await dial(world, listener)
    assert await is_hung_up_on(world, await dial(world, listener))
    late = await dial_that_is_kept(world, listener, accepted)
    await world.close(listener)
    assert await is_hung_up_on(world, late)


@ORIGINAL
async def test_a_dialler_beyond_the_limit_comes_in_when_another_leaves(world):
    listener = world.listen(0, max_connections=1)
    first = world.connect(listener.address)
    served = await world.accept(listener)
    await world.up(first)
    await world.up(served)
    second = world.connect(listener.address)
    await world.up(second)  # this wire has no word for a refusal: the link is up, and ends
    assert (await world.down(second)).reason in (world.farewell, Reason.RESET, Reason.ABORTED, Reason.BUSY)
    await world.close(first)
    await world.end(served)
    conn = await world.accept(listener)
    await world.up(conn)
    await world.send(conn, b"welcome")
    items = [await world.recv(second)]
    while not isinstance(items[-1], bytes):
        assert isinstance(items[-1], Connected | Disconnected)
        items.append(await world.recv(second))
    assert items[-1] == b"welcome"


# C 34: a flood of dials


@ORIGINAL
@LOSSY
@pytest.mark.parametrize("count", counts(1000, 10_000))
async def test_dials_that_nobody_accepts_stay_within_a_lossy_accept_buffer(world, policy, count):
    client, served, _ = await world.pair()
    room = 8
    listener = world.listen(0, accept_buffer=policy(room))
    descriptors, memory = len(open_descriptors()), resident_bytes()
    dialled = collections.deque()

    def flood():
        for _ in range(count):
            dialled.append(world.outsider(RawPeer.dial(listener.address)))
            if len(dialled) > 100:
                dialled.popleft().close()

    await world.outside(flood)
    await world.eventually(lambda: listener.stats().refused == count - room)
    assert listener.stats().waiting == room
    assert listener.stats().accepted == (room if policy == Buffer.dropping else count)
    # Our ends of those that wait, the peers' ends of the last hundred, and what a loop opens for itself.
    await world.eventually(lambda: len(open_descriptors()) - descriptors <= room + 100 + 8)
    assert resident_bytes() - memory < 16 * 2**20
    await world.send(client, b"undisturbed")
    assert await world.recv(served) == b"undisturbed"
    last = [peer.address for peer in dialled][-room:]
    if policy == Buffer.sliding:
        assert [(await world.up(await world.accept(listener))).peer for _ in last] == last


@ORIGINAL
async def test_a_flood_beyond_max_connections_leaves_those_that_live_alone(world):
    listener = world.listen(0, max_connections=50)
    peers = [await world.raw_dial(listener.address) for _ in range(50)]
    conns = [await world.accept(listener) for _ in peers]
    before = len(open_descriptors())

    def flood():
        for _ in range(1000):
            with contextlib.closing(RawPeer.dial(listener.address)) as peer:
                assert peer.recv_to_end()[0] == b""

    flooding = world.spawn(world.outside(flood))
    for number, (peer, conn) in enumerate(zip(peers, conns, strict=True)):
        await world.up(conn)
        peer.send(b"%d" % number)
        assert await world.recv(conn) == b"%d" % number
    await world.join(flooding)
    await settles(world, listener, (50, 0, 1000, 50))
    await world.eventually(lambda: len(open_descriptors()) <= before + 8)  # what a loop opens for itself


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_a_select_over_a_sliding_listener_never_sees_who_was_thrown_out(world):
    listener = world.listen(0, accept_buffer=Buffer.sliding(1))
    peers = [await dial(world, listener) for _ in range(5)]
    which, conn = await asyncio.wait_for(world.select(listener), DEADLINE)
    assert (which, conn.peer) == (listener, peers[-1].address)
    with pytest.raises(TimeoutError):
        await world.select(listener, timeout=0)


# max_connections, and those that are without a link


async def absent(world, listener, number):
    """So many accepted connections that have lost their link one after the other."""
    conns = []
    for _ in range(number):
        conn, peer = await native_call(world, listener)
        peer.close()
        await world.down(conn)
        conns.append((conn, peer))
    return conns


@OURS
async def test_a_client_that_crashes_and_restarts_finds_its_place_for_ever(world):
    listener = world.listen(0, max_connections=5)
    conns = await absent(world, listener, 23)
    for conn, _ in conns[:-5]:
        assert (await world.end(conn)).reason is Reason.SESSION_EXPIRED
    assert all(conn.state is netasync.State.DISCONNECTED for conn, _ in conns[-5:])
    await settles(world, listener, (23, 0, 0, 5))


@OURS
async def test_a_newcomer_takes_the_place_of_the_longest_absent_and_is_refused_when_all_are_linked(world):
    listener = world.listen(0, max_connections=3)
    linked, peer = await native_call(world, listener)
    (first, _), (second, other) = await absent(world, listener, 2)
    await native_call(world, listener)
    assert (await world.end(first)).reason is Reason.SESSION_EXPIRED
    await settles(world, listener, (4, 0, 0, 3))
    # The other one comes back: all are linked.
    again = await native_dial(world, listener.address)
    fields = {"session": other.theirs.session, "token": other.theirs.token, "credit": other.ours.credit}
    await world.outside(lambda: again.greet(**fields, link=2))
    assert (await world.up(second)).resumed
    late = await native_dial(world, listener.address)
    with pytest.raises(Refused) as told:
        await world.outside(late.open)
    assert told.value.refuse.code == 4
    await settles(world, listener, (4, 0, 1, 3))
    peer.send(b"undisturbed")
    assert await world.recv(linked) == b"undisturbed"


@OURS
async def test_whose_place_was_taken_begins_a_new_session_as_after_expiry(world):
    listener = world.listen(0, max_connections=2)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address)
    served = await world.accept(listener)
    session = (await world.up(client), client.session)[1]
    await world.up(served)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(served)
    one, peer = await native_call(world, listener)
    _other, gone = await native_call(world, listener)
    assert (await world.end(served)).reason is Reason.SESSION_EXPIRED
    await world.outside(gone.goodbye)
    await world.eventually(lambda: listener.stats().connections == 1)
    await world.send(client, b"kept")
    proxy.allow()
    anew = await world.accept(listener)
    await world.up(anew)
    assert await world.recv(anew) == b"kept"
    await world.down(client)
    assert not (await world.up(client)).resumed
    assert client.session != session
    peer.send(b"undisturbed")
    assert await world.recv(one) == b"undisturbed"


@OURS
async def test_many_newcomers_at_once_take_no_more_places_than_they_need(world):
    listener = world.listen(0, max_connections=8)
    linked = [await native_call(world, listener) for _ in range(3)]
    away = await absent(world, listener, 5)
    peers = [await native_dial(world, listener.address) for _ in range(3)]
    for peer in peers:
        peer.say_hello()
    for peer in peers:
        await world.outside(peer.hear_hello)
    # Answered, and nobody has gone for that: only a connection takes a place.
    assert all(conn.state is netasync.State.DISCONNECTED for conn, _ in away)
    for peer in peers:
        await world.outside(peer.ack)
    for _ in peers:
        await world.up(await world.accept(listener))
        assert listener.stats().connections <= 8
    for conn, _ in away[:3]:
        assert (await world.end(conn)).reason is Reason.SESSION_EXPIRED
    assert all(conn.state is netasync.State.DISCONNECTED for conn, _ in away[3:])
    assert all(conn.state is netasync.State.CONNECTED for conn, _ in linked)
    await settles(world, listener, (11, 0, 0, 8))


@OURS
async def test_who_waits_to_be_accepted_without_a_link_makes_room_and_is_accepted_all_the_same(world):
    listener = world.listen(0, max_connections=2)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.open)
    peer.send(b"before it went")
    await world.eventually(lambda: listener.connections and listener.connections[0].stats().received == 1)
    peer.close()
    await world.eventually(lambda: listener.connections[0].state is netasync.State.DISCONNECTED)
    others = []
    for _ in range(2):
        others.append(await native_dial(world, listener.address))
        await world.outside(others[-1].open)
    await settles(world, listener, (3, 3, 0, 2))
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.recv(conn) == b"before it went"
    await world.down(conn)
    assert (await world.end(conn)).reason is Reason.SESSION_EXPIRED
    for _ in others:
        await world.up(await world.accept(listener))


@OURS
async def test_a_connection_that_nobody_holds_counts_for_nothing_though_it_is_absent(world):
    """It closes, and waits for its dialler's return; its place is free already."""
    listener = world.listen(0, max_connections=2, close_timeout=60)
    linked, peer = await native_call(world, listener)
    dropped = await native_dial(world, listener.address)
    await world.outside(dropped.open)
    conn = await world.face.call(listener, "accept")
    dropped.close()
    await world.eventually(lambda held=conn: held.state is netasync.State.DISCONNECTED)
    await world.send(conn, b"for nobody")
    with pytest.warns(ResourceWarning, match="without close"):
        del conn
        gc.collect()
    await world.eventually(lambda: listener.stats().connections == 1)
    await native_call(world, listener)
    late = await native_dial(world, listener.address)
    with pytest.raises(Refused):
        await world.outside(late.open)
    peer.send(b"undisturbed")
    assert await world.recv(linked) == b"undisturbed"


# Greetings that bring no frame


async def ghosts(world, listener, number):
    """Say HELLO so many times, and nothing more."""

    def haunt():
        peers = [world.outsider(NativePeer.dial(listener.address)) for _ in range(number)]
        for peer in peers:
            peer.say_hello()
        return peers

    return await world.outside(haunt)


async def honest(world, listener):
    """Dial as anybody does; the connection, and how long it took until the answer was there."""
    began = time.monotonic()
    peer = await native_dial(world, listener.address)
    await world.outside(peer.open)
    took = time.monotonic() - began
    conn = await world.accept(listener)
    await world.up(conn)
    peer.send(b"honest")
    assert await world.recv(conn) == b"honest"
    return took


#: Less than `open_timeout` by far, and what "within a second" is on a machine that has much else to do.
ANSWERED_WITHIN = 5

HAUNTED = {
    "a fixed accept buffer": {"accept_buffer": 3},
    "a fixed accept buffer of one": {"accept_buffer": 1},
    "a dropping accept buffer": {"accept_buffer": Buffer.dropping(3)},
    "a sliding accept buffer": {"accept_buffer": Buffer.sliding(3)},
    "max_connections": {"max_connections": 3},
    "max_connections and a sliding buffer": {"max_connections": 3, "accept_buffer": Buffer.sliding(9)},
}


@OURS
@pytest.mark.parametrize("number", [3, 100])
@pytest.mark.parametrize("door", sorted(HAUNTED))
async def test_an_honest_dialler_is_answered_in_time_whatever_ghosts_do(world, door, number):
    listener = world.listen(0, open_timeout=60, **HAUNTED[door])
    await ghosts(world, listener, number)
    for _ in range(2):
        assert await honest(world, listener) < ANSWERED_WITHIN
    await settles(world, listener, (2, 0, 0, 2))


@OURS
@pytest.mark.faces("asyncio", "threads")
@pytest.mark.parametrize("number", counts(1100, 6000))
async def test_more_ghosts_than_greetings_that_may_be_unfinished_keep_nobody_out(world, number):
    listener = world.listen(0, open_timeout=60, accept_buffer=1)
    for _ in range(number // 500):
        await ghosts(world, listener, 500)
    await ghosts(world, listener, number % 500 + 1)
    assert await honest(world, listener) < ANSWERED_WITHIN


@OURS
async def test_diallers_of_our_own_all_get_in_beside_ghosts(world):
    """Some may be told BUSY first: there are fewer places than come at once."""
    listener = world.listen(0, open_timeout=60, accept_buffer=2)
    await ghosts(world, listener, 50)
    clients = [world.connect(listener.address, open_timeout=60) for _ in range(5)]
    for _ in clients:
        await world.up(await world.accept(listener))
    await world.eventually(lambda: all(client.state is netasync.State.CONNECTED for client in clients))
    assert listener.stats().connections == 5


@OURS
async def test_who_brings_the_frame_late_finds_the_place_if_one_is_free(world):
    listener = world.listen(0, open_timeout=60, accept_buffer=1)
    (slow,) = await ghosts(world, listener, 1)
    await world.outside(slow.hear_hello)
    assert await honest(world, listener) < ANSWERED_WITHIN
    await world.outside(slow.ack)
    slow.send(b"slow, and welcome")
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.recv(conn) == b"slow, and welcome"


@OURS
async def test_who_brings_the_frame_late_is_told_busy_where_no_place_is_free(world):
    listener = world.listen(0, open_timeout=60, accept_buffer=1)
    (slow,) = await ghosts(world, listener, 1)
    await world.outside(slow.hear_hello)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.open)
    await world.outside(slow.stays_silent)
    slow.answers = False
    slow.ack()
    slow.send(b"not taken")
    frames, how = await world.outside(slow.read_to_end)
    assert [frame.kind for frame in frames] == [ACK, CLOSE]
    assert read_numbers(frames[0])[1:] == (0, slow.theirs.credit)
    assert read_close(frames[1])[0] == 4 and how == "eof"
    await settles(world, listener, (1, 1, 1, 1))
    again = await native_dial(world, listener.address)
    with pytest.raises(Refused) as told:
        fields = {"session": slow.theirs.session, "token": slow.theirs.token}
        await world.outside(lambda: again.greet(**fields, link=2))
    assert (told.value.refuse.code, told.value.refuse.consumed) == (6, 0)


@OURS
async def test_a_dialler_that_was_told_busy_behind_the_answer_loses_nothing(world):
    """Our own, held back behind the answer until its place is gone."""
    listener = world.listen(0, open_timeout=60, accept_buffer=1)
    proxy = world.proxy(listener.address)
    proxy.hold("down")
    client = world.connect(proxy.address)
    await world.eventually(lambda: proxy.forwarded["up"] == len(Hello().frame()))
    proxy.hold("up")
    proxy.resume("down")
    await world.up(client)
    await world.send(client, b"kept")
    peer = await native_dial(world, listener.address)
    await world.outside(peer.open)
    proxy.resume("up")
    down = await world.down(client)
    assert (down.reason, down.unconfirmed) == (Reason.BUSY, 1)
    await world.up(await world.accept(listener))
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.recv(conn) == b"kept"


@OURS
async def test_where_the_accept_buffer_is_full_of_connections_nobody_is_answered(world):
    listener = world.listen(0, open_timeout=60, accept_buffer=2)
    for _ in range(2):
        peer = await native_dial(world, listener.address)
        await world.outside(peer.open)
    waits = await native_dial(world, listener.address)
    waits.say_hello()
    await world.outside(waits.stays_silent, 1)
    await world.up(await world.accept(listener))
    await world.outside(waits.hear_hello)


@OURS
async def test_a_ghost_costs_nobody_that_is_absent_its_place(world):
    listener = world.listen(0, open_timeout=60, max_connections=2)
    away = await absent(world, listener, 2)
    await ghosts(world, listener, 20)
    assert await honest(world, listener) < ANSWERED_WITHIN
    assert (await world.end(away[0][0])).reason is Reason.SESSION_EXPIRED
    assert away[1][0].state is netasync.State.DISCONNECTED


@pytest.mark.wires("netasync")
async def test_a_dial_of_the_originals_wire_gets_in_beside_ghosts(world):
    listener = world.listen(0, open_timeout=60, accept_buffer=1, protocol="auto")
    await ghosts(world, listener, 30)
    client = world.connect(listener.address, protocol="net.async")
    await world.send(client, b"from long ago")
    conn = await world.face.call(listener, "accept")
    items = [await world.face.call(conn, "recv") for _ in range(2)]
    assert items[1] == b"from long ago"
    conn.abort()
