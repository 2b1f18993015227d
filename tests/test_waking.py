"""A task that a callback of ours resumes behaves as one that asyncio wakes: each scenario runs with both."""

import asyncio
import logging
import select
import socket
import sys
import time

import pytest

from support.cancelling import result_of
from support.faces import _wind_up
from support.process import run_script
from support.waiting import DEADLINE
from support.wires import ORIGINAL
from support.world import World
from test_bridge import LOOPS, reader_callback

#: Who wakes: we do, or asyncio by itself, which shows what is right.
WAKERS = pytest.mark.parametrize("waker", ["ours", "asyncio"])


class Mail:
    """One message after another for a task that waits, from a peer that is no part of the loop."""

    def __init__(self, conn, peer, ends=None):
        self.conn = conn
        self._peer = peer
        self._ends = ends

    async def recv(self):
        if self._ends is None:
            return await self.conn.recv()
        return await asyncio.get_running_loop().sock_recv(self._ends[0], 100)

    def post(self, data):
        if self._ends is None:
            self._peer.send(data)
        else:
            self._ends[1].sendall(data)


async def mail(world, waker):
    if waker == "ours":
        conn, peer = await world.answered()
        world.forget_order(conn)
        return Mail(conn, peer)
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        world.outsider(end)
    return Mail(None, None, ends)


# Debug mode.


@ORIGINAL
@LOOPS
@WAKERS
@pytest.mark.parametrize("since", ["before it waits", "while it waits"])
async def test_in_debug_mode_a_slow_step_is_reported_with_its_task(world, waker, since, caplog):
    post = await mail(world, waker)
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.05
    if since == "before it waits":
        loop.set_debug(True)

    async def slow_for_its_message():
        await post.recv()
        await post.recv()
        time.sleep(0.1)

    waiting = world.spawn(slow_for_its_message())
    await world.settle(waiting)
    post.post(b"goes on")
    await asyncio.sleep(0.01)
    loop.set_debug(True)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        post.post(b"and is slow")
        await world.join(waiting)
    loop.set_debug(False)
    told = [record.getMessage() for record in caplog.records if "took" in record.getMessage()]
    assert any("slow_for_its_message" in text for text in told), told


# Loops within loops.


@ORIGINAL
@LOOPS
@WAKERS
async def test_a_second_loop_run_within_a_task_that_was_resumed_is_the_one_whose_futures_are_awaited(
    world, waker
):
    first, second = [await mail(world, waker) for _ in range(2)]
    loop = asyncio.get_running_loop()

    async def within():
        again = asyncio.ensure_future(first.recv())
        await asyncio.sleep(0)
        first.post(b"to the first")
        second.post(b"to the second")
        if second.conn is not None:
            await second.conn.send(b"answer")
            await second.conn.flush()
        return await again, await second.recv()

    async def resumed():
        await first.recv()
        asyncio._set_running_loop(None)
        other = world.face._new_loop()
        try:
            return other.run_until_complete(asyncio.wait_for(within(), DEADLINE))
        finally:
            _wind_up(other)
            asyncio._set_running_loop(loop)

    waiting = world.spawn(resumed())
    await world.settle(waiting)
    first.post(b"begin")
    assert await world.join(waiting) == (b"to the first", b"to the second")
    waiting = world.spawn(first.recv())
    await world.settle(waiting)
    first.post(b"as before")
    assert await world.join(waiting) == b"as before"


NESTED = """
    import asyncio, sys, threading, time
    import netasync, netasync.blocking as na, nest_asyncio

    def answer(served):
        for item in served:
            if isinstance(item, bytes):
                served.send(item)

    async def echoed(conn, what):
        await conn.send(what)
        return await conn.recv()

    async def notebook(loop, conn, listener, way):
        assert await echoed(conn, b"the task is resumed") == b"the task is resumed"
        nest_asyncio.apply()
        if way == "messages":
            for number in range(20):
                assert loop.run_until_complete(echoed(conn, b"%d" % number)) == b"%d" % number
        elif way == "deeper and deeper":
            async def deeper(depth):
                assert await echoed(conn, b"%d" % depth) == b"%d" % depth
                if depth:
                    loop.run_until_complete(deeper(depth - 1))
            loop.run_until_complete(deeper(8))
        elif way == "values":
            # No socket of the loop's tells of these: the runtime's thread does.
            async def refused():
                async with netasync.connect("127.0.0.1:1", reconnect=None) as other:
                    return await other.recv(), await other.recv()
            for _ in range(5):
                first, second = loop.run_until_complete(refused())
                assert isinstance(first, netasync.Disconnected) and isinstance(second, netasync.Closed)
        elif way == "beside others":
            assert [loop.run_until_complete(echoed(conn, b"x")) for _ in range(20)] == [b"x"] * 20
            seen = turns[0]
            loop.run_until_complete(asyncio.sleep(0.05))
            assert turns[0] > seen, "the others do not go on"

    async def wait_for_two(loop, conn, served):
        async def first():
            assert await conn.recv() == b"for the first"
            nest_asyncio.apply()
            loop.run_until_complete(waiting[1])
        waiting[:] = [loop.create_task(first()), loop.create_task(conn.recv())]
        await asyncio.sleep(0)
        # One read wakes both.
        await asyncio.to_thread(served.send_many, [b"for the first", b"for the second"])
        await waiting[0]
        assert waiting[1].result() == b"for the second"

    async def beside(listener):
        other = netasync.connect(listener.address)
        threading.Thread(target=answer, args=((await listener.accept()).blocking,), daemon=True).start()
        assert isinstance(await other.recv(), netasync.Connected)
        async with other:
            while True:
                assert await echoed(other, b"beside") == b"beside"
                turns[0] += 1
                await asyncio.sleep(0.001)

    async def main(way):
        loop = asyncio.get_running_loop()
        async with netasync.listen(0) as listener, netasync.connect(listener.address) as conn:
            served = await listener.accept()
            assert isinstance(await conn.recv(), netasync.Connected)
            others = loop.create_task(beside(listener)) if way == "beside others" else None
            if way == "two that one read wakes":
                await wait_for_two(loop, conn, served.blocking)
            else:
                threading.Thread(target=answer, args=(served.blocking,), daemon=True).start()
                await loop.create_task(notebook(loop, conn, listener, way))
                # And in the ordinary way ever after.
                assert await echoed(conn, b"afterwards") == b"afterwards"
            if others:
                others.cancel()
                await asyncio.gather(others, return_exceptions=True)
            await served.aclose()

    waiting, turns = [], [0]
    loop = asyncio.new_event_loop()
    loop.set_debug(False)  # there, nobody is resumed directly
    asyncio.set_event_loop(loop)
    loop.run_until_complete(asyncio.wait_for(main(sys.argv[1]), 30))
    loop.close()
    print("done")
"""


@pytest.mark.parametrize(
    "way", ["messages", "deeper and deeper", "values", "two that one read wakes", "beside others"]
)
@pytest.mark.parametrize("switch", ["1", "0"])
def test_a_loop_that_is_run_within_its_own_task_goes_on_and_says_nothing(way, switch):
    if (way, switch) == ("two that one read wakes", "0"):
        pytest.skip("with two tasks ready, nest_asyncio cannot run the turn in which it was applied")
    environment = {"NETASYNC_DIRECT_RESUME": switch, "PYTHONWARNINGS": "default"}
    assert run_script(NESTED, way, environment=environment) == "done\n"


def run_once_within(loop):
    """Run one turn of a loop within its own task, as `nest_asyncio` does."""
    running = asyncio.tasks._current_tasks.pop(loop, None)
    try:
        loop._run_once()
    finally:
        if running is not None:
            asyncio.tasks._current_tasks[loop] = running


@ORIGINAL
@pytest.mark.faces("asyncio")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there the current task is out of reach")
async def test_a_loop_that_was_run_within_its_own_task_wakes_in_the_ordinary_way_ever_after(world):
    conn, peer = await world.answered()
    world.forget_order(conn)
    loop = asyncio.get_running_loop()

    async def woken_by():
        await conn.recv()
        return what_the_loop_called()

    async def after(scenario):
        waiting = world.spawn(scenario)
        await world.settle(waiting)
        peer.send(b"now")
        return await world.join(waiting)

    async def nests():
        await conn.recv()
        inner = loop.create_task(woken_by())
        run_once_within(loop)
        peer.send(b"within")
        while not inner.done():
            run_once_within(loop)
        return inner.result()

    assert await after(woken_by()) == "Callback"
    assert await after(nests()) == "Task"
    assert await after(woken_by()) == "Task"


def what_the_loop_called():
    """The class of what the loop calls now: a task, or a callback that resumed one."""
    frame = sys._getframe(1)
    while frame.f_code is not asyncio.Handle._run.__code__:
        frame = frame.f_back
    return type(frame.f_locals["self"]._callback.__self__).__name__


# What a task raises, and tasks that cannot be entered.


class Ends(SystemExit, RuntimeError):
    """Ends the loop, and is also what asyncio says where a task cannot be entered."""


class Interrupts(KeyboardInterrupt, RuntimeError):
    pass


@LOOPS
@WAKERS
@pytest.mark.parametrize("kind", [Ends, Interrupts, SystemExit, KeyboardInterrupt])
def test_what_ends_a_loop_ends_it_from_a_task_that_was_resumed(face, waker, kind):
    async def raises(post):
        await post.recv()
        raise kind("as it was told")

    async def never(world):
        post = await mail(world, waker)
        tasks.append(world.spawn(raises(post)))
        await world.settle(tasks[0])
        post.post(b"now")
        await asyncio.Event().wait()

    tasks = []
    with World(face, "net.async") as world:
        loop = face._new_loop()
        try:
            with pytest.raises(kind, match="as it was told"):
                loop.run_until_complete(asyncio.wait_for(never(world), DEADLINE))
            assert type(tasks[0].exception()) is kind
        finally:
            _wind_up(loop)


@ORIGINAL
@LOOPS
@WAKERS
@pytest.mark.parametrize("kind", [RuntimeError, RecursionError, NotImplementedError])
async def test_a_runtime_error_of_a_task_that_was_resumed_is_its_own(world, waker, kind):
    post = await mail(world, waker)

    async def raises():
        await post.recv()
        raise kind("Cannot enter into task, it says")

    waiting = world.spawn(raises())
    await world.settle(waiting)
    post.post(b"now")
    with pytest.raises(kind, match="it says"):
        await world.join(waiting)


@ORIGINAL
@pytest.mark.faces("asyncio")
@WAKERS
@pytest.mark.parametrize("cancelled", ["at once", "a turn later", "never"])
async def test_a_task_that_could_not_be_entered_is_cancelled_like_any_other(world, waker, cancelled):
    post = await mail(world, waker)
    waiting = world.spawn(post.recv())
    await world.settle(waiting)
    post.post(b"while another task runs")
    if waker == "ours":
        sock, callback = reader_callback(asyncio.get_running_loop(), post.conn)
        with sock:
            select.select([sock], [], [], DEADLINE)
            callback()
    else:
        select.select([post._ends[0]], [], [], DEADLINE)
        asyncio.get_running_loop()._selector.get_key(post._ends[0]).data[0]._run()
    assert not waiting.done()
    if cancelled == "a turn later":
        asyncio.get_running_loop().call_soon(waiting.cancel)
    elif cancelled == "at once":
        assert waiting.cancel()
    if cancelled == "at once":
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if waker == "ours":
            assert await world.recv(post.conn) == b"while another task runs"
    else:
        assert await waiting == b"while another task runs"


@ORIGINAL
@LOOPS
async def test_a_task_that_is_cancelled_by_another_that_one_read_resumed_loses_nothing(world):
    conn, peer = await world.answered()
    world.forget_order(conn)
    tasks = []

    async def first():
        item = await conn.recv()
        assert tasks[1].cancel()
        return item

    tasks += [world.spawn(first()), world.spawn(conn.recv())]
    await world.settle(tasks[1])
    peer.send(b"1", b"2")
    assert await world.join(tasks[0]) == b"1"
    assert await result_of(tasks[1]) is None
    assert await world.recv(conn) == b"2"
