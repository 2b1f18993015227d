"""Waiting for something to become true, with a generous deadline and no guess about how long it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

#: Seconds after which a test gives up. Far above anything that a healthy machine needs.
DEADLINE = 30.0

#: Seconds for which a test looks whether something stays away.
A_WHILE = 0.15

_PACE = 0.003

T = TypeVar("T")


def eventually(condition: Callable[[], T], claim: str = "", deadline: float = DEADLINE) -> T:
    """Wait, outside a loop, until `condition()` is true and return what it returned.

    For what announces itself by no event (a counter, a directory of `/proc`); it looks every few
    milliseconds. Scenarios use `World.eventually`, which does not hold the loop.
    """
    for value in looks(condition, claim, deadline):
        if value:
            return value
        pause(_PACE)
    raise AssertionError("unreachable")


def looks(condition: Callable[[], T], claim: str, deadline: float):
    """Yield what `condition()` returns, again and again, and fail once `deadline` seconds are over."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        yield value
        if value:
            return
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {deadline} s: {claim or condition}")


def pause(seconds: float) -> None:
    """Let time pass where the test is about time passing (a drip, a silence), never to wait for an event."""
    threading.Event().wait(seconds)
