"""echod.net.peers: who is one source."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.peers import peer

from echod.net.peers import NAME_BYTES, address_of, source_at, source_of, sources_in, sources_of

HOSTS = ("10.0.0.1", "10.0.0.2", "192.0.2.1", "255.255.255.255", "0.0.0.0")  # noqa: S104 - sources
HOSTS6 = ("fd00::1", "fd00::2", "fd00:0:0:1::1", "2001:db8::1", "fe80::1", "fe80::2", "::1", "64:ff9b::192.0.2.1")


def link_local(host: str, scope: int) -> bytes:
    """Return a link-local peer, as the kernel names it: with the link that it is on."""
    return peer(host)[:24] + scope.to_bytes(4, "little")


@pytest.mark.parametrize("host", [*HOSTS, *HOSTS6])
def test_the_address_is_told_whole(host: str) -> None:
    """Whatever counts as the source."""
    assert address_of(peer(host, 7)) == ip_address(host).packed


@pytest.mark.parametrize(
    ("one", "other"),
    [("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00::ffff:1"), ("2001:db8::1", "2001:db8::2"), ("fe80::1", "fe80::1")],
)
def test_one_host_is_one_source(one: str, other: str) -> None:
    """Ports do not count, nor the half of an IPv6 address that a host chooses."""
    assert source_of(peer(one, 1)) == source_of(peer(other, 2))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.0.0.1", "10.0.0.2"),
        ("fd00::1", "fd00:0:0:1::1"),
        ("fe80::1", "fe80::2"),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"),
        ("::1", "64:ff9b::1"),
    ],
)
def test_different_hosts_are_different_sources(one: str, other: str) -> None:
    """Also where they have the same /64: on one link, and behind one translator."""
    assert source_of(peer(one)) != source_of(peer(other))


def test_a_link_local_address_is_another_on_another_link() -> None:
    """fe80::1 is the router of many a link."""
    assert source_of(link_local("fe80::1", 2)) == source_of(link_local("fe80::1", 2))
    assert source_of(link_local("fe80::1", 2)) != source_of(link_local("fe80::1", 3))


@given(st.sampled_from([HOSTS, HOSTS6]).flatmap(lambda hosts: st.lists(st.sampled_from(hosts), min_size=1)))
def test_a_batch_is_its_peers(hosts: list[str]) -> None:
    """All at once, from peers or from names, and one by one: the same sources, by a datagram or by a connection."""
    peers = [peer(host, number + 1) for number, host in enumerate(hosts)]
    names = b"".join(each.ljust(NAME_BYTES, b"\0") for each in peers)
    sources = [source_of(each) for each in peers]
    assert sources_of(peers) == sources_in(names, len(peers[0])) == sources
    assert [source_at(ip_address(host).packed, 0) for host in hosts] == sources
