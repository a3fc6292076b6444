"""No service that answers, or that echod itself is, is ever answered: source ports (CA-1996-01, CVE-2024-2169)."""

from collections.abc import Callable

import pytest
from support.loopback import needs_root
from support.netns.datagrams import OTHER_PORT, PORT, Datagram, numbered, over_ipv4, over_ipv6
from support.netns.stage import Stage, answered, refused

from echod.admission.selftest import SelfTest
from echod.status.files import SELF_TEST_NAME

pytestmark = [needs_root, pytest.mark.parametrize("over", [over_ipv4, over_ipv6])]

Over = Callable[..., Datagram]

REFUSED = (1900, 2049, 3702, 5353, 5355, 11_211)
"""SSDP, NFS, WS-Discovery, mDNS, LLMNR and memcached reply, or amplify."""
PORTS = {
    0: "zero",
    **dict.fromkeys((PORT, OTHER_PORT), "own"),
    **dict.fromkeys((1, 7, 19, 53, 123, 1023), "low"),
    **dict.fromkeys(REFUSED, "refused"),
    **dict.fromkeys((1024, 1899, 40_000, 65_535), ""),
}
"""Source ports, and why each is refused; a client may have any port that no rule names."""


@pytest.mark.parametrize(("port", "reason"), PORTS.items())
def test_ports_of_services_are_not_answered(stage: Stage, over: Over, port: int, reason: str) -> None:
    """Nor is port 0, where no reply can go, nor a port of a listener, which is another echod's in all likelihood."""
    datagrams = numbered(over(source_port=port), 10)
    outcome = refused(10, f"dropped_source_port_{reason}") if reason else answered(datagrams)
    assert stage.meet(datagrams) == outcome


def test_guard_says_which_ports_are_answered(staged: Callable[..., Stage], over: Over) -> None:
    """`min_source_port` and `refuse_source_ports` are what the config says; our own ports and zero stay refused."""
    stage = staged(guard={"min_source_port": 100, "refuse_source_ports": [4444]})
    for port, reason in ((99, "low"), (4444, "refused"), (PORT, "own"), (0, "zero")):
        assert stage.meet([over(source_port=port)]) == refused(1, f"dropped_source_port_{reason}")
    datagrams = [over(source_port=port) for port in (100, 123, *REFUSED)]
    assert stage.meet(datagrams) == answered(datagrams)


def self_test_port(stage: Stage) -> int:
    """Return the port that echod's own probes come from."""
    return SelfTest.unpack((stage.daemon.status_path / SELF_TEST_NAME).read_bytes()).port


@pytest.mark.parametrize(("burst", "train"), [(1, 1), (32, 1), (64, 32)])
def test_another_host_may_have_the_port_of_self_tests(stage: Stage, over: Over, burst: int, train: int) -> None:
    """Only this host's own probes come from it: a client elsewhere has it by chance, and is answered like any other."""
    datagrams = numbered(over(source_port=self_test_port(stage)), 64)
    assert stage.meet(datagrams, burst=burst, train=train) == answered(datagrams)
