"""Without a descriptor or a thread to be had: an OSError at the call, or the call works; no handle ends."""

import pytest

from support.process import run_script

#: From `no_descriptors` to `descriptors` the process can open nothing; `become_nobody` gives such a pair for
#: threads.
LIMITS = """
    import asyncio, errno, os, resource, socket, sys, threading, time, warnings
    import netasync, netasync.blocking as na

    def limiter(kind, number):
        before, hard = resource.getrlimit(kind)
        limit = lambda soft: resource.setrlimit(kind, (soft, hard))
        return (lambda: limit(number)), (lambda: limit(before))

    # The first three are open, and stay so; `poll` is given three at most.
    no_descriptors, descriptors = limiter(resource.RLIMIT_NOFILE, 3)

    def become_nobody():
        # No limit of threads holds for root.
        if os.getuid() == 0:
            os.setgid(65534), os.setuid(65534)
        return limiter(resource.RLIMIT_NPROC, 1)

    def refused(call, *args, number, **options):
        try:
            call(*args, **options)
        except OSError as problem:
            assert problem.errno == number, repr(problem)
        else:
            raise AssertionError(f"{call} works")

    def take(conn, kind):
        item = conn.recv(timeout=30)
        assert isinstance(item, kind), item
        return item
"""


def test_a_runtime_that_gets_no_descriptor_is_an_oserror_at_the_call_and_the_next_call_works():
    run_script(
        LIMITS
        + """
    no_descriptors()
    refused(na.connect, "127.0.0.1:1", number=errno.EMFILE)
    refused(netasync.connect, "127.0.0.1:1", number=errno.EMFILE)
    refused(na.listen, 0, number=errno.EMFILE)
    descriptors()
    with na.listen(0) as listener, na.connect(listener.address) as conn:
        take(conn, netasync.Connected)
        no_descriptors()
        refused(na.listen, 0, number=errno.EMFILE)
        descriptors()
    """
    )


def test_a_runtime_that_gets_no_thread_is_an_oserror_at_the_call_and_the_next_call_works():
    run_script(
        LIMITS
        + """
    no_threads, threads = become_nobody()
    no_threads()
    refused(na.connect, "127.0.0.1:1", number=errno.EAGAIN)
    refused(netasync.connect, "127.0.0.1:1", number=errno.EAGAIN)
    refused(na.listen, 0, number=errno.EAGAIN)
    threads()
    with na.listen(0) as listener, na.connect(listener.address) as conn:
        take(conn, netasync.Connected)
    """
    )


@pytest.mark.parametrize("wire", ["netasync", "net.async"])
def test_a_living_dialler_without_a_descriptor_waits_and_goes_on(wire):
    run_script(
        LIMITS
        + """
    listener = na.listen(0, protocol=sys.argv[1])
    conn = na.connect(listener.address, protocol=sys.argv[1], reconnect=0.02)
    take(conn, netasync.Connected)
    served = listener.accept(timeout=30)
    take(served, netasync.Connected)
    no_descriptors()
    served.aio.abort()
    down = take(conn, netasync.Disconnected)
    attempts = conn.stats().attempts
    while conn.stats().attempts < attempts + 3:
        time.sleep(0.01)
    assert conn.state is netasync.State.DISCONNECTED, conn
    descriptors()
    take(conn, netasync.Connected)
    conn.send(b"on")
    again = listener.accept(timeout=30)
    take(again, netasync.Connected)
    assert again.recv(timeout=30) == b"on"
    conn.aio.abort(), again.aio.abort(), listener.close()
    """,
        wire,
    )


def test_a_dial_without_a_descriptor_names_the_systems_words():
    run_script(
        LIMITS
        + """
    with na.listen(0) as listener:
        no_descriptors()
        conn = na.connect(listener.address, reconnect=0.02)
        down = take(conn, netasync.Disconnected)
        assert (down.reason, down.detail) == (netasync.Reason.UNREACHABLE, "too many open files"), down
        assert down.retry_in == 0.02
        descriptors()
        take(conn, netasync.Connected)
        conn.aio.abort()
    """
    )


def test_a_lookup_without_a_thread_is_one_failed_attempt_and_the_next_one_works():
    run_script(
        LIMITS
        + """
    with na.listen(0) as listener:
        port = listener.address.rpartition(":")[2]
        no_threads, threads = become_nobody()
        no_threads()
        conn = na.connect(f"localhost:{port}", reconnect=0.02)
        down = take(conn, netasync.Disconnected)
        assert down.reason is netasync.Reason.NAME_LOOKUP_FAILED, down
        assert down.detail == "resource temporarily unavailable", down
        attempts = conn.stats().attempts
        while conn.stats().attempts < attempts + 3:
            time.sleep(0.01)
        threads()
        take(conn, netasync.Connected)
        conn.aio.abort()
    """
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_that_gets_no_wake_descriptor_accepts_and_receives_all_the_same(loop):
    pytest.importorskip(loop)
    run_script(
        LIMITS
        + """
    import importlib
    loop = importlib.import_module(sys.argv[1]).new_event_loop()
    runtime = netasync.Runtime()
    listener = netasync.listen(0, protocol="net.async", runtime=runtime)
    host, port = listener.address.split(":")
    raw = socket.socket()

    async def main():
        got = []

        async def serve():
            async for conn in listener:
                got.extend([await conn.recv(), await conn.recv()])
                conn.abort()
                return

        no_descriptors()
        serving = asyncio.ensure_future(serve())
        await asyncio.sleep(0.05)  # it waits, and nothing can wake this loop
        assert not serving.done()
        raw.connect((host, int(port)))
        raw.sendall(b"\\0\\0\\0\\2hi")
        descriptors()
        await asyncio.wait_for(serving, 30)
        assert isinstance(got[0], netasync.Connected) and got[1] == b"hi", got
        listener.close()
        await runtime.shutdown()

    with raw:
        loop.run_until_complete(main())
    loop.close()
    """,
        loop,
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_task_receives_while_no_descriptor_can_be_had(loop):
    pytest.importorskip(loop)
    run_script(
        LIMITS
        + """
    import importlib
    loop = importlib.import_module(sys.argv[1]).new_event_loop()
    listener = na.listen(0)
    client = na.connect(listener.address)
    served = listener.accept(timeout=30)
    take(client, netasync.Connected), take(served, netasync.Connected)

    async def main():
        no_descriptors()
        conn = served.aio
        for number in range(20):
            receiving = asyncio.ensure_future(conn.recv())
            await asyncio.sleep(0)
            assert client.aio.send_nowait(b"%d" % number)
            assert await asyncio.wait_for(receiving, 30) == b"%d" % number
            cancelled = asyncio.ensure_future(conn.recv())
            await asyncio.sleep(0)
            cancelled.cancel()
        closing = asyncio.ensure_future(client.aio.wait_closed())
        client.aio.close()
        assert (await asyncio.wait_for(closing, 30)).reason is netasync.Reason.CLOSED_HERE
        descriptors()

    loop.run_until_complete(main())
    loop.close()
    listener.close(), served.aio.abort()
    """,
        loop,
    )


def test_a_thread_waits_while_no_descriptor_can_be_had():
    run_script(
        LIMITS
        + """
    listener = na.listen(0)
    client = na.connect(listener.address)
    served = listener.accept(timeout=30)
    take(client, netasync.Connected), take(served, netasync.Connected)
    got = []

    def receive():
        # This thread has not waited before: it has no descriptor of its own.
        for item in served:
            got.append(item)

    def accept():
        got.append(listener.accept())

    no_descriptors()
    receiving, accepting = threading.Thread(target=receive), threading.Thread(target=accept)
    receiving.start(), accepting.start()
    for number in range(20):
        client.send(b"%d" % number, timeout=30, confirm="consumed")
    try:
        netasync.blocking.select(client, timeout=0.05)
    except TimeoutError:
        pass
    client.close(timeout=30)
    listener.close(timeout=30)
    receiving.join(30), accepting.join(30)
    assert got[:20] == [b"%d" % number for number in range(20)], got
    assert {type(item) for item in got[20:]} == {netasync.Closed}, got
    """
    )


def test_a_forked_child_without_a_descriptor_leaves_its_parents_links_alone():
    run_script(
        LIMITS
        + """
    warnings.simplefilter("ignore")
    listener = na.listen(0)
    client = na.connect(listener.address)
    served = listener.accept(timeout=30)
    take(client, netasync.Connected), take(served, netasync.Connected)
    no_descriptors()
    child = os.fork()
    if child == 0:
        refused(na.connect, "127.0.0.1:1", number=errno.EMFILE)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    client.send(b"still", timeout=30)
    assert served.recv(timeout=30) == b"still"
    descriptors()
    client.aio.abort(), served.aio.abort(), listener.close()
    """
    )


def test_the_limit_of_threads_holds_here():
    run_script(
        LIMITS
        + """
    no_threads, threads = become_nobody()
    no_threads()
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        pass
    else:
        raise AssertionError("threads start all the same, so that the tests above show nothing")
    """
    )
