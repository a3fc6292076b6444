"""Control messages: which a socket receives with each datagram, in which order, and what becomes of each in the reply.

Owns their lengths and offsets, the parsing of those of a receive, and their rewriting in place into those of the reply.
Most batches are parsed as a whole: all slots have one form, single datagrams or trains, and are sent to unicast
addresses. Invariant: a slot with other control messages than its socket should receive counts as truncated, and is not
answered.
"""

import socket
from array import array
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from echod.linux import sockopt
from echod.linux.mmsg import Span, Vector, constant
from echod.linux.mmsg_layout import SEGMENT_CMSG_BYTES, SEGMENT_CMSG_LENGTH
from echod.linux.sockopt import IPPROTO_UDP, UDP_GRO, UDP_SEGMENT
from echod.udp.arrivals import SECOND, Arrivals
from echod.udp.reduction import reduce

LOOPBACK_IFINDEX: Final = 1
"""The index of `lo`, in every network namespace (include/net/flow.h)."""

MULTICAST_FIRST_BYTE: Final = 0xFF
"""The first byte of an IPv6 multicast address (RFC 4291, 2.7)."""

_SEGMENT: Final = Struct("<QiiH6x")
"""The UDP_SEGMENT message: `struct cmsghdr` and the length of a segment, a u16."""

_TIMESTAMP_BYTES: Final = 32
_NUMBER_BYTES: Final = 24
"""`CMSG_SPACE` of a `struct timespec`, and of a TOS, TTL, traffic class or hop limit."""

_NUMBERS: Final = 2
"""Of these, TTL and then TOS, behind PKTINFO (`ip_cmsg_recv_offset`, `ip6_datagram_recv_specific_ctl`)."""

_OCTET: Final = 0xFF
_ECN: Final = 0x03
"""The bits of a TOS that are not the DSCP (RFC 3168). A reply has them zero: it is not ECN-capable, and a mark of
congestion was for the other direction."""

FULL_TTL: Final = 255
"""The TTL of the replies of a Session-Reflector, so that the sender can count the hops (RFC 5357, 4.2.1)."""

_LEVEL, _TYPE, _DATA = 2, 3, 4
"""Words of a `struct cmsghdr`, and the first word after it."""

_LEVELS: Final = {socket.AF_INET: sockopt.IPPROTO_IP, socket.AF_INET6: sockopt.IPPROTO_IPV6}

_NO_LEVEL: Final = 0xFFFF_FFFF
"""No protocol has this level, so a send ignores the message (`ip_cmsg_send`, `ip6_datagram_send_ctl`)."""

_NO_LEVELS: Final = constant("I", _NO_LEVEL)
_FULL_TTLS: Final = constant("I", FULL_TTL)
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
    forms: list["Form | None"]
    """The control messages of each slot; None of one that is truncated."""
    segments: dict[int, int] = field(default_factory=dict)
    """The bytes in a segment, for each slot that holds a train."""
    weights: list[int] | None = None
    """Datagrams in each slot; None if all are single."""
    truncated: set[int] = field(default_factory=set)
    not_unicast: set[int] = field(default_factory=set)
    arrivals: Arrivals | None = None
    """None if no slot was measured."""


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
    stamp: int | None = None
    """The offset of the arrival time: seconds and ns, 64 bits each; None where the socket reports none."""
    ttl: int = 0
    tos: int = 0
    """With `stamp`, the offsets of the values of TTL and TOS, or of their like in IPv6."""

    @property
    def segment_end(self) -> int:
        """Where UDP_SEGMENT ends in the reply to a train, in bytes. What is left out of a reply may precede it."""
        return 4 * (self.train or 0) + SEGMENT_CMSG_BYTES


_PKTINFO: Final = {
    socket.AF_INET: Form(length=32, type=sockopt.IP_PKTINFO, ifindex=4, spec_dst=5, destination=6),
    socket.AF_INET6: Form(length=40, type=sockopt.IPV6_PKTINFO, ifindex=8, spec_dst=4, destination=4),
}
"""The form of a datagram with PKTINFO alone (`CMSG_SPACE`)."""


class ControlLayout:
    """The control messages of one socket, in the order in which the kernel writes them.

    A timestamp (SO_TIMESTAMPNS), UDP_GRO on trains alone, PKTINFO, TTL or hop limit, TOS or traffic class. Timestamp,
    TTL and TOS come together, if the listener measures. A socket changes from one to the other while it serves, so both
    are parsed. In the reply UDP_GRO becomes UDP_SEGMENT, and PKTINFO gives the source address. The timestamp is left
    out; so are TTL and TOS, unless the reply is to have its own.
    """

    def __init__(self, family: socket.AddressFamily, *, full_ttl: bool = False, reflects_dscp: bool = False) -> None:
        """Lay them out. `full_ttl` has replies leave with a TTL of 255, `reflects_dscp` with the DSCP that came in."""
        self._family = family
        self._full_ttl, self._reflects_dscp = full_ttl, reflects_dscp
        forms = [self._form(train=train, measured=measured) for train in (False, True) for measured in (False, True)]
        self.single, self.measured, self.train, self.measured_train = forms
        """The forms of a datagram and of a train, without timestamp, TTL and TOS and with them."""
        self._forms = {form.length: form for form in forms}

    def _form(self, *, train: bool, measured: bool) -> Form:
        plain = _PKTINFO[self._family]
        first = _TIMESTAMP_BYTES // 4 if measured else 0
        pktinfo = first + (SEGMENT_CMSG_BYTES // 4 if train else 0)
        after, step = pktinfo + plain.length // 4, _NUMBER_BYTES // 4
        return Form(
            length=4 * (after + (_NUMBERS * step if measured else 0)),
            train=first if train else None,
            type_at=(first if train else pktinfo) + _TYPE,
            type=UDP_GRO if train else plain.type,
            ifindex=pktinfo + plain.ifindex,
            spec_dst=pktinfo + plain.spec_dst,
            destination=pktinfo + plain.destination,
            stamp=_DATA if measured else None,
            ttl=after + _DATA,
            tos=after + step + _DATA,
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
        parsed = Parsed(span.words[form.ifindex].tolist(), [form] * span.count)
        if form.train is not None:
            segments = span.words[form.train + _DATA].tolist()
            parsed.segments = dict(enumerate(segments))
            parsed.weights = [-(-length // segment) for length, segment in zip(lengths, segments, strict=True)]
        if form.stamp is not None:
            parsed.arrivals = self._measure(span, form)
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
        interfaces, kept = words[form.ifindex], {}
        if self._family == socket.AF_INET6:
            local = words[form.destination].tolist()
            if any(map(_is_link_local, set(local))):  # most often all are equal
                kept = {slot: interfaces[slot] for slot, first in enumerate(local) if _is_link_local(first)}
        interfaces[:] = span.zeros32
        for slot, index in kept.items():
            interfaces[slot] = index

    def _measure(self, span: Span, form: Form) -> Arrivals:
        """Return how the slots arrived, and leave that out of the replies, or as much of it as they are to have."""
        words, none, stamp = span.words, _NO_LEVELS[: span.count], form.stamp or 0
        seconds, offsets = span.longs[stamp // 2].tolist(), span.longs[stamp // 2 + 1].tolist()
        toses = list(words[form.tos].tobytes()[::4])  # in IPv4 the kernel writes one octet
        words[stamp - _DATA + _LEVEL][:] = none
        ttls = words[form.ttl].tolist()
        if self._full_ttl:
            words[form.ttl][:] = _FULL_TTLS[: span.count]
        else:
            words[form.ttl - _DATA + _LEVEL][:] = none
        if self._reflects_dscp:
            words[form.tos][:] = array("I", [tos & ~_ECN for tos in toses])
        else:
            words[form.tos - _DATA + _LEVEL][:] = none
        first = seconds[0]
        if seconds.count(first) < span.count:
            first = min(seconds)  # the clock may have been set back
            offsets = [(second - first) * SECOND + offset for second, offset in zip(seconds, offsets, strict=True)]
        return Arrivals(first * SECOND, offsets, ttls, toses)

    def _measure_each(self, vector: Vector, slot: int, form: Form, arrivals: Arrivals) -> None:
        """Do the same for one slot, of this form."""
        at, stamp, words = (vector.control_at + slot * vector.control_bytes) // 4, form.stamp or 0, vector.words
        second, offset = vector.longs[(at + stamp) // 2], vector.longs[(at + stamp) // 2 + 1]
        tos = words[at + form.tos] & _OCTET
        arrivals.offsets[slot] = second * SECOND + offset
        arrivals.ttls[slot], arrivals.toses[slot] = words[at + form.ttl], tos
        words[at + stamp - _DATA + _LEVEL] = _NO_LEVEL
        if self._full_ttl:
            words[at + form.ttl] = FULL_TTL
        else:
            words[at + form.ttl - _DATA + _LEVEL] = _NO_LEVEL
        if self._reflects_dscp:
            words[at + form.tos] = tos & ~_ECN
        else:
            words[at + form.tos - _DATA + _LEVEL] = _NO_LEVEL

    def parse_each(self, vector: Vector, span: Span, lengths: list[int]) -> Parsed:
        """Parse slots of any form, one by one, and turn the control messages of those that can be answered."""
        words, forms, ipv4 = vector.words, self._forms, self._family == socket.AF_INET
        weights = [1] * span.count
        parsed = Parsed([0] * span.count, [None] * span.count, weights=weights)
        for slot, (control, flags) in enumerate(zip(span.control_length.tolist(), span.flags.tolist(), strict=True)):
            at, form = (vector.control_at + slot * vector.control_bytes) // 4, forms.get(control)
            if form is None or words[at + form.type_at] != form.type:
                control = span.control_length[slot] = reduce(vector.memory, 4 * at, control)  # noqa: PLW2901
                form = forms.get(control)
            if form is None or flags & _NOT_WHOLE or words[at + form.type_at] != form.type:
                parsed.truncated.add(slot)
                continue
            if form.train is not None:  # as in `turn`
                train = at + form.train
                words[train], words[train + _TYPE] = SEGMENT_CMSG_LENGTH, UDP_SEGMENT
                parsed.segments[slot] = words[train + _DATA]
                weights[slot] = -(-lengths[slot] // words[train + _DATA])
            parsed.forms[slot] = form
            if form.stamp is not None:
                parsed.arrivals = parsed.arrivals or Arrivals.unknown(span.count)
                self._measure_each(vector, slot, form, parsed.arrivals)
            # Nothing is known of a datagram queued before IP_PKTINFO was on. From 127/8 it can only have come on
            # loopback.
            parsed.interfaces[slot] = words[at + form.ifindex] or LOOPBACK_IFINDEX
            if ipv4 or not _is_link_local(words[at + form.destination]):
                words[at + form.ifindex] = 0
            if not _is_unicast(words, at + form.destination, at + form.spec_dst):
                parsed.not_unicast.add(slot)
        return parsed

    def keys(self, span: Span, form: Form) -> list[list[int]]:
        """Return what has to be equal for slots of this form to be joined, as columns: the address, and the TOS.

        It is that of all slots; in those of another form it means nothing.
        """
        first, measured = form.spec_dst, form.stamp is not None
        tos = [span.words[word].tolist() for word in (form.tos, form.tos - _DATA + _LEVEL)] if measured else []
        if self._family == socket.AF_INET:
            return [span.words[first].tolist(), *tos]
        return [span.longs[first // 2].tolist(), span.longs[first // 2 + 1].tolist(), *tos]

    def join(self, length: int, control: bytes) -> bytes:
        """Return the control messages of a train, from those of the reply to a datagram of `length` bytes."""
        return _SEGMENT.pack(SEGMENT_CMSG_LENGTH, IPPROTO_UDP, UDP_SEGMENT, length) + control

    def mark(self, vector: Vector, slot: int, form: Form | None, dscp: int) -> None:
        """Have the reply of a slot, of this form, leave with this DSCP.

        Of a form without TOS the reply has no room for it: nothing comes of it.
        """
        if form is not None:
            tos = (vector.control_at + slot * vector.control_bytes) // 4 + form.tos
            vector.words[tos - _DATA + _LEVEL], vector.words[tos] = _LEVELS[self._family], dscp << 2

    def destination(self, vector: Vector, slot: int, form: Form | None) -> bytes:
        """Return the address, of 4 or 16 bytes, that a slot of this form was sent to; empty if it is not known."""
        if form is None:
            return b""
        at = vector.control_at + slot * vector.control_bytes + 4 * form.spec_dst
        return vector.memory[at : at + (4 if self._family == socket.AF_INET else 16)]

    def segment_end(self, control_length: int) -> int:
        """Return where UDP_SEGMENT ends in the control messages of the reply to a train, which have this length."""
        return self._forms[control_length].segment_end


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
