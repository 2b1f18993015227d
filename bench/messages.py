"""The messages of a run. Both sides know them: each is compared with what it must be in its place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, islice

_MOST = 256
_BYTES = 4 * 2**20


class Messages:
    """Messages of one size, different ones, over and over in the same order.

    Comparing them in that order shows what is damaged, missing, twice or swapped. Only the loss of whole
    turns would go unnoticed, and a round that waits for its last message notices that.

    Args:
        size: bytes of each.
        is_damaged: one byte of those to be sent is wrong, to show that this is noticed.
    """

    def __init__(self, size: int, *, is_damaged: bool = False) -> None:
        number = max(4, min(_MOST, _BYTES // size))
        self._true = [random.Random(index).randbytes(size) for index in range(number)]
        self._sent = list(self._true)
        if is_damaged:
            first = self._sent[0]
            self._sent[0] = first[:-1] + bytes([first[-1] ^ 1])

    def to_send(self, count: int) -> Iterator[bytes]:
        """Return the next round's messages."""
        return islice(cycle(self._sent), count)

    def expected(self, count: int) -> Iterator[bytes]:
        """Return what the next round's messages must be."""
        return islice(cycle(self._true), count)
