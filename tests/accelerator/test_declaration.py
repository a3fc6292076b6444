"""echod.accelerator.declaration: what a config declares to the kernel is what it declares to the daemon."""

from ipaddress import ip_network

from echod.accelerator.declaration import declare
from echod.bpf.options import Limits
from echod.config.parse import parse_config

OWN = (ip_network("10.0.0.1"),)


def test_the_kernel_has_the_udp_listeners_and_the_rules_of_the_daemon() -> None:
    """Its access lists, ports and own addresses; of TCP it knows nothing."""
    text = b"listeners: [udp://0.0.0.0:7, tcp://0.0.0.0:8]\naccess: {allow: [10.0.0.0/8], deny: [10.9.0.0/16]}"
    declared = declare(parse_config(text)[0], OWN)
    assert [str(each) for each in declared.listeners] == ["udp://0.0.0.0:7"]
    assert declared.accounts == ((4, 7),)
    assert declared.rules.allow == (ip_network("10.0.0.0/8"),)
    assert declared.rules.deny == (ip_network("10.9.0.0/16"),)
    assert declared.rules.own_ports == {7}
    assert declared.rules.own_addresses == OWN
    assert (declared.fresh_seconds, declared.stale_seconds) == (5, 10)
    assert declared.bounded is None
    assert declared.loop_breaker


def test_the_kernel_has_the_limits_of_the_daemon() -> None:
    """All of them, and how long a reply is repeated."""
    text = (
        b"limits: {datagrams_per_second: 5, burst: 6, total_datagrams_per_second: 7, slip: 2, sources: 2048, "
        b"dry_run: true}\nguard: {loop_breaker: false}\nkernel: {fresh_seconds: 3, stale_seconds: 4}"
    )
    declared = declare(parse_config(text)[0], OWN)
    assert declared.limits == Limits(per_source=5, burst=6, total=7, slip=2, dry_run=True)
    assert declared.sources == 2048
    assert not declared.loop_breaker
    assert (declared.fresh_seconds, declared.stale_seconds) == (3, 4)
