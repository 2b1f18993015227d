"""Waiting for whichever of several handles has something first, for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _native

if TYPE_CHECKING:
    from . import aio, blocking, channels
    from .values import Closed, Item

__all__ = ["select"]

_Receiving = TypeVar(
    "_Receiving",
    bound="aio.Connection | channels.ReadChannel | blocking.Connection | blocking.ReadChannel",
)
_Accepting = TypeVar("_Accepting", bound="aio.Listener | channels.AcceptChannel")
_Chan = TypeVar(
    "_Chan",
    bound="aio.Connection | channels.ReadChannel | aio.Listener | channels.AcceptChannel"
    " | blocking.Connection | blocking.ReadChannel | blocking.Listener | blocking.AcceptChannel",
)


@overload
async def select(*chans: _Receiving, timeout: float | None = None) -> tuple[_Receiving, Item]: ...
@overload
async def select(
    *chans: _Accepting, timeout: float | None = None
) -> tuple[_Accepting, aio.Connection | Closed]: ...
@overload
async def select(
    *chans: _Chan, timeout: float | None = None
) -> tuple[_Chan, Item | aio.Connection | blocking.Connection]: ...
async def select(*chans: Any, timeout: float | None = None) -> Any:
    """Wait for whichever of several handles has something first, and take exactly that one item.

    The others lose nothing, and cancelling loses nothing. A handle that has ended is always ready, as with
    `recv` and `accept`.

    Args:
        chans: connections, listeners and their read and accept channels, at least one, of asyncio or of
            threads; where several are ready, the first of them counts.
        timeout: seconds; None waits for ever, 0 only looks.

    Returns:
        The one of `chans` that had something, itself, and its item: what its `recv` or `accept` returns.

    Raises:
        TimeoutError: nothing came in time; nothing is lost.
        TypeError: one of `chans` is something else.
        ValueError: there are none, or `timeout` is negative.
    """
    return await _native.wait_select(chans, timeout)
