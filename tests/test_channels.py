"""The two channels of a connection: the original's view of it."""

import gc

import pytest

from netasync import BufferEmpty, BufferFull, Closed, ClosedError, Connected, Disconnected, Reason, State
from support.faces import aio, blocking
from support.wires import ORIGINAL


@ORIGINAL
async def test_the_read_channel_takes_what_the_connection_would(world):
    conn, peer = await world.answered()
    chan = conn.read_chan
    peer.send(*[b"%d" % number for number in range(6)])
    assert await world.recv(conn, via=chan) == b"0"
    assert await world.recv(conn) == b"1"
    taken = []
    while len(taken) < 4:
        taken += await world.recv_many(conn, 4 - len(taken), via=chan)
    assert taken == [b"2", b"3", b"4", b"5"]
    with pytest.raises(BufferEmpty):
        world.recv_nowait(conn, via=chan)
    peer.send(b"6")
    peer.half_close()
    items = [item async for item in world.items(conn, via=chan)]
    assert items[0] == b"6"
    assert items[1].reason is world.farewell


@ORIGINAL
async def test_the_write_channel_sends_what_the_connection_would(world):
    conn, peer, _ = await world.dialled()
    chan = conn.write_chan
    assert await world.send(chan, b"1") is True
    assert chan.send_nowait(b"2") is True
    assert await world.send_many(chan, [b"3", b"4"]) == 2
    assert await world.outside(peer.recv_many, 4) == [b"1", b"2", b"3", b"4"]


async def test_the_write_channel_of_a_full_buffer_raises_buffer_full(world):
    conn = world.connect(world.reserved_port().address, write_buffer=1, close_timeout=0.1)
    conn.write_chan.send_nowait(b"fills")
    with pytest.raises(BufferFull):
        conn.write_chan.send_nowait(b"too many")


@ORIGINAL
@pytest.mark.faces("asyncio", "uvloop")
async def test_channels_of_one_face_have_the_other_one_word_away(world):
    conn, peer, _ = await world.dialled()
    await world.outside(lambda: conn.write_chan.blocking.send(b"from a thread", timeout=20))
    assert await world.outside(peer.recv) == b"from a thread"
    peer.send(b"to a thread")
    taken = await world.outside(lambda: conn.read_chan.blocking.recv(timeout=20))
    assert world.note(conn, taken) == b"to a thread"


@ORIGINAL
async def test_closing_the_read_channel_keeps_what_had_arrived_and_then_only_values_come(world):
    conn, peer, server = await world.dialled()
    peer.send(b"arrived")
    await world.arrived(conn, 1)
    aio(conn).read_chan.close()
    peer.send(b"thrown", b"away")
    await world.eventually(lambda: conn.stats().read_dropped == 2)

    assert await world.recv(conn) == b"arrived"
    assert conn.state is State.CONNECTED
    await world.send(conn, b"sending goes on")
    assert await world.outside(peer.recv) == b"sending goes on"
    peer.send(b"also thrown away")
    peer.half_close()
    assert isinstance(await world.recv(conn), Disconnected)
    again = await world.outside(server.accept)
    assert isinstance(await world.recv(conn), Connected)
    again.send(b"this too")
    await world.eventually(lambda: conn.stats().read_dropped == 4)
    await world.balanced(conn)


@ORIGINAL
async def test_closing_the_write_channel_is_closing_the_connection(world):
    conn, peer, _ = await world.dialled()
    await world.send(conn, b"accepted")
    aio(conn).write_chan.close()
    with pytest.raises(ClosedError):
        await world.send(conn.write_chan, b"too late")
    assert await world.outside(peer.messages_to_end) == [b"accepted"]
    peer.close()
    assert (await world.end(conn)).reason is Reason.CLOSED_HERE


@pytest.mark.parametrize("which", ["read_chan", "write_chan"])
async def test_holding_a_channel_keeps_its_connection_alive(world, which):
    listener = world.listen(0)
    conn = world.connect(listener.address, watch=False)
    served = await world.accept(listener)
    await world.up(served)
    chan = getattr(conn, which)
    del conn
    gc.collect()
    await world.send(served, b"are you there")
    if which == "read_chan":
        assert isinstance(await world.face.call(chan, "recv"), Connected)
        assert await world.face.call(chan, "recv") == b"are you there"
    else:
        await world.face.call(chan, "send", b"yes")
        assert await world.recv(served) == b"yes"
    with pytest.warns(ResourceWarning):  # the channel was the last that held it
        del chan
        gc.collect()
    assert (await world.end(served)).reason is world.farewell


@ORIGINAL
async def test_both_channels_lead_to_the_same_end(world):
    conn, peer = await world.answered()
    chan = conn.read_chan
    peer.close()
    end = await world.recv(conn, via=chan)
    assert isinstance(end, Closed)
    assert await world.recv(conn) == end
    with pytest.raises(ClosedError):
        await world.send(conn.write_chan, b"x")
    assert blocking(conn).state is State.CLOSED
