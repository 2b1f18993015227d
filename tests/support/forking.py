"""Programs that fork."""

from __future__ import annotations

import textwrap

from support.process import run_script
from support.waiting import DEADLINE

#: Before each of these programs: `fork` and `ended`, a link and back, a pair of handles.
FORKING = """
    import asyncio, gc, os, signal, sys, threading, traceback, warnings
    import netasync, netasync.blocking as na
    # From 3.12 on Python warns of a fork in a process with threads, which ours all are.
    warnings.filterwarnings("ignore", category=DeprecationWarning)

    def fork(act):
        '''Start a child that acts and ends; one that hangs is killed, which its status shows.'''
        child = os.fork()
        if child:
            return child
        signal.alarm(60)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def ended(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def echoed(data, **options):
        '''A link of this process's own, there and back.'''
        with na.listen(0) as listener, na.connect(listener.address, **options) as client:
            served = listener.accept(timeout=30)
            client.send(data)
            assert isinstance(served.recv(timeout=30), netasync.Connected)
            served.send(served.recv(timeout=30))
            assert isinstance(client.recv(timeout=30), netasync.Connected)
            assert client.recv(timeout=30) == data
            client.aio.abort()
            served.close()

    def pair(**options):
        listener = na.listen(0)
        client = na.connect(listener.address, **options)
        served = listener.accept(timeout=30)
        client.recv(timeout=30), served.recv(timeout=30)
        return client, served, listener
"""


def program(*parts: str) -> str:
    """The whole text of a program that forks."""
    return "".join(textwrap.dedent(part) for part in (FORKING, *parts))


def forks(text: str, *arguments: str, timeout: float = DEADLINE * 2) -> str:
    """Run a program that forks; it and its children must end well and say nothing on their error stream."""
    return run_script(program(text), *arguments, timeout=timeout)
