"""A peer of `netasync/1`, by hand from the page: blocking sockets, and nothing of netasync.

It counts messages, cost and credit in both directions, and fails where what it reads breaks a rule that holds
at every moment: so each test that talks to it checks these too.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
from collections.abc import Iterable
from typing import Any

from support.frames import (
    ACK,
    ASK,
    CLOSE,
    HELLO,
    MESSAGE,
    NOBODY,
    PART,
    PING,
    PONG,
    REFUSE,
    Frame,
    Hello,
    Refuse,
    ack,
    close,
    control,
    cost,
    message,
    ping,
    pong,
    read_close,
    read_numbers,
    split_header,
)
from support.peer import RawListener, RawPeer
from support.waiting import A_WHILE, DEADLINE

#: The kinds that tell what was consumed, and the credit.
TELLING = (PING, PONG, ACK)


class Refused(Exception):
    """The other side answered HELLO with REFUSE."""

    def __init__(self, refuse: Refuse) -> None:
        super().__init__(refuse)
        self.refuse = refuse


class NativePeer(RawPeer):
    """One end of a native link. Every waiting call gives up after `DEADLINE`.

    While `answers` is on it takes each message as it is read, confirms in time, and answers PING and ASK, but
    only inside calls that read. Off, it says nothing on its own.
    """

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self.answers = True
        self.ours = Hello()
        self.theirs: Hello | None = None
        #: Messages that came and that no call has returned yet.
        self.messages: collections.deque[bytes] = collections.deque()
        #: Control frames in the order in which they came.
        self.controls: list[Frame] = []
        # Sent: messages and their cost, and what the other side said of them.
        self.begun = 0
        self.begun_cost = 0
        self.heard = (0, 0)
        # Received: the cost of the first n messages, how many are taken, and what was said of it.
        self._costs = [0]
        self.consumed = 0
        self.told = (0, 0)
        #: Who closes discards: its consumed does not move any more.
        self._discards = False
        self._part: bytearray | None = None
        self._before: Frame | None = None
        self._nonces: set[int] = set()

    # The greeting

    def take_up(self, older: NativePeer) -> None:
        """Go on counting where another link of the same session stopped."""
        self.begun, self.begun_cost, self.heard = older.begun, older.begun_cost, older.heard
        self._costs, self.consumed, self.told = older._costs, older.consumed, older.told

    def say_hello(self, **fields: Any) -> Hello:
        """Send HELLO with these fields and wait for no answer."""
        self.ours = Hello(**fields)
        self.told = (0, self.ours.credit)
        self.send_bytes(self.ours.frame())
        return self.ours

    def hear_hello(self) -> Hello:
        """The other side's HELLO; raises `Refused` where REFUSE comes in its place."""
        frame = self._read()
        if frame.kind == REFUSE:
            raise Refused(Refuse.parse(frame.body))
        assert frame.kind == HELLO, frame
        self.theirs = Hello.parse(frame.body)
        self.heard = (0, self.theirs.credit)
        return self.theirs

    def greet(self, **fields: Any) -> Hello:
        """As a dialler: HELLO, and the answer."""
        self.say_hello(**fields)
        return self.hear_hello()

    def open(self, **fields: Any) -> Hello:
        """As a dialler, up to the first ACK of both sides."""
        answer = self.greet(**fields)
        self.ack()
        self.expect(ACK)
        return answer

    def answer_hello(self, **fields: Any) -> Hello:
        """As a listener: hear HELLO and answer with one, for a new session; return what was heard."""
        asked = self.hear_hello()
        self.say_hello(**{"session": os.urandom(16), "token": os.urandom(16), "link": asked.link, **fields})
        if asked.session not in (NOBODY, self.ours.session):
            # What the dialler granted to the session that it asked for counts in no other one.
            self.heard = (0, 0)
        return asked

    def answer(self, **fields: Any) -> Hello:
        """As a listener, up to the first ACK of both sides."""
        asked = self.answer_hello(**fields)
        self.expect(ACK)
        self.ack()
        return asked

    def refuse(self, code: int, text: bytes = b"", consumed: int | None = None) -> Hello:
        """As a listener: hear HELLO, and refuse it."""
        asked = self.hear_hello()
        self.send_bytes(Refuse(code, text, consumed).frame())
        return asked

    # Sending

    def send(self, *payloads: bytes) -> None:
        """Messages in one write, whatever the credit."""
        self.count_sent(*payloads)
        self.send_bytes(b"".join(message(payload) for payload in payloads))

    def count_sent(self, *payloads: bytes) -> None:
        """Count messages whose bytes the test writes in its own way."""
        self.begun += len(payloads)
        self.begun_cost += cost(*payloads)

    def may_begin(self) -> bool:
        """Whether the credit and the count that were heard allow another message."""
        assert self.theirs is not None
        consumed, credit = self.heard
        return self.begun_cost < credit and self.begun - consumed < self.theirs.max_messages

    def pour(self, payloads: Iterable[bytes]) -> None:
        """Messages as the credit allows them, reading while it does not."""
        for payload in payloads:
            while not self.may_begin():
                self.read()
            self.send(payload)

    def numbers(self) -> tuple[int, int]:
        """What may be said now: how many messages are consumed, and the credit."""
        return self.consumed, min(self._costs[self.consumed] + self.ours.credit, 2**64 - 1)

    def ack(self) -> None:
        self._tell(ack(*self.numbers()))

    def tell(self, consumed: int, credit: int) -> None:
        """An ACK with other numbers than its own; the credit counts from now on."""
        self.told = (consumed, credit)
        self.send_bytes(ack(consumed, credit))

    def ping(self, nonce: int = 1) -> None:
        self.pinged(nonce)
        self._tell(ping(nonce, *self.numbers()))

    def pinged(self, *nonces: int) -> None:
        """Expect PONGs to PINGs that the test writes in its own way."""
        self._nonces.update(nonces)

    def pong(self, nonce: int) -> None:
        self._tell(pong(nonce, *self.numbers()))

    def ask(self) -> None:
        self.send_bytes(control(ASK))

    def consume(self, count: int | None = None) -> None:
        """Take this many messages, or all that came, and say nothing of it; a side that closes takes none."""
        if not self._discards:
            self.consumed = self.received if count is None else self.consumed + count

    def say_close(self, code: int = 0, reason: bytes = b"") -> None:
        """CLOSE with its ACK in front, in one write."""
        self._tell(ack(*self.numbers()) + close(code, reason))

    def _beat(self, interval: float) -> None:
        with contextlib.suppress(OSError):
            while not self._stop_beating.wait(interval):
                self.ping()

    def _tell(self, data: bytes) -> None:
        self.told = self.numbers()
        self.send_bytes(data)

    # Receiving

    @property
    def received(self) -> int:
        """How many messages came whole."""
        return len(self._costs) - 1

    def read(self) -> Frame:
        """The next frame, counted, checked and answered. `EOFError` at the end of the stream."""
        frame = self._read()
        if frame.kind == MESSAGE:
            self._take_message(frame.body)
        elif frame.kind == PART:
            self._take_part(frame.body)
        else:
            self._take_control(frame)
        if self.answers:
            self._answer(frame)
        return frame

    def expect(self, kind: int) -> Frame:
        """The next frame, which is of this kind."""
        frame = self.read()
        assert frame.kind == kind, f"{Frame(kind)} was expected, {frame} came"
        return frame

    def wait_for(self, kind: int) -> Frame:
        """The next control frame of this kind, whatever comes before it."""
        while (frame := self.read()).kind != kind:
            pass
        return frame

    def recv(self) -> bytes:
        """The next message. `EOFError` at the end of the stream."""
        while not self.messages:
            self.read()
        return self.messages.popleft()

    def read_to_end(self) -> tuple[list[Frame], str]:
        """The frames up to the end, and how it ended: `"eof"` or `"reset"`."""
        frames = []
        while True:
            try:
                frames.append(self.read())
            except EOFError:
                return frames, "eof"
            except (ConnectionResetError, BrokenPipeError):
                return frames, "reset"

    def _read(self) -> Frame:
        kind, length = split_header(self.recv_exactly(4))
        if kind in (MESSAGE, PART):
            self._check_may_come(length)
        return Frame(kind, self.recv_exactly(length))

    def _check_may_come(self, length: int) -> None:
        assert self._before is not None, "a message before the first ACK"
        assert self._before.kind != CLOSE, "a message behind CLOSE"
        if self._part is None:
            consumed, credit = self.told
            assert self._costs[-1] < credit, f"message {self.received} passes the credit of {credit}"
            assert self.received - consumed < self.ours.max_messages, "more than max_messages"
            assert length <= self.ours.max_size, f"{length} bytes, above max_size"

    def _take_message(self, body: bytes) -> None:
        self._before = Frame(MESSAGE)
        if self._part is not None:
            whole, self._part = bytes(self._part) + body, None
            assert int.from_bytes(whole[:4], "big") == len(whole) - 4, "parts that do not add up"
            body = whole[4:]
        self._costs.append(self._costs[-1] + cost(body))
        self.messages.append(body)

    def _take_part(self, body: bytes) -> None:
        assert body, "an empty PART"
        self._before = Frame(PART)
        self._part = (self._part or bytearray()) + body

    def _take_control(self, frame: Frame) -> None:
        if self._before is None and frame.kind != ACK:
            assert frame.kind == CLOSE and read_close(frame)[0] in (2, 3, 5), f"first came {frame}"
        if frame.kind == CLOSE and read_close(frame)[0] not in (2, 5):
            assert self._before is not None and self._before.kind == ACK, f"CLOSE behind {self._before}"
        if frame.kind in TELLING:
            self._hear(frame)
        self._before = frame
        self.controls.append(frame)

    def _hear(self, frame: Frame) -> None:
        nonce, consumed, credit = read_numbers(frame)
        assert self.heard[0] <= consumed <= self.begun, f"{consumed} consumed of {self.begun}: {self.heard}"
        # The first numbers may restate HELLO's credit, and nothing after may fall below what was said.
        assert credit >= self.heard[1], f"a credit of {credit} behind {self.heard}"
        if frame.kind == PONG:
            assert nonce in self._nonces, f"a PONG to {nonce}, which was never asked"
        self.heard = (consumed, credit)

    def _answer(self, frame: Frame) -> None:
        self.consume()
        if frame.kind == PING:
            self.pong(read_numbers(frame)[0])
        elif frame.kind == ASK or self._has_much_to_tell():
            self.ack()

    def _has_much_to_tell(self) -> bool:
        consumed, credit = self.numbers()
        many, much = self.ours.max_messages // 4 or 1, self.ours.credit // 4
        return consumed - self.told[0] >= many or (credit > self.told[1] and credit - self.told[1] >= much)

    def stays_silent(self, seconds: float = A_WHILE) -> None:
        """For this long not a byte comes."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(64)
        except TimeoutError:
            return
        finally:
            self.socket.settimeout(DEADLINE)
        raise AssertionError(f"not silent: {data.hex() or 'the end of the stream'}")

    # Ending

    def goodbye(self, code: int = 0) -> int:
        """Close: CLOSE, the answer to it, and both ends of the stream. Return the code of the answer."""
        self.say_close(code)
        self._discards = True
        answer, _ = read_close(self.wait_for(CLOSE))
        self._end()
        return answer

    def answer_close(self) -> tuple[int, bytes]:
        """Wait for CLOSE, answer it and end; return its code and words."""
        code, reason = read_close(self.wait_for(CLOSE))
        self.consume()
        self.say_close(code)
        self._end()
        return code, reason

    def _end(self) -> None:
        self.answers = False
        self.half_close()
        frames, how = self.read_to_end()
        assert how == "eof", f"the stream ended by {how} behind {frames}"


class NativeListener(RawListener):
    """Accepts native peers, which have still to answer HELLO."""

    def peer_of(self, accepted: socket.socket) -> NativePeer:
        return NativePeer(accepted)
