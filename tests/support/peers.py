"""Peers as they lie in a `sockaddr`, and the rules and limits that are held against them."""

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network

from echod.admission.admission import Admission
from echod.admission.ratelimit import RateLimit
from echod.admission.rules import Rules, RuleSet
from echod.net.peers import NAME_BYTES
from echod.stats.outcomes import Drop

OWN_PORTS = frozenset({7, 7007})
CLIENT = 40_000


def peer(host: str, port: int = CLIENT) -> bytes:
    """Write an address and port as they lie in a `sockaddr_in` or `sockaddr_in6`."""
    address = ip_address(host)
    if address.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s", port, address.packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI16s", port, 0, address.packed) + bytes(4)


def names(batch: list[bytes]) -> bytes:
    """Lay out peers of one family as their names lie in a batch."""
    return b"".join(each.ljust(NAME_BYTES, b"\0") for each in batch)


def access(allow: Iterable[str] = ("0.0.0.0/0", "::/0"), deny: Iterable[str] = ()) -> RuleSet:
    """Declare access lists."""
    return RuleSet(allow=tuple(map(ip_network, allow)), deny=tuple(map(ip_network, deny)))


def rules(lists: RuleSet | None = None, own: Iterable[str] = ()) -> Rules:
    """Make the rules as the default config has them, but with access for all unless lists are given."""
    declared = replace(
        access() if lists is None else lists,
        own_ports=OWN_PORTS,
        min_source_port=1024,
        refuse_source_ports=frozenset({1900, 11_211}),
        own_addresses=tuple(map(ip_network, own)),
    )
    return Rules(declared)


def limit(
    burst: int,
    total: int | None = None,
    *,
    per_source: int = 1,
    slip: Callable[[], bool] | None = None,
    dry_run: bool = False,
) -> RateLimit:
    """Make a limit, by default of one datagram a second."""
    memory = memoryview(bytearray(RateLimit.size(1024)))
    return RateLimit(memory, sources=1024, per_source=per_source, burst=burst, total=total, slip=slip, dry_run=dry_run)


def admission(
    compiled: Rules | None = None, *, sources: int = 1024, burst: int = 0, total: int | None = None
) -> Admission:
    """Make an admission with a limit where a burst is given."""
    return Admission(
        rules() if compiled is None else compiled,
        sources=sources,
        limit=limit(burst, total) if burst else None,
    )


def admit_all(by: Admission, peers: list[bytes], now: float = 100.0, *, on_loopback: bool = False) -> dict[int, Drop]:
    """Decide on a batch; by default it did not come in on loopback."""
    return by.admit_all(peers, on_loopback=on_loopback, now=now)
