"""echod.accelerator.changes: of each kind of change the kernel tells, and a neighbour is one only where it moves."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.loopback import ip, ip_batch, namespace, needs_root
from support.waiting import wait_until

from echod.accelerator.changes import Cause, NetworkChanges

pytestmark = needs_root

STATION, OTHER_STATION = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture
def changes() -> Iterator[NetworkChanges]:
    """Be in a network of our own, with an interface and a neighbour; give a watch that has heard what led to it."""
    with namespace():
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        for each in ("near", "far"):
            ip("link", "set", each, "addrgenmode", "none", "up")
        ip("address", "add", "10.0.0.1/24", "dev", "near")
        ip("neighbour", "add", "10.0.0.2", "lladdr", STATION, "dev", "near")
        with closing(NetworkChanges()) as watch:
            wait_until(lambda: not watch.receive() and watch._neighbours, "all was heard that led to it")
            yield watch


def await_causes(changes: NetworkChanges, *causes: Cause) -> None:
    """Wait until all of these were told of."""
    found: set[Cause] = set()

    def told() -> bool:
        found.update(changes.receive())
        return found >= set(causes)

    wait_until(told, f"{causes} were told of")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("link", "set", "near", "mtu", "1400"), Cause.LINK),
        (("address", "add", "10.0.0.3/24", "dev", "near"), Cause.ADDRESS),
        (("-6", "address", "add", "fd00::3/64", "dev", "near", "nodad"), Cause.ADDRESS),
        (("route", "add", "10.1.0.0/16", "via", "10.0.0.2"), Cause.ROUTE),
        (("-6", "route", "add", "blackhole", "fd01::/64"), Cause.ROUTE),
        (("nexthop", "add", "id", "7", "blackhole"), Cause.ROUTE),
        (("rule", "add", "to", "10.9.0.0/16", "lookup", "9"), Cause.RULE),
        (("-6", "rule", "add", "to", "fd09::/64", "lookup", "9"), Cause.RULE),
        (("neighbour", "replace", "10.0.0.2", "lladdr", OTHER_STATION, "dev", "near"), Cause.NEIGHBOUR),
        (("neighbour", "delete", "10.0.0.2", "dev", "near"), Cause.NEIGHBOUR),
        (("xfrm", "policy", "add", "dir", "out", "dst", "10.0.0.2", "action", "block"), Cause.IPSEC),
    ],
    ids=lambda each: each.value if isinstance(each, Cause) else "-".join(each[:3]),
)
def test_a_change_is_told_of(changes: NetworkChanges, words: tuple[str, ...], cause: Cause) -> None:
    """Each group that is subscribed has its change."""
    ip(*words)
    await_causes(changes, cause)


def test_a_change_of_nftables_is_told_of(changes: NetworkChanges) -> None:
    """A rule that is added, whatever it does."""
    subprocess.run(["nft", "add table t; add chain t c; add rule t c drop"], check=True)
    await_causes(changes, Cause.FIREWALL)


def test_a_neighbour_that_is_confirmed_or_new_has_not_moved(changes: NetworkChanges) -> None:
    """No path leads to a new one yet; the link that is changed last shows that all was heard before."""
    ip("neighbour", "replace", "10.0.0.2", "lladdr", STATION, "dev", "near", "nud", "stale")
    ip("neighbour", "add", "10.0.0.3", "lladdr", STATION, "dev", "near")
    ip("link", "set", "near", "mtu", "1400")
    found: set[Cause] = set()
    wait_until(lambda: Cause.LINK in found or found.update(changes.receive()), "the link was told of")
    assert found == {Cause.LINK}
    ip("neighbour", "replace", "10.0.0.3", "lladdr", OTHER_STATION, "dev", "near")
    await_causes(changes, Cause.NEIGHBOUR)


def test_what_was_lost_counts_as_a_change_and_neighbours_are_read_again(changes: NetworkChanges) -> None:
    """More notifications than a socket holds."""
    ip_batch(*(f"route {verb} 10.7.0.0/24 dev near" for _ in range(2000) for verb in ("add", "delete")))
    await_causes(changes, Cause.LOST)
    wait_until(lambda: not changes.receive() and changes._neighbours, "the neighbours were read again")
    ip("neighbour", "replace", "10.0.0.2", "lladdr", OTHER_STATION, "dev", "near")
    await_causes(changes, Cause.NEIGHBOUR)


def test_it_waits_at_a_descriptor_for_each_kind_of_socket(changes: NetworkChanges) -> None:
    """Routing, nftables and IPsec, and never blocks."""
    assert len(changes.descriptors) == 3
    assert not any(os.get_blocking(each) for each in changes.descriptors)
    assert changes.receive() == set()
