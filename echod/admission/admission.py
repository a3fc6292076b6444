"""May this datagram be answered?

Owns the rules, their order, and the state that they need: no socket, no clock, no counter. Invariant: a decision is a
value, `None` for yes or the `Drop` that says why not, and never an exception, whatever a peer sends.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from struct import Struct
from typing import Final

from echod.admission.loops import Circulation
from echod.admission.ratelimit import RateLimit
from echod.admission.selftest import SelfTest
from echod.net.networks import AddressMap, Network
from echod.net.peers import (
    ADDRESSES,
    PEER4_BYTES,
    PEER6_BYTES,
    PORTS,
    address_of,
    source_of,
    sources_in,
    sources_of,
)
from echod.stats.outcomes import Drop

_NOWHERE: Final = tuple(map(ip_network, ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "ff00::/8", "::ffff:0:0/96")))
"""No host has these: "this network", multicast, reserved (255.255.255.255 too), and IPv4-mapped IPv6 addresses."""

_LOOPBACK6: Final = IPv6Network("::1/128")
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), _LOOPBACK6)
_COMPATIBLE: Final = IPv6Network("::/96")
"""The deprecated IPv4-compatible IPv6 addresses (RFC 4291, 2.5.5.1); `::` and `::1` are among them."""

_IPV6: Final = 6

_PEER4: Final = Struct(">2xHI")
_PEER6: Final = Struct(">2xH4xQQ4x")
_LOW: Final = 2**64 - 1
"""The low half of an IPv6 address."""

Verdict = Drop | None


class Access:
    """The access lists: deny wins, then allow, else refused. TCP connections have no other rule."""

    def __init__(self, *, allow: Iterable[Network], deny: Iterable[Network]) -> None:
        """Take the networks of both families."""
        self.levels = ((tuple(deny), Drop.ACCESS), (tuple(allow), None))
        self._maps = {version: _compile(self.levels, version) for version in (4, _IPV6)}

    def admits(self, host: str) -> bool:
        """Tell whether the source of a connection may be answered, as accept(2) names it."""
        address = ip_address(host.partition("%")[0])
        return self._maps[address.version].verdict(int(address)) is None


class Rules:
    """The rules that depend on the peer alone: rules 2 to 8, compiled."""

    def __init__(
        self,
        access: Access,
        *,
        own_ports: Iterable[int],
        min_source_port: int = 0,
        refuse_source_ports: Iterable[int] = (),
    ) -> None:
        """Take the access lists, the ports of all UDP listeners of this daemon, and the config's rules on ports."""
        self._access = access
        self._ports: dict[int, Drop] = dict.fromkeys(refuse_source_ports, Drop.SOURCE_PORT_REFUSED)
        self._ports |= dict.fromkeys(range(min_source_port), Drop.SOURCE_PORT_LOW)
        self._ports |= dict.fromkeys(own_ports, Drop.SOURCE_PORT_OWN)
        self._ports[0] = Drop.SOURCE_PORT_ZERO
        self._doubtful_ports = bytes(any(port >> 8 == octet for port in self._ports) for octet in range(256))
        self.set_own_addresses(())

    def set_own_addresses(self, own: Iterable[Network]) -> None:
        """Set this host's own addresses."""
        elsewhere = (
            ((*_NOWHERE, *_LOOPBACK, _COMPATIBLE), Drop.SOURCE_INVALID),
            (tuple(own), Drop.SOURCE_IS_SELF),
            *self._access.levels,
        )
        compatible = _COMPATIBLE.address_exclude(_LOOPBACK6)
        on_loopback = (((*_NOWHERE, *compatible), Drop.SOURCE_INVALID), *self._access.levels)
        self._maps = {
            (length, bool(arrival)): _compile(levels, version)
            for length, version in ((PEER4_BYTES, 4), (PEER6_BYTES, _IPV6))
            for arrival, levels in enumerate((elsewhere, on_loopback))
        }
        self._looks = tuple(
            {
                length: (
                    octets,
                    self._doubtful_ports,
                    _doubtful_octets(self._maps[length, on_loopback], 32 if length == PEER4_BYTES else 128),
                )
                for length, octets in ADDRESSES.items()
            }
            for on_loopback in (False, True)
        )
        """By whether on loopback, and length of a peer: where in names the first octets of addresses are, and two
        tables, with 1 for each octet under which something is refused: for the high octet of a port, and for the first
        octet of an address."""

    def clear_all(self, names: bytes, peer_length: int, on_loopback: bool) -> bool:  # noqa: FBT001 - so it is quicker
        """Tell in two scans whether all these peers are admitted; `names` has one peer in each NAME_BYTES.

        True if nothing is refused under the high octet of any port and the first octet of any address. If False, the
        peers may still be admitted. `peer_length` tells the family.
        """
        octets, doubtful_ports, doubtful_octets = self._looks[on_loopback][peer_length]
        return 1 not in names[PORTS].translate(doubtful_ports) and 1 not in names[octets].translate(doubtful_octets)

    def judge_address(self, peer: bytes, *, on_loopback: bool) -> Verdict:
        """Decide on a peer by its address alone."""
        length = len(peer)
        _, address = _PEER4.unpack(peer) if length == PEER4_BYTES else _read_peer6(peer)
        return self._maps[length, on_loopback].verdict(address)

    def is_own(self, peer: bytes) -> bool:
        """Tell whether the address of a peer is one of this host's own, loopback included."""
        address = ip_address(address_of(peer))
        return address.is_loopback or self.judge_address(peer, on_loopback=False) is Drop.SOURCE_IS_SELF

    def judge(self, peer: bytes, *, on_loopback: bool) -> Verdict:
        """Decide on a peer whose datagram came in on the loopback interface, or on another."""
        return self.judge_each([peer], on_loopback=on_loopback).get(peer)

    def judge_host(self, address: IPv4Address | IPv6Address, port: int, *, on_loopback: bool) -> Verdict:
        """Decide on a peer by its address and port."""
        number = int(address)
        if isinstance(address, IPv4Address):
            return self.judge(_PEER4.pack(port, number), on_loopback=on_loopback)
        return self.judge(_PEER6.pack(port, number >> 64, number & _LOW), on_loopback=on_loopback)

    def judge_each(self, peers: Collection[bytes], *, on_loopback: bool) -> dict[bytes, Drop]:
        """Return which of these peers, at least one and all of one family, are refused.

        One loop without calls to our own functions: in a flood of new sources each datagram passes here.
        """
        length = len(next(iter(peers)))
        read = _PEER4.unpack if length == PEER4_BYTES else _read_peer6
        by_port, by_address = self._ports.get, self._maps[length, on_loopback]
        starts, verdicts = by_address.starts, by_address.verdicts
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


def _compile(levels: Iterable[tuple[Iterable[Network], Verdict]], version: int) -> AddressMap[Verdict]:
    """Compile address rules for one family. An address that no level contains is not allowed."""
    of_family = [([each for each in networks if each.version == version], verdict) for networks, verdict in levels]
    return AddressMap(of_family, Drop.ACCESS)


def _doubtful_octets(compiled: AddressMap[Verdict], bits: int) -> bytes:
    """Return, for each first octet of an address of `bits` bits, 0 if all its addresses are admitted, else 1."""
    starts, step = compiled.starts, 1 << bits - 8
    return bytes(
        bisect_right(starts, first) != bisect_right(starts, first + step - 1) or compiled.verdict(first) is not None
        for first in range(0, 256 * step, step)
    )


class Admission:
    """The rules of one worker, with their state: the peers admitted so far, rates and samples."""

    def __init__(
        self,
        rules: Rules,
        *,
        sources: int,
        limit: RateLimit | None = None,
        circulation: Circulation | None = None,
        self_test: SelfTest | None = None,
    ) -> None:
        """Remember at most `sources` peers.

        Without `circulation` no loop is broken. The port of `self_test` must be one of the own ports of the rules.
        """
        self._rules = rules
        self._self_test = self_test
        self._test_port = self_test.port.to_bytes(2, "big") if self_test is not None else None
        self._sources = sources
        self._limit = limit
        self.clears_all = rules.clear_all
        """Tells from the names of a batch whether the rules admit it as a whole, as they do with most batches."""
        self.limited = limit is not None
        """Whether each datagram has to be charged."""
        self.circulation = circulation
        """The sampling that finds datagrams in a loop."""
        self._known: dict[bool, set[bytes]] = {False: set(), True: set()}

    @property
    def slipped(self) -> int:
        """Datagrams over the limit that were answered, since the start."""
        return self._limit.slipped if self._limit is not None else 0

    def set_own_addresses(self, own: Iterable[Network]) -> None:
        """Set this host's own addresses, and forget earlier decisions."""
        self._rules.set_own_addresses(own)
        for known in self._known.values():
            known.clear()

    def admit_all(self, peers: Sequence[bytes], *, on_loopback: bool, now: float) -> dict[int, Drop]:
        """Decide on a batch of single, whole, unicast datagrams, by their peers.

        Returns the index of each that is not answered, with the reason.
        """
        refused: dict[int, Drop] = {}
        known = self._known[on_loopback]
        unwanted = {} if known.issuperset(peers) else self._meet(set(peers), known, on_loopback=on_loopback)
        if unwanted:
            refused = {index: unwanted[peer] for index, peer in enumerate(peers) if peer in unwanted}
        if self._limit is not None and len(refused) < len(peers):
            refused |= self._find_over(self._limit, peers, refused, now)
        return refused

    def _meet(self, peers: set[bytes], known: set[bytes], *, on_loopback: bool) -> dict[bytes, Drop]:
        """Judge the unknown peers, and remember those that may be answered; return the others."""
        strangers = peers - known
        unwanted = self._rules.judge_each(strangers, on_loopback=on_loopback)
        if len(known) + len(strangers) > self._sources:
            # Forget all at once. The only cost is that returning peers are judged again.
            known.clear()
        known |= strangers.difference(unwanted) if unwanted else strangers
        return unwanted

    def _find_over(
        self, limit: RateLimit, peers: Sequence[bytes], refused: dict[int, Drop], now: float
    ) -> dict[int, Drop]:
        """Charge all slots that are not refused yet; return those that the limit refuses."""
        slots = [slot for slot in range(len(peers)) if slot not in refused] if refused else range(len(peers))
        over = limit.take_each(sources_of([peers[slot] for slot in slots] if refused else peers), now)
        return {slots[index]: Drop.RATE for index in over}

    def charge_all(self, names: bytes, peer_length: int, now: float) -> dict[int, Drop]:
        """Charge a batch of single datagrams that the rules admit; return what `admit_all` does."""
        if self._limit is None:
            return {}
        over = self._limit.take_each(sources_in(names, peer_length), now)
        return dict.fromkeys(over, Drop.RATE)

    # -- slot by slot: trains, and slots that are truncated or not unicast

    def admit(self, peer: bytes, *, on_loopback: bool, unicast: bool, truncated: bool) -> Verdict:
        """Decide on one datagram, or train, by all rules that need no state."""
        if not unicast:
            return Drop.DESTINATION_NOT_UNICAST
        drop = self._rules.judge(peer, on_loopback=on_loopback)
        return Drop.TRUNCATED if drop is None and truncated else drop

    # -- datagrams refused because they came from the port of self tests

    def may_be_test(self, peer: bytes) -> bool:
        """Tell whether a peer has the port of self tests: it must then be judged by the next two methods."""
        return peer[2:4] == self._test_port

    def is_test(self, peer: bytes, datagram: bytes) -> bool:
        """Tell whether a datagram from that port is a self test: from this host, and with the secret."""
        test = self._self_test
        return test is not None and datagram == test.secret and self._rules.is_own(peer)

    def judge_address(self, peer: bytes, *, on_loopback: bool) -> Verdict:
        """Decide on a peer with that port as if it had any other."""
        return self._rules.judge_address(peer, on_loopback=on_loopback)

    # -- rate

    def take(self, peer: bytes, datagrams: int, now: float) -> int:
        """Charge the source for these datagrams; return how many may be answered."""
        if self._limit is None:
            return datagrams
        return self._limit.take(source_of(peer), datagrams, now)
