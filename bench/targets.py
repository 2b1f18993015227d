"""What netasync has set itself to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .figures import Spread, cpu_ratio, difference, ratio, spread
from .peers import REFERENCE, peers, sessionless
from .rounds import Row
from .workloads import CONNECTIONS, IDLE, OF_SESSIONS, ONE_WAY_64, ROUND_TRIP, Workload

#: The rows of each workload by the name of their peer, and the workloads by their names.
Results = Mapping[str, Mapping[str, Row]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure of `peer`, beside what `reference` did if there is one, and its limit.

    Beside is as a multiple of it; with idle connections it is what there is more.
    """

    workload: Workload
    peer: str
    limit: float
    reference: str = ""

    @property
    def title(self) -> str:
        """What it asks for."""
        bound = "at most" if self.workload.is_less_better else "at least"
        unit = self.workload.unit
        if self.reference:
            # Beside a variant of itself, what is different says it.
            other = self.reference.removeprefix(f"{self.peer}-")
            unit = f"{unit} above {other}" if self._is_difference else f"× {other}"
        return f"{self.workload.title}: {self.peer} {bound} {self.limit:g} {unit}"

    @property
    def _is_difference(self) -> bool:
        return self.workload.kind == IDLE

    def reached(self, results: Results) -> Spread | None:
        """Return what was reached, or None if that was not measured."""
        rows = results.get(self.workload.name, {})
        row = rows.get(self.peer)
        if row is None or not row.rounds:
            return None
        if not self.reference:
            return spread([each.figure for each in row.rounds])
        reference = rows.get(self.reference)
        if reference is None:
            return None
        return difference(row, reference) if self._is_difference else ratio(row, reference)

    def cpu(self, results: Results) -> Spread | None:
        """Return the CPU time per message as a multiple of the reference's, if both were measured."""
        rows = results.get(self.workload.name, {})
        row, reference = rows.get(self.peer), rows.get(self.reference)
        return cpu_ratio(row, reference) if row and reference else None

    def is_met_by(self, reached: Spread) -> bool:
        """Return whether its median is good enough."""
        if self.workload.is_less_better:
            return reached.median <= self.limit
        return reached.median >= self.limit


def _of_sessions() -> Iterator[Target]:
    """Yield what sessions may cost: 5 % of round trip and throughput, and 1 KiB for each idle connection."""
    for workload in OF_SESSIONS:
        for peer in peers():
            without = sessionless(peer)
            if without in peers() and without.does(workload):
                limit = 1 if workload.kind == IDLE else 1.05 if workload.is_less_better else 0.95
                yield Target(workload=workload, peer=peer.name, limit=limit, reference=without.name)


TARGETS = (
    Target(workload=ROUND_TRIP, peer="netasync-asyncio", limit=0.4, reference="streams"),
    Target(workload=ROUND_TRIP, peer="netasync-uvloop", limit=1.15, reference=REFERENCE),
    Target(workload=ROUND_TRIP, peer="netasync-blocking", limit=0.8, reference="sockets"),
    Target(workload=ONE_WAY_64, peer="netasync-uvloop", limit=3, reference=REFERENCE),
    Target(workload=CONNECTIONS, peer="netasync-asyncio", limit=8),
    Target(workload=CONNECTIONS, peer="netasync-uvloop", limit=8),
    *_of_sessions(),
)
