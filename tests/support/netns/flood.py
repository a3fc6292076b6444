"""A flood of IPv4 datagrams whose sources are what we say, as fast as a socket sends them.

Owns a raw socket in the clients' namespace and a vector of packets, filled anew for each `sendmmsg`. The kernel fills
in the checksum of the IP header (raw(7)); of UDP there is none. Invariant: what `send` was given has left.
"""

import ctypes
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from support.netns.datagrams import SERVER
from support.netns.wire import Wire
from support.system.network import entered

PACKETS: Final = 1024
"""In one call: the most that the kernel takes (UIO_MAXIOV)."""

_HEADER_BYTES, _IOVEC_BYTES, _PACKET_BYTES = 64, 16, 64  # struct mmsghdr, struct iovec, and room for a packet
_LENGTH: Final = 44
"""Of a packet: 20 of IP, 8 of UDP, 16 of payload."""
_SOURCE_WORD, _SOURCE_PORT_HALF, _PORT_HALF = 3, 10, 11

_libc = ctypes.CDLL(None, use_errno=True)


class Flood:
    """The raw socket and its packets."""

    def __init__(self, wire: Wire) -> None:
        """Prepare the packets; nothing is sent yet."""
        with entered(wire.client):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._packets = bytearray(_packet() * PACKETS)
        self._name = ctypes.create_string_buffer(struct.pack("=H2x4s8x", socket.AF_INET, IPv4Address(SERVER).packed))
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._packets))
        vectors = b"".join(struct.pack("=QQ", first + n * _PACKET_BYTES, _LENGTH) for n in range(PACKETS))
        self._vectors = ctypes.create_string_buffer(vectors)
        name, vector = ctypes.addressof(self._name), ctypes.addressof(self._vectors)
        headers = (struct.pack("=QLxxxxQQ32x", name, 16, vector + n * _IOVEC_BYTES, 1) for n in range(PACKETS))
        self._headers = ctypes.create_string_buffer(b"".join(headers))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def send(self, sources: Sequence[int], source_port: int, to_port: int) -> None:
        """Send a datagram from each of these addresses."""
        with memoryview(self._packets) as octets, octets.cast("I") as words, octets.cast("H") as halves:
            halves[_SOURCE_PORT_HALF :: _PACKET_BYTES // 2] = array("H", [socket.htons(source_port)] * PACKETS)
            halves[_PORT_HALF :: _PACKET_BYTES // 2] = array("H", [socket.htons(to_port)] * PACKETS)
            for start in range(0, len(sources), PACKETS):
                some = array("I", sources[start : start + PACKETS])
                some.byteswap()
                words[_SOURCE_WORD : len(some) * _PACKET_BYTES // 4 : _PACKET_BYTES // 4] = some
                self._send(len(some))

    def _send(self, count: int) -> None:
        sent = 0
        while sent < count:
            headers = ctypes.byref(self._headers, sent * _HEADER_BYTES)
            more = _libc.sendmmsg(self._sock.fileno(), headers, count - sent, 0)
            if more < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += more


def _packet() -> bytes:
    """Return a packet whose addresses and ports are still to be filled in, with what it is padded by."""
    ip = struct.pack("!BBHHHBBH4x4s", 0x45, 0, _LENGTH, 0, 0, 64, socket.IPPROTO_UDP, 0, IPv4Address(SERVER).packed)
    udp = struct.pack("!HHHH", 0, 0, _LENGTH - len(ip), 0)
    return (ip + udp).ljust(_PACKET_BYTES, b".")
