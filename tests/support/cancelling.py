"""Giving up a wait at a random moment, in every way that asyncio knows."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any


async def interrupted(source: random.Random, waiting: Coroutine[Any, Any, Any]) -> Any:
    """Await it, and give up at a random moment in a random way; return its result, or None."""
    way = source.choice(["cancel", "cancel", "wait_for", "timeout"])
    moment = source.choice([0, 0, 0.0002, 0.001])
    if way == "cancel":
        task = asyncio.ensure_future(waiting)
        for _ in range(source.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        return await result_of(task)
    with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
        if way == "timeout" and sys.version_info >= (3, 11):
            async with asyncio.timeout(moment):
                return await waiting
        else:
            return await asyncio.wait_for(waiting, moment)
    return None


async def result_of(task: Awaitable[Any]) -> Any:
    """What a task returned; None when it was cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None
