"""How processes end: in every way there is, with live links and waiters, within bounds and in silence."""

import signal
import subprocess
import sys
import textwrap

import pytest

from support.counts import counts
from support.faces import FACES
from support.process import run_script
from support.waiting import DEADLINE
from support.wires import ORIGINAL

LOOPS = ["asyncio", "uvloop"]

#: Words with which an interpreter or a Rust core says that it broke.
BROKEN = ("Fatal Python error", "panicked", "Segmentation", "never retrieved", "deadlock")


def ends(text, *arguments, status=0):
    """Run a program that may leave handles open; it must end by itself, with this status, unbroken."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    report = f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == status, report
    assert not any(word in done.stderr for word in BROKEN), report
    return done


@pytest.fixture(params=LOOPS)
def loop_name(request):
    if request.param not in FACES:
        pytest.skip(f"{request.param} is not installed")
    return request.param


#: A server and clients in one process, tasks and threads that wait in every way there is.
LIVELY = """
    import asyncio, os, sys, threading
    import netasync
    from atexit import register as at_exit

    async def lively(how):
        listener = netasync.listen(0)
        clients = [netasync.connect(listener.address) for _ in range(5)]
        served = [await listener.accept() for _ in clients]
        for conn in clients:
            await conn.recv()
            await conn.send(b"x" * 10_000)
        alone = netasync.connect("127.0.0.1:1", write_buffer=1)
        await alone.send(b"fills the buffer")
        waiting = [
            asyncio.ensure_future(call)
            for call in (
                clients[0].recv(), clients[0].recv(), clients[1].recv_many(5), clients[2].wait_closed(),
                listener.accept(), alone.send(b"waits for room"), alone.flush(), alone.wait_connected(),
            )
        ]
        def in_a_thread():
            try:
                clients[3].blocking.recv()
            except netasync.NetasyncError:
                pass
        threading.Thread(target=in_a_thread, daemon=True).start()
        threading.Thread(target=alone.blocking.send, args=(b"waits too",), daemon=True).start()
        await asyncio.sleep(0)
        global kept
        kept = listener, clients, served, alone, waiting
        how()

    def run(how):
        if sys.argv[1] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.run_until_complete(lively(how))
        return loop
"""

WAYS = {
    "return": (0, "run(lambda: None)"),
    "close the loop": (0, "run(lambda: None).close()"),
    "sys.exit in a task": (3, "run(lambda: sys.exit(3))"),
    "an unhandled error": (1, "run(lambda: 1 / 0)"),
    "an error in a thread": (
        0,
        "run(lambda: None); t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    ),
    "sys.exit": (4, "run(lambda: None); sys.exit(4)"),
    "os._exit": (5, "run(lambda: os._exit(5))"),
    "killed": (-signal.SIGTERM, "run(lambda: os.kill(os.getpid(), 15))"),
    "asyncio.run": (0, "asyncio.run(lively(lambda: None))"),
    "sys.exit in asyncio.run": (6, "asyncio.run(lively(lambda: sys.exit(6)))"),
    "an atexit that sends": (
        0,
        "run(lambda: None); at_exit(lambda: [conn.send_nowait(b'x') for conn in kept[1]])",
    ),
    "an atexit that waits": (
        0,
        "run(lambda: None); at_exit(lambda: kept[1][4].blocking.send_many([b'x'] * 99))",
    ),
    "an atexit that closes": (
        0,
        "run(lambda: None); at_exit(lambda: [conn.close() for conn in kept[1] + kept[2]])",
    ),
    "an atexit that fails": (0, "run(lambda: None); at_exit(lambda: 1 / 0)"),
    "an interruption": (-signal.SIGINT, "run(lambda: os.kill(os.getpid(), 2))"),
    "sys.exit in a thread": (
        0,
        "run(lambda: None); t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()",
    ),
    "a loop in a thread": (0, "t = threading.Thread(target=run, args=(lambda: None,)); t.start(); t.join()"),
    "a loop that runs on in a thread": (
        7,
        "threading.Thread(target=run, args=(threading.Event().wait,), daemon=True).start()\n"
        "while 'kept' not in globals(): pass\n"
        "sys.exit(7)",
    ),
    "a close that goes on": (0, "run(lambda: [conn.close() for conn in kept[1] + kept[2]])"),
    "a shutdown that goes on": (
        0,
        "runtime = netasync.Runtime()\n"
        "conn = netasync.connect('127.0.0.1:1', runtime=runtime, write_buffer=1)\n"
        "conn.send_nowait(b'stays'); run(lambda: asyncio.ensure_future(runtime.shutdown(600)))",
    ),
    "in a frame": (0, "def main():\n    loop = run(lambda: None)\n    mine = kept\nmain()"),
}


@pytest.mark.parametrize("count", counts(1, 50))
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_process_with_live_links_and_waiters_ends_with_its_own_status(loop_name, way, count):
    status, last = WAYS[way]
    for _ in range(count):
        ends(textwrap.dedent(LIVELY) + last + "\n", loop_name, status=status)


#: The same without a loop.
IN_THREADS = """
    import os, sys, threading
    import netasync, netasync.blocking as na
    from atexit import register as at_exit

    listener = na.listen(0)
    clients = [na.connect(listener.address) for _ in range(5)]
    served = [listener.accept() for _ in clients]
    for conn in clients:
        conn.recv()
        conn.send(b"x" * 10_000)
    alone = na.connect("127.0.0.1:1", write_buffer=1)
    alone.send(b"fills the buffer")
    waits = [
        clients[0].recv, clients[0].recv, lambda: clients[1].recv_many(5), clients[2].wait_closed,
        listener.accept, lambda: alone.send(b"waits for room"), alone.flush, alone.wait_connected,
        lambda: clients[3].recv(timeout=600),
    ]
    for wait in waits:
        threading.Thread(target=wait, daemon=True).start()
"""

WAYS_IN_THREADS = {
    "return": (0, ""),
    "sys.exit": (4, "sys.exit(4)"),
    "an unhandled error": (1, "1 / 0"),
    "os._exit": (5, "os._exit(5)"),
    "killed": (-signal.SIGTERM, "os.kill(os.getpid(), 15)"),
    "an interruption": (-signal.SIGINT, "os.kill(os.getpid(), 2); clients[4].recv()"),
    "an atexit that sends": (0, "at_exit(lambda: [conn.send(b'x', timeout=9) for conn in clients])"),
    "a close that goes on": (0, "[conn.aio.close() for conn in clients + served]"),
    "a thread that receives until its link ends": (
        0,
        "threading.Thread(target=lambda: list(clients[4])).start(); clients[4].aio.abort()",
    ),
}


@pytest.mark.parametrize("count", counts(1, 50))
@pytest.mark.parametrize("way", sorted(WAYS_IN_THREADS))
def test_a_process_whose_threads_wait_ends_with_its_own_status(way, count):
    status, last = WAYS_IN_THREADS[way]
    for _ in range(count):
        ends(textwrap.dedent(IN_THREADS) + last + "\n", status=status)


def test_an_error_that_ends_a_process_is_the_only_one_that_it_shows():
    done = ends(textwrap.dedent(LIVELY) + "run(lambda: 1 / 0)\n", "asyncio", status=1)
    assert done.stderr.count("Traceback") == 1, done.stderr


@ORIGINAL
@pytest.mark.faces("asyncio")
async def test_what_was_accepted_is_written_as_the_process_ends(world):
    server = world.raw_listener()
    script = """
        import sys, netasync.blocking as na
        conn = na.connect(sys.argv[1], protocol="net.async")
        conn.wait_connected()
        for number in range(300):
            conn.send(b"%d " % number + bytes(1000))
    """
    ending = world.spawn(world.outside(lambda: ends(script, server.address)))
    peer = await world.outside(server.accept)
    received = await world.outside(peer.messages_to_end)
    assert [int(data.split()[0]) for data in received] == list(range(300))
    await world.join(ending)


@ORIGINAL
@pytest.mark.faces("threads")
@pytest.mark.parametrize("daemon", [False, True])
async def test_a_thread_that_waits_keeps_its_process_unless_it_is_a_daemon_as_with_queue_get(world, daemon):
    server = world.raw_listener()
    script = """
        import sys, threading, netasync.blocking as na
        conn = na.connect(sys.argv[1], protocol="net.async")
        conn.recv()
        def wait():
            print(conn.recv(), flush=True)
            conn.close()
        threading.Thread(target=wait, daemon=sys.argv[2] == "True").start()
        conn.send(b"the main thread is over")
    """
    ending = world.spawn(world.outside(lambda: ends(script, server.address, str(daemon))))
    peer = await world.outside(server.accept)
    assert await world.outside(peer.recv) == b"the main thread is over"
    if not daemon:
        peer.send(b"go on")
        peer.half_close()
    assert await world.outside(peer.messages_to_end) == []
    assert (await world.join(ending)).stdout == ("" if daemon else "b'go on'\n")


@ORIGINAL
@pytest.mark.faces("asyncio")
async def test_a_peer_that_does_not_read_does_not_keep_a_process_from_ending(world):
    server = world.raw_listener(receive_buffer=4096)
    script = """
        import sys, netasync
        room = netasync.Buffer.fixed(100_000, max_bytes=2**28)
        conn = netasync.connect(sys.argv[1], write_buffer=room, protocol="net.async").blocking
        conn.wait_connected()
        for number in range(200):
            conn.send(bytes(100_000))
    """
    ending = world.spawn(world.outside(lambda: ends(script, server.address)))
    await world.outside(server.accept)
    await world.join(ending)


def test_a_handler_at_exit_may_still_send_and_close():
    done = ends("""
        import atexit, netasync.blocking as na
        listener = na.listen(0)
        client = na.connect(listener.address)
        served = listener.accept()
        def farewell():
            client.send(b"farewell")
            client.aio.close()
            items = list(served)
            assert items[1] == b"farewell" and len(items) == 3, items
            client.close(); listener.close()
            print("said")
        atexit.register(farewell)
    """)
    assert done.stdout.split() == ["said"]


def test_after_a_shutdown_the_end_of_the_process_has_nothing_to_warn_of():
    run_script("""
        import netasync
        runtime = netasync.Runtime()
        listener = netasync.listen(0, runtime=runtime)
        conns = [netasync.connect(listener.address, runtime=runtime) for _ in range(10)]
        runtime.blocking.shutdown()
        assert all(conn.state is netasync.State.CLOSED for conn in conns)
    """)
