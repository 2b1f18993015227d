"""F 58: a process is killed in the middle. What the other one says of it then is exactly true."""

import signal
import subprocess

import pytest

from netasync import Backoff, Connected, Disconnected, Reason
from support.counts import counts
from support.process import script_command
from support.wires import OURS

pytestmark = OURS

QUICK = Backoff(initial=0.005, factor=1.5, maximum=0.05)
#: Bytes of a message, which are a line of the journal.
LINE = 8

#: Notes each message that it takes, in a file that outlives it, and sends it back.
JOURNALIST = """
    import os, sys
    from netasync import Closed, blocking

    how, target, path = sys.argv[1:]
    journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if how == "listen":
        listener = blocking.listen(target)
        print(listener.address, flush=True)
        conn = listener.accept()
    else:
        conn = blocking.connect(target)
    while not isinstance(item := conn.recv(), Closed):
        if isinstance(item, bytes):
            os.write(journal, item)
            conn.send(item)
"""


class Journalist:
    """A process that will be killed, and the journal that it leaves."""

    def __init__(self, how, target, path):
        self.path = path
        path.touch()
        command = script_command(JOURNALIST, how, target, str(path))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def address(self):
        return self.process.stdout.readline().strip()

    def count(self):
        return self.path.stat().st_size // LINE

    def numbers(self):
        return [int(line) for line in self.path.read_text().split()]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def lines(numbers):
    return [b"%07d\n" % number for number in numbers]


async def hired(world, how, target, path):
    journalist = world.outsider(Journalist(how, target, path))
    return journalist, await world.outside(journalist.address) if how == "listen" else None


async def echoes_up_to(world, conn, kind):
    """The numbers of the messages before the next value of this kind, and that value."""
    numbers = []
    while isinstance(item := await world.recv(conn), bytes):
        numbers.append(int(item))
    assert isinstance(item, kind), item
    return numbers, item


def is_sequence(numbers):
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True


@pytest.mark.parametrize("kills", counts(2, 120))
@pytest.mark.parametrize("choice", ["redeliver", "discard"])
async def test_what_a_dialler_says_of_a_killed_server_is_exactly_true(world, seeded, tmp_path, kills, choice):
    """Each new server's journal begins where the account says that the one before had come to."""
    server, address = await hired(world, "listen", ":0", tmp_path / "0")
    client = world.connect(address, on_new_session=choice, reconnect=QUICK)
    await world.up(client)
    made, lost, in_hand = 0, [], set()
    for life in range(1, kills + 1):
        count = seeded.randrange(1, 1500)
        goal = server.count() + seeded.randrange(count)
        sending = world.spawn(world.send(client, *lines(range(made, made + count))))
        made += count
        await world.eventually(lambda server=server, goal=goal: server.count() >= goal)
        await world.outside(server.kill)
        echoes, down = await echoes_up_to(world, client, Disconnected)
        await world.join(sending)
        journal, stats = server.numbers(), client.stats()
        assert is_sequence(journal) and is_sequence(echoes)
        # What a process has taken in the instant of its death it may not have noted any more.
        noted = journal[0] + len(journal) if journal else stats.confirmed + stats.lost
        assert stats.confirmed + stats.lost <= noted + 1
        in_hand.update(range(noted, stats.confirmed + stats.lost))
        assert set(echoes) <= set(journal) and down.unconfirmed <= stats.unconfirmed + stats.queued
        begun = stats.confirmed + stats.lost + stats.unconfirmed
        server, _ = await hired(world, "listen", address, tmp_path / str(life))
        _, up = await echoes_up_to(world, client, Connected)
        assert not up.resumed
        carried = stats.unconfirmed
        assert (up.redelivered, up.lost) == ((carried, 0) if choice == "redeliver" else (0, carried))
        first = stats.confirmed + stats.lost + up.lost
        assert begun == first + up.redelivered
        lost += range(first - up.lost, first)
        if first < made:
            await world.eventually(lambda server=server: server.count() > 0)
            assert server.numbers()[0] == first
    assert await world.finish(client, 60) == 0
    stats = client.stats()
    assert (stats.accepted, stats.confirmed + stats.lost, stats.lost) == (made, made, len(lost))
    journals = [int(line) for life in range(kills + 1) for line in (tmp_path / str(life)).read_text().split()]
    missing = set(range(made)) - set(journals)
    assert missing <= set(lost) | in_hand and len(journals) - len(set(journals)) <= stats.redelivered


@pytest.mark.parametrize("kills", counts(2, 120))
async def test_what_a_listener_says_of_a_killed_dialler_is_exactly_true(world, seeded, tmp_path, kills):
    """`undelivered` is what the account does not know to be taken, and the journal agrees."""
    listener = world.listen(0, session_timeout=0.05)
    for life in range(kills):
        dialler, _ = await hired(world, "connect", listener.address, tmp_path / str(life))
        served = await world.accept(listener)
        await world.up(served)
        count = seeded.randrange(1, 1500)
        await world.send(served, *lines(range(count)))
        goal = seeded.randrange(count)
        await world.eventually(lambda dialler=dialler, goal=goal: dialler.count() >= goal)
        await world.outside(dialler.kill)
        echoes, _ = await echoes_up_to(world, served, Disconnected)
        end = await world.end(served)
        journal, stats = dialler.numbers(), served.stats()
        assert (end.reason, end.undelivered) == (Reason.SESSION_EXPIRED, count - stats.confirmed)
        assert journal == list(range(len(journal))) and echoes == journal[: len(echoes)]
        assert stats.confirmed <= len(journal) + 1
