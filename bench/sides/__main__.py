"""`python -m bench.sides SETUP`: be one side."""

from __future__ import annotations

import importlib
import resource
import sys

from .setup import Setup


def main() -> None:
    """Be a server, or a client if there is an address."""
    # Many connections are more descriptors than a shell gives by default.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    setup = Setup.of_text(sys.argv[1])
    module = importlib.import_module(f"bench.sides.{setup.module}")
    (module.drive if setup.address else module.serve)(setup)


main()
