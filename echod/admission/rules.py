"""The rules on the source of a datagram: declared as a value, and compiled for quick decisions here.

Owns which sources are refused, and for which reason. `RuleSet` has all that a compiler needs; `Rules` and `Access` are
compiled from it alone. Invariant: a refused port gives the reason
before an address does, and of the levels of addresses the first that contains the address.
"""

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from struct import Struct
from typing import Final, TypeAlias

from echod.net.networks import AddressMap, Network
from echod.net.peers import ADDRESSES, PEER4_BYTES, PEER6_BYTES, PORTS, address_of
from echod.stats.outcomes import Drop

Verdict: TypeAlias = Drop | None
"""Why a source is refused; None if it is admitted."""

Levels: TypeAlias = tuple[tuple[tuple[Network, ...], Verdict], ...]
"""Networks of both families with their verdict. The first level that contains an address decides. An address that no
level contains is refused as ACCESS."""

_UNUSABLE: Final = tuple(map(ip_network, ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "ff00::/8", "::ffff:0:0/96")))
"""No host has these: "this network", multicast, reserved (255.255.255.255 too), and IPv4-mapped IPv6 addresses."""

_COMPATIBLE: Final = IPv6Network("::/96")
"""The deprecated IPv4-compatible IPv6 addresses (RFC 4291, 2.5.5.1); `::` and `::1` are among them."""

_INVALID_ON_LOOPBACK: Final = (*_UNUSABLE, *_COMPATIBLE.address_exclude(IPv6Network("::1/128")))
_INVALID_ELSEWHERE: Final = (*_UNUSABLE, _COMPATIBLE, ip_network("127.0.0.0/8"))

_PEER4: Final = Struct(">2xHI")
_PEER6: Final = Struct(">2xH4xQQ4x")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """The rules as declared. `ports` are checked first, then the `levels` of addresses."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    """The access lists: deny wins, then allow, else refused."""
    own_ports: frozenset[int] = frozenset()
    """The ports of all UDP listeners of this daemon, and of its self tests."""
    min_source_port: int = 0
    refuse_source_ports: frozenset[int] = frozenset()
    own_addresses: tuple[Network, ...] = ()
    """This host's own addresses."""

    @property
    def ports(self) -> dict[int, Drop]:
        """Return each source port that is refused, with the reason."""
        ports = dict.fromkeys(self.refuse_source_ports, Drop.SOURCE_PORT_REFUSED)
        ports |= dict.fromkeys(range(self.min_source_port), Drop.SOURCE_PORT_LOW)
        ports |= dict.fromkeys(self.own_ports, Drop.SOURCE_PORT_OWN)
        return ports | {0: Drop.SOURCE_PORT_ZERO}

    @property
    def access(self) -> Levels:
        """Return the levels of the access lists, the only rules on TCP connections."""
        return ((self.deny, Drop.ACCESS), (self.allow, None))

    def levels(self, *, on_loopback: bool) -> Levels:
        """Return the levels for datagrams that came in on the loopback interface, or on any other."""
        if on_loopback:
            return ((_INVALID_ON_LOOPBACK, Drop.SOURCE_INVALID), *self.access)
        own = (self.own_addresses, Drop.SOURCE_IS_SELF)
        return ((_INVALID_ELSEWHERE, Drop.SOURCE_INVALID), own, *self.access)


class Access:
    """The access lists, compiled."""

    def __init__(self, declared: RuleSet) -> None:
        """Compile the access lists of both families."""
        self._maps = {version: _compile(declared.access, version) for version in (4, 6)}

    def admits(self, host: str) -> bool:
        """Tell whether the source of a connection may be answered, as accept(2) names it."""
        address = ip_address(host.partition("%")[0])
        return self._maps[address.version].value(int(address)) is None


class Rules:
    """The rules on the peers of datagrams, compiled."""

    def __init__(self, declared: RuleSet) -> None:
        """Compile."""
        self.declared = declared
        self._ports = declared.ports
        self._maps = {
            (length, on_loopback): _compile(declared.levels(on_loopback=on_loopback), version)
            for length, version in ((PEER4_BYTES, 4), (PEER6_BYTES, 6))
            for on_loopback in (False, True)
        }
        undecided_ports = bytes(any(port >> 8 == octet for port in self._ports) for octet in range(256))
        self._scans = tuple(
            {
                length: (octets, undecided_ports, _undecided_octets(self._maps[length, on_loopback], length))
                for length, octets in ADDRESSES.items()
            }
            for on_loopback in (False, True)
        )
        """By whether on loopback, and length of a peer: where in names the first octets of addresses are, and two
        tables, with 1 for each octet under which something is refused: for the high octet of a port, and for the first
        octet of an address."""

    def clears_all(self, names: bytes, peer_length: int, on_loopback: bool) -> bool:  # noqa: FBT001 - so it is quicker
        """Tell in two scans whether all these peers are admitted; `names` has one peer in each NAME_BYTES.

        True if nothing is refused under the high octet of any port and the first octet of any address. False if that
        is undecided: the peers may still be admitted. `peer_length` tells the family.
        """
        octets, undecided_ports, undecided_octets = self._scans[on_loopback][peer_length]
        return 1 not in names[PORTS].translate(undecided_ports) and 1 not in names[octets].translate(undecided_octets)

    def judge_address(self, peer: bytes, *, on_loopback: bool) -> Verdict:
        """Decide on a peer by its address alone."""
        length = len(peer)
        _, address = _PEER4.unpack(peer) if length == PEER4_BYTES else _read_peer6(peer)
        return self._maps[length, on_loopback].value(address)

    def is_own(self, peer: bytes) -> bool:
        """Tell whether the address of a peer is one of this host's own, loopback included."""
        address = ip_address(address_of(peer))
        return address.is_loopback or self.judge_address(peer, on_loopback=False) is Drop.SOURCE_IS_SELF

    def judge(self, peer: bytes, *, on_loopback: bool) -> Verdict:
        """Decide on a peer whose datagram came in on the loopback interface, or on another."""
        return self.judge_each([peer], on_loopback=on_loopback).get(peer)

    def judge_host(self, address: IPv4Address | IPv6Address, port: int, *, on_loopback: bool) -> Verdict:
        """Decide on a peer by its address and port."""
        start = bytes(2) + port.to_bytes(2, "big")
        rest = address.packed if isinstance(address, IPv4Address) else bytes(4) + address.packed + bytes(4)
        return self.judge(start + rest, on_loopback=on_loopback)

    def judge_each(self, peers: Collection[bytes], *, on_loopback: bool) -> dict[bytes, Drop]:
        """Return which of these peers, at least one and all of one family, are refused.

        One loop without calls to our own functions: in a flood of new sources each datagram passes here.
        """
        length = len(next(iter(peers)))
        read = _PEER4.unpack if length == PEER4_BYTES else _read_peer6
        by_port, by_address = self._ports.get, self._maps[length, on_loopback]
        starts, verdicts = by_address.starts, by_address.values
        refused = {}
        for peer in peers:
            port, address = read(peer)
            drop = by_port(port) or verdicts[bisect_right(starts, address)]
            if drop:
                refused[peer] = drop
        return refused


def _read_peer6(peer: bytes) -> tuple[int, int]:
    """Return port and address."""
    port, high, low = _PEER6.unpack(peer)
    return port, high << 64 | low


def _compile(levels: Levels, version: int) -> AddressMap[Verdict]:
    """Compile levels for one family."""
    of_family = [([each for each in networks if each.version == version], verdict) for networks, verdict in levels]
    return AddressMap(of_family, Drop.ACCESS)


def _undecided_octets(compiled: AddressMap[Verdict], peer_length: int) -> bytes:
    """Return, for each first octet of an address, 0 if all its addresses are admitted, else 1."""
    bits = 32 if peer_length == PEER4_BYTES else 128
    starts, step = compiled.starts, 1 << bits - 8
    return bytes(
        bisect_right(starts, first) != bisect_right(starts, first + step - 1) or compiled.value(first) is not None
        for first in range(0, 256 * step, step)
    )
