"""The installed wheel: what it holds of the machine that built it."""

import pathlib
import re

import netasync._native

BINARY = pathlib.Path(netasync._native.__file__).read_bytes()
ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_binary_names_no_path_of_the_machine_that_built_it():
    for place in (str(pathlib.Path.home()), str(ROOT)):
        # A home may be as short as "/root": what counts is a path that begins there.
        found = re.search(rb"(?<![\w.-])" + re.escape(place.encode()) + rb"/[\w./@+-]*", BINARY)
        assert found is None, found
    for hint in (b"/.cargo/", b"/.rustup/", b"/home/", b"/Users/", b"/tmp/"):
        at = BINARY.find(hint)
        assert at < 0, BINARY[max(0, at - 40) : at + 80]


def test_its_sources_are_named_by_where_they_lie_in_their_homes():
    # Else the test above would pass for a binary that names nothing at all, and panics would say nothing.
    assert re.search(rb"cargo/registry/src/[\w.-]+/tokio-", BINARY)
    assert b"src/link/" in BINARY
