"""How often a fault happens: a few times in every run, the full count when the machine is given the time."""

from __future__ import annotations

import os
from typing import Any

import pytest

#: Whether this is `make soak`: full counts, and hours if need be.
IS_SOAK = os.environ.get("NETASYNC_SOAK", "") not in ("", "0")


def counts(few: int, full: int) -> list[Any]:
    """Values for `parametrize`: `few` in every run, `full` among the tests that `make soak` runs."""
    return [pytest.param(few, id="few"), pytest.param(full, id="full", marks=pytest.mark.soak)]
