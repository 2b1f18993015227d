"""Four bytes of length before each message: what one adds to a stream to get messages out of it."""

from __future__ import annotations

import struct
from collections.abc import Callable

_HEADER = struct.Struct("!I")
HEADER_SIZE = _HEADER.size

#: From here on a second call costs less than the copy that one call needs.
_LARGE = 2**16

pack_length = _HEADER.pack
unpack_length = _HEADER.unpack_from


def write_frame(write: Callable[[bytes], object], message: bytes) -> None:
    """Write a message and its length."""
    if len(message) < _LARGE:
        write(pack_length(len(message)) + message)
    else:
        write(pack_length(len(message)))
        write(message)
