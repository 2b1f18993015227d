"""The ground that the other tests stand on does what it says."""

import socket

import pytest

from netasync import Closed, Connected, Disconnected, Reason, Stats
from support.grammar import check_account, check_grammar
from support.peer import RawListener, RawPeer, ReservedPort, frame
from support.proxy import FaultProxy
from support.waiting import eventually

VALUES = {
    "C": Connected(),
    "D": Disconnected(reason=Reason.EOF),
    "X": Closed(reason=Reason.EOF),
    "M": b"message",
}


def items(word):
    return [VALUES[letter] for letter in word]


@pytest.mark.parametrize("word", ["", "D", "C", "CMM", "DCMD", "CMDCDX", "DX", "CX", "CMXXX", "X", "CMMDCMX"])
def test_the_grammar_of_a_dialler_allows(word):
    check_grammar(items(word), dialler=True, closed_here=False)


@pytest.mark.parametrize("word", ["M", "DD", "CC", "CDD", "CDM", "XC", "XM", "DMX", "CMDMX"])
@pytest.mark.parametrize("closed_here", [False, True])
@pytest.mark.parametrize("dialler", [False, True])
def test_the_grammar_never_allows(word, dialler, closed_here):
    with pytest.raises(AssertionError):
        check_grammar(items(word), dialler=dialler, closed_here=closed_here)


def test_only_a_handle_that_was_closed_here_may_stop_anywhere():
    for word in ("DCDX", "DCMDX"):
        check_grammar(items(word), dialler=True, closed_here=True)
    with pytest.raises(AssertionError):
        check_grammar(items("DX"), dialler=False, closed_here=False)


def test_two_different_ends_are_not_one():
    with pytest.raises(AssertionError, match="two different"):
        check_grammar([VALUES["X"], Closed(reason=Reason.RESET)], dialler=True, closed_here=True)


def test_an_account_that_does_not_balance_fails():
    check_account(Stats())
    with pytest.raises(AssertionError, match="accepted 1"):
        check_account(Stats(accepted=1))
    with pytest.raises(AssertionError, match="received 2"):
        check_account(Stats(received=2, waiting=1))


@pytest.fixture
def wired():
    """A server, a proxy before it, a client through it and the server's end of that."""
    server = RawListener()
    proxy = FaultProxy(server.address)
    client = RawPeer.dial(proxy.address)
    yield proxy, client, server.accept(), server
    client.close()
    proxy.close()
    server.close()


def test_the_proxy_forwards_both_ways_and_half_closes(wired):
    proxy, client, served, _ = wired
    client.send(b"x" * 1_000_000)
    assert served.recv() == b"x" * 1_000_000
    served.send(b"back")
    assert client.recv() == b"back"
    client.half_close()
    assert served.recv_to_end() == (b"", "eof")
    served.send(b"still")
    served.half_close()
    assert client.messages_to_end() == [b"still"]
    eventually(lambda: proxy.live == 0)
    assert (proxy.accepted, proxy.forwarded) == (1, {"up": 1_000_004, "down": 17})


@pytest.mark.parametrize(("how", "seen"), [("fin", "eof"), ("rst", "reset")])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_proxy_cuts_right_behind_the_byte_that_was_asked_for(wired, how, seen, direction):
    proxy, client, served, _ = wired
    source, sink = (client, served) if direction == "up" else (served, client)
    proxy.cut_after(10, direction, how)
    source.send_bytes(b"0123")
    source.send_bytes(b"456789abcdef")
    assert sink.recv_to_end() == (b"0123456789", seen)


def test_the_proxy_cuts_again_and_again_and_counts_from_the_cut_before():
    server = RawListener()
    proxy = FaultProxy(server.address)
    cuts = [(10, "up", "rst"), (4, "down", "fin"), (1, "up", "fin")]
    proxy.cut_again_and_again(cuts)
    for made, (count, direction, how) in enumerate(cuts):
        assert proxy.cuts == made
        client = RawPeer.dial(proxy.address)
        served = server.accept()
        source, sink = (client, served) if direction == "up" else (served, client)
        source.send_bytes(b"0123456789abcdef")
        assert sink.recv_to_end() == (b"0123456789"[:count], "eof" if how == "fin" else "reset")
        client.close()
    assert proxy.cuts == len(cuts)
    client = RawPeer.dial(proxy.address)
    client.send(b"x" * 1000)
    assert server.accept().recv() == b"x" * 1000
    for one in (client, proxy, server):
        one.close()


@pytest.mark.parametrize(("how", "seen"), [("fin", "eof"), ("rst", "reset")])
def test_the_proxy_cuts_at_once(wired, how, seen):
    proxy, client, served, _ = wired
    proxy.cut(how)
    assert client.recv_to_end() == (b"", seen)
    assert served.recv_to_end() == (b"", seen)


def test_the_proxy_holds_one_direction_and_goes_on(wired):
    proxy, client, served, _ = wired
    proxy.hold("up")
    client.send(b"held")
    served.send(b"not held")
    assert client.recv() == b"not held"
    served.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        served.socket.recv(1)
    served.socket.settimeout(20)
    proxy.resume("up")
    assert served.recv() == b"held"


def test_the_proxy_refuses_and_allows_on_the_same_port(wired):
    proxy, client, served, server = wired
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        RawPeer.dial(proxy.address)
    client.send(b"live ones stay")
    assert served.recv() == b"live ones stay"
    proxy.allow()
    second = RawPeer.dial(proxy.address)
    server.accept().send(b"hello")
    assert second.recv() == b"hello"
    second.close()


def test_a_reserved_port_refuses_until_somebody_listens_on_it():
    port = ReservedPort()
    with pytest.raises(ConnectionRefusedError):
        RawPeer.dial(port.address)
    server = RawListener(port.port)
    client = RawPeer.dial(port.address)
    client.send_bytes(frame(b"x"))
    assert server.accept().recv() == b"x"
    for one in (client, server, port):
        one.close()


def test_a_raw_reset_is_seen_as_a_reset():
    server = RawListener()
    client = RawPeer.dial(server.address)
    accepted = server.accept()
    client.reset()
    assert accepted.recv_to_end() == (b"", "reset")
    assert isinstance(accepted.socket, socket.socket)
    server.close()
