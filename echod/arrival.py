"""What came in with a batch: which slots hold trains, which cannot be answered, and which way they came.

Owns the look at the control messages of a receive, and leaves them as those of the answers. Most batches need no look
at each slot: they are of one form, all single datagrams or all trains, whole and sent to a unicast address.
"""

import socket
from dataclasses import dataclass, field
from typing import Final

from echod.sockets import UDP_GRO
from echod.vector import (
    CONTROL_BYTES,
    LAYOUTS,
    MULTICAST_FIRST_BYTE,
    SEGMENT_CMSG_LENGTH,
    SEGMENT_WORDS,
    UDP_SEGMENT,
    Layout,
    Span,
    Vector,
    constant,
)

LOOPBACK_IFINDEX: Final = 1
"""Of `lo`, in every network namespace (include/net/flow.h)."""

_SEGMENT_LENGTHS: Final = constant("I", SEGMENT_CMSG_LENGTH)
_SEGMENT_TYPES: Final = constant("I", UDP_SEGMENT)

_LINK_LOCAL: Final = 0x80FE
_LINK_LOCAL_MASK: Final = 0xC0FF
"""Of an IPv6 address, fe80::/10 (RFC 4291, 2.5.6): in the first word as it lies in memory."""

_NOT_WHOLE: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC


@dataclass(slots=True)
class Arrival:
    """What is to be known of the slots of a batch, beside their peers and lengths."""

    interfaces: list[int]
    """Of each slot, the index of that by which it came in."""
    segments: dict[int, int] = field(default_factory=dict)
    """Of each slot that holds a train, the bytes in a segment."""
    weights: list[int] | None = None
    """Datagrams in each slot; None where all are single ones."""
    truncated: set[int] = field(default_factory=set)
    not_unicast: set[int] = field(default_factory=set)


def form_of(vector: Vector, span: Span, family: socket.AddressFamily) -> int:
    """Return the bytes of control messages in each slot if all are of one form, whole and unicast, else 0.

    IPv4: the kernel names the header's destination and the address it would answer from; only for a unicast
    destination are they one. (They also differ for what was queued before IP_PKTINFO was on.)
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
    """Look at slots of one form, of so many bytes each, and turn their control messages round."""
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
    """Make the control messages of all these slots, which are `form` bytes each, those of their answers.

    Without the index of the interface, which would force the reply out of it, past the routing table; but from a
    link-local address there is no other way. In: UDP_GRO with an int. Out: UDP_SEGMENT with a u16, or EINVAL.
    Little-endian: the same place.
    """
    layout, count, pktinfo = LAYOUTS[family], span.count, 0
    if form == layout.train:
        pktinfo = SEGMENT_WORDS
        vector.control_words(count, 0)[:] = _SEGMENT_LENGTHS[:count]
        vector.control_words(count, 3)[:] = _SEGMENT_TYPES[:count]
    interfaces, kept = vector.control_words(count, pktinfo + layout.ifindex), {}
    if family == socket.AF_INET6:
        local = vector.control_words(count, pktinfo + layout.destination).tolist()
        if any(map(_is_link_local, set(local))):  # most often they are all one
            kept = {slot: interfaces[slot] for slot, first in enumerate(local) if _is_link_local(first)}
    interfaces[:] = span.zeros32
    for slot, index in kept.items():
        interfaces[slot] = index


def _is_link_local(first_word: int) -> bool:
    """Tell whether an IPv6 address that begins so is one that means something on its link alone."""
    return first_word & _LINK_LOCAL_MASK == _LINK_LOCAL


def look_at_each(vector: Vector, span: Span, family: socket.AddressFamily, lengths: list[int]) -> Arrival:
    """Look at slots of any form, one by one, and turn those round that can be answered."""
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
            # As `turn_round` does it.
            words[at], words[at + 3] = SEGMENT_CMSG_LENGTH, UDP_SEGMENT
            arrival.segments[slot] = words[at + 4]
            weights[slot] = -(-lengths[slot] // words[at + 4])
            at += SEGMENT_WORDS
        # Of one queued before IP_PKTINFO was on nothing is known. From 127/8 it can only have come on loopback.
        arrival.interfaces[slot] = words[at + layout.ifindex] or LOOPBACK_IFINDEX
        if family == socket.AF_INET or not _is_link_local(words[at + layout.destination]):
            words[at + layout.ifindex] = 0
        if not _is_unicast(words, at, layout):
            arrival.not_unicast.add(slot)
    return arrival


def _is_unicast(words: memoryview, at: int, layout: Layout) -> bool:
    """Tell whether the PKTINFO message at that word names a unicast destination."""
    destination, spec_dst = at + layout.destination, at + layout.spec_dst
    if spec_dst == destination:
        return words[destination] & 0xFF != MULTICAST_FIRST_BYTE
    if words[spec_dst] == 0:
        # Queued before IP_PKTINFO was on, as the datagram that starts a socket-activated service is. Answer
        # from the destination; the kernel refuses that, with EINVAL or (newer) ENETUNREACH, where it is no unicast
        # address of ours.
        words[spec_dst] = words[destination]
    return words[spec_dst] == words[destination]
