"""Rounds of every peer in turn: A B C A B C."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .peers import Peer
from .processes import Pair, Place, SideError
from .quiet import LIMIT, Others
from .workloads import Workload

#: How often a round is measured again because others used the machine.
REPEATS = 3

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
    seconds: float = 0.25
    idle_rounds: int = 3
    idle_seconds: float = 4.0
    heartbeat: float = 1.0
    is_damaged: bool = False


class Entrant:
    """A peer with its processes and what they have done so far."""

    def __init__(self, row: Row, workload: Workload, effort: Effort) -> None:
        self.row = row
        self._workload = workload
        self._effort = effort
        self._count = 1
        self._pair: Pair | None = None

    def start(self, place: Place) -> None:
        """Start both processes, warm them up and find how many messages a round takes."""
        with self._problems_noted():
            self._pair = Pair(self.row.peer, self._workload, place, is_damaged=self._effort.is_damaged)
            # At least a full window, and so many that starting and ending a round costs nothing.
            self._count = 2 * self._workload.window
            while (seconds := self._pair.do(self._count)) < self._effort.seconds * _FIRST:
                self._count *= _GROWTH
            self._count = max(self._count, round(self._count * self._effort.seconds / seconds))

    def do_round(self) -> None:
        """Do one round. Where others disturb it, again a few times; the least disturbed one counts."""
        if self._pair is None or self.row.problem:
            return
        with self._problems_noted():
            done = self._round(self._pair)
            for _ in range(REPEATS):
                if not done.is_disturbed:
                    break
                done = min(done, self._round(self._pair), key=lambda each: each.others)
            self.row.rounds.append(done)

    def end(self) -> None:
        """End its processes."""
        if self._pair is not None:
            self._pair.end()

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

    @contextlib.contextmanager
    def _problems_noted(self) -> Iterator[None]:
        try:
            yield
        except SideError as error:
            self.row.problem = str(error)
            self.row.is_failed = True


def measure(
    workload: Workload, rows: Sequence[Row], place: Place, effort: Effort, tell: Callable[[str], None]
) -> None:
    """Fill the rows of one workload, except those that have a problem already."""
    entrants = [Entrant(row, workload, effort) for row in rows if not row.problem]
    with contextlib.ExitStack() as ending:
        for entrant in entrants:
            tell(f"{workload.title}: {entrant.row.peer.title} starts")
            ending.callback(entrant.end)
            entrant.start(place)
        for number in range(effort.rounds):
            for entrant in entrants:
                tell(f"{workload.title}: round {number + 1} of {effort.rounds}, {entrant.row.peer.title}")
                entrant.do_round()
