"""The fault programme, D: Python. It cancels, shares, ends and interrupts; each message is taken once."""

import array
import asyncio
import concurrent.futures
import contextlib
import gc
import threading

import pytest

from netasync import Buffer, Closed, ClosedError, Connected, Reason, State
from support.cancelling import interrupted, result_of
from support.counts import counts
from support.faces import aio, blocking
from support.process import run_script
from support.waiting import DEADLINE, eventually
from support.wires import ORIGINAL
from support.world import World

LOOPS = pytest.mark.faces("asyncio", "uvloop")


def numbered(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


# D 36


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("count", counts(4000, 100_000))
async def test_receives_cancelled_at_random_take_every_message_once_and_in_order(world, seeded, count):
    conn, peer = await world.answered(read_buffer=Buffer.fixed(100))
    sent = numbered(count)

    def feed():
        at = 0
        while at < count:
            step = seeded.randrange(1, 6)
            peer.send(*sent[at : at + step])
            at += step

    feeding = world.spawn(world.outside(feed))
    taken = []
    while len(taken) < count:
        item = await interrupted(seeded, world.recv(conn))
        if item is not None:
            taken.append(item)
    assert taken == sent
    await world.join(feeding)


@LOOPS
@pytest.mark.parametrize("count", counts(3000, 100_000))
async def test_of_sends_cancelled_at_random_exactly_those_arrive_that_said_true(world, seeded, count):
    client, served, _ = await world.pair(
        connect={"write_buffer": Buffer.fixed(3)}, listen={"read_buffer": Buffer.fixed(10)}
    )

    async def take_all():
        taken = []
        while isinstance(item := await world.recv(served), bytes):
            taken.append(int(item.split(b" ")[0]))
        assert isinstance(item, Closed)
        return taken

    taking = world.spawn(take_all())
    accepted = []
    for number in range(count):
        data = b"%d " % number + bytes(seeded.choice([0, 100, 30_000]))
        if await interrupted(seeded, world.send(client, data)):
            accepted.append(number)
    await world.close(client)
    assert await world.join(taking) == accepted
    assert client.stats().accepted == len(accepted)
    assert 0 < len(accepted) < count


# D 37


@LOOPS
@pytest.mark.parametrize(("tasks", "each"), [(100, 10), pytest.param(1000, 100, marks=pytest.mark.soak)])
async def test_tasks_and_threads_send_on_one_handle_and_each_keeps_its_order(world, tasks, each):
    client, served, _ = await world.pair(connect={"write_buffer": Buffer.fixed(16)})
    threads = 16

    async def produce(who):
        for number in range(each):
            await client.send(b"%d %d" % (who, number))

    def produce_in_thread(who):
        for number in range(each):
            assert blocking(client).send(b"%d %d" % (who, number), timeout=DEADLINE)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        loop = asyncio.get_running_loop()
        producing = [loop.run_in_executor(pool, produce_in_thread, tasks + nth) for nth in range(threads)]
        producing += [asyncio.ensure_future(produce(who)) for who in range(tasks)]
        received = await world.take(served, (tasks + threads) * each)
        await asyncio.gather(*producing)
    by_producer = {}
    for data in received:
        who, number = map(int, data.split())
        by_producer.setdefault(who, []).append(number)
    assert by_producer == {who: list(range(each)) for who in range(tasks + threads)}


@LOOPS
@pytest.mark.parametrize(("tasks", "each"), [(100, 20), pytest.param(1000, 100, marks=pytest.mark.soak)])
async def test_tasks_and_threads_receive_on_one_handle_and_each_message_reaches_one(world, tasks, each):
    client, served, _ = await world.pair()
    world.forget_order(served)
    threads = 16
    count = (tasks + threads) * each

    async def consume():
        taken = []
        while isinstance(item := await world.recv(served), bytes):
            taken.append(int(item))
        return taken

    def consume_in_thread():
        taken = []
        while isinstance(item := blocking(served).recv(timeout=DEADLINE), bytes):
            world.note(served, item)
            taken.append(int(item))
        return taken

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        loop = asyncio.get_running_loop()
        consuming = [loop.run_in_executor(pool, consume_in_thread) for _ in range(threads)]
        consuming += [asyncio.ensure_future(consume()) for _ in range(tasks)]
        await world.send_many(client, numbered(count))
        await world.close(client)
        taken = await asyncio.gather(*consuming)
    assert sorted(number for some in taken for number in some) == list(range(count))
    for some in taken:
        assert some == sorted(some)


# D 38

#: Every call that waits, as a coroutine on any face; the write buffer is full and the link is down.
WAITS = {
    "recv": lambda world, conn: world.recv(conn),
    "recv_many": lambda world, conn: world.recv_many(conn, 3),
    "send": lambda world, conn: world.send(conn, b"waits"),
    "send_many": lambda world, conn: world.send_many(conn, [b"waits", b"too"]),
    "flush": lambda world, conn: world.flush(conn),
    "wait_connected": lambda world, conn: world.wait_connected(conn),
    "wait_closed": lambda world, conn: world.wait_closed(conn),
}

#: How it ends, from whichever thread.
ENDINGS = {
    "close": (lambda conn: aio(conn).close(), {Reason.CLOSED_HERE, Reason.CLOSE_TIMEOUT}),
    "abort": (lambda conn: aio(conn).abort(), {Reason.ABORTED}),
    "blocking.close": (
        lambda conn: blocking(conn).close(DEADLINE),
        {Reason.CLOSED_HERE, Reason.CLOSE_TIMEOUT},
    ),
}


@pytest.mark.parametrize("ending", sorted(ENDINGS))
@pytest.mark.parametrize("where", ["here", "in another thread"])
async def test_every_waiting_call_is_released_when_its_handle_ends(world, ending, where):
    end, reasons = ENDINGS[ending]
    if where == "here" and ending == "blocking.close" and world.face.awaited:
        where = "in another thread"  # a call that blocks has no place on a loop
    conn = world.connect(world.reserved_port().address, write_buffer=1, close_timeout=0.1)
    world.forget_order(conn)
    await world.send(conn, b"fills the buffer")
    await world.down(conn)
    waiting = {name: world.spawn(wait(world, conn)) for name, wait in WAITS.items() for _ in range(2)}
    for one in waiting.values():
        await world.settle(one)
    if where == "here":
        end(conn)
    else:
        await world.outside(lambda: in_a_thread(end, conn))
    for name, one in waiting.items():
        if name in ("send", "send_many", "flush"):
            with pytest.raises(ClosedError):
                await world.join(one)
            continue
        result = await world.join(one)
        closed = result[-1] if name == "recv_many" else result
        assert isinstance(closed, Closed), (name, result)
        assert closed.reason in reasons
    assert conn.state is State.CLOSED


def in_a_thread(call, *arguments):
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()


@LOOPS
@pytest.mark.parametrize("count", counts(150, 10_000))
async def test_an_end_at_any_moment_of_a_pending_call_is_seen_once_and_hangs_nobody(world, seeded, count):
    """Close or abort, from this thread or another, after a random number of turns, amid a stream."""
    small = {"read_buffer": Buffer.fixed(20), "write_buffer": Buffer.fixed(20)}
    listener = world.listen(0, **small)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(count):
            client = world.connect(listener.address, watch=False, reconnect=None, **small)
            served = await listener.accept()
            end = seeded.choice([aio(served).close, aio(served).abort])
            calls = [
                asyncio.ensure_future(all_items(served)),
                asyncio.ensure_future(pour(served)),
                asyncio.ensure_future(pour(client)),
                asyncio.ensure_future(served.wait_closed()),
                asyncio.ensure_future(all_items(client)),
            ]
            for _ in range(seeded.randrange(6)):
                await asyncio.sleep(0)
            if seeded.randrange(2):
                end()
            else:
                pool.submit(end)
            taken, closed = await calls[0], await calls[3]
            assert taken[-1] == closed
            assert [type(item) for item in taken].count(Closed) == 1
            client.abort()
            await asyncio.gather(*calls)
            assert isinstance(await client.wait_closed(), Closed)


async def all_items(conn):
    return [item async for item in conn]


async def pour(conn):
    # Not for ever: a loop that never waits may keep another thread from its turn for seconds.
    with contextlib.suppress(ClosedError):
        for _ in range(300):
            await conn.send(bytes(1000))


@LOOPS
async def test_callbacks_that_close_their_own_handle_while_it_delivers_are_safe(world):
    """A task is resumed in the middle of the reader's callback, and ends its handle and others there."""
    pairs = [await world.pair() for _ in range(5)]
    handles = [client for client, _, _ in pairs]

    async def receive_and_end(conn, others):
        item = await world.recv(conn)
        for other in others:
            other.abort()
        conn.close()
        return item

    tasks = [world.spawn(receive_and_end(handles[0], handles[1:]))]
    tasks += [world.spawn(world.recv(conn)) for conn in handles[1:]]
    await world.settle(tasks[-1])
    await world.send(pairs[0][1], b"the signal")
    assert await world.join(tasks[0]) == b"the signal"
    for task in tasks[1:]:
        assert (await world.join(task)).reason is Reason.ABORTED
    assert (await world.end(handles[0])).reason is Reason.CLOSED_HERE


@ORIGINAL
@pytest.mark.faces("asyncio", "threads")
async def test_a_collection_in_the_middle_of_a_receive_may_close_other_handles(world):
    conn, peer = await world.answered()
    listener = world.listen(0)

    class Cycle:
        def __init__(self, held):
            self.held, self.itself = held, self

    peer.send(*numbered(50))
    await world.arrived(conn, 50)
    threshold = gc.get_threshold()
    with pytest.warns(ResourceWarning, match="without close"):
        for _ in range(5):
            Cycle(world.connect(listener.address, watch=False))
        gc.set_threshold(1)
        try:
            assert await world.take(conn, 50) == numbered(50)
        finally:
            gc.set_threshold(*threshold)
        gc.collect()


# D 41


@LOOPS
def test_a_second_run_goes_on_with_the_handle_where_the_first_left_a_receive_pending(face):
    """What arrives while no loop runs is there for the next, however often one follows the other."""

    async def some(world, conn, count):
        taken = await world.take(conn, count)
        for _ in range(3):
            await world.settle(world.spawn(conn.recv()))  # cancelled as the loop ends
        return taken

    with World(face, "net.async") as world:
        conn, peer = world.run(world.answered())
        taken = []
        for start in range(0, 300, 10):
            peer.send(*numbered(10, start))
            taken += world.run(some(world, conn, 10))
        assert taken == numbered(300)


@LOOPS
def test_loops_that_follow_each_other_and_threads_in_between_share_a_handle(face):
    with World(face, "net.async") as world:
        client, served, _ = world.run(world.pair())
        taken = []
        for start in range(0, 200, 20):
            world.run(world.send(client, *numbered(10, start)))
            for number in numbered(10, start + 10):
                blocking(client).send(number, timeout=DEADLINE)
            taken += world.run(world.take(served, 10))
            for _ in range(10):
                taken.append(world.note(served, blocking(served).recv(timeout=DEADLINE)))
        assert taken == numbered(200)


@LOOPS
def test_a_thread_receives_while_loops_come_and_go_and_nothing_is_lost(face):
    """A handle is never left with a reader that does not run any more."""
    count = 400

    async def touch(served):
        waiting = asyncio.ensure_future(served.recv())
        for _ in range(5):
            await asyncio.sleep(0)
        waiting.cancel()
        return await result_of(waiting)

    with World(face, "net.async") as world, concurrent.futures.ThreadPoolExecutor(1) as pool:
        client, served, _ = world.run(world.pair())
        world.forget_order(served)
        by_loops = []

        def take_the_rest():
            taken = []
            while len(taken) + len(by_loops) < count:
                with contextlib.suppress(TimeoutError):
                    taken.append(world.note(served, blocking(served).recv(timeout=0.05)))
            return taken

        taking = pool.submit(take_the_rest)
        for number in numbered(count):
            blocking(client).send(number, timeout=DEADLINE)
            if int(number) % 5 == 0:
                item = world.run(touch(served))
                if item is not None:
                    by_loops.append(world.note(served, item))
        assert sorted(taking.result(DEADLINE) + by_loops, key=int) == numbered(count)


# D 42

try:
    import numpy
except ImportError:  # the newest interpreters have none yet
    numpy = None

MAKE = {
    "bytearray": bytearray,
    "memoryview": lambda data: memoryview(bytearray(data)),
    "array": lambda data: array.array("B", data),
    "numpy": lambda data: numpy.frombuffer(bytearray(data), dtype="u1"),
}


def overwrite(data, letter):
    memoryview(data).cast("B")[:] = bytes([letter]) * memoryview(data).nbytes


@ORIGINAL
@pytest.mark.parametrize("size", [1, 300, 200_000])
@pytest.mark.parametrize("kind", sorted(MAKE))
async def test_what_is_mutated_after_send_goes_out_as_it_was_at_the_call(world, kind, size):
    if kind == "numpy" and numpy is None:
        pytest.skip("numpy is not installed")
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=Buffer.fixed(4, max_bytes=2**24))
    data = MAKE[kind](bytes(size))
    for letter in b"abcd":  # queued while the link is down
        overwrite(data, letter)
        await world.send(conn, data)
    overwrite(data, ord("e"))
    waiting = world.spawn(world.send(conn, data))  # the buffer is full: it waits
    await world.settle(waiting)
    overwrite(data, ord("f"))
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(peer.recv_many, 5) == [bytes([letter]) * size for letter in b"abcde"]
    assert await world.join(waiting) is True
    for letter in b"ghi":  # straight to the kernel
        overwrite(data, letter)
        await world.send(conn, data)
        overwrite(data, ord("z"))
    assert await world.outside(peer.recv_many, 3) == [bytes([letter]) * size for letter in b"ghi"]


@ORIGINAL
async def test_each_message_of_send_many_is_what_it_was_when_it_was_taken_from_the_iterable(world):
    conn, peer, _ = await world.dialled()
    data = bytearray(1000)

    def reused():
        for letter in b"abcdefgh" * 50:
            data[:] = bytes([letter]) * 1000
            yield data

    sending = world.spawn(world.send_many(conn, reused()))
    received = await world.outside(peer.recv_many, 400)
    assert received == [bytes([letter]) * 1000 for letter in b"abcdefgh" * 50]
    assert await world.join(sending) == 400


# D 44

#: A thread writes numbers, the main thread receives them and is interrupted again and again.
INTERRUPTED = """
    import signal, sys, threading, time
    import netasync, netasync.blocking as na

    times, count = int(sys.argv[1]), 0
    listener = na.listen(0)
    client = na.connect(listener.address)
    served = listener.accept()
    client.recv(), served.recv()
    is_over, main = threading.Event(), threading.main_thread()
    # How many interruptions may have been sent: raised where they are caught, and nowhere else.
    allowed, interruptions, taken = 0, 0, []

    def produce():
        global count
        while not is_over.is_set():
            client.send(b"%d" % count)
            count += 1
            time.sleep(0.002)
        client.aio.close()

    def rests():
        with open(f"/proc/self/task/{main.native_id}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"

    def interrupt():
        for number in range(times):
            while allowed <= number or not rests():
                time.sleep(0.0002)
            signal.pthread_kill(main.ident, signal.SIGINT)

    threads = [threading.Thread(target=produce), threading.Thread(target=interrupt)]
    for thread in threads:
        thread.start()
    item = None
    while True:
        try:
            item = None
            allowed = min(interruptions + 1, times)
            item = served.recv(timeout=60)
            if not isinstance(item, bytes):
                break
            taken.append(int(item))
        except KeyboardInterrupt:
            if isinstance(item, bytes) and (not taken or taken[-1] != int(item)):
                taken.append(int(item))
            interruptions += 1
            if interruptions == times:
                is_over.set()
    for thread in threads:
        thread.join()
    # A signal in the instant between taking an item and returning it may cost that one item.
    missing = set(range(count)) - set(taken)
    assert taken == sorted(set(taken)), "twice, or out of order"
    assert len(missing) <= 1 + times // 20, (len(missing), count)
    assert isinstance(item, netasync.Closed), item
    assert interruptions == times
    listener.close()
    print(interruptions, count, len(missing))
"""


@pytest.mark.parametrize("times", counts(40, 1000))
def test_a_receive_that_is_interrupted_again_and_again_loses_nothing_that_it_had_not_taken(times):
    said = run_script(INTERRUPTED, str(times), timeout=DEADLINE + times)
    print("interruptions, messages, lost in the instant of returning:", said)


# What is shared by all of it


async def test_a_handle_that_has_seen_all_of_this_is_as_good_as_new(world, seeded):
    client, served, _ = await world.pair()
    for number in numbered(200):
        way = seeded.randrange(4)
        if way == 0:
            with pytest.raises(TimeoutError):
                await world.recv(client, timeout=0.0005)
        elif way == 1:
            await world.flush(client)
        elif way == 2:
            assert isinstance(await world.wait_connected(client), Connected)
        await world.send(client, number)
        assert await world.recv(served) == number
    eventually(lambda: client.stats().queued == 0)
    assert client.stats().links == 1
