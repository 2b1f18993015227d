"""Sentences of `docs/wire.md` that no other test shows, as a peer written from the page alone sees them."""

import pytest

from netasync import Disconnected, Reason, State
from support.frames import (
    ACK,
    AMPLE,
    CLOSE,
    HELLO,
    NOBODY,
    Hello,
    control,
    cost,
    in_parts,
    move,
    read_close,
)
from support.native import Refused
from support.native_world import (
    RARELY,
    native_answer,
    native_answered,
    native_call,
    native_dial,
    native_dialled,
)
from support.wires import OURS

pytestmark = OURS

SOMEBODY = b"x" * 16
LARGE = 300_000


def known(peer, **fields):
    """What the dialler `peer` says that returns to its session."""
    answer = peer.theirs
    return {"session": answer.session, "token": answer.token, "link": answer.link + 1, **fields}


async def returned(world, listener, conn, peer, **fields):
    """The dialler `peer` on its next link, up to the answer; it says nothing on its own."""
    again = await native_dial(world, listener.address)
    fields = known(peer, **{"credit": peer.ours.credit, **fields})
    await world.outside(lambda: again.greet(**fields))
    again.answers = False
    await world.down(conn)
    assert (await world.up(conn)).resumed
    again.take_up(peer)
    return again


async def refused(world, listener, data):
    """The REFUSE that answers these bytes."""
    peer = await native_dial(world, listener.address)
    peer.send_bytes(data)
    with pytest.raises(Refused) as caught:
        await world.outside(peer.hear_hello)
    return caught.value.refuse


# 2.2 and 3.4: which of two faults decides


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (2, Hello(magic=b"NB", major=2).body()),
        (1, Hello(major=2).body()[:20]),
        (1, Hello(major=2, flags=1 << 16, link=0).body()),
        (2, Hello(flags=1 << 16).body()[:-1]),
        (1, Hello(flags=1 << 16).body() + b"\x01"),
        (1, Hello(flags=1 << 16, link=0).body()),
        (2, Hello(max_size=0).body() + b"\x01"),
        (2, Hello(max_size=0, link=0).body()),
        (7, Hello(session=SOMEBODY, token=SOMEBODY, hold=0).body()),
    ],
)
async def test_of_two_faults_of_a_hello_the_first_of_the_pages_order_decides(world, code, body):
    listener = world.listen(0)
    assert (await refused(world, listener, control(HELLO, body))).code == code


async def test_bytes_behind_hello_are_refused_as_malformed(world):
    listener = world.listen(0)
    assert (await refused(world, listener, Hello().frame() + b"\0")).code == 2


async def test_an_old_link_is_found_before_numbers_that_cannot_be_and_harms_nothing(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    fields = known(peer, link=1, received=77)
    assert (await refused(world, listener, Hello(**fields).frame())).code == 3
    assert conn.state is State.CONNECTED
    peer.send(b"still there")
    assert await world.recv(conn) == b"still there"


async def test_a_session_that_is_over_is_found_before_its_old_link(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    await world.outside(peer.goodbye)
    await world.wait_closed(conn)
    refuse = await refused(world, listener, Hello(**known(peer, link=1)).frame())
    assert (refuse.code, refuse.consumed) == (6, 0)


async def test_who_is_refused_may_write_on_and_still_reads_the_refusal(world):
    listener = world.listen(0)
    peer = await native_dial(world, listener.address)
    peer.send_bytes(Hello(major=2).frame())
    with pytest.raises(Refused) as caught:
        await world.outside(peer.hear_hello)
    assert caught.value.refuse.code == 1
    for _ in range(16):
        await world.outside(peer.send_bytes, bytes(65_536))
    peer.half_close()
    assert await world.outside(peer.recv_to_end) == (b"", "eof")


async def test_a_session_that_was_voided_is_over(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    assert (await refused(world, listener, Hello(**known(peer, received=1)).frame())).code == 2
    await world.wait_closed(conn)
    assert (await refused(world, listener, Hello(**known(peer, link=3)).frame())).code == 6


# 2.4: what a dialler does next


@pytest.mark.parametrize(
    ("code", "keeps"), [(1, True), (4, True), (5, True), (7, True), (8, False), (99, True)]
)
async def test_a_dialler_keeps_or_forgets_its_session_as_the_code_says(world, code, keeps):
    conn, peer, server = await native_dialled(world, reconnect=0.01)
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    await world.outside(again.refuse, code)
    third = await world.outside(server.accept)
    asked = await world.outside(third.hear_hello)
    kept = (peer.ours.session, peer.ours.token)
    assert (asked.session, asked.token) == (kept if keeps else (NOBODY, NOBODY))
    assert asked.link == 3, "it counts its HELLOs, whatever they ask for"
    third.close()


async def test_a_malformed_answer_to_a_resume_leaves_the_session_as_it_is(world):
    conn, peer, server = await native_dialled(world, reconnect=0.01)
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    asked = await world.outside(again.hear_hello)
    again.send_bytes(Hello(session=asked.session, token=SOMEBODY, link=asked.link).frame())
    third = await world.outside(server.accept)
    assert (await world.outside(third.hear_hello)).session == asked.session
    third.close()


@pytest.mark.parametrize("consumed", [None, 3, 2**64 - 1], ids=["missing", "more than begun", "largest"])
async def test_a_session_that_is_over_is_over_though_its_count_cannot_be(world, consumed):
    conn, peer, server = await native_dialled(world, reconnect=0.01)
    peer.answers = False
    await world.send(conn, b"one", b"two")
    await world.outside(peer.recv_many, 2)
    peer.close()
    await world.down(conn)
    again = await world.outside(server.accept)
    await world.outside(again.refuse, 6, b"", consumed)
    third = await native_answer(world, server)
    assert third.theirs.session == NOBODY
    assert (await world.up(conn)).redelivered == 2
    assert await world.outside(third.recv_many, 2) == [b"one", b"two"]


# 3.2 and 3.3: what counts on another link


async def test_of_a_message_that_was_cut_the_pieces_are_dropped_and_may_be_cut_otherwise(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    payload = bytes(range(256)) * (LARGE // 256)
    peer.send_bytes(in_parts(payload, 1000)[:-500])
    again = await returned(world, listener, conn, peer)
    assert again.theirs.received == 0
    await world.outside(again.ack)
    again.count_sent(payload)
    again.send_bytes(in_parts(payload, 77_777))
    assert await world.recv(conn) == payload


async def test_the_limits_of_the_newest_hello_count(world):
    listener = world.listen(0)
    conn, peer = await native_call(world, listener)
    again = await returned(world, listener, conn, peer, max_messages=1, hold=1)
    await world.outside(again.ack)
    await world.outside(again.expect, ACK)
    sending = world.spawn(world.send(conn, b"0", b"1", b"2"))
    # The peer fails where more than one comes that it has not confirmed.
    for number in range(3):
        assert await world.outside(again.recv) == b"%d" % number
        again.consume()
        await world.outside(again.ack)
    await world.join(sending)


async def test_what_a_hello_granted_to_a_session_that_is_gone_is_void(world):
    listener = world.listen(0)
    peer = await native_dial(world, listener.address)
    peer.answers = False
    fields = {"session": SOMEBODY, "token": SOMEBODY, "link": 5, "received": 9, "credit": AMPLE}
    await world.outside(lambda: peer.greet(**fields))
    peer.tell(0, 1)
    conn = await world.accept(listener)
    assert not (await world.up(conn)).resumed
    await world.send(conn, b"begun", b"not begun")
    assert await world.outside(peer.recv) == b"begun"
    assert (conn.stats().unconfirmed, conn.stats().queued) == (1, 1)
    peer.tell(0, cost(b"begun") + 1)
    assert await world.outside(peer.recv) == b"not begun"


async def test_the_first_ack_is_not_below_its_hello(world):
    listener = world.listen(0)
    peer = await native_dial(world, listener.address)
    await world.outside(lambda: peer.greet(credit=1000))
    peer.tell(0, 999)
    conn = await world.accept(listener)
    await world.up(conn)
    assert (await world.end(conn)).reason is Reason.PROTOCOL


# 5 and 7


async def test_a_move_to_a_dialler_is_read_and_changes_nothing_yet(world):
    conn, peer, _ = await native_dialled(world)
    for target in (b"127.0.0.1:1", b"", b"\xff" * 300):
        peer.send_bytes(move(0, target))
    peer.send(b"all the same")
    assert await world.recv(conn) == b"all the same"
    assert conn.state is State.CONNECTED


async def test_move_and_what_may_be_skipped_stand_between_parts(world):
    conn, peer, _ = await native_dialled(world)
    payload = bytes(LARGE)
    first, rest = in_parts(payload)[: 4 + 262_144], in_parts(payload)[4 + 262_144 :]
    peer.count_sent(payload)
    peer.send_bytes(first + move(0) + control(0x7F, b"news") + rest)
    assert await world.recv(conn) == payload


async def test_a_closer_that_waits_for_credit_and_is_told_close_says_its_own(world):
    for answer in (0, 1):
        conn, peer, _ = await native_dialled(world, {"credit": 1})
        peer.answers = False
        await world.send(conn, b"begun", b"never begun")
        assert await world.outside(peer.recv) == b"begun"
        world.start_close(conn)
        await world.outside(peer.stays_silent)
        peer.consume()
        peer.say_close(answer)
        assert read_close(await world.outside(peer.wait_for, CLOSE))[0] == 0
        peer.half_close()
        end = await world.wait_closed(conn)
        assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 1)


@pytest.mark.parametrize("code", [0, 1, 4, 77])
async def test_a_graceful_close_of_any_code_is_answered_with_it(world, code):
    _, peer = await native_answered(world)
    peer.say_close(code)
    assert read_close(await world.outside(peer.wait_for, CLOSE))[0] == code
    peer.half_close()
    assert (await world.outside(peer.read_to_end))[1] == "eof"


@pytest.mark.parametrize(
    ("code", "keeps"), [(0, False), (1, False), (2, True), (3, False), (4, False), (5, False)]
)
async def test_a_dialler_asks_for_its_session_again_only_if_the_code_of_close_left_it(world, code, keeps):
    conn, peer, server = await native_dialled(world, reconnect=0.01)
    peer.say_close(code)
    peer.half_close()
    assert isinstance(await world.recv(conn), Disconnected)
    again = await world.outside(server.accept)
    asked = await world.outside(again.hear_hello)
    assert asked.session == (peer.ours.session if keeps else NOBODY)
    again.close()


async def test_behind_its_close_a_side_still_confirms(world):
    conn, peer = await native_answered(world, **RARELY)
    await world.send(conn, b"one", b"two")
    peer.answers = False
    world.start_close(conn)
    await world.outside(peer.wait_for, CLOSE)
    assert conn.stats().unconfirmed == 2
    peer.consume()
    await world.outside(peer.ack)
    await world.eventually(lambda: conn.stats().unconfirmed == 0)
    peer.ping(3)
    await world.outside(peer.read)
    peer.say_close(0)
    peer.half_close()
    assert (await world.wait_closed(conn)).undelivered == 0


async def test_who_waits_for_a_place_is_refused_when_the_listener_closes(world):
    listener = world.listen(0, accept_buffer=1)
    first = await native_dial(world, listener.address)
    await world.outside(first.open)
    await world.eventually(lambda: listener.stats().waiting == 1)
    second = await native_dial(world, listener.address)
    second.say_hello()
    await world.outside(second.stays_silent)
    world.start_close(listener)
    with pytest.raises(Refused) as caught:
        await world.outside(second.hear_hello)
    assert caught.value.refuse.code == 5


async def test_a_session_of_another_listener_is_never_taken_for_ones_own(world):
    conn, peer, server = await native_dialled(world, reconnect=0.01)
    peer.send(b"of the old one")
    await world.eventually(lambda: conn.stats().waiting == 1)
    peer.close()
    again = await native_answer(world, server)
    assert again.theirs.session == peer.ours.session and again.ours.session != again.theirs.session
    # What waits of the old session counts in no number of the new one; its room is not granted.
    assert again.heard == (0, peer.theirs.credit - cost(b"of the old one"))
    again.send(b"of the new one")
    assert await world.recv(conn) == b"of the old one"
    await world.down(conn)
    await world.up(conn)
    again.ask()
    assert await world.recv(conn) == b"of the new one"
    await world.eventually(lambda: conn.stats().consumed == 2)
    await world.outside(again.wait_for, ACK)
    assert again.heard == (1, peer.theirs.credit + cost(b"of the new one"))
