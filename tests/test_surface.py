"""What the package shows: its names, its version, and what every object for users can do."""

import importlib.metadata
import inspect
import types
import weakref

import pytest

import netasync
import netasync.blocking

MODULES = [netasync, netasync.blocking]
each_module = pytest.mark.parametrize("module", MODULES, ids=["aio", "blocking"])


def shown(module):
    return {name for name in dir(module) if not name.startswith("_")}


@each_module
def test_the_public_names_are_those_of_all(module):
    assert shown(module) == set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_nothing_in_the_package_is_public_by_accident():
    # What `dir` does not show can still be reached: only the modules themselves may be left.
    left = {name: value for name, value in vars(netasync).items() if not name.startswith("_")}
    others = {name for name, value in left.items() if not isinstance(value, types.ModuleType)}
    assert others <= set(netasync.__all__)
    modules = {value.__name__ for value in left.values() if isinstance(value, types.ModuleType)}
    assert all(name.startswith("netasync.") for name in modules)
    for name in ("flush_at_exit", "after_fork_in_child", "atexit", "os"):
        assert not hasattr(netasync, name)


def test_the_version_is_that_of_the_installed_package():
    assert netasync.__version__ == importlib.metadata.version("netasync")


@each_module
def test_every_class_and_every_member_for_users_is_documented(module):
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, name
        for member in members_of(value) if inspect.isclass(value) else ():
            found = inspect.getattr_static(value, member)
            # A field stands in the docstring of its class; everything else has its own.
            is_field = isinstance(found, types.MemberDescriptorType)
            assert found.__doc__ or (is_field and member in value.__doc__), f"{name}.{member}"


def members_of(cls):
    """What users find in a class of ours, but not what it has from Python's own."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("netasync")]
    return [member for base in ours for member in vars(base) if not member.startswith("_")]


def handles(world, conn, served, listener):
    """One of everything that stands for something: each with its face, channels, and the runtime."""
    for each in (conn, served):
        yield from (each, each.read_chan, each.write_chan)
    yield from (listener, listener.accept_chan)
    yield world.runtime if world.face.awaited else world.runtime.blocking


async def test_every_handle_and_channel_has_a_repr_that_says_what_it_is(world):
    conn, served, listener = await world.pair(connect={"name": "mine"})
    place = "netasync" if world.face.awaited else "netasync.blocking"
    for each in handles(world, conn, served, listener):
        text, cls = repr(each), type(each)
        assert text.startswith("<netasync.") and text.endswith(">"), text
        assert f".{cls.__name__} " in text, text
        assert "object at 0x" not in text, text
        if world.face.awaited:
            assert "blocking" not in text, text
        else:
            assert text.startswith("<netasync.blocking."), text
    assert repr(conn.read_chan) == f"<{place}.ReadChannel of {conn!r}>"
    assert repr(served.write_chan) == f"<{place}.WriteChannel of {served!r}>"
    assert repr(listener.accept_chan) == f"<{place}.AcceptChannel of {listener!r}>"
    assert "'mine'" in repr(conn.read_chan).replace('"', "'")


async def test_every_handle_and_channel_can_be_weakly_referenced(world):
    for each in handles(world, *await world.pair()):
        weak = weakref.ref(each)
        assert weak() is each
        known = weakref.WeakValueDictionary({1: each})
        assert known[1] is each
