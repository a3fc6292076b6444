"""echod.accelerator.declaration: what a config declares to the kernel is what it declares to the daemon."""

from ipaddress import ip_network

from echod.accelerator.declaration import declare
from echod.bpf.layout import Driver
from echod.bpf.options import Limits
from echod.config.parse import parse_config


def test_the_kernel_has_the_udp_listeners_and_the_rules_of_the_daemon() -> None:
    """Its access lists and ports; of TCP it knows nothing."""
    text = b"listeners: [udp://0.0.0.0:7, tcp://0.0.0.0:8]\naccess: {allow: [10.0.0.0/8], deny: [10.9.0.0/16]}"
    declared = declare(parse_config(text)[0]).declared
    assert [str(each) for each in declared.listeners] == ["udp://0.0.0.0:7"]
    assert declared.accounts == ((4, 7),)
    assert declared.rules.allow == (ip_network("10.0.0.0/8"),)
    assert declared.rules.deny == (ip_network("10.9.0.0/16"),)
    assert declared.rules.own_ports == {7}
    assert declared.rules.own_addresses == ()
    assert (declared.fresh_seconds, declared.stale_seconds) == (5, 10)
    assert declared.bounded is None
    assert declared.loop_breaker


def test_the_kernel_repeats_plain_echoes_alone() -> None:
    """A listener with a mode, a DSCP or an impairment is left to the daemon; its port is still one of ours."""
    text = (
        b"listeners: [udp://0.0.0.0:7, {address: udp://0.0.0.0:8, mode: stamp}, {address: udp://0.0.0.0:9, dscp: 0}, "
        b"{address: udp://0.0.0.0:10, impair: {loss: 1%}}, {address: udp://0.0.0.0:11, mode: echo}]"
    )
    declared = declare(parse_config(text)[0]).declared
    assert [str(each) for each in declared.listeners] == ["udp://0.0.0.0:7", "udp://0.0.0.0:11"]
    assert declared.rules.own_ports == {7, 8, 9, 10, 11}


def test_the_kernel_has_the_limits_of_the_daemon() -> None:
    """All of them, and how long a reply is repeated."""
    text = (
        b"limits: {datagrams_per_second: 5, burst: 6, total_datagrams_per_second: 7, slip: 2, sources: 2048, "
        b"dry_run: true}\nguard: {loop_breaker: false}\nkernel: {fresh_seconds: 3, stale_seconds: 4}"
    )
    declared = declare(parse_config(text)[0]).declared
    assert declared.limits == Limits(per_source=5, burst=6, total=7, slip=2, dry_run=True)
    assert declared.sources == 2048
    assert not declared.loop_breaker
    assert (declared.fresh_seconds, declared.stale_seconds) == (3, 4)


def test_where_the_kernel_replies_and_where_the_log_goes_are_part_of_it() -> None:
    """A process that has these alone can do its work."""
    text = b"kernel: {interfaces: [eth0, lo]%s}\nlog: {level: debug, format: json}"
    settings = declare(parse_config(text % b"")[0])
    assert (settings.interfaces, settings.driver) == (("eth0", "lo"), Driver.TCX)
    assert declare(parse_config(text % b", driver: xdp")[0]).driver is Driver.XDP
    assert (settings.log_level, settings.log_destination) == ("debug", "json")
