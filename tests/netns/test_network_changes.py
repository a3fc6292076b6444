"""The network under a running echod fails and comes back: service is there again at once, by the same workers.

Four listeners, on the wildcards and on addresses of this host, each with a client that asks all the time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final

import pytest
from support.daemon import ACCELERATED
from support.loopback import needs_root
from support.netns.datagrams import OTHER_PORT, PORT, SERVER, SERVER6
from support.netns.stage import Stage, totals
from support.netns.traffic import Client, Traffic
from support.netns.wire import LINK
from support.system.network import set_kernel

pytestmark = needs_root

RATE: Final = 250
"""Of each of the four clients."""

LONG_SECONDS: Final = 0.25
LATE_SECONDS: Final = 1.0 if ACCELERATED else 0.0
"""So long after a change the kernel, which forgets when it is told, may reply at most."""
TURN_SECONDS: Final = 0.01
RESUMED_SECONDS: Final = 1.0
"""Of turns after the network is as it was, within which all are answered again, and from then on each time."""

LISTENERS: Final = (
    f"udp://0.0.0.0:{PORT}",
    f"udp://[::]:{PORT}",
    f"udp://{SERVER}:{OTHER_PORT}",
    f"udp://[{SERVER6}]:{OTHER_PORT}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done to the network, as command lines with the names of the namespaces to be filled in."""

    begin: tuple[str, ...]
    end: tuple[str, ...]
    hosts: tuple[str, ...] = (SERVER, SERVER6)
    """Whose clients notice; all others lose nothing."""
    failure: str | None = None
    """The counter that has each datagram lost; None where they are lost elsewhere."""


IP: Final = "ip -n {server}"
NFT: Final = "ip netns exec {server} nft"

FAULTS: Final = {
    "IPv4 output dropped": Fault(
        begin=(
            f"{NFT} add table ip test",
            f"{NFT} add chain ip test out {{{{ type filter hook output priority 0 ; }}}}",
            f"{NFT} add rule ip test out meta l4proto udp drop",
        ),
        end=(f"{NFT} delete table ip test",),
        hosts=(SERVER,),
        failure="send_failed_eperm",
    ),
    "IPv4 address removed": Fault(
        begin=(f"{IP} address delete {SERVER}/24 dev {LINK}",),
        end=(f"{IP} address add {SERVER}/24 broadcast + dev {LINK}",),
        hosts=(SERVER,),
    ),
    "IPv6 address removed": Fault(
        begin=(f"{IP} address delete {SERVER6}/64 dev {LINK}",),
        end=(f"{IP} address add {SERVER6}/64 dev {LINK} nodad",),
        hosts=(SERVER6,),
    ),
    "IPv4 routes removed": Fault(
        begin=(f"{IP} route delete default", f"{IP} route delete 10.7.1.0/24 dev {LINK}"),
        end=(f"{IP} route add 10.7.1.0/24 dev {LINK}",),
        hosts=(SERVER,),
        failure="send_failed_enetunreach",
    ),
    "IPv6 routes removed": Fault(
        begin=(f"{IP} -6 route delete default", f"{IP} -6 route delete fd00:7::/64 dev {LINK}"),
        end=(f"{IP} -6 route add fd00:7::/64 dev {LINK}",),
        hosts=(SERVER6,),
        failure="send_failed_enetunreach",
    ),
    "link down": Fault(begin=(f"{IP} link set {LINK} down",), end=(f"{IP} link set {LINK} up",)),
    # The clients, at the other end, cannot send either: nothing is lost, and nothing may be later.
    "carrier lost": Fault(
        begin=(f"ip -n {{client}} link set {LINK} down",), end=(f"ip -n {{client}} link set {LINK} up",)
    ),
}


@pytest.fixture
def stage(staged: Callable[..., Stage]) -> Stage:
    """Start two workers, on a host whose static IPv6 addresses outlive a link that is down, as its IPv4 ones do."""
    stage = staged(listeners=list(LISTENERS), workers=2)
    for name in (stage.wire.server, stage.wire.client):
        set_kernel(name, f"ipv6/conf/{LINK}/keep_addr_on_down", 1)
    return stage


@pytest.fixture
def traffic(stage: Stage) -> Iterator[Traffic]:
    """Let a client ask each listener."""
    ends = [(host, port) for port in (PORT, OTHER_PORT) for host in (SERVER, SERVER6)]
    with Traffic([Client(stage.wire, host, port=port, rate=RATE) for host, port in ends]) as traffic:
        yield traffic


def do(stage: Stage, traffic: Traffic, commands: tuple[str, ...]) -> float:
    """Run commands under traffic; return when the last had ended."""
    for command in commands:
        traffic.during(*command.format(server=stage.wire.server, client=stage.wire.client).split())
    return monotonic()


def events(stage: Stage) -> list[str]:
    """Return what echod has logged, but for the counters that the test asks for."""
    return [entry["event"] for entry in stage.daemon.log() if entry["event"] != "counters"]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_service_resumes_when_the_network_does(stage: Stage, traffic: Traffic, fault: Fault) -> None:
    """All is lost while it lasts; within a second there are answers again, and from then on each has one.

    Those whom it spares lose nothing; the workers are the same; nothing is logged.
    """
    workers, logged, before = stage.daemon.workers(), events(stage), totals(stage.daemon)
    traffic.run(LONG_SECONDS)
    soon = monotonic()
    begun = do(stage, traffic, fault.begin) + LATE_SECONDS
    traffic.run(LATE_SECONDS + LONG_SECONDS)
    late = monotonic()
    ended = do(stage, traffic, fault.end)
    hit = [client for client in traffic.clients if client.sock.getpeername()[0] in fault.hosts]
    slipped = [client for client in traffic.clients if client not in hit]
    turns = 0
    while not all(client.collected >= ended for client in hit):
        turns += 1  # and no look at the clock: in a turn echod may have waited for a CPU as long as we
        assert turns * TURN_SECONDS < RESUMED_SECONDS
        traffic.run(TURN_SECONDS)
    resumed = monotonic()
    traffic.run(LONG_SECONDS)
    traffic.settle(lambda: all(at < resumed for client in hit for at in client.lost))
    traffic.settle(lambda: not any(client.lost for client in slipped))
    for client in hit:
        assert not client.lost or client.lost[0] > soon - RESUMED_SECONDS
        assert [at for at in client.lost if begun <= at < late] == [at for at in client.sent_at if begun <= at < late]
    counted = totals(stage.daemon)
    counted.subtract(before)
    lost = sum(len(client.lost) for client in traffic.clients)
    if fault.failure:
        assert counted[fault.failure] == lost > 0
        assert counted["received"] == traffic.sent
    assert counted["kernel_drops"] == 0
    assert counted["replied"] >= traffic.answered
    assert stage.daemon.workers() == workers
    assert events(stage) == logged
