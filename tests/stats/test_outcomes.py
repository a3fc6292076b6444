"""echod.stats.outcomes: the reasons and their numbers."""

import errno

import pytest

from echod.net.listener import Protocol
from echod.stats.outcomes import OTHER_SEND_ERROR, SEND_ERRORS, Close, Drop, reason_name


def test_the_numbers_of_the_drops_are_fixed() -> None:
    """The counters page and the reports of workers are indexed by these numbers."""
    assert {drop.name: drop.value for drop in Drop} == {
        "DESTINATION_NOT_UNICAST": 1,
        "SOURCE_PORT_ZERO": 2,
        "SOURCE_PORT_OWN": 3,
        "SOURCE_PORT_LOW": 4,
        "SOURCE_PORT_REFUSED": 5,
        "SOURCE_INVALID": 6,
        "SOURCE_IS_SELF": 7,
        "ACCESS": 8,
        "TRUNCATED": 9,
        "RATE": 10,
        "LOOP": 11,
    }


def test_the_numbers_of_the_ends_of_connections_are_fixed() -> None:
    """The same holds for the reasons why a connection ended."""
    assert {reason.name: reason.value for reason in Close} == {
        "FINISHED": 1,
        "RESET": 2,
        "IDLE": 3,
        "STALLED": 4,
        "DRAINED": 5,
        "OVER_LIMIT": 6,
        "OVER_SOURCE_LIMIT": 7,
        "INTERRUPTED": 8,
        "ACCESS": 9,
        "NO_MEANS": 10,
        "SELF_TEST": 11,
    }


def test_the_numbers_of_the_errors_of_a_send_are_fixed() -> None:
    """Each errno that is counted separately has its number, and all others share the one after these."""
    assert {errno.errorcode[error]: number for error, number in SEND_ERRORS.items()} == {
        "EAGAIN": 0,
        "EINVAL": 1,
        "EACCES": 2,
        "EPERM": 3,
        "ENETUNREACH": 4,
        "EHOSTUNREACH": 5,
        "EMSGSIZE": 6,
        "ENOBUFS": 7,
        "ENODEV": 8,
    }
    assert OTHER_SEND_ERROR == 9


def test_a_reason_has_the_name_that_operators_see() -> None:
    """The number of a report means a drop over UDP and the end of a connection over TCP; others have no name."""
    assert (reason_name(Protocol.UDP, 8), reason_name(Protocol.TCP, 9)) == ("access", "access")
    assert (reason_name(Protocol.UDP, 2), reason_name(Protocol.TCP, 2)) == ("source_port_zero", "reset")
    with pytest.raises(ValueError, match="0 is not a valid"):
        reason_name(Protocol.UDP, 0)
