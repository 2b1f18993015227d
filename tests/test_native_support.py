"""The raw peer of our own wire: what it writes is what the page says, and it fails where a rule is broken."""

import concurrent.futures

import pytest

from support.frames import (
    ACK,
    ASK,
    CLOSE,
    HELLO,
    LONGEST_PART,
    MESSAGE,
    PART,
    PING,
    PONG,
    Frame,
    Hello,
    Refuse,
    ack,
    close,
    control,
    decode_frames,
    in_parts,
    message,
    move,
    ping,
    pong,
    read_close,
    read_numbers,
    split_header,
)
from support.native import NativeListener, NativePeer, Refused
from support.wires import OURS

pytestmark = OURS

FULL = Hello(
    minor=7,
    flags=0x1234,
    session=bytes(range(16)),
    token=bytes(range(16, 32)),
    link=3,
    received=4,
    credit=5,
    max_messages=6,
    hold=7,
    max_size=8,
    heartbeat_interval=9,
    heartbeat_timeout=10,
    extensions=((1, b"ab"), (255, b"")),
)

FULL_BYTES = bytes.fromhex(
    "8100005c 4e41 01 07 00001234 000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f"
    "00000003 0000000000000004 0000000000000005 00000006 0000000000000007 00000008 00000009 0000000a"
    "01 0002 6162 ff 0000"
)


@pytest.fixture
def listener():
    listening = NativeListener()
    yield listening
    listening.close()


@pytest.fixture
def linked(listener):
    """A dialler and the peer that answered it, behind their greeting."""
    dialler = NativePeer.dial(listener.address)
    answering = listener.accept()
    beside(answering.answer, dialler.open)
    yield dialler, answering
    dialler.close()


def beside(*actions):
    """Do these at the same time; return what each returned."""
    with concurrent.futures.ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]


# Frames


def test_hello_is_written_and_read_field_by_field():
    assert FULL.frame() == FULL_BYTES
    assert Hello.parse(FULL_BYTES[4:]) == FULL
    assert len(Hello().body()) == 84


def test_refuse_is_written_and_read():
    for refuse, wire in (
        (Refuse(1, b"no"), "87000004 0001 6e6f"),
        (Refuse(4), "87000002 0004"),
        (Refuse(6, b"x", 9), "8700000b 0006 0000000000000009 78"),
    ):
        assert refuse.frame() == bytes.fromhex(wire)
        assert Refuse.parse(refuse.frame()[4:]) == refuse


@pytest.mark.parametrize(
    ("written", "wire"),
    [
        (message(b""), "00000000"),
        (message(b"a"), "00000001 61"),
        (ping(1, 2, 3), "82000018 0000000000000001 0000000000000002 0000000000000003"),
        (pong(1, 2, 3), "83000018 0000000000000001 0000000000000002 0000000000000003"),
        (ack(1, 2), "84000010 0000000000000001 0000000000000002"),
        (close(3, b"bye"), "86000005 0003 627965"),
        (control(ASK), "88000000"),
        (move(250, b"h:1"), "89000007 000000fa 683a31"),
        (control(0x7F, b"z"), "ff000001 7a"),
    ],
)
def test_frames_are_written_as_the_page_says(written, wire):
    assert written == bytes.fromhex(wire)
    (frame,) = decode_frames(written)
    assert split_header(written[:4]) == (frame.kind, len(frame.body))


def test_the_numbers_of_a_frame_are_read():
    assert read_numbers(Frame(ACK, ack(1, 2)[4:])) == (None, 1, 2)
    assert read_numbers(Frame(PONG, pong(1, 2, 3)[4:])) == (1, 2, 3)
    assert read_close(Frame(CLOSE, close(2, b"why")[4:])) == (2, b"why")


@pytest.mark.parametrize("length", [0, 1, LONGEST_PART - 5, LONGEST_PART - 4, LONGEST_PART, 600_000])
def test_parts_add_up_to_their_message(length):
    payload = bytes(range(256)) * (length // 256) + bytes(length % 256)
    *parts, last = decode_frames(in_parts(payload))
    assert {part.kind for part in parts} == {PART} and last.kind == MESSAGE
    assert all(1 <= len(part.body) <= LONGEST_PART for part in parts)
    assert b"".join(part.body for part in parts) + last.body == len(payload).to_bytes(4, "big") + payload


def test_a_frame_that_is_cut_off_is_none():
    with pytest.raises(AssertionError, match="cut off"):
        decode_frames(ack(1, 2)[:-1])


# Peers


def test_two_peers_greet_each_other(listener):
    dialler = NativePeer.dial(listener.address)
    answering = listener.accept()
    asked, answer = beside(answering.answer, lambda: dialler.open(max_size=99))
    assert asked == Hello(max_size=99)
    assert answer == answering.ours and any(answer.session) and any(answer.token)
    dialler.close()


def test_a_refusal_is_raised(listener):
    dialler = NativePeer.dial(listener.address)
    answering = listener.accept()
    dialler.say_hello()
    assert answering.refuse(4, b"busy") == Hello()
    with pytest.raises(Refused) as told:
        dialler.hear_hello()
    assert told.value.refuse == Refuse(4, b"busy")
    dialler.close()


def test_messages_go_both_ways_and_are_counted(linked):
    dialler, answering = linked
    dialler.send(b"1", b"", b"333")
    assert answering.recv_many(3) == [b"1", b"", b"333"]
    assert (dialler.begun, dialler.begun_cost) == (answering.received, 3 * 64 + 4) == (3, 196)
    answering.send(b"back")
    assert dialler.recv() == b"back"
    assert answering.numbers() == (3, 4 * 2**20 + 196)


def test_a_large_message_is_put_together_from_its_parts(linked):
    dialler, answering = linked
    payload = bytes(range(250)) * 2000
    dialler.count_sent(payload)
    beside(lambda: dialler.send_bytes(in_parts(payload)), lambda: check(answering.recv(), payload))
    assert answering.received == 1


def check(got, expected):
    assert got == expected


def test_ping_and_ask_are_answered_while_it_reads(linked):
    dialler, answering = linked
    dialler.send(b"1")
    dialler.ping(77)
    dialler.ask()
    beside(lambda: [answering.read() for _ in range(3)])
    nonce, consumed, _ = read_numbers(dialler.expect(PONG))
    assert (nonce, consumed) == (77, 1)
    assert read_numbers(dialler.expect(ACK))[1] == 1


def test_pouring_waits_for_credit(listener):
    dialler = NativePeer.dial(listener.address)
    answering = listener.accept()
    beside(lambda: answering.answer(credit=300, max_messages=2), dialler.open)
    sent = [bytes(number) for number in range(200)]
    _, got = beside(lambda: dialler.pour(sent), lambda: answering.recv_many(200))
    assert got == sent
    dialler.close()


def test_goodbye_and_its_answer_end_both_streams(linked):
    dialler, answering = linked
    dialler.send(b"last")
    code, told = beside(lambda: dialler.goodbye(1), answering.answer_close)
    assert (code, told) == (1, (1, b""))
    assert answering.recv() == b"last" and dialler.heard[0] == 1


# It fails where a rule is broken.


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (ack(1, 2**40), "1 consumed of 0"),
        (ack(0, 5), "a credit of 5"),
        (pong(9, 0, 2**40), "never asked"),
        (message(b"") + close(0), "CLOSE behind"),
        (control(PART), "an empty PART"),
        (message(bytes(101)), "above max_size"),
        (ack(0, 2**40) + close(0) + message(b""), "behind CLOSE"),
        (message(b"") * 5, "passes the credit"),
        (message(b"") * 3, "max_messages"),
        (control(PING, bytes(24)), "a credit of 0"),
    ],
)
def test_a_broken_rule_is_told(listener, written, complaint):
    dialler = NativePeer.dial(listener.address)
    answering = listener.accept()
    limits = {"max_messages": 2} if complaint == "max_messages" else {}
    beside(lambda: answering.answer(credit=250, max_size=100, **limits), dialler.open)
    answering.answers = False
    dialler.send_bytes(written)
    dialler.half_close()
    with pytest.raises(AssertionError, match=complaint):
        answering.read_to_end()
    dialler.close()


@pytest.mark.parametrize("first", [control(HELLO), message(b"early"), ping(1, 0, 2**40)])
def test_another_first_frame_than_ack_is_told(listener, first):
    dialler = NativePeer.dial(listener.address)
    answering = listener.accept()
    dialler.send_bytes(Hello().frame() + first)
    with pytest.raises(AssertionError):
        answering.answer()
    dialler.close()
