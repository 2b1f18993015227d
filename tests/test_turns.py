"""How long a task may hold its loop without waiting: 1024 items or 5 ms, looked at every 16 items."""

import asyncio
import time

import pytest

from support.cancelling import result_of
from support.peer import RawPeer
from support.wires import ORIGINAL
from test_bridge import LOOPS, Turns, numbered

#: What the application does with each item. Longer on a slow machine, which changes nothing.
WORK = 0.001
#: Items of so much work between any two turns of the others: the clock is first looked at behind the third.
LONGEST = 16 + 3


async def waiting_messages(world, count, **options):
    conn, peer = await world.answered(**options)
    world.forget_order(conn)
    feeding = world.spawn(world.outside(peer.send, *numbered(count)))
    await world.eventually(lambda: conn.stats().received == count)
    await world.join(feeding)
    return conn


async def longest(turns):
    """How much was done between two turns of the others, up to now."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return await turns.stop()


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("by", ["recv", "recv_many", "items", "messages", "select"])
async def test_a_burst_whose_items_take_work_leaves_others_their_turns(world, by):
    count = 400
    conn = await waiting_messages(world, count)
    turns = Turns()
    await asyncio.sleep(0)

    def work(items=1):
        time.sleep(WORK * items)
        turns.done += items

    if by == "recv":
        for _ in range(count):
            await conn.recv()
            work()
    elif by == "recv_many":
        while turns.done < count:
            work(len(await conn.recv_many(5)))
    elif by == "select":
        for _ in range(count):
            await world.face.select(conn)
            work()
    else:
        async for _ in conn if by == "items" else conn.messages():
            work()
            if turns.done == count:
                break
    # The rule counts in whole batches, up to the first look and up to the next.
    assert await longest(turns) <= LONGEST + (2 * 5 if by == "recv_many" else 0)


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("by", ["send", "send_many"])
async def test_sending_what_takes_work_to_make_leaves_others_their_turns(world, by):
    conn, peer, _ = await world.dialled()
    count = 400
    receiving = world.spawn(world.outside(peer.recv_many, count))
    turns = Turns()
    await asyncio.sleep(0)

    def made():
        for data in numbered(count):
            time.sleep(WORK)
            turns.done += 1
            yield data

    if by == "send":
        for data in made():
            await conn.send(data)
    else:
        await conn.send_many(made())
    assert await longest(turns) <= LONGEST
    assert await world.join(receiving) == numbered(count)


@ORIGINAL
@LOOPS
async def test_connections_that_wait_to_be_accepted_leave_others_their_turns(world):
    count = 60
    listener = world.listen(0, accept_buffer=count)
    for _ in range(count):
        world.outsider(RawPeer.dial(listener.address))
    await world.eventually(lambda: listener.stats().waiting == count)
    turns = Turns()
    await asyncio.sleep(0)
    for _ in range(count):
        (await listener.accept()).abort()
        time.sleep(WORK)
        turns.done += 1
    assert await longest(turns) <= LONGEST


@ORIGINAL
@LOOPS
async def test_tasks_that_one_read_wakes_leave_others_their_turns(world):
    count = 100
    conn, peer = await world.answered()
    world.forget_order(conn)
    turns = Turns()

    async def take_one():
        await conn.recv()
        time.sleep(WORK)
        turns.done += 1

    tasks = [world.spawn(take_one()) for _ in range(count)]
    await world.settle(tasks[-1])
    peer.send(*numbered(count))
    for task in tasks:
        await world.join(task)
    # The loop may call for the socket and for what is left in one turn. Without a limit in time it is 64.
    assert await longest(turns) <= 2 * LONGEST


@ORIGINAL
@LOOPS
async def test_a_real_wait_begins_a_new_turn(world):
    """A task that waits for each of its messages never yields besides: it is done in as many turns."""
    conn, peer = await world.answered()
    world.forget_order(conn)
    taken = []

    async def take(count):
        for _ in range(count):
            taken.append(await conn.recv())
            time.sleep(WORK)

    taking = world.spawn(take(40))
    await world.settle(taking)
    for number in numbered(40):
        peer.send(number)
        await world.eventually(lambda: len(taken) > int(number))  # noqa: B023
    await world.join(taking)
    assert taken == numbered(40)


@ORIGINAL
@LOOPS
@pytest.mark.parametrize("by", ["recv", "recv_many", "messages"])
async def test_a_task_that_is_cancelled_where_its_turn_is_over_has_taken_nothing(world, by):
    count = 200
    conn = await waiting_messages(world, count)
    taken = []

    async def take():
        if by == "messages":
            async for data in conn.messages():
                taken.append(data)
                time.sleep(WORK)
        while True:
            taken.extend([await conn.recv()] if by == "recv" else await conn.recv_many(3))
            time.sleep(WORK)

    rounds = 0
    while len(taken) < count - LONGEST:
        task = world.spawn(take())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it has had one turn, or two, and is where the next item would be taken
        assert task.cancel()
        assert await result_of(task) is None
        rounds += 1
    while len(taken) < count:
        taken.append(await conn.recv())
    assert rounds > 2
    assert taken == numbered(count)


@ORIGINAL
@LOOPS
async def test_a_send_that_is_cancelled_where_its_turn_is_over_has_sent_nothing(world):
    conn, peer, _ = await world.dialled()
    sent = []

    async def send():
        while True:
            await conn.send(b"%d" % len(sent))
            sent.append(b"%d" % len(sent))
            time.sleep(WORK)

    for _ in range(5):
        task = world.spawn(send())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.cancel()
        assert await result_of(task) is None
    await conn.send(b"the last")
    assert await world.outside(peer.recv_many, len(sent) + 1) == [*sent, b"the last"]
