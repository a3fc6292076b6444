"""Sources that no honest datagram has: reserved, multicast, loopback from outside, IPv4-mapped."""

import pytest
from support.loopback import needs_root
from support.netns.datagrams import CLIENT6, CLIENT_LINK, SERVER_LINK, SUBNET_BROADCAST, numbered, over
from support.netns.stage import Outcome, Stage, answered, refused

pytestmark = needs_root

REASON = "dropped_source_invalid"

DELIVERED = ("0.1.2.3", "240.0.0.1", "255.255.255.254")
"""The kernel delivers them as it stands, and would carry an answer to the wire."""
DELIVERED6 = ("::", "::2", "::127.0.0.1", "::10.7.1.66", "::ffff:127.0.0.1", "::ffff:10.7.1.66", "::ffff:203.0.113.7")
LET_THROUGH = ("127.0.0.1", "127.9.9.9")
"""Martians but where route_localnet and accept_local are set."""


@pytest.mark.parametrize("train", [1, 64])
@pytest.mark.parametrize("source", [CLIENT6, CLIENT_LINK])
def test_a_link_local_address_of_ours_answers_whoever_asks(stage: Stage, source: str, train: int) -> None:
    """From that address, one by one, at once, as trains; also beside what was sent to another address."""
    for number in (1, 128):
        datagrams = numbered(over(source, to=SERVER_LINK), number)
        assert stage.meet(datagrams, burst=64, train=train) == answered(datagrams)
    mixed = [*numbered(over(CLIENT6), 4), *numbered(over(source, to=SERVER_LINK), 4), *numbered(over(CLIENT6), 4)]
    assert stage.meet(mixed, burst=12) == answered(mixed)


@pytest.mark.parametrize("source", [*DELIVERED, *DELIVERED6])
def test_what_the_kernel_delivers_is_not_answered(stage: Stage, source: str) -> None:
    """Neither on the wire nor to this host itself goes any answer."""
    assert stage.meet(numbered(over(source), 10)) == refused(10, REASON)


@pytest.mark.parametrize("source", LET_THROUGH)
def test_loopback_from_outside_is_not_answered(stage: Stage, source: str) -> None:
    """Where the kernel lets 127/8 in from the wire, echod does not."""
    with stage.wire.lenient():
        assert stage.meet(numbered(over(source), 10)) == refused(10, REASON)


def test_the_subnet_broadcast_as_a_source_is_not_answered(stage: Stage) -> None:
    """The kernel delivers it, and refuses to answer all the subnet, since SO_BROADCAST is not set."""
    refusal = Outcome(received=10, refused={"send_failed_eacces": 10})
    assert stage.meet(numbered(over(SUBNET_BROADCAST), 10)) == refusal


def test_the_unspecified_source_does_not_reach_a_service_on_loopback(stage: Stage) -> None:
    """A socket that sends to `::` sends to `::1`: a service there that trusts its host must hear nothing."""
    with stage.wire.listen("::1", 40_000) as trusting:
        assert stage.meet(numbered(over("::", source_port=40_000), 10)) == refused(10, REASON)
        trusting.setblocking(False)
        with pytest.raises(BlockingIOError):
            trusting.recv(64)
