"""D 38 with sessions: the link is down and the session waits for its dialler when the end comes."""

import pytest

from netasync import Backoff, Closed, ClosedError, Reason, State
from support.faces import aio
from support.wires import OURS

pytestmark = OURS

WAITS = {
    "recv": lambda world, conn: world.recv(conn),
    "recv_many": lambda world, conn: world.recv_many(conn, 3),
    "wait_connected": lambda world, conn: world.wait_connected(conn),
    "wait_closed": lambda world, conn: world.wait_closed(conn),
    "send": lambda world, conn: world.send(conn, b"waits"),
    "send with confirm": lambda world, conn: world.send(conn, b"waits", confirm="consumed"),
    "send_many": lambda world, conn: world.send_many(conn, [b"waits", b"too"]),
    "flush": lambda world, conn: world.flush(conn),
}
YIELDING = ("recv", "recv_many", "wait_connected", "wait_closed")

ENDINGS = {
    "close": (lambda world, conn: world.outside(aio(conn).close), Reason.CLOSE_TIMEOUT),
    "abort": (lambda world, conn: world.outside(conn.abort), Reason.ABORTED),
    "shutdown": (lambda world, conn: world.shutdown(world.runtime, timeout=0), Reason.SHUTDOWN),
    "expiry": (lambda world, conn: world.wait_closed(conn), Reason.SESSION_EXPIRED),
}


async def absent(world, session_timeout):
    """An accepted connection that holds one message, and whose dialler cannot come back."""
    listener = world.listen(0, session_timeout=session_timeout, close_timeout=0.2, write_buffer=1)
    proxy = world.proxy(listener.address)
    world.connect(proxy.address, reconnect=Backoff(initial=0.01, factor=1.5, maximum=0.05))
    served = await world.accept(listener)
    await world.up(served)
    proxy.refuse()
    proxy.cut("rst")
    await world.down(served)
    await world.send(served, b"fills the buffer")
    return served


@pytest.mark.parametrize("ending", sorted(ENDINGS))
async def test_every_waiting_call_is_released_when_an_absent_session_ends(world, ending):
    end, reason = ENDINGS[ending]
    served = await absent(world, 1.0 if ending == "expiry" else 120)
    world.forget_order(served)
    waiting = {name: world.spawn(wait(world, served)) for name, wait in WAITS.items() for _ in range(2)}
    for one in waiting.values():
        await world.settle(one)
    await end(world, served)
    for name, one in waiting.items():
        if name in YIELDING:
            result = await world.join(one)
            closed = result[-1] if name == "recv_many" else result
            assert isinstance(closed, Closed) and (closed.reason, closed.undelivered) == (reason, 1), name
        else:
            with pytest.raises(ClosedError):
                await world.join(one)
    assert served.state is State.CLOSED


@pytest.mark.parametrize("ending", sorted(ENDINGS))
async def test_a_finish_over_an_absent_session_counts_what_its_end_leaves(world, ending):
    end, reason = ENDINGS[ending]
    served = await absent(world, 1.0 if ending == "expiry" else 120)
    finishing = world.spawn(world.finish(served, 60))
    await world.settle(finishing)
    await end(world, served)
    assert await world.join(finishing) == 1
    assert (await world.wait_closed(served)).reason is reason
