"""echod.net.networks: one value for each address, the first match's, and networks as bytes."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.net.networks import AddressMap, Network, is_address, pack_networks, unpack_networks


@pytest.mark.parametrize(("text", "expected"), [("192.0.2.1", True), ("fe80::1%eth0", True), ("h", False), ("", False)])
def test_an_address_is_told_from_a_name(text: str, expected: bool) -> None:  # noqa: FBT001
    """Of either family, with or without a zone; everything else may be the name of a host or an interface."""
    assert is_address(text) == expected


Levels = list[tuple[list[Network], str]]


def network(address: int, length: int, version: int) -> Network:
    """Make the network of that prefix length that an address lies in."""
    if version == 4:
        return IPv4Network((address, length), strict=False)
    return IPv6Network((address, length), strict=False)


def networks(last: int, bits: int, version: int) -> st.SearchStrategy[Network]:
    """Make networks near one another and at both ends, so that they overlap more often than by chance."""
    near = st.one_of(st.integers(0, 600), st.integers(last - 600, last))
    return st.builds(network, near, st.integers(0, bits), st.just(version))


def naive(levels: Levels, address: IPv4Address | IPv6Address) -> str:
    """Say the value of the first level that holds an address, network by network."""
    return next((value for networks, value in levels if any(address in each for each in networks)), "none")


def edges(levels: Levels, last: int) -> set[int]:
    """Return each address at which a network begins or ends, those beside it, and both ends of the family."""
    ends = [int(end) for networks, _ in levels for each in networks for end in (each[0], each[-1])]
    return {0, last} | {near for end in ends for near in (end - 1, end, end + 1) if 0 <= near <= last}


@pytest.mark.parametrize(("bits", "address_of"), [(32, IPv4Address), (128, IPv6Address)])
@given(data=st.data())
def test_the_first_level_that_holds_an_address_decides(
    bits: int, address_of: type[IPv4Address] | type[IPv6Address], data: st.DataObject
) -> None:
    """At each edge of each network, and elsewhere, the map says what a look at every network says."""
    last = 2**bits - 1
    some = st.lists(networks(last, bits, address_of(0).version), max_size=6)
    levels: Levels = data.draw(st.lists(st.tuples(some, st.sampled_from("abc")), max_size=4))
    compiled = AddressMap(levels, "none")
    for address in edges(levels, last) | set(data.draw(st.lists(st.integers(0, last), max_size=5))):
        assert compiled.value(address) == naive(levels, address_of(address))


def test_thousands_of_networks_are_one_bisection() -> None:
    """Networks that touch, and neighbours of one value, are compiled into one: a long list costs no longer look."""
    touching: Sequence[Network] = [IPv4Network((number << 8, 24)) for number in range(4096)]
    compiled = AddressMap([(touching[::2], "yes"), (touching[1::2], "yes")], "no")
    assert len(compiled.starts) == 2
    assert [compiled.value(address) for address in (0, (4096 << 8) - 1, 4096 << 8)] == ["yes", "yes", "no"]


def test_every_prefix_length_of_both_families_survives_as_bytes() -> None:
    """From the whole family to a single address, in order, no length is taken for one of the other family."""
    four = [network(int(IPv4Address("192.0.2.1")), length, 4) for length in range(33)]
    six = [network(int(IPv6Address("2001:db8::1")), length, 6) for length in range(129)]
    networks = [*six[:40], *four, *six[40:]]
    packed = pack_networks(networks)
    assert len(packed) == (33 + 129) * 18
    assert unpack_networks(packed) == tuple(networks)
