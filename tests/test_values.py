"""The values and the errors: plain Python, no link needed."""

import asyncio
import copy
import dataclasses
import enum
import inspect
import pickle
import queue
import typing

import pytest

import netasync
import netasync.errors
import netasync.values
from netasync import (
    BufferEmpty,
    BufferFull,
    Closed,
    ClosedError,
    Connected,
    Disconnected,
    ListenerStats,
    MessageTooLarge,
    NetasyncError,
    Reason,
    State,
    Stats,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
VALUES = [
    Connected(),
    Connected(resumed=True, redelivered=3, lost=2, attempt=4, peer="127.0.0.1:9988"),
    Disconnected(reason=Reason.RESET),
    Disconnected(reason=Reason.REFUSED, detail="refused", attempt=2, retry_in=0.25, unconfirmed=7),
    Closed(reason=Reason.CLOSED_HERE),
    Closed(reason=Reason.CLOSE_TIMEOUT, detail="5 s", undelivered=9),
    Stats(),
    Stats(**{field.name: number for number, field in enumerate(dataclasses.fields(Stats), 1)}),
    ListenerStats(accepted=4, waiting=1, refused=2, connections=3),
]
CLASSES = [Connected, Disconnected, Closed, Stats, ListenerStats]
ERRORS = [NetasyncError, ClosedError, BufferFull, BufferEmpty, MessageTooLarge]

each_value = pytest.mark.parametrize("value", VALUES, ids=repr)
each_class = pytest.mark.parametrize("cls", CLASSES)
each_error = pytest.mark.parametrize("error", ERRORS)
each_reason = pytest.mark.parametrize("reason", Reason)


def parameters_of(cls):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


# What a value is.


@each_value
def test_a_value_is_frozen(value):
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, getattr(value, name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(value, name)


@each_value
def test_a_value_has_no_room_for_a_further_attribute(value):
    assert not hasattr(value, "__dict__")
    with pytest.raises((AttributeError, TypeError)):
        value.colour = "red"


@each_value
def test_an_equal_value_has_the_same_hash(value):
    twin = dataclasses.replace(value)
    assert twin is not value
    assert twin == value
    assert hash(twin) == hash(value)
    assert len({twin, value}) == 1


def test_values_of_different_kinds_are_never_equal():
    assert Disconnected(reason=Reason.EOF) != Closed(reason=Reason.EOF)
    assert len(set(VALUES)) == len(VALUES)


@each_value
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_value_survives_pickling(value, protocol):
    restored = pickle.loads(pickle.dumps(value, protocol))
    assert restored == value
    assert type(restored) is type(value)


@each_value
def test_a_value_survives_copying(value):
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


@each_value
def test_the_repr_of_a_value_rebuilds_it(value):
    names = {name: getattr(netasync, name) for name in netasync.values.__all__}
    # An enum's own repr is no expression.
    text = repr(value)
    for reason in Reason:
        text = text.replace(repr(reason), f"Reason.{reason.name}")
    assert eval(text, names) == value


@each_class
def test_the_fields_of_a_value_are_keyword_only(cls):
    assert list(parameters_of(cls)) == [field.name for field in dataclasses.fields(cls)]
    with pytest.raises(TypeError):
        cls(Reason.EOF)


@each_class
def test_a_value_is_matched_by_keyword_only(cls):
    assert cls.__match_args__ == ()


def test_matching_by_keyword_works():
    match Disconnected(reason=Reason.EOF, retry_in=0.5):
        case Disconnected(reason=Reason.EOF, retry_in=seconds):
            assert seconds == 0.5
        case _:
            pytest.fail("the pattern did not match")


def test_matching_by_position_is_refused():
    with pytest.raises(TypeError, match="0 positional"):
        match Closed(reason=Reason.EOF):
            case Closed(_):
                pytest.fail("a position matched")


def test_only_the_reason_has_to_be_given_so_that_values_can_grow():
    assert parameters_of(Connected) == {
        "resumed": False,
        "redelivered": 0,
        "lost": 0,
        "attempt": 1,
        "peer": None,
    }
    assert parameters_of(Disconnected) == {
        "reason": inspect.Parameter.empty,
        "detail": "",
        "attempt": 0,
        "retry_in": None,
        "unconfirmed": 0,
    }
    assert parameters_of(Closed) == {"reason": inspect.Parameter.empty, "detail": "", "undelivered": 0}


@pytest.mark.parametrize("cls", [Disconnected, Closed])
def test_an_ending_without_a_reason_is_refused(cls):
    with pytest.raises(TypeError, match="reason"):
        cls()


# What a log shows.


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (Connected(), "connected"),
        (Connected(peer="127.0.0.1:9988"), "connected to 127.0.0.1:9988"),
        (
            Connected(resumed=True, redelivered=3, lost=2, attempt=4),
            "connected, session resumed, 3 redelivered, 2 lost, attempt 4",
        ),
        (Disconnected(reason=Reason.EOF), "disconnected: the peer hung up"),
        (
            Disconnected(reason=Reason.EOF, detail="after 9 bytes", attempt=2, unconfirmed=7, retry_in=0.25),
            "disconnected: the peer hung up (after 9 bytes), attempt 2 failed, 7 unconfirmed, "
            "next try in 0.25 s",
        ),
        (Disconnected(reason=Reason.EOF, retry_in=0.0), "disconnected: the peer hung up, next try in 0.00 s"),
        (Closed(reason=Reason.CLOSED_HERE), "closed: closed on this side"),
        (
            Closed(reason=Reason.SHUTDOWN, undelivered=3),
            "closed: the runtime was shut down, 3 undelivered",
        ),
    ],
    ids=str,
)
def test_a_value_reads_as_one_line_of_a_log(value, line):
    assert str(value) == line
    assert f"{value}" == line


# Reasons and states.


def test_the_reasons_are_those_of_the_design():
    assert [reason.name for reason in Reason] == [
        "REFUSED",
        "UNREACHABLE",
        "NAME_NOT_FOUND",
        "NAME_LOOKUP_FAILED",
        "OPEN_TIMEOUT",
        "TLS",
        "REJECTED",
        "BUSY",
        "EOF",
        "TRUNCATED",
        "RESET",
        "HEARTBEAT_TIMEOUT",
        "SLOW_FRAME",
        "WRITE_STALLED",
        "FLOOD",
        "PROTOCOL",
        "TOO_LARGE",
        "NO_MEMORY",
        "REPLACED",
        "MOVED",
        "SESSION_EXPIRED",
        "CLOSED_HERE",
        "CLOSED_BY_PEER",
        "CLOSE_TIMEOUT",
        "ABORTED",
        "SHUTDOWN",
        "INTERNAL",
    ]


@each_reason
def test_the_value_of_a_reason_is_its_name_in_lower_case_and_leads_back(reason):
    assert reason.value == reason.name.lower()
    assert Reason(reason.value) is reason


def test_an_unknown_reason_is_refused():
    with pytest.raises(ValueError, match="sunspots"):
        Reason("sunspots")


@each_reason
def test_a_reason_reads_as_a_sentence_for_the_middle_of_a_log_line(reason):
    sentence = str(reason)
    assert sentence == f"{reason}" == sentence.strip()
    assert sentence[0].islower()
    assert " " in sentence
    assert not sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) <= 70


def test_no_two_reasons_read_the_same():
    assert len({str(reason) for reason in Reason}) == len(Reason)


def test_the_states_are_those_of_the_design():
    assert {state.name: state.value for state in State} == {
        "CONNECTING": "connecting",
        "CONNECTED": "connected",
        "DISCONNECTED": "disconnected",
        "CLOSING": "closing",
        "CLOSED": "closed",
    }


@pytest.mark.parametrize("member", [*Reason, *State])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reason_or_state_pickles_by_its_name_and_is_itself_again(member, protocol):
    pickled = pickle.dumps(member, protocol)
    assert member.name.encode() in pickled
    assert member.value.encode() not in pickled
    assert pickle.loads(pickled) is member
    assert copy.deepcopy(member) is member


def test_reasons_and_states_are_plain_enums():
    assert issubclass(Reason, enum.Enum)
    assert issubclass(State, enum.Enum)
    assert not isinstance(Reason.EOF, str)
    assert repr(Reason.EOF) == "<Reason.EOF: 'eof'>"


# The unions.


@pytest.mark.parametrize("value", VALUES[:6], ids=repr)
def test_every_value_of_a_connection_is_an_event_and_an_item(value):
    assert isinstance(value, netasync.Event)
    assert isinstance(value, netasync.Item)


def test_a_message_is_an_item_and_no_event():
    assert isinstance(b"message", netasync.Item)
    assert not isinstance(b"message", netasync.Event)


def test_the_unions_name_exactly_their_members():
    assert set(typing.get_args(netasync.Event)) == {Connected, Disconnected, Closed}
    assert set(typing.get_args(netasync.Item)) == {bytes, Connected, Disconnected, Closed}


# The figures.


def test_stats_count_in_whole_numbers_from_zero():
    assert parameters_of(Stats) == dict.fromkeys(
        [
            "accepted",
            "confirmed",
            "unconfirmed",
            "queued",
            "write_dropped",
            "lost",
            "received",
            "consumed",
            "waiting",
            "read_dropped",
            "redelivered",
            "bytes_sent",
            "bytes_received",
            "links",
            "attempts",
        ],
        0,
    )
    assert parameters_of(ListenerStats) == dict.fromkeys(["accepted", "waiting", "refused", "connections"], 0)
    for cls in (Stats, ListenerStats):
        assert set(typing.get_type_hints(cls).values()) == {int}


def test_the_docstring_of_stats_states_both_equations():
    assert "accepted = confirmed + unconfirmed + queued + write_dropped + lost" in Stats.__doc__
    assert "received = consumed + waiting + read_dropped" in Stats.__doc__


@each_class
def test_the_docstring_gives_every_field_a_meaning(cls):
    for field in dataclasses.fields(cls):
        assert f"\n    {field.name}: " in inspect.getdoc(cls)


# The errors.


@each_error
def test_every_error_is_a_netasync_error(error):
    assert issubclass(error, NetasyncError)


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (BufferFull, asyncio.QueueFull),
        (BufferFull, queue.Full),
        (BufferEmpty, asyncio.QueueEmpty),
        (BufferEmpty, queue.Empty),
        (MessageTooLarge, ValueError),
    ],
)
def test_code_written_for_the_standard_library_catches_the_error(error, standard):
    with pytest.raises(standard, match="limit 8"):
        raise error("limit 8")


def test_an_ended_handle_is_not_taken_for_a_network_error():
    assert ClosedError.__bases__ == (NetasyncError,)
    assert not issubclass(NetasyncError, (OSError, EOFError, ValueError))


@each_error
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_survives_pickling_with_its_text_and_count(error, protocol):
    raised = error("9 bytes exceed the limit of 8")
    raised.accepted = 3
    restored = pickle.loads(pickle.dumps(raised, protocol))
    assert type(restored) is error
    assert str(restored) == "9 bytes exceed the limit of 8"
    assert restored.accepted == 3


@each_error
def test_an_error_that_is_not_from_send_many_says_that_nothing_was_accepted(error):
    assert error("").accepted == 0


@each_error
def test_an_error_says_what_it_means(error):
    assert error.__doc__ is not None
    # The base has nobody to blame; each of the others says who acts.
    assert error is NetasyncError or "caller" in error.__doc__


# The public names.


@pytest.mark.parametrize("module", [netasync.values, netasync.errors], ids=lambda module: module.__name__)
def test_everything_is_exported_by_the_package(module):
    for name in module.__all__:
        assert getattr(netasync, name) is getattr(module, name)


@pytest.mark.parametrize("cls", [*CLASSES, *ERRORS, Reason, State])
def test_a_class_presents_itself_under_its_public_name(cls):
    assert cls.__module__ == "netasync"
    assert cls.__qualname__ == cls.__name__
    assert getattr(netasync, cls.__name__) is cls
