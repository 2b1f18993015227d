"""What is measured, and how a duration becomes a figure."""

from __future__ import annotations

from dataclasses import dataclass

ECHO = "echo"
ONE_WAY = "one way"
IDLE = "idle"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One thing that every peer has to do.

    `echo`: `window` messages are on their way at any time, each comes back. `one way`: messages go out one by
    one, and one answer comes back for all of a round. `idle`: `connections` of them are held.
    """

    name: str
    title: str
    kind: str
    size: int = 64
    window: int = 1
    connections: int = 0

    @property
    def unit(self) -> str:
        """What a figure of this workload is counted in."""
        if self.kind == IDLE:
            return "KiB"
        if self.kind == ECHO and self.window == 1:
            return "µs"
        return "MB/s" if self.size >= 2**20 else "k msg/s"

    @property
    def is_less_better(self) -> bool:
        """Whether the smaller figure is the better one."""
        return self.unit in ("µs", "KiB")

    def figure(self, count: int, seconds: float) -> float:
        """Return what `count` messages in `seconds` are in `unit`."""
        if self.unit == "µs":
            return seconds / count * 1e6
        return count / seconds * (self.size / 1e6 if self.unit == "MB/s" else 1e-3)


ROUND_TRIP = Workload(name="round-trip", title="round trip, 64 B", kind=ECHO)
ROUND_TRIP_1K = Workload(name="round-trip-1k", title="round trip, 1 KiB", kind=ECHO, size=2**10)
ONE_WAY_64 = Workload(name="one-way-64", title="one way, 64 B", kind=ONE_WAY)
ONE_WAY_1K = Workload(name="one-way-1k", title="one way, 1 KiB", kind=ONE_WAY, size=2**10)
ONE_WAY_1M = Workload(name="one-way-1m", title="one way, 1 MiB", kind=ONE_WAY, size=2**20)
PIPELINED = Workload(name="pipelined", title="pipelined echo, 64 B, window 100", kind=ECHO, window=100)
CONNECTIONS = Workload(name="idle", title="idle connections", kind=IDLE, connections=1000)

WORKLOADS = (ROUND_TRIP, ROUND_TRIP_1K, ONE_WAY_64, ONE_WAY_1K, ONE_WAY_1M, PIPELINED, CONNECTIONS)

#: Where what sessions cost is judged.
OF_SESSIONS = (ROUND_TRIP, ROUND_TRIP_1K, ONE_WAY_64, ONE_WAY_1K, CONNECTIONS)
