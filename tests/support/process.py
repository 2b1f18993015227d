"""What has to be shown in a process of its own: imports, defaults of the process, exits, signals."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap


def open_descriptors() -> dict[int, str]:
    """The open file descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def native_threads() -> int:
    """How many threads the kernel counts in this process, the runtime's included."""
    return len(os.listdir("/proc/self/task"))


def threads_named(name: str) -> list[int]:
    """The kernel's ids of the threads of this process that bear a name."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as comm:
                if comm.read().strip() == name:
                    found.append(int(thread))
        except OSError:
            continue  # it ended between the two looks
    return found


def times_woken(thread: int) -> int:
    """How often a thread of this process has given up its core to wait, and so was woken."""
    with open(f"/proc/self/task/{thread}/status") as status:
        for line in status:
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    raise AssertionError("the kernel counts no context switches")


def resident_bytes() -> int:
    """The resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_script(
    text: str,
    *arguments: str,
    status: int = 0,
    timeout: float = 60,
    environment: dict[str, str] | None = None,
) -> str:
    """Run `text` as a program of its own with every warning an error; return what it printed.

    It must end with `status` and say nothing on its error stream. `environment` comes on top of ours.
    """
    done = subprocess.run(
        script_command(text, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    report = f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == status, report
    assert status != 0 or not done.stderr, report
    return done.stdout


def script_command(text: str, *arguments: str) -> list[str]:
    """The command line that runs `text` in this interpreter, in dev mode, with warnings as errors."""
    return [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(text), *arguments]


def user_timeouts() -> dict[tuple[str, str], int]:
    """`TCP_USER_TIMEOUT` in ms of this process's IPv4 connections, by own address and peer's address."""
    found = {}
    sockets = [number for number, what in open_descriptors().items() if what.startswith("socket:")]
    for number in sockets:
        borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=number)
        with contextlib.suppress(OSError):
            ends = borrowed.getsockname(), borrowed.getpeername()
            if all(isinstance(end, tuple) and len(end) == 2 for end in ends):
                (host, port), (peer_host, peer_port) = ends
                limit = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                found[f"{host}:{port}", f"{peer_host}:{peer_port}"] = limit
        borrowed.detach()
    return found
