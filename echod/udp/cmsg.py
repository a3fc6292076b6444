"""Control messages: which a socket receives with each datagram, in which order, and what becomes of each in the reply.

Owns their lengths and offsets, the parsing of those of a receive, and their rewriting in place into those of the reply.
Most batches are parsed as a whole: all slots have one form, single datagrams or trains, and are sent to unicast
addresses. Invariant: a slot with other control messages than its socket should receive counts as truncated, and is not
answered.
"""

import socket
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from echod.linux import sockopt
from echod.linux.mmsg import Span, Vector, constant
from echod.linux.mmsg_layout import SEGMENT_CMSG_BYTES, SEGMENT_CMSG_LENGTH
from echod.linux.sockopt import IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, UDP_GRO, UDP_SEGMENT

LOOPBACK_IFINDEX: Final = 1
"""The index of `lo`, in every network namespace (include/net/flow.h)."""

MULTICAST_FIRST_BYTE: Final = 0xFF
"""The first byte of an IPv6 multicast address (RFC 4291, 2.7)."""

_SEGMENT: Final = Struct("<QiiH6x")
"""The UDP_SEGMENT message: `struct cmsghdr` and the length of a segment, a u16."""

_TIMESTAMP_BYTES: Final = 32
_NUMBER_BYTES: Final = 24
"""`CMSG_SPACE` of a `struct timespec`, and of a TOS, TTL, traffic class or hop limit."""

_NUMBERS: Final = {
    socket.AF_INET: ((IPPROTO_IP, sockopt.IP_RECVTTL), (IPPROTO_IP, sockopt.IP_RECVTOS)),
    socket.AF_INET6: ((IPPROTO_IPV6, sockopt.IPV6_RECVHOPLIMIT), (IPPROTO_IPV6, sockopt.IPV6_RECVTCLASS)),
}
"""The options for those that follow PKTINFO, in the order of the kernel (`ip_cmsg_recv_offset`,
`ip6_datagram_recv_specific_ctl`)."""

_LEVEL, _TYPE, _DATA = 2, 3, 4
"""Words of a `struct cmsghdr`, and the first word after it."""

_NO_LEVEL: Final = 0xFFFF_FFFF
"""No protocol has this level, so a send ignores the message (`ip_cmsg_send`, `ip6_datagram_send_ctl`)."""

_NO_LEVELS: Final = constant("I", _NO_LEVEL)
_SEGMENT_LENGTHS: Final = constant("I", SEGMENT_CMSG_LENGTH)
_SEGMENT_TYPES: Final = constant("I", UDP_SEGMENT)

_LINK_LOCAL: Final = 0x80FE
_LINK_LOCAL_MASK: Final = 0xC0FF
"""fe80::/10 (RFC 4291, 2.5.6), in the first 32-bit word of an IPv6 address as it lies in memory."""

_NOT_WHOLE: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC


@dataclass(slots=True)
class Parsed:
    """The control messages of a batch, parsed: interfaces, trains, and what cannot be replied to."""

    interfaces: list[int]
    """The index of the interface on which each slot came in."""
    segments: dict[int, int] = field(default_factory=dict)
    """The bytes in a segment, for each slot that holds a train."""
    weights: list[int] | None = None
    """Datagrams in each slot; None if all are single."""
    truncated: set[int] = field(default_factory=set)
    not_unicast: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The control messages of a slot. Offsets are in 32-bit words from the first message."""

    length: int
    """`msg_controllen`, in bytes."""
    train: int | None = None
    """The offset of UDP_GRO; None in the form of a single datagram."""
    type_at: int = _TYPE
    type: int
    """The offset and value of a `cmsg_type` that distinguishes this form from another of the same length."""
    ifindex: int
    """The interface index in PKTINFO: `ipi_ifindex`, `ipi6_ifindex`."""
    spec_dst: int
    """The first word of the address that the kernel would answer from; in IPv6, of the destination."""
    destination: int
    """The first word of the destination in the header; it differs from `spec_dst` if that is not a unicast address."""
    unused: tuple[int, ...] = ()
    """The offsets of the `cmsg_level` of all messages that a reply leaves out."""


_PKTINFO: Final = {
    socket.AF_INET: Form(length=32, type=sockopt.IP_PKTINFO, ifindex=4, spec_dst=5, destination=6),
    socket.AF_INET6: Form(length=40, type=sockopt.IPV6_PKTINFO, ifindex=8, spec_dst=4, destination=4),
}
"""The form of a datagram with PKTINFO alone (`CMSG_SPACE`)."""


class ControlLayout:
    """The control messages of one socket, in the order in which the kernel writes them.

    A timestamp (SO_TIMESTAMPNS), UDP_GRO on trains alone, PKTINFO, TTL or hop limit, TOS or traffic class. All but
    UDP_GRO and PKTINFO are optional. In the reply UDP_GRO becomes UDP_SEGMENT, PKTINFO gives the source address, and
    the others are left out.
    """

    def __init__(self, family: socket.AddressFamily, *, timestamp: bool = False, numbers: int = 0) -> None:
        """Lay them out: with a timestamp or without, and with so many of TTL, TOS and the like."""
        self._family = family
        first, timestamps = (_TIMESTAMP_BYTES // 4, (_LEVEL,)) if timestamp else (0, ())
        self.single = self._form(None, first, timestamps, numbers)
        self.train = self._form(first, first + SEGMENT_CMSG_BYTES // 4, timestamps, numbers)
        self.segment_end = 4 * first + SEGMENT_CMSG_BYTES
        """Where UDP_SEGMENT ends in the reply to a train, in bytes. What is left out of a reply may precede it."""
        self._forms = {form.length: form for form in (self.single, self.train)}

    @staticmethod
    def of(sock: socket.socket) -> "ControlLayout":
        """Return the layout of a socket with PKTINFO and UDP_GRO on, by its other options."""
        family = socket.AddressFamily(sock.family)
        numbers = [option for option in _NUMBERS[family] if sock.getsockopt(*option)]
        timestamp = sock.getsockopt(socket.SOL_SOCKET, sockopt.SO_TIMESTAMPNS) != 0
        return ControlLayout(family, timestamp=timestamp, numbers=len(numbers))

    def _form(self, train: int | None, pktinfo: int, timestamps: tuple[int, ...], numbers: int) -> Form:
        plain = _PKTINFO[self._family]
        after = pktinfo + plain.length // 4
        step = _NUMBER_BYTES // 4
        return Form(
            length=4 * (after + numbers * step),
            train=train,
            type_at=(pktinfo if train is None else train) + _TYPE,
            type=plain.type if train is None else UDP_GRO,
            ifindex=pktinfo + plain.ifindex,
            spec_dst=pktinfo + plain.spec_dst,
            destination=pktinfo + plain.destination,
            unused=(*timestamps, *(after + number * step + _LEVEL for number in range(numbers))),
        )

    def common_form(self, span: Span) -> Form | None:
        """Return the form of all slots, None if they are not of one form, whole and unicast.

        IPv4: the kernel reports the destination of the header and the address it would answer from, which are equal
        only for a unicast destination. (They also differ for a datagram that was queued before IP_PKTINFO was on.)
        """
        lengths, count, words = span.control_length.tolist(), span.count, span.words
        form = self._forms.get(lengths[0])
        if form is None or lengths.count(lengths[0]) < count or span.flags != span.zeros:
            return None
        if words[form.type_at].tolist().count(form.type) < count:
            return None
        if self._family == socket.AF_INET:
            unicast = words[form.destination] == words[form.spec_dst]
        else:
            unicast = MULTICAST_FIRST_BYTE not in words[form.destination].tobytes()[::4]
        return form if unicast else None

    def parse_all(self, span: Span, form: Form, lengths: list[int]) -> Parsed:
        """Parse slots of one form, and turn their control messages into those of the replies."""
        parsed = Parsed(span.words[form.ifindex].tolist())
        if form.train is not None:
            segments = span.words[form.train + _DATA].tolist()
            parsed.segments = dict(enumerate(segments))
            parsed.weights = [-(-length // segment) for length, segment in zip(lengths, segments, strict=True)]
        self.turn(span, form)
        return parsed

    def turn(self, span: Span, form: Form) -> None:
        """Turn the control messages of all these slots into those of their replies.

        The index of the interface is cleared, because it would send the reply through that interface whatever the
        routing table says; a reply from a link-local address needs it. UDP_GRO carries an int, and UDP_SEGMENT takes
        only a u16 (else EINVAL): on a little-endian machine both are at the same place.
        """
        count, words = span.count, span.words
        if form.train is not None:
            words[form.train][:] = _SEGMENT_LENGTHS[:count]
            words[form.train + _TYPE][:] = _SEGMENT_TYPES[:count]
        for level in form.unused:
            words[level][:] = _NO_LEVELS[:count]
        interfaces, kept = words[form.ifindex], {}
        if self._family == socket.AF_INET6:
            local = words[form.destination].tolist()
            if any(map(_is_link_local, set(local))):  # most often all are equal
                kept = {slot: interfaces[slot] for slot, first in enumerate(local) if _is_link_local(first)}
        interfaces[:] = span.zeros32
        for slot, index in kept.items():
            interfaces[slot] = index

    def parse_each(self, vector: Vector, span: Span, lengths: list[int]) -> Parsed:
        """Parse slots of any form, one by one, and turn the control messages of those that can be answered."""
        words, forms, ipv4 = vector.words, self._forms, self._family == socket.AF_INET
        weights = [1] * span.count
        parsed = Parsed([0] * span.count, weights=weights)
        for slot, (control, flags) in enumerate(zip(span.control_length.tolist(), span.flags.tolist(), strict=True)):
            at, form = (vector.control_at + slot * vector.control_bytes) // 4, forms.get(control)
            if form is None or flags & _NOT_WHOLE or words[at + form.type_at] != form.type:
                parsed.truncated.add(slot)
                continue
            if form.train is not None:  # as in `turn`
                train = at + form.train
                words[train], words[train + _TYPE] = SEGMENT_CMSG_LENGTH, UDP_SEGMENT
                parsed.segments[slot] = words[train + _DATA]
                weights[slot] = -(-lengths[slot] // words[train + _DATA])
            for level in form.unused:
                words[at + level] = _NO_LEVEL
            # Nothing is known of a datagram queued before IP_PKTINFO was on. From 127/8 it can only have come on
            # loopback.
            parsed.interfaces[slot] = words[at + form.ifindex] or LOOPBACK_IFINDEX
            if ipv4 or not _is_link_local(words[at + form.destination]):
                words[at + form.ifindex] = 0
            if not _is_unicast(words, at + form.destination, at + form.spec_dst):
                parsed.not_unicast.add(slot)
        return parsed

    def local_addresses(self, span: Span) -> list[list[int]]:
        """Return the parts of the address that each single datagram was sent to, each part for all slots."""
        first = self.single.spec_dst
        if self._family == socket.AF_INET:
            return [span.words[first].tolist()]
        return [span.longs[first // 2].tolist(), span.longs[first // 2 + 1].tolist()]

    def join(self, length: int, control: bytes) -> bytes:
        """Return the control messages of a train, from those of the reply to a datagram of `length` bytes."""
        segment = _SEGMENT.pack(SEGMENT_CMSG_LENGTH, IPPROTO_UDP, UDP_SEGMENT, length)
        return segment + control[: self.single.length]


def _is_link_local(first_word: int) -> bool:
    """Tell whether an IPv6 address that begins with this word is link-local."""
    return first_word & _LINK_LOCAL_MASK == _LINK_LOCAL


def _is_unicast(words: memoryview, destination: int, spec_dst: int) -> bool:
    """Tell whether PKTINFO names a unicast destination; write the source of the reply where the kernel left it out."""
    if spec_dst == destination:
        return words[destination] & 0xFF != MULTICAST_FIRST_BYTE
    if words[spec_dst] == 0:
        # Queued before IP_PKTINFO was on, as the datagram that starts a socket-activated service is. Answer from the
        # destination; if that is no unicast address of ours, the kernel refuses with EINVAL or (newer) ENETUNREACH.
        words[spec_dst] = words[destination]
    return words[spec_dst] == words[destination]
