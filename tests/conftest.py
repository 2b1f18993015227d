"""Fixtures of the whole suite, and the hook that runs a coroutine test on its face."""

from __future__ import annotations

import inspect
import os
import pathlib
import random
import sys

import hypothesis
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
pytest.register_assert_rewrite("support")

from support.faces import FACE_NAMES, FACES, known  # noqa: E402
from support.world import World  # noqa: E402

# Each example opens real sockets: few examples, and no word about how long they take. A failure prints what
# replays it; nothing is kept in files.
hypothesis.settings.register_profile(
    "sockets",
    max_examples=20,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.differing_executors,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("sockets")


#: What a test's handles may speak, and how its name says so.
WIRES = {"netasync": "ours", "net.async": "original"}


def pytest_configure(config):
    config.addinivalue_line("markers", "wires(*names): what the handles of a test speak; both without it")
    config.addinivalue_line("markers", "faces(*names): the faces on which a test runs; all without it")


def pytest_generate_tests(metafunc):
    if "face" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("faces")
        metafunc.parametrize("face", known(marker.args) if marker else FACE_NAMES, indirect=True)
    if "spoken" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("wires")
        wires = marker.args if marker else WIRES
        assert set(wires) <= set(WIRES), wires
        metafunc.parametrize("spoken", [pytest.param(wire, id=WIRES[wire]) for wire in wires])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["world"].run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def face(request):
    """One of asyncio, uvloop and threads."""
    if request.param not in FACES:
        pytest.skip(f"{request.param} is not installed")
    return FACES[request.param]


@pytest.fixture(scope="session", autouse=True)
def warmed_up():
    """What a loop keeps open to the end of the process (uvloop: a pipe for signals) is no test's leak."""
    for each in FACES.values():
        each.run(each.pause(0))


@pytest.fixture
def world(face, spoken):
    """See `support.world`."""
    with World(face, spoken) as made:
        yield made


@pytest.fixture
def seeded():
    """A random generator whose seed is printed; `NETASYNC_SEED` replays a run."""
    seed = int(os.environ.get("NETASYNC_SEED") or random.SystemRandom().randrange(2**32))
    print(f"NETASYNC_SEED={seed}")
    return random.Random(seed)
