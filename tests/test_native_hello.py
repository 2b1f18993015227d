"""The greeting of our own wire: what each HELLO says, who speaks when, and when a connection exists."""

import dataclasses

import pytest

from netasync import Buffer, BufferEmpty, Reason, State
from support.frames import (
    ACK,
    NOBODY,
    PING,
    UNLIMITED,
    Hello,
    ack,
    close,
    control,
    message,
    ping,
    read_numbers,
)
from support.native_world import (
    native_answer,
    native_answered,
    native_call,
    native_connect,
    native_dial,
    native_dialled,
    native_listen,
    native_listener,
    native_pair,
)
from support.waiting import A_WHILE
from support.wires import OURS

pytestmark = OURS

#: Options whose every number stands in HELLO.
SETTINGS = {
    "read_buffer": Buffer.fixed(123, max_bytes=45_678),
    "write_buffer": Buffer.fixed(99, max_bytes=34_567),
    "max_size": 7_777,
    "heartbeat_interval": 0.25,
    "heartbeat_timeout": 1.5,
}

OFFERED = Hello(
    credit=45_678,
    max_messages=123,
    hold=34_567,
    max_size=7_777,
    heartbeat_interval=250,
    heartbeat_timeout=1_500,
)

#: What the page says of these options, byte for byte.
GOLDEN = bytes.fromhex(
    "81000054 4e41 01 00 00000000 00000000000000000000000000000000 00000000000000000000000000000000"
    "00000001 0000000000000000 000000000000b26e 0000007b 0000000000008707 00001e61 000000fa 000005dc"
)

# HELLO, field by field


async def test_a_dialler_says_its_settings_byte_for_byte(world):
    server = native_listener(world)
    native_connect(world, server.address, **SETTINGS)
    peer = await world.outside(server.accept)
    assert await world.outside(peer.recv_exactly, len(GOLDEN)) == GOLDEN
    assert OFFERED.frame() == GOLDEN


async def test_a_listener_answers_with_its_settings_a_fresh_session_and_the_link_of_the_question(world):
    listener = native_listen(world, **SETTINGS)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(Hello(link=5).frame())
    wire = await world.outside(peer.recv_exactly, len(GOLDEN))
    answer = Hello.parse(wire[4:])
    assert wire[:4] == GOLDEN[:4]
    assert answer.session != NOBODY and answer.token != NOBODY and answer.session != answer.token
    assert dataclasses.replace(answer, session=NOBODY, token=NOBODY) == dataclasses.replace(OFFERED, link=5)


async def test_the_defaults_are_those_of_the_options(world):
    _conn, peer, _ = await native_dialled(world)
    assert peer.theirs == Hello()
    _served, peer = await native_answered(world)
    assert dataclasses.replace(peer.theirs, session=NOBODY, token=NOBODY) == Hello()


@pytest.mark.parametrize("policy", [Buffer.dropping, Buffer.sliding])
async def test_a_lossy_read_buffer_takes_any_number_of_messages(world, policy):
    _conn, peer, _ = await native_dialled(world, read_buffer=policy(5))
    assert peer.theirs.max_messages == UNLIMITED
    assert peer.theirs.credit > 0


async def test_every_dialler_gets_a_session_and_a_token_of_its_own(world):
    listener = native_listen(world)
    drawn = []
    for _ in range(10):
        _, peer = await native_call(world, listener)
        drawn += [peer.theirs.session, peer.theirs.token]
    assert len(set(drawn)) == 20


async def test_each_hello_of_a_handle_has_the_next_link(world):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    for link in range(1, 5):
        peer = await native_answer(world, server)
        assert peer.theirs.link == link
        await world.up(conn)
        peer.reset()
        await world.down(conn)


async def test_a_refused_hello_counts_as_a_link_too(world):
    server = native_listener(world)
    native_connect(world, server.address, reconnect=0.01)
    for link in range(1, 4):
        peer = await world.outside(server.accept)
        assert (await world.outside(peer.refuse, 4)).link == link


async def test_an_unknown_session_is_answered_with_a_new_one(world):
    conn, peer = await native_answered(world, {"session": b"s" * 16, "token": b"t" * 16, "link": 2})
    assert peer.theirs.session not in (NOBODY, b"s" * 16)
    assert peer.theirs.link == 2
    peer.send(b"all the same")
    assert await world.recv(conn) == b"all the same"


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": 0xFFFF},
        {"minor": 255},
        {"max_size": 2**32 - 1},
        {"max_size": 1},
        {"max_messages": 1},
        {"max_messages": UNLIMITED},
        {"hold": 1},
        {"hold": 2**64 - 1},
        {"credit": 2**64 - 1},
        {"credit": 0},
        {"link": 2**32 - 1},
        {"heartbeat_timeout": 100},
        {"heartbeat_interval": 2**32 - 1, "heartbeat_timeout": 2**32 - 1},
        {"extensions": ((200, b"what is this"), (0, b""))},
        {"extensions": ((200, b"first"), (200, b"again"))},
        {"extensions": ((200, bytes(4096 - 84 - 3)),)},
    ],
    ids=lambda fields: str(fields)[:60],
)
async def test_a_hello_with_this_is_welcome_on_both_sides(world, fields):
    conn, peer = await native_answered(world, fields)
    peer.send(b"up")
    assert await world.recv(conn) == b"up"
    answer = {name: value for name, value in fields.items() if name != "link"}
    conn, peer, _ = await native_dialled(world, answer)
    peer.send(b"up")
    assert await world.recv(conn) == b"up"


# Order


async def test_a_dialler_sends_nothing_more_until_the_answer(world):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    await world.send(conn, b"waiting", b"too")
    peer = await world.outside(server.accept)
    await world.outside(peer.hear_hello)
    await world.outside(peer.stays_silent)
    assert conn.state is State.CONNECTING


async def test_a_listener_says_nothing_before_hello(world):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.stays_silent)
    await world.outside(peer.open)


async def test_a_hello_in_single_bytes_is_a_hello(world):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    wire = Hello().frame()
    await world.outside(peer.send_pieces, [wire[at : at + 1] for at in range(len(wire))])
    await world.outside(peer.hear_hello)
    peer.ack()
    await world.up(await world.accept(listener))


async def test_the_first_frame_of_each_side_is_ack_and_the_second_ping(world):
    _conn, peer, _ = await native_dialled(world)
    assert (await world.outside(peer.expect, PING)).kind == PING
    assert read_numbers(peer.controls[0])[1:] == (0, peer.theirs.credit)
    _served, peer = await native_answered(world)
    assert (await world.outside(peer.expect, PING)).kind == PING
    assert read_numbers(peer.controls[0])[1:] == (0, peer.theirs.credit)


async def test_ack_comes_first_even_where_messages_wait(world):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    await world.send(conn, b"1", b"2")
    peer = await native_answer(world, server)
    assert await world.outside(peer.recv_many, 2) == [b"1", b"2"]
    assert next(frame.kind for frame in peer.controls) == ACK


async def test_a_dialler_is_connected_with_the_answer(world):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    peer = await world.outside(server.accept)
    await world.outside(peer.answer_hello)
    up = await world.up(conn)
    assert (up.resumed, up.redelivered, up.lost, up.peer) == (False, 0, 0, server.address)
    assert conn.session is not None


FIRST_FRAMES = {
    "message": message(b"early"),
    "ping": ping(1, 0, 2**30),
    "hello": Hello().frame(),
    "close": close(0),
    "unknown": control(0x50, b"skip me"),
}


@pytest.mark.parametrize("first", FIRST_FRAMES.values(), ids=FIRST_FRAMES)
async def test_another_first_frame_than_ack_is_protocol_to_a_dialler(world, first):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    peer = await world.outside(server.accept)
    await world.outside(peer.answer_hello)
    peer.send_bytes(first)
    await world.up(conn)
    assert (await world.down(conn)).reason is Reason.PROTOCOL


@pytest.mark.parametrize("first", FIRST_FRAMES.values(), ids=FIRST_FRAMES)
async def test_another_first_frame_than_ack_is_no_connection_to_a_listener(world, first):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.greet)
    peer.send_bytes(first)
    await world.outside(peer.recv_to_end)
    assert listener.stats().accepted == 0


@pytest.mark.parametrize(("code", "reason"), [(2, Reason.RESET), (3, Reason.ABORTED), (5, Reason.PROTOCOL)])
async def test_a_first_frame_may_be_close_2_3_or_5(world, code, reason):
    server = native_listener(world)
    conn = native_connect(world, server.address)
    peer = await world.outside(server.accept)
    await world.outside(peer.answer_hello)
    peer.send_bytes(close(code, b"sorry"))
    await world.up(conn)
    assert (await world.down(conn)).reason is reason


# Deadlines


async def test_a_dialler_that_gets_no_answer_gives_up_at_open_timeout(world):
    server = native_listener(world)
    conn = native_connect(world, server.address, open_timeout=0.2)
    peer = await world.outside(server.accept)
    assert (await world.down(conn)).reason is Reason.OPEN_TIMEOUT
    assert peer.socket.fileno() >= 0


async def test_a_dialler_that_gets_no_first_ack_gives_up_at_open_timeout(world):
    server = native_listener(world)
    conn = native_connect(world, server.address, open_timeout=0.3)
    peer = await world.outside(server.accept)
    await world.outside(peer.answer_hello)
    await world.up(conn)
    assert (await world.down(conn)).reason is Reason.OPEN_TIMEOUT


@pytest.mark.parametrize("said", [b"", Hello().frame()[:50], Hello().frame()], ids=len)
async def test_a_listener_hangs_up_on_an_unfinished_greeting_at_open_timeout(world, said):
    listener = native_listen(world, open_timeout=0.2)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(said)
    await world.outside(peer.recv_to_end)
    assert listener.stats().accepted == 0
    assert listener.connections == ()


async def test_bytes_that_arrive_do_not_extend_the_deadline(world):
    listener = native_listen(world, open_timeout=0.4)
    peer = await native_dial(world, listener.address)
    sent = await world.outside(peer.drip, Hello().frame(), 0.05)
    assert sent < len(Hello().frame())
    assert listener.stats().accepted == 0


# No ghosts


@pytest.mark.parametrize("said", [b"", ack(0, 2**30)[:1], ack(0, 2**30)[:-1]], ids=len)
async def test_a_session_exists_once_the_first_frame_behind_the_answer_is_whole(world, said):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.greet)
    peer.send_bytes(said)
    await world.outside(peer.stays_silent)
    with pytest.raises(BufferEmpty):
        listener.accept_nowait()
    peer.send_bytes(ack(0, 2**30)[len(said) :])
    await world.outside(peer.expect, ACK)
    await world.up(await world.accept(listener))


@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
@pytest.mark.parametrize("said", [b"", ack(0, 2**30)[:7]], ids=len)
async def test_a_break_before_that_leaves_nothing_behind(world, said, end):
    listener = native_listen(world)
    for _ in range(5):
        peer = await native_dial(world, listener.address)
        await world.outside(peer.greet)
        peer.send_bytes(said)
        getattr(peer, end)()
    conn, peer = await native_call(world, listener)
    peer.send(b"the first one")
    assert await world.recv(conn) == b"the first one"
    assert (listener.stats().accepted, listener.stats().waiting) == (1, 0)
    assert len(listener.connections) == 1


async def test_nobody_who_waits_in_accept_is_woken_by_a_ghost(world):
    listener = native_listen(world)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.greet)
    with pytest.raises(TimeoutError):
        await world.accept(listener, timeout=A_WHILE)


# The session's public name


async def test_a_session_has_a_public_name_that_shows_no_token(world):
    conn, peer, _ = await native_dialled(world)
    name = conn.session
    assert isinstance(name, str) and name
    token = peer.ours.token
    for shown in (name, repr(conn), repr(conn.stats())):
        assert token.hex() not in shown.lower() and repr(token)[2:-1] not in shown


async def test_both_ends_of_a_link_name_the_same_session(world):
    client, served, _ = await native_pair(world)
    assert client.session == served.session
    other, _, _ = await native_pair(world)
    assert other.session != client.session


async def test_a_handle_without_a_link_yet_has_no_session(world):
    conn = native_connect(world, world.reserved_port().address)
    assert conn.session is None
