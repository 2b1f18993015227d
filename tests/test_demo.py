"""`make demo` as a program of its own: what it shows, how it ends, and that its judges are not blind."""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from netasync import Stats

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
TIMEOUT = 100
SMALL = ("--messages", "20000", "--cuts", "30")
TINY = ("--messages", "6000", "--cuts", "2")


def _judges():
    """Load the judges as the demo does, from its directory, which nothing else needs on the path."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("ledger"), importlib.import_module("journal")
    finally:
        sys.path.remove(str(EXAMPLES))


ledger, journal = _judges()


def run_demo(*command: str) -> tuple[int, str]:
    """Run a program in a session of its own, so that its server ends with it; return status and output."""
    started = subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        start_new_session=True,
    )
    try:
        output, _ = started.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        output, _ = started.communicate()
        pytest.fail(f"the demo did not end in {TIMEOUT} s:\n{output}")
    return started.returncode, output


def run_changed(change: str, *arguments: str) -> tuple[int, str]:
    """Run the demo after some lines that may change its modules `demo`, `crash`, `cuts` and `stage`."""
    script = f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n{textwrap.dedent(change)}\n"
    return run_demo("-X", "dev", "-c", f"{script}import demo\nsys.exit(demo.main({list(arguments)}))")


def table(output: str, title: str) -> dict[str, str]:
    """What the table of an act says."""
    lines = output.partition(title)[2].partition("└")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("│")] for line in lines]
    return {cell[1]: cell[2] for cell in cells if len(cell) == 4}


def number(text: str) -> int:
    """The number with which a cell begins."""
    return int(re.match(r"[\d,]+", text)[0].replace(",", ""))


@pytest.fixture(scope="module")
def shown():
    status, output = run_demo(str(EXAMPLES / "demo.py"), *SMALL, "--seed", "20261123")
    assert status == 0, output
    return output


def test_the_demo_shows_a_client_that_starts_first_and_a_server_that_comes_back(shown):
    steps = re.findall(
        r" s  (?:server|client) +(dials|starts again|starts|killed|\w*connected|closed)", shown
    )
    assert steps == [
        *("dials", "disconnected", "starts", "connected"),
        *("killed", "disconnected", "starts again", "connected", "closed"),
        *("starts", "dials", "closed"),
    ]


def test_the_demo_says_why_the_link_is_down_and_when_it_tries_again(shown):
    assert len(re.findall(r"disconnected: .+, next try in \d+\.\d\d s", shown)) == 2


def test_a_server_that_is_killed_loses_nothing_and_what_comes_twice_was_redelivered(shown):
    said = table(shown, "the server is killed in the middle")
    redelivered, twice = number(said["redelivered"]), number(said["of these, seen by both servers"])
    taken = number(said["taken by the server, killed"]) + number(said["taken by the next one"])
    assert (said["lost"], said["damaged"]) == ("0", "0")
    assert twice <= redelivered
    assert f" {redelivered} redelivered" in shown or redelivered == 0
    assert taken - twice + number(said["in the dead server's hands"]) == number(said["sent"]) > 20_000
    assert said["account (stats)"] == "agrees with what was seen"
    assert "messages/s" in said["rate, one way"]
    assert "µs median" in said["to the receipt, one at a time"]


def test_a_link_that_is_cut_again_and_again_loses_nothing_and_repeats_nothing(shown):
    said = table(shown, "the link is cut at random bytes")
    assert (number(said["links cut"]), said["lost"], said["twice"]) == (30, "0", "0")
    assert said["links cut"].endswith("seed 20261123")
    assert 0 < number(said["links resumed"]) <= 30
    assert said["sent"] == said["came back"]
    assert said["account (stats)"] == "agrees with what was seen"


def test_the_demo_needs_neither_rich_nor_uvloop():
    status, output = run_changed(
        """
        sys.modules["rich"] = sys.modules["rich.console"] = sys.modules["uvloop"] = None
        import stage
        assert stage.Console is None
        """,
        *TINY,
    )
    assert status == 0, output
    assert re.search(r"came back +[\d,]+\n", output)


@pytest.mark.parametrize("arguments", [["--messages", "5000"], ["--cuts", "0"]])
def test_the_demo_refuses_what_has_no_middle(arguments):
    assert run_demo(str(EXAMPLES / "demo.py"), *arguments)[0] == 2


# Servers that lie about one message in a thousand

ECHO_LIES = {
    "damaged": "message = message[:-1] + bytes([message[-1] ^ 1])",
    "twice": "await conn.send(message)",
    "out of order": "message, held = held, message",
    "lost": "message = b''",
}
JOURNAL_LIES = {
    "damaged at one server": "message = message[:-1] + bytes([message[-1] ^ 1])",
    "twice at one server": "journal.write(len(message).to_bytes(4, 'big') + message)",
    "out of order at one server": "message, held = held, message",
    "lost": "message = b''",
}


def changed(directory: pathlib.Path, name: str, old: str, new: str) -> pathlib.Path:
    """A server of the demo in which `old` reads `new`."""
    honest = (EXAMPLES / name).read_text(encoding="utf-8")
    assert old in honest
    path = directory / name
    path.write_text(honest.replace(old, new), encoding="utf-8")
    return path


def dishonest(path: pathlib.Path, indent: str, send: str, lie: str) -> str:
    """The program of a server that handles `message` by `send`, changed to lie before it does."""
    honest = path.read_text(encoding="utf-8")
    loop = f"{indent}async for message in conn.messages():\n"
    sends = f"{indent}    {send}\n"
    assert loop in honest and sends in honest
    # What was held back goes first once the next message is there.
    lies = textwrap.indent(
        f"count += 1\nif count % 1000 == 500:\n    {lie}\n"
        f"elif held:\n    {send}\n    message, held = held, b''\n"
        "if not message:\n    continue\n",
        indent + "    ",
    )
    start = f"{indent}count, held = 0, b''\n"
    return honest.replace(loop, start + loop).replace(sends, lies + sends)


@pytest.mark.parametrize("fault", ECHO_LIES)
def test_the_demo_fails_when_what_comes_back_is(fault, tmp_path):
    server = tmp_path / "server.py"
    send = "await conn.send(message)"
    program = dishonest(EXAMPLES / "echo_server.py", " " * 12, send, ECHO_LIES[fault])
    server.write_text(program, encoding="utf-8")
    status, output = run_changed(
        f"import cuts, pathlib\ncuts.SERVER, cuts.PATIENCE = pathlib.Path({str(server)!r}), 5", *TINY
    )
    assert status == 1, output
    assert re.search(rf"FAULT: \d+ {fault}\n", output), output
    assert table(output, "the server is killed in the middle")["lost"] == "0"


@pytest.mark.parametrize("fault", JOURNAL_LIES)
def test_the_demo_fails_when_what_is_written_down_is(fault, tmp_path):
    server = tmp_path / "server.py"
    write = 'journal.write(len(message).to_bytes(4, "big") + message)'
    program = dishonest(EXAMPLES / "journal_server.py", " " * 8, write, JOURNAL_LIES[fault])
    server.write_text(program, encoding="utf-8")
    status, output = run_changed(
        f"import crash, pathlib\ncrash.SERVER = pathlib.Path({str(server)!r})", *TINY
    )
    assert status == 1, output
    assert re.search(rf"FAULT: \d+ {fault}\n", output), output
    assert table(output, "the link is cut at random bytes")["lost"] == "0"


def test_the_demo_fails_when_the_crash_costs_messages():
    """With `on_new_session="discard"` what the dead server had not confirmed is given up."""
    status, output = run_changed(
        """
        import functools, netasync
        netasync.connect = functools.partial(netasync.connect, on_new_session="discard")
        """,
        *TINY,
    )
    assert status == 1, output
    assert re.search(r"FAULT: \d+ lost\n", output), output


def test_the_demo_fails_when_a_cut_ends_the_session(tmp_path):
    """With `session_timeout=0` the listener keeps none: each return is a new session."""
    echo = changed(tmp_path, "echo_server.py", "listen(target)", "listen(target, session_timeout=0)")
    status, output = run_changed(
        f"import cuts, pathlib\ncuts.SERVER, cuts.PATIENCE = pathlib.Path({str(echo)!r}), 5",
        *("--messages", "6000", "--cuts", "20"),
    )
    assert status == 1, output
    assert "FAULT: not true: every link but the first resumed the session" in output


def test_the_demo_fails_when_nothing_moves(tmp_path):
    """Both servers accept a connection, and take nothing from it."""
    loop = "async for message in conn.messages():"
    nothing = "for message in [await conn.wait_closed()][:0]:"
    echo = changed(tmp_path, "echo_server.py", loop, nothing)
    writer = changed(tmp_path, "journal_server.py", loop, nothing)
    status, output = run_changed(
        f"""
        import crash, cuts, pathlib
        crash.SERVER, crash.PATIENCE = pathlib.Path({str(writer)!r}), 1
        cuts.SERVER, cuts.PATIENCE = pathlib.Path({str(echo)!r}), 1
        """,
        *TINY,
    )
    assert status == 1, output
    assert "FAULT: nothing was confirmed for 1 s" in output
    assert "FAULT: nothing came back for 1 s" in output


def test_the_demo_fails_when_the_account_disagrees():
    status, output = run_changed(
        """
        from ledger import Ledger
        Ledger.note_link = lambda ledger: setattr(ledger, "links", ledger.links + 2)
        """,
        *TINY,
    )
    assert status == 1, output
    assert output.count("FAULT: not true: links covers each time the link came up") == 2


# The judges by themselves


def filled(count: int) -> tuple[ledger.Ledger, list[bytes]]:
    """A ledger that has sent `count` messages, and these."""
    made = ledger.Ledger()
    messages = []
    for index in range(count):
        messages.append(made.next_message(b"line %d" % index))
        made.note_sent(messages[-1])
    return made, messages


def test_nothing_is_found_where_nothing_is_wrong():
    made, messages = filled(100)
    for message in messages:
        made.note_back(message)
    assert made.back.faults() == []
    assert made.back.numbers == set(range(100))


@pytest.mark.parametrize("at", range(18))
def test_every_damaged_byte_is_found(at):
    made, messages = filled(1)
    damaged = bytearray(messages[0])
    assert len(damaged) == 18
    damaged[at] ^= 0x10
    made.note_back(bytes(damaged))
    assert made.back.damaged == 1


@pytest.mark.parametrize("length", range(17))
def test_every_cut_message_is_found(length):
    made, messages = filled(1)
    made.note_back(messages[0][:length])
    assert made.back.damaged == 1


def test_what_comes_twice_and_out_of_order_is_found():
    made, messages = filled(4)
    for index in (0, 2, 1, 2, 3):
        made.note_back(messages[index])
    assert made.back.faults() == ["1 twice", "1 out of order"]


def crashed(first: list[int], second: list[int], *, confirmed: int, redelivered: int) -> list[str]:
    """The faults of a crash among ten messages that are written down as said."""
    messages = filled(10)[1]
    arrivals = [ledger.Arrivals.of([messages[index] for index in there], 10) for there in (first, second)]
    seen = journal.Crash(
        sent=10, confirmed=confirmed, redelivered=redelivered, first=arrivals[0], second=arrivals[1]
    )
    return seen.faults()


def test_a_crash_excuses_what_comes_twice_only_where_it_was_redelivered():
    six = list(range(6))
    assert crashed(six, list(range(4, 10)), confirmed=4, redelivered=4) == []
    assert crashed(six, list(range(6, 10)), confirmed=6, redelivered=0) == []
    assert crashed(six, list(range(4, 10)), confirmed=4, redelivered=1) == ["1 twice and not redelivered"]
    assert crashed(six, list(range(3, 10)), confirmed=4, redelivered=4) == ["1 twice and not redelivered"]


def test_a_crash_excuses_no_loss_but_the_one_message_that_was_in_hand():
    six = list(range(6))
    assert crashed(six, [7, 8, 9], confirmed=7, redelivered=3) == []
    assert crashed(six, [7, 8, 9], confirmed=6, redelivered=0) == ["1 lost"]
    assert crashed(six, [8, 9], confirmed=8, redelivered=0) == ["1 lost"]
    assert crashed(six, [6, 7, 9], confirmed=6, redelivered=2) == ["1 lost"]
    assert crashed(six, [4, 5, 7, 8, 9], confirmed=4, redelivered=3) == [
        "1 lost",
        "1 redelivered and not there",
    ]


def test_a_record_that_was_half_written_is_none(tmp_path):
    path = tmp_path / "journal"
    assert list(journal.records(path)) == []
    whole = b"\0\0\0\1a" + b"\0\0\0\2bc"
    for end, there in ((0, []), (3, []), (5, [b"a"]), (8, [b"a"]), (10, [b"a"]), (11, [b"a", b"bc"])):
        path.write_bytes(whole[:end])
        assert list(journal.records(path)) == there


def test_each_figure_of_the_account_that_is_wrong_is_found():
    made, messages = filled(2)
    for message in messages:
        made.note_back(message)
    made.note_link()
    size = sum(4 + len(message) for message in messages)
    true = {"accepted": 2, "confirmed": 2, "received": 2, "consumed": 2, "links": 1}
    true |= {"bytes_sent": size, "bytes_received": size}
    assert made.disagreements(Stats(**true)) == []
    for name, value in true.items():
        assert made.disagreements(Stats(**{**true, name: value - 1})), name
    for name in ("unconfirmed", "queued", "write_dropped", "lost", "waiting", "read_dropped"):
        assert made.disagreements(Stats(**{**true, name: 1})), name
