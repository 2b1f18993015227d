"""`python -m bench [WORKLOAD …] [--only PEER …] [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console

from . import report
from .idle import measure_idle
from .peers import FLOOR, peers
from .processes import Place
from .rounds import Effort, Row, measure
from .workloads import IDLE, WORKLOADS, Workload

_QUICK = Effort(rounds=1, seconds=0.005, idle_rounds=1, idle_seconds=0.5, heartbeat=0.25)
_QUICK_CONNECTIONS = 20


def main() -> int:
    """Measure, draw, and return the exit status."""
    chosen = _arguments()
    effort = replace(
        _QUICK if chosen.quick else Effort(),
        is_damaged=chosen.damage,
        **({"rounds": chosen.rounds, "idle_rounds": chosen.rounds} if chosen.rounds else {}),
    )
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as directory:
        floor, no_floor = _compiled(Path(directory))
        results = _run(chosen, effort, Place(floor), no_floor, console)
    are_met = report.draw_targets(results, console)
    if chosen.json:
        chosen.json.write_text(json.dumps(report.as_json(results), indent=1, ensure_ascii=False) + "\n")
    has_failed = any(row.is_failed for rows in results.values() for row in rows.values())
    return 1 if has_failed or (chosen.strict and not are_met) else 0


def _run(
    chosen: argparse.Namespace, effort: Effort, place: Place, no_floor: str, console: Console
) -> dict[str, dict[str, Row]]:
    console.print(*(f"{name}: {value}" for name, value in report.machine().items()), str(place), sep="\n")
    results: dict[str, dict[str, Row]] = {}
    status = Console(stderr=True)
    for workload in chosen.workloads:
        if chosen.quick and workload.kind == IDLE:
            workload = replace(workload, connections=_QUICK_CONNECTIONS)
        rows = _rows(workload, chosen.only, no_floor)
        do = measure_idle if workload.kind == IDLE else measure
        with status.status(workload.title) as line:
            do(workload, rows, place, effort, line.update)
        report.draw(workload, rows, console)
        results[workload.name] = {row.peer.name: row for row in rows}
    return results


def _rows(workload: Workload, only: list[str], no_floor: str) -> list[Row]:
    rows = []
    for peer in peers():
        if not peer.does(workload) or (only and not any(fnmatch(peer.name, each) for each in only)):
            continue
        problem = no_floor if peer is FLOOR else peer.missing and f"{peer.missing} is not installed"
        rows.append(Row(peer, problem=problem))
    return rows


def _compiled(directory: Path) -> tuple[Path | None, str]:
    """Compile the floor; return its program, or why there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None, "no C compiler"
    program = directory / "floor"
    source = Path(__file__).parent / "floor.c"
    done = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True)
    return (program, "") if not done.returncode else (None, "the C compiler failed")


def _arguments() -> argparse.Namespace:
    names = {workload.name: workload for workload in WORKLOADS}
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures netasync beside its peers, both ends on one core."
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(names)}; all without it"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PEER", help=f"may be repeated: {report.known_peers()}"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each workload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there too")
    parser.add_argument("--quick", action="store_true", help="so little that only the table can be trusted")
    parser.add_argument("--strict", action="store_true", help="status 1 if a target is missed")
    parser.add_argument("--damage", action="store_true", help="send a wrong byte: every row must notice")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.workloads if name not in names]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}: there are {', '.join(names)}")
    for pattern in chosen.only:
        if not any(fnmatch(peer.name, pattern) for peer in peers()):
            parser.error(f"no peer {pattern}: there are {report.known_peers()}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    chosen.workloads = [names[name] for name in chosen.workloads] or list(WORKLOADS)
    return chosen


if __name__ == "__main__":
    sys.exit(main())
