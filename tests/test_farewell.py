"""A dialler that closes hurries: it delivers what is left, and says its goodbye though nobody waits."""

import gc
import subprocess
import sys
import textwrap
import time

import pytest

from netasync import Backoff, Reason, State
from support.frames import CLOSE, read_close
from support.native_world import native_dialled
from support.waiting import DEADLINE
from support.wires import OURS

#: A wait that no test would live through, a session that no test would outlive.
NEVER = 3000
BUSY = 4


async def absent(world, **options):
    """Both ends of a session without a link: the dialler is refused, and would not dial again by itself."""
    listener = world.listen(0, session_timeout=NEVER)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, reconnect=NEVER, **options)
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(client)
    await world.down(served)
    return client, served, proxy


@OURS
async def test_who_closes_without_a_link_is_closed_at_once_and_its_peer_hears_of_it(world):
    client, served, proxy = await absent(world, close_timeout=DEADLINE)
    began = time.monotonic()
    await world.close(client)
    assert time.monotonic() - began < DEADLINE / 2
    end = await world.end(client)
    stats = client.stats()
    assert (end.reason, end.undelivered, client.state) == (Reason.CLOSED_HERE, 0, State.CLOSED)
    proxy.allow()
    assert (await world.up(served)).resumed
    heard = await world.end(served)
    assert (heard.reason, heard.undelivered) == (Reason.CLOSED_BY_PEER, 0)
    assert (client.stats(), client.state) == (stats, State.CLOSED)
    assert await world.wait_closed(client) == end


@OURS
async def test_the_peer_of_a_handle_that_was_dropped_without_a_link_hears_of_it(world):
    listener = world.listen(0, session_timeout=NEVER)
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, reconnect=NEVER, close_timeout=DEADLINE, watch=False)
    served = await world.accept(listener)
    await world.up(served)
    await world.up(client)
    proxy.cut("rst")
    await world.down(served)
    await world.down(client)
    with pytest.warns(ResourceWarning, match="without close"):
        del client
        gc.collect()
    assert (await world.up(served)).resumed
    assert (await world.end(served)).reason is Reason.CLOSED_BY_PEER


@OURS
async def test_what_is_unconfirmed_is_delivered_before_a_close_without_a_link_is_done(world):
    client, served, proxy = await absent(world, close_timeout=DEADLINE)
    await world.send(client, b"left", b"over")
    closing = world.spawn(world.close(client))
    await world.settle(closing)
    assert client.state is State.CLOSING
    proxy.allow()
    await world.join(closing)
    assert (await world.end(client)).undelivered == 0
    assert (await world.up(served)).resumed
    assert await world.take(served, 2) == [b"left", b"over"]
    assert (await world.end(served)).reason is Reason.CLOSED_BY_PEER


async def test_a_closing_dialler_does_not_rest_out_its_back_off(world):
    for backoff in (NEVER, Backoff(initial=NEVER, maximum=NEVER, jitter="none")):
        port = world.reserved_port()
        client = world.connect(port.address, reconnect=backoff, close_timeout=DEADLINE)
        await world.send(client, b"to the", b"last")
        await world.down(client)
        listener = world.listen(port.address)
        world.start_close(client)
        served = await world.accept(listener)
        await world.up(served)
        assert await world.take(served, 2) == [b"to the", b"last"]
        assert (await world.end(served)).reason is world.farewell
        end = await world.end(client)
        assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


async def test_a_closing_dialler_finds_a_server_that_comes_late(world):
    port = world.reserved_port()
    client = world.connect(port.address, reconnect=NEVER, close_timeout=DEADLINE)
    await world.send(client, b"late")
    await world.down(client)
    world.start_close(client)
    await world.eventually(lambda: client.stats().attempts >= 4, "it dials again and again")
    served = await world.accept(world.listen(port.address))
    await world.up(served)
    assert await world.recv(served) == b"late"
    assert (await world.end(served)).reason is world.farewell
    assert (await world.end(client)).undelivered == 0


@OURS
async def test_a_goodbye_is_said_again_however_often_it_is_broken_or_refused_for_being_busy(world):
    conn, first, server = await native_dialled(world, reconnect=NEVER, close_timeout=DEADLINE)
    known = {"session": first.ours.session, "token": first.ours.token}
    closing = world.spawn(world.close(conn))
    await world.outside(first.wait_for, CLOSE)
    first.close()
    for way in ("busy", "before the answer", "behind it", "busy"):
        again = await world.outside(server.accept)
        if way == "busy":
            await world.outside(again.refuse, BUSY)
        elif way == "behind it":
            await world.outside(lambda peer: peer.answer_hello(**known), again)
        else:
            await world.outside(again.hear_hello)
        again.close()
    last = await world.outside(server.accept)
    await world.outside(lambda peer: peer.answer(**known), last)
    assert last.theirs.session == first.ours.session
    assert await world.outside(last.answer_close) == (0, b"")
    await world.join(closing)
    end = await world.end(conn)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


@OURS
async def test_a_close_whose_peer_is_gone_waits_for_nobody_and_is_said_when_it_comes_back(world):
    conn, first, server = await native_dialled(world, reconnect=NEVER, close_timeout=DEADLINE)
    known = {"session": first.ours.session, "token": first.ours.token}
    port = server.port
    closing = world.spawn(world.close(conn))
    await world.outside(first.wait_for, CLOSE)
    server.close()
    first.close()
    began = time.monotonic()
    await world.join(closing)
    assert time.monotonic() - began < DEADLINE / 2
    assert (await world.end(conn)).reason is Reason.CLOSED_HERE
    back = world.outsider(type(server)(port))
    again = await world.outside(back.accept)
    await world.outside(lambda peer: peer.answer(**known), again)
    code, _ = read_close(await world.outside(again.wait_for, CLOSE))
    assert code == 0


@OURS
async def test_a_farewell_that_finds_a_new_session_says_nothing(world):
    conn, first, server = await native_dialled(world, reconnect=NEVER, close_timeout=DEADLINE)
    port = server.port
    server.close()
    first.close()
    await world.down(conn)
    await world.close(conn)
    assert (await world.end(conn)).reason is Reason.CLOSED_HERE
    back = world.outsider(type(server)(port))
    again = await world.outside(back.accept)
    await world.outside(again.answer_hello)
    assert again.theirs.session == first.ours.session
    assert (await world.outside(again.recv_to_end))[0] == b""


@OURS
async def test_nothing_is_said_behind_an_abort(world):
    for closes_before in (False, True):
        client, served, proxy = await absent(world, close_timeout=DEADLINE)
        if closes_before:
            await world.close(client)
        client.abort()
        await world.wait_closed(client)
        taken = proxy.accepted
        proxy.allow()
        await world.stays_quiet(served, 0.6)
        assert proxy.accepted == taken


@OURS
async def test_a_shutdown_waits_for_no_farewell(world):
    client, _, _ = await absent(world, close_timeout=DEADLINE)
    await world.close(client)
    began = time.monotonic()
    await world.shutdown(world.runtime, timeout=DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    assert (await world.end(client)).reason is Reason.CLOSED_HERE


def test_a_process_that_ends_waits_for_no_farewell():
    program = """
        import asyncio, netasync

        async def main():
            listener = netasync.listen(0, session_timeout=3000)
            conn = netasync.connect(listener.address, reconnect=3000, close_timeout=60)
            served = await listener.accept()
            await conn.wait_connected()
            await listener.aclose()
            served.abort()
            while not isinstance(await conn.recv(), netasync.Disconnected):
                pass
            await conn.aclose()

        asyncio.run(main())
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < DEADLINE


async def test_a_polite_restart_is_not_the_slow_one(world):
    """Each link is up for longer than ten first waits; how it ends changes nothing."""
    backoff = Backoff(initial=0.01, factor=2, maximum=0.08, jitter="none")
    listener = world.listen(0)
    client = world.connect(listener.address, reconnect=backoff)
    for ending in ("close", "abort", "close", "close"):
        served = await world.accept(listener)
        await world.up(client)
        await world.up(served)
        await world.face.pause(0.1)
        if ending == "close":
            world.start_close(served)
        else:
            served.abort()
        assert (await world.down(client)).retry_in == 0.01


async def test_a_message_alone_resets_no_back_off(world):
    backoff = Backoff(initial=0.2, factor=1.5, maximum=1000, jitter="none")
    listener = world.listen(0)
    client = world.connect(listener.address, reconnect=backoff)
    waits = []
    for _ in range(3):
        served = await world.accept(listener)
        await world.up(client)
        await world.up(served)
        await world.send(served, b"a word")
        assert await world.recv(client) == b"a word"
        served.abort()
        waits.append((await world.down(client)).retry_in)
    assert waits == pytest.approx([0.2, 0.3, 0.45])
