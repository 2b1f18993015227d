"""The README is true: its programs run as printed and print what it shows, its commands and files exist."""

from __future__ import annotations

import pathlib
import re

import pytest

import netasync
from support.process import run_script

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def programs() -> list[tuple[str, str, str]]:
    """Each program's heading, its text, and what the README says it prints."""
    found: list[tuple[str, str, str]] = []
    title = ""
    for match in re.finditer(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", README, re.M | re.S):
        heading, language, body = match.groups()
        title = heading or title
        if language == "python":
            found.append((title, body, ""))
        elif language == "text":
            found[-1] = (*found[-1][:2], body)
    return found


@pytest.mark.parametrize(("title", "program", "printed"), [pytest.param(*p, id=p[0]) for p in programs()])
def test_a_program_prints_what_the_readme_shows(title, program, printed):
    assert run_script(program, timeout=30) == printed


def test_there_is_an_echo_for_asyncio_and_one_for_threads():
    titles = [title for title, *_ in programs()]
    assert titles[:2] == ["An echo, awaited", "An echo, in threads"]
    assert len(titles) == 5
    assert all(printed for _, _, printed in programs())


def test_every_command_is_a_target_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = set(re.findall(r"\bmake (\w+)", README))
    assert {"demo", "test", "check"} <= commands
    assert [name for name in commands if not re.search(rf"^{name}:", makefile, re.M)] == []


def test_every_link_and_path_leads_to_a_file():
    paths = re.findall(r"\]\((?!http)([^)]+)\)|`((?:examples|docs)/[\w/.]*|\w+\.(?:md|toml))`", README)
    named = {link or path for link, path in paths}
    assert named >= {"LICENSE-MIT", "LICENSE-APACHE", "examples/", "docs/decisions/", "CHANGELOG.md"}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_value_of_the_table_and_every_policy_exists():
    for name in re.findall(r"^\| `(\w+)` \|", README, re.M):
        assert name in netasync.__all__
    for policy in re.findall(r"^\| `Buffer\.(\w+)\(n\)` \|", README, re.M):
        assert callable(getattr(netasync.Buffer, policy))


def test_the_default_backoff_is_the_one_that_the_readme_names():
    initial, maximum = re.search(r"by default from ([\d.]+) s up to ([\d.]+) s", README).groups()
    assert (float(initial), float(maximum)) == (netasync.Backoff().initial, netasync.Backoff().maximum)
    assert netasync.Backoff().jitter == "full"


def test_the_equations_are_those_of_stats():
    for equation in re.findall(r"^  `(\w+ = [^`]+)`", README, re.M):
        assert equation in netasync.Stats.__doc__
