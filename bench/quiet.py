"""How much others used the machine during a round: what they took cannot be told from what a peer needs."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: The share of one core from which on a round says little about a peer.
LIMIT = 0.12

_TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """Measures from its making on."""

    def __init__(self, own_seconds: float) -> None:
        self._began = time.perf_counter()
        self._own = own_seconds + time.process_time()
        self._idle, self._cores = _idle_seconds()

    def share(self, own_seconds: float) -> float:
        """Return how much of one core everybody else used meanwhile.

        Args:
            own_seconds: the CPU time of the measured processes so far, as at the beginning.
        """
        elapsed = time.perf_counter() - self._began
        idle = _idle_seconds()[0] - self._idle
        own = own_seconds + time.process_time() - self._own
        # The kernel counts in ticks: a little below zero is zero.
        return max(0.0, (elapsed * self._cores - idle - own) / elapsed)


def _idle_seconds() -> tuple[float, int]:
    """Return for how long cores were idle since the machine started, in all, and how many there are."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    return (int(lines[0][4]) + int(lines[0][5])) / _TICKS, len(lines) - 1
