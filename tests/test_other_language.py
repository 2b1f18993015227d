"""A client in another language, written from `docs/wire.md` alone, against a listener of ours."""

import hashlib
import itertools
import json
import pathlib
import shutil
import subprocess

import pytest

from netasync import Buffer, Disconnected, Reason
from support.peer import split_target
from support.waiting import DEADLINE
from support.wires import OURS

#: One loop and threads: what runs beside them is another process, and costs its start.
pytestmark = [OURS, pytest.mark.faces("asyncio", "threads")]

CLIENT = pathlib.Path(__file__).parent / "peers" / "client.mjs"
LARGE = 2**20


class NodeClient:
    """The client in a process of its own: it sends messages of these lengths, takes `expect`, and closes."""

    def __init__(self, address, send, expect, **options):
        plan = json.dumps({"send": send, "expect": expect, **options})
        host, port = split_target(address)
        command = [shutil.which("node"), CLIENT, host, str(port), plan]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def report(self):
        """What it took and counted, when it has ended."""
        out, _ = self._process.communicate(timeout=DEADLINE)
        assert self._process.returncode == 0, out
        return json.loads(out)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def node(world):
    """Starts the client; without Node there is none."""
    if shutil.which("node") is None:
        print("node is not on this machine: no client in another language was run")
        pytest.skip("node is not on this machine")
    return lambda *args, **options: world.outsider(NodeClient(*args, **options))


def payload(number, length):
    """The message with this number, as both sides make it."""
    return (f"{number}.".encode() * length)[:length]


def payloads(lengths):
    return [payload(number, length) for number, length in enumerate(lengths)]


def digests(messages):
    return [[len(message), hashlib.sha256(message).hexdigest()[:16]] for message in messages]


def lengths_of(rng, count, most):
    """Empty and short ones, and longer ones between them."""
    return [rng.choice((0, 1, rng.randrange(100), rng.randrange(most))) for _ in range(count)]


def cuts(rng, count):
    """Where links end: behind so many bytes, in this direction, in this way; two in a large message."""
    ways = [(rng.choice(("up", "down")), rng.choice(("rst", "fin"))) for _ in range(count)]
    small = [(rng.randrange(1, rng.choice((300, 3000))), *way) for way in ways]
    return [*small, (LARGE // 2, "up", "rst"), (LARGE // 2, "down", "fin")]


async def exchanged(world, conn, answers=()):
    """Everything that the connection yields up to its end, one of `answers` sent for each message taken."""
    messages, values, answers = [], [], iter(answers)
    async for item in world.items(conn):
        if not isinstance(item, bytes):
            values.append(item)
            continue
        messages.append(item)
        for answer in itertools.islice(answers, 1):
            await world.send(conn, answer)
    return messages, values


async def send_all(world, conn, messages):
    for message in messages:
        await world.send(conn, message)


def faults(values):
    """The breaks that no cut explains."""
    explained = (Reason.RESET, Reason.EOF, Reason.TRUNCATED, Reason.REPLACED)
    return [v for v in values if isinstance(v, Disconnected) and v.reason not in explained]


async def test_a_client_in_another_language_loses_nothing_and_doubles_nothing_over_many_cuts(
    world, node, seeded
):
    up, down = ([*lengths_of(seeded, 120, 5000), LARGE, *lengths_of(seeded, 5, 5000)] for _ in range(2))
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    proxy.cut_again_and_again(cuts(seeded, 30))
    # What it keeps unconfirmed is little, so that both directions have something to lose at every cut.
    client = node(proxy.address, up, len(down), hold=10_000)
    conn = await world.accept(listener)
    messages, values = await exchanged(world, conn, payloads(down))
    report = await world.outside(client.report)
    assert digests(messages) == digests(payloads(up))
    assert report["taken"] == digests(payloads(down))
    assert not faults(values) and report.get("fault") is None, (values, report)
    assert proxy.cuts > 15 and report["resumed"] > 10 and report["redelivered"] == 0, (proxy.cuts, report)
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_BY_PEER, 0)
    assert (report["unconfirmed"], report["closedWith"]) == (0, 0)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_large_message_that_was_cut_comes_whole_and_once(world, node, direction):
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    proxy.cut_again_and_again([(LARGE // 2, direction, "rst"), (LARGE // 2, direction, "fin")])
    lengths = [3, LARGE, 0, 256 * 1024, 256 * 1024 + 1, 256 * 1024 - 4]
    client = node(proxy.address, lengths, len(lengths))
    conn = await world.accept(listener)
    await send_all(world, conn, payloads(lengths))
    messages, values = await exchanged(world, conn)
    report = await world.outside(client.report)
    assert (digests(messages), report["taken"]) == (digests(payloads(lengths)),) * 2
    assert (proxy.cuts, report["resumed"], faults(values), report.get("fault")) == (2, 2, [], None)


async def test_the_smallest_windows_limit_a_client_in_another_language_and_harm_nothing(world, node, seeded):
    lengths = [*lengths_of(seeded, 40, 900), 0, 5000, 0, 300_000, 7]
    few = Buffer.fixed(3, max_bytes=1000)
    listener = world.listen(0, read_buffer=few, write_buffer=Buffer.fixed(3, max_bytes=1500))
    proxy = world.proxy(listener.address)
    small = {"window": 1200, "maxMessages": 2, "hold": 1500, "takeEvery": 1, "maxSize": 300_000}
    client = node(proxy.address, lengths, len(lengths), **small)
    conn = await world.accept(listener)
    sending = world.spawn(send_all(world, conn, payloads(lengths)))
    messages, values = [], []
    async for item in world.items(conn):
        (messages if isinstance(item, bytes) else values).append(item)
        if len(messages) in (10, 20, 30) and isinstance(item, bytes):
            await world.outside(proxy.cut)
        stats = conn.stats()
        assert stats.waiting <= 3 and stats.unconfirmed <= 2, stats
    await world.join(sending)
    report = await world.outside(client.report)
    assert (digests(messages), report["taken"]) == (digests(payloads(lengths)),) * 2
    assert report["waits"] > 10 and not faults(values) and report.get("fault") is None, (report, values)


async def test_a_client_in_another_language_confirms_in_time_and_answers_ask(world, node):
    listener = world.listen(0)
    client = node(listener.address, [1], 4)
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.recv(conn) == payload(0, 1)
    await world.send(conn, b"one", confirm="received")
    await world.send(conn, b"two", confirm="consumed")
    await world.send(conn, b"three")
    await world.eventually(lambda: conn.stats().confirmed == 3, "250 ms are enough", deadline=2.5)
    await world.send(conn, b"four")
    assert (await world.end(conn)).undelivered == 0
    assert (await world.outside(client.report))["taken"] == digests([b"one", b"two", b"three", b"four"])


async def test_a_client_in_another_language_lives_through_silence_by_ping_and_pong(world, node):
    listener = world.listen(0, heartbeat_interval=0.05, heartbeat_timeout=1)
    client = node(listener.address, [], 1, timeout=1000)
    conn = await world.accept(listener)
    await world.up(conn)
    await world.stays_quiet(conn, 2.5)
    assert conn.latency is not None
    await world.send(conn, b"still there")
    assert (await world.end(conn)).reason is Reason.CLOSED_BY_PEER
    report = await world.outside(client.report)
    assert report["pings"] > 3 and report["links"] == 1, report


async def test_a_client_in_another_language_delivers_what_came_before_our_close(world, node):
    listener = world.listen(0)
    # It takes rarely: most of what it delivers it has not taken when CLOSE comes.
    client = node(listener.address, [2, LARGE, 0], 1000, takeEvery=100)
    conn = await world.accept(listener)
    await world.up(conn)
    assert [await world.recv(conn) for _ in range(3)] == payloads([2, LARGE, 0])
    sent = payloads(range(50))
    await send_all(world, conn, sent)
    await world.close(conn)
    end = await world.wait_closed(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)
    report = await world.outside(client.report)
    assert (report["taken"], report["closedWith"], report["unconfirmed"]) == (digests(sent), 0, 0)


async def test_where_no_session_is_held_a_client_in_another_language_redelivers_in_order(world, node):
    listener = world.listen(0, session_timeout=0)
    proxy = world.proxy(listener.address)
    sent = payloads([number + 3 for number in range(60)])
    client = node(proxy.address, [len(message) for message in sent], 1, hold=500)
    runs, links = [], 4
    for _ in range(links):
        conn = await world.accept(listener)
        runs.append([])
        async for item in world.items(conn):
            if isinstance(item, bytes):
                runs[-1].append(item)
            if len(runs) < links and len(runs[-1]) == 5:
                await world.outside(proxy.cut)
            elif item == sent[-1]:
                await world.send(conn, b"enough")
    at = 0
    for run in runs:
        first = sent.index(run[0])
        assert first <= at and run == sent[first : first + len(run)], "in order, and nothing is missing"
        at = first + len(run)
    report = await world.outside(client.report)
    assert (at, report["unconfirmed"], report["links"], report["resumed"]) == (len(sent), 0, links, 0)
    assert report["redelivered"] > 0 and report.get("fault") is None, report
