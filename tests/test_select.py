"""`select`: one item, from the first of several handles that has one; the others lose nothing."""

import asyncio
import time

import pytest

import netasync
from netasync import Closed, Connected, Disconnected, Reason
from support.cancelling import interrupted, result_of
from support.counts import counts
from support.faces import FACES, aio, blocking
from support.process import threads_named, times_woken
from support.waiting import DEADLINE
from support.wires import ORIGINAL

LOOPS = pytest.mark.faces("asyncio", "uvloop")


async def several(world, count, **options):
    """Accepted connections of one listener, up, each with the raw peer at its other end."""
    listener = world.listen(0, accept_buffer=max(count, 1), **options)
    peers = [await world.raw_dial(listener.address) for _ in range(count)]
    conns = [await world.accept(listener) for _ in peers]
    for conn in conns:
        await world.up(conn)
    return conns, peers, listener


# What it returns


@ORIGINAL
async def test_the_first_that_is_ready_counts_in_the_order_of_the_arguments(world):
    (a, b, c), peers, _ = await several(world, 3)
    for conn, peer in zip((a, b, c), peers, strict=True):
        peer.send(b"1", b"2")
        await world.arrived(conn, 2)
    order = [await world.select(c, a, b) for _ in range(6)]
    assert order == [(c, b"1"), (c, b"2"), (a, b"1"), (a, b"2"), (b, b"1"), (b, b"2")]


@ORIGINAL
async def test_exactly_one_item_is_taken_and_the_others_stay(world):
    (a, b), peers, _ = await several(world, 2)
    for conn, peer in zip((a, b), peers, strict=True):
        peer.send(b"1", b"2")
        await world.arrived(conn, 2)
    assert await world.select(a, b) == (a, b"1")
    assert [conn.stats().waiting for conn in (a, b)] == [1, 2]
    assert (await world.recv(a), await world.take(b, 2)) == (b"2", [b"1", b"2"])


@ORIGINAL
async def test_the_argument_itself_comes_back_whether_handle_or_channel(world):
    (a, b), (_, peer), listener = await several(world, 2)
    for chan in (b, b.read_chan):
        peer.send(b"x")
        which, item = await world.select(a, listener, chan)
        assert which is chan
        assert item == b"x"
    for chan in (listener, listener.accept_chan):
        dialled = await world.raw_dial(listener.address)
        which, conn = await world.select(a, chan, b)
        assert which is chan
        assert conn.peer == dialled.address
        assert (await world.up(conn)).peer == dialled.address


@ORIGINAL
async def test_a_handle_given_twice_is_fine(world):
    (a, b), (peer, _), _ = await several(world, 2)
    waiting = world.spawn(world.select(a, b, a, a.read_chan))
    await world.settle(waiting)
    peer.send(b"1", b"2", b"3")
    assert await world.join(waiting) == (a, b"1")
    assert await world.take(a, 2) == [b"2", b"3"]


@ORIGINAL
async def test_one_handle_alone_is_fine(world):
    (conn,), (peer,), _ = await several(world, 1)
    peer.send(b"x")
    assert await world.select(conn) == (conn, b"x")


@ORIGINAL
async def test_values_come_like_messages_over_breaks_and_new_links(world):
    servers = [world.raw_listener() for _ in range(2)]
    conns = [world.connect(server.address) for server in servers]
    peers = [await world.outside(server.accept) for server in servers]
    ups = [await world.select(*conns) for _ in conns]
    assert {which for which, _ in ups} == set(conns)
    assert all(type(item) is Connected for _, item in ups)
    for server, conn, peer in zip(servers, conns, peers, strict=True):
        peer.close()
        which, item = await world.select(*conns)
        assert (which, type(item)) == (conn, Disconnected)
        again = await world.outside(server.accept)
        assert type((await world.select(*conns))[1]) is Connected
        again.send(b"on the new link")
        assert await world.select(*conns) == (conn, b"on the new link")


@ORIGINAL
async def test_what_has_ended_is_always_ready(world):
    (a, b), (_, peer), listener = await several(world, 2)
    peer.close()
    for _ in range(3):
        which, item = await world.select(a, b)
        assert (which, type(item), item.reason) == (b, Closed, world.farewell)
    await world.close(listener)
    for _ in range(3):
        which, item = await world.select(a, listener)
        assert (which, type(item), item.reason) == (listener, Closed, Reason.CLOSED_HERE)


@ORIGINAL
async def test_faces_may_mix_and_each_accepts_its_own_kind(world):
    (a, b), (_, peer), listener = await several(world, 2)
    peer.send(b"1", b"2")
    assert await world.select(aio(a), blocking(b)) == (blocking(b), b"1")
    assert await world.select(blocking(a).read_chan, aio(b).read_chan) == (aio(b).read_chan, b"2")
    for one, kind in (
        (aio(listener), netasync.Connection),
        (blocking(listener), netasync.blocking.Connection),
    ):
        await world.raw_dial(listener.address)
        which, conn = await world.select(a, one)
        assert which is one
        assert type(conn) is kind


# Waiting


@ORIGINAL
async def test_it_waits_for_whichever_comes_first(world):
    (a, b, c), peers, listener = await several(world, 3)
    for conn, peer in zip((b, a, c), (peers[1], peers[0], peers[2]), strict=True):
        waiting = world.spawn(world.select(a, listener, b, c))
        await world.settle(waiting)
        peer.send(b"x")
        assert await world.join(waiting) == (conn, b"x")
    waiting = world.spawn(world.select(a, listener, b, c))
    await world.settle(waiting)
    dialled = await world.raw_dial(listener.address)
    which, conn = await world.join(waiting)
    assert (which, conn.peer) == (listener, dialled.address)


@ORIGINAL
async def test_it_times_out_and_nothing_is_lost(world):
    (a, b), (peer, _), listener = await several(world, 2)
    for timeout in (0, 0.05):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=f"nothing within {timeout} s"):
            await world.select(a, listener, b, timeout=timeout)
        assert time.monotonic() - began >= timeout
    peer.send(b"x")
    await world.arrived(a, 1)
    assert await world.select(b, a, timeout=0) == (a, b"x")


@ORIGINAL
async def test_a_timeout_that_is_not_needed_changes_nothing(world):
    (a, b), (_, peer), _ = await several(world, 2)
    for number in range(50):
        waiting = world.spawn(world.select(a, b, timeout=3000 if number % 2 else float("inf")))
        await world.settle(waiting)
        peer.send(b"%d" % number)
        assert await world.join(waiting) == (b, b"%d" % number)


@ORIGINAL
async def test_a_listener_that_closes_ends_the_wait(world):
    (a, b), _, listener = await several(world, 2)
    waiting = world.spawn(world.select(a, b, listener.accept_chan))
    await world.settle(waiting)
    world.start_close(listener)
    which, end = await world.join(waiting)
    assert which is not listener
    assert which == listener.accept_chan
    assert (type(end), end.reason) == (Closed, Reason.CLOSED_HERE)


@ORIGINAL
async def test_a_handle_that_is_closed_here_ends_the_wait(world):
    (a, b), _, listener = await several(world, 2, close_timeout=0.1)
    waiting = world.spawn(world.select(a, listener, b))
    await world.settle(waiting)
    aio(b).abort()
    which, end = await world.join(waiting)
    assert (which, end.reason) == (b, Reason.ABORTED)
    waiting = world.spawn(world.select(a, listener))
    await world.settle(waiting)
    aio(a).close()
    which, end = await world.join(waiting)
    assert (which, end.reason) == (a, Reason.CLOSED_HERE)


@ORIGINAL
async def test_shutdown_ends_the_wait(world):
    (a, b), _, listener = await several(world, 2)
    waiting = [world.spawn(world.select(*chans)) for chans in ((a, b), (listener, a), (b, listener))]
    for one in waiting:
        await world.settle(one)
    await world.shutdown(world.runtime, timeout=0.3)
    for one in waiting:
        assert (await world.join(one))[1].reason is Reason.SHUTDOWN


# The others lose nothing


@ORIGINAL
async def test_over_fifty_connections_each_message_arrives_exactly_once_and_in_order(world, seeded):
    conns, peers, _ = await several(world, 50)
    count = 40
    sent = {conn: [b"%d" % number for number in range(count)] for conn in conns}
    taken = {conn: [] for conn in conns}

    def feed():
        for number in range(count):
            for peer in seeded.sample(peers, len(peers)):
                peer.send(b"%d" % number)

    feeding = world.spawn(world.outside(feed))
    for _ in range(count * len(conns)):
        which, item = await world.select(*conns)
        taken[which].append(item)
    assert taken == sent
    await world.join(feeding)


@ORIGINAL
async def test_several_that_select_over_the_same_handles_share_them_exactly(world, seeded):
    conns, peers, _ = await several(world, 8)
    for conn in conns:
        world.forget_order(conn)
    count, selectors = 100, 5
    taken = []

    async def select_to_the_end(order):
        over = set()
        while len(over) < len(conns):
            which, item = await world.select(*(conn for conn in order if conn not in over))
            if isinstance(item, Closed):
                over.add(which)
            else:
                taken.append((conns.index(which), item))

    running = [world.spawn(select_to_the_end(seeded.sample(conns, len(conns)))) for _ in range(selectors)]

    def feed():
        for number in range(count):
            for peer in peers:
                peer.send(b"%d" % number)
        for peer in peers:
            peer.close()

    await world.outside(feed)
    for one in running:
        await world.join(one)
    assert sorted(taken) == sorted((nth, b"%d" % number) for nth in range(8) for number in range(count))


@ORIGINAL
async def test_those_that_receive_beside_it_get_what_it_leaves(world, seeded):
    (a, b), peers, _ = await several(world, 2)
    for conn in (a, b):
        world.forget_order(conn)
    taken = []

    async def receive(conn):
        while isinstance(item := await world.recv(conn), bytes):
            taken.append(item)

    async def select():
        while isinstance(item := (await world.select(b, a))[1], bytes):
            taken.append(item)

    running = [world.spawn(one) for one in (receive(a), select(), receive(b), select(), receive(a))]
    for number in range(400):
        seeded.choice(peers).send(b"%d" % number)
    for peer in peers:
        peer.close()
    for one in running:
        await world.join(one)
    left = [item for conn in (a, b) for item in await rest(world, conn)]
    assert sorted(taken + left) == sorted(b"%d" % number for number in range(400))


async def rest(world, conn):
    """The messages that are left of a connection that ends."""
    left = []
    while isinstance(item := await world.recv(conn), bytes):
        left.append(item)
    return left


@ORIGINAL
@LOOPS
async def test_a_wake_that_came_beside_another_is_passed_on(world):
    """Both handles wake the one that selects; it takes one item, and the other goes to who waits behind."""
    (a, b), (to_a, to_b), _ = await several(world, 2, **NO_HELP)
    world.forget_order(b)
    selecting = world.spawn(world.select(a, b))
    await world.settle(selecting)
    behind = world.spawn(world.recv(b))
    await world.settle(behind)
    to_a.send(b"for a")
    to_b.send(b"for b")  # both lie there when the loop looks
    taken = {(await world.join(selecting))[1], await asyncio.wait_for(behind, DEADLINE)}
    assert taken == {b"for a", b"for b"} or await lost_race(world, taken, a)


async def lost_race(world, taken, a):
    """The loop looked between the two: the one that selects took `b`'s, and `a`'s waits."""
    return taken == {b"for b"} and await world.recv(a) == b"for a"


#: No timer of ours comes to the help of a wake that was lost.
NO_HELP = {"heartbeat_interval": 3000, "heartbeat_timeout": 9000, "close_timeout": 9000}


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(1000, 100_000))
async def test_a_cancelled_select_loses_and_doubles_nothing(world, seeded, count):
    conns, peers, _ = await several(world, 4)
    taken = {conn: [] for conn in conns}

    def feed():
        at = 0
        while at < count:
            step = seeded.randrange(1, 6)
            for peer in peers:
                peer.send(*[b"%d" % number for number in range(at, min(at + step, count))])
            at += step

    feeding = world.spawn(world.outside(feed))
    cancelled = 0
    while any(len(items) < count for items in taken.values()):
        order = seeded.sample(conns, len(conns))
        found = await interrupted(seeded, world.select(*order, timeout=seeded.choice([None, 0.001, 3000])))
        if found is None:
            cancelled += 1
        else:
            taken[found[0]].append(found[1])
    await world.join(feeding)
    assert all(items == [b"%d" % number for number in range(count)] for items in taken.values())
    # And a thousand times more where nothing comes, then one message.
    while cancelled < count:
        assert await interrupted(seeded, world.select(*conns)) is None
        cancelled += 1
    peers[2].send(b"last")
    assert await world.select(*conns) == (conns[2], b"last")


@ORIGINAL
@LOOPS
async def test_a_cancelled_select_over_a_listener_loses_no_connection(world, seeded):
    (conn,), _, listener = await several(world, 1)
    dialled, accepted = [], []
    for _ in range(100):
        dialled.append((await world.raw_dial(listener.address)).address)
        while len(accepted) < len(dialled):
            found = await interrupted(seeded, world.select(conn, listener))
            if found is not None:
                accepted.append(found[1].peer)
                aio(found[1]).abort()
    assert accepted == dialled


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("by", ["select", "recv"])
async def test_a_wait_that_is_cancelled_in_the_yield_before_its_try_passes_its_wake_on(world, by):
    """A task that was woken in a turn that is over yields once more; it still holds the wake then."""
    (conn, other), (peer, _), _ = await several(world, 2, **NO_HELP)
    client = world.connect(world.raw_listener().address)
    await world.up(client)
    world.forget_order(conn)
    first = world.spawn(world.recv(conn) if by == "recv" else world.select(other, conn))
    await world.settle(first)
    second = world.spawn(world.recv(conn))
    await world.settle(second)
    for _ in range(1024):  # the turn is over now
        await world.send(client, b"x")
    peer.send(b"1")
    while not conn.stats().received:
        await asyncio.sleep(0)
    first.cancel()
    assert await result_of(first) in (None, b"1", (conn, b"1"))
    if first.cancelled():
        assert await asyncio.wait_for(second, DEADLINE) == b"1"
    else:
        peer.send(b"2")
        assert await second == b"2"


# Threads and loops


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(2000, 100_000))
async def test_threads_in_select_while_a_loop_reads_the_same_handles(world, seeded, count):
    conns, peers, _ = await several(world, 3)
    for conn in conns:
        world.forget_order(conn)
    taken = []

    def select_in_thread():
        over = set()
        while len(over) < len(conns):
            left = [blocking(conn) for conn in conns if conn not in over]
            which, item = netasync.blocking.select(*left, timeout=DEADLINE)
            over |= {aio(which)} if isinstance(item, Closed) else set()
            taken.append((aio(which), item))

    async def receive(conn):
        while isinstance(item := await world.recv(conn), bytes):
            taken.append((conn, item))

    def feed():
        for number in range(count):
            seeded.choice(peers).send(b"%d" % number)
        for peer in peers:
            peer.close()

    threads = [world.spawn(world.outside(select_in_thread)) for _ in range(2)]
    readers = [world.spawn(receive(conn)) for conn in conns[:2]]
    await world.outside(feed)
    for one in threads + readers:
        await world.join(one)
    messages = sorted(int(item) for _, item in taken if isinstance(item, bytes))
    assert messages == list(range(count))


@ORIGINAL
@LOOPS
async def test_a_thread_in_select_and_a_loop_hand_over_to_each_other_again_and_again(world, seeded):
    conns, peers, _ = await several(world, 3)

    def in_thread(expected):
        for which, item in expected:
            assert netasync.blocking.select(*map(blocking, conns), timeout=DEADLINE) == (
                blocking(which),
                item,
            )
            world.note(which, item)

    number = 0
    for _ in range(200):
        expected = []
        for _ in range(seeded.randrange(1, 4)):
            nth = seeded.randrange(3)
            expected.append((conns[nth], b"%d" % number))
            number += 1
        for step in expected:
            waiting = (
                world.spawn(world.outside(in_thread, [step]))
                if seeded.randrange(2)
                else world.spawn(world.select(*conns))
            )
            await world.settle(waiting)
            peers[conns.index(step[0])].send(step[1])
            assert await world.join(waiting) in (None, step)


@ORIGINAL
@pytest.mark.faces("threads")
async def test_threads_that_select_and_threads_that_receive_hand_over_to_each_other(world):
    """One that selects leads several; whoever stays behind must read on."""
    (a, b), (to_a, to_b), _ = await several(world, 2, **NO_HELP)
    for conn in (a, b):
        world.forget_order(conn)
    for number in range(200):
        selecting = world.spawn(world.select(a, b))
        await world.settle(selecting)
        receiving = world.spawn(world.recv(b))
        await world.settle(receiving)
        to_a.send(b"a%d" % number)
        assert await world.join(selecting) == (a, b"a%d" % number)
        to_b.send(b"b%d" % number)
        assert await world.join(receiving) == b"b%d" % number


@ORIGINAL
@pytest.mark.faces("threads")
async def test_a_thread_in_select_reads_its_connections_itself(world):
    conns, peers, _ = await several(world, 5)
    for conn, peer in zip(conns, peers, strict=True):
        peer.send(b"warm")
        assert await world.select(*conns) == (conn, b"warm")
    (runtime,) = threads_named("netasync")
    before, began = times_woken(runtime), time.monotonic()
    for number in range(1000):
        peers[number % 5].send(b"%d" % number)
        assert await world.select(*conns) == (conns[number % 5], b"%d" % number)
    # The runtime looks after each connection now and then, every 50 ms: a slow machine is longer at it.
    looks = 5 * (time.monotonic() - began) / 0.05
    assert times_woken(runtime) - before < 200 + looks


@ORIGINAL
@LOOPS
def test_a_thread_is_served_though_the_loop_that_read_its_handles_stands_still(world):
    """The loop exists, is not closed and does not run; a thread selects over what the loop used to read."""
    loop = asyncio.new_event_loop() if world.face.name == "asyncio" else FACES["uvloop"]._new_loop()
    try:
        conns, peers = loop.run_until_complete(used_by_a_loop(world))
        for number, (conn, peer) in enumerate(zip(conns, peers, strict=True)):
            peer.send(b"%d" % number)
            found = netasync.blocking.select(*map(blocking, conns), timeout=DEADLINE)
            assert found == (blocking(conn), b"%d" % number)
            world.note(conn, found[1])
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def used_by_a_loop(world):
    conns, peers, _ = await several(world, 3, **NO_HELP)
    for conn, peer in zip(conns, peers, strict=True):
        waiting = world.spawn(world.select(*conns))
        await world.settle(waiting)
        peer.send(b"loop")
        assert await waiting == (conn, b"loop")
    return conns, peers


# Bad input


async def test_nothing_to_select_from_is_a_value_error(world):
    for timeout in (None, 1):
        with pytest.raises(ValueError, match="at least one"):
            await world.select(timeout=timeout)


@ORIGINAL
@pytest.mark.parametrize("stranger", [None, 1, "conn", [], object(), netasync.Runtime, netasync.Connection])
async def test_what_has_no_items_is_a_type_error(world, stranger):
    (conn,), _, _ = await several(world, 1)
    with pytest.raises(TypeError, match=f"select takes .*, not {type(stranger).__name__}"):
        await world.select(conn, stranger)


@ORIGINAL
async def test_a_write_channel_is_a_type_error(world):
    (conn,), _, _ = await several(world, 1)
    with pytest.raises(TypeError, match="not WriteChannel"):
        await world.select(conn.write_chan)
    with pytest.raises(TypeError, match="not list"):
        await world.select([conn])


@ORIGINAL
@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        ("1", TypeError),
        (True, TypeError),
        (10**400, ValueError),
    ],
)
async def test_a_timeout_that_makes_no_sense_is_told(world, timeout, error):
    (conn,), (peer,), _ = await several(world, 1)
    peer.send(b"x")
    await world.arrived(conn, 1)
    with pytest.raises(error):
        await world.select(conn, timeout=timeout)
    assert await world.select(conn) == (conn, b"x")


@ORIGINAL
@LOOPS
async def test_nothing_happens_before_it_is_awaited(world):
    (conn,), (peer,), _ = await several(world, 1)
    peer.send(b"x")
    await world.arrived(conn, 1)
    netasync.select(conn).close()
    assert conn.stats().waiting == 1
    assert await world.select(conn) == (conn, b"x")
