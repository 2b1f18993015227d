"""The build backend: maturin, told to leave the paths of this machine out of what it builds.

`pip install .` calls its hooks. `python tools/backend.py PROGRAM …` runs a program with the same flags: the
Makefile does so with maturin.
"""

import os
import pathlib
import sys

from maturin import *  # noqa: F403  # the hooks of a backend, as they are


def without_paths(environment: dict[str, str]) -> dict[str, str]:
    """The environment in which rustc names a crate by where it lies in its home, not on this machine."""
    home = pathlib.Path.home()
    root = pathlib.Path(__file__).resolve().parent.parent
    # Of several that fit the last one counts.
    places = {
        environment.get("RUSTUP_HOME") or str(home / ".rustup"): "rustup",
        environment.get("CARGO_HOME") or str(home / ".cargo"): "cargo",
        str(root): "netasync",
        os.path.abspath(environment.get("CARGO_TARGET_DIR") or root / "target"): "target",
    }
    given = environment.get("CARGO_ENCODED_RUSTFLAGS")
    flags = given.split("\x1f") if given else environment.get("RUSTFLAGS", "").split()
    flags += [f"--remap-path-prefix={place}={name}" for place, name in places.items()]
    # With a separator of its own: a path may have blanks.
    return {**environment, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}


if __name__ == "__main__":
    os.execvpe(sys.argv[1], sys.argv[1:], without_paths(dict(os.environ)))
os.environ.update(without_paths(dict(os.environ)))
