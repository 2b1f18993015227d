"""Medians, spreads and ratios."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from .rounds import Row


@dataclass(frozen=True)
class Spread:
    """What several rounds say together."""

    median: float
    least: float
    most: float


def spread(values: list[float]) -> Spread:
    """Return the median and the extremes."""
    return Spread(median(values), min(values), max(values))


def ratio(row: Row, reference: Row) -> Spread | None:
    """Return how a row's figures compare with another's, round by round, or None where one has none.

    Rounds with the same number were done one after the other: what changed on the machine in between two of
    them is in neither ratio.
    """
    pairs = zip(row.rounds, reference.rounds, strict=False)
    ratios = [mine.figure / theirs.figure for mine, theirs in pairs]
    return spread(ratios) if ratios else None


def difference(row: Row, reference: Row) -> Spread | None:
    """Return by how much a row's figures exceed another's, round by round, or None where one has none."""
    pairs = zip(row.rounds, reference.rounds, strict=False)
    differences = [mine.figure - theirs.figure for mine, theirs in pairs]
    return spread(differences) if differences else None


def cpu_ratio(row: Row, reference: Row) -> Spread | None:
    """Return how much CPU time a row needed beside another, round by round, or None where one has none.

    On one core without others this says the same as the figures; with others it is what can still be trusted.
    """
    pairs = zip(row.rounds, reference.rounds, strict=False)
    ratios = [mine.cpu / theirs.cpu for mine, theirs in pairs]
    return spread(ratios) if ratios else None
