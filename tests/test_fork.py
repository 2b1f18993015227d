"""What a forked child is told: the handles of its parent are not its own, but it may open new ones."""

import pytest

from support.faces import FACES
from support.forking import forks


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request):
    if request.param not in FACES:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_every_call_on_a_handle_of_the_parent_is_a_forked_error_in_the_child():
    forks("""
        import inspect
        client, served, listener = pair()
        runtime = netasync.Runtime()
        handles = [
            client, client.read_chan, client.write_chan, listener, listener.accept_chan, runtime.blocking,
            client.aio, client.aio.read_chan, client.aio.write_chan, listener.aio, listener.aio.accept_chan,
            runtime,
        ]
        arguments = {"recv_many": (1,), "send": (b"x",), "send_nowait": (b"x",), "send_many": ([b"x"],)}
        # These name another object for the same handle; whoever uses it is told.
        leads_on = {"read_chan", "write_chan", "accept_chan"}
        # These never change, and the child may want them: the address to dial its parent, say.
        stays = {"name", "address"}

        def touch(handle, name):
            found = getattr(handle, name)
            if name in leads_on or isinstance(found, (netasync.Runtime, na.Runtime)):
                raise netasync.ForkedError
            assert callable(found), (handle, name, found)
            outcome = found(*arguments.get(name, ()))
            if inspect.iscoroutine(outcome):
                outcome.send(None)
            elif hasattr(outcome, "__anext__"):
                outcome.__anext__().send(None)
            else:
                next(outcome)

        def child():
            for handle in handles:
                names = [name for name in dir(type(handle)) if not name.startswith("_") and name not in stays]
                assert len(names) >= 3, (handle, names)
                for name in names:
                    try:
                        touch(handle, name)
                    except netasync.ForkedError:
                        continue
                    raise AssertionError((handle, name))
            for call in (
                lambda: next(iter(client)), lambda: next(iter(listener)), lambda: client.__enter__().close(),
                lambda: netasync.connect("127.0.0.1:1", runtime=runtime),
                lambda: netasync.listen(0, runtime=runtime),
                lambda: client.recv(timeout=0.1), lambda: client.wait_closed(timeout=0),
                lambda: na.select(client), lambda: na.select(listener.accept_chan, timeout=0),
                lambda: netasync.select(client.read_chan, timeout=1).send(None),
            ):
                try:
                    call()
                except netasync.ForkedError:
                    continue
                raise AssertionError("no ForkedError")
        child = fork(child)
        for handle in (client, served):
            handle.aio.abort()
        listener.close()
        assert ended(child) == 0
    """)


def test_a_handle_of_the_parent_has_a_repr_in_the_child():
    forks("""
        client, served, listener = pair(name="mine")
        address = listener.address
        def child():
            connection = "<netasync.blocking.Connection 'mine' of the parent process>"
            assert repr(client).replace('"', "'") == connection, repr(client)
            assert repr(listener) == f"<netasync.blocking.Listener of the parent process on {address}>"
            assert repr(runtime) == "<netasync.Runtime of the parent process>"
            assert client == client and hash(client) and client.read_chan == client.read_chan
        runtime = netasync.Runtime()
        assert ended(fork(child)) == 0
        client.aio.abort(), served.close(), listener.close()
    """)


def test_what_never_changes_about_a_handle_can_be_read_in_a_forked_child():
    forks("""
        client, served, listener = pair(name="mine")
        address = listener.address
        def child():
            for each in (listener, listener_aio):
                assert (each.address, each.name) == (address, None)
            for each in (client, client_aio):
                assert each.name == "mine"
            with na.connect(listener.address) as own:  # the parent listens on
                assert isinstance(own.recv(timeout=30), netasync.Connected)
        client_aio, listener_aio = client.aio, listener.aio
        child_of = fork(child)
        accepted = listener.accept(timeout=30)
        assert ended(child_of) == 0
        client_aio.abort(), served.close(), accepted.aio.abort(), listener.close()
    """)


def test_a_block_that_a_forked_child_leaves_by_an_exception_keeps_that_exception():
    forks("""
        with na.listen(0) as listener, na.connect(listener.address) as client, listener.accept() as served:
            child = os.fork()
            if child == 0:
                sys.exit(7)
            assert ended(child) == 7
            client.aio.close()
    """)
    forks("""
        async def main():
            async with netasync.listen(0) as listener, netasync.connect(listener.address) as client:
                async with await listener.accept():
                    child = os.fork()
                    if child == 0:
                        raise ValueError("the child's own")
                    assert ended(child) == 7
                    client.close()
        try:
            asyncio.run(main())
        except ValueError:
            os._exit(7)
    """)


def test_a_wait_that_a_fork_in_a_signal_handler_interrupts_ends_in_the_child_and_goes_on_in_the_parent():
    forks("""
        client, served, listener = pair()
        children = []
        def handler(*_):
            children.append(os.fork())
            if children[-1]:
                served.send(b"for the parent")
        signal.signal(signal.SIGUSR1, handler)
        threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        try:
            item = client.recv()
        except netasync.ForkedError:
            os._exit(5)
        assert item == b"for the parent", item
        assert ended(*children) == 5
        client.aio.close(), served.close(), listener.close()
    """)


def test_an_iterable_that_forks_in_the_middle_of_send_many_sends_nothing_more_in_the_child():
    forks("""
        client, served, listener = pair()
        children = []
        def messages():
            yield b"1"
            children.append(os.fork())
            yield b"2"
        try:
            client.send_many(messages())
        except netasync.ForkedError as error:
            os._exit(5 if error.accepted == 1 else 6)
        assert ended(*children) == 5
        assert [served.recv(timeout=30) for _ in range(2)] == [b"1", b"2"]
        client.aio.close()
        assert isinstance(served.recv(timeout=30), netasync.Closed)
        listener.close()
    """)


def test_tasks_that_wait_as_their_process_forks_end_in_the_child_and_wait_on_in_the_parent(loop_name):
    forks(
        """
        async def main():
            listener = netasync.listen(0)
            client = netasync.connect(listener.address)
            served = await listener.accept()
            await client.recv(), await served.recv()
            alone = netasync.connect("127.0.0.1:1", write_buffer=1)
            await alone.send(b"fills the buffer")
            calls = [
                client.recv(), client.recv_many(3), client.wait_closed(),
                listener.accept(), listener.wait_closed(),
                alone.send(b"waits"), alone.send_many([b"waits"]), alone.flush(), alone.wait_connected(),
                netasync.select(client, listener, timeout=600),
            ]
            waiting = [asyncio.ensure_future(call) for call in calls]
            await asyncio.sleep(0)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                # The loop is the parent's too; a child that runs it all the same is not left waiting.
                outcomes = await asyncio.gather(*waiting, return_exceptions=True)
                os._exit(0 if all(type(each) is netasync.ForkedError for each in outcomes) else 9)
            assert await asyncio.get_running_loop().run_in_executor(None, ended, child) == 0
            assert not any(task.done() for task in waiting)
            await served.send(b"for the parent")
            assert await waiting[0] == b"for the parent"
            alone.abort()
            for each in (client, served, listener):
                each.close()
            await asyncio.gather(*waiting, return_exceptions=True)
            await client.wait_closed(), await served.wait_closed(), await listener.wait_closed()
        if sys.argv[1] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    """,
        loop_name,
    )
