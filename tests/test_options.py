"""The options and their defaults: one home each, and a test for every copy."""

import inspect

import pytest

import netasync
import netasync.blocking
from netasync import _native

ONLY_CONNECT = {"reconnect", "on_new_session", "local_address"}
ONLY_LISTEN = {"accept_buffer", "max_connections", "session_timeout", "max_sessions", "max_held_bytes"}
NOT_OPTIONS = {"shutdown_timeout"}


def keywords(call):
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(call).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def defaults_without(names):
    return {name: value for name, value in _native.defaults().items() if name not in names}


@pytest.mark.parametrize("module", [netasync, netasync.blocking], ids=["aio", "blocking"])
def test_the_defaults_of_connect_are_those_of_the_core(module):
    core = {
        name: value for name, value in _native.defaults().items() if name not in NOT_OPTIONS | ONLY_LISTEN
    }
    assert keywords(module.connect) == core


@pytest.mark.parametrize("module", [netasync, netasync.blocking], ids=["aio", "blocking"])
def test_the_defaults_of_listen_are_those_of_the_core(module):
    core = {
        name: value for name, value in _native.defaults().items() if name not in NOT_OPTIONS | ONLY_CONNECT
    }
    assert keywords(module.listen) == core


def test_the_default_timeout_of_shutdown_is_that_of_the_core():
    core = _native.defaults()["shutdown_timeout"]
    for call in (netasync.Runtime.shutdown, netasync.blocking.Runtime.shutdown):
        assert inspect.signature(call).parameters["timeout"].default == core


def test_the_reasons_of_the_core_are_those_of_python():
    assert set(_native.reasons()) <= {reason.name for reason in netasync.Reason}


def test_buffers_and_back_offs_compare_by_value():
    assert netasync.Buffer.fixed(3) == netasync.Buffer.fixed(3, max_bytes=4 << 20)
    assert netasync.Buffer.fixed(3) != netasync.Buffer.sliding(3)
    assert netasync.Backoff() == netasync.Backoff(initial=0.1, factor=2, maximum=10, jitter="full")
    assert len({netasync.Backoff(), netasync.Backoff(), netasync.Backoff(initial=1)}) == 2
