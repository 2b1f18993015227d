"""Names: a session belongs to the address that issued it, and a resolver that hangs holds up nobody else."""

import pytest

from support.namespace import missing, run_with_names

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "namespaces")

#: Two servers behind one name, `both(first, second)` says in which order it lists them; `cut` breaks the link
#: to the server of an address.
TWO_SERVERS = """
    import contextlib, time, netasync, netasync.blocking as na

    def cut(address):
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as sock:
                if "%s:%d" % sock.getpeername()[:2] == address:
                    sock.shutdown(socket.SHUT_RDWR)

    def both(*addresses):
        hosts("127.0.0.1 localhost\\n" + "".join(f"{address} both.example\\n" for address in addresses))

    def take(conn, kind):
        item = conn.recv(timeout=30)
        assert isinstance(item, kind), item
        return item

    wire = sys.argv[1]
    one = na.listen("127.0.0.2:0", protocol=wire)
    port = int(one.address.rpartition(":")[2])
    other = na.listen(f"127.0.0.3:{port}", protocol=wire)
    home = f"127.0.0.2:{port}"
    both("127.0.0.2", "127.0.0.3")
"""

#: In the other one's place there is somebody who only listens in.
A_STRANGER = (
    TWO_SERVERS
    + """
    other.close()
    spy = socket.create_server(("127.0.0.3", port))
    conn = na.connect(f"both.example:{port}", protocol=wire, reconnect=0.02)
    take(conn, netasync.Connected)
    served = one.accept(timeout=30)
"""
)


def test_a_name_with_two_living_servers_keeps_its_session_over_four_cuts():
    run_with_names(
        TWO_SERVERS
        + """
    conn = na.connect(f"both.example:{port}", protocol=wire, reconnect=0.02)
    take(conn, netasync.Connected)
    served = one.accept(timeout=30)
    take(served, netasync.Connected)
    session, got, sent = conn.session, [], 0
    for turn in range(4):
        both(*(["127.0.0.3", "127.0.0.2"] if turn % 2 == 0 else ["127.0.0.2", "127.0.0.3"]))
        for _ in range(100):
            conn.send(b"%d" % sent)
            sent += 1
        cut(home)
        take(conn, netasync.Disconnected)
        for _ in range(100):
            conn.send(b"%d" % sent)
            sent += 1
        up = take(conn, netasync.Connected)
        assert (up.resumed, up.peer, up.redelivered) == (True, home, 0), up
    while len(got) < sent:
        item = served.recv(timeout=30)
        got += [int(item)] if isinstance(item, bytes) else []
    assert got == list(range(sent)), "none is lost, none comes twice"
    assert (conn.session, conn.stats().links) == (session, 5)
    assert other.stats().accepted == 0, "nobody has called the other one"
    conn.finish(timeout=30)
    assert conn.stats().confirmed == sent
    conn.aio.abort(), served.aio.abort(), one.close(), other.close()
    """,
        "netasync",
    )


def test_another_server_is_never_shown_the_session_and_begins_one_of_its_own():
    run_with_names(
        A_STRANGER
        + """
    one.close()
    cut(home)
    offers = []
    for _ in range(3):
        stranger, _ = spy.accept()
        with stranger, stranger.makefile("rb") as stream:
            offers.append(stream.read(88))
    assert all(offer[:4] == b"\\x81\\x00\\x00\\x54" and offer[12:44] == bytes(32) for offer in offers), offers
    assert len({offer[44:48] for offer in offers}) == 3, "each has a number of its own"
    spy.close()
    other = na.listen(f"127.0.0.3:{port}", protocol=wire)
    conn.send(b"goes to the other one")
    take(conn, netasync.Disconnected)
    up = take(conn, netasync.Connected)
    assert (up.resumed, up.peer) == (False, f"127.0.0.3:{port}"), up
    again = other.accept(timeout=30)
    take(again, netasync.Connected)
    assert again.recv(timeout=30) == b"goes to the other one"
    conn.aio.abort(), served.aio.abort(), again.aio.abort(), other.close()
    """,
        "netasync",
    )


def test_a_stranger_that_was_being_greeted_at_the_close_does_not_end_the_goodbye():
    run_with_names(
        A_STRANGER
        + """
    take(served, netasync.Connected)
    both("127.0.0.3")
    cut(home)
    stranger, _ = spy.accept()
    with stranger, stranger.makefile("rb") as stream:
        offer = stream.read(88)
        assert conn.close(timeout=30).reason is netasync.Reason.CLOSED_HERE
        both("127.0.0.2", "127.0.0.3")
        stranger.sendall(offer[:12] + bytes([1]) * 32 + offer[44:])
        assert stream.read() == b"", "a goodbye is for the issuer only"
    take(served, netasync.Disconnected)
    while not isinstance(item := served.recv(timeout=30), netasync.Closed):
        pass
    assert item.reason is netasync.Reason.CLOSED_BY_PEER, item
    spy.close(), one.close()
    """,
        "netasync",
    )


@pytest.mark.parametrize("wire", ["netasync", "net.async"])
def test_the_address_that_was_reached_last_is_tried_first(wire):
    run_with_names(
        TWO_SERVERS
        + """
    both("127.0.0.3", "127.0.0.2")
    conn = na.connect(f"both.example:{port}", protocol=wire, reconnect=0.02)
    for turn in range(5):
        assert take(conn, netasync.Connected).peer == f"127.0.0.3:{port}"
        both(*(["127.0.0.2", "127.0.0.3"] if turn % 2 == 0 else ["127.0.0.3", "127.0.0.2"]))
        # Here the session is over with it: there is none when the dialler comes back.
        other.accept(timeout=30).aio.abort()
        take(conn, netasync.Disconnected)
    conn.aio.abort(), one.close(), other.close()
    """,
        wire,
    )


#: A resolver for which `answer` makes each reply; None is silence.
RESOLVER = """
    import contextlib, pathlib, threading, time, netasync, netasync.blocking as na

    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind(("127.0.0.1", 53))

    def serve(code):
        while True:
            question, asker = resolver.recvfrom(512)
            if code is None:
                continue
            flags = struct.pack(">H", 0x8180 | code)
            resolver.sendto(question[:2] + flags + question[4:6] + bytes(6) + question[12:], asker)

    def answer(code):
        threading.Thread(target=serve, args=(code,), daemon=True).start()

    def lookups():
        count = 0
        for task in pathlib.Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it ended between the two looks
                count += (task / "comm").read_text() == "netasync-lookup\\n"
        return count
"""


@pytest.mark.parametrize(
    ("code", "reason"), [(3, "NAME_NOT_FOUND"), (0, "NAME_NOT_FOUND"), (2, "NAME_LOOKUP_FAILED")]
)
def test_a_name_that_does_not_exist_is_told_from_a_resolver_that_does_not_know(code, reason):
    run_with_names(
        RESOLVER
        + """
    resolve_by("files dns")
    answer(int(sys.argv[1]))
    conn = na.connect("what.example:9", reconnect=0.01)
    down = conn.recv(timeout=30)
    assert down.reason is netasync.Reason[sys.argv[2]] and down.detail, down
    assert down.retry_in == 0.01
    hosts("127.0.0.1 localhost\\n127.0.0.2 what.example\\n")
    while conn.stats().attempts < 5:
        time.sleep(0.01)
    conn.aio.abort()
    """,
        str(code),
        reason,
    )


@pytest.mark.parametrize("count", [1, 20])
def test_a_hundred_handles_of_hosts_that_hang_hold_up_no_neighbour(count):
    run_with_names(
        RESOLVER
        + """
    answer(None)
    resolve_by("files dns")
    hosts("127.0.0.1 localhost\\n127.0.0.2 near.example\\n")
    count = int(sys.argv[1])
    lost = [na.connect(f"hangs{n % count}.example:9", open_timeout=0.5, reconnect=0.01) for n in range(100)]
    for conn in lost:
        assert conn.recv(timeout=30).reason is netasync.Reason.OPEN_TIMEOUT
    assert lookups() == count, "one for each host, whoever waits and however often"
    with na.listen("127.0.0.2:0") as listener:
        port = listener.address.rpartition(":")[2]
        near = na.connect(f"near.example:{port}")
        assert isinstance(near.recv(timeout=30), netasync.Connected)
        near.aio.abort()
    for conn in lost:
        conn.aio.abort()
    """,
        str(count),
    )


def test_who_finds_no_lookup_free_has_a_failed_attempt_and_numeric_addresses_need_none():
    run_with_names(
        RESOLVER
        + """
    answer(None)
    resolve_by("files dns")
    lost = [na.connect(f"hangs{n}.example:9", open_timeout=1, reconnect=0.01) for n in range(40)]
    reasons = [conn.recv(timeout=30).reason for conn in lost]
    assert reasons.count(netasync.Reason.OPEN_TIMEOUT) == 32, reasons
    assert reasons.count(netasync.Reason.NAME_LOOKUP_FAILED) == 8, reasons
    assert lookups() == 32
    with na.listen(0) as listener, na.connect(listener.address) as near:
        assert isinstance(near.recv(timeout=30), netasync.Connected)
    before = time.monotonic()
    for conn in lost:
        conn.aio.abort()
    runtime = netasync.Runtime()
    na.connect("more.example:9", runtime=runtime, close_timeout=0.1).aio.abort()
    runtime.blocking.shutdown(timeout=0)
    # The resolver hangs for half a minute; neither shutting down nor the end of the process waits for it.
    assert time.monotonic() - before < 10
    """
    )


def test_a_lookup_that_is_over_leaves_no_thread():
    run_with_names(
        RESOLVER
        + """
    conn = na.connect("nobody.example:9", reconnect=600)
    assert conn.recv(timeout=30).reason is netasync.Reason.NAME_NOT_FOUND
    until = time.monotonic() + 30
    while lookups():
        assert time.monotonic() < until
        time.sleep(0.01)
    conn.aio.abort(), resolver.close()
    """
    )


#: `fe80::1` on the loopback interface.
SCOPED = """
    import asyncio, netasync, netasync.blocking as na
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        address = socket.inet_pton(socket.AF_INET6, "fe80::1")
        try:
            fcntl.ioctl(sock, 0x8916, address + struct.pack("Ii", 64, socket.if_nametoindex("lo")))
        except OSError as problem:
            print(f"no IPv6 here: {problem}")
            sys.exit()
"""


def test_a_listener_takes_an_address_that_names_its_interface():
    said = run_with_names(
        SCOPED
        + """
    def check(listener, conn):
        with listener, conn:
            up = conn.recv(timeout=30)
            assert up.peer == listener.address, up
            served = listener.accept(timeout=30)
            assert served.peer.startswith("[fe80::1%"), served.peer
            served.close()

    number = socket.if_nametoindex("lo")
    for target in ["[fe80::1%lo]:0", f"[fe80::1%{number}]:0", ("fe80::1%lo", 0), "tcp://[fe80::1%lo]:0"]:
        listener = na.listen(target)
        host, _, port = listener.address.rpartition(":")
        assert host == f"[fe80::1%{number}]", listener.address
        check(listener, na.connect(listener.address, local_address="fe80::1%lo"))
    listener = na.listen("[fe80::1%lo]:0")
    port = listener.address.rpartition(":")[2]
    check(listener, na.connect(f"[fe80::1%lo]:{port}", local_address="[fe80::1%lo]:0"))

    async def main():
        async with netasync.listen("[fe80::1%lo]:0") as listener, netasync.connect(listener.address) as conn:
            assert (await conn.recv()).peer == listener.address

    asyncio.run(main())
    try:
        na.listen("[fe80::1%no-such]:0")
    except OSError as problem:
        assert problem.errno == 19, problem
    else:
        raise AssertionError("there is no such interface")
    """
    )
    if said:
        pytest.skip(said)
