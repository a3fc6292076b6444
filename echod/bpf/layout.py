"""Where things lie: in the headers of a datagram, on the stack of the program, and in the keys and values of the maps.

Owns offsets and sizes, those of the kernel (linux/bpf.h; RFC 791, RFC 8200, RFC 768) and our own.
Invariant: what the programs write into a map and what this process reads from it is described here, once.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from struct import Struct
from typing import Final


class LinkKind(Enum):
    """What kind of interface a program is made for."""

    ETHERNET = "ethernet"
    BARE = "bare"
    """Frames without a link header, as of a tunnel device."""
    LOOPBACK = "loopback"
    """`lo`: its frames have an Ethernet header without addresses, and the rules on addresses are others."""

    @property
    def header_bytes(self) -> int:
        """Return the length of the link header."""
        return 0 if self is LinkKind.BARE else 14


class Driver(Enum):
    """Where the program at ingress runs."""

    TCX = "tcx"
    """Where the stack takes a packet from the interface, which may be a train."""
    XDP = "xdp"
    """In the driver of a network card, frame by frame, before there is a packet."""


@dataclass(frozen=True, slots=True)
class Hook:
    """What the programs of an interface are made for."""

    kind: LinkKind
    station: bytes = b""
    """For XDP, which does not say whom a frame is for: the own station of the interface; empty for tcx."""

    @property
    def driver(self) -> Driver:
        """Return where its program at ingress runs."""
        return Driver.XDP if self.station else Driver.TCX

    @property
    def abi(self) -> "Abi":
        """Return what that program is given, and may call and return."""
        return XDP if self.station else TCX


class Context(IntEnum):
    """Fields of `struct __sk_buff`, each of 32 bits."""

    LENGTH = 0
    PACKET_TYPE = 4
    MARK = 8
    PROTOCOL = 16
    VLAN_PRESENT = 20
    PRIORITY = 32
    INGRESS_IFINDEX = 36
    """The interface that a packet came in by; 0 for one that this host sends."""
    IFINDEX = 40
    DATA = 76
    DATA_END = 80
    GSO_SEGMENTS = 164
    GSO_SIZE = 176


class Helper(IntEnum):
    """Functions of the kernel, `enum bpf_func_id`; none is reserved for programs under the GPL."""

    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    TIME = 5
    RANDOM = 7
    CPU = 8
    STORE_BYTES = 9
    REDIRECT = 23
    LOAD_BYTES = 26
    COARSE_TIME = 160
    LOOP = 181
    XDP_LENGTH = 188
    XDP_LOAD_BYTES = 189
    XDP_STORE_BYTES = 190


class Verdict(IntEnum):
    """What a program returns at tcx, `enum tcx_action_base`."""

    NEXT = -1
    DROP = 2
    REDIRECT = 7


class XdpVerdict(IntEnum):
    """What a program returns to a driver, `enum xdp_action`."""

    DROP = 1
    PASS = 2
    SEND = 3
    """Send the frame out by the interface that it came in by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abi:
    """What both drivers have, each in its own way, for a program at ingress."""

    data: int
    data_end: int
    ifindex: int
    """Fields of the context, each of 32 bits."""
    load_bytes: Helper
    store_bytes: Helper
    """With the same arguments; at tcx the second has flags behind them."""
    leave: int
    drop: int
    """Verdicts."""


TCX: Final = Abi(
    data=Context.DATA,
    data_end=Context.DATA_END,
    ifindex=Context.IFINDEX,
    load_bytes=Helper.LOAD_BYTES,
    store_bytes=Helper.STORE_BYTES,
    leave=Verdict.NEXT,
    drop=Verdict.DROP,
)
XDP: Final = Abi(  # struct xdp_md
    data=0,
    data_end=4,
    ifindex=12,
    load_bytes=Helper.XDP_LOAD_BYTES,
    store_bytes=Helper.XDP_STORE_BYTES,
    leave=XdpVerdict.PASS,
    drop=XdpVerdict.DROP,
)


# -- headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """The IP header of one family, without options: offsets from its begin."""

    version: int
    protocol: int
    """`Context.PROTOCOL`: the EtherType in network byte order."""
    size: int
    address_bytes: int
    source: int
    destination: int
    next_header: int
    hops: int
    """The time to live, or hop limit."""


IPV4: Final = Headers(
    version=4, protocol=0x0008, size=20, address_bytes=4, source=12, destination=16, next_header=9, hops=8
)
IPV6: Final = Headers(
    version=6, protocol=0xDD86, size=40, address_bytes=16, source=8, destination=24, next_header=6, hops=7
)

UDP: Final = 17
UDP_BYTES: Final = 8
UDP_LENGTH, UDP_CHECKSUM = 4, 6
"""In the UDP header, whose first four bytes are the ports."""

SHORTEST_FRAME: Final = 60
"""Bytes that Ethernet fills up a shorter frame to (IEEE 802.3, without the check sequence)."""

# -- maps

PATH_KEY: Final = Struct("<16s16s2sHI")
"""Peer and local address (of IPv4 with zeros behind), our port in network byte order, the version of IP, and zero."""

PATH: Final = Struct("<QQI6s6sB7x")
"""When a datagram is next left to the sockets, and after when all are, by CLOCK_MONOTONIC in ns; the interface; the
station of the next hop and our own; and the hop limit of the replies."""
PATH_UNTIL, PATH_IFINDEX, PATH_STATIONS, PATH_HOPS = 8, 16, 20, 32
STATION_BYTES: Final = 12
"""Both stations: as they stand in an Ethernet header, destination first."""

NEWCOMERS_BYTES: Final = 8
"""A slot of the map of newcomers: 16 bits of a hash for each of the last four paths that took it, the last one first.
All slots together are the only value of the map."""

PREFIX: Final = Struct("<IHH16s")
"""The key of a longest prefix match: its length in bits from the version on; the version of IP; a port in network byte
order, or 0; and an address."""
PREFIX_HEAD_BITS: Final = 32
"""Of the length: version and port."""

SOURCE_KEY: Final = Struct("<16sII")
"""A source (`net.peers`): its address, or the begin of it; the version of IP; its interface if it is link-local."""

PEER_KEY: Final = Struct("<16s2sHI")
"""The address of a peer, its port in network byte order, the version of IP, and zero. A sample adds a hash."""
SAMPLE_BYTES: Final = PEER_KEY.size + 8

NUMBER_BYTES: Final = 8
"""Values of the other maps are one number of 64 bits: a `Drop` or 0 (`refuse`), 1 (`local`), when an
account is balanced (`rates`, `total`), how often a peer was sampled (`peers`), any (`samples`), and until when a path
must end to be forgotten (`forgotten`)."""

PORTS: Final = 65_536
BY_PORT: Final = {4: PORTS, 6: 3 * PORTS}
"""In the map of ports: a byte for each source port, a `Drop`, SELF_TEST, or 0; then two bytes for each destination port
over IPv4, and over IPv6: the row of its counters with the bit SPECIFIC, or 0 where no listener has the port."""
PORTS_BYTES: Final = 5 * PORTS
SELF_TEST: Final = 0xFF
SPECIFIC: Final = 0x8000
"""The listener has one address: what is sent to another is not for it."""


class Count(IntEnum):
    """Numbers of 64 bits in a row of the counters: datagrams, unless the name says bytes."""

    REPLIED = 0
    REPLIED_BYTES = 1
    PASSED = 2
    """Left to the sockets."""
    SLIPPED = 3
    """Over a limit, and yet replied to or passed; counted as that as well."""
    DROPPED = 8
    """The first: reason r is at DROPPED + r."""


MOST_DROPS: Final = 16
ROW_COUNTS: Final = 32
ROW_BYTES: Final = 8 * ROW_COUNTS
"""Four cache lines. Each CPU has its own rows."""

MULTIPLIER: Final = 0xD6E8_FEB8_6659_FD93
"""Of the hashes: an odd number that mixes well, that of the `rrmxmx` hashes."""

# -- the stack


class Stack(IntEnum):
    """Where values lie on the stack of the ingress program. Each is aligned to its size."""

    NOW = -8
    CHANCE = -16
    """32 random bits."""
    IP = -64
    """The IP header and the begin of the UDP header; in front of it is the link header."""
    PATH_KEY = -120
    LOCAL = -104
    """The local address in the key of the path."""
    VERSION = -86
    PREFIX = -144
    SOURCE = -168
    ENTRY = -176
    """That of the destination port in the map of ports."""
    PAYLOAD = -184
    """The offset of the payload in the frame."""
    NUMBER = -192
    """The value of a new entry of a map."""
    HOPS = -200
    SAMPLE = -232
    """The key of a peer, and the hash: filled in from PEER_PORT on where a datagram is not sampled."""
    PEER_PORT = -216
    HASH = -208
    LOOP = -264
    """What the callback gets."""


class Loop(IntEnum):
    """What the callback that hashes gets, and leaves: numbers of 64 bits."""

    CONTEXT = 0
    AT = 8
    """The offset of the payload; 0 where it cannot be read."""
    LENGTH = 16
    HASH = 24
