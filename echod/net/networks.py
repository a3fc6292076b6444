"""Addresses and networks as numbers: a value for each address, and networks as bytes.

Owns the map from every address of a family to one value, compiled once so that a lookup is one bisection, however long
the lists are. Invariant: of the levels from which a map was made, the first that contains an address gives its value.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from struct import Struct
from typing import Final, Generic, TypeVar

Network = IPv4Network | IPv6Network
Value = TypeVar("Value")

_PACKED: Final = Struct("BB16s")
"""A network as bytes: the length of its prefix, that of its address in bytes, and the address, filled with zeros."""


def is_address(text: str) -> bool:
    """Tell whether a text is an address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class AddressMap(Generic[Value]):
    """One value for each address of a family. Look it up by number: `map.value(int(address))`."""

    def __init__(self, levels: Sequence[tuple[Iterable[Network], Value]], otherwise: Value) -> None:
        """Compile levels of networks of one family. The first level that contains an address decides."""
        merged = [(_merge(networks), value) for networks, value in levels]
        starts: list[int] = []
        values: list[Value] = []
        for start in sorted({0, *(edge for edges, _ in merged for edge in edges)}):
            value = next((value for edges, value in merged if bisect_right(edges, start) % 2), otherwise)
            if not values or values[-1] != value:
                starts.append(start)
                values.append(value)
        self.starts = starts
        """First addresses of the ranges, ascending. Adjacent ranges have different values."""
        self.values = [values[0], *values]
        """The values, indexed by `bisect_right(starts, address)`, which is never 0."""

    def value(self, address: int) -> Value:
        """Return the value of an address."""
        return self.values[bisect_right(self.starts, address)]


def _merge(networks: Iterable[Network]) -> list[int]:
    """Return the edges of the union: the first address of a range, the first one after it, and so on."""
    edges: list[int] = []
    for first, last in sorted((int(each.network_address), int(each.broadcast_address)) for each in networks):
        if edges and first <= edges[-1]:
            edges[-1] = max(edges[-1], last + 1)
        else:
            edges += (first, last + 1)
    return edges


def pack_networks(networks: Iterable[Network]) -> bytes:
    """Write networks as bytes, 18 for each."""
    return b"".join(
        _PACKED.pack(each.prefixlen, each.max_prefixlen // 8, each.network_address.packed) for each in networks
    )


def unpack_networks(packed: bytes) -> tuple[Network, ...]:
    """Read what `pack_networks` wrote."""
    return tuple(ip_network((address[:size], length)) for length, size, address in _PACKED.iter_unpack(packed))
