"""Who is compared."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import dataclass, replace

import netasync

from .workloads import IDLE, OF_SESSIONS, Workload

#: The reference of most figures: the fastest that Python had.
REFERENCE = "uvloop-protocol"

_CLASSIC = "net.async"
_SESSIONLESS = "-sessionless"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to move messages: a module of `bench.sides` and how it is set up."""

    name: str
    title: str
    module: str
    loop: str = "asyncio"
    protocol: str = ""
    needs: tuple[str, ...] = ()
    can_hold_many: bool = True
    has_heartbeats: bool = False
    keeps_sessions: bool = True

    @property
    def missing(self) -> str:
        """Which package it needs and does not find."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), "")

    @property
    def is_ours(self) -> bool:
        """Whether this is netasync."""
        return self.module.startswith("ours_")

    def does(self, workload: Workload) -> bool:
        """Return whether it takes part in a workload."""
        if not self.keeps_sessions and workload.name not in {each.name for each in OF_SESSIONS}:
            return False
        return workload.kind != IDLE or self.can_hold_many


FLOOR = Peer(name="c", title="C, blocking", module="floor", can_hold_many=False)

_OTHERS = (
    FLOOR,
    Peer(name="streams", title="asyncio streams", module="streams"),
    Peer(name=REFERENCE, title="uvloop Protocol", module="callbacks", loop="uvloop", needs=("uvloop",)),
    Peer(name="sockets", title="blocking sockets", module="sockets", can_hold_many=False),
    Peer(
        name="pyzmq-asyncio",
        title="pyzmq, asyncio",
        module="zmq_awaited",
        needs=("zmq",),
        has_heartbeats=True,
    ),
    Peer(
        name="pyzmq-blocking",
        title="pyzmq, blocking",
        module="zmq_threaded",
        needs=("zmq",),
        can_hold_many=False,
    ),
)


def default_wire() -> str:
    """Return which wire `connect` speaks unless told otherwise."""
    return str(inspect.signature(netasync.connect).parameters["protocol"].default)


def _ours(protocol: str) -> tuple[Peer, ...]:
    of_wire = f"-{protocol}" if protocol else ""
    on_wire = f", {protocol} wire" if protocol else ""
    return (
        Peer(
            name=f"netasync-asyncio{of_wire}",
            title=f"netasync, asyncio{on_wire}",
            module="ours_awaited",
            has_heartbeats=True,
            protocol=protocol,
        ),
        Peer(
            name=f"netasync-uvloop{of_wire}",
            title=f"netasync, uvloop{on_wire}",
            module="ours_awaited",
            has_heartbeats=True,
            loop="uvloop",
            protocol=protocol,
            needs=("uvloop",),
        ),
        Peer(
            name=f"netasync-blocking{of_wire}",
            title=f"netasync, blocking{on_wire}",
            module="ours_threaded",
            protocol=protocol,
            can_hold_many=False,
        ),
    )


def sessionless(peer: Peer) -> Peer:
    """Return a peer of ours on the same wire whose listener keeps no session beyond its link."""
    return replace(
        peer,
        name=peer.name + _SESSIONLESS,
        title=f"{peer.title}, session_timeout=0",
        keeps_sessions=False,
    )


def peers(wire: str = default_wire()) -> tuple[Peer, ...]:
    """Return everybody; the original's wire has rows of its own where `wire`, the default, is another.

    Where it is, the default has sessions. Who keeps none comes directly behind who does: what is compared
    closely is measured closely.
    """
    if wire == _CLASSIC:
        return _OTHERS + _ours("")
    ours = (each for peer in _ours("") for each in (peer, sessionless(peer)))
    return (*_OTHERS, *ours, *_ours(_CLASSIC))
