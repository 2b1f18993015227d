"""The grammar of what one handle yields, and the equations of its account."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from netasync import Closed, Connected, Disconnected, Reason

#: Reasons of `Closed` that only this side's own doing brings.
LOCAL_ENDS = frozenset({Reason.CLOSED_HERE, Reason.CLOSE_TIMEOUT, Reason.ABORTED, Reason.SHUTDOWN})

_DIALLER = re.compile(r"D?(CM*D)*(CM*D?)?X")
_ACCEPTED = re.compile(r"(CM*(DCM*)*D?)?X")
# What each may have shown before its X; a handle that this side closes may stop anywhere in it.
_DIALLER_BEFORE_X = re.compile(r"D?(CM*D)*(CM*)?")
_ACCEPTED_BEFORE_X = re.compile(r"(CM*(DCM*)*D?)?")


def check_grammar(items: Iterable[Any], dialler: bool, closed_here: bool) -> None:
    """Fail unless `items`, in the order in which one handle yielded them, obey its grammar.

    Args:
        items: Everything taken from the handle. It need not have ended yet; further `Closed` behind
            the first must be equal to it.
        dialler: Whether the handle came from `connect`, not from `accept`.
        closed_here: Whether this side ended it; it may then stop anywhere and show `Closed`.
    """
    taken = list(items)
    word = spell(taken)
    body, end, rest = word.partition("X")
    if set(rest) - {"X"}:
        raise AssertionError(f"something came after Closed: {word}")
    ends = [item for item in taken if isinstance(item, Closed)]
    if ends and any(item != ends[0] for item in ends):
        raise AssertionError(f"two different ends: {ends}")
    unfinished = _DIALLER_BEFORE_X if dialler else _ACCEPTED_BEFORE_X
    whole = _DIALLER if dialler else _ACCEPTED
    allowed = unfinished.fullmatch(body) if closed_here or not end else whole.fullmatch(body + end)
    if not allowed:
        side = "a dialler" if dialler else "an accepted connection"
        raise AssertionError(
            f"{side} yielded {word}: {[item for item in taken if not isinstance(item, bytes)]}"
        )


def spell(items: Iterable[Any]) -> str:
    """Write items as the letters of the grammar: C, D, X for the values and M for a message."""
    return "".join(_letter(item) for item in items)


def check_account(stats: Any) -> None:
    """Fail unless both equations of `Stats` hold; they do at every quiet moment."""
    sent = stats.confirmed + stats.unconfirmed + stats.queued + stats.write_dropped + stats.lost
    assert stats.accepted == sent, f"accepted {stats.accepted}, accounted for {sent}: {stats}"
    taken = stats.consumed + stats.waiting + stats.read_dropped
    assert stats.received == taken, f"received {stats.received}, accounted for {taken}: {stats}"


def _letter(item: Any) -> str:
    match item:
        case Connected():
            return "C"
        case Disconnected():
            return "D"
        case Closed():
            return "X"
        case bytes():
            return "M"
    raise AssertionError(f"no item of a connection: {item!r}")
