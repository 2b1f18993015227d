"""`make bench` as a program of its own: it measures everybody and checks every message. Never how fast."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT = 100


def _package():
    """Load the package from where it is: no directory of the sources is on the path."""
    where = ROOT / "bench"
    spec = importlib.util.spec_from_file_location(
        "bench", where / "__init__.py", submodule_search_locations=[str(where)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


_package()
from bench.figures import Spread, cpu_ratio, ratio  # noqa: E402
from bench.messages import Messages  # noqa: E402
from bench.peers import Peer, peers, sessionless  # noqa: E402
from bench.processes import Side, SideError  # noqa: E402
from bench.quiet import Others  # noqa: E402
from bench.rounds import Round, Row  # noqa: E402
from bench.sides.callbacks import Framed  # noqa: E402
from bench.sides.framing import write_frame  # noqa: E402
from bench.sides.ours_awaited import listen_options  # noqa: E402
from bench.sides.setup import Setup  # noqa: E402
from bench.targets import TARGETS, Target  # noqa: E402
from bench.workloads import (  # noqa: E402
    CONNECTIONS,
    OF_SESSIONS,
    ONE_WAY_1M,
    ONE_WAY_64,
    ROUND_TRIP,
    WORKLOADS,
)


def run_bench(*arguments: str) -> tuple[int, str]:
    """Run it with next to no effort; return status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run of everything printed, and what it wrote."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    status, output = run_bench("--json", str(file))
    assert status == 0, output
    return output, json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_each_peer_has_a_row_in_each_workload(run, workload):
    output, written = run
    table = output.partition(workload.title)[2].partition("└")[0]
    rows = written["workloads"][workload.name]
    assert list(rows) == [peer.name for peer in peers() if peer.does(workload)]
    for peer in peers():
        if not peer.does(workload):
            continue
        assert f"│ {peer.title} " in table
        row = rows[peer.name]
        if peer.missing:
            assert row == {"problem": f"{peer.missing} is not installed", "rounds": []}
        elif row["problem"]:
            assert "compiler" in row["problem"]
        else:
            assert all(each["figure"] > 0 or workload is CONNECTIONS for each in row["rounds"])


def test_both_processes_cost_cpu_time(run):
    beats = {peer.name: peer.has_heartbeats for peer in peers()}
    for name, rows in run[1]["workloads"].items():
        for peer, row in rows.items():
            if name == CONNECTIONS.name and not beats[peer]:
                continue  # it holds its connections without heartbeats: nothing happens
            assert all(each["client_cpu"] > 0 and each["server_cpu"] > 0 for each in row["rounds"])


def test_each_target_is_named_with_what_was_reached(run):
    output, written = run
    has_uvloop = not any(peer.missing == "uvloop" for peer in peers())
    for target in TARGETS:
        assert target.title in output
        assert (written["targets"][target.title] is not None) == (has_uvloop or "uvloop" not in target.title)


def test_the_machine_is_named(run):
    output, written = run
    for fact in ("machine", "system", "python", "packages", "wire"):
        assert f"{fact}: {written[fact]}"[:60] in output


def test_each_peer_notices_a_wrong_byte(tmp_path):
    file = tmp_path / "figures.json"
    workloads = ("round-trip", "one-way-64", "pipelined", "idle")
    status, output = run_bench("--damage", "--json", str(file), *workloads)
    assert status == 1, output
    written = json.loads(file.read_text(encoding="utf-8"))["workloads"]
    assert list(written) == list(workloads)
    for rows in written.values():
        for row in rows.values():
            assert row["rounds"] == []
            assert any(word in row["problem"] for word in ("are wrong", "is not installed", "compiler")), row


def test_a_missed_target_is_a_failure_only_if_that_is_asked_for():
    # What is not measured is not missed.
    assert run_bench("round-trip", "--only", "sockets", "--strict")[0] == 0


@pytest.mark.parametrize("arguments", [["walk"], ["--only", "nobody"], ["--rounds", "0"]])
def test_what_is_not_known_is_refused(arguments):
    status, output = run_bench(*arguments)
    assert status == 2, output
    assert arguments[-1] in output or "at least 1" in output


# Its parts


def test_the_original_wire_has_rows_of_its_own_where_another_one_is_the_default():
    assert {peer.protocol for peer in peers("net.async")} == {""}
    further = [peer for peer in peers("another") if peer.protocol]
    assert {peer.protocol for peer in further} == {"net.async"}
    assert len(further) == sum(peer.is_ours for peer in peers("net.async"))
    assert not any(peer.protocol for peer in peers("another") if not peer.keeps_sessions)
    assert all("net.async" in peer.name and "net.async" in peer.title for peer in further)


def test_the_default_is_measured_beside_itself_without_sessions():
    pairs = [pair for pair in itertools.pairwise(peers("another")) if not pair[1].keeps_sessions]
    assert [one.name for one, _ in pairs] == ["netasync-asyncio", "netasync-uvloop", "netasync-blocking"]
    for one, without in pairs:
        assert without == sessionless(one) != one
        assert [each for each in WORKLOADS if without.does(each)] == [
            each for each in OF_SESSIONS if one.does(each)
        ]
    assert all(peer.keeps_sessions for peer in peers("net.async"))


def test_sessions_have_a_target_wherever_they_may_cost_something():
    limits = {each.title: each.limit for each in TARGETS if each.reference.endswith("-sessionless")}
    assert len(limits) == 14
    title = "round trip, 1 KiB: netasync-uvloop at most 1.05 × sessionless"
    assert limits[title] == 1.05
    title = "one way, 64 B: netasync-blocking at least 0.95 × sessionless"
    assert limits[title] == 0.95
    title = "idle connections: netasync-asyncio at most 1 KiB above sessionless"
    assert limits[title] == 1


@pytest.mark.parametrize("keeps_sessions", [True, False])
def test_a_listener_without_sessions_is_one_whose_sessions_end_with_their_links(keeps_sessions):
    setup = Setup(module="ours_awaited", workload=ROUND_TRIP, keeps_sessions=keeps_sessions)
    there = Setup.of_text(setup.to_text())
    assert there == setup
    assert listen_options(there) == ({} if keeps_sessions else {"session_timeout": 0})


class Heard(Framed):
    def __init__(self):
        super().__init__()
        self.messages = []

    def message_received(self, message):
        self.messages.append(message)


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 50), min_size=1))
def test_the_protocol_finds_the_frames_however_they_are_cut(messages, cuts):
    stream = bytearray()
    for message in messages:
        write_frame(stream.extend, message)
    heard, turn = Heard(), 0
    while stream:
        size = cuts[turn % len(cuts)]
        heard.data_received(bytes(stream[:size]))
        del stream[:size]
        turn += 1
    assert heard.messages == messages


@pytest.mark.parametrize("size", [64, 2**10, 2**20])
def test_neighbours_among_the_messages_differ_and_each_has_its_size(size):
    there = list(Messages(size).expected(300 if size < 2**20 else 5))
    assert {len(message) for message in there} == {size}
    assert all(one != other for one, other in itertools.pairwise(there))


def test_damage_is_one_wrong_byte():
    messages = Messages(64, is_damaged=True)
    pairs = zip(messages.to_send(256), messages.expected(256), strict=True)
    differing = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs]
    assert sorted(differing) == [0] * 255 + [1]


def filled(*figures: float) -> Row:
    """A row of rounds with these figures."""
    peer = Peer(name="somebody", title="somebody", module="streams")
    rounds = [Round(figure=each, count=1, client_cpu=1, server_cpu=1, others=0) for each in figures]
    return Row(peer, rounds)


def test_a_ratio_compares_what_was_done_at_the_same_time():
    """The machine was ten times slower in the second round, for both."""
    compared = ratio(filled(1, 10, 1.2), filled(2, 20, 2))
    assert (compared.median, compared.least, compared.most) == (0.5, 0.5, 0.6)
    assert ratio(filled(1), filled()) is None
    assert cpu_ratio(filled(1, 10), filled(2, 20)) == Spread(1, 1, 1)


def test_a_target_knows_which_way_is_better():
    results = {
        ROUND_TRIP.name: {"a": filled(4), "b": filled(10)},
        ONE_WAY_64.name: {"a": filled(4), "b": filled(10)},
        CONNECTIONS.name: {"a": filled(7, 8, 9), "b": filled(7, 6.5, 9.5)},
    }
    for workload, is_met in ((ROUND_TRIP, True), (ONE_WAY_64, False)):
        target = Target(workload=workload, peer="a", reference="b", limit=0.5)
        reached = target.reached(results)
        assert reached.median == 0.4
        assert target.is_met_by(reached) is is_met
    assert Target(workload=CONNECTIONS, peer="a", limit=8).reached(results) == Spread(8, 7, 9)
    more = Target(workload=CONNECTIONS, peer="a", limit=1, reference="b")
    assert more.reached(results) == Spread(0, -0.5, 1.5)
    assert more.is_met_by(more.reached(results))
    assert Target(workload=CONNECTIONS, peer="a", limit=1, reference="nobody").reached(results) is None
    assert Target(workload=ROUND_TRIP, peer="nobody", reference="b", limit=1).reached(results) is None
    assert Target(workload=ONE_WAY_1M, peer="a", reference="b", limit=1).reached(results) is None


def test_figures_have_the_unit_of_their_workload():
    assert (ROUND_TRIP.unit, ROUND_TRIP.figure(1_000, 0.02)) == ("µs", pytest.approx(20))
    assert (ONE_WAY_64.unit, ONE_WAY_64.figure(1_000, 0.001)) == ("k msg/s", pytest.approx(1_000))
    assert (ONE_WAY_1M.unit, ONE_WAY_1M.figure(1_000, 1)) == ("MB/s", pytest.approx(1_048.576))


def test_a_side_that_fails_says_why():
    side = Side([sys.executable, "-c", "raise SystemExit('no such thing')"])
    try:
        with pytest.raises(SideError, match="ended: no such thing"):
            side.answer()
    finally:
        side.end()


def test_a_side_that_says_nothing_is_not_waited_for_for_ever():
    side = Side([sys.executable, "-c", "input()"])
    try:
        with pytest.raises(SideError, match="said nothing for 0 s"):
            side.answer(patience=0.01)
    finally:
        side.end()


def test_what_the_measured_processes_use_is_not_what_others_use():
    """Whoever else is busy: what is called one's own is subtracted."""
    others = Others(own_seconds=0)
    assert others.share(own_seconds=1_000) == 0
