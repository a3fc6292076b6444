"""The maps: their shapes, what is in them for a declared config, and what the counters in them say.

The second compilation of a `RuleSet`, beside `admission.rules.Rules`. Invariant: a source that the map of refused
prefixes refuses is refused by `Rules` for the same reason, on every interface but `lo`, and the other way round.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_network
from struct import Struct
from typing import Final, TypeAlias

from echod.admission.rules import RuleSet
from echod.bpf import layout
from echod.bpf.layout import BY_PORT, PREFIX, PREFIX_HEAD_BITS, SELF_TEST, SPECIFIC, Count
from echod.bpf.options import FEWEST_ROWS, Limits, power_of_two
from echod.net.listener import Listener
from echod.net.networks import Network
from echod.stats.outcomes import Drop

Entry: TypeAlias = tuple[bytes, bytes]
"""Key and value."""

Account: TypeAlias = tuple[int, int]
"""A version of IP and a port: what is counted separately. All listeners of one family and port share it."""

_ANY: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_NUMBER: Final = Struct("<Q")
_PORT_ENTRY: Final = Struct("<H")
_SOURCES_A_LOOP: Final = 16
_FEWEST_PEERS: Final = 4096
"""Each CPU takes free entries of such a map by 128: with fewer, they would forget each other's too soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What the kernel is to repeat: the part of a config that the maps and programs are made from."""

    rules: RuleSet
    """With the own addresses of this host."""
    listeners: tuple[Listener, ...]
    """The UDP listeners whose replies are repeated."""
    sources: int
    """Most sources, peers and paths remembered, each."""
    fresh_seconds: float
    """So long after a reply of the sockets all of its path are left to the kernel, and then ten a second are not."""
    stale_seconds: float
    """So long after the last reply of the sockets its path ends."""
    limits: Limits | None = None
    loop_breaker: bool = True
    self_test_port: int | None = None
    """The source port of the self tests of the daemon, which the sockets answer."""

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Return the families and ports of the listeners."""
        return tuple(sorted({(each.address.version, each.port) for each in self.listeners}))

    @property
    def rows(self) -> int:
        """Return the rows of counters of each CPU: that of an account is one more than its index."""
        return power_of_two(1 + len(self.accounts), least=FEWEST_ROWS)

    @property
    def bounded(self) -> Limits | None:
        """Return the limits; None if nothing is limited."""
        limits = self.limits
        return None if limits is None or limits.per_source is limits.total is None else limits


# -- shapes


class Kind(IntEnum):
    """`enum bpf_map_type`."""

    ARRAY = 2
    LRU_HASH = 9
    PREFIXES = 11


_NO_PREALLOC, _MMAPABLE = 1 << 0, 1 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a map is made with (bpf(2))."""

    kind: Kind
    key_bytes: int
    value_bytes: int = layout.NUMBER_BYTES
    entries: int = 1
    flags: int = 0


def shapes(declared: Declaration, *, cpus: int, refused: int, local: int) -> dict[str, Shape]:
    """Return the shape of each map of `Tables`, for so many refused and local prefixes, and rows for so many CPUs."""
    sources = max(declared.sources, _FEWEST_PEERS)
    peers = max(declared.sources // _SOURCES_A_LOOP, _FEWEST_PEERS)
    counts = cpus * declared.rows * layout.ROW_BYTES
    limited, sampled = declared.bounded is not None, declared.loop_breaker
    return {
        "ports": _array(layout.PORTS_BYTES),
        "local": _prefixes(local),
        "refuse": _prefixes(refused),
        "paths": _recent(sources, layout.PATH_KEY.size, layout.PATH.size),
        "newcomers": _array(newcomers(declared) * layout.NEWCOMERS_BYTES),
        "forgotten": _array(layout.NUMBER_BYTES),
        "rates": _recent(sources if limited else 1, layout.SOURCE_KEY.size),
        "total": _array(layout.NUMBER_BYTES),
        "peers": _recent(peers if sampled else 1, layout.PEER_KEY.size),
        "samples": _recent(sources if sampled else 1, layout.SAMPLE_BYTES),
        "counts": _array(counts, _MMAPABLE),
    }


def newcomers(declared: Declaration) -> int:
    """Return how many slots for newcomers there are; four share one."""
    return power_of_two(declared.sources, least=_FEWEST_PEERS) // 4


def _array(value_bytes: int, flags: int = 0) -> Shape:
    return Shape(kind=Kind.ARRAY, key_bytes=4, value_bytes=value_bytes, flags=flags)


def _prefixes(entries: int) -> Shape:
    return Shape(kind=Kind.PREFIXES, key_bytes=PREFIX.size, entries=max(1, entries), flags=_NO_PREALLOC)


def _recent(entries: int, key_bytes: int, value_bytes: int = layout.NUMBER_BYTES) -> Shape:
    return Shape(kind=Kind.LRU_HASH, key_bytes=key_bytes, value_bytes=value_bytes, entries=entries)


# -- contents


def pack_number(number: int) -> bytes:
    """Return a number as a value."""
    return _NUMBER.pack(number)


def pack_ports(declared: Declaration) -> bytes:
    """Return the only value of the map of ports."""
    packed = bytearray(layout.PORTS_BYTES)
    for port, drop in declared.rules.ports.items():
        packed[port] = drop
    if declared.self_test_port is not None:
        packed[declared.self_test_port] = SELF_TEST
    general = {_account(each) for each in declared.listeners if _is_general(each)}
    for row, (version, port) in enumerate(declared.accounts, 1):
        entry = row if (version, port) in general else row | SPECIFIC
        _PORT_ENTRY.pack_into(packed, BY_PORT[version] + 2 * port, entry)
    return bytes(packed)


def local_entries(declared: Declaration) -> list[Entry]:
    """Return where datagrams to a listener go, each with the value 1.

    For a listener on all addresses that is each own address of this host. One on a single address has that. One that
    is bound to an interface has none, and is left to the sockets: the same port of another interface may be another's.
    """
    keys: set[bytes] = set()
    for listener in declared.listeners:
        version, port = _account(listener)
        if _is_general(listener):
            networks = (*declared.rules.own_addresses, *_LOOPBACK)
            keys |= {_prefix(network) for network in networks if network.version == version}
        elif not listener.zone:
            keys.add(_prefix(ip_network(listener.address), port))
    return [(key, pack_number(1)) for key in sorted(keys)]


def _account(listener: Listener) -> Account:
    return listener.address.version, listener.port


def _is_general(listener: Listener) -> bool:
    """Tell whether a listener has its port on all addresses of this host."""
    return listener.address.is_unspecified and not listener.zone


def refused_entries(rules: RuleSet) -> list[Entry]:
    """Return each prefix that the rules name, with the verdict of the first level that contains it; 0: admitted.

    Prefixes nest or are disjoint. So the longest that contains an address is in the same levels as the address.
    """
    levels = rules.levels(on_loopback=False)
    verdicts = [int(verdict or 0) for _, verdict in levels] + [int(Drop.ACCESS)]
    entries = []
    for everything in _ANY:
        listed = {(0, 0): len(levels)}
        for level, (networks, _) in enumerate(levels):
            for each in networks:
                if each.version == everything.version:
                    place = (int(each.network_address), each.prefixlen)
                    listed[place] = min(level, listed.get(place, level))
        bits = everything.max_prefixlen
        around: list[tuple[int, int]] = []
        """The last address and the level of each prefix around the next, the longest last."""
        for (first, length), own in sorted(listed.items()):
            while around and around[-1][0] < first:
                around.pop()
            level = min(own, around[-1][1]) if around else own
            around.append((first | (1 << bits - length) - 1, level))
            entries.append((_pack_prefix(everything.version, first, length), pack_number(verdicts[level])))
    return entries


def _prefix(network: Network, port: int = 0) -> bytes:
    return _pack_prefix(network.version, int(network.network_address), network.prefixlen, port)


def _pack_prefix(version: int, first: int, length: int, port: int = 0) -> bytes:
    address = first.to_bytes(4 if version == 4 else 16, "big")  # noqa: PLR2004
    in_network_order = int.from_bytes(port.to_bytes(2, "big"), "little")
    return PREFIX.pack(PREFIX_HEAD_BITS + length, version, in_network_order, address)


# -- counters


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTraffic:
    """What became of the datagrams of one account before the sockets. Datagrams, unless the name says bytes."""

    replied: int = 0
    replied_bytes: int = 0
    passed: int = 0
    """Left to the sockets, which count them as received."""
    slipped: int = 0
    """Over a limit but let through; their outcome is counted as well."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By the name of the `Drop`, in lower case; without zeros."""


Rows: TypeAlias = Mapping[Account, Sequence[int]]
"""The numbers of each account, indexed by Count."""


def add_rows(page: bytes, accounts: Sequence[Account], rows: int) -> Rows:
    """Add up the counters of all CPUs, which have so many rows each."""
    numbers = memoryview(page).cast("Q")
    stride, row = rows * layout.ROW_COUNTS, layout.ROW_COUNTS
    return {
        account: [sum(numbers[at + index :: stride]) for index in range(row)]
        for account, at in zip(accounts, range(row, stride, row), strict=False)
    }


def join_rows(all_rows: Iterable[Rows]) -> Rows:
    """Add up the counters of several pages."""
    joined: dict[Account, list[int]] = defaultdict(lambda: [0] * layout.ROW_COUNTS)
    for rows in all_rows:
        for account, numbers in rows.items():
            joined[account] = [a + b for a, b in zip(joined[account], numbers, strict=True)]
    return dict(joined)


def describe(row: Sequence[int]) -> KernelTraffic:
    """Name the numbers of a row."""
    drops = {drop.name.lower(): row[Count.DROPPED + drop] for drop in Drop}
    return KernelTraffic(
        replied=row[Count.REPLIED],
        replied_bytes=row[Count.REPLIED_BYTES],
        passed=row[Count.PASSED],
        slipped=row[Count.SLIPPED],
        dropped={name: number for name, number in drops.items() if number},
    )
