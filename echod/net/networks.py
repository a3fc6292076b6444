"""Addresses and networks as numbers: the verdict of an address, and networks as bytes.

Owns the map from every address of a family to one verdict, compiled once so that a lookup is one bisection, however
long the lists are. `Rules` decides what a verdict means. Invariant: of the levels from which a map was made, the first
that contains an address gives its verdict.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Generic, TypeVar

Network = IPv4Network | IPv6Network
Verdict = TypeVar("Verdict")

IPV4_BYTES: Final = 4
IPV6_BYTES: Final = 16


class AddressMap(Generic[Verdict]):
    """One verdict for each address of a family. Look it up by number: `map.verdict(int(address))`."""

    def __init__(self, levels: Sequence[tuple[Iterable[Network], Verdict]], otherwise: Verdict) -> None:
        """Compile levels of networks of one family. The first level that contains an address decides."""
        merged = [(_merge(networks), verdict) for networks, verdict in levels]
        starts: list[int] = []
        verdicts: list[Verdict] = []
        for start in sorted({0, *(edge for edges, _ in merged for edge in edges)}):
            verdict = next((verdict for edges, verdict in merged if bisect_right(edges, start) % 2), otherwise)
            if not verdicts or verdicts[-1] != verdict:
                starts.append(start)
                verdicts.append(verdict)
        self.starts = starts
        """First addresses of the ranges, ascending. Adjacent ranges have different verdicts."""
        self.verdicts = [verdicts[0], *verdicts]
        """The verdicts, indexed by `bisect_right(starts, address)`, which is never 0."""

    def verdict(self, address: int) -> Verdict:
        """Return the verdict of an address."""
        return self.verdicts[bisect_right(self.starts, address)]


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
    """Write networks as bytes: for each the prefix length in one byte, then the address.

    A prefix length of IPv4 is at most 32; that of IPv6, 0 to 128, is written as 33 to 161.
    """
    return b"".join(
        bytes([each.prefixlen + (33 if each.version == 6 else 0)]) + each.network_address.packed  # noqa: PLR2004
        for each in networks
    )


def unpack_networks(packed: bytes) -> tuple[Network, ...]:
    """Read what `pack_networks` wrote."""
    networks: list[Network] = []
    at = 0
    while at < len(packed):
        length, at = packed[at], at + 1
        if length <= 8 * IPV4_BYTES:
            networks.append(IPv4Network((packed[at : at + IPV4_BYTES], length)))
            at += IPV4_BYTES
        else:
            networks.append(IPv6Network((packed[at : at + IPV6_BYTES], length - 33)))
            at += IPV6_BYTES
    return tuple(networks)
