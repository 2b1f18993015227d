"""Who waits for an answer looks before it sleeps, and leaves others their turns all the same."""

import asyncio
import subprocess
import sys
import textwrap
import threading

import pytest

from support.cancelling import result_of
from support.process import times_woken
from support.waiting import DEADLINE
from support.wires import OURS

pytestmark = OURS

ECHO = """
    import sys
    import netasync.blocking

    conn = netasync.blocking.connect(sys.argv[1])
    conn.recv()
    conn.send(b"here")
    while isinstance(data := conn.recv(), bytes):
        conn.send(data)
    conn.close()
"""

TRIPS = 200


class Echo:
    """A connection to a process of its own, which sends back what comes."""

    def __init__(self, world):
        self._world = world

    async def __aenter__(self):
        listener = self._world.listen(0)
        command = [sys.executable, "-c", textwrap.dedent(ECHO), listener.address]
        self._process = subprocess.Popen(command)
        self._conn = await self._world.accept(listener)
        await self._world.up(self._conn)
        assert await self._world.recv(self._conn) == b"here"
        return self

    async def trip(self):
        await self._world.send(self._conn, b"there")
        assert await self._world.recv(self._conn) == b"there"

    async def __aexit__(self, *_):
        await self._world.close(self._conn)
        assert self._process.wait(DEADLINE) == 0


async def test_who_waits_for_an_answer_that_comes_at_once_hardly_ever_sleeps(world):
    async with Echo(world) as echo:
        slept = []
        # Where others want the cores it may well sleep: some trips in a row are left alone.
        while not slept or min(slept) > TRIPS // 4:
            before = times_woken(threading.get_native_id())
            for _ in range(TRIPS):
                await echo.trip()
            slept.append(times_woken(threading.get_native_id()) - before)
            assert len(slept) < 500, slept


@pytest.mark.faces("asyncio", "uvloop")
async def test_a_loop_that_looks_leaves_others_their_turns(world):
    done = turns = longest = 0

    async def take_turns():
        nonlocal turns, longest
        while True:
            before = done
            await asyncio.sleep(0)
            turns += 1
            longest = max(longest, done - before)

    async with Echo(world) as echo:
        others = asyncio.ensure_future(take_turns())
        for _ in range(50 * TRIPS):
            await echo.trip()
            done += 1
        others.cancel()
        await result_of(others)
    assert turns >= TRIPS
    # A turn may look for 100 µs, and a trip takes 2 at the least.
    assert longest <= 50
