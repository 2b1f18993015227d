"""What netasync has set itself to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .figures import Spread, cpu_ratio, ratio, spread
from .peers import REFERENCE
from .rounds import Row
from .workloads import CONNECTIONS, ONE_WAY_64, ROUND_TRIP, Workload

#: The rows of each workload by the name of their peer, and the workloads by their names.
Results = Mapping[str, Mapping[str, Row]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure of `peer`, as a multiple of what `reference` did if there is one, and its limit."""

    workload: Workload
    peer: str
    limit: float
    reference: str = ""

    @property
    def title(self) -> str:
        """What it asks for."""
        bound = "at most" if self.workload.is_less_better else "at least"
        unit = f"× {self.reference}" if self.reference else self.workload.unit
        return f"{self.workload.title}: {self.peer} {bound} {self.limit:g} {unit}"

    def reached(self, results: Results) -> Spread | None:
        """Return what was reached, or None if that was not measured."""
        rows = results.get(self.workload.name, {})
        row = rows.get(self.peer)
        if row is None or not row.rounds:
            return None
        if not self.reference:
            return spread([each.figure for each in row.rounds])
        reference = rows.get(self.reference)
        return ratio(row, reference) if reference else None

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


TARGETS = (
    Target(workload=ROUND_TRIP, peer="netasync-asyncio", limit=0.4, reference="streams"),
    Target(workload=ROUND_TRIP, peer="netasync-uvloop", limit=1.15, reference=REFERENCE),
    Target(workload=ROUND_TRIP, peer="netasync-blocking", limit=0.8, reference="sockets"),
    Target(workload=ONE_WAY_64, peer="netasync-uvloop", limit=3, reference=REFERENCE),
    Target(workload=CONNECTIONS, peer="netasync-asyncio", limit=8),
    Target(workload=CONNECTIONS, peer="netasync-uvloop", limit=8),
)
