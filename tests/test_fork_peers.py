"""What the parent and its peers notice of a forked child: nothing. And what its own links are worth."""

import signal
import subprocess
import sys
import textwrap

import pytest

from support.counts import counts
from support.faces import FACES
from support.forking import forks, program
from support.waiting import DEADLINE
from support.wires import ORIGINAL


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request):
    if request.param not in FACES:
        pytest.skip(f"{request.param} is not installed")
    return request.param


#: One link to the peer outside; the children do what the test says.
LINKED = """
    conn = na.connect(sys.argv[1], protocol="net.async")
    conn.wait_connected()
    served = na.listen(0)
    conn.send(b"before")
"""

LEAVING = {
    "os._exit": "os._exit(3)",
    "sys.exit": "sys.exit(3)",
    "an error": "raise SystemExit(3)",
    "an error behind a collection": "del conn, served; gc.collect(); sys.exit(3)",
    "a handler at exit": "import atexit; atexit.register(lambda: echoed(b'x')); sys.exit(3)",
    "links of its own": "echoed(b'x'); sys.exit(3)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
}


@ORIGINAL
@pytest.mark.faces("asyncio")
@pytest.mark.parametrize("leaving", sorted(LEAVING))
async def test_a_peer_hears_nothing_of_a_child_however_that_ends(world, leaving):
    server = world.raw_listener()
    status = -signal.SIGKILL if leaving == "killed" else 3
    script = f"""
        if (child := os.fork()) == 0:
            signal.alarm(60)
            {LEAVING[leaving]}
        assert ended(child) == {int(status)}
        conn.send(b"after")
        conn.flush()
        print("flushed")
        assert conn.recv() and conn.recv() == b"go"
        conn.close()
        served.close()
    """
    text = textwrap.dedent(LINKED) + textwrap.dedent(script)
    forking = world.spawn(world.outside(lambda: forks(text, server.address)))
    peer = await world.outside(server.accept)
    assert await world.outside(peer.recv_many, 2) == [b"before", b"after"]
    peer.send(b"go")
    assert await world.outside(peer.recv_to_end) == (b"", "eof")
    peer.close()
    await world.join(forking)


@ORIGINAL
@pytest.mark.faces("asyncio")
async def test_what_the_parent_has_queued_goes_out_once_though_a_child_flushes_at_its_exit(world):
    server = world.raw_listener(receive_buffer=4096)
    script = """
        for number in range(100):
            conn.send(b"%d " % number + bytes(100_000))
        if (child := os.fork()) == 0:
            sys.exit(0)
        assert ended(child) == 0
        print("forked")
        conn.flush()
        conn.aio.close()
        served.close()
        conn.wait_closed()
    """
    text = textwrap.dedent(LINKED) + textwrap.dedent(script)
    forking = world.spawn(world.outside(lambda: forks(text, server.address)))
    peer = await world.outside(server.accept)
    received = await world.outside(peer.messages_to_end)
    peer.close()
    assert [data.split()[0] for data in received] == [b"before", *(b"%d" % n for n in range(100))]
    await world.join(forking)


@ORIGINAL
@pytest.mark.faces("asyncio")
async def test_a_child_that_lives_on_holds_neither_links_nor_ports_of_a_parent_that_is_killed(world):
    server = world.raw_listener()
    script = """
        def child():
            kinds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]]
            assert not any(kind.startswith("socket:") for kind in kinds), kinds
            print(os.getpid(), served_at, flush=True)
            sys.stdin.read()
        served_at = served.address
        conn.wait_connected()
        fork(child)
        conn.recv(), conn.recv()
    """
    command = [sys.executable, "-X", "dev", "-c", program(LINKED, script), server.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        peer = await world.outside(server.accept)
        assert await world.outside(peer.recv) == b"before"
        child, address = (await world.outside(parent.stdout.readline)).split()
        parent.kill()
        # The child still lives, and waits for the end of its input.
        assert (await world.outside(peer.recv_to_end))[0] == b""
        again = world.listen(address)
        assert again.address == address
        with open(f"/proc/{child}/cmdline") as line:
            assert "fork" in line.read()


@pytest.mark.parametrize("count", counts(20, 1000))
def test_forks_in_the_middle_of_traffic_disturb_nothing_and_their_children_work(count):
    forks(
        """
        # Tasks, threads that send and receive detached, dials, and a loop in a thread.
        pairs = [pair() for _ in range(3)]
        flapping = na.connect("127.0.0.1:1", reconnect=0.001)
        over = threading.Event()
        problems = []
        def pump(one, other, many):
            try:
                sent = 0
                while not over.is_set():
                    batch = [b"%d" % number + b"x" * many for number in range(sent, sent + 10)]
                    one.send_many(batch)
                    got = []
                    while len(got) < 10:
                        got += other.recv_many(10, timeout=60)
                    assert got == batch, (got, batch)
                    sent += 10
            except BaseException as problem:
                problems.append(problem)
                raise
        def in_a_loop(one):
            async def ask():
                asyncio.get_running_loop().slow_callback_duration = 600  # none of this test's business
                listener = netasync.listen(0)
                while not over.is_set():
                    conn = netasync.connect(listener.address)
                    served = await listener.accept()
                    await conn.recv(), await served.recv()
                    await conn.send(b"x")
                    assert await served.recv() == b"x"
                    conn.abort(), served.abort()
                await listener.aclose()
            try:
                asyncio.run(ask())
            except BaseException as problem:
                problems.append(problem)
                raise
        threads = [threading.Thread(target=in_a_loop, args=(None,))]
        for client, served, _ in pairs:
            threads.append(threading.Thread(target=pump, args=(client, served, 10)))
            threads.append(threading.Thread(target=pump, args=(served, client, 5000)))
        for thread in threads:
            thread.start()
        def child():
            try:
                pairs[0][0].send(b"never")
            except netasync.ForkedError:
                pass
            echoed(b"mine")
            gc.collect()
            netasync._native.flush_at_exit()
        for _ in range(int(sys.argv[1])):
            assert ended(fork(child)) == 0
        over.set()
        for thread in threads:
            thread.join()
        assert not problems, problems
        for client, served, listener in pairs:
            client.aio.abort(), served.aio.abort(), listener.close()
        flapping.aio.abort()
    """,
        str(count),
        timeout=DEADLINE * 2 + count,
    )


def test_children_of_children_open_their_own_links_too():
    forks("""
        client, served, listener = pair()
        def grandchild(of_parent, of_child):
            for handle in (of_parent, of_child):
                try:
                    handle.recv()
                except netasync.ForkedError:
                    continue
                raise AssertionError(handle)
            echoed(b"grandchild")
        def child():
            mine, other, own = pair()
            assert ended(fork(lambda: grandchild(client, mine))) == 0
            mine.send(b"goes on")
            assert other.recv(timeout=30) == b"goes on"
            mine.aio.close(), other.close(), own.close()
        assert ended(fork(child)) == 0
        client.send(b"goes on")
        assert served.recv(timeout=30) == b"goes on"
        client.aio.close(), served.close(), listener.close()
    """)


def test_a_child_with_a_loop_of_its_own_works_with_it(loop_name):
    forks(
        """
        def new_loop():
            if sys.argv[1] == "uvloop":
                import uvloop
                return uvloop.new_event_loop()
            return asyncio.new_event_loop()
        async def talk():
            async with netasync.listen(0) as listener, netasync.connect(listener.address) as client:
                async with await listener.accept() as served:
                    await served.recv(), await client.recv()
                    receiving = asyncio.ensure_future(served.recv())
                    await asyncio.sleep(0)
                    await client.send(b"hello")
                    assert await receiving == b"hello"
                    client.close()
        def child():
            loop = new_loop()
            loop.run_until_complete(talk())
            loop.close()
        first = new_loop()
        first.run_until_complete(talk())
        assert ended(fork(child)) == 0
        first.run_until_complete(talk())
        async def forks_inside():
            children = [fork(child) for _ in range(3)]
            assert [ended(each) for each in children] == [0, 0, 0]
            await talk()
        first.run_until_complete(forks_inside())
        first.close()
    """,
        loop_name,
    )


# The standard library's ways to start a process


WORKERS = """
    import multiprocessing, os, sys, warnings
    import netasync, netasync.blocking as na

    def work(address, number):
        told = False
        if inherited is not None:
            try:
                inherited.send(b"never")
            except netasync.ForkedError:
                told = True
        with na.connect(address) as conn:
            conn.send(b"%d" % number)
            while not isinstance(conn.recv(timeout=30), bytes):
                pass
            conn.aio.abort()
        return told, netasync.Closed.__name__

    inherited = None

    if __name__ == "__main__":
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        listener = na.listen(0)
        inherited = na.connect(listener.address)
        served = listener.accept()
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            results = [pool.apply_async(work, (listener.address, number)) for number in range(4)]
            for _ in results:
                worker = listener.accept(timeout=60)
                while not isinstance(data := worker.recv(timeout=30), bytes):
                    pass
                worker.send(data)
                worker.close()
            told = [result.get(60)[0] for result in results]
            pool.close()
            pool.join()
        assert told == [sys.argv[1] == "fork"] * 4, told
        inherited.send(b"goes on")
        served.recv(timeout=30)
        assert served.recv(timeout=30) == b"goes on"
        inherited.aio.close(), served.close(), listener.close()
        print("done")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_multiprocessing_have_links_of_their_own(method, tmp_path):
    program = tmp_path / "workers.py"
    program.write_text(textwrap.dedent(WORKERS))
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(program), method],
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_programs_that_are_started_beside_live_links_disturb_nothing():
    forks("""
        import subprocess
        client, served, listener = pair()
        for options in ({}, {"preexec_fn": lambda: None}, {"close_fds": False}):
            subprocess.run([sys.executable, "-c", "pass"], check=True, **options)
        client.send(b"goes on")
        assert served.recv(timeout=30) == b"goes on"
        client.aio.close(), served.close(), listener.close()
    """)
