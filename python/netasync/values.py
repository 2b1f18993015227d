"""The values that a handle yields beside messages, and the figures it reports.

Everything here is plain Python: frozen, hashable, picklable, and without a link behind it, so that a value
may be kept, compared, sent to another process or written to a log long after its handle has gone.

All fields are keyword-only and nearly all have defaults. A later release may add fields; code that builds
these values by keyword, and matches them by keyword, goes on working.
"""

import enum
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Closed",
    "Connected",
    "Disconnected",
    "Event",
    "Item",
    "ListenerStats",
    "Reason",
    "State",
    "Stats",
]

# Every class says that it lives in `netasync`: that is where users import it from, so that is the name which
# a repr should show and a pickle should carry. Which file holds the class stays free to change.


class Reason(enum.Enum):
    """Why a link went down, a dial failed or a handle ended.

    `str(reason)` is a short sentence without a capital or a final stop, made to be put into a log line. The
    value is the member's name in lower case. Pickles carry the name.
    """

    __module__ = "netasync"

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NAME_NOT_FOUND = "name_not_found"
    NAME_LOOKUP_FAILED = "name_lookup_failed"
    OPEN_TIMEOUT = "open_timeout"
    TLS = "tls"
    REJECTED = "rejected"
    BUSY = "busy"
    EOF = "eof"
    TRUNCATED = "truncated"
    RESET = "reset"
    HEARTBEAT_TIMEOUT = "heartbeat_timeout"
    SLOW_FRAME = "slow_frame"
    WRITE_STALLED = "write_stalled"
    FLOOD = "flood"
    PROTOCOL = "protocol"
    TOO_LARGE = "too_large"
    NO_MEMORY = "no_memory"
    REPLACED = "replaced"
    MOVED = "moved"
    SESSION_EXPIRED = "session_expired"
    CLOSED_HERE = "closed_here"
    CLOSED_BY_PEER = "closed_by_peer"
    CLOSE_TIMEOUT = "close_timeout"
    ABORTED = "aborted"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"

    def __str__(self) -> str:
        """Return the reason as a sentence."""
        return _SENTENCES[self]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Whether a member pickles by name or by value differs between Python's releases.
        return getattr, (self.__class__, self.name)


# Beside the members and not in their values, so that type checkers know `Reason.EOF.value` as a literal.
_SENTENCES = {
    Reason.REFUSED: "the address was reached, but nobody is listening there",
    Reason.UNREACHABLE: "the address cannot be reached",
    Reason.NAME_NOT_FOUND: "nobody knows the host's name",
    Reason.NAME_LOOKUP_FAILED: "the host's name could not be looked up",
    Reason.OPEN_TIMEOUT: "the connection was not established in time",
    Reason.TLS: "the encrypted connection could not be set up",
    Reason.REJECTED: "the peer refused this connection and said why",
    Reason.BUSY: "the peer takes no further connections at the moment",
    Reason.EOF: "the peer hung up",
    Reason.TRUNCATED: "the peer hung up in the middle of a message",
    Reason.RESET: "the connection was reset",
    Reason.HEARTBEAT_TIMEOUT: "nothing was heard from the peer for too long",
    Reason.SLOW_FRAME: "a message that the peer had begun did not arrive in time",
    Reason.WRITE_STALLED: "the peer took no data for too long",
    Reason.FLOOD: "the peer sent more than it was allowed to",
    Reason.PROTOCOL: "the peer sent something that is not this protocol",
    Reason.TOO_LARGE: "the peer announced a message above the limit",
    Reason.NO_MEMORY: "there was no memory for what the peer sent",
    Reason.REPLACED: "a newer connection took over this session",
    Reason.MOVED: "the peer asked to be reached elsewhere",
    Reason.SESSION_EXPIRED: "the peer did not return before its session expired",
    Reason.CLOSED_HERE: "closed on this side",
    Reason.CLOSED_BY_PEER: "closed by the peer",
    Reason.CLOSE_TIMEOUT: "closed on this side, before everything could be delivered",
    Reason.ABORTED: "aborted without waiting for delivery",
    Reason.SHUTDOWN: "the runtime was shut down",
    Reason.INTERNAL: "a fault inside netasync",
}


class State(enum.Enum):
    """What a connection is doing now; a snapshot that may be out of date as soon as it is read.

    Attributes:
        CONNECTING: The first link is being established.
        CONNECTED: A link is up.
        DISCONNECTED: The link was lost, or a dial failed; the handle has not ended.
        CLOSING: The handle was closed here, and what it had accepted is still being delivered.
        CLOSED: The handle has ended. This state is final.
    """

    __module__ = "netasync"

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    CLOSING = "closing"
    CLOSED = "closed"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return getattr, (self.__class__, self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Connected:
    """A link is up.

    Attributes:
        resumed: Whether the session of the previous link goes on: nothing was lost and nothing comes twice.
        redelivered: How many messages go out again because it is not known whether the peer took them.
        lost: How many accepted messages were given up: they will not be sent.
        attempt: Which dial of this outage succeeded, counted from 1; 0 on the accepting side.
        peer: The peer's address, usable as a target, or None if it is not known.
    """

    __module__ = "netasync"

    resumed: bool = False
    redelivered: int = 0
    lost: int = 0
    attempt: int = 1
    peer: str | None = None

    def __str__(self) -> str:
        """Return one line for a log."""
        return _line(
            "connected" if self.peer is None else f"connected to {self.peer}",
            "session resumed" if self.resumed else "",
            f"{self.redelivered} redelivered" if self.redelivered else "",
            f"{self.lost} lost" if self.lost else "",
            f"attempt {self.attempt}" if self.attempt > 1 else "",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Disconnected:
    """The link went down, or could not be established. The handle lives on.

    Attributes:
        reason: Why.
        detail: Text for people: the system's error or the peer's words, cut and cleaned; may be empty.
        attempt: How many dials of this outage have failed so far; 0 right after a break.
        retry_in: Seconds until the next dial begins; None when this side will not dial.
        unconfirmed: How many messages were accepted here and are not known to be taken by the peer's
            application (`Stats.unconfirmed` and `Stats.queued` together).
    """

    __module__ = "netasync"

    reason: Reason
    detail: str = ""
    attempt: int = 0
    retry_in: float | None = None
    unconfirmed: int = 0

    def __str__(self) -> str:
        """Return one line for a log."""
        return _line(
            _because("disconnected", self.reason, self.detail),
            f"attempt {self.attempt} failed" if self.attempt else "",
            f"{self.unconfirmed} unconfirmed" if self.unconfirmed else "",
            "" if self.retry_in is None else f"next try in {self.retry_in:.2f} s",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """The handle has ended; every further receive returns this value again.

    Attributes:
        reason: Why.
        detail: Text for people: the system's error or the peer's words, cut and cleaned; may be empty.
        undelivered: How many messages were accepted here and are not known to be held by the peer process.
    """

    __module__ = "netasync"

    reason: Reason
    detail: str = ""
    undelivered: int = 0

    def __str__(self) -> str:
        """Return one line for a log."""
        return _line(
            _because("closed", self.reason, self.detail),
            f"{self.undelivered} undelivered" if self.undelivered else "",
        )


Event: TypeAlias = Connected | Disconnected | Closed
"""What a connection yields beside messages."""

Item: TypeAlias = bytes | Event
"""What a connection yields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """The account of one connection, over all of its links.

    At every quiet moment (no call of this connection running, nothing on its way) two equations hold:

        accepted = confirmed + unconfirmed + queued + write_dropped + lost
        received = consumed + waiting + read_dropped

    Attributes:
        accepted: Messages given to a send that did not raise.
        confirmed: Messages that the peer's application has taken; on the original's wire, messages that were
            handed to the kernel.
        unconfirmed: Messages that were begun and are not confirmed.
        queued: Messages that wait to be begun.
        write_dropped: Messages that a lossy write buffer refused or discarded.
        lost: Messages that were given up, at a break of the link or at the end of the handle.
        received: Messages that arrived whole.
        consumed: Messages that the application has taken.
        waiting: Messages that have arrived and can be taken.
        read_dropped: Messages that arrived and will never be taken: refused or discarded by a lossy read
            buffer, or thrown away because the reader closed.
        redelivered: Messages that were sent again after a break. They are not accepted anew.
        bytes_sent: Bytes handed to the kernel, headers and heartbeats included.
        bytes_received: Bytes taken from the kernel, headers and heartbeats included.
        links: Links that came up.
        attempts: Dials that were begun; 0 on the accepting side.
    """

    __module__ = "netasync"

    accepted: int = 0
    confirmed: int = 0
    unconfirmed: int = 0
    queued: int = 0
    write_dropped: int = 0
    lost: int = 0
    received: int = 0
    consumed: int = 0
    waiting: int = 0
    read_dropped: int = 0
    redelivered: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    links: int = 0
    attempts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenerStats:
    """The account of one listener.

    Attributes:
        accepted: Connections that were ever put into the accept buffer.
        waiting: Connections in the accept buffer now.
        refused: Connections that were turned away with `BUSY`, those included that a sliding accept buffer
            threw out.
        connections: Connections of this listener that are alive, waiting ones included.
    """

    __module__ = "netasync"

    accepted: int = 0
    waiting: int = 0
    refused: int = 0
    connections: int = 0


def _because(what: str, reason: Reason, detail: str) -> str:
    return f"{what}: {reason} ({detail})" if detail else f"{what}: {reason}"


def _line(*facts: str) -> str:
    return ", ".join(fact for fact in facts if fact)
