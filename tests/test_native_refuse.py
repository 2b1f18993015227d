"""No agreement: whom a listener refuses and with which code, and what each code does to a dialler."""

import pytest

from netasync import Backoff, Buffer, Reason
from support.frames import HELLO, NOBODY, Hello, Refuse, ack, control, message
from support.hostile import STRANGERS, neighbour, throw
from support.native import Refused
from support.native_world import (
    NATIVE,
    native_answer,
    native_call,
    native_connect,
    native_dial,
    native_listen,
    native_listener,
)
from support.wires import OURS

pytestmark = OURS

#: Each wait is short, but the longest, which a refusal may ask for and `retry_in` shows.
STEADY = Backoff(initial=0.01, factor=1, maximum=50, jitter="none")
SHORT, LONGEST = 0.01, 50

SOMEBODY = b"x" * 16


def body(**fields):
    return Hello(**fields).body()


# A listener refuses


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, body(major=0)),
        (1, body(major=2)),
        (1, body(major=255)),
        (1, b"NA\x02\x00"),
        (1, b"NA\x02" + bytes(200)),
        (1, body(flags=1 << 16)),
        (1, body(flags=1 << 31)),
        (2, body(magic=b"NB")),
        (2, body(magic=b"\0\0")),
        (2, b""),
        (2, b"NA"),
        (2, body()[:-1]),
        (2, body() + b"\x01"),
        (2, body() + b"\x01\x00"),
        (2, body() + b"\x01\x00\x05abcd"),
        (2, body(extensions=((1, b"good"),)) + b"\x01\xff\xff"),
        (2, body(link=0)),
        (2, body(session=SOMEBODY)),
        (2, body(token=SOMEBODY)),
        (2, body(extensions=((1, bytes(4096 - 84 - 3 + 1)),))),
        (2, body(extensions=((1, bytes(60_000)),))),
        (7, body(max_size=0)),
        (7, body(max_messages=0)),
        (7, body(hold=0)),
        (7, body(heartbeat_interval=0)),
        (7, body(heartbeat_timeout=0)),
        (7, body(heartbeat_timeout=99)),
    ],
)
async def test_a_listener_refuses_with_the_code_of_the_page(world, code, said):
    listener, is_well = await neighbour(world, **NATIVE)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(control(HELLO, said))
    with pytest.raises(Refused) as told:
        await world.outside(peer.hear_hello)
    assert told.value.refuse.code == code
    assert (await world.outside(peer.recv_to_end))[0] == b""
    assert listener.stats().accepted == 1
    await is_well()


async def test_the_words_of_a_refusal_are_text_and_name_no_bytes_of_the_peer(world):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(Hello(max_size=0, session=NOBODY).frame())
    with pytest.raises(Refused) as told:
        await world.outside(peer.hear_hello)
    text = told.value.refuse.text.decode()
    assert len(text) <= 256 and text.isprintable()


@pytest.mark.parametrize("name", STRANGERS)
async def test_a_stranger_is_shown_out_without_a_reply(world, name):
    listener, is_well = await neighbour(world, **NATIVE)
    peer = await native_dial(world, listener.address)
    await world.outside(throw, peer, STRANGERS[name])
    assert (await world.outside(peer.recv_to_end))[0] == b""
    assert listener.stats().accepted == 1
    await is_well()


@pytest.mark.parametrize("first", [0x00, 0x01, 0x07, 0x08, 0x7F, 0x80, 0x82, 0x87, 0xC0, 0xFF])
async def test_before_hello_any_other_first_byte_ends_the_link_without_a_reply(world, first):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(bytes([first, 0, 0, 0]))
    assert (await world.outside(peer.recv_to_end))[0] == b""
    assert listener.stats().accepted == 0


async def test_one_hello_that_is_refused_leaves_the_door_open(world):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(Hello(major=9).frame())
    await world.outside(peer.recv_to_end)
    conn, peer = await native_call(world, listener)
    peer.send(b"welcome")
    assert await world.recv(conn) == b"welcome"


async def test_a_full_dropping_accept_buffer_is_busy(world):
    listener = native_listen(world, accept_buffer=Buffer.dropping(1))
    first = await native_dial(world, listener.address)
    await world.outside(first.open)
    second = await native_dial(world, listener.address)
    with pytest.raises(Refused) as told:
        await world.outside(second.open)
    assert told.value.refuse.code == 4
    assert listener.stats().refused == 1
    await world.up(await world.accept(listener))


async def test_who_has_not_finished_greeting_pushes_nobody_out_of_a_sliding_accept_buffer(world):
    listener = native_listen(world, accept_buffer=Buffer.sliding(2))
    for _ in range(2):
        unfinished = await native_dial(world, listener.address)
        await world.outside(unfinished.greet)
    for _ in range(2):
        peer = await native_dial(world, listener.address)
        await world.outside(peer.open)
    stats = listener.stats()
    assert (stats.accepted, stats.waiting, stats.refused) == (2, 2, 0)


async def test_a_dial_above_max_connections_is_busy_until_there_is_room(world):
    listener = native_listen(world, max_connections=1)
    conn, _ = await native_call(world, listener)
    second = native_connect(world, listener.address, reconnect=STEADY)
    down = await world.down(second)
    assert (down.reason, down.retry_in) == (Reason.BUSY, pytest.approx(SHORT))
    assert listener.stats().refused >= 1
    conn.abort()
    await world.up(await world.accept(listener))
    await world.up(second)


# What a refusal does to a dialler


@pytest.mark.parametrize(
    ("code", "reason", "wait"),
    [
        (1, Reason.REJECTED, LONGEST),
        (2, Reason.REJECTED, LONGEST),
        (3, Reason.REJECTED, SHORT),
        (4, Reason.BUSY, SHORT),
        (5, Reason.REJECTED, SHORT),
        (6, Reason.CLOSED_BY_PEER, SHORT),
        (7, Reason.REJECTED, LONGEST),
        (8, Reason.REJECTED, LONGEST),
    ],
)
async def test_a_refused_dialler_says_why_and_waits_as_its_code_asks(world, code, reason, wait):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=STEADY)
    peer = await world.outside(server.accept)
    await world.outside(peer.refuse, code, b"the peer's words", 0 if code == 6 else None)
    down = await world.down(conn)
    assert down.reason is reason
    assert down.retry_in == pytest.approx(wait)
    assert "the peer's words" in down.detail
    assert (await world.outside(peer.recv_to_end))[0] == b""


@pytest.mark.parametrize("code", [3, 4, 5, 6])
async def test_a_dialler_comes_back_after_a_refusal_that_may_pass(world, code):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    await world.send(conn, b"kept")
    for _ in range(3):
        peer = await world.outside(server.accept)
        await world.outside(peer.refuse, code, b"", 0 if code == 6 else None)
    peer = await native_answer(world, server)
    assert (peer.theirs.session, peer.theirs.token) == (NOBODY, NOBODY)
    assert await world.outside(peer.recv) == b"kept"
    await world.down(conn)
    await world.up(conn)


async def test_with_reconnect_none_a_refusal_is_the_end(world):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=None)
    peer = await world.outside(server.accept)
    await world.outside(peer.refuse, 4)
    await world.down(conn)
    assert (await world.end(conn)).reason is Reason.BUSY


async def test_an_unknown_code_is_a_rejection(world):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=STEADY)
    peer = await world.outside(server.accept)
    await world.outside(peer.refuse, 999, b"news")
    assert (await world.down(conn)).reason is Reason.REJECTED


@pytest.mark.parametrize(
    ("text", "shown"),
    [(b"q" * 1000, "q" * 256), (b"\xff\xfefine", "fine"), ("ünïcode".encode(), "ünïcode")],
)
async def test_the_words_of_a_refusal_are_cut_and_made_text(world, text, shown):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=STEADY)
    peer = await world.outside(server.accept)
    await world.outside(peer.refuse, 1, text)
    down = await world.down(conn)
    assert shown in down.detail
    assert shown + "q" not in down.detail


# An answer that is none


def answer_with(**fields):
    return Hello(**{"session": SOMEBODY, "token": b"y" * 16, **fields})


@pytest.mark.parametrize(
    "said",
    [
        answer_with(magic=b"NO").frame(),
        answer_with(major=2).frame(),
        answer_with(link=2).frame(),
        answer_with(link=0).frame(),
        answer_with(session=NOBODY, token=NOBODY).frame(),
        answer_with(session=NOBODY).frame(),
        control(HELLO, answer_with().body()[:-1]),
        control(HELLO, answer_with().body() + b"\x01\x00\x09abc"),
        control(HELLO, answer_with(extensions=((1, bytes(4096 - 84 - 2)),)).body()),
    ],
)
async def test_a_malformed_answer_ends_the_link_and_the_next_attempt_waits_the_longest(world, said):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=STEADY)
    peer = await world.outside(server.accept)
    await world.outside(peer.hear_hello)
    peer.send_bytes(said)
    down = await world.down(conn)
    assert down.reason in (Reason.PROTOCOL, Reason.REJECTED)
    assert down.retry_in == pytest.approx(LONGEST)


@pytest.mark.parametrize(
    "said",
    [
        message(b"hello?"),
        message(b""),
        ack(0, 0),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-x\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\xff\xff\xff\xff",
    ],
)
async def test_anything_but_hello_and_refuse_ends_a_diallers_link_without_a_reply(world, said):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=STEADY)
    peer = await world.outside(server.accept)
    await world.outside(peer.hear_hello)
    peer.send_bytes(said)
    assert (await world.outside(peer.recv_to_end))[0] == b""
    assert (await world.down(conn)).reason is Reason.PROTOCOL
    assert conn.stats().received == 0


@pytest.mark.parametrize("said", [b"", b"\x81", answer_with().frame()[:40]], ids=len)
async def test_an_end_of_stream_in_place_of_the_answer_is_a_break(world, said):
    server = native_listener(world)
    conn = native_connect(world, server.address, reconnect=STEADY)
    peer = await world.outside(server.accept)
    await world.outside(peer.hear_hello)
    peer.send_bytes(said)
    peer.half_close()
    assert (await world.down(conn)).reason in (Reason.EOF, Reason.TRUNCATED)


# Twice, or late


@pytest.mark.parametrize("again", [Hello().frame(), Refuse(4).frame()], ids=["hello", "refuse"])
async def test_a_greeting_behind_the_greeting_is_protocol_on_both_sides(world, again):
    listener, is_well = await neighbour(world, **NATIVE)
    conn, peer = await native_call(world, listener)
    peer.send_bytes(again)
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    server = native_listener(world)
    conn = native_connect(world, server.address)
    peer = await native_answer(world, server)
    await world.up(conn)
    peer.send_bytes(again)
    assert (await world.down(conn)).reason is Reason.PROTOCOL
    await is_well()


# At most so many at the door


@pytest.mark.faces("asyncio")
async def test_of_more_than_1024_unfinished_greetings_the_oldest_goes_first(world):
    listener = native_listen(world, open_timeout=60)
    peers = [await native_dial(world, listener.address) for _ in range(1024)]
    for peer in peers:
        peer.send_bytes(b"\x81")
    extra = [await native_dial(world, listener.address) for _ in range(3)]
    for peer in peers[:3]:
        assert (await world.outside(peer.recv_to_end))[0] == b""
    for peer in (peers[3], peers[1023], *extra):
        await world.outside(peer.stays_silent, 0.01)
    for peer in extra:
        await world.outside(peer.open)
        await world.up(await world.accept(listener))
