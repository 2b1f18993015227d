"""The bridge: who reads, who is woken, and what that may cost. Waking is not delivering."""

import asyncio
import contextlib
import contextvars
import os
import select
import socket
import stat
import sys

import pytest

from netasync import Backoff, Buffer, Closed, Connected, Reason, State
from support.cancelling import interrupted, result_of
from support.counts import counts
from support.faces import FACES, Beside, _wind_up, blocking
from support.peer import RawPeer, split_target
from support.process import open_descriptors, run_script, threads_named, times_woken
from support.waiting import DEADLINE, eventually
from support.wires import ORIGINAL
from support.world import World

LOOPS = pytest.mark.faces("asyncio", "uvloop")


def numbered(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


async def with_a_feeder(world, peer, sent, source, scenario):
    """Run `scenario` while a thread sends, a few messages at a time and as fast as it can."""

    def feed():
        at = 0
        while at < len(sent):
            step = source.randrange(1, 9)
            peer.send(*sent[at : at + step])
            at += step

    feeding = world.spawn(world.outside(feed))
    result = await scenario
    await world.join(feeding)
    return result


# Cancelling loses nothing and doubles nothing.


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(3000, 100_000))
async def test_a_cancelled_recv_many_loses_and_doubles_nothing(world, seeded, count):
    conn, peer = await world.answered(read_buffer=Buffer.fixed(50))
    sent = numbered(count)

    async def take_all():
        taken = []
        while len(taken) < count:
            taken += await interrupted(seeded, world.recv_many(conn, seeded.randrange(1, 20))) or []
        return taken

    assert await with_a_feeder(world, peer, sent, seeded, take_all()) == sent


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(200, 10_000))
async def test_a_cancelled_accept_loses_no_connection_and_returns_none_twice(world, seeded, count):
    listener = world.listen(0, accept_buffer=8)
    accepted = []
    at = 0
    while at < count:
        burst = min(seeded.randrange(1, 6), count - at)
        peers = [world.outsider(RawPeer.dial(listener.address)) for _ in range(burst)]
        at += burst
        names = []
        while len(names) < burst:
            conn = await interrupted(seeded, listener.accept())
            if conn is not None:
                names.append(conn.peer)
                conn.abort()
        assert names == [peer.address for peer in peers]
        accepted += names
        for peer in peers:
            peer.close()
    assert listener.stats().accepted == len(accepted) == count


@LOOPS
@pytest.mark.parametrize("count", counts(300, 10_000))
async def test_a_cancelled_send_many_keeps_exactly_what_its_exception_says(world, seeded, count):
    client, served, _ = await world.pair(connect={"write_buffer": Buffer.fixed(4)})
    taking = world.spawn(messages_up_to_the_end(world, served))
    number, accepted = 0, []
    for _ in range(count):
        batch = [b"%d " % (number + nth) + bytes(20_000) for nth in range(seeded.randrange(1, 12))]
        number += len(batch)
        sending = asyncio.ensure_future(client.send_many(batch))
        for _ in range(seeded.randrange(4)):
            await asyncio.sleep(0)
        sending.cancel()
        try:
            kept = await sending
        except asyncio.CancelledError as stopped:
            # Cancelled before its first step it was never there.
            kept = getattr(stopped, "accepted", 0)
        accepted += batch[:kept]
    await world.close(client)
    assert [data[:10] for data in await world.join(taking)] == [data[:10] for data in accepted]


async def messages_up_to_the_end(world, conn):
    taken = []
    while isinstance(item := await world.recv(conn), bytes):
        taken.append(item)
    assert isinstance(item, Closed), item
    return taken


@LOOPS
async def test_waits_that_take_nothing_may_be_cancelled_at_any_moment(world, seeded):
    port = world.reserved_port()
    client = world.connect(port.address)
    await world.send(client, b"queued")
    for _ in range(100):
        for waiting in (client.wait_connected(), client.flush(), client.wait_closed()):
            assert await interrupted(seeded, waiting) is None
    served = await world.accept(world.listen(port.port))
    await world.up(served)
    assert await world.recv(served) == b"queued"
    await world.wait_connected(client)
    await world.flush(client)


@ORIGINAL
@LOOPS
async def test_a_cancelled_aclose_goes_on_by_itself(world):
    conn, peer, _ = await world.dialled()
    closing = world.spawn(world.close(conn))
    await world.settle(closing)
    closing.cancel()
    assert await result_of(closing) is None
    assert await world.outside(peer.messages_to_end) == []
    peer.close()
    assert (await world.wait_closed(conn)).reason is Reason.CLOSED_HERE


# Waking is not delivering.


@ORIGINAL
@LOOPS
async def test_a_woken_recv_that_is_cancelled_passes_the_wake_on(world):
    conn, peer = await world.answered()
    world.forget_order(conn)
    tasks = []

    async def take_and_cancel_the_next():
        item = await world.recv(conn)
        tasks[1].cancel()
        return item

    tasks += [world.spawn(take_and_cancel_the_next()), *(world.spawn(world.recv(conn)) for _ in range(2))]
    await world.settle(tasks[-1])
    peer.send(b"1", b"2")  # one read: the first two are woken, and the second is cancelled before it runs
    assert await world.join(tasks[0]) == b"1"
    assert await world.join(tasks[2]) == b"2"
    assert await result_of(tasks[1]) is None


async def only_one_stays(world, first, waits, wake):
    """Give up all of `waits` but the last after one of them was woken, and before it runs.

    `wake` holds the loop while it makes `first` and then one of `waits` ready, so that both are resumed in
    one callback; `first` runs before the others and cancels them. They are kept, with their exceptions.
    """
    tasks = []

    async def cancel_all_but_the_last():
        await first
        for task in tasks[:-1]:
            task.cancel()

    cancelling = world.spawn(cancel_all_but_the_last())
    tasks += [world.spawn(wait) for wait in waits]
    await world.settle(tasks[-1])
    await wake()
    result = await asyncio.wait_for(tasks[-1], DEADLINE)
    await world.join(cancelling)
    for task in tasks[:-1]:
        assert await result_of(task) is None
    return result


#: No timer of ours comes to the help of a wake that was lost.
NO_HELP = {"heartbeat_interval": 3000, "heartbeat_timeout": 9000, "close_timeout": 9000}


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("survivor", [0, 1, 2])
@pytest.mark.parametrize("by", ["recv", "recv_many"])
async def test_a_recv_that_is_cancelled_after_its_wake_passes_the_wake_on(world, by, survivor):
    signal = world.listen(0)
    conn, peer = await world.answered(**NO_HELP)

    async def wake():
        peer.send(b"now")  # the loop finds this first, and reads; the wake of the listener lies there by then
        world.outsider(RawPeer.dial(signal.address))
        eventually(lambda: signal.stats().waiting == 1)

    waits = [world.recv(conn) if by == "recv" else world.recv_many(conn, 5) for _ in range(3)]
    waits.append(waits.pop(survivor))
    assert await only_one_stays(world, world.accept(signal), waits, wake) in (b"now", [b"now"])
    peer.half_close()
    await world.end(conn)


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("survivor", [0, 1, 2])
async def test_an_accept_that_is_cancelled_after_its_wake_passes_the_wake_on(world, survivor):
    signal, listener = world.listen(0), world.listen(0)

    async def wake():
        for each in (signal, listener):
            world.outsider(RawPeer.dial(each.address))
            eventually(lambda each=each: each.stats().waiting == 1)

    waits = [world.accept(listener) for _ in range(3)]
    waits.append(waits.pop(survivor))
    assert (await only_one_stays(world, world.accept(signal), waits, wake)).state is State.CONNECTED


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("survivor", [0, 1, 2])
@pytest.mark.parametrize("by", ["send", "send_many"])
async def test_a_send_that_is_cancelled_after_its_wake_passes_the_wake_on(world, by, survivor):
    ports = [world.reserved_port(), world.reserved_port()]
    options = {"write_buffer": 1, "heartbeat_interval": 3000}
    signal, conn = (world.connect(port.address, **options) for port in ports)
    await world.send(conn, b"fills the buffer")
    servers = []

    async def wake():
        for port, each in zip(ports, (signal, conn), strict=True):
            servers.append(world.raw_listener(port.port))
            eventually(lambda each=each: each.state is State.CONNECTED and not each.stats().queued)

    waits = [
        world.send(conn, b"waits") if by == "send" else world.send_many(conn, [b"waits"]) for _ in range(3)
    ]
    waits.append(waits.pop(survivor))
    assert await only_one_stays(world, world.wait_connected(signal), waits, wake) == 1
    peer = await world.outside(servers[1].accept)
    assert await world.outside(peer.recv_many, 2) == [b"fills the buffer", b"waits"]


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(2000, 100_000))
async def test_of_many_waiters_some_of_which_give_up_each_message_reaches_one(world, seeded, count):
    conn, peer = await world.answered()
    world.forget_order(conn)
    sent, taken = numbered(count), []

    async def consume():
        while len(taken) < count:
            item = await interrupted(seeded, world.recv(conn))
            if item is not None:
                taken.append(item)

    async def consume_together():
        await asyncio.gather(*(consume() for _ in range(7)))

    await with_a_feeder(world, peer, sent, seeded, consume_together())
    assert sorted(taken, key=int) == sent


# Several loops, and loops and threads, on one handle.


@ORIGINAL
@LOOPS
async def test_several_loops_share_one_handle_and_each_message_goes_to_one(world):
    conn, peer = await world.answered()
    world.forget_order(conn)
    sent = numbered(3000)

    async def take_until_closed():
        taken = []
        while isinstance(item := await conn.recv(), bytes):
            world.note(conn, item)
            taken.append(item)
        return taken

    others = [world.spawn(world.outside(lambda: world.face.run(take_until_closed()))) for _ in range(3)]
    own = world.spawn(take_until_closed())

    def feed():
        for at in range(0, len(sent), 10):
            peer.send(*sent[at : at + 10])
        peer.half_close()

    await world.outside(feed)
    taken = [await world.join(one) for one in [own, *others]]
    assert sorted((data for some in taken for data in some), key=int) == sent
    for some in taken:
        assert some == sorted(some, key=int)


@ORIGINAL
@LOOPS
async def test_several_loops_send_on_one_handle_and_each_keeps_its_order(world):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(8))

    async def produce(letter):
        for number in range(500):
            await conn.send(b"%c%d" % (letter, number))

    others = [
        world.spawn(world.outside(lambda one: world.face.run(produce(one)), letter)) for letter in b"abc"
    ]
    own = world.spawn(produce(ord("d")))
    received = await world.outside(peer.recv_many, 2000)
    for one in [own, *others]:
        await world.join(one)
    for letter in b"abcd":
        assert [data for data in received if data[0] == letter] == [
            b"%c%d" % (letter, nth) for nth in range(500)
        ]


@LOOPS
def test_a_receive_that_was_pending_when_its_loop_ended_loses_nothing(face):
    async def first(world):
        conn, peer = await world.answered()
        pending = world.spawn(world.recv(conn))
        await world.settle(pending)
        return conn, peer  # and the loop cancels what is pending as it ends

    async def then(world, conn):
        return await world.take(conn, 3)

    with World(face, "net.async") as world:
        conn, peer = world.run(first(world))
        peer.send(*numbered(3))
        assert world.run(then(world, conn)) == numbered(3)
        peer.send(*numbered(3, 3))
        assert world.run(then(world, conn)) == numbered(3, 3)


@LOOPS
def test_a_loop_that_was_closed_over_its_waiters_takes_no_wake_with_it(face):
    """Its tasks are never resumed; a thread that waits afterwards is."""

    async def leave_some_waiting(conn):
        waiting = [asyncio.ensure_future(conn.recv()) for _ in range(3)]
        await asyncio.sleep(0)
        return waiting

    with World(face, "net.async") as world:
        conn, peer = world.run(world.answered(heartbeat_interval=1000))  # no timer comes to its help
        loop = face._new_loop()
        loop.set_exception_handler(lambda *_: None)  # it says that a task was destroyed
        waiting = loop.run_until_complete(leave_some_waiting(conn))
        loop.close()
        with concurrently(lambda: conn.blocking.recv(timeout=2 * DEADLINE)) as receiving:
            peer.send(b"for the thread")
            assert world.note(conn, receiving()) == b"for the thread"
        del waiting


@contextlib.contextmanager
def concurrently(call):
    """Run `call` in a thread, and wait until that thread rests; yields what waits for the result."""

    async def scenario():
        return call()

    beside = Beside(FACES["threads"], scenario())
    eventually(beside.is_waiting)
    yield lambda: beside.done.result(DEADLINE)
    beside.thread.join(DEADLINE)
    assert not beside.thread.is_alive()


# One driver hands over to the next.


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(5000, 500_000))
async def test_loop_and_threads_take_turns_under_traffic_and_nothing_is_lost(world, seeded, count):
    conn, peer = await world.answered(read_buffer=Buffer.fixed(100))
    sent = numbered(count)

    def take_in_thread(some):
        return [blocking(conn).recv(timeout=DEADLINE) for _ in range(some)]

    async def take_in_turns():
        taken = []
        while len(taken) < count:
            some = min(seeded.randrange(1, 40), count - len(taken))
            if seeded.randrange(2):
                taken += [world.note(conn, item) for item in await world.outside(take_in_thread, some)]
            else:
                taken += await world.take(conn, some)
        return taken

    assert await with_a_feeder(world, peer, sent, seeded, take_in_turns()) == sent


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(1500, 100_000))
async def test_loop_and_threads_send_in_turns_and_the_order_stays(world, seeded, count):
    conn, peer, _ = await world.dialled(write_buffer=Buffer.fixed(4))
    sent = [b"%d " % number + bytes(seeded.choice([0, 10, 30_000])) for number in range(count)]
    receiving = world.spawn(world.outside(peer.recv_many, count))

    def send_in_thread(some):
        for data in some:
            blocking(conn).send(data, timeout=DEADLINE)

    at = 0
    while at < count:
        some = sent[at : at + seeded.randrange(1, 30)]
        at += len(some)
        if seeded.randrange(2):
            await world.outside(send_in_thread, some)
        else:
            await world.send(conn, *some)
    assert await world.join(receiving) == sent


@ORIGINAL
@LOOPS
async def test_a_handle_that_loops_and_threads_used_goes_back_to_its_loop(world):
    """The two side by side are served by the runtime; once the thread has left, the loop reads again."""
    conn, peer = await world.answered()
    await round_trips(world, conn, peer, 10)
    assert await world.outside(in_thread_receives, conn, peer) == b"in a thread"
    world.note(conn, b"in a thread")
    (runtime,) = threads_named("netasync")

    async def is_quiet():
        before = times_woken(runtime)
        await round_trips(world, conn, peer, 200)
        return times_woken(runtime) - before < 50

    for _ in range(100):
        if await is_quiet():
            return
    raise AssertionError("the runtime is still woken for each message")


def in_thread_receives(conn, peer):
    peer.send(b"in a thread")
    return blocking(conn).recv(timeout=DEADLINE)


# Direct resume, its fall-back and its switch.


async def round_trips(world, conn, peer, count):
    """`count` times: the raw peer sends, the handle receives and answers, the peer receives."""

    def ask():
        for number in range(count):
            peer.send(b"%d" % number)
            assert peer.recv() == b"%d" % number

    asking = world.spawn(world.outside(ask))
    for number in range(count):
        assert await world.recv(conn) == b"%d" % number
        await world.send(conn, b"%d" % number)
    await world.join(asking)


class Counting(asyncio.SelectorEventLoop):
    """Counts what is scheduled on it, and its turns."""

    scheduled = 0
    turns = 0

    def call_soon(self, callback, *args, context=None):
        self.scheduled += 1
        return super().call_soon(callback, *args, context=context)

    def _run_once(self):
        self.turns += 1
        super()._run_once()


@pytest.mark.faces("asyncio")
def test_a_task_that_waits_is_resumed_in_the_callback_that_read(face):
    assert scheduled_for_round_trips(face, 200) < 20


SWITCHED = """
    import asyncio, os
    os.environ["NETASYNC_DIRECT_RESUME"] = "0"
    import netasync

    class Counting(asyncio.SelectorEventLoop):
        scheduled = 0
        def call_soon(self, *args, **kwargs):
            self.scheduled += 1
            return super().call_soon(*args, **kwargs)

    async def main(loop):
        listener = netasync.listen(0, cork=False)
        async with listener, netasync.connect(listener.address, cork=False) as client:
            served = await listener.accept()
            await client.recv(), await served.recv()
            before = loop.scheduled
            for number in range(200):
                answer = asyncio.ensure_future(served.recv())
                await asyncio.sleep(0)
                await client.send(b"%d" % number)
                assert await answer == b"%d" % number
            print((loop.scheduled - before) // 200)
            served.close()
            await served.wait_closed()

    loop = Counting()
    loop.set_debug(False)  # there, it is always off
    loop.run_until_complete(main(loop))
    loop.close()
"""


def test_the_switch_turns_direct_resume_off():
    """Per message: a task is begun, it and this one take a step each, and the wake goes by `call_soon`."""
    without = int(run_script(SWITCHED))
    direct = int(run_script(SWITCHED.replace('os.environ["NETASYNC_DIRECT_RESUME"] = "0"', "")))
    assert without == direct + 1


def scheduled_for_round_trips(face, count):
    """How often anything was scheduled by `call_soon` while messages were received, one at a time."""

    async def scenario(world, loop):
        conn, peer = await world.answered()
        receiving = asyncio.ensure_future(take_some(world, conn, count))
        await asyncio.sleep(0)
        sock = peer.socket.fileno()
        before = loop.scheduled
        done = loop.create_future()

        def ask():
            # On the loop's own thread, and from its selector: nothing of the test is scheduled in between.
            if receiving.done():
                loop.remove_reader(sock)
                done.set_result(None)
            elif peer.recv():
                peer.send(b"again")

        loop.add_reader(sock, ask)
        peer.send(b"begin")
        await done
        assert receiving.result() == count
        return loop.scheduled - before

    with World(face, "net.async") as world:
        loop = Counting()
        try:
            return loop.run_until_complete(asyncio.wait_for(scenario(world, loop), DEADLINE))
        finally:
            _wind_up(loop)


async def take_some(world, conn, count):
    for _ in range(count):
        assert await world.recv(conn)
        await world.send(conn, b"answer")
    return count


def _with_factory(factory):
    async def scenario(world, source):
        asyncio.get_running_loop().set_task_factory(factory)
        client, served, _ = await world.pair()
        echoing = world.spawn(echo_until_closed(world, served))
        sent = numbered(300)
        for number in sent:
            await world.send(client, number)
            got = None
            while got is None:
                got = await interrupted(source, world.recv(client))
            assert got == number
        await world.close(client)
        await world.join(echoing)

    return scenario


async def echo_until_closed(world, conn):
    while isinstance(item := await world.recv(conn), bytes):
        await world.send(conn, item)


@LOOPS
async def test_tasks_written_in_python_are_resumed_like_those_in_c(world, seeded):
    def factory(loop, coro, **options):
        return asyncio.tasks._PyTask(coro, loop=loop, **options)

    await _with_factory(factory)(world, seeded)


@LOOPS
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
async def test_eager_tasks_are_resumed_like_any_other(world, seeded):
    def factory(loop, coro, *, eager_start=None, **options):  # uvloop names it, 3.12 does not know it
        return asyncio.eager_task_factory(loop, coro, **options)

    await _with_factory(factory)(world, seeded)


def reader_callback(loop, conn):
    """The socket of `conn`, and what its loop calls when that is readable."""
    for key in list(loop._selector.get_map().values()):
        if not stat.S_ISSOCK(os.fstat(key.fd).st_mode):
            continue
        sock = socket.socket(fileno=os.dup(key.fd))
        if sock.family == socket.AF_INET and sock.getpeername() == split_target(conn.peer):
            return sock, key.data[0]._callback
        sock.close()
    raise AssertionError("the loop watches no socket of this handle")


@ORIGINAL
@pytest.mark.faces("asyncio")
async def test_a_wake_that_comes_while_another_task_runs_is_not_lost(world):
    """As within a nested loop: the task cannot be entered now, and goes on in a later turn."""
    conn, peer = await world.answered()
    waiting = world.spawn(world.recv(conn))
    await world.settle(waiting)
    sock, callback = reader_callback(asyncio.get_running_loop(), conn)
    with sock:
        peer.send(b"while this task runs")
        select.select([sock], [], [], DEADLINE)
        callback()
    assert not waiting.done()
    assert await world.join(waiting) == b"while this task runs"


@ORIGINAL
@pytest.mark.faces("asyncio")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task's context can be given since 3.11")
async def test_a_wake_whose_context_is_entered_already_is_not_lost(world):
    conn, peer = await world.answered()
    context = contextvars.copy_context()
    waiting = asyncio.get_running_loop().create_task(world.recv(conn), context=context)
    await world.settle(waiting)
    sock, callback = reader_callback(asyncio.get_running_loop(), conn)
    with sock:
        peer.send(b"while its context is entered")
        select.select([sock], [], [], DEADLINE)
        context.run(callback)
    assert not waiting.done()
    assert await world.join(waiting) == b"while its context is entered"


@ORIGINAL
@LOOPS
async def test_a_task_keeps_its_context_over_every_wait(world):
    conn, peer = await world.answered()
    who = contextvars.ContextVar("who", default="nobody")

    async def receive(name):
        who.set(name)
        for _ in range(20):
            await world.recv(conn)
            assert who.get() == name

    world.forget_order(conn)
    tasks = [world.spawn(receive(name)) for name in "abc"]
    await world.settle(tasks[-1])
    for number in numbered(60):
        peer.send(number)
        await asyncio.sleep(0)
    for task in tasks:
        await world.join(task)
    assert who.get() == "nobody"


# One coalesced wake descriptor for each loop.


def event_descriptors():
    return sum(what == "anon_inode:[eventfd]" for what in open_descriptors().values())


@ORIGINAL
@LOOPS
async def test_a_loop_has_one_wake_descriptor_however_many_handles_wait(world):
    first = await world.answered()
    waiting = [world.spawn(world.recv(first[0]))]
    await world.settle(waiting[0])
    one = event_descriptors()
    more = [await world.answered() for _ in range(20)]
    waiting += [world.spawn(world.recv(conn)) for conn, _ in more]
    await world.settle(waiting[-1])
    assert event_descriptors() == one
    for _, peer in [first, *more]:
        peer.send(b"x")
    assert [await world.join(task) for task in waiting] == [b"x"] * 21


@pytest.mark.faces("asyncio")
def test_wakes_that_come_while_the_loop_is_busy_cost_it_a_handful_of_turns(face):
    async def scenario(world, loop):
        port = world.reserved_port()
        conns = [world.connect(port.address, reconnect=Backoff(initial=50, maximum=50)) for _ in range(200)]
        waiting = [asyncio.ensure_future(world.recv(conn)) for conn in conns]
        await asyncio.sleep(0)
        eventually(lambda: all(conn.stats().attempts for conn in conns))  # holds the loop all the while
        before = loop.turns
        await asyncio.gather(*waiting)
        assert loop.turns - before <= 20

    with World(face, "net.async") as world:
        loop = Counting()
        try:
            loop.run_until_complete(asyncio.wait_for(scenario(world, loop), DEADLINE))
        finally:
            _wind_up(loop)


# Fairness.

#: A budget of 1024 calls that do not wait, and what one batch adds to it.
LONGEST_RUN = 2 * 1024 + 64


class Turns:
    """A task that only wants its turns, and notes how much was done between any two of them."""

    def __init__(self):
        self.done = 0
        self.longest = 0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self):
        while True:
            before = self.done
            await asyncio.sleep(0)
            self.longest = max(self.longest, self.done - before)

    async def stop(self):
        self._task.cancel()
        await result_of(self._task)
        return self.longest


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("by", ["recv", "recv_many", "messages"])
async def test_a_firehose_of_receives_leaves_others_their_turns(world, by):
    conn, peer = await world.answered()
    count = 30_000
    feeding = world.spawn(world.outside(peer.send, *numbered(count)))
    await world.eventually(lambda: conn.stats().received >= count // 3)
    turns = Turns()
    await asyncio.sleep(0)
    if by == "recv":
        for _ in range(count):
            await world.recv(conn)
            turns.done += 1
    elif by == "recv_many":
        while turns.done < count:
            turns.done += len(await world.recv_many(conn, 100))
    else:
        async for data in world.messages(conn):
            world.note(conn, data)
            turns.done += 1
            if turns.done == count:
                break
    longest = await turns.stop()
    await world.join(feeding)
    assert longest <= LONGEST_RUN * (100 if by == "recv_many" else 1)


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("by", ["send", "send_many"])
async def test_a_firehose_of_sends_leaves_others_their_turns(world, by):
    conn, peer, _ = await world.dialled()
    count = 30_000
    receiving = world.spawn(world.outside(peer.recv_many, count))
    turns = Turns()
    await asyncio.sleep(0)

    def counted():
        for number in numbered(count):
            turns.done += 1
            yield number

    if by == "send":
        for number in counted():
            await world.send(conn, number)
    else:
        assert await world.send_many(conn, counted()) == count
    assert await turns.stop() <= LONGEST_RUN
    assert await world.join(receiving) == numbered(count)


# The runtime's thread is not woken for messages.


@ORIGINAL
async def test_round_trips_do_not_wake_the_runtime(world):
    conn, peer = await world.answered()
    await round_trips(world, conn, peer, 50)
    (runtime,) = threads_named("netasync")
    before = times_woken(runtime)
    await round_trips(world, conn, peer, 2000)
    # A look at a deadline now and then is no message: on a slow machine there are a few more of those.
    assert times_woken(runtime) - before < 200


@LOOPS
async def test_round_trips_between_two_handles_of_one_loop_do_not_wake_the_runtime(world):
    client, served, _ = await world.pair()
    echoing = world.spawn(echo_until_closed(world, served))

    async def go(count):
        for number in numbered(count):
            await world.send(client, number)
            assert await world.recv(client) == number

    await go(50)
    (runtime,) = threads_named("netasync")
    before = times_woken(runtime)
    await go(2000)
    assert times_woken(runtime) - before < 200
    await world.close(client)
    await world.join(echoing)


@LOOPS
async def test_a_stream_in_one_direction_does_not_wake_the_runtime(world):
    client, served, _ = await world.pair()
    (runtime,) = threads_named("netasync")
    taking = world.spawn(world.take(served, 200))
    await world.send_many(client, numbered(200))
    await world.join(taking)
    before = times_woken(runtime)
    taking = world.spawn(world.take(served, 20_000))
    await world.send_many(client, numbered(20_000))
    assert await world.join(taking) == numbered(20_000)
    assert times_woken(runtime) - before < 200


@ORIGINAL
async def test_a_connected_value_is_taken_like_a_message(world):
    """What the supervisor makes, and what the application's own thread reads, come in order."""
    for _ in range(20):
        server = world.raw_listener()
        conn = world.connect(server.address)
        taking = world.spawn(world.take(conn, 2))
        peer = await world.outside(server.accept)
        peer.send(b"at once")
        connected, data = await world.join(taking)
        assert isinstance(connected, Connected)
        assert data == b"at once"
