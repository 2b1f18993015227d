"""Rounds of every peer in turn: A B C A B C."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .peers import Peer
from .processes import Pair, Place, SideError
from .quiet import LIMIT, Others
from .workloads import Workload

#: How often a round is measured again because others used the machine.
REPEATS = 2

#: A count is found by rounds that grow until one takes this share of what a round should.
_FIRST = 0.1
_GROWTH = 4


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round took, and what both processes used for each message."""

    figure: float
    count: int
    client_cpu: float
    server_cpu: float
    others: float

    @property
    def cpu(self) -> float:
        """CPU seconds of both sides for each message."""
        return self.client_cpu + self.server_cpu

    @property
    def is_disturbed(self) -> bool:
        """Whether others used too much of the machine meanwhile."""
        return self.others > LIMIT


@dataclass(frozen=True, kw_only=True)
class IdleRound(Round):
    """What idle connections took: the figure is that of the larger side, and CPU is for each heartbeat."""

    client_kib: float
    server_kib: float


@dataclass
class Row:
    """What a peer did in a workload, or why it did not."""

    peer: Peer
    rounds: list[Round] = field(default_factory=list)
    problem: str = ""
    is_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 0.2
    idle_rounds: int = 3
    idle_seconds: float = 4.0
    heartbeat: float = 1.0
    is_damaged: bool = False


class Entrant:
    """A peer, and what it has done so far."""

    def __init__(self, row: Row, workload: Workload, place: Place, effort: Effort) -> None:
        self.row = row
        self._workload = workload
        self._place = place
        self._effort = effort
        self._count = 0

    def do_round(self) -> None:
        """Do one round. Where others disturb it, again a few times; the least disturbed one counts.

        Always in fresh processes: how one of them lies in memory is worth up to a half, for its whole life.
        """
        if self.row.problem:
            return
        try:
            pair = Pair(self.row.peer, self._workload, self._place, is_damaged=self._effort.is_damaged)
            with contextlib.closing(pair):
                self._warm_up(pair)
                done = self._round(pair)
                for _ in range(REPEATS):
                    if not done.is_disturbed:
                        break
                    done = min(done, self._round(pair), key=lambda each: each.others)
            self.row.rounds.append(done)
        except SideError as error:
            self.row.problem = str(error)
            self.row.is_failed = True

    def _warm_up(self, pair: Pair) -> None:
        """Warm both processes up; the first time, find out how many messages a round takes."""
        if self._count:
            pair.do(max(2 * self._workload.window, round(self._count * _FIRST)))
            return
        # At least a full window, and so many that starting and ending a round costs nothing.
        self._count = 2 * self._workload.window
        while (seconds := pair.do(self._count)) < self._effort.seconds * _FIRST:
            self._count *= _GROWTH
        self._count = max(self._count, round(self._count * self._effort.seconds / seconds))

    def _round(self, pair: Pair) -> Round:
        before = pair.cpu_seconds()
        others = Others(sum(before))
        seconds = pair.do(self._count)
        after = pair.cpu_seconds()
        return Round(
            figure=self._workload.figure(self._count, seconds),
            count=self._count,
            client_cpu=(after[0] - before[0]) / self._count,
            server_cpu=(after[1] - before[1]) / self._count,
            others=others.share(sum(after)),
        )


def measure(
    workload: Workload, rows: Sequence[Row], place: Place, effort: Effort, tell: Callable[[str], None]
) -> None:
    """Fill the rows of one workload, except those that have a problem already."""
    entrants = [Entrant(row, workload, place, effort) for row in rows]
    for number in range(effort.rounds):
        for entrant in entrants:
            tell(f"{workload.title}: round {number + 1} of {effort.rounds}, {entrant.row.peer.title}")
            entrant.do_round()
