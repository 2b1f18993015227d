"""What an idle connection costs: memory on each side, and CPU time for its heartbeats."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from .peers import Peer
from .processes import Pair, Place, SideError
from .quiet import Others
from .rounds import Effort, IdleRound, Row
from .sides.setup import CHECK
from .workloads import Workload

#: Opened before anything is measured: what the first ones need is not what each one needs.
_WARM = 20


def measure_idle(
    workload: Workload, rows: Sequence[Row], place: Place, effort: Effort, tell: Callable[[str], None]
) -> None:
    """Fill the rows, except those that have a problem already. Each peer has fresh processes every time."""
    for number in range(effort.idle_rounds):
        for row in rows:
            if row.problem:
                continue
            tell(f"{workload.title}: round {number + 1} of {effort.idle_rounds}, {row.peer.title}")
            try:
                row.rounds.append(_hold(row.peer, workload, place, effort))
            except SideError as error:
                row.problem, row.is_failed = str(error), True


def _hold(peer: Peer, workload: Workload, place: Place, effort: Effort) -> IdleRound:
    made = Pair(peer, workload, place, is_damaged=effort.is_damaged, heartbeat=effort.heartbeat)
    with contextlib.closing(made) as pair:
        pair.do(_WARM)
        client, server = pair.client.resident_bytes(), pair.server.resident_bytes()
        pair.do(workload.connections)
        # Two intervals: then every connection has sent and received heartbeats, with all that they need.
        time.sleep(2 * effort.heartbeat)
        client = pair.client.resident_bytes() - client
        server = pair.server.resident_bytes() - server
        before = pair.cpu_seconds()
        others = Others(sum(before))
        began = time.perf_counter()
        time.sleep(effort.idle_seconds)
        after = pair.cpu_seconds()
        beats = (time.perf_counter() - began) / effort.heartbeat * (workload.connections + _WARM)
        share = others.share(sum(after))
        pair.do(CHECK)
    return IdleRound(
        figure=max(client, server) / workload.connections / 1024,
        client_kib=client / workload.connections / 1024,
        server_kib=server / workload.connections / 1024,
        count=workload.connections,
        client_cpu=(after[0] - before[0]) / beats,
        server_cpu=(after[1] - before[1]) / beats,
        others=share,
    )
