"""What two servers wrote down, one killed and one that came after it: the judge of a crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ledger import Arrivals

_LENGTH = 4


def records(path: Path) -> Iterator[bytes]:
    """Yield the messages of a journal, if it was begun. One that was half written is none."""
    content = path.read_bytes() if path.exists() else b""
    at = 0
    while at + _LENGTH <= len(content):
        end = at + _LENGTH + int.from_bytes(content[at : at + _LENGTH], "big")
        if end <= len(content):
            yield content[at + _LENGTH : end]
        at = end


@dataclass(frozen=True, kw_only=True)
class Crash:
    """A crash of the server, seen from all sides.

    Attributes:
        sent: How many messages the client sent, over both servers.
        confirmed: How many of them the first server had confirmed when the client saw it go.
        redelivered: How many the client says that it sent again.
        first: What the first server wrote down before it died.
        second: What the second server wrote down.
    """

    sent: int
    confirmed: int
    redelivered: int
    first: Arrivals
    second: Arrivals

    @property
    def in_hand(self) -> range:
        """The message that the first server had taken and not yet written down, if it died between the two.

        Taken is confirmed: this one is the application's, and there can be no more than one of them.
        """
        end = self.first.end
        return range(end, end + (end < self.confirmed and end not in self.second.numbers))

    @property
    def lost(self) -> int:
        """Messages that no server had."""
        return self.sent - len(self.first.numbers | self.second.numbers | set(self.in_hand))

    @property
    def seen_by_both(self) -> set[int]:
        """Messages that the first server had taken and the second one got again."""
        return self.first.numbers & self.second.numbers

    def faults(self) -> list[str]:
        """Return what must never happen, crash or not, and did."""
        again = range(self.confirmed, self.confirmed + self.redelivered)
        unexplained = len(self.seen_by_both.difference(again))
        missing = len(set(again) - self.second.numbers)
        counts = {
            "lost": self.lost,
            "twice and not redelivered": unexplained,
            "redelivered and not there": missing,
        }
        of_each = (
            f"{fault} at one server" for server in (self.first, self.second) for fault in server.faults()
        )
        return [*of_each, *(f"{count} {what}" for what, count in counts.items() if count)]
