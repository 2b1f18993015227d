"""Two wires on one network: wrong pairings do each other no harm, and a listener may take either."""

import pytest

from netasync import Backoff, Reason
from support.hostile import neighbour
from support.native_world import NATIVE, native_connect, native_dial
from support.wires import OURS

pytestmark = OURS

STEADY = Backoff(initial=0.01, factor=1, maximum=50, jitter="none")

# Wrong pairings


async def test_our_dialler_and_a_listener_of_the_original_do_each_other_no_harm(world):
    listener = world.listen(protocol="net.async")
    conn = native_connect(world, listener.address, reconnect=STEADY)
    assert (await world.down(conn)).reason in (Reason.EOF, Reason.RESET)
    served = await world.accept(listener)
    await world.up(served)
    assert (await world.end(served)).reason in (Reason.PROTOCOL, Reason.TOO_LARGE)
    assert conn.stats().received == 0


async def test_a_dialler_of_the_original_and_our_listener_do_each_other_no_harm(world):
    listener, is_well = await neighbour(world, **NATIVE)
    conn = world.connect(listener.address, protocol="net.async")
    await world.up(conn)
    await world.send(conn, b"hello?")
    assert (await world.down(conn)).reason in (Reason.EOF, Reason.RESET)
    assert listener.stats().accepted == 1
    await is_well()


# A listener that takes either wire


async def test_auto_takes_our_own_dialler_and_one_of_the_original(world):
    listener = world.listen(protocol="auto")
    ours = native_connect(world, listener.address)
    served = await world.accept(listener)
    await world.up(ours)
    await world.up(served)
    assert served.session == ours.session is not None
    theirs = world.connect(listener.address, protocol="net.async")
    await world.up(theirs)
    await world.send(theirs, b"from the original")
    original = await world.accept(listener)
    await world.up(original)
    assert original.session is None
    assert await world.recv(original) == b"from the original"


async def test_auto_says_nothing_before_the_first_byte(world):
    listener = world.listen(protocol="auto", heartbeat_interval=0.02, heartbeat_timeout=5)
    peer = await native_dial(world, listener.address)
    await world.outside(peer.stays_silent)
    await world.outside(peer.open)
    assert (await world.accept(listener)).session is not None


async def test_to_auto_silence_is_the_original(world):
    listener = world.listen(protocol="auto", open_timeout=0.2, heartbeat_interval=0.05)
    peer = await world.raw_dial(listener.address)
    conn = await world.accept(listener)
    await world.up(conn)
    assert conn.session is None
    await world.outside(peer.recv_heartbeats, 2)
    peer.send(b"at last")
    assert await world.recv(conn) == b"at last"


@pytest.mark.parametrize("first", [0x80, 0x82, 0x84, 0xC0, 0xFF])
async def test_to_auto_another_first_byte_is_a_stranger(world, first):
    listener = world.listen(protocol="auto")
    peer = await native_dial(world, listener.address)
    peer.send_bytes(bytes([first, 0, 0, 0]))
    assert (await world.outside(peer.recv_to_end))[0] == b""
    assert listener.stats().accepted == 0


async def test_auto_is_for_listeners_only(world):
    with pytest.raises(ValueError, match="auto"):
        world.connect("127.0.0.1:1", protocol="auto")
