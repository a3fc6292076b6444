"""echod.linux.sockopt: the table of options names each once, and says what it has to be."""

import pytest

from echod.linux.sockopt import Option, options
from echod.net.listener import Protocol


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("protocol", Protocol)
def test_no_option_stands_twice(protocol: Protocol, ipv6: bool) -> None:  # noqa: FBT001
    """By its name or its number: two rows could contradict each other."""
    wanted = options(protocol, ipv6=ipv6)
    assert len({each.name for each in wanted}) == len(wanted)
    assert len({(each.level, each.number) for each in wanted}) == len(wanted)


@pytest.mark.parametrize(
    ("protocol", "ipv6", "on"),
    [
        (Protocol.UDP, False, {"IP_PKTINFO": 1, "IP_MTU_DISCOVER": 5, "UDP_GRO": 1}),
        (Protocol.UDP, True, {"IPV6_RECVPKTINFO": 1, "IPV6_MTU_DISCOVER": 5, "UDP_GRO": 1}),
        (Protocol.TCP, False, {"TCP_NODELAY": 1, "SO_RCVLOWAT": 1}),
        (Protocol.TCP, True, {"TCP_NODELAY": 1, "SO_RCVLOWAT": 1}),
    ],
)
def test_what_is_on_is_little_and_all_else_is_off(protocol: Protocol, ipv6: bool, on: dict[str, int]) -> None:  # noqa: FBT001
    """The options that are on, with their values; every other one of the table is off."""
    wanted = options(protocol, ipv6=ipv6)
    assert {each.name: int.from_bytes(each.value, "little") for each in wanted if not each.off} == on
    assert {each.name for each in wanted if each.optional} <= {"UDP_GRO"}


def test_an_option_without_bytes_is_off() -> None:
    """An option of any length is off if it is empty, one that is a number if that is 0."""
    assert Option(level=0, number=4, name="IP_OPTIONS", value=b"").off
    assert Option(level=1, number=6, name="SO_BROADCAST").off
    assert not Option(level=6, number=1, name="TCP_NODELAY", value=b"\1\0\0\0").off
