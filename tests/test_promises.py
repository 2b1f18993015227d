"""What a review of the core found broken once, each as the promise that it broke."""

import itertools
import socket
import struct
import threading
import time

import pytest

import netasync
from netasync import Buffer, BufferFull, Connected, Disconnected, Runtime, State
from support.waiting import eventually

HUGE = 2**70
BEYOND_FLOAT = 10**400


@pytest.fixture
def runtime():
    runtime = Runtime()
    yield runtime
    runtime.blocking.shutdown()


def serve(port=0):
    """A plain listening socket, and its address as a target."""
    server = socket.create_server(("127.0.0.1", port))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "call",
    [
        lambda: Buffer.fixed(HUGE),
        lambda: Buffer.fixed(1, max_bytes=HUGE),
        lambda: netasync.Backoff(BEYOND_FLOAT),
        lambda: netasync.connect("localhost:1", heartbeat_interval=BEYOND_FLOAT),
        lambda: netasync.connect("localhost:1", reconnect=BEYOND_FLOAT),
        lambda: netasync.connect("localhost:1", max_size=HUGE),
        lambda: Runtime().blocking.shutdown(BEYOND_FLOAT),
    ],
)
def test_a_number_out_of_range_is_a_value_error(call):
    with pytest.raises(ValueError, match=r"out of range|must be"):
        call()


def test_a_truth_value_is_no_number(runtime):
    with netasync.blocking.connect("127.0.0.1:1", runtime=runtime) as conn:
        with pytest.raises(TypeError):
            conn.recv_many(True)
        with pytest.raises(TypeError):
            conn.recv(timeout=True)
        with pytest.raises(ValueError, match="out of range"):
            conn.recv_many(HUGE)
        with pytest.raises(ValueError, match="out of range"):
            conn.recv(timeout=BEYOND_FLOAT)


def test_send_many_ends_within_its_timeout_though_everything_is_accepted(runtime):
    with netasync.blocking.connect("127.0.0.1:1", runtime=runtime, write_buffer=Buffer.sliding(10)) as conn:
        with pytest.raises(TimeoutError) as stopped:
            conn.send_many(itertools.repeat(b"x"), timeout=0.1)
        assert stopped.value.accepted == conn.stats().accepted > 0
        conn.abort()


def test_who_has_received_connected_finds_the_state_and_the_peer(runtime):
    with netasync.blocking.listen(0, runtime=runtime) as listener:
        for _ in range(50):
            conn = netasync.blocking.connect(listener.address, runtime=runtime)
            conn.send(b"queued" * 1000)
            assert isinstance(conn.recv(timeout=20), Connected)
            assert (conn.state, conn.peer) == (State.CONNECTED, listener.address)
            conn.abort()


def test_a_write_that_stalls_while_its_buffer_is_full_goes_on_by_itself(runtime):
    server, target = serve()
    conn = netasync.blocking.connect(
        target, runtime=runtime, protocol="net.async", write_buffer=Buffer.fixed(4)
    )
    with server, conn:
        peer, _ = server.accept()
        conn.wait_connected(timeout=20)
        sent = 0
        with pytest.raises(BufferFull):
            while True:
                conn.send_nowait(bytes(100_000))
                sent += 1
        with peer:
            left = sent * 100_004
            while left:
                left -= len(peer.recv(min(left, 1 << 20)))
        eventually(lambda: conn.stats().queued == 0)


def test_closing_in_the_middle_of_an_incoming_frame_delivers_what_was_accepted(runtime):
    with netasync.blocking.listen(0, runtime=runtime, protocol="net.async") as listener:
        host, port = listener.address.split(":")
        with socket.create_connection((host, int(port))) as peer:
            served = listener.accept(timeout=20)
            served.recv(timeout=20)
            peer.sendall(struct.pack(">i", 100) + b"half")
            eventually(lambda: served.stats().bytes_received == 8)
            for _ in range(40):
                served.send(bytes(100_000))
            served.aio.close()
            peer.shutdown(socket.SHUT_WR)
            received = sum(len(data) for data in iter(lambda: peer.recv(1 << 20), b""))
        assert received == 40 * 100_004
        assert served.wait_closed(timeout=20).undelivered == 0


def test_a_reading_channel_that_is_closed_when_full_does_not_hold_up_its_peer(runtime):
    with netasync.blocking.listen(0, runtime=runtime) as listener:
        conn = netasync.blocking.connect(listener.address, runtime=runtime, read_buffer=4)
        served = listener.accept(timeout=20)
        with served, conn:
            served.send_many([b"m"] * 10)
            eventually(lambda: conn.stats().waiting == 4)
            conn.read_chan.close()
            assert served.send_many([bytes(10_000)] * 3000, timeout=20) == 3000
            served.flush(timeout=20)
            eventually(lambda: conn.stats().read_dropped >= 3000)


def test_threads_that_wait_for_a_link_that_is_down_cost_nothing(runtime):
    with netasync.blocking.connect("127.0.0.1:1", runtime=runtime, reconnect=60) as conn:
        assert isinstance(conn.recv(timeout=20), Disconnected)

        def wait():
            with pytest.raises(TimeoutError):
                conn.recv(timeout=0.6)

        threads = [threading.Thread(target=wait) for _ in range(4)]
        begun = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Going round in circles took a whole core and more.
        assert time.process_time() - begun < 0.3


def test_what_begins_while_its_runtime_shuts_down_ends_with_it():
    for _ in range(100):
        runtime = Runtime()
        first = netasync.blocking.connect("127.0.0.1:1", runtime=runtime)
        made = []

        def begin(runtime=runtime, made=made):
            with pytest.raises(netasync.ClosedError):
                while True:
                    made.append(netasync.blocking.connect("127.0.0.1:1", runtime=runtime))

        thread = threading.Thread(target=begin)
        thread.start()
        runtime.blocking.shutdown()
        thread.join()
        for conn in [first, *made]:
            conn.wait_closed(timeout=20)
