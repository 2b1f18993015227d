"""Runtimes: the default one, own ones, and what their shutdown leaves behind, which is nothing."""

import pathlib

import pytest

import netasync
from netasync import Backoff, ClosedError, Reason, Runtime
from support.process import open_descriptors, run_script
from support.waiting import eventually
from support.wires import ORIGINAL


async def test_handles_of_one_runtime_outlive_the_shutdown_of_another(world):
    other = Runtime()
    port = world.reserved_port()
    client, served, _ = await world.pair()
    doomed = world.connect(port.address, runtime=other)
    await world.shutdown(other)
    await world.wait_closed(doomed)
    await world.send(client, b"still here")
    assert await world.recv(served) == b"still here"
    assert world.runtime.running
    assert not other.running


async def test_after_shutdown_every_handle_says_closed_with_shutdown(world):
    client, served, listener = await world.pair()
    await world.shutdown(world.runtime)
    for handle in (client, served, listener):
        assert (await world.wait_closed(handle)).reason is Reason.SHUTDOWN


@ORIGINAL
async def test_shutdown_delivers_what_was_accepted(world):
    conn, peer, _ = await world.dialled()
    payloads = [b"%d" % number * 500 for number in range(500)]
    await world.send_many(conn, payloads)
    shutting = world.spawn(world.shutdown(world.runtime))
    assert await world.outside(peer.messages_to_end) == payloads
    peer.close()
    await world.join(shutting)
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.SHUTDOWN, 0)


async def test_what_is_left_at_the_timeout_is_aborted(world):
    conn = world.connect(world.reserved_port().address)
    await world.send(conn, b"nobody", b"takes", b"this")
    await world.shutdown(world.runtime, timeout=0.2)
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.SHUTDOWN, 3)


async def test_shutdown_can_be_repeated(world):
    await world.pair()
    await world.shutdown(world.runtime)
    await world.shutdown(world.runtime)
    assert not world.runtime.running


async def test_several_may_wait_for_one_shutdown(world):
    await world.pair()
    waiting = [world.spawn(world.shutdown(world.runtime)) for _ in range(3)]
    for one in waiting:
        await world.join(one)
    assert not world.runtime.running


async def test_connect_and_listen_on_a_runtime_that_was_shut_down_are_closed_errors(world):
    await world.shutdown(world.runtime)
    with pytest.raises(ClosedError):
        world.connect("127.0.0.1:1", watch=False)
    with pytest.raises(ClosedError):
        world.listen(0)


async def test_a_runtime_that_never_opened_anything_shuts_down(world):
    idle = Runtime()
    await world.shutdown(idle)
    assert not idle.running


async def test_the_two_faces_of_a_runtime_lead_to_each_other(world):
    await world.pair()
    assert world.runtime.blocking.aio is world.runtime
    assert world.runtime.blocking.running is world.runtime.running


@ORIGINAL
async def test_shutdown_frees_the_ports_of_all_its_listeners(world):
    ports = [world.reserved_port().port for _ in range(5)]
    for port in ports:
        listener = world.listen(port)
        peer = await world.raw_dial(listener.address)
        await world.up(await world.accept(listener))
        peer.half_close()
    await world.shutdown(world.runtime)
    for port in ports:
        world.raw_listener(port)


@ORIGINAL
async def test_shutdown_does_not_wait_for_a_dial_or_a_back_off(world):
    full = world.raw_listener(backlog=0)
    await world.outside(full.fill)
    world.connect(full.address, open_timeout=3000)
    world.connect(world.reserved_port().address, reconnect=Backoff(initial=3000, maximum=3000))
    await world.shutdown(world.runtime)
    assert not world.runtime.running


def runtime_threads():
    """The runtimes' own threads: others, such as idle lookups of an earlier test, come and go."""
    tasks = pathlib.Path("/proc/self/task")
    return {task.name for task in tasks.iterdir() if (task / "comm").read_text().strip() == "netasync"}


def test_after_shutdown_no_descriptor_and_no_thread_is_left():
    descriptors, threads = open_descriptors().keys(), runtime_threads()
    runtime = Runtime()
    with netasync.blocking.listen(0, runtime=runtime) as listener:
        clients = [netasync.blocking.connect(listener.address, runtime=runtime) for _ in range(20)]
        served = [listener.accept(timeout=20) for _ in clients]
        for conn in clients:
            conn.wait_connected(timeout=20)
            conn.send(b"x", timeout=20)
        for conn in served:
            conn.wait_connected(timeout=20)
    assert len(runtime_threads() - threads) == 1
    runtime.blocking.shutdown()
    eventually(lambda: not runtime_threads() - threads, deadline=3)
    # A thread that has waited keeps one descriptor to be woken by, however many handles there were.
    assert len(open_descriptors().keys() - descriptors) <= 1


def test_importing_and_constructing_start_no_thread_and_open_nothing():
    said = run_script("""
        import os
        count = lambda: (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
        import asyncio, queue
        before = count()
        import netasync, netasync.blocking
        runtime = netasync.Runtime()
        print(count()[0] - before[0], count()[1] - before[1])
    """)
    assert said.split() == ["0", "0"]


def test_handles_without_a_runtime_share_the_default_one():
    said = run_script("""
        import os, netasync.blocking as na
        count = lambda: len(os.listdir("/proc/self/task"))
        with na.listen(0) as listener:
            with na.connect(listener.address) as first, na.connect(listener.address) as second:
                first.wait_connected(); second.wait_connected()
                some = count()
                with na.connect(listener.address) as third:
                    third.wait_connected()
                    print(count() - some)
    """)
    assert said.split() == ["0"]
