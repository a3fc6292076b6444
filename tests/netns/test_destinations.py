"""Datagrams to broadcast and multicast destinations have no reply."""

import pytest
from support.loopback import needs_root
from support.netns.datagrams import CLIENT_LINK, SUBNET_BROADCAST, Datagram, numbered, over_ipv4, over_ipv6
from support.netns.stage import Stage, refused

REASON = "dropped_destination_not_unicast"
EVERYBODY = (
    over_ipv4(to=SUBNET_BROADCAST),
    over_ipv4(to="255.255.255.255"),
    over_ipv4(to="255.255.255.255", source="0.0.0.0"),  # noqa: S104 - a host that has no address yet
    over_ipv4(to="224.0.0.1"),
    over_ipv6(to="ff02::1"),
    over_ipv6(to="ff02::1", source=CLIENT_LINK),
)

pytestmark = [
    needs_root,
    pytest.mark.parametrize("datagram", EVERYBODY, ids=lambda each: f"{each.source} to {each.to}"),
]


def test_it_is_not_answered(stage: Stage, datagram: Datagram) -> None:
    """An answer would make this host one of the many that a single frame sets talking."""
    assert stage.meet(numbered(datagram, 10)) == refused(10, REASON)
