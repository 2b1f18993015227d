"""A process without memory, and what becomes of memory that nobody needs any more.

Each in a process of its own: the limit is the process's, and so is what it holds.
"""

import pathlib

import pytest

from support.process import run_script
from support.waiting import DEADLINE

#: What each script begins with. Address space is what the system is short of; it is counted from now on.
BEGINNING = """
import resource
import sys

sys.path.insert(0, sys.argv[1])
face_name, wire = sys.argv[2:4]

import netasync
from netasync import Backoff, Buffer, Closed, Connected, Disconnected, Reason
from support.faces import FACES
from support.process import resident_bytes

MiB = 1 << 20
#: Above what malloc takes from its heaps.
HUGE = 48 * MiB
FACE = FACES[face_name]
#: Nothing is given back meanwhile: a third of this would have to pass.
OPTIONS = dict(protocol=wire, max_size=100 * MiB, close_timeout=600, heartbeat_timeout=600)


def scarce(headroom=6 * MiB):
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + headroom, resource.RLIM_INFINITY))


def plenty():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def finds_no_memory(what, *args, **kwargs):
    try:
        found = await what(*args, **kwargs)
    except MemoryError as error:
        assert "no memory for a message of" in str(error), error
        return error
    raise AssertionError(f"there was memory: {type(found)}")


async def at_once(what, *args):
    return what(*args)


def recv(conn):
    return FACE.call(conn, "recv")


async def message(conn, kind=bytes):
    while not isinstance(item := await recv(conn), kind):
        assert not isinstance(item, Closed), item
    return item


async def pair(listener, **options):
    conn = FACE.api.connect(listener.address, **{**OPTIONS, **options})
    served = await FACE.call(listener, "accept")
    assert isinstance(await recv(conn), Connected)
    assert isinstance(await recv(served), Connected)
    return conn, served


async def goes_both_ways(conn, served):
    for here, there in [(conn, served), (served, conn)]:
        await FACE.call(here, "send", b"still here")
        assert await message(there) == b"still here"
"""


def run(script, face, wire, *arguments, **environment):
    folder = str(pathlib.Path(__file__).parent)
    # A heap of its own takes a thread 64 MiB of address space, and gives them back when it likes.
    environment = {"MALLOC_ARENA_MAX": "1", **environment}
    arguments = [folder, face.name, wire, *arguments]
    return run_script(BEGINNING + script, *arguments, timeout=2 * DEADLINE, environment=environment)


@pytest.fixture(params=["netasync", "net.async"], ids=["ours", "original"])
def wire(request):
    return request.param


RECEIVING = """
async def scenario():
    listener = FACE.api.listen(0, **OPTIONS)
    neighbours = await pair(listener)
    conn, served = await pair(listener)
    payload = bytes(HUGE)
    await FACE.call(conn, "send", payload)
    await FACE.call(conn, "send", b"behind")
    await FACE.eventually(lambda: served.stats().waiting >= 1)
    scarce()
    for _ in range(3):
        await finds_no_memory(FACE.call, served, "recv")
        await finds_no_memory(at_once, served.recv_nowait)
        await finds_no_memory(FACE.call, served, "recv_many", 9)
        assert served.stats().consumed == 0
    await goes_both_ways(*neighbours)
    plenty()
    assert await message(served) == payload
    assert await message(served) == b"behind"
    for end in [*neighbours, conn, served, listener]:
        end.abort() if hasattr(end, "abort") else end.close()

FACE.run(scenario())
"""


def test_a_recv_that_finds_no_memory_raises_memory_error_and_takes_nothing(face, wire):
    run(RECEIVING, face, wire)


BEHIND = """
async def scenario():
    listener = FACE.api.listen(0, **OPTIONS)
    conn, served = await pair(listener)
    for payload in [b"one", b"two", bytes(HUGE), b"four"]:
        await FACE.call(conn, "send", payload)
    await FACE.eventually(lambda: served.stats().waiting == 3)
    scarce()
    assert await FACE.call(served, "recv_many", 9) == [b"one", b"two"]
    await finds_no_memory(FACE.call, served, "recv_many", 9)
    plenty()
    assert (await FACE.call(served, "recv_many", 9))[0] == bytes(HUGE)
    await FACE.eventually(lambda: served.stats().received == 4)
    for end in [conn, served]:
        end.abort()
    listener.close()

FACE.run(scenario())
"""


def test_a_recv_many_takes_what_lies_before_a_message_that_finds_no_memory(face, wire):
    run(BEHIND, face, wire)


WAITERS = """
async def scenario():
    listener = FACE.api.listen(0, **OPTIONS)
    conn, served = await pair(listener)
    payload = bytes(HUGE)
    readers = [FACE.spawn(finds_no_memory(FACE.call, served, "recv")) for _ in range(3)]
    for reader in readers:
        await FACE.settle(reader)
    # For what one side keeps and what the other has received, and for no copy.
    scarce(2 * HUGE + 12 * MiB)
    conn.send_nowait(payload)
    for reader in readers:
        await FACE.join(reader)
    plenty()
    assert await message(served) == payload
    for end in [conn, served]:
        end.abort()
    listener.close()

FACE.run(scenario())
"""


def test_a_reader_that_finds_no_memory_leaves_the_message_to_the_next(face, wire):
    run(WAITERS, face, wire)


SENDING = """
async def scenario():
    listener = FACE.api.listen(0, **OPTIONS)
    neighbours = await pair(listener)
    conn, served = await pair(listener)
    payload, view = bytes(HUGE), bytearray(HUGE)
    scarce()
    for data in [payload, view]:
        await finds_no_memory(FACE.call, conn, "send", data)
        await finds_no_memory(at_once, conn.send_nowait, data)
        if wire == "netasync":
            await finds_no_memory(FACE.call, conn, "send", data, confirm="consumed")
    assert conn.stats().accepted == 0
    await goes_both_ways(*neighbours)
    many = [b"one", b"two", payload, b"four"]
    error = await finds_no_memory(FACE.call, conn, "send_many", many)
    assert error.accepted == 2, error.accepted
    assert conn.stats().accepted == 2
    assert [await message(served), await message(served)] == [b"one", b"two"]
    plenty()
    await FACE.call(conn, "send", payload)
    assert await message(served) == payload
    for end in [*neighbours, conn, served]:
        end.abort()
    listener.close()

FACE.run(scenario())
"""


def test_a_send_that_finds_no_memory_raises_memory_error_and_nothing_is_accepted(face, wire):
    run(SENDING, face, wire)


WAITING_TO_SEND = """
async def scenario():
    conn = FACE.api.connect("127.0.0.1:1", **OPTIONS, write_buffer=Buffer.fixed(1))
    await FACE.call(conn, "send", b"fills it")
    view = bytearray(HUGE)
    scarce()
    await finds_no_memory(FACE.call, conn, "send", view, timeout=30)
    plenty()
    assert (conn.stats().accepted, conn.stats().queued) == (1, 1)
    conn.abort()

FACE.run(scenario())
"""


def test_a_send_that_would_wait_and_finds_no_memory_for_its_copy_raises_memory_error(face, wire):
    run(WAITING_TO_SEND, face, wire)


#: The sender has memory and is another process; it dials or is dialled.
SENDER = """
async def scenario():
    if sys.argv[4] == "dials":
        conn = FACE.api.connect(sys.argv[5], **OPTIONS)
    else:
        listener = FACE.api.listen(0, **OPTIONS)
        print(listener.address, flush=True)
        conn = await FACE.call(listener, "accept")
    conn.send_nowait(bytes(HUGE))
    await FACE.outside(sys.stdin.read)
    conn.abort()

FACE.run(scenario())
"""

RECEIVER = """
import subprocess

role = {"dials": "is dialled", "is dialled": "dials"}[sys.argv[4]]
SENDER = BEGINNING_AND_SENDER


def sender(*arguments):
    command = [sys.executable, "-c", SENDER, *sys.argv[1:4], *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def scenario():
    own = FACE.api.listen(0, **OPTIONS)
    neighbours = await pair(own)
    # What is read by the threads that read is there before.
    await goes_both_ways(*neighbours)
    if sys.argv[4] == "dials":
        other = sender("is dialled")
        address = other.stdout.readline().strip()
        scarce()
        conn = FACE.api.connect(address, **OPTIONS)
    else:
        other = sender("dials", own.address)
        scarce()
        conn = await FACE.call(own, "accept")
    assert isinstance(await recv(conn), Connected)
    down = await recv(conn)
    assert down.reason is Reason.NO_MEMORY and "no memory for" in down.detail, down
    await goes_both_ways(*neighbours)
    plenty()
    if wire == "netasync":
        up = await message(conn, Connected)
        assert up.resumed or conn.stats().links > 2, up
        assert len(await message(conn)) == HUGE
        assert conn.stats().received == 1
    other.kill()
    other.communicate()
    for end in [*neighbours, conn]:
        end.abort()
    own.close()

FACE.run(scenario())
"""


@pytest.mark.parametrize("role", ["dials", "is dialled"])
def test_a_peers_message_that_finds_no_memory_ends_that_link_and_nothing_else(face, wire, role):
    script = RECEIVER.replace("BEGINNING_AND_SENDER", repr(BEGINNING + SENDER))
    run(script, face, wire, role)


# What is done with is given back.

#: Within a few fifths of a second.
SOON = """
OPTIONS.update(close_timeout=0.6, heartbeat_timeout=10)
"""

POLLING = """
async def scenario():
    listener = FACE.api.listen(0, **OPTIONS)
    conn, served = await pair(listener)
    before = resident_bytes()
    conn.send_nowait(bytes(100 * MiB))
    while True:
        # Nobody waits: a loop polls, and so does a thread.
        try:
            item = served.recv_nowait() if face_name != "threads" else served.recv(timeout=0)
        except (netasync.BufferEmpty, TimeoutError):
            await FACE.pause(0.01)
            continue
        break
    assert len(item) == 100 * MiB
    del item
    await FACE.eventually(lambda: resident_bytes() < before + 30 * MiB, "memory is back")
    for end in [conn, served]:
        end.abort()
    listener.close()

FACE.run(scenario())
"""


def test_a_large_message_leaves_no_memory_behind_where_nobody_waits(face, wire):
    run(SOON + POLLING, face, wire)


MANY = """
async def scenario():
    listener = FACE.api.listen(0, **OPTIONS)
    pairs = [await pair(listener) for _ in range(100)]
    before = resident_bytes()
    for conn, served in pairs:
        conn.send_nowait(bytes(MiB))
        await message(served)
    await FACE.eventually(lambda: resident_bytes() < before + 50 * MiB, "memory is back")
    for end in sum(pairs, ()):
        end.abort()
    listener.close()

FACE.run(scenario())
"""


def test_connections_that_were_sent_a_large_message_once_hold_no_memory_for_it(face, wire):
    # What is freed goes back to the system, however often the size comes again.
    run(SOON + MANY, face, wire, MALLOC_MMAP_THRESHOLD_="262144")
