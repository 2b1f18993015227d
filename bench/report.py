"""The tables, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .figures import Spread, ratio, spread
from .peers import REFERENCE, default_wire, peers
from .rounds import IdleRound, Row
from .targets import TARGETS, Results
from .workloads import IDLE, Workload

_NONE = "–"


def machine() -> dict[str, str]:
    """Return what the figures belong to."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "machine": f"{names[0].partition(': ')[2] if names else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(_packages(("netasync", "uvloop", "pyzmq"))),
        "wire": default_wire(),
    }


def draw(workload: Workload, rows: Iterable[Row], console: Console) -> None:
    """Print a workload's table."""
    shown = {row.peer.name: row for row in rows}
    if workload.kind == IDLE:
        console.print(_idle_table(workload, shown))
    else:
        console.print(_table(workload, shown))


def _table(workload: Workload, rows: dict[str, Row]) -> Table:
    reference = rows.get(REFERENCE)
    table = Table(title=workload.title, title_justify="left")
    table.add_column("peer", no_wrap=True)
    columns = (workload.unit, "min–max", "× uvloop Protocol", "CPU client, µs", "CPU server, µs", "disturbed")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows.values():
        if not row.rounds or row.problem:
            table.add_row(row.peer.title, *[_NONE] * len(columns[1:]), row.problem)
            continue
        figures = spread([each.figure for each in row.rounds])
        compared = ratio(row, reference) if reference else None
        table.add_row(
            row.peer.title,
            _short(figures.median),
            _range(figures),
            f"{compared.median:.2f}" if compared else _NONE,
            *_cpu(row),
            _disturbed(row),
        )
    return table


def _idle_table(workload: Workload, rows: dict[str, Row]) -> Table:
    title = f"{workload.connections} {workload.title}, each with heartbeats and a task that waits in `recv`"
    table = Table(title=title, title_justify="left")
    table.add_column("peer", no_wrap=True)
    columns = (
        *("KiB client", "KiB server", "min–max of the larger"),
        *("CPU client, µs/beat", "CPU server, µs/beat", "disturbed"),
    )
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows.values():
        if not row.rounds or row.problem:
            table.add_row(row.peer.title, *[_NONE] * len(columns[1:]), row.problem)
            continue
        held = [each for each in row.rounds if isinstance(each, IdleRound)]
        table.add_row(
            row.peer.title,
            _short(spread([each.client_kib for each in held]).median),
            _short(spread([each.server_kib for each in held]).median),
            _range(spread([each.figure for each in held])),
            *(_cpu(row) if row.peer.has_heartbeats else ("no heartbeat", "no heartbeat")),
            _disturbed(row),
        )
    return table


def draw_targets(results: Results, console: Console) -> bool:
    """Print what was to be reached and what was; return whether every measured target was met."""
    table = Table(title="targets", title_justify="left")
    table.add_column("target", no_wrap=True)
    table.add_column("reached", justify="right")
    table.add_column("min–max", justify="right")
    table.add_column("× its CPU", justify="right")
    table.add_column("")
    are_met = True
    for target in TARGETS:
        reached = target.reached(results)
        if reached is None:
            table.add_row(target.title, _NONE, _NONE, _NONE, "not measured")
            continue
        is_met = target.is_met_by(reached)
        are_met &= is_met
        cpu = target.cpu(results)
        table.add_row(
            target.title,
            _short(reached.median),
            _range(reached),
            _short(cpu.median) if cpu else _NONE,
            "met" if is_met else "missed",
        )
    console.print(table)
    return are_met


def as_json(results: Results) -> dict[str, Any]:
    """Return every round, and the targets."""
    return {
        **machine(),
        "workloads": {
            name: {
                row.peer.name: {"problem": row.problem, "rounds": [asdict(each) for each in row.rounds]}
                for row in rows.values()
            }
            for name, rows in results.items()
        },
        "targets": {target.title: _values(target.reached(results)) for target in TARGETS},
    }


def known_peers() -> str:
    """Return every name that `--only` knows."""
    return ", ".join(peer.name for peer in peers())


def _packages(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"no {name}"


def _values(reached: Spread | None) -> dict[str, float] | None:
    return asdict(reached) if reached else None


def _short(value: float) -> str:
    """Return a number with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _range(values: Spread) -> str:
    return f"{_short(values.least)}–{_short(values.most)}"


def _cpu(row: Row) -> tuple[str, str]:
    sides = ("client_cpu", "server_cpu")
    client, server = (spread([getattr(each, side) * 1e6 for each in row.rounds]).median for side in sides)
    return _short(client), _short(server)


def _disturbed(row: Row) -> str:
    number = sum(each.is_disturbed for each in row.rounds)
    return f"{number} of {len(row.rounds)}" if number else ""
