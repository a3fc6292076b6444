"""Datagrams as frames: what goes on the wire, and what was seen there.

Owns the addresses of both ends, and the building and reading of frames, by scapy. Opens no socket. Invariant:
`read(datagram.frame()) == datagram`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from itertools import count
from typing import Any, Final

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

# Private and unique local addresses (RFC 1918, RFC 4193): those that echod answers without being told to.
SERVER, SERVER6 = "10.7.1.1", "fd00:7::1"
CLIENT, CLIENT6 = "10.7.1.2", "fd00:7::2"
SENDER, SENDER6 = "10.7.1.66", "fd00:7::66"
"""In whose name frames are forged. The server knows its station, and nobody there listens."""
SERVER_LINK, CLIENT_LINK = "fe80::1", "fe80::2"
SUBNET_BROADCAST = "10.7.1.255"
SERVER_MAC, CLIENT_MAC = "02:00:00:00:07:01", "02:00:00:00:07:02"  # locally administered

PORT: Final = 7007
"""Where echod listens."""
OTHER_PORT: Final = 7008
"""Where it listens too."""

_UDP_HEADER_BYTES: Final = 8
_UDP_CHECKSUM_OFFSET: Final = 6
_NEEDS_CHECKSUM, _UDP_TRAIN = 1, 5  # linux/virtio_net.h: VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4

_numbers: Final = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A UDP datagram: from SENDER to echod over IPv4, where nothing else is reported."""

    source: str = SENDER
    source_port: int = 40_000
    to: str = SERVER
    to_port: int = PORT
    payload: bytes = b"from a sender"

    @property
    def answer(self) -> "Datagram":
        """Return the only answer that there may be: the same bytes, back the same way."""
        ends = {"source": self.to, "source_port": self.to_port, "to": self.source, "to_port": self.source_port}
        return replace(self, **ends)  # type: ignore[arg-type]

    @property
    def is_ipv6(self) -> bool:
        """Tell its family."""
        return ":" in self.to

    def frame(self) -> bytes:
        """Return the Ethernet frame that carries it to the server, with right lengths and checksums."""
        return _frame(self)


def over_ipv4(**fields: Any) -> Datagram:  # noqa: ANN401 - as the fields of Datagram are
    """Return a datagram from SENDER to echod over IPv4, but for these fields."""
    return Datagram(**fields)


def over_ipv6(**fields: Any) -> Datagram:  # noqa: ANN401 - as the fields of Datagram are
    """Return a datagram from SENDER to echod over IPv6, but for these fields."""
    return Datagram(**({"source": SENDER6, "to": SERVER6} | fields))


def over(source: str, **fields: Any) -> Datagram:  # noqa: ANN401 - as the fields of Datagram are
    """Return a datagram from that source, of its family."""
    return (over_ipv6 if ":" in source else over_ipv4)(source=source, **fields)


def numbered(datagram: Datagram, number: int) -> list[Datagram]:
    """Return so many of a datagram, told apart by their payload, of one length, as no others ever are.

    What is sent again and again echod may take for a loop, and rightly so.
    """
    return [replace(datagram, payload=b"%s %07d" % (datagram.payload, next(_numbers))) for _ in range(number)]


def as_train(datagrams: Sequence[Datagram]) -> tuple[bytes, bytes]:
    """Return the frame of datagrams of one length, between the same ends, and the `virtio_net_hdr` of a train.

    That is how a guest hands one to its host; the UDP checksum is left to the receiver (CHECKSUM_PARTIAL).
    """
    first, payload = datagrams[0], b"".join(datagram.payload for datagram in datagrams)
    packet = _packet(replace(first, payload=payload))
    length = _UDP_HEADER_BYTES + len(payload)
    packet[UDP].chksum = 0
    start = len(packet) - length
    ends = ip_address(first.source).packed + ip_address(first.to).packed
    packet[UDP].chksum = 0xFFFF ^ checksum(ends + struct.pack("!LL", length, 17))  # of the pseudo-header alone
    segment = len(first.payload)
    header = (_NEEDS_CHECKSUM, _UDP_TRAIN, start + _UDP_HEADER_BYTES, segment, start, _UDP_CHECKSUM_OFFSET)
    return bytes(packet), struct.pack("=BBHHHH", *header)


def read(frame: bytes) -> Datagram | None:
    """Return the datagram that a frame carries; None where it carries no UDP. Raises where it carries a part of one."""
    packet = Ether(frame)
    for network in (IP, IPv6):
        if packet.haslayer(network) and packet.haslayer(UDP):
            ends, udp = packet[network], packet[UDP]
            payload = bytes(udp.payload)
            assert len(payload) == udp.len - _UDP_HEADER_BYTES, f"not one whole datagram: {packet.summary()}"
            return Datagram(source=ends.src, source_port=udp.sport, to=ends.dst, to_port=udp.dport, payload=payload)
    return None


@cache
def _frame(datagram: Datagram) -> bytes:
    """Build a frame once: scapy takes its time."""
    return bytes(_packet(datagram))


def _packet(datagram: Datagram) -> Any:  # noqa: ANN401 - scapy's layers have no useful types
    network = IPv6 if datagram.is_ipv6 else IP
    return (
        Ether(src=CLIENT_MAC, dst=_station(datagram.to))
        / network(src=datagram.source, dst=datagram.to)
        / UDP(sport=datagram.source_port, dport=datagram.to_port)
        / Raw(datagram.payload)
    )


def _station(address: str) -> str:
    """Return the Ethernet address of those whom an IP address means (RFC 1112, 6.4; RFC 2464, 7)."""
    if address in ("255.255.255.255", SUBNET_BROADCAST):
        return "ff:ff:ff:ff:ff:ff"
    ip = ip_address(address)
    if not ip.is_multicast:
        return SERVER_MAC
    group = (
        b"\x33\x33" + ip.packed[-4:]
        if ip.version == 6
        else b"\x01\0\x5e" + bytes([ip.packed[1] & 0x7F]) + ip.packed[2:]
    )
    return group.hex(":")
