"""C 31: applications that read slowly, or not at all, for longer than the heartbeat's timeout."""

import time

import pytest

from netasync import Buffer, State
from support.counts import counts
from support.process import resident_bytes
from support.wires import OURS

pytestmark = OURS

TIMEOUT = 0.5
TIMERS = {"heartbeat_interval": 0.1, "heartbeat_timeout": TIMEOUT}
SMALL = {"read_buffer": Buffer.fixed(50), "write_buffer": Buffer.fixed(50)}


def numbered(count, size):
    return [b"%08d" % number + bytes(size) for number in range(count)]


@pytest.mark.parametrize("timeouts", counts(3, 10))
async def test_both_send_and_nobody_reads_for_longer_than_the_timeout(world, timeouts):
    """Alive, bounded, idle, and nothing is lost when they read at last."""
    client, served, _ = await world.pair(listen={**TIMERS, **SMALL}, connect={**TIMERS, **SMALL})
    payloads = numbered(400, 1000)
    sending = [world.spawn(world.send_many(conn, payloads)) for conn in (client, served)]
    await world.eventually(
        lambda: all(conn.stats().waiting == 50 and conn.stats().queued == 50 for conn in (client, served))
    )
    before, begun = time.process_time(), time.monotonic()
    await world.face.pause(timeouts * TIMEOUT)
    share = (time.process_time() - before) / (time.monotonic() - begun)
    assert share < 0.1, "twenty heartbeats a second between two ends, and nothing else"
    for conn in (client, served):
        stats = conn.stats()
        assert (conn.state, stats.links, stats.waiting, stats.queued) == (State.CONNECTED, 1, 50, 50)
    taking = [world.spawn(world.take(conn, 400)) for conn in (client, served)]
    for spawned in taking:
        assert await world.join(spawned) == payloads
    for spawned in sending:
        assert await world.join(spawned) == 400


@pytest.mark.parametrize("timeouts", counts(3, 10))
async def test_one_message_that_nobody_takes_for_longer_than_that_breaks_nothing(world, timeouts):
    client, served, _ = await world.pair(listen=TIMERS, connect=TIMERS)
    await world.send(client, b"wait for me")
    await world.arrived(served, 1)
    await world.face.pause(timeouts * TIMEOUT)
    assert (client.stats().links, client.stats().unconfirmed) == (1, 1)
    assert await world.recv(served) == b"wait for me"
    await world.eventually(lambda: client.stats().confirmed == 1)


@pytest.mark.parametrize("megabytes", counts(2, 100))
async def test_a_consumer_that_takes_a_little_at_a_time_holds_its_sender_to_that(world, megabytes):
    """Memory is that of the buffers, whatever there is to be sent."""
    window = 2**18
    limits = {
        "read_buffer": Buffer.fixed(1000, max_bytes=window),
        "write_buffer": Buffer.fixed(1000, max_bytes=window),
    }
    client, served, _ = await world.pair(listen={**TIMERS, **limits}, connect={**TIMERS, **limits})
    count = megabytes * 16
    sending = world.spawn(
        world.send_many(client, (b"%08d" % number + bytes(65_528) for number in range(count)))
    )
    before = resident_bytes()
    for number in range(count):
        item = await world.recv(served)
        assert int(item[:8]) == number
        assert served.stats().waiting * 2**16 <= window + 2**16
        await world.face.pause(0.01)
    assert resident_bytes() - before < 16 * window + 8 * 2**20
    assert (await world.join(sending), client.stats().links) == (count, 1)
