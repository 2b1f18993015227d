"""Which dials a listener lets in: the three accept buffers and `max_connections`."""

import asyncio
import collections
import contextlib
import gc

import pytest

import netasync
from netasync import Buffer, Connected, Disconnected, Reason
from support.counts import counts
from support.faces import aio
from support.peer import RawPeer
from support.process import open_descriptors, resident_bytes
from support.waiting import DEADLINE
from support.wires import ORIGINAL

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
