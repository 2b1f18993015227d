"""One way to write a scenario for asyncio, uvloop and threads.

A scenario is a coroutine whose waiting calls all go through its face. On a loop they are awaited. For
threads the same coroutine is run by a driver that does nothing: each call blocks its thread, so that the
coroutine never suspends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import importlib.util
import pathlib
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from types import ModuleType
from typing import Any

import netasync
import netasync.blocking
from support.counts import IS_SOAK
from support.waiting import DEADLINE, looks, pause

#: Seconds that one scenario may take on a loop.
SCENARIO = 3000.0 if IS_SOAK else 45.0

_PACE = 0.003


def aio(handle: Any) -> Any:
    """The asyncio face of any handle."""
    return getattr(handle, "aio", handle)


def blocking(handle: Any) -> Any:
    """The face for threads of any handle."""
    return getattr(handle, "blocking", handle)


class Face:
    """What scenarios may do on every face; `LoopFace` and `ThreadFace` say how."""

    name: str
    #: Whether waiting calls are awaited here.
    awaited: bool
    #: `netasync` or `netasync.blocking`: where `connect` and `listen` come from.
    api: ModuleType

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Run a scenario to its end and return what it returned."""
        raise NotImplementedError

    async def call(
        self, handle: Any, name: str, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Call a waiting method of a handle of this face; `TimeoutError` after `timeout` seconds."""
        raise NotImplementedError

    async def select(self, *chans: Any, timeout: float | None = None) -> tuple[Any, Any]:
        """Call `select` of this face, with a timeout of its own."""
        raise NotImplementedError

    async def close(self, handle: Any, timeout: float | None = None) -> Any:
        """Close and wait, by the name that this face has for it; return the `Closed`."""
        raise NotImplementedError

    async def leave(self, handle: Any, error: BaseException | None = None) -> None:
        """Enter the handle's block and leave it, by `error` where one is given."""
        raise NotImplementedError

    def items(self, source: Any) -> AsyncIterator[Any]:
        """Iterate a handle, channel or listener as this face does it."""
        raise NotImplementedError

    async def outside(self, action: Callable[..., Any], *args: Any) -> Any:
        """Call something that blocks its thread and is none of ours (a raw peer) without holding a loop."""
        raise NotImplementedError

    def spawn(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Begin a scenario beside this one: a task, or a thread."""
        raise NotImplementedError

    async def join(self, spawned: Any) -> Any:
        """Wait for a spawned scenario; return what it returned, raise what it raised."""
        raise NotImplementedError

    async def settle(self, spawned: Any) -> None:
        """Let a spawned scenario run until it waits."""
        raise NotImplementedError

    async def pause(self, seconds: float) -> None:
        """Let time pass, where the scenario is about time passing."""
        raise NotImplementedError

    async def eventually(
        self, condition: Callable[[], Any], claim: str = "", deadline: float = DEADLINE
    ) -> Any:
        """Wait until `condition()` is true and return what it returned."""
        for value in looks(condition, claim, deadline):
            if value:
                return value
            await self.pause(_PACE)


class LoopFace(Face):
    """A loop of asyncio's kind. A complaint to the loop's exception handler fails the scenario."""

    awaited = True
    api = netasync

    def __init__(self, name: str, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.name = name
        self._new_loop = new_loop

    def run(self, scenario: Coroutine[Any, Any, Any], debug: bool = False) -> Any:
        loop = self._new_loop()
        loop.set_debug(debug)
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            result = loop.run_until_complete(_within(scenario, SCENARIO))
        finally:
            _wind_up(loop)
        assert not complaints, complaints
        return result

    async def call(
        self, handle: Any, name: str, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        return await _within(getattr(handle, name)(*args, **kwargs), timeout)

    async def select(self, *chans: Any, timeout: float | None = None) -> tuple[Any, Any]:
        return await netasync.select(*chans, timeout=timeout)

    async def close(self, handle: Any, timeout: float | None = None) -> Any:
        return await _within(handle.aclose(), timeout)

    async def leave(self, handle: Any, error: BaseException | None = None) -> None:
        async with handle:
            if error is not None:
                raise error

    async def items(self, source: Any) -> AsyncIterator[Any]:
        async for item in source:
            yield item

    async def outside(self, action: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, functools.partial(action, *args))

    def spawn(self, scenario: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(scenario)

    async def join(self, spawned: asyncio.Task[Any]) -> Any:
        return await spawned

    async def settle(self, spawned: asyncio.Task[Any]) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ThreadFace(Face):
    """Threads: every call blocks, with a deadline of its own."""

    name = "threads"
    awaited = False
    api = netasync.blocking

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        try:
            scenario.send(None)
        except StopIteration as stop:
            return stop.value
        scenario.close()
        raise AssertionError("a scenario for threads must not suspend")

    async def call(
        self, handle: Any, name: str, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        return getattr(handle, name)(*args, timeout=DEADLINE if timeout is None else timeout, **kwargs)

    async def select(self, *chans: Any, timeout: float | None = None) -> tuple[Any, Any]:
        return netasync.blocking.select(*chans, timeout=DEADLINE if timeout is None else timeout)

    async def close(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.close(timeout=timeout)

    async def leave(self, handle: Any, error: BaseException | None = None) -> None:
        with handle:
            if error is not None:
                raise error

    async def items(self, source: Any) -> AsyncIterator[Any]:
        for item in source:
            yield item

    async def outside(self, action: Callable[..., Any], *args: Any) -> Any:
        return action(*args)

    def spawn(self, scenario: Coroutine[Any, Any, Any]) -> Beside:
        return Beside(self, scenario)

    async def join(self, spawned: Beside) -> Any:
        return spawned.done.result(SCENARIO)

    async def settle(self, spawned: Beside) -> None:
        await self.eventually(spawned.is_waiting, "the spawned scenario waits")

    async def pause(self, seconds: float) -> None:
        pause(seconds)


class Beside:
    """A scenario in a thread of its own."""

    def __init__(self, face: ThreadFace, scenario: Coroutine[Any, Any, Any]) -> None:
        self.done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.thread = threading.Thread(target=self._run, args=(face, scenario), name="scenario", daemon=True)
        self.thread.start()

    def is_waiting(self) -> bool:
        """Whether it is done, or its thread rests in the kernel."""
        status = pathlib.Path(f"/proc/self/task/{self.thread.native_id}/stat")
        try:
            return self.done.done() or status.read_text().rpartition(")")[2].split()[0] == "S"
        except OSError:
            return True  # it ended between the two looks

    def _run(self, face: ThreadFace, scenario: Coroutine[Any, Any, Any]) -> None:
        try:
            self.done.set_result(face.run(scenario))
        except BaseException as problem:
            self.done.set_exception(problem)


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


#: Every face there is here, by name. uvloop has no release for each interpreter.
FACES: dict[str, Face] = {"asyncio": LoopFace("asyncio", asyncio.new_event_loop), "threads": ThreadFace()}
if importlib.util.find_spec("uvloop"):
    FACES["uvloop"] = LoopFace("uvloop", _uvloop)

#: Every name that `@pytest.mark.faces` may use.
FACE_NAMES = ("asyncio", "uvloop", "threads")


def known(names: Iterable[str]) -> list[str]:
    """The names, checked."""
    chosen = list(names)
    assert set(chosen) <= set(FACE_NAMES), chosen
    return chosen


async def _within(waiting: Awaitable[Any], seconds: float | None) -> Any:
    """Await in this very task, with a timeout where one is asked for."""
    if seconds is None:
        return await waiting
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            return await waiting
    try:
        return await asyncio.wait_for(waiting, seconds)
    except asyncio.TimeoutError:  # not yet the built-in one
        raise TimeoutError from None


def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    """What `asyncio.run` does at its end."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(_all_of(left))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _all_of(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
