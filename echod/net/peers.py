"""The sender of a datagram, as it lies in a `sockaddr`, and what counts as one source.

A *peer* is an address and port; a *source* is the range of addresses that one host can send from. Both are bytes, so
every table is keyed by Python's keyed hash, and nobody can aim at a bucket. In IPv4 a source is an address; in IPv6 a
/64, all of which one host may use (RFC 7721, RFC 8981). But in fe80::/10 all hosts of a link share a /64, and in ::/8
those behind a translator (64:ff9b::/96, RFC 6052) do: there a source is an address with its scope id.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

NAME_BYTES: Final = 32
"""The distance from one name in a batch to the next: a `sockaddr_in6` has 28 bytes, a `sockaddr_in` 16."""

PEER4_BYTES: Final = 8
PEER6_BYTES: Final = 28
"""The bytes of a `sockaddr` that identify the peer: in IPv4 without the trailing zeros."""

PORTS: Final = slice(2, None, NAME_BYTES)
ADDRESSES: Final = {PEER4_BYTES: slice(4, None, NAME_BYTES), PEER6_BYTES: slice(8, None, NAME_BYTES)}
"""The first octets of the ports, and of the addresses by the length of a peer, in the names of a batch."""

_SOURCE: Final = {PEER4_BYTES: Struct("4x4s24x"), PEER6_BYTES: Struct("8x8s16x")}
"""The usual source within a name."""

_NO_HOSTS: Final = frozenset({0x00, 0xFE})
"""First octets of IPv6 addresses whose /64 is shared by several hosts."""

_IPV4_BYTES: Final = 4
_PREFIX_BYTES: Final = 8


def address_of(peer: bytes) -> bytes:
    """Return the address of a peer, of 4 or 16 bytes."""
    return peer[4:8] if len(peer) == PEER4_BYTES else peer[8:24]


def source_of(peer: bytes) -> bytes:
    """Return the source of a peer: 4 bytes in IPv4; in IPv6 the 8 bytes of a /64, or 20, an address and its scope."""
    if len(peer) == PEER4_BYTES:
        return peer[4:8]
    return peer[8:28] if peer[8] in _NO_HOSTS else peer[8:16]


def sources_of(peers: Sequence[bytes]) -> list[bytes]:
    """Return the source of each of these peers, at least one, of one family."""
    if len(peers[0]) == PEER4_BYTES:
        return [peer[4:8] for peer in peers]
    return [peer[8:28] if peer[8] in _NO_HOSTS else peer[8:16] for peer in peers]


def sources_in(names: bytes, peer_length: int) -> list[bytes]:
    """Return the source of each name of a batch, one in each NAME_BYTES; `peer_length` tells the family."""
    if peer_length == PEER6_BYTES and not _NO_HOSTS.isdisjoint(names[ADDRESSES[PEER6_BYTES]]):
        return [source_of(names[at : at + PEER6_BYTES]) for at in range(0, len(names), NAME_BYTES)]
    return [source for (source,) in _SOURCE[peer_length].iter_unpack(names)]


def source_at(address: bytes, scope: int) -> bytes:
    """Return the source of an address of 4 or 16 bytes, in IPv6 with its scope id (RFC 4007)."""
    if len(address) == _IPV4_BYTES:
        return address
    return address + scope.to_bytes(4, "little") if address[0] in _NO_HOSTS else address[:_PREFIX_BYTES]
