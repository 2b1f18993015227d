"""What is left of handles that are gone: nothing. And what shutting down does to those that are busy."""

import importlib.util

import pytest

from support.counts import counts
from support.faces import FACES
from support.process import run_script
from support.waiting import DEADLINE


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request):
    if request.param not in FACES:
        pytest.skip(f"{request.param} is not installed")
    return request.param


# Memory, descriptors and threads

#: One cycle of each kind, again and again, with every byte counted: all memory comes from malloc, and none
#: is kept in a thread's cache.
CYCLES = """
    import asyncio, ctypes, gc, os, socket, struct, sys, threading, time, warnings
    import netasync, netasync.blocking as na

    warnings.simplefilter("ignore", ResourceWarning)  # many a cycle is about handles that are dropped

    class Mallinfo(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo

    def held():
        # Some of the dials reached the listener after all, or did so again.
        while listener.stats().waiting:
            listener.accept_nowait().aio.abort()
        gc.collect()
        info = mallinfo2()
        return info.uordblks + info.hblkhd

    def counted():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    def new_loop():
        if sys.argv[2] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.set_debug(False)
        return loop

    listener = na.listen(0)
    # Shows a dial before its dialler has said anything.
    eager = na.listen(0, protocol="net.async")
    kept_loop = new_loop()

    def up():
        # One dial and no second: whoever is accepted is this one.
        client = na.connect(listener.address, reconnect=None)
        served = listener.accept(timeout=30)
        assert isinstance(client.recv(timeout=30), netasync.Connected)
        assert isinstance(served.recv(timeout=30), netasync.Connected)
        return client, served

    def connected_and_closed():
        client, served = up()
        client.send(b"x")
        assert served.recv(timeout=30) == b"x"
        client.aio.close(), served.close(), client.close()

    def aborted():
        client, served = up()
        client.aio.abort(), served.aio.abort()

    def dropped():
        client, served = up()
        del client
        served.close()

    def dropped_in_a_cycle():
        class Holder:
            pass
        holder = Holder()
        holder.itself = holder
        holder.client, served = up()
        del holder
        served.aio.abort()

    def dropped_with_messages_on_both_sides():
        client, served = up()
        client.send_many([bytes(1000)] * 10)
        served.send_many([bytes(1000)] * 10)

    def dropped_listener():
        na.listen(0)

    def dropped_unaccepted():
        client = na.connect(eager.address, protocol="net.async")
        assert isinstance(client.recv(timeout=30), netasync.Connected)
        client.aio.abort()
        eager.accept(timeout=30)

    def refused():
        na.connect("127.0.0.1:1", reconnect=None).wait_closed(timeout=30)

    def refused_and_aborted():
        client = na.connect("127.0.0.1:1")
        assert isinstance(client.recv(timeout=30), netasync.Disconnected)
        client.aio.abort()

    def given_up_while_dialling():
        na.connect(listener.address).aio.abort()

    def listened():
        na.listen(0).close()

    def reset_before_the_first_byte():
        host, port = eager.address.split(":")
        peer = socket.create_connection((host, int(port)))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        eager.accept(timeout=30).close()

    def cancelled():
        async def main():
            conn = netasync.connect("127.0.0.1:1")
            waits = [asyncio.ensure_future(each) for each in (conn.wait_connected(), conn.recv())]
            await asyncio.sleep(0)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            conn.abort()
        kept_loop.run_until_complete(main())

    def with_a_loop_of_its_own():
        async def main():
            async with netasync.connect(listener.address, reconnect=None) as conn:
                served = listener.accept(timeout=30)
                assert isinstance(await conn.recv(), netasync.Connected)
                served.send(b"x")
                assert await conn.recv() == b"x"
                served.aio.close()
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()

    def left_waiting_by_a_loop_that_was_closed():
        async def main():
            conn = netasync.connect(listener.address, reconnect=None)
            served = listener.accept(timeout=30)
            assert isinstance(await conn.recv(), netasync.Connected)
            global waiting
            waiting = asyncio.ensure_future(conn.recv())
            await asyncio.sleep(0)
            served.aio.abort()
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        global waiting
        del waiting

    def with_a_thread_that_waits():
        client, served = up()
        thread = threading.Thread(target=client.recv)
        thread.start()
        served.aio.abort()
        thread.join()
        client.aio.abort()

    def with_a_runtime_of_its_own():
        runtime = netasync.Runtime()
        own = na.listen(0, runtime=runtime)
        client = na.connect(own.address, runtime=runtime, reconnect=None)
        assert isinstance(client.recv(timeout=30), netasync.Connected)
        runtime.blocking.shutdown()

    if sys.argv[1] == "names":
        import types
        made = [name for name, each in globals().items() if isinstance(each, types.FunctionType)]
        print(*made[made.index("connected_and_closed"):])
        listener.close(), eager.close()
        kept_loop.close()
        sys.exit()

    cycle, count = globals()[sys.argv[1]], int(sys.argv[3])
    allowed = 64 * count + 32 * 1024  # tables grow by more than one cycle needs

    def grown():
        '''Bytes and things that `count` cycles leave, once nothing more is on its way.'''
        before, things = held(), counted()
        for _ in range(count):
            cycle()
        give_up = time.monotonic() + 1
        while ((more := held() - before) > allowed or counted() > things) and time.monotonic() < give_up:
            time.sleep(0.01)
        return more, [now - then for now, then in zip(counted(), things)]

    # What is made once (a thread's read buffer, a table that grows) is seen once; a leak is seen every time.
    seen = []
    while not seen or seen[-1][0] > allowed or max(seen[-1][1]) > 0:
        assert len(seen) < 8, f"after {count} cycles each: {seen}"
        seen.append(grown())
    print(f"{sys.argv[1]} on {sys.argv[2]}: {seen[-1][0] / count:.0f} bytes for each of {count} cycles")
    listener.close(), eager.close()
    kept_loop.close()
"""

CYCLE_NAMES = [
    "connected_and_closed",
    "aborted",
    "dropped",
    "dropped_in_a_cycle",
    "dropped_with_messages_on_both_sides",
    "dropped_listener",
    "dropped_unaccepted",
    "refused",
    "refused_and_aborted",
    "given_up_while_dialling",
    "listened",
    "reset_before_the_first_byte",
    "cancelled",
    "with_a_loop_of_its_own",
    "left_waiting_by_a_loop_that_was_closed",
    "with_a_thread_that_waits",
    "with_a_runtime_of_its_own",
]

#: These have a loop.
ON_LOOPS = {"cancelled", "with_a_loop_of_its_own", "left_waiting_by_a_loop_that_was_closed"}

COUNTING = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}


@pytest.mark.parametrize("count", counts(300, 10_000))
@pytest.mark.parametrize("cycle", CYCLE_NAMES)
def test_a_handle_that_is_gone_leaves_no_memory_descriptor_or_thread(cycle, count):
    limit = DEADLINE * 2 + count * 0.2
    for loop in ("asyncio", "uvloop") if cycle in ON_LOOPS else ("asyncio",):
        if loop in FACES:
            print(run_script(CYCLES, cycle, loop, str(count), timeout=limit, environment=COUNTING))


def test_every_cycle_is_run():
    assert run_script(CYCLES, "names", "asyncio").split() == CYCLE_NAMES


# The collector

#: A loop that is closed over its tasks and kept: they will never run, and nothing else needs what they hold.
CLOSED_OVER = """
    import asyncio, gc, sys, warnings
    import netasync, netasync.blocking as na
    warnings.simplefilter("always")
    seen, complaints = [], []
    warnings.showwarning = lambda message, *_, **__: seen.append(str(message))

    async def main():
        conn = netasync.connect(listener.address, protocol="net.async")
        assert isinstance(await conn.recv(), netasync.Connected)
        full = netasync.connect("127.0.0.1:1", write_buffer=1)
        await full.send(b"fills the buffer")
        waits = conn.recv(), conn.recv_many(3), conn.wait_closed(), full.send(b"waits"), full.flush()
        tasks = [asyncio.get_running_loop().create_task(each) for each in waits]
        await asyncio.sleep(0)

    if sys.argv[1] == "uvloop":
        import uvloop
        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    with na.listen(0, protocol="net.async") as listener:
        loop.run_until_complete(main())
        served = listener.accept(timeout=30)
        assert isinstance(served.recv(timeout=30), netasync.Connected)
        gc.collect()
        assert not seen and not complaints, (seen, complaints)  # tasks that wait keep what they wait for
        loop.close()
        gc.collect()
        assert seen == ["a netasync connection was dropped without close()"] * 2, seen
        assert complaints == ["Task was destroyed but it is pending!"] * 5, complaints
        assert served.recv(timeout=30).reason is netasync.Reason.EOF
    assert loop.is_closed()
"""


def test_a_closed_loop_that_is_kept_keeps_no_connection_alive(loop_name):
    run_script(CLOSED_OVER, loop_name)


def test_a_handle_dropped_as_an_exception_passes_lets_it_pass():
    run_script("""
        import sys, netasync.blocking as na
        told = []
        sys.unraisablehook = lambda unraisable: told.append(unraisable.exc_type)
        for make in (lambda: na.connect("127.0.0.1:1"), lambda: na.listen(0)):
            for _ in range(3):
                try:
                    [make(), 1 / 0]
                except ZeroDivisionError:
                    continue
                raise AssertionError("it did not pass")
        assert told == [ResourceWarning] * 6, told
    """)


# Interpreters

#: A sub-interpreter that shares everything with the main one, and what it is told.
IN_TWO_INTERPRETERS = """
    import sys
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters

    IMPORT = '''if True:
        try:
            import netasync
        except ImportError as refused:
            assert "does not support loading in subinterpreters" in str(refused), refused
        else:
            raise AssertionError("it shares the classes of the main interpreter")
    '''

    def in_another(kind):
        if kind == "isolated":
            another = interpreters.create()
        else:
            try:
                another = interpreters.create(isolated=False)
            except TypeError:
                another = interpreters.create("legacy")
        problem = interpreters.run_string(another, IMPORT)
        assert problem is None, problem
        interpreters.destroy(another)

    def in_main():
        import netasync, netasync.blocking as na
        with na.listen(0) as listener, na.connect(listener.address) as client:
            with listener.accept(timeout=30) as served:
                assert isinstance(served.recv(timeout=30), netasync.Connected)
                client.send(b"x")
                assert served.recv(timeout=30) == b"x"

    for step in sys.argv[1:]:
        in_main() if step == "main" else in_another(step)
"""


@pytest.mark.parametrize("kind", ["legacy", "isolated"])
@pytest.mark.parametrize("order", ["{0} main {0} main", "main {0} {0} main"])
def test_a_sub_interpreter_gets_an_import_error_and_the_main_one_goes_on(kind, order):
    if not any(importlib.util.find_spec(name) for name in ("_interpreters", "_xxsubinterpreters")):
        pytest.skip("this Python makes no sub-interpreters")
    run_script(IN_TWO_INTERPRETERS, *order.format(kind).split(), environment={"PYTHONWARNINGS": "default"})


def test_the_main_interpreter_may_import_again_and_reload_and_so_may_a_forked_child():
    run_script("""
        import importlib, os, sys, netasync, netasync.blocking

        def works(package):
            listener = package.blocking.listen(0)
            listener.close()

        def anew():
            for name in [name for name in sys.modules if name.partition(".")[0] == "netasync"]:
                del sys.modules[name]
            return importlib.import_module("netasync")

        works(netasync)
        works(importlib.reload(netasync))
        works(anew())
        child = os.fork()
        if not child:
            works(anew())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        works(netasync)
    """)
