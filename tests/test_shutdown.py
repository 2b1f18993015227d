"""Shutting down while everybody is busy: each is told, and nothing is half done."""

import itertools

import pytest

import netasync
from netasync import Closed, ClosedError, Reason
from support.counts import counts
from support.waiting import DEADLINE
from support.wires import ORIGINAL

PAIRS = 4


async def send_until_the_end(world, conn):
    """Number messages and send them until the handle has ended; return how many were accepted."""
    for number in itertools.count():
        try:
            await world.send(conn, b"%d" % number + bytes(number % 5000))
        except ClosedError:
            return number
    raise AssertionError("unreachable")


async def receive_until_the_end(world, conn, seen):
    """Take every item up to `Closed` and return that; the messages must be whole and in order."""
    async for item in world.items(conn):
        if isinstance(item, bytes):
            number = int(item.partition(b"\0")[0])
            assert len(item) == len(b"%d" % number) + number % 5000
            seen.append(number)
    return item


async def accept_until_the_end(world, listener):
    while not isinstance(accepted := await world.accept(listener), Closed):
        pass
    return accepted


async def dial_until_the_end(world, address):
    """Dial again and again; each handle ends, and at last nothing can be dialled any more."""
    made = []
    while True:
        try:
            made.append(world.connect(address))
        except ClosedError:
            break
        if len(made) > 20:
            made.pop(0).abort()
        await world.face.pause(0)
    return [(await world.wait_closed(conn)).reason for conn in made]


# Not on ours yet: where both ends close over more than the other has credited, each waits out its time.
@ORIGINAL
@pytest.mark.parametrize("count", counts(1, 100))
async def test_a_shutdown_under_traffic_tells_everybody_and_breaks_no_order(world, count):
    for _ in range(count):
        runtime = netasync.Runtime()
        listener = world.listen(runtime=runtime)
        pairs = []
        for _ in range(PAIRS):
            client = world.connect(listener.address, runtime=runtime)
            served = await world.accept(listener)
            pairs += [(client, served), (served, client)]
        seen = [[] for _ in pairs]
        receiving = [
            world.spawn(receive_until_the_end(world, conn, got))
            for (conn, _), got in zip(pairs, seen, strict=True)
        ]
        sending = [world.spawn(send_until_the_end(world, conn)) for _, conn in pairs]
        accepting = world.spawn(accept_until_the_end(world, listener))
        await world.eventually(lambda seen=seen: all(len(got) > 20 for got in seen), "traffic everywhere")
        await world.shutdown(runtime, timeout=DEADLINE)
        for spawned in receiving:
            assert (await world.join(spawned)).reason is Reason.SHUTDOWN
        accepted = [await world.join(spawned) for spawned in sending]
        assert (await world.join(accepting)).reason is Reason.SHUTDOWN
        for got, sent in zip(seen, accepted, strict=True):
            assert got == list(range(len(got))) and len(got) <= sent
        assert not runtime.running


async def test_a_shutdown_among_dials_ends_each_of_them_and_refuses_the_next(world):
    listener = world.listen()
    accepting = world.spawn(accept_until_the_end(world, listener))
    dialling = [world.spawn(dial_until_the_end(world, listener.address)) for _ in range(3)]
    await world.eventually(lambda: listener.stats().accepted > 30, "dials are accepted")
    await world.shutdown(world.runtime, timeout=DEADLINE)
    for spawned in dialling:
        reasons = await world.join(spawned)
        assert set(reasons) <= {Reason.SHUTDOWN, Reason.ABORTED}, reasons
    assert (await world.join(accepting)).reason is Reason.SHUTDOWN


@ORIGINAL
async def test_two_runtimes_talk_and_the_one_that_is_shut_down_says_so_to_its_own_side_only(world):
    runtime = netasync.Runtime()
    listener = world.listen(protocol="net.async")
    client = world.connect(listener.address, runtime=runtime, protocol="net.async")
    served = await world.accept(listener)
    receiving = world.spawn(receive_until_the_end(world, served, seen := []))
    sending = world.spawn(send_until_the_end(world, client))
    await world.eventually(lambda: len(seen) > 20, "traffic")
    await world.shutdown(runtime, timeout=DEADLINE)
    sent = await world.join(sending)
    assert (await world.join(receiving)).reason is world.farewell
    assert seen == list(range(sent))  # what was accepted was delivered first
    assert (await world.end(client)).reason is Reason.SHUTDOWN


async def test_a_shutdown_without_patience_ends_at_once_though_nobody_reads(world):
    runtime = netasync.Runtime()
    listener = world.listen(runtime=runtime, read_buffer=1)
    client = world.connect(listener.address, runtime=runtime, write_buffer=8)
    served = await world.accept(listener)
    sending = world.spawn(send_until_the_end(world, client))
    answering = world.spawn(send_until_the_end(world, served))
    await world.eventually(lambda: client.stats().queued >= 8, "the sender is stuck")
    await world.shutdown(runtime, timeout=0)
    await world.join(sending)
    await world.join(answering)
    ends = [await world.end(client), await world.end(served)]
    assert {end.reason for end in ends} == {Reason.SHUTDOWN}
