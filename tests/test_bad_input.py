"""Bad input: wrong arguments raise at the call and name the limit; what a peer does never raises."""

import array
import ctypes
import mmap

import pytest

import netasync
from netasync import Backoff, Buffer, Reason, State
from support.hostile import STRANGERS, noise, throw
from support.peer import frame, header
from support.process import resident_bytes
from support.wires import ORIGINAL, OURS

try:
    import numpy  # here, since it starts threads
except ImportError:
    numpy = None

NOWHERE = "127.0.0.1:1"

# Wrong arguments


def wrong(error, *words, **options):
    return pytest.param(
        options, error, words, id=",".join(f"{name}={value!r}" for name, value in options.items())
    )


WRONG_OPTIONS = [
    wrong(ValueError, "heartbeat_interval", "0", heartbeat_interval=0),
    wrong(ValueError, "heartbeat_interval", "-1", heartbeat_interval=-1),
    wrong(ValueError, "heartbeat_interval", "nan", heartbeat_interval=float("nan")),
    wrong(ValueError, "heartbeat_interval", "inf", heartbeat_interval=float("inf")),
    wrong(ValueError, "heartbeat_timeout", "2", "1.5", heartbeat_interval=1, heartbeat_timeout=1.5),
    wrong(ValueError, "heartbeat_timeout", "0.1", "0.05", heartbeat_interval=0.01, heartbeat_timeout=0.05),
    wrong(ValueError, "open_timeout", "0", open_timeout=0),
    wrong(ValueError, "close_timeout", "-3", close_timeout=-3),
    wrong(ValueError, "max_size", "0", max_size=0),
    wrong(ValueError, "max_size", "-1", max_size=-1),
    wrong(ValueError, "max_size", str(2**27 - 1), str(2**27), max_size=2**27),
    wrong(ValueError, "protocol", "gopher", protocol="gopher"),
    wrong(ValueError, "1", "0", read_buffer=0),
    wrong(ValueError, "1", "-5", write_buffer=-5),
    wrong(TypeError, "heartbeat_interval", heartbeat_interval="5"),
    wrong(TypeError, "open_timeout", open_timeout=None),
    wrong(TypeError, "max_size", max_size=1.5),
    wrong(TypeError, "read_buffer", read_buffer="large"),
    wrong(TypeError, "write_buffer", write_buffer=None),
    wrong(TypeError, "name", name=b"bytes"),
    wrong(TypeError, "runtime", runtime="default"),
    wrong(TypeError, "no_such_option", no_such_option=1),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG_OPTIONS)
@pytest.mark.parametrize("call", ["connect", "listen"])
async def test_an_option_that_makes_no_sense_is_told_at_the_call(world, call, options, error, words):
    opening = {
        "connect": lambda: world.connect(NOWHERE, **options),
        "listen": lambda: world.listen(0, **options),
    }
    with pytest.raises(error) as told:
        opening[call]()
    assert type(told.value) is error
    for word in words:
        assert word.lower() in str(told.value).lower()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        wrong(ValueError, "reconnect", "0", reconnect=0),
        wrong(ValueError, "reconnect", "-2", reconnect=-2),
        wrong(TypeError, "reconnect", reconnect="soon"),
        wrong(TypeError, "accept_buffer", accept_buffer=5),
        wrong(ValueError, "local_address", "nowhere:x", local_address="nowhere:x"),
        wrong(TypeError, "local_address", local_address=5),
    ],
)
async def test_an_option_of_connect_that_makes_no_sense_is_told_at_the_call(world, options, error, words):
    with pytest.raises(error) as told:
        world.connect(NOWHERE, **options)
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        wrong(ValueError, "accept_buffer", "0", accept_buffer=0),
        wrong(TypeError, "accept_buffer", accept_buffer="many"),
        wrong(ValueError, "max_connections", "0", max_connections=0),
        wrong(ValueError, "max_connections", "-1", max_connections=-1),
        wrong(ValueError, "max_connections", max_connections=2**70),
        wrong(TypeError, "max_connections", max_connections=1.5),
        wrong(TypeError, "max_connections", max_connections=True),
        wrong(TypeError, "max_connections", max_connections="many"),
        wrong(TypeError, "reconnect", reconnect=1),
        wrong(TypeError, "local_address", local_address="127.0.0.1"),
    ],
)
async def test_an_option_of_listen_that_makes_no_sense_is_told_at_the_call(world, options, error, words):
    with pytest.raises(error) as told:
        world.listen(0, **options)
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("", ValueError),
        ("localhost", ValueError),
        ("localhost:", ValueError),
        ("localhost:http", ValueError),
        ("localhost:0", ValueError),
        ("localhost:65536", ValueError),
        ("localhost:-1", ValueError),
        (":9988", ValueError),
        ("::1:9988", ValueError),
        ("[::1:9988", ValueError),
        ("udp://localhost:9988", ValueError),
        ("local\0host:9988", ValueError),
        (("localhost", 65536), ValueError),
        (("localhost", "9988"), TypeError),
        (("localhost",), (TypeError, ValueError)),
        (9988, TypeError),
        (None, TypeError),
        (b"localhost:9988", TypeError),
    ],
)
async def test_a_target_that_cannot_be_dialled_is_told_at_the_call(world, target, error):
    with pytest.raises(error):
        world.connect(target)


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (("localhost", "9988"), TypeError, "the port must be an int, not str"),
        (("localhost", 9988.0), TypeError, "the port must be an int, not float"),
        (("localhost", True), TypeError, "the port must be an int, not bool"),
        (" localhost:1", ValueError, "no ' ' in it: character 1"),
        ("local\thost:1", ValueError, "character 6"),
        ((" localhost", 1), ValueError, "no ' ' in it: character 1"),
        ("user@host:1", ValueError, "no '@' in it: character 5"),
        ("localhost:1 ", ValueError, "without ' '"),
        ("localhost:http", ValueError, "without 'h'"),
    ],
)
async def test_what_is_wrong_with_a_target_is_named(world, target, error, words):
    with pytest.raises(error) as told:
        world.connect(target)
    assert words in str(told.value)


async def test_a_listener_says_that_its_port_must_be_a_number(world):
    with pytest.raises(TypeError, match="the port must be an int, not str"):
        world.listen(("127.0.0.1", "9988"))


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (65536, ValueError),
        (-1, ValueError),
        ("", ValueError),
        ("localhost", ValueError),
        ("example.com:0", ValueError),
        ("127.0.0.1:65536", ValueError),
        (1.5, TypeError),
        (None, TypeError),
    ],
)
async def test_a_target_that_cannot_be_listened_on_is_told_at_the_call(world, target, error):
    with pytest.raises(error):
        world.listen(target)


@ORIGINAL
@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], object()], ids=lambda value: type(value).__name__)
async def test_only_bytes_like_objects_can_be_sent(world, data):
    conn, peer, _ = await world.dialled()
    with pytest.raises(TypeError):
        await world.send(conn, data)
    with pytest.raises(TypeError):
        conn.send_nowait(data)
    await world.send(conn, b"good")
    assert await world.outside(peer.recv) == b"good"


def scattered():
    """Buffers whose bytes do not lie in the order of C, from everything that exports such."""
    yield memoryview(b"abcdef")[::2]
    yield memoryview(bytearray(b"abcdef"))[::-1]
    yield memoryview(array.array("i", range(6)))[::2]
    yield memoryview((ctypes.c_char * 6)())[1::2]
    yield memoryview(mmap.mmap(-1, 16))[::4]
    if numpy is not None:
        grid = numpy.arange(12, dtype="u1").reshape(3, 4)
        yield from (grid[:, ::2], grid.T, numpy.asfortranarray(grid), grid[::-1])
        yield from (memoryview(grid.T), memoryview(numpy.asfortranarray(grid)))


@ORIGINAL
async def test_what_is_not_contiguous_is_a_value_error_of_the_same_words_whatever_it_comes_from(world):
    conn, peer, _ = await world.dialled()
    told = set()
    for data in scattered():
        for call in (
            lambda data=data: world.send(conn, data),
            lambda data=data: world.send_many(conn, [data]),
            lambda data=data: conn.send_nowait(data),
        ):
            with pytest.raises(ValueError, match="C-contiguous") as refused:
                pending = call()
                await pending
            told.add((type(refused.value), str(refused.value)))
    assert len(told) == 1, told
    await world.send(conn, b"good")
    assert await world.outside(peer.recv) == b"good"


@OURS
async def test_with_confirm_it_is_the_same(world):
    conn, _, _ = await world.pair()
    with pytest.raises(ValueError, match="C-contiguous"):
        await world.send(conn, memoryview(b"abcdef")[::2], confirm="received")


@ORIGINAL
async def test_a_buffer_that_is_gone_keeps_the_words_of_its_owner(world):
    conn, _, _ = await world.dialled()
    view, mapped = memoryview(b"abc"), mmap.mmap(-1, 16)
    view.release()
    mapped.close()
    for data, words in ((view, "released"), (mapped, "closed")):
        with pytest.raises(ValueError, match=words):
            await world.send(conn, data)


@OURS
async def test_a_message_may_be_empty_on_our_wire(world):
    client, served, _ = await world.pair()
    assert await world.send(client, b"") is True
    assert await world.send_many(client, [b"", bytearray()]) == 2
    assert await world.send(client, b"", confirm="received") is True
    assert await world.take(served, 4) == [b""] * 4


@ORIGINAL
async def test_send_many_wants_an_iterable_of_messages(world):
    conn, peer, _ = await world.dialled()
    with pytest.raises(TypeError):
        await world.send_many(conn, 5)
    with pytest.raises(TypeError):
        await world.send_many(conn, "text")
    with pytest.raises(TypeError):
        await world.send_many(conn, b"bytes")
    assert conn.stats().accepted == 0
    assert peer.socket.fileno() >= 0


@ORIGINAL
@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_1_is_a_value_error(world, limit):
    conn, peer, _ = await world.dialled()
    with pytest.raises(ValueError, match=str(limit)):
        await world.recv_many(conn, limit)
    peer.send(b"still there")
    assert await world.recv(conn) == b"still there"


@ORIGINAL
@pytest.mark.faces("threads")
@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
async def test_a_timeout_that_makes_no_sense_is_told_at_the_call(world, timeout):
    conn, peer = await world.answered()
    with pytest.raises((ValueError, TypeError)):
        conn.recv(timeout=timeout)
    peer.send(b"x")
    assert await world.recv(conn) == b"x"


NO_TIMEOUTS = [
    ("1", TypeError, "timeout must be a number of seconds, not str"),
    (True, TypeError, "timeout must be a number of seconds, not bool"),
    (b"1", TypeError, "timeout must be a number of seconds, not bytes"),
    ([1], TypeError, "timeout must be a number of seconds, not list"),
    (-1, ValueError, "timeout must be at least 0 s, not -1 s"),
    (-0.5, ValueError, "timeout must be at least 0 s, not -0.5 s"),
    (float("nan"), ValueError, "timeout must be at least 0 s, not nan s"),
    (float("-inf"), ValueError, "timeout must be at least 0 s, not -inf s"),
    (10**400, ValueError, "timeout is out of range: too large for a float"),
]


@ORIGINAL
@pytest.mark.parametrize(("timeout", "error", "words"), NO_TIMEOUTS, ids=lambda value: f"{value!s:.9}")
async def test_every_call_that_waits_names_the_timeout_that_makes_no_sense(world, timeout, error, words):
    conn = world.connect(NOWHERE)
    listener = world.listen()
    runtime = netasync.Runtime()
    in_threads = [
        *[
            getattr(conn, name)
            for name in ("recv", "flush", "finish", "close", "wait_closed", "wait_connected")
        ],
        *[getattr(listener, name) for name in ("accept", "close", "wait_closed")],
        *[
            conn.read_chan.recv,
            conn.write_chan.close,
            listener.accept_chan.accept,
            listener.accept_chan.close,
        ],
        lambda timeout: conn.recv_many(1, timeout),
        lambda timeout: conn.send(b"x", timeout),
        lambda timeout: conn.send_many([b"x"], timeout),
        lambda timeout: netasync.blocking.select(conn, timeout=timeout),
        runtime.blocking.shutdown,
    ]
    in_tasks = [conn.finish, lambda timeout: netasync.select(conn, timeout=timeout), runtime.shutdown]
    for call in in_tasks if world.face.awaited else in_threads:
        with pytest.raises(error) as told:
            waiting = call(timeout=timeout)
            await waiting
        assert (type(told.value), str(told.value)) == (error, words)
    # None of them has begun anything.
    assert runtime.running and conn.stats().accepted == 0
    assert await world.send(conn, b"x") is True
    world.connect(listener.address)
    assert await world.accept(listener)
    conn.abort()


async def test_a_timeout_without_end_waits_for_the_end(world):
    for forever in (float("inf"), 1e300, 1e18):
        client, served, _ = await world.pair()
        await world.send(client, b"x")
        finishing = world.spawn(world.finish(client, forever))
        await world.settle(finishing)
        receiving = world.spawn(_recv_within(world, served, forever))
        assert await world.join(receiving) == b"x"
        assert await world.join(finishing) == 0
        runtime = netasync.Runtime()
        conn = world.connect(client.peer, runtime=runtime)
        await world.shutdown(runtime, timeout=forever)
        assert (await world.wait_closed(conn)).reason is Reason.SHUTDOWN


async def _recv_within(world, conn, seconds):
    if world.face.awaited:
        chan, item = await netasync.select(conn, timeout=seconds)
        assert chan is conn
        return world.note(conn, item)
    return world.note(conn, conn.recv(timeout=seconds))


async def test_a_limit_that_is_no_integer_is_named(world):
    conn = world.connect(NOWHERE)
    for limit, error, words in (
        ("5", TypeError, "limit must be an integer, not str"),
        (True, TypeError, "limit must be an integer, not bool"),
        (5.0, TypeError, "limit must be an integer, not float"),
        (None, TypeError, "limit must be an integer, not NoneType"),
        (2**70, ValueError, "limit is out of range: beyond 64 bits"),
    ):
        with pytest.raises(error) as told:
            await world.recv_many(conn, limit)
        assert (type(told.value), str(told.value)) == (error, words)


@OURS
async def test_what_names_one_of_several_choices_is_told_all_of_them(world):
    conn = world.connect(NOWHERE)
    for confirm in (True, False, 1, b"received"):
        with pytest.raises(TypeError) as told:
            await world.send(conn, b"x", confirm=confirm)
        kind = type(confirm).__name__
        assert str(told.value) == f"confirm must be 'received', 'consumed' or None, not {kind}"
    with pytest.raises(ValueError, match=r"^confirm must be 'received', 'consumed' or None, not "):
        await world.send(conn, b"x", confirm="delivered")
    for call, options, words in (
        (world.connect, {"protocol": 5}, "protocol must be 'netasync' or 'net.async', not int"),
        (world.listen, {"protocol": 5}, "protocol must be 'netasync', 'net.async' or 'auto', not int"),
        (
            world.connect,
            {"on_new_session": True},
            "on_new_session must be 'redeliver' or 'discard', not bool",
        ),
        (
            world.connect,
            {"on_new_session": None},
            "on_new_session must be 'redeliver' or 'discard', not NoneType",
        ),
    ):
        with pytest.raises(TypeError) as told:
            call(NOWHERE, **options)
        assert str(told.value) == words
    with pytest.raises(TypeError) as told:
        Backoff(jitter=None)
    assert str(told.value) == "jitter must be 'full' or 'none', not NoneType"
    assert conn.stats().accepted == 0


@pytest.mark.parametrize("module", [netasync, netasync.blocking], ids=["aio", "blocking"])
def test_the_class_of_a_handle_says_which_call_makes_one(module):
    for arguments in ((), ("localhost:9988",), (None, None)):
        with pytest.raises(TypeError, match=r"use connect\(\)"):
            module.Connection(*arguments)
    for arguments in ((), (0,), ("localhost", 9988)):
        with pytest.raises(TypeError, match=r"use listen\(\)"):
            module.Listener(*arguments)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Buffer.fixed(0), ["1", "0"]),
        (lambda: Buffer.dropping(-1), ["1", "-1"]),
        (lambda: Buffer.sliding(5, max_bytes=0), ["max_bytes", "0"]),
        (lambda: Backoff(initial=0), ["initial", "0"]),
        (lambda: Backoff(initial=-1), ["initial", "-1"]),
        (lambda: Backoff(factor=0.5), ["factor", "0.5"]),
        (lambda: Backoff(initial=5, maximum=1), ["maximum", "5", "1"]),
        (lambda: Backoff(jitter="some"), ["jitter", "some"]),
    ],
)
def test_a_buffer_or_back_off_that_makes_no_sense_is_told_at_the_call(make, words):
    with pytest.raises(ValueError, match=r".+") as told:
        make()
    for word in words:
        assert word in str(told.value)


def test_buffers_and_back_offs_want_numbers():
    for make, words in (
        (lambda: Buffer.fixed("3"), "count must be an integer, not str"),
        (lambda: Buffer.dropping(1.5), "count must be an integer, not float"),
        (lambda: Buffer.sliding(True), "count must be an integer, not bool"),
        (lambda: Buffer.fixed(3, max_bytes="x"), "max_bytes must be an integer, not str"),
        (lambda: Backoff(initial="1"), "initial must be a number, not str"),
        (lambda: Backoff(factor=None), "factor must be a number, not NoneType"),
        (lambda: Backoff(maximum=True), "maximum must be a number, not bool"),
    ):
        with pytest.raises(TypeError) as told:
            make()
        assert str(told.value) == words


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        netasync.connect(NOWHERE, 5)
    with pytest.raises(TypeError):
        netasync.listen(0, 5)


# Bytes that are not ours


@ORIGINAL
@pytest.mark.parametrize("stranger", sorted(STRANGERS))
async def test_the_bytes_of_another_protocol_end_that_one_link(world, stranger):
    client, served, listener = await world.pair()
    peer = await world.raw_dial(listener.address)
    await world.outside(throw, peer, STRANGERS[stranger])
    conn = await world.accept(listener)
    await world.up(conn)
    assert (await world.end(conn)).reason in (Reason.TOO_LARGE, Reason.PROTOCOL)
    data, _ = await world.outside(peer.recv_to_end)
    assert data == b""
    await _still_well(world, client, served, listener)


@ORIGINAL
async def test_random_bytes_end_their_link_and_change_nothing_for_a_neighbour(world, seeded):
    client, served, listener = await world.pair()
    for _ in range(50):
        peer = await world.raw_dial(listener.address)
        await world.outside(throw, peer, noise(seeded, seeded.randrange(4, 4000)))
        conn = await world.accept(listener)
        await world.up(conn)
        assert (await world.end(conn)).reason in (Reason.TOO_LARGE, Reason.PROTOCOL)
    await _still_well(world, client, served, listener)


@ORIGINAL
async def test_random_bytes_towards_a_dialler_are_a_break(world, seeded):
    server = world.raw_listener()
    conn = world.connect(server.address)
    for _ in range(10):
        peer = await world.outside(server.accept)
        await world.up(conn)
        await world.outside(throw, peer, noise(seeded, 500))
        assert (await world.down(conn)).reason in (Reason.TOO_LARGE, Reason.PROTOCOL)


@ORIGINAL
async def test_an_announced_length_alone_allocates_nothing(world):
    client, served, listener = await world.pair(listen={"max_size": 2**27 - 1})
    before = resident_bytes()
    peers = [await world.raw_dial(listener.address) for _ in range(64)]
    for peer in peers:
        peer.send_bytes(header(2**27 - 1) + b"x")  # 8 GiB in all
    conns = [await world.accept(listener) for _ in peers]
    await world.eventually(lambda: all(conn.stats().bytes_received == 5 for conn in conns))
    assert resident_bytes() - before < 64 * 2**18 + 2**23
    await _still_well(world, client, served, listener)


@ORIGINAL
async def test_links_of_noise_leave_no_memory_behind(world, seeded):
    listener = world.listen(0)

    async def be_noisy(count):
        for _ in range(count):
            peer = await world.raw_dial(listener.address)
            await world.outside(throw, peer, noise(seeded, 2000))
            conn = await world.face.call(listener, "accept")
            await world.wait_closed(conn)
            peer.close()

    await be_noisy(50)
    before = resident_bytes()
    await be_noisy(250)
    assert resident_bytes() - before < 2**23
    assert listener.stats().connections <= 1


@ORIGINAL
async def test_what_is_not_ours_does_not_stop_the_accepting(world, seeded):
    listener = world.listen(0, accept_buffer=1000)
    for _ in range(100):
        peer = await world.raw_dial(listener.address)
        await world.outside(throw, peer, noise(seeded, 100))
        peer.reset()
    good = await world.raw_dial(listener.address)
    good.send(b"good")
    while True:
        conn = await world.accept(listener)
        items = [item async for item in world.items(conn)] if conn.peer != good.address else []
        if not items:
            break
    await world.up(conn)
    assert await world.recv(conn) == b"good"


@ORIGINAL
async def test_what_a_peer_does_never_raises_but_sending_afterwards(world):
    conn, peer = await world.answered()
    peer.send_bytes(frame(b"fine") + header(-7))
    assert await world.recv(conn) == b"fine"
    await world.wait_connected(conn)
    await world.wait_closed(conn)
    assert (await world.end(conn)).reason is Reason.PROTOCOL
    assert conn.state is State.CLOSED
    with pytest.raises(netasync.ClosedError):
        await world.send(conn, b"x")


@ORIGINAL
async def test_details_never_echo_the_bytes_of_a_peer(world):
    conn, peer = await world.answered()
    peer.send_bytes(STRANGERS["http"])
    end = await world.end(conn)
    assert "GET" not in end.detail
    assert len(end.detail) < 300


async def _still_well(world, client, served, listener):
    """The neighbour's link is the same one, and the listener still accepts."""
    await world.send(client, b"there?")
    assert await world.recv(served) == b"there?"
    await world.send(served, b"here")
    assert await world.recv(client) == b"here"
    assert client.stats().links == 1
    peer = await world.raw_dial(listener.address)
    peer.send(b"new")
    conn = await world.accept(listener)
    await world.up(conn)
    assert await world.recv(conn) == b"new"
