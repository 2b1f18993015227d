"""`make demo` as a program of its own: what it shows, how it ends, and that its judge is not blind."""

from __future__ import annotations

import importlib.util
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
TIMEOUT = 60


def _ledger_module():
    spec = importlib.util.spec_from_file_location("demo_ledger", EXAMPLES / "ledger.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ledger = _ledger_module()


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


@pytest.fixture(scope="module")
def shown():
    status, output = run_demo(str(EXAMPLES / "demo.py"))
    assert status == 0, output
    return output


def test_the_demo_shows_a_client_that_starts_first_and_a_server_that_comes_back(shown):
    steps = re.findall(
        r" s  (?:server|client) +(dials|starts again|starts|killed|\w*connected|closed)", shown
    )
    assert steps == [
        *("dials", "disconnected", "starts", "connected"),
        *("killed", "disconnected", "starts again", "connected", "closed"),
    ]


def test_the_demo_says_why_the_link_is_down_and_when_it_tries_again(shown):
    assert len(re.findall(r"disconnected: .+, next try in \d+\.\d\d s", shown)) == 2


def test_the_demo_compares_what_was_sent_with_what_came_back(shown):
    numbers = dict(
        re.findall(r"(sent|came back|lost to the break|missing without a break) +│? +([\d,]+)", shown)
    )
    sent, back, lost, missing = (int(numbers[name].replace(",", "")) for name in numbers)
    assert list(numbers) == ["sent", "came back", "lost to the break", "missing without a break"]
    assert sent == back + lost
    assert missing == 0
    assert sent > 300_000
    assert "agrees with what was seen" in shown
    assert "messages/s" in shown
    assert "µs median" in shown


def test_the_demo_ends_in_time(shown):
    assert max(float(seconds) for seconds in re.findall(r"^ +([\d.]+) s ", shown, re.M)) < 30


def test_the_demo_needs_neither_rich_nor_uvloop():
    script = f"""
        import sys
        sys.modules["rich"] = sys.modules["rich.console"] = sys.modules["uvloop"] = None
        sys.path.insert(0, {str(EXAMPLES)!r})
        import demo
        assert demo.Console is None
        demo.MESSAGES, demo.ROUND_TRIPS = 1_000, 50
        sys.exit(demo.main())
        """
    status, output = run_demo("-X", "dev", "-c", textwrap.dedent(script))
    assert status == 0, output
    assert re.search(r"came back +[\d,]+\n", output)


LIES = {
    "damaged": "message = message[:-1] + bytes([message[-1] ^ 1])",
    "twice": "await conn.send(message)",
    "out of order": "message, held = held, message",
    "missing without a break": "message = b''",
}


@pytest.mark.parametrize("fault", LIES)
def test_the_demo_fails_when_messages_are(fault, tmp_path):
    """The server damages, doubles, swaps or drops one message in a thousand."""
    server = tmp_path / "server.py"
    honest = (EXAMPLES / "echo_server.py").read_text(encoding="utf-8")
    loop = " " * 12 + "async for message in conn.messages():\n"
    send = " " * 16 + "await conn.send(message)\n"
    assert loop in honest and send in honest
    lie = textwrap.indent(
        f"count += 1\nif count % 1000 == 500:\n    {LIES[fault]}\n"
        "elif held:\n    await conn.send(message)\n    message, held = held, b''\n"
        "if not message:\n    continue\n",
        " " * 16,
    )
    dishonest = honest.replace(loop, " " * 12 + "count, held = 0, b''\n" + loop).replace(send, lie + send)
    server.write_text(dishonest, encoding="utf-8")
    script = f"""
        import pathlib, sys
        sys.path.insert(0, {str(EXAMPLES)!r})
        import demo
        demo.SERVER = pathlib.Path({str(server)!r})
        demo.MESSAGES, demo.ROUND_TRIPS, demo.STREAM_LIMIT = 1_000, 50, 10
        sys.exit(demo.main())
        """
    status, output = run_demo("-X", "dev", "-c", textwrap.dedent(script))
    assert status == 1, output
    assert re.search(rf"FAULT: \d+ {fault}\n", output), output


def test_the_demo_fails_when_the_account_disagrees():
    script = f"""
        import sys
        sys.path.insert(0, {str(EXAMPLES)!r})
        import demo
        demo.MESSAGES, demo.ROUND_TRIPS = 1_000, 50
        demo.Ledger.note_link = lambda ledger: setattr(ledger, "links", ledger.links + 2)
        sys.exit(demo.main())
        """
    status, output = run_demo("-X", "dev", "-c", textwrap.dedent(script))
    assert status == 1, output
    assert "FAULT: not true: links is how often the link came up" in output


# The judge by itself


def filled(count: int) -> tuple[ledger.Ledger, list[bytes]]:
    """A ledger that has sent `count` messages, and these."""
    made = ledger.Ledger()
    messages = []
    for number in range(count):
        messages.append(made.next_message(b"line %d" % number))
        made.note_sent(messages[-1])
    return made, messages


def test_the_ledger_finds_nothing_where_nothing_is_wrong():
    made, messages = filled(100)
    for message in messages:
        made.note_back(message)
    assert made.faults() == []
    assert made.missing == 0


@pytest.mark.parametrize("at", range(18))
def test_the_ledger_finds_every_damaged_byte(at):
    made, messages = filled(1)
    damaged = bytearray(messages[0])
    assert len(damaged) == 18
    damaged[at] ^= 0x10
    made.note_back(bytes(damaged))
    assert made.damaged == 1


@pytest.mark.parametrize("length", range(17))
def test_the_ledger_finds_every_cut(length):
    made, messages = filled(1)
    made.note_back(messages[0][:length])
    assert made.damaged == 1


def test_the_ledger_finds_what_comes_twice_and_out_of_order():
    made, messages = filled(4)
    for index in (0, 2, 1, 2, 3):
        made.note_back(messages[index])
    assert made.faults() == ["1 twice", "1 out of order"]


def test_a_break_excuses_only_what_was_on_its_way():
    """0 is missing from before what came back, 2 was on its way, 3 was only queued."""
    made, messages = filled(5)
    made.note_back(messages[1])
    made.note_break(Stats(confirmed=3))
    made.note_back(messages[4])
    assert made.lost_to_breaks == 1
    assert made.faults() == ["2 missing without a break"]


def test_the_ledger_finds_each_figure_of_the_account_that_is_wrong():
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
