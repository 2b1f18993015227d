"""The frames of `netasync/1`, by hand from `wire.md` §2: `struct` and nothing of netasync.

Four bytes of header: bit 31 clear, a message and its length; bit 31 set, the type of a control frame (seven
bits) and the length of its body (24 bits).
"""

from __future__ import annotations

import dataclasses
import struct
from typing import NamedTuple

MESSAGE = 0x00
HELLO, PING, PONG, ACK, PART, CLOSE, REFUSE, ASK, MOVE = range(0x01, 0x0A)

NAMES = ("message", "HELLO", "PING", "PONG", "ACK", "PART", "CLOSE", "REFUSE", "ASK", "MOVE")

#: What a message costs beyond its length.
OVERHEAD = 64

#: A message that is longer travels in parts, none of which is longer.
LONGEST_PART = 256 * 1024

#: Any number of messages.
UNLIMITED = 2**32 - 1

#: A credit that no test here uses up.
AMPLE = 2**30

NOBODY = bytes(16)

_FIXED = struct.Struct(">2sBBI16s16sIQQIQIII")
_THREE = struct.Struct(">QQQ")
_TWO = struct.Struct(">QQ")


class Frame(NamedTuple):
    """One frame: `kind` is `MESSAGE` or the type of a control frame."""

    kind: int
    body: bytes = b""

    def __repr__(self) -> str:
        name = NAMES[self.kind] if self.kind < len(NAMES) else f"type {self.kind:#04x}"
        return f"<{name} {len(self.body)} bytes {self.body[:24].hex()}>"


def message(payload: bytes) -> bytes:
    """A message in one frame, however long."""
    return struct.pack(">I", len(payload)) + payload


def control(kind: int, body: bytes = b"") -> bytes:
    """A control frame of any type."""
    return struct.pack(">I", 1 << 31 | kind << 24 | len(body)) + body


def in_parts(payload: bytes, size: int = LONGEST_PART) -> bytes:
    """A message as PARTs of `size` bytes, the length that stands first included, and a last frame."""
    whole = struct.pack(">I", len(payload)) + payload
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    last = pieces.pop() if len(pieces) > 1 else b""
    return b"".join(control(PART, piece) for piece in pieces) + message(last)


def cost(*payloads: bytes) -> int:
    """What these messages take of the credit."""
    return sum(len(payload) + OVERHEAD for payload in payloads)


def split_header(header: bytes) -> tuple[int, int]:
    """The kind of the frame that begins so, and how many bytes its body has."""
    (word,) = struct.unpack(">I", header)
    if word >> 31:
        return word >> 24 & 0x7F, word & 0xFFFFFF
    return MESSAGE, word


def decode_frames(data: bytes) -> list[Frame]:
    """The frames in `data`; fails on a part of one at the end."""
    found, at = [], 0
    while at < len(data):
        kind, length = split_header(data[at : at + 4])
        at += 4 + length
        assert at <= len(data), f"a frame of {length} bytes is cut off: {found}"
        found.append(Frame(kind, data[at - length : at]))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hello:
    """Every field of HELLO, in the order of the wire. A dialler without a session is the default."""

    magic: bytes = b"NA"
    major: int = 1
    minor: int = 0
    flags: int = 0
    session: bytes = NOBODY
    token: bytes = NOBODY
    link: int = 1
    received: int = 0
    credit: int = 4 * 2**20
    max_messages: int = 65_536
    hold: int = 4 * 2**20
    max_size: int = 16 * 2**20
    heartbeat_interval: int = 5_000
    heartbeat_timeout: int = 20_000
    extensions: tuple[tuple[int, bytes], ...] = ()

    def body(self) -> bytes:
        *fixed, extensions = (getattr(self, field.name) for field in dataclasses.fields(self))
        values = [struct.pack(">BH", tag, len(value)) + value for tag, value in extensions]
        return _FIXED.pack(*fixed) + b"".join(values)

    def frame(self) -> bytes:
        return control(HELLO, self.body())

    @classmethod
    def parse(cls, body: bytes) -> Hello:
        names = [field.name for field in dataclasses.fields(cls)]
        fixed = dict(zip(names[:-1], _FIXED.unpack_from(body), strict=True))
        extensions, at = [], _FIXED.size
        while at < len(body):
            tag, length = struct.unpack_from(">BH", body, at)
            at += 3 + length
            assert at <= len(body), "an extension passes the end of HELLO"
            extensions.append((tag, body[at - length : at]))
        return cls(**fixed, extensions=tuple(extensions))


@dataclasses.dataclass(frozen=True)
class Refuse:
    """REFUSE: its code and the peer's words, and behind code 6 what was consumed."""

    code: int
    text: bytes = b""
    consumed: int | None = None

    def frame(self) -> bytes:
        consumed = b"" if self.consumed is None else struct.pack(">Q", self.consumed)
        return control(REFUSE, struct.pack(">H", self.code) + consumed + self.text)

    @classmethod
    def parse(cls, body: bytes) -> Refuse:
        (code,) = struct.unpack_from(">H", body)
        if code != 6:
            return cls(code, body[2:])
        (consumed,) = struct.unpack_from(">Q", body, 2)
        return cls(code, body[10:], consumed)


def ping(nonce: int, consumed: int, credit: int) -> bytes:
    return control(PING, _THREE.pack(nonce, consumed, credit))


def pong(nonce: int, consumed: int, credit: int) -> bytes:
    return control(PONG, _THREE.pack(nonce, consumed, credit))


def ack(consumed: int, credit: int) -> bytes:
    return control(ACK, _TWO.pack(consumed, credit))


def close(code: int, reason: bytes = b"") -> bytes:
    return control(CLOSE, struct.pack(">H", code) + reason)


def move(spread: int, target: bytes = b"") -> bytes:
    return control(MOVE, struct.pack(">I", spread) + target)


def read_numbers(frame: Frame) -> tuple[int | None, int, int]:
    """The nonce (None in ACK), consumed and credit of a PING, PONG or ACK."""
    if frame.kind == ACK:
        return None, *_TWO.unpack_from(frame.body)
    return _THREE.unpack_from(frame.body)


def read_close(frame: Frame) -> tuple[int, bytes]:
    """The code and the words of a CLOSE."""
    assert frame.kind == CLOSE, frame
    return struct.unpack_from(">H", frame.body)[0], frame.body[2:]
