"""echod.stats.outcomes: the reasons and their numbers."""

import errno

import pytest

from echod.net.listener import Protocol
from echod.stats.outcomes import OTHER_SEND_ERROR, SEND_ERRORS, Close, Drop, reason_name


@pytest.mark.parametrize(
    ("numbers", "first", "names"),
    [
        (
            {drop.name: drop.value for drop in Drop},
            1,
            """DESTINATION_NOT_UNICAST SOURCE_PORT_ZERO SOURCE_PORT_OWN SOURCE_PORT_LOW SOURCE_PORT_REFUSED
            SOURCE_INVALID SOURCE_IS_SELF ACCESS TRUNCATED RATE LOOP MALFORMED
            UNAUTHENTICATED DISCARDED IMPAIRED IMPAIR_QUEUE""",
        ),
        (
            {reason.name: reason.value for reason in Close},
            1,
            "FINISHED RESET IDLE STALLED DRAINED OVER_LIMIT OVER_SOURCE_LIMIT INTERRUPTED ACCESS NO_MEANS SELF_TEST",
        ),
        (
            {errno.errorcode[error]: number for error, number in SEND_ERRORS.items()} | {"other": OTHER_SEND_ERROR},
            0,
            "EAGAIN EINVAL EACCES EPERM ENETUNREACH EHOSTUNREACH EMSGSIZE ENOBUFS ENODEV other",
        ),
    ],
    ids=["drops", "ends of connections", "errors of a send"],
)
def test_the_numbers_of_the_reasons_are_fixed(numbers: dict[str, int], first: int, names: str) -> None:
    """The counters page and the reports of workers are indexed by these numbers, which follow one another."""
    assert numbers == {name: number for number, name in enumerate(names.split(), first)}


def test_a_reason_has_the_name_that_operators_see() -> None:
    """The number of a report means a drop over UDP and the end of a connection over TCP; others have no name."""
    assert (reason_name(Protocol.UDP, 8), reason_name(Protocol.TCP, 9)) == ("access", "access")
    assert (reason_name(Protocol.UDP, 2), reason_name(Protocol.TCP, 2)) == ("source_port_zero", "reset")
    with pytest.raises(ValueError, match="0 is not a valid"):
        reason_name(Protocol.UDP, 0)
