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

pytestmark = OURS

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
        self._process.communicate()


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
    """Where links end: behind so many bytes, in this direction, in this way; two of them in a large message."""
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
