"""Sessions: what a broken link had on its way arrives over the next one, once and in order."""

import itertools

import pytest

from netasync import Backoff, Buffer, Closed, Connected, Disconnected, Reason, State
from support.counts import counts
from support.wires import OURS

pytestmark = OURS

QUICK = Backoff(initial=0.005, factor=1.5, maximum=0.05)
#: Timers that find a silent link soon.
SHORT = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.5}


async def through_a_proxy(world, listen=None, **options):
    """A listener, a proxy before it, and a dialler whose link is up."""
    listener = world.listen(0, **(listen or {}))
    proxy = world.proxy(listener.address)
    client = world.connect(proxy.address, reconnect=QUICK, **options)
    served = await world.accept(listener)
    await world.up(client)
    await world.up(served)
    return client, served, listener, proxy


async def messages(world, conn, count):
    """The next `count` messages, whatever values stand between them."""
    taken = []
    while len(taken) < count:
        item = await world.recv(conn)
        assert not isinstance(item, Closed), item
        if isinstance(item, bytes):
            taken.append(item)
    return taken


def numbered(count, size=10):
    return [b"%d " % number + bytes(size) for number in range(count)]


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_links_that_break_under_traffic_lose_nothing_and_repeat_nothing(world, seeded, how):
    client, served, listener, proxy = await through_a_proxy(world)
    payloads = numbered(3000, 200)
    sending = [world.spawn(world.send(conn, *payloads)) for conn in (client, served)]
    taking = [world.spawn(messages(world, conn, 3000)) for conn in (client, served)]
    for _ in range(10):
        links = client.stats().links
        proxy.cut_after(seeded.randrange(1, 60_000), seeded.choice(["up", "down"]), how)
        await world.eventually(
            lambda links=links: (
                client.stats().links > links or client.stats().received == served.stats().received == 3000
            )
        )
    for spawned in sending:
        await world.join(spawned)
    for spawned in taking:
        assert await world.join(spawned) == payloads
    assert listener.stats().accepted == 1
    ups = [item for conn in (client, served) for item in world.taken(conn) if isinstance(item, Connected)]
    assert all(up.resumed or up.peer for up in ups) and not any(up.lost or up.redelivered for up in ups)


async def exchange_over_a_cut(world, listener, proxy, offset, direction, how, **options):
    """Twenty messages each way over a link that ends at this byte of one direction: exact, on both sides."""
    payloads = numbered(20, 150)
    proxy.cut_after(offset, direction, how)
    client = world.connect(proxy.address, reconnect=QUICK, **options)
    sending = world.spawn(world.send(client, *payloads))
    served = await world.accept(listener)
    await world.send(served, *payloads)
    assert await messages(world, served, 20) == payloads
    assert await messages(world, client, 20) == payloads
    await world.join(sending)
    for conn in (client, served):
        assert await world.finish(conn, 20) == 0
        stats = conn.stats()
        assert (stats.accepted, stats.confirmed, stats.lost, stats.received) == (20, 20, 0, 20)
    await world.close(client)


@pytest.mark.parametrize("step", counts(107, 36))
async def test_a_cut_at_any_byte_of_an_exchange_loses_nothing_and_repeats_nothing(world, step):
    """F 49 on sockets: 500 offsets on loops and threads together, in the soak on each of them.

    `tests/simulation` cuts at every byte."""
    listener = world.listen(0)
    proxy = world.proxy(listener.address)
    for how, direction in itertools.product(["rst", "fin"], ["up", "down"]):
        for offset in range(1, 4500, step):
            await exchange_over_a_cut(world, listener, proxy, offset, direction, how)


@pytest.mark.parametrize("step", counts(2900, 150))
async def test_a_link_that_falls_silent_at_any_byte_loses_nothing_and_repeats_nothing(world, step):
    """F 49 by silence, which only heartbeats find, and in the greeting only its deadline."""
    options = {**SHORT, "open_timeout": 0.5}
    listener = world.listen(0, **options)
    proxy = world.proxy(listener.address)
    for direction in ("up", "down"):
        for offset in range(1, 4500, step):
            await exchange_over_a_cut(world, listener, proxy, offset, direction, "silence", **options)


async def test_the_accepted_connection_stays_the_same_and_says_so(world):
    client, served, listener, proxy = await through_a_proxy(world)
    names = client.session, served.session
    assert names[0] == names[1] and len(names[0]) == 32
    proxy.cut("rst")
    assert (await world.down(client)).reason is Reason.RESET
    down = await world.down(served)
    assert down.reason in (Reason.RESET, Reason.REPLACED) and down.retry_in is None
    assert (await world.up(client)).resumed and (await world.up(served)).resumed
    assert (client.session, served.session) == names
    assert (listener.stats().accepted, served.stats().links, client.stats().links) == (1, 2, 2)


async def test_the_newest_link_wins_while_the_older_one_still_seems_up(world):
    """F 55."""
    client, served, _, proxy = await through_a_proxy(world, **SHORT)
    proxy.hold()
    # The listener's side is patient: only the dialler gives the silent link up.
    assert (await world.down(client)).reason is Reason.HEARTBEAT_TIMEOUT
    assert served.state is State.CONNECTED
    proxy.resume()
    assert (await world.up(client)).resumed
    assert (await world.down(served)).reason in (Reason.REPLACED, Reason.RESET, Reason.EOF)
    assert (await world.up(served)).resumed
    await world.send(client, b"on")
    assert await world.recv(served) == b"on"


async def test_without_sessions_a_break_ends_the_accepted_connection_and_the_dialler_redelivers(world):
    client, served, listener, proxy = await through_a_proxy(world, listen={"session_timeout": 0})
    await world.send(client, b"begun", b"and this")
    await world.arrived(served, 2)
    proxy.cut("rst")
    assert (await world.down(client)).unconfirmed == 2
    assert await world.take(served, 2) == [b"begun", b"and this"]
    assert isinstance(await world.recv(served), Closed)
    again = await world.accept(listener)
    up = await world.up(client)
    assert (up.resumed, up.redelivered, up.lost) == (False, 2, 0)
    await world.up(again)
    assert await world.take(again, 2) == [b"begun", b"and this"]


async def test_with_discard_what_was_begun_is_lost_and_counted(world):
    client, served, listener, proxy = await through_a_proxy(
        world, listen={"session_timeout": 0}, on_new_session="discard"
    )
    await world.send(client, b"begun", b"and this")
    await world.arrived(served, 2)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(client)
    await world.send(client, b"never begun")
    proxy.allow()
    again = await world.accept(listener)
    up = await world.up(client)
    assert (up.redelivered, up.lost, client.stats().lost) == (0, 2, 2)
    await world.up(again)
    assert await world.recv(again) == b"never begun"


async def test_a_session_expires_and_says_what_it_could_not_deliver(world):
    client, served, listener, proxy = await through_a_proxy(world, listen={"session_timeout": 0.2})
    await world.send(client, b"taken or not")
    await world.arrived(served, 1)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(client)
    assert await world.recv(served) == b"taken or not"
    await world.down(served)
    await world.send(served, b"nobody", b"comes for this")
    end = await world.end(served)
    assert (end.reason, end.undelivered) == (Reason.SESSION_EXPIRED, 2)
    before = client.session
    proxy.allow()
    again = await world.accept(listener)
    up = await world.up(client)
    assert (up.resumed, up.redelivered) == (False, 1) and client.session != before
    await world.up(again)
    assert await world.recv(again) == b"taken or not"


async def test_redelivered_comes_before_anything_newer(world):
    client, served, listener, proxy = await through_a_proxy(world, write_buffer=Buffer.fixed(100))
    await world.send(client, *numbered(5))
    await world.arrived(served, 5)
    proxy.refuse()
    await world.outside(served.abort)
    await world.down(client)
    await world.send(client, b"newer")
    proxy.allow()
    again = await world.accept(listener)
    assert (await world.up(client)).redelivered == 5
    await world.up(again)
    assert await world.take(again, 6) == [*numbered(5), b"newer"]


async def test_finish_goes_on_over_a_break(world):
    client, served, _, proxy = await through_a_proxy(world)
    await world.send(client, b"on its way")
    finishing = world.spawn(world.finish(client, 60))
    await world.arrived(served, 1)
    proxy.cut("fin")
    await world.down(client)
    assert await world.recv(served) == b"on its way"
    assert await world.join(finishing) == 0


async def test_a_dialler_that_closes_while_its_link_is_down_comes_back_to_deliver(world):
    client, served, _, proxy = await through_a_proxy(world, close_timeout=20)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(client)
    await world.send(client, b"last words")
    world.start_close(client)
    proxy.allow()
    assert [item for item in await messages(world, served, 1)] == [b"last words"]
    end = await world.wait_closed(client)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)
    assert (await world.wait_closed(served)).reason is Reason.CLOSED_BY_PEER


async def closed_and_cut(world, offset, direction, **listen):
    """How both sides end when the client closes, and its link ends so many bytes later."""
    client, served, listener, proxy = await through_a_proxy(world, listen, close_timeout=20)
    # The pings of the beginning are answered, and nothing but the goodbye travels.
    await world.eventually(lambda: client.latency is not None and served.latency is not None)
    proxy.cut_after(offset, direction, "rst")
    world.start_close(client)
    ends = [await world.wait_closed(conn) for conn in (client, served)]
    assert listener.stats().accepted == 1, "a ghost"
    assert ends[0].reason is Reason.CLOSED_HERE
    assert [end.undelivered for end in ends] == [0, 0]
    return ends[1].reason


@pytest.mark.parametrize("offset", [1, 20, 30])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_goodbye_that_a_break_cuts_off_is_said_again(world, offset, direction):
    assert await closed_and_cut(world, offset, direction) is Reason.CLOSED_BY_PEER


async def test_a_goodbye_that_nobody_remembers_makes_no_ghost(world):
    reason = await closed_and_cut(world, 1, "up", session_timeout=0)
    assert reason in (Reason.RESET, Reason.TRUNCATED)


async def test_an_accepted_side_that_closes_while_its_link_is_down_waits_for_its_peer(world):
    client, served, _, proxy = await through_a_proxy(world, listen={"close_timeout": 20})
    proxy.refuse()
    proxy.cut("rst")
    await world.down(client)
    await world.eventually(lambda: served.state is State.DISCONNECTED)
    await world.send(served, b"last words")
    world.start_close(served)
    proxy.allow()
    assert await messages(world, client, 1) == [b"last words"]
    end = await world.wait_closed(served)
    assert (end.reason, end.undelivered) == (Reason.CLOSED_HERE, 0)


async def test_an_abort_ends_the_session_and_the_dialler_begins_a_new_one(world):
    client, served, listener, _ = await through_a_proxy(world)
    before = client.session
    await world.outside(served.abort)
    assert isinstance(await world.recv(client), Disconnected)
    again = await world.accept(listener)
    assert not (await world.up(client)).resumed
    await world.up(again)
    assert client.session == again.session != before


async def test_the_longest_absent_makes_room(world):
    listener = world.listen(0, max_sessions=2)
    proxy = world.proxy(listener.address)
    served = []
    for _ in range(3):
        world.connect(proxy.address, reconnect=None)
        served.append(await world.accept(listener))
        await world.up(served[-1])
    proxy.refuse()
    for number, conn in enumerate(served):
        await world.outside(conn.stats)
        assert conn.state is State.CONNECTED, number
    proxy.cut("rst")
    ended = await world.eventually(lambda: [conn for conn in served if conn.state is State.CLOSED])
    assert len(ended) == 1
    assert (await world.wait_closed(ended[0])).reason is Reason.SESSION_EXPIRED
