"""A process with names of its own: private `/etc/hosts` and resolver, and no network but loopback."""

from __future__ import annotations

import functools
import shutil
import subprocess
import textwrap

from support.process import script_command

#: Put before a script: `hosts` writes the private `/etc/hosts`, `resolve_by` says how names are looked up.
PRELUDE = """
    import ctypes, fcntl, os, socket, struct, sys, tempfile

    def _private(path):
        made = tempfile.NamedTemporaryFile("w", delete=False)
        os.chmod(made.name, 0o644)
        made.close()
        libc, bind = ctypes.CDLL(None, use_errno=True), 4096
        done = libc.mount(made.name.encode(), path.encode(), None, bind, None)
        os.unlink(made.name)
        assert done == 0, os.strerror(ctypes.get_errno())

    def _write(path, text):
        with open(path, "w") as file:
            file.write(text)

    def hosts(text):
        _write("/etc/hosts", text)

    def resolve_by(way):
        _write("/etc/nsswitch.conf", f"hosts: {way}\\n")

    def _loopback_up():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))

    _loopback_up()
    for path in ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"):
        _private(path)
    hosts("127.0.0.1 localhost\\n")
    resolve_by("files")
    _write("/etc/resolv.conf", "nameserver 127.0.0.1\\noptions timeout:30 attempts:1\\n")
"""


@functools.cache
def missing() -> str:
    """What this machine lacks for `run_with_names`; empty when it lacks nothing."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run(
        ["unshare", "--mount", "--net", *script_command(textwrap.dedent(PRELUDE))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return f"no namespaces of our own: {done.stderr.strip()[-200:]}" if done.returncode else ""


def run_with_names(text: str, *arguments: str, timeout: float = 60) -> str:
    """Run a script behind `PRELUDE`; it must end well and say nothing on its error stream."""
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(text)
    done = subprocess.run(
        ["unshare", "--mount", "--net", *script_command(script, *arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
