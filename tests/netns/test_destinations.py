"""What is sent to everybody is answered by nobody: broadcast and multicast destinations."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from loopback import needs_root
from netns.datagrams import (
    CLIENT_LINK,
    SERVER_LINK,
    SUBNET_BROADCAST,
    Datagram,
    numbered,
    over_ipv4,
    over_ipv6,
)
from netns.stage import Stage, answered, refused

pytestmark = needs_root

EVERYBODY = (
    over_ipv4(to=SUBNET_BROADCAST),
    over_ipv4(to="255.255.255.255"),
    over_ipv4(to="224.0.0.1"),
    over_ipv6(to="ff02::1"),
    over_ipv6(to="ff02::1", source=CLIENT_LINK),
)
REASON = "dropped_destination_not_unicast"
TRAIN = 20
