"""What a receive brought: which slots hold trains, which cannot be answered, and the interface of each.

Owns the parsing of the control messages of a receive, and rewrites them in place into those of the answers. Most
batches need no look at each slot: they are of one form, all single datagrams or all trains, whole and sent to a unicast
address.
"""

import socket
from dataclasses import dataclass, field
from typing import Final

from echod.linux.mmsg import LAYOUTS, Layout, Span, Vector, constant
from echod.linux.mmsg_layout import CONTROL_BYTES, MULTICAST_FIRST_BYTE, SEGMENT_CMSG_LENGTH, SEGMENT_WORDS
from echod.linux.sockopt import UDP_GRO, UDP_SEGMENT

LOOPBACK_IFINDEX: Final = 1
"""The index of `lo`, in every network namespace (include/net/flow.h)."""

_SEGMENT_LENGTHS: Final = constant("I", SEGMENT_CMSG_LENGTH)
_SEGMENT_TYPES: Final = constant("I", UDP_SEGMENT)

_LINK_LOCAL: Final = 0x80FE
_LINK_LOCAL_MASK: Final = 0xC0FF
"""fe80::/10 (RFC 4291, 2.5.6), in the first 32-bit word of an IPv6 address as it lies in memory."""

_NOT_WHOLE: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC


@dataclass(slots=True)
class Arrival:
    """What is known of the slots of a batch, besides their peers and lengths."""

    interfaces: list[int]
    """The index of the interface on which each slot came in."""
    segments: dict[int, int] = field(default_factory=dict)
    """The bytes in a segment, for each slot that holds a train."""
    weights: list[int] | None = None
    """Datagrams in each slot; None if all are single."""
    truncated: set[int] = field(default_factory=set)
    not_unicast: set[int] = field(default_factory=set)


def form_of(vector: Vector, span: Span, family: socket.AddressFamily) -> int:
    """Return the bytes of control messages in each slot if all are of one form, whole and unicast, else 0.

    IPv4: the kernel reports the destination of the header and the address it would answer from, which are equal only
    for a unicast destination. (They also differ for a datagram that was queued before IP_PKTINFO was on.)
    """
    layout, controls = LAYOUTS[family], span.control_length.tolist()
    form = controls[0]
    if form not in (layout.plain, layout.train) or controls.count(form) < span.count or span.flags != span.zeros:
        return 0
    if form == layout.plain:
        if family == socket.AF_INET:
            unicast = span.destination == span.spec_dst
        else:
            unicast = MULTICAST_FIRST_BYTE not in span.destination6_first.tobytes()
        return form if unicast else 0
    if vector.control_words(span.count, 3).tolist().count(UDP_GRO) < span.count:
        return 0
    destinations = vector.control_words(span.count, SEGMENT_WORDS + layout.destination).tolist()
    if family == socket.AF_INET:
        unicast = destinations == vector.control_words(span.count, SEGMENT_WORDS + layout.spec_dst).tolist()
    else:
        unicast = MULTICAST_FIRST_BYTE not in [first & 0xFF for first in destinations]
    return form if unicast else 0


def look_at_all(vector: Vector, span: Span, family: socket.AddressFamily, form: int, lengths: list[int]) -> Arrival:
    """Parse slots of one form, `form` bytes each, and turn their control messages into those of the answers."""
    layout, count = LAYOUTS[family], span.count
    if form == layout.plain:
        arrival = Arrival(span.ifindex[family].tolist())
    else:
        arrival = Arrival(vector.control_words(count, SEGMENT_WORDS + layout.ifindex).tolist())
        segments = vector.control_words(count, 4).tolist()
        arrival.segments = dict(enumerate(segments))
        arrival.weights = [-(-length // segment) for length, segment in zip(lengths, segments, strict=True)]
    turn_round(vector, span, family, form)
    return arrival


def turn_round(vector: Vector, span: Span, family: socket.AddressFamily, form: int) -> None:
    """Turn the control messages of all these slots, `form` bytes each, into those of their answers.

    The index of the interface is cleared, because it would send the reply through that interface whatever the routing
    table says; an answer from a link-local address needs it. UDP_GRO carries an int, and UDP_SEGMENT takes only a u16
    (else EINVAL): on a little-endian machine both are at the same place.
    """
    layout, count, pktinfo = LAYOUTS[family], span.count, 0
    if form == layout.train:
        pktinfo = SEGMENT_WORDS
        vector.control_words(count, 0)[:] = _SEGMENT_LENGTHS[:count]
        vector.control_words(count, 3)[:] = _SEGMENT_TYPES[:count]
    interfaces, kept = vector.control_words(count, pktinfo + layout.ifindex), {}
    if family == socket.AF_INET6:
        local = vector.control_words(count, pktinfo + layout.destination).tolist()
        if any(map(_is_link_local, set(local))):  # most often all are equal
            kept = {slot: interfaces[slot] for slot, first in enumerate(local) if _is_link_local(first)}
    interfaces[:] = span.zeros32
    for slot, index in kept.items():
        interfaces[slot] = index


def _is_link_local(first_word: int) -> bool:
    """Tell whether an IPv6 address that begins with this word is link-local."""
    return first_word & _LINK_LOCAL_MASK == _LINK_LOCAL


def look_at_each(vector: Vector, span: Span, family: socket.AddressFamily, lengths: list[int]) -> Arrival:
    """Parse slots of any form, one by one, and turn the control messages of those that can be answered."""
    words, layout = vector.words, LAYOUTS[family]
    weights = [1] * span.count
    arrival = Arrival(span.ifindex[family].tolist(), weights=weights)
    for slot, (control, flags) in enumerate(zip(span.control_length.tolist(), span.flags.tolist(), strict=True)):
        at = (vector.control_at + slot * CONTROL_BYTES) // 4
        train = control == layout.train and words[at + 3] == UDP_GRO
        if flags & _NOT_WHOLE or not (train or control == layout.plain):
            arrival.truncated.add(slot)
            continue
        if train:
            # As in `turn_round`.
            words[at], words[at + 3] = SEGMENT_CMSG_LENGTH, UDP_SEGMENT
            arrival.segments[slot] = words[at + 4]
            weights[slot] = -(-lengths[slot] // words[at + 4])
            at += SEGMENT_WORDS
        # Nothing is known of a datagram queued before IP_PKTINFO was on. From 127/8 it can only have come on loopback.
        arrival.interfaces[slot] = words[at + layout.ifindex] or LOOPBACK_IFINDEX
        if family == socket.AF_INET or not _is_link_local(words[at + layout.destination]):
            words[at + layout.ifindex] = 0
        if not _is_unicast(words, at, layout):
            arrival.not_unicast.add(slot)
    return arrival


def _is_unicast(words: memoryview, at: int, layout: Layout) -> bool:
    """Tell whether the PKTINFO message at this word names a unicast destination."""
    destination, spec_dst = at + layout.destination, at + layout.spec_dst
    if spec_dst == destination:
        return words[destination] & 0xFF != MULTICAST_FIRST_BYTE
    if words[spec_dst] == 0:
        # Queued before IP_PKTINFO was on, as the datagram that starts a socket-activated service is. Answer from the
        # destination; if that is no unicast address of ours, the kernel refuses with EINVAL or (newer) ENETUNREACH.
        words[spec_dst] = words[destination]
    return words[spec_dst] == words[destination]
