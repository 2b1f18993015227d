"""The fault programme, B: links. However they break, what arrives is in order and nothing comes twice."""

import itertools
import subprocess
import threading

import pytest

from netasync import Backoff, Buffer, Closed, ClosedError, Connected, Disconnected, Reason, State
from support.counts import counts
from support.faces import aio
from support.namespace import missing, run_with_names
from support.process import open_descriptors, script_command
from support.wires import ORIGINAL, OURS

BREAKS = {"rst": Reason.RESET, "fin": Reason.EOF}


def increasing(payloads):
    """The numbers with which the payloads begin, and which must increase."""
    numbers = [int(data.split(b" ", 1)[0]) for data in payloads]
    assert all(one < other for one, other in itertools.pairwise(numbers)), "twice, or out of order"
    return numbers


async def through_a_proxy(world, **options):
    """A listener, a proxy before it, and a dialler whose link is up."""
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, **options)
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    return client, served, listener, proxy


# B 14


@ORIGINAL
@pytest.mark.parametrize("how", sorted(BREAKS))
async def test_an_idle_link_that_breaks_is_seen_by_both_and_the_next_one_works(world, how):
    client, served, listener, proxy = await through_a_proxy(world)
    for _ in range(5):
        proxy.cut(how)
        assert (await world.down(client)).reason is BREAKS[how]
        assert (await world.end(served)).reason is BREAKS[how]
        served = await world.accept(listener)
        await world.up(served)
        assert not (await world.up(client)).resumed
        await world.send(client, b"on")
        assert await world.recv(served) == b"on"


@OURS
@pytest.mark.parametrize("how", sorted(BREAKS))
async def test_an_idle_link_that_breaks_is_taken_up_by_the_next_one(world, how):
    client, served, listener, proxy = await through_a_proxy(world)
    for _ in range(5):
        proxy.cut(how)
        assert (await world.down(client)).reason is BREAKS[how]
        assert (await world.down(served)).reason in (BREAKS[how], Reason.REPLACED)
        assert (await world.up(client)).resumed
        assert (await world.up(served)).resumed
        await world.send(client, b"on")
        assert await world.recv(served) == b"on"
    assert listener.stats().accepted == 1


@ORIGINAL
@pytest.mark.parametrize("how", sorted(BREAKS))
async def test_a_link_that_breaks_in_the_middle_of_a_frame_delivers_nothing_of_it(world, how):
    client, served, listener, proxy = await through_a_proxy(world)
    for size in (10, 1000, 100_000):
        proxy.cut_after(size // 2, "up", how)
        await world.send(client, bytes(size))  # the kernel has it whole: on this wire it was delivered
        end = await world.end(served)
        assert end.reason in (Reason.TRUNCATED, *([Reason.RESET] if how == "rst" else []))
        await world.down(client)
        served = await world.accept(listener)
        await world.up(served)
        await world.up(client)
        await world.send(client, b"whole")
        assert await world.recv(served) == b"whole"


@ORIGINAL
@pytest.mark.parametrize("how", sorted(BREAKS))
async def test_a_frame_that_the_kernel_had_only_in_part_goes_again_whole(world, how):
    client, served, listener, proxy = await through_a_proxy(world)
    payload = bytes(range(256)) * 50_000
    proxy.cut_after(1_000_000, "up", how)
    sending = world.spawn(world.send(client, payload, b"behind it"))
    await world.end(served)
    served = await world.accept(listener)
    await world.up(served)
    assert await world.take(served, 2) == [payload, b"behind it"]
    assert await world.join(sending) is True
    down, up = await world.down(client), await world.up(client)
    assert (down.unconfirmed >= 1, up.lost, client.stats().lost) == (True, 0, 0)


@pytest.mark.parametrize("megabytes", counts(6, 64))
async def test_links_that_break_under_traffic_keep_the_order_and_double_nothing(world, seeded, megabytes):
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, write_buffer=Buffer.fixed(20))
    size = 8_000
    count = megabytes * 2**20 // size
    is_sent = False
    collected, echoes, collecting = [], [], []

    async def collect(conn):
        taken = []
        collected.append(taken)
        while not isinstance(item := await world.recv(conn), Closed):
            if isinstance(item, bytes):
                taken.append(item)
                try:
                    await world.send(conn, item)
                except ClosedError:
                    continue

    async def serve():
        async for conn in world.accepted_by(listener):
            collecting.append(world.spawn(collect(conn)))

    async def produce():
        nonlocal is_sent
        for number in range(count):
            await world.send(client, b"%d " % number + bytes(size))
        is_sent = True

    async def listen_to_echoes():
        while not isinstance(item := await world.recv(client), Closed):
            if isinstance(item, bytes):
                echoes.append(item)

    serving, producing = world.spawn(serve()), world.spawn(produce())
    hearing = world.spawn(listen_to_echoes())
    breaks = 0
    while not is_sent and breaks < 200:
        links = client.stats().links
        proxy.cut_after(
            seeded.randrange(1, 400_000), seeded.choice(["up", "down"]), seeded.choice(["rst", "fin"])
        )
        await world.eventually(lambda links=links: is_sent or client.stats().links > links)
        breaks += 1
    await world.join(producing)
    await world.flush(client)
    await world.close(client)
    await world.join(hearing)
    await world.close(listener)
    await world.join(serving)
    for one in collecting:
        await world.join(one)
    numbers = increasing([data for taken in collected for data in taken])
    increasing(echoes)
    assert len(numbers) <= count
    assert client.stats().links > 1


# B 15


@ORIGINAL
@pytest.mark.parametrize("count", counts(40, 1000))
async def test_replies_that_are_queued_still_arrive_when_the_peer_has_half_closed(world, count):
    listener = world.listen(0)
    for number in range(count):
        peer = await world.raw_dial(listener.address)
        peer.send(b"request %d" % number)
        peer.half_close()
        conn = await world.accept(listener)
        await world.up(conn)
        assert await world.recv(conn) == b"request %d" % number
        replies = [b"%d of %d " % (nth, number) + bytes(nth * 20_000) for nth in range(5)]
        await world.send(conn, *replies)
        receiving = world.spawn(world.outside(peer.messages_to_end))
        assert (await world.end(conn)).reason is Reason.EOF
        assert await world.join(receiving) == replies
        peer.close()


# B 16


@ORIGINAL
@pytest.mark.parametrize("count", counts(40, 1000))
@pytest.mark.parametrize("role", ["dialler", "accepted"])
async def test_closing_over_unread_input_destroys_none_of_the_output(world, role, count):
    server = world.raw_listener()
    listener = world.listen(0)
    for _ in range(count):
        if role == "dialler":
            conn = world.connect(server.address)
            peer = await world.outside(server.accept)
        else:
            peer = await world.raw_dial(listener.address)
            conn = await world.accept(listener)
        await world.up(conn)
        peer.send(b"unread 1", b"unread 2", b"unread 3")
        await world.arrived(conn, 3)
        await world.send(conn, bytes(100_000))
        world.start_close(conn)
        assert await world.outside(peer.messages_to_end) == [bytes(100_000)]
        peer.close()
        end = await world.end(conn)
        assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)
        assert conn.stats().read_dropped == 3


# B 20

ECHO_SERVER = """
    import sys, threading, netasync.blocking as na
    def echo(conn):
        for item in conn:
            if isinstance(item, bytes):
                conn.send(item)
    for conn in na.listen(int(sys.argv[1])):
        threading.Thread(target=echo, args=(conn,)).start()
"""


@OURS
@pytest.mark.parametrize("count", counts(4, 100))
async def test_a_server_killed_under_traffic_again_and_again_echoes_all_that_came_later(world, count):
    port = world.reserved_port()
    retry = Backoff(0.01, maximum=0.1)
    client = world.connect(
        port.address, write_buffer=Buffer.fixed(50), reconnect=retry, on_new_session="discard"
    )
    echoes, sent, over = [], 0, threading.Event()

    async def produce():
        nonlocal sent
        while not over.is_set():
            await world.send(client, b"%d " % sent + bytes(200))
            sent += 1

    async def listen_to_echoes():
        while not isinstance(item := await world.recv(client), Closed):
            if isinstance(item, bytes):
                echoes.append(item)

    def has_echoed(number):
        return echoes and int(echoes[-1].split(b" ")[0]) >= number

    producing, hearing = world.spawn(produce()), world.spawn(listen_to_echoes())
    for life in range(1, count + 2):
        command = script_command(ECHO_SERVER, str(port.port))
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
            try:
                await world.eventually(lambda life=life: client.stats().links >= life, "a link to it")
                await world.eventually(
                    lambda later=sent + 100: has_echoed(later), "echoes of what came later"
                )
                if life > count:
                    over.set()
                    await world.join(producing)
                    await world.send(client, b"%d the last" % sent)
                    await world.eventually(lambda: has_echoed(sent))
            finally:
                server.kill()
        await world.eventually(lambda: client.state is not State.CONNECTED or over.is_set())
    await world.close(client)
    await world.join(hearing)
    increasing(echoes)
    breaks = [item for item in world.taken(client) if isinstance(item, Disconnected)]
    assert len(breaks) >= count
    assert client.stats().links >= count + 1


# B 21


@ORIGINAL
async def test_a_client_that_starts_first_and_only_writes_loses_nothing_and_sees_one_disconnected(world):
    port = world.reserved_port()
    client = world.connect(port.address, reconnect=Backoff(initial=0.01, maximum=0.1))
    sent = [b"%d" % number for number in range(5000)]
    assert await world.send_many(client, sent) == 5000
    await world.eventually(lambda: client.stats().attempts >= 5)
    peer = await world.outside(world.raw_listener(port.port).accept)
    assert await world.outside(peer.recv_many, 5000) == sent
    down = await world.down(client)
    assert down.reason is Reason.REFUSED
    up = await world.up(client)
    assert (up.lost, up.attempt) == (0, client.stats().attempts)


# B 22


@pytest.mark.parametrize(("times", "live"), [(25, 20), pytest.param(1000, 200, marks=pytest.mark.soak)])
async def test_a_port_with_live_connections_can_be_listened_on_again_and_again(world, times, live):
    listener = world.listen(0, accept_buffer=live)
    port = int(listener.address.rpartition(":")[2])
    clients = [world.connect(listener.address) for _ in range(live)]
    served = [await world.accept(listener) for _ in clients]
    for conn in [*clients, *served]:
        await world.up(conn)
    for number in range(times):
        await world.close(listener)
        listener = world.listen(port)
        visitor = world.connect(listener.address)
        guest = await world.accept(listener)
        await world.send(visitor, b"%d" % number)
        await world.up(guest)
        assert await world.recv(guest) == b"%d" % number
        aio(visitor).abort()
        aio(guest).abort()
    for one, other in zip(clients, served, strict=True):
        assert one.stats().links == 1
        assert other.state is State.CONNECTED


# B 23


async def test_a_name_that_nobody_knows_is_asked_for_again_at_each_attempt_and_holds_nothing_up(world):
    world.may_leave_lookups = True
    client, served, _ = await world.pair()
    lost = world.connect("no-such-host.invalid:9", reconnect=0.01, close_timeout=0.1)
    assert (await world.down(lost)).reason is Reason.NAME_NOT_FOUND
    for _ in range(3):
        before = lost.stats().attempts
        await world.eventually(lambda before=before: lost.stats().attempts > before)
        await world.send(client, b"meanwhile")
        assert await world.recv(served) == b"meanwhile"
    aio(lost).abort()


needs_namespaces = pytest.mark.skipif(bool(missing()), reason=missing() or "namespaces")


@needs_namespaces
def test_a_name_that_appears_later_and_then_moves_is_followed():
    run_with_names("""
        import netasync, netasync.blocking as na
        first = na.listen("127.0.0.2:0")
        port = int(first.address.rpartition(":")[2])
        second = na.listen(f"127.0.0.3:{port}")
        conn = na.connect(f"late.example:{port}", reconnect=0.02)
        down = conn.recv(timeout=30)
        assert down.reason is netasync.Reason.NAME_NOT_FOUND, down
        hosts("127.0.0.1 localhost\\n127.0.0.2 late.example\\n")
        up = conn.recv(timeout=30)
        assert up.peer == f"127.0.0.2:{port}", up
        served = first.accept(timeout=30)
        hosts("127.0.0.1 localhost\\n127.0.0.3 late.example\\n")
        served.aio.abort()
        assert isinstance(conn.recv(timeout=30), netasync.Disconnected)
        up = conn.recv(timeout=30)
        assert up.peer == f"127.0.0.3:{port}", up
        again = second.accept(timeout=30)
        again.aio.abort(); conn.aio.abort()
        first.close(); second.close()
    """)


@needs_namespaces
def test_of_a_dead_and_a_live_address_the_live_one_is_found_in_one_attempt():
    run_with_names("""
        import netasync, netasync.blocking as na
        listener = na.listen("127.0.0.2:0")
        port = int(listener.address.rpartition(":")[2])
        hosts("127.0.0.1 localhost\\n127.0.0.9 both.example\\n127.0.0.2 both.example\\n")
        for _ in range(5):
            conn = na.connect(f"both.example:{port}", reconnect=600)
            up = conn.recv(timeout=30)
            assert isinstance(up, netasync.Connected), up
            assert (up.peer, up.attempt) == (f"127.0.0.2:{port}", 1)
            conn.aio.abort()
            listener.accept(timeout=30).aio.abort()
        listener.close()
    """)


@needs_namespaces
def test_a_resolver_that_does_not_answer_ends_the_attempt_and_holds_neither_loop_nor_exit():
    said = run_with_names("""
        import asyncio, time, netasync
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 53))
        resolve_by("dns")

        async def main():
            begun = time.monotonic()
            lost = netasync.connect("hangs.example:9", open_timeout=0.3, reconnect=0.01, close_timeout=0.1)
            took = time.monotonic() - begun
            silent.recv(1)  # somebody asks, and gets no answer
            async with netasync.listen(0) as listener, netasync.connect(listener.address) as client:
                served = await listener.accept()
                await client.recv(), await served.recv()
                for _ in range(200):
                    await client.send(b"meanwhile")
                    assert await served.recv() == b"meanwhile"
                down = await lost.recv()
                assert down.reason is netasync.Reason.OPEN_TIMEOUT, down
                attempts = lost.stats().attempts
                while lost.stats().attempts < attempts + 2:
                    await asyncio.sleep(0.01)
                served.close()
            lost.abort()
            return took

        print(f"connect returned after {asyncio.run(main()) * 1000:.1f} ms")
        silent.close()
    """)
    print(said)


# B 25


@pytest.mark.parametrize("count", counts(25, 1000))
async def test_a_link_that_flaps_has_one_socket_at_a_time_and_leaves_none_behind(world, seeded, count):
    client, served, listener, proxy = await through_a_proxy(world, reconnect=0.001)
    before = len(open_descriptors())
    for number in range(count):
        data = b"%d" % number
        await world.send(client, data)
        assert await world.recv(served) == data
        assert proxy.live == 1
        proxy.cut(seeded.choice(["rst", "fin"]))
        assert isinstance(await world.recv(client), Disconnected)
        await world.lost(served)
        if world.wire == "net.async":
            served = await world.accept(listener)
        await world.up(served)
        assert isinstance(await world.recv(client), Connected)
        assert len(open_descriptors()) <= before + 4
    assert proxy.accepted == client.stats().links == count + 1


@ORIGINAL
async def test_a_link_that_flaps_without_a_message_waits_longer_each_time(world):
    server = world.raw_listener()
    conn = world.connect(server.address, reconnect=Backoff(initial=0.01, factor=2, maximum=30, jitter="none"))
    waits = []
    for _ in range(6):
        peer = await world.outside(server.accept)
        await world.up(conn)
        peer.close()
        waits.append((await world.down(conn)).retry_in)
    assert waits == pytest.approx([0.01 * 2**nth for nth in range(6)], rel=0.01)
