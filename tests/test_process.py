"""Whole processes: what Ctrl-C does, that a busy one is silent, and what dropping a handle does."""

import asyncio
import gc
import threading

import pytest

from netasync import Reason
from support.counts import counts
from support.faces import FACES, blocking
from support.process import run_script
from support.waiting import DEADLINE

LOOPS = ["asyncio", "uvloop"]


@pytest.fixture(params=LOOPS)
def loop_name(request):
    if request.param not in FACES:
        pytest.skip(f"{request.param} is not installed")
    return request.param


# Ctrl-C

#: Each call waits for what never comes, and is interrupted once its thread rests.
INTERRUPTED = """
    import os, signal, sys, threading, time
    import netasync, netasync.blocking as na
    from netasync import Buffer

    listener = na.listen(0)
    client = na.connect(listener.address)
    served = listener.accept()
    client.recv(), served.recv()
    alone = na.connect("127.0.0.1:1", write_buffer=Buffer.fixed(1), reconnect=30, close_timeout=30)
    alone.send(b"fills the buffer")
    assert isinstance(alone.recv(), netasync.Disconnected)

    calls = {
        "recv": client.recv,
        "recv with a timeout": lambda: client.recv(timeout=600),
        "recv_many": lambda: client.recv_many(5),
        "iteration": lambda: list(client),
        "messages": lambda: list(client.messages()),
        "read_chan.recv": client.read_chan.recv,
        "send": lambda: alone.send(b"waits"),
        "send_many": lambda: alone.send_many([b"waits", b"too"]),
        "write_chan.send": lambda: alone.write_chan.send(b"waits"),
        "flush": alone.flush,
        "wait_connected": alone.wait_connected,
        "wait_closed": client.wait_closed,
        "select": lambda: na.select(client, listener, alone.read_chan),
        "accept": listener.accept,
        "accept_chan.accept": listener.accept_chan.accept,
        "iteration over connections": lambda: list(listener),
        "wait_closed of a listener": listener.wait_closed,
    }
    if sys.argv[1] == "names":
        print("|".join([*calls, "close", "shutdown"]))
        os._exit(0)

    main = threading.main_thread().native_id
    def rests():
        with open(f"/proc/self/task/{main}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"
    def interrupt(begun):
        # At rest in ten looks in a row: it waits in the kernel, and not for the interpreter's lock.
        begun.wait()
        seen = 0
        while seen < 10:
            seen = seen + 1 if rests() else 0
            time.sleep(0.0005)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def is_interrupted(call):
        begun = threading.Event()
        thread = threading.Thread(target=interrupt, args=(begun,))
        thread.start()
        try:
            begun.set()
            call()
        except KeyboardInterrupt:
            return True
        finally:
            thread.join()
        return False

    times = int(sys.argv[2])
    if sys.argv[1] == "close":
        # What is queued cannot be delivered: closing waits, and goes on after the interruption.
        assert is_interrupted(alone.close)
        assert alone.state is netasync.State.CLOSING
        alone.aio.abort()
    elif sys.argv[1] == "shutdown":
        runtime = netasync.Runtime()
        other = na.connect("127.0.0.1:1", runtime=runtime, reconnect=30, close_timeout=30)
        other.send(b"cannot be delivered")
        assert is_interrupted(lambda: runtime.blocking.shutdown(timeout=600))
        other.aio.abort()
        runtime.blocking.shutdown()
        alone.aio.abort()
    else:
        for _ in range(times):
            assert is_interrupted(calls[sys.argv[1]])
        assert alone.aio.stats().accepted == 1
        alone.aio.abort()
    # Nothing was lost, and everything goes on.
    served.send(b"down")
    client.send(b"up")
    assert (client.recv(timeout=30), served.recv(timeout=30)) == (b"down", b"up")
    client.aio.close(); served.close()
    second = na.connect(listener.address)
    third = listener.accept(timeout=30)
    second.aio.close(); third.close(); listener.close()
    assert isinstance(alone.wait_closed(timeout=30), netasync.Closed)
"""

CALLS = [
    "recv",
    "recv with a timeout",
    "recv_many",
    "iteration",
    "messages",
    "read_chan.recv",
    "send",
    "send_many",
    "write_chan.send",
    "flush",
    "wait_connected",
    "wait_closed",
    "select",
    "accept",
    "accept_chan.accept",
    "iteration over connections",
    "wait_closed of a listener",
    "close",
    "shutdown",
]


@pytest.mark.parametrize("count", counts(3, 100))
@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_interrupts_every_blocking_call_and_leaves_the_handle_usable(call, count):
    run_script(INTERRUPTED, call, str(count), timeout=DEADLINE + count)


def test_every_blocking_call_has_its_interruption():
    assert run_script(INTERRUPTED, "names", "0").strip().split("|") == CALLS


def test_ctrl_c_stops_an_asyncio_program_in_the_middle_of_a_wait():
    run_script("""
        import asyncio, os, signal, netasync
        async def main():
            async with netasync.listen(0) as listener, netasync.connect(listener.address) as client:
                async with await listener.accept() as served:
                    await client.recv()
                    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
                    await client.recv()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """)


# A busy program is silent in dev mode, with asyncio's debug mode and every warning an error.

BUSY = """
    import asyncio, gc, sys, threading
    import netasync
    from netasync import Backoff, Buffer

    async def serve(listener, conns):
        async for conn in listener:
            conns.append(asyncio.ensure_future(echo(conn)))

    async def echo(conn):
        async with conn:
            async for item in conn:
                if isinstance(item, bytes):
                    await conn.send(item)

    async def ask(address, number):
        async with netasync.connect(address, write_buffer=Buffer.fixed(8), reconnect=0.01) as conn:
            await conn.wait_connected()
            for nth in range(50):
                data = b"%d %d" % (number, nth)
                await conn.send(data)
                while True:
                    task = asyncio.ensure_future(conn.recv())
                    for _ in range(nth % 4):
                        await asyncio.sleep(0)
                    if nth % 3 == 0:
                        task.cancel()
                    try:
                        item = await task
                    except asyncio.CancelledError:
                        nth += 1
                        continue
                    if isinstance(item, bytes):
                        assert item == data, (item, data)
                        break
            await conn.send_many(bytes(10_000) for _ in range(100))
            await conn.flush()
            got = 0
            async for data in conn.messages():
                got += len(data)
                if got == 1_000_000:
                    break

    def ask_in_a_thread(address):
        with netasync.connect(address).blocking as conn:
            for number in range(50):
                conn.send(b"%d" % number)
            assert isinstance(conn.recv(timeout=30), netasync.Connected)
            assert [conn.recv(timeout=30) for _ in range(50)] == [b"%d" % number for number in range(50)]

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 600  # a slow machine is none of this test's business
        async with netasync.listen(0) as listener:
            conns = []
            serving = asyncio.ensure_future(serve(listener, conns))
            async with netasync.connect("127.0.0.1:1", reconnect=Backoff(initial=0.01)) as nowhere:
                await nowhere.recv()
                thread = loop.run_in_executor(None, ask_in_a_thread, listener.address)
                await asyncio.gather(thread, *(ask(listener.address, number) for number in range(8)))
                nowhere.abort()
        await serving
        await asyncio.gather(*conns)

    complaints = []
    def hook(unraisable):
        complaints.append(unraisable)
    sys.unraisablehook = hook
    if sys.argv[1] == "uvloop":
        import uvloop
        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    gc.collect()
    assert not complaints, complaints
    print("done", threading.active_count())
"""


def test_a_busy_program_is_silent_in_dev_mode_and_asyncios_debug_mode(loop_name):
    assert run_script(BUSY, loop_name).split() == ["done", "1"]


# Dropped handles

#: A close as the other end sees it: on the original's wire, which knows no goodbye, the end of the stream.
BY_PEER = {Reason.EOF, Reason.CLOSED_BY_PEER}

IN_A_CYCLE = """
    import gc, sys, warnings
    import netasync, netasync.blocking as na
    warnings.simplefilter("always")
    seen = []
    warnings.showwarning = lambda message, *_, **__: seen.append(str(message))

    class Holder:
        pass

    with na.listen(0) as listener:
        holder = Holder()
        holder.itself = holder
        holder.conn = na.connect(listener.address)
        served = listener.accept()
        holder.conn.send(b"last words")
        served.recv(timeout=30)
        del holder
        gc.collect()
        assert seen == ["a netasync connection was dropped without close()"], seen
        assert served.recv(timeout=30) == b"last words"
        assert served.recv(timeout=30).reason is netasync.Reason.CLOSED_BY_PEER
"""


def test_the_collector_closes_a_handle_that_is_part_of_a_cycle():
    run_script(IN_A_CYCLE)


async def test_a_handle_dropped_in_another_thread_is_closed_with_a_resource_warning(world):
    listener = world.listen(0)
    held = [world.connect(listener.address, watch=False)]
    served = await world.accept(listener)
    await world.up(served)
    warned = []

    def drop():
        with pytest.warns(ResourceWarning, match="without close") as caught:
            held.clear()
            gc.collect()
        warned.extend(caught)

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert len(warned) == 1
    assert (await world.end(served)).reason in BY_PEER


@pytest.mark.faces("asyncio", "uvloop")
async def test_a_task_that_waits_keeps_its_handle_alive(world):
    listener = world.listen(0)
    conn = world.connect(listener.address, watch=False)
    served = await world.accept(listener)
    await world.up(served)

    async def receive(conn):
        await conn.recv()
        data = await conn.recv()
        await conn.aclose()
        return data

    receiving = asyncio.ensure_future(receive(conn))
    await world.settle(receiving)
    del conn
    gc.collect()  # a ResourceWarning would be an error here
    await world.send(served, b"still there")
    assert await receiving == b"still there"


async def test_dropped_handles_leave_no_descriptor(world):
    listener = world.listen(0)
    for _ in range(20):
        conn = world.connect(listener.address, watch=False)
        served = await world.accept(listener)
        await world.up(served)
        with pytest.warns(ResourceWarning):
            del conn
            gc.collect()
        assert (await world.end(served)).reason in BY_PEER
        assert blocking(served).wait_closed(timeout=DEADLINE).reason in BY_PEER
