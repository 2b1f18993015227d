"""What the demo sent and what came back, message by message: the judge of the whole thing.

It trusts nobody. Every message carries its number and a checksum, so what is damaged, missing, twice or out
of order shows by itself; and what the library counted must be what was seen.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from netasync import Stats

_HEADER = struct.Struct("!QI")
_FRAME_HEADER = 4


def seal(number: int, text: bytes) -> bytes:
    """Return the message that carries `text`, numbered and with a checksum."""
    return _HEADER.pack(number, zlib.crc32(text, number)) + text


def unseal(message: bytes) -> int | None:
    """Return the number of a message, or None if it is not what `seal` made."""
    if len(message) < _HEADER.size:
        return None
    number, checksum = _HEADER.unpack_from(message)
    return number if checksum == zlib.crc32(message[_HEADER.size :], number & 0xFFFFFFFF) else None


@dataclass
class Ledger:
    """Counts messages on their way out and back."""

    sent: int = 0
    bytes_sent: int = 0
    taken: int = 0
    bytes_taken: int = 0
    returned: int = 0
    damaged: int = 0
    twice: int = 0
    out_of_order: int = 0
    links: int = 0
    # One more than the highest number that came back.
    next_back: int = 0
    _seen: bytearray = field(default_factory=bytearray)
    _breaks: list[range] = field(default_factory=list)

    def next_message(self, text: bytes) -> bytes:
        """Number the next message."""
        return seal(self.sent, text)

    def note_sent(self, message: bytes) -> None:
        """A message was accepted for sending."""
        self.sent += 1
        self.bytes_sent += _FRAME_HEADER + len(message)
        self._seen.append(False)

    def note_back(self, message: bytes) -> None:
        """A message came back."""
        self.taken += 1
        self.bytes_taken += _FRAME_HEADER + len(message)
        number = unseal(message)
        if number is None or number >= self.sent:
            self.damaged += 1
        elif self._seen[number]:
            self.twice += 1
        else:
            self._seen[number] = True
            self.returned += 1
            self.out_of_order += number < self.next_back
            self.next_back = max(self.next_back, number + 1)

    def note_link(self) -> None:
        """The link came up."""
        self.links += 1

    def note_break(self, stats: Stats) -> None:
        """The link broke: what had been begun and is not back yet may be gone with it, or its answer may.

        What was only queued goes out on the next link, so nothing excuses the loss of that.
        """
        self._breaks.append(range(self.next_back, stats.confirmed + stats.unconfirmed + stats.lost))

    @property
    def missing(self) -> int:
        """Messages that did not come back, whatever the reason."""
        return self.sent - self.returned

    @property
    def lost_to_breaks(self) -> int:
        """Messages that were on their way when a link broke, and did not come back."""
        return sum(not self._seen[number] for gone in self._breaks for number in gone)

    def faults(self) -> list[str]:
        """Return what must never happen and did."""
        counts = {
            "damaged": self.damaged,
            "twice": self.twice,
            "out of order": self.out_of_order,
            "missing without a break": self.missing - self.lost_to_breaks,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]

    def disagreements(self, stats: Stats) -> list[str]:
        """Return each claim about the account of a quiet connection that is not true."""
        sent = stats.confirmed + stats.unconfirmed + stats.queued + stats.write_dropped + stats.lost
        received = stats.consumed + stats.waiting + stats.read_dropped
        claims = {
            "accepted = confirmed + unconfirmed + queued + write_dropped + lost": stats.accepted == sent,
            "received = consumed + waiting + read_dropped": stats.received == received,
            "accepted is what was sent": stats.accepted == self.sent,
            "all of it was confirmed or is counted as lost": stats.confirmed + stats.lost == self.sent,
            "consumed is what came back": stats.consumed == self.taken,
            "nothing else arrived": stats.received == self.taken,
            "links is how often the link came up": stats.links == self.links,
            "bytes_sent covers the frames": stats.bytes_sent >= self.bytes_sent,
            "bytes_received covers the frames": stats.bytes_received >= self.bytes_taken,
        }
        return [claim for claim, is_true in claims.items() if not is_true]
