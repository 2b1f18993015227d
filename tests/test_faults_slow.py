"""The fault programme, C: stuck and slow. What stands still is found, what is slow is left alone."""

import collections
import signal
import socket
import subprocess

import pytest

from netasync import Buffer, BufferFull, Closed, ClosedError, Disconnected, Reason, State
from support.counts import counts
from support.faces import aio
from support.peer import RawPeer, frame, split_target
from support.process import resident_bytes, script_command
from support.waiting import DEADLINE
from support.wires import ORIGINAL, OURS

#: Timers that find a stopped process soon, and leave a loaded machine in peace.
TIMERS = {"heartbeat_interval": 0.1, "heartbeat_timeout": 1.5}


class Process:
    """A program at the other end, which can be stopped and go on."""

    def __init__(self, script, *arguments):
        self._process = subprocess.Popen(
            script_command(script, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self):
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def tell(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self):
        return self._process.stdout.readline().strip()

    def close(self):
        self._process.kill()
        self._process.wait(DEADLINE)
        self._process.stdin.close()
        self._process.stdout.close()


# C 28

#: Takes everything and answers each message with its length.
SINK = """
    import sys, netasync.blocking as na
    conn = na.connect(sys.argv[1], heartbeat_interval=0.1, heartbeat_timeout=600, read_buffer=10)
    for item in conn:
        if isinstance(item, bytes):
            conn.send(b"%d" % len(item))
"""


async def with_a_sink(world, **options):
    listener = world.listen(0, **TIMERS, **options)
    process = world.outsider(Process(SINK, listener.address))
    conn = await world.accept(listener)
    await world.up(conn)
    await world.send(conn, b"there?")
    assert await world.recv(conn) == b"6"
    return conn, process


@OURS
@pytest.mark.faces("asyncio", "threads")
async def test_a_process_that_stops_while_the_link_is_idle_is_found(world):
    conn, process = await with_a_sink(world)
    process.stop()
    assert (await world.lost(conn)).reason is Reason.HEARTBEAT_TIMEOUT


@OURS
async def test_a_process_that_stops_under_load_is_found_and_memory_stays(world):
    conn, process = await with_a_sink(world, write_buffer=Buffer.fixed(1000, max_bytes=2**22))
    payload = bytes(100_000)

    async def pour():
        while True:
            await world.send(conn, payload)

    pouring = world.spawn(pour())
    while not isinstance(item := await world.recv(conn), bytes) or conn.stats().consumed < 50:
        assert item == b"100000"
    before = resident_bytes()
    process.stop()
    while isinstance(item := await world.recv(conn), bytes):
        assert item == b"100000"
    assert isinstance(item, Disconnected) and item.reason is Reason.HEARTBEAT_TIMEOUT
    conn.abort()
    with pytest.raises(ClosedError):
        await world.join(pouring)
    assert resident_bytes() - before < 16 * 2**20


@OURS
@pytest.mark.faces("asyncio", "threads")
@pytest.mark.parametrize("times", counts(3, 100))
async def test_a_process_that_stops_for_less_than_the_timeout_is_no_alarm(world, times):
    conn, process = await with_a_sink(world)
    for _ in range(times):
        process.stop()
        await world.face.pause(0.5)
        process.go_on()
        await world.send(conn, b"still there")
        assert await world.recv(conn) == b"11"
    assert conn.state is State.CONNECTED


# C 29

#: On a word it blocks its own loop, or holds the interpreter in C, for so many seconds; then it echoes on.
BLOCKED = """
    import asyncio, ctypes, sys, time, netasync

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 600
        timers = {"heartbeat_interval": 0.1, "heartbeat_timeout": 600}
        async with netasync.connect(sys.argv[1], **timers) as conn:
            async for item in conn:
                if item == b"block":
                    time.sleep(float(sys.argv[2]))
                elif item == b"hold":
                    # `PyDLL` does not give the interpreter up while it calls.
                    ctypes.PyDLL(None).usleep(int(float(sys.argv[2]) * 1e6))
                if isinstance(item, bytes):
                    await conn.send(item)

    asyncio.run(main())
"""


@OURS
@pytest.mark.faces("asyncio")
@pytest.mark.parametrize("timeouts", counts(2, 40))
@pytest.mark.parametrize("how", ["block", "hold"])
async def test_a_peer_that_blocks_its_loop_or_holds_its_interpreter_stays_connected(world, how, timeouts):
    listener = world.listen(0, heartbeat_interval=0.1, heartbeat_timeout=1)
    world.outsider(Process(BLOCKED, listener.address, str(timeouts)))
    conn = await world.accept(listener)
    await world.up(conn)
    await world.send(conn, how.encode())
    assert await world.recv(conn, timeout=DEADLINE + timeouts) == how.encode()
    assert conn.state is State.CONNECTED


@OURS
async def test_what_is_sent_to_a_peer_whose_loop_is_blocked_is_there_when_it_goes_on(world):
    listener = world.listen(0, heartbeat_interval=0.1, heartbeat_timeout=1)
    world.outsider(Process(BLOCKED, listener.address, "1.5"))
    conn = await world.accept(listener)
    await world.up(conn)
    sent = [b"hold", *(b"%d" % number for number in range(2000))]
    await world.send_many(conn, sent)
    assert await world.take(conn, len(sent)) == sent


# C 33


class Model:
    """What a buffer holds, in the plainest words."""

    def __init__(self, policy, count):
        self.policy, self.count = policy, count
        self.held = collections.deque()
        self.dropped = 0

    def put(self, data):
        """What `send_nowait` says; None where it raises `BufferFull`."""
        if len(self.held) == self.count:
            if self.policy == "fixed":
                return None
            self.dropped += 1
            if self.policy == "dropping":
                return False
            self.held.popleft()
        self.held.append(data)
        return True


def put(conn, data):
    try:
        return conn.send_nowait(data)
    except BufferFull:
        return None


@ORIGINAL
@pytest.mark.parametrize("operations", counts(4000, 1_000_000))
@pytest.mark.parametrize("policy", ["fixed", "dropping", "sliding"])
async def test_a_write_buffer_that_fills_and_drains_is_exactly_the_model(world, seeded, policy, operations):
    count = seeded.randrange(1, 40)
    model = Model(policy, count)
    port = world.reserved_port()
    conn = world.connect(port.address, write_buffer=getattr(Buffer, policy)(count))
    await world.eventually(lambda: conn.state is State.DISCONNECTED)
    done = accepted = dropped = links = 0
    while done < operations:
        for _ in range(seeded.randrange(1, 300)):  # while the link is down
            data = b"%d" % done
            said = put(conn, data)
            assert said is model.put(data)
            accepted += said is not None
            done += 1
        stats = conn.stats()
        assert (stats.queued, stats.accepted) == (len(model.held), accepted)
        assert stats.write_dropped == model.dropped
        server = world.raw_listener(port.port)
        peer = await world.outside(server.accept)
        assert await world.outside(peer.recv_many, len(model.held)) == list(model.held)
        model.held.clear()
        links += 1
        server.close()
        await world.eventually(lambda: conn.state is State.DISCONNECTED)
        dropped = model.dropped
    assert conn.stats().write_dropped == dropped
    assert conn.stats().links == links


@ORIGINAL
@pytest.mark.parametrize("links", counts(30, 2000))
@pytest.mark.parametrize("policy", ["dropping", "sliding"])
async def test_values_survive_a_lossy_read_buffer_that_nobody_reads(world, seeded, policy, links):
    server = world.raw_listener()
    conn = world.connect(server.address, read_buffer=getattr(Buffer, policy)(3), reconnect=0.001)
    model = Model(policy, 3)
    received = 0
    for link in range(links):
        peer = await world.outside(server.accept)
        for number in range(seeded.randrange(0, 6)):
            data = b"%d.%d" % (link, number)
            peer.send(data)
            model.put(data)
            received += 1
        await world.eventually(lambda total=received: conn.stats().received == total)
        peer.close()
    await world.outside(server.accept)
    await world.eventually(lambda: conn.stats().links == links + 1)
    taken, ups, downs = [], 0, 0
    while len(taken) < len(model.held) or ups != downs + 1:
        item = await world.recv(conn)
        if isinstance(item, bytes):
            taken.append(item)
        elif isinstance(item, Disconnected):
            downs += 1
        else:
            ups += 1
    assert taken == list(model.held)
    assert conn.stats().read_dropped == model.dropped
    assert ups >= 1


# C 34


@ORIGINAL
async def test_dials_that_nobody_accepts_stay_within_the_accept_buffer(world):
    dials, room = 1000, 16
    listener = world.listen(0, accept_buffer=room)
    before = resident_bytes()
    dialled = []
    for number in range(dials):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(split_target(listener.address))
        dialled.append((number, sock))
    try:
        await world.eventually(lambda: listener.stats().waiting == room)
        await world.face.pause(0.1)  # and stays so
        stats = listener.stats()
        assert (stats.waiting, stats.connections) == (room, room)
        assert resident_bytes() - before < 16 * 2**20
        await all_are_served_in_the_end(world, listener, dialled)
    finally:
        for _, sock in dialled:
            sock.close()


async def all_are_served_in_the_end(world, listener, dialled):
    by_address = {}
    for number, sock in dialled:
        by_address["{}:{}".format(*sock.getsockname())] = (number, sock)
    for _ in dialled:
        conn = await world.accept(listener)
        await world.up(conn)
        number, sock = by_address.pop(conn.peer)
        sock.setblocking(True)
        RawPeer(sock).send_bytes(frame(b"%d" % number))
        assert await world.recv(conn) == b"%d" % number
        aio(conn).abort()
    assert not by_address


@ORIGINAL
async def test_a_listener_closed_over_dials_that_nobody_accepted_ends_them_all(world):
    listener = world.listen(0, accept_buffer=4)
    peers = [await world.raw_dial(listener.address) for _ in range(20)]
    await world.eventually(lambda: listener.stats().waiting == 4)
    await world.close(listener)
    for peer in peers:
        data, _ = await world.outside(peer.recv_to_end)
        assert data == b""
    assert isinstance(await world.accept(listener), Closed)
