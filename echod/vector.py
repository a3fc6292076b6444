"""The memory that `recvmmsg` and `sendmmsg` work on, and the two calls: the one unsafe corner of echod.

Owns one anonymous mapping of headers, I/O vectors, addresses and control messages, and one of payload. It never
decides anything: `Batch` does. The contract:

- The mapping never moves and lives as long as the `Vector`; every pointer in it was computed here, once.
- `received` are the headers that `recvmmsg` fills; `composed` and `apart` are two more that `Batch` may build to
  send from. All point into the same names and payload: a reply is sent from the very bytes that came in.
- Between two receives, the part that the kernel wrote is restored from templates: `restore`.
- All numbers lie as the kernel of a 64-bit little-endian Linux has them (`struct mmsghdr`, recvmmsg(2); `struct
  cmsghdr`, cmsg(3)); `cli` refuses to run elsewhere.
"""

import ctypes
import mmap
import socket
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from struct import Struct
from typing import Final, Literal

SLOTS: Final = 64
"""Slots in a vector. More than 64 gained nothing in any load measured; fewer cost calls."""

SLOT_BYTES: Final = 65536
"""Payload room of a slot: a GRO train may carry up to 65,535 bytes. Mappings are touched lazily."""

HEADER_BYTES: Final = 64
"""`sizeof(struct mmsghdr)`: name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48, len 56."""

IOVEC_BYTES: Final = 16
NAME_BYTES: Final = 32
"""Room for a `sockaddr_in6` (28 bytes), a multiple of eight."""

NAME_LENGTH: Final = 28
CONTROL_BYTES: Final = 128
"""Room for UDP_GRO and IPV6_PKTINFO (64 bytes) and as much again, for what an inherited socket may have on."""

MULTICAST_FIRST_BYTE: Final = 0xFF
"""Of an IPv6 address (RFC 4291, 2.7)."""

SEGMENT_CMSG_BYTES: Final = 24
"""`CMSG_SPACE(sizeof(int))`: the room that UDP_GRO takes as it comes and UDP_SEGMENT as it goes."""

SEGMENT_WORDS: Final = SEGMENT_CMSG_BYTES // 4

_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where one address family keeps what `Batch` looks at, within a slot's control messages.

    Lengths are in bytes; offsets in 32-bit words from the start of the PKTINFO message.
    """

    plain: int
    """`msg_controllen` of a datagram: PKTINFO alone."""
    ifindex: int
    """Word of the interface index: `ipi_ifindex`, `ipi6_ifindex`."""
    peer: str
    """A name in the format of `struct`: what tells a peer from any other, and the room behind it."""

    @property
    def train(self) -> int:
        """`msg_controllen` of a train: UDP_GRO, then PKTINFO."""
        return self.plain + SEGMENT_CMSG_BYTES


LAYOUTS: Final = {
    socket.AF_INET: Layout(plain=32, ifindex=4, peer="8s24x"),
    socket.AF_INET6: Layout(plain=40, ifindex=8, peer="28s4x"),
}


def _constant(code: Literal["I", "Q"], value: int) -> memoryview:
    """Return a read-only view of `SLOTS` equal numbers."""
    size = 8 if code == "Q" else 4
    return memoryview(value.to_bytes(size, "little") * SLOTS).cast(code)


_ZEROS: Final = _constant("Q", 0)
_ZEROS32: Final = _constant("I", 0)
_NAME_ROOM: Final = _constant("Q", NAME_LENGTH)
_CONTROL_ROOM: Final = _constant("Q", CONTROL_BYTES)
_PAYLOAD_ROOM: Final = _constant("Q", SLOT_BYTES)
_PLAIN_CONTROL: Final = {family: _constant("Q", layout.plain) for family, layout in LAYOUTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Strided views of the first `count` slots, made once for each count: slicing costs more than the work."""

    count: int
    name_length: memoryview
    control_length: memoryview
    flags: memoryview
    length: memoryview
    iov_length: memoryview
    peers: dict[socket.AddressFamily, Struct]
    """Reads all names at once: family, port, address, and (IPv6) flow and scope of each, as bytes."""
    spec_dst: memoryview
    """IPv4: the local address that the kernel would answer from."""
    destination: memoryview
    """IPv4: the destination in the header; not `spec_dst` where it is a broadcast or multicast address."""
    ifindex: dict[socket.AddressFamily, memoryview]
    destination6: tuple[memoryview, memoryview]
    destination6_first: memoryview
    """IPv6: the first byte of the destination."""
    zeros: memoryview
    """Constants of the same count, to compare with and to copy from: 64-bit zeros, 32-bit zeros, ..."""
    zeros32: memoryview
    plain_control: dict[socket.AddressFamily, memoryview]
    room: tuple[memoryview, memoryview, memoryview]
    """... and the room for name, control messages and payload that a receive must be told anew."""


@dataclass(slots=True)
class Outgoing:
    """Messages to send: where their headers lie, and what each stands for.

    `lengths` views the `msg_len` of each header, which the kernel sets to the bytes sent. `weights` are datagrams
    of each message, one without; `runs` the slots of each, slot i for message i without.
    """

    headers_at: int
    lengths: memoryview
    weights: list[int] | None = None
    runs: list[range] | None = None

    def weight(self, first: int, after: int) -> int:
        """Return the datagrams of the messages from `first` up to `after`."""
        return after - first if self.weights is None else sum(self.weights[first:after])

    def run(self, message: int) -> range:
        """Return the slots that this message answers."""
        return range(message, message + 1) if self.runs is None else self.runs[message]


class Vector:
    """`SLOTS` slots: headers, I/O vectors, names, control messages, payload."""

    def __init__(self) -> None:
        """Map the memory and write every pointer and template."""
        received = (HEADER_BYTES, IOVEC_BYTES, NAME_BYTES, CONTROL_BYTES)
        composed, apart = (HEADER_BYTES, CONTROL_BYTES), (HEADER_BYTES, IOVEC_BYTES)
        ends = list(accumulate(SLOTS * size for size in (*received, *composed, *apart)))
        self.received_at, self.iovecs_at, self.names_at, self.control_at = 0, *ends[:3]
        self.composed_at, self.composed_control_at, self.apart_at, self.apart_iovecs_at = ends[3:7]

        self._headers = mmap.mmap(-1, ends[-1])
        self._payload = mmap.mmap(-1, SLOTS * SLOT_BYTES)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._headers))
        payload = ctypes.addressof(ctypes.c_char.from_buffer(self._payload))

        self.octets = memoryview(self._headers)
        self.words = self.octets.cast("I")
        self.longs = self.octets.cast("Q")
        self.composed_length = self._strided(self.longs, self.composed_at + 56, HEADER_BYTES, SLOTS)
        self.apart_length = self._strided(self.longs, self.apart_at + 56, HEADER_BYTES, SLOTS)

        for slot in range(SLOTS):
            header = (self.received_at + slot * HEADER_BYTES) // 8
            iovec = self.iovecs_at + slot * IOVEC_BYTES
            self.longs[header] = self.base + self.names_at + slot * NAME_BYTES
            self.longs[header + 2] = self.base + iovec
            self.longs[header + 3] = 1
            self.longs[header + 4] = self.base + self.control_at + slot * CONTROL_BYTES
            self.longs[iovec // 8] = payload + slot * SLOT_BYTES

        self.spans = tuple(self._span(count) for count in range(SLOTS + 1))
        self.restore(self.spans[SLOTS])

    @staticmethod
    def _strided(view: memoryview, start: int, stride: int, count: int) -> memoryview:
        """View one field of `count` structs that lie `stride` bytes apart, the first at byte `start`."""
        size = view.itemsize
        return view[start // size : (start + count * stride) // size : stride // size]

    def _span(self, count: int) -> Span:
        strided = partial(self._strided, count=count)
        header, iovec, control = self.received_at, self.iovecs_at, self.control_at
        longs, words = self.longs, self.words
        return Span(
            count=count,
            name_length=strided(longs, header + 8, HEADER_BYTES),
            control_length=strided(longs, header + 40, HEADER_BYTES),
            flags=strided(longs, header + 48, HEADER_BYTES),
            length=strided(longs, header + 56, HEADER_BYTES),
            iov_length=strided(longs, iovec + 8, IOVEC_BYTES),
            peers={family: Struct(layout.peer * count) for family, layout in LAYOUTS.items()},
            spec_dst=strided(words, control + 20, CONTROL_BYTES),
            destination=strided(words, control + 24, CONTROL_BYTES),
            ifindex={
                family: strided(words, control + 4 * layout.ifindex, CONTROL_BYTES)
                for family, layout in LAYOUTS.items()
            },
            destination6=(
                strided(longs, control + 16, CONTROL_BYTES),
                strided(longs, control + 24, CONTROL_BYTES),
            ),
            destination6_first=strided(self.octets, control + 16, CONTROL_BYTES),
            zeros=_ZEROS[:count],
            zeros32=_ZEROS32[:count],
            plain_control={family: view[:count] for family, view in _PLAIN_CONTROL.items()},
            room=(_NAME_ROOM[:count], _CONTROL_ROOM[:count], _PAYLOAD_ROOM[:count]),
        )

    def peers(self, span: Span, family: socket.AddressFamily) -> tuple[bytes, ...]:
        """Return the peer of each slot, as it lies in its `sockaddr`."""
        return span.peers[family].unpack_from(self._headers, self.names_at)

    def payload(self, slot: int, first: int, after: int) -> bytes:
        """Return a copy of a part of the payload of a slot."""
        return self._payload[slot * SLOT_BYTES + first : slot * SLOT_BYTES + after]

    @staticmethod
    def restore(span: Span) -> None:
        """Undo what a receive into these slots wrote over: the lengths that tell the kernel its room."""
        span.name_length[:], span.control_length[:], span.iov_length[:] = span.room

    def receive(self, fd: int) -> int:
        """Fill slots from the socket's queue without waiting; return how many, or -1 with `error()` set."""
        return int(_recvmmsg(fd, self.base, SLOTS, socket.MSG_DONTWAIT, None))

    def send(self, fd: int, headers_at: int, count: int) -> int:
        """Send `count` messages from the headers at that offset without waiting; return how many went, or -1.

        The kernel stops at the first message it refuses, and tells its error only where that is the first of all
        (sendmmsg(2)).
        """
        return int(_sendmmsg(fd, self.base + headers_at, count, socket.MSG_DONTWAIT))

    @staticmethod
    def error() -> int:
        """Return the errno of the last call that returned -1."""
        return ctypes.get_errno()
