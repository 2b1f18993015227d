"""What the demo sent and what became of it, message by message: the judge of the whole thing.

It trusts nobody. Every message carries its number and a checksum, so what is damaged, missing, twice or out
of order shows by itself; and what the library counted must be what was seen.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from netasync import Stats

_HEADER = struct.Struct("!QI")
_FRAME_HEADER = 4


def seal(number: int, text: bytes) -> bytes:
    """Return the message that carries `text`, numbered and with a checksum."""
    return _HEADER.pack(number, zlib.crc32(text, number & 0xFFFFFFFF)) + text


def unseal(message: bytes) -> int | None:
    """Return the number of a message, or None if it is not what `seal` made."""
    if len(message) < _HEADER.size:
        return None
    number, checksum = _HEADER.unpack_from(message)
    return number if checksum == zlib.crc32(message[_HEADER.size :], number & 0xFFFFFFFF) else None


@dataclass
class Arrivals:
    """The messages that arrived at one place, and what was wrong with them."""

    taken: int = 0
    bytes_taken: int = 0
    damaged: int = 0
    twice: int = 0
    out_of_order: int = 0
    numbers: set[int] = field(default_factory=set)
    # One more than the highest number that arrived.
    end: int = 0

    @classmethod
    def of(cls, messages: Iterable[bytes], sent: int) -> Arrivals:
        """Return the arrival of all of `messages`, where `sent` is how many were sent."""
        arrivals = cls()
        for message in messages:
            arrivals.note(message, sent)
        return arrivals

    def note(self, message: bytes, sent: int) -> None:
        """A message arrived, of the `sent` that were sent so far."""
        self.taken += 1
        self.bytes_taken += _FRAME_HEADER + len(message)
        number = unseal(message)
        if number is None or number >= sent:
            self.damaged += 1
        elif number in self.numbers:
            self.twice += 1
        else:
            self.numbers.add(number)
            self.out_of_order += number < self.end
            self.end = max(self.end, number + 1)

    def faults(self) -> list[str]:
        """Return what must never happen in one place and did."""
        counts = {"damaged": self.damaged, "twice": self.twice, "out of order": self.out_of_order}
        return [f"{count} {what}" for what, count in counts.items() if count]


@dataclass
class Ledger:
    """What went out, what came back, and how often the link came up."""

    sent: int = 0
    bytes_sent: int = 0
    links: int = 0
    back: Arrivals = field(default_factory=Arrivals)

    def next_message(self, text: bytes) -> bytes:
        """Number the next message."""
        return seal(self.sent, text)

    def note_sent(self, message: bytes) -> None:
        """A message was accepted for sending."""
        self.sent += 1
        self.bytes_sent += _FRAME_HEADER + len(message)

    def note_back(self, message: bytes) -> None:
        """A message came back."""
        self.back.note(message, self.sent)

    def note_link(self) -> None:
        """The link came up."""
        self.links += 1

    def disagreements(self, stats: Stats) -> list[str]:
        """Return each claim about the account of a quiet connection that is not true."""
        sent = stats.confirmed + stats.unconfirmed + stats.queued + stats.write_dropped + stats.lost
        received = stats.consumed + stats.waiting + stats.read_dropped
        claims = {
            "accepted = confirmed + unconfirmed + queued + write_dropped + lost": stats.accepted == sent,
            "received = consumed + waiting + read_dropped": stats.received == received,
            "accepted is what was sent": stats.accepted == self.sent,
            "all of it was confirmed": stats.confirmed == self.sent,
            "consumed is what came back": stats.consumed == self.back.taken,
            "nothing else arrived": stats.received == self.back.taken,
            # Not equal: of an outage and a return that nobody has taken yet, only the latest are shown.
            "links covers each time the link came up": stats.links >= self.links,
            "bytes_sent covers the frames": stats.bytes_sent >= self.bytes_sent,
            "bytes_received covers the frames": stats.bytes_received >= self.back.bytes_taken,
        }
        return [f"not true: {claim}" for claim, is_true in claims.items() if not is_true]
