"""A batch of datagrams: what one `recvmmsg` brought, and which of it is refused.

Owns the contents of the vector from a receive to its reply, and no longer: no queue, no waiting. It never decides which
datagrams are answered (`Admission` does), never sends them (`reply` does) and never counts (`UdpEcho` does).
Invariant: after a receive, every attribute describes that receive alone.

A slot holds one datagram, or a *train*: many datagrams of one peer, all of the same length but the last, that the
kernel keeps together (UDP_GRO, UDP_SEGMENT in udp(7)).
"""

import socket
from bisect import bisect_right
from collections.abc import Collection
from itertools import accumulate
from mmap import mmap

from echod.linux.mmsg import Span, Vector
from echod.linux.mmsg_layout import MAX_CONTROL_BYTES, NOTED_RECEIVED, NOTED_ROW, SLOT_BYTES, SLOTS
from echod.net.peers import NAME_BYTES
from echod.udp.arrivals import Arrivals
from echod.udp.cmsg import LOOPBACK_IFINDEX, Form, Parsed
from echod.udp.sock import Pattern, UdpSocket
from echod.udp.transmit import raise_fatal


class Batch:
    """Up to `SLOTS` received datagrams or trains. Each worker has one, used by its sockets in turn.

    After `receive`: `datagrams` and `octets` received; the `names` of the slots, a `sockaddr` in each NAME_BYTES, and
    the `peers`, the part of each name that identifies the peer; the slots that are `truncated` or `not_unicast`;
    `trains`, the number of datagrams in each slot, None if all are single. The batch is `whole` if every slot can be
    answered, and all or none came in on the loopback interface (`on_loopback`). After `reply.send`: `replied`
    datagrams, `replied_octets`, and `failures`, errno to datagrams; where there are some also `failed`, slot to
    datagrams.
    """

    def __init__(self, memory: mmap | None = None, control_bytes: int = MAX_CONTROL_BYTES) -> None:
        """Lay the vector over a mapping of `mmsg_layout.MEMORY_BYTES`, by default a new one; it is empty.

        `control_bytes` is the room for the control messages of each slot. A reload may have a socket report more than
        an echo needs, while a worker still serves it, so there is room for all.
        """
        self.vector = Vector(memory, control_bytes)
        self.span: Span = self.vector.spans[0]
        """The slots that were filled."""
        self._touched = self.span
        """Slots that were received into since the vector was restored."""
        self._sock: UdpSocket
        """The socket of the last receive, unset before the first. All that is known of the slots comes from it."""
        self.pattern: Pattern | None = None
        """The pattern of this socket if the slots match it; the answers are then ready."""
        self._answers = b""
        self._parsed = Parsed([], [])
        self.trains: list[int] | None = None
        self.segments: dict[int, int] = {}
        """The bytes in a segment, for each slot that holds a train."""
        self.refused: set[int] = set()
        """The slots of which no datagram is to be answered."""
        self.tests: set[int] = set()
        """The slots that hold a self test, which every mode sends back as it is."""
        self.names = b""
        self._peers: tuple[bytes, ...] | None = ()
        self._named = socket.AF_INET
        """The family of the names that lie in the vector."""
        self.truncated: set[int] = set()
        self.not_unicast: set[int] = set()
        self.whole = True
        self.on_loopback = False
        self.datagrams = self.octets = self.replied = self.replied_octets = 0
        self.failures: dict[int, int] = {}
        self.failed: dict[int, int] = {}

    def receive(self, sock: UdpSocket, counted: int = 0) -> int:
        """Fill the slots from the socket's queue, without waiting; return the number filled.

        `counted` is what the socket's row of the counters says was received. It is noted beside the slots, so that the
        supervisor can count what this process has received and not counted, should it die. Raises OSError if the
        descriptor is not a socket: a defect, which no peer can cause.
        """
        vector, memory, pattern = self.vector, self.vector.memory, sock.pattern
        if self.pattern is not None and sock is self._sock:
            vector.reopen(self.span)
        else:
            self._start_over(sock)
        if self.refused:
            self.refused = set()
        if self.tests:
            self.tests = set()
        vector.longs[NOTED_RECEIVED] = counted  # after the headers are reset, and before they are filled
        count = vector.receive(sock.fd)
        if count < 0:
            self.span, self.names, self._peers = vector.spans[0], b"", ()
            self.datagrams = self.octets = 0
            raise_fatal(-count)
            return 0
        span = self.span = vector.spans[count]
        if count > self._touched.count:
            self._touched = span
        self.names, self._peers = memory[span.names], None
        if (
            pattern is not None
            and memory[span.headers] == pattern.headers[span.headers]
            and memory[span.control] == pattern.control[span.first_control]
        ):
            # The pattern then describes the slots completely.
            self.datagrams, self.octets = count * pattern.weight, count * pattern.length
            if pattern is not self.pattern:
                self._take_on(pattern)
            if pattern.segment:
                self.trains, self.segments = [pattern.weight] * count, dict.fromkeys(range(count), pattern.segment)
        else:
            self._take_each(span, sock)
        return count

    def _start_over(self, sock: UdpSocket) -> None:
        """Prepare for a receive that may differ from those before, and forget all that was learned from those."""
        vector = self.vector
        vector.restore(self._touched)
        vector.longs[NOTED_ROW] = sock.row
        self._sock, self.pattern = sock, None
        self._touched = vector.spans[0]
        if sock.family is not self._named:
            # An IPv4 name is shorter: leftover bytes of an IPv6 name after it would make equal names look different.
            vector.memory[vector.spans[SLOTS].names] = bytes(SLOTS * NAME_BYTES)
            self._named = sock.family

    def _take_on(self, pattern: Pattern) -> None:
        """Adopt a pattern that the slots match, and its answers."""
        self.pattern = pattern
        self.whole, self.on_loopback = True, pattern.on_loopback
        self.truncated, self.not_unicast = set(), set()
        self.trains, self.segments = None, {}
        if self._answers is not pattern.answers:
            self.vector.memory[self.vector.answers] = self._answers = pattern.answers

    def _take_each(self, span: Span, sock: UdpSocket) -> None:
        """Parse the slots, if they do not match the pattern of the socket."""
        vector, layout = self.vector, sock.control
        self.pattern = None
        lengths = span.length.tolist()
        form, control = layout.common_form(span), b""
        if form is not None:
            if form.stamp is None and sock.may_be_alike(lengths):  # each arrives at another time
                control = vector.memory[span.control]
            parsed = layout.parse_all(span, form, lengths)
        else:
            parsed = layout.parse_each(vector, span, lengths)
        self._parsed = parsed
        self.trains, self.segments = parsed.weights, parsed.segments
        self.truncated, self.not_unicast = parsed.truncated, parsed.not_unicast
        self.datagrams = span.count if self.trains is None else sum(self.trains)
        self.octets = sum(lengths)
        here = parsed.interfaces.count(LOOPBACK_IFINDEX)
        self.whole = here in (0, span.count) and not self.truncated and not self.not_unicast
        self.on_loopback = here > 0
        one = control[: vector.control_bytes]
        if form is not None and one and control == one * span.count:
            self._learn(sock, form, lengths[0], one)

    def _learn(self, sock: UdpSocket, form: Form, length: int, control: bytes) -> None:
        """Make a pattern for later batches of a batch whose slots are alike except for peers and payload."""
        vector, first = self.vector, self.span.control.start
        turned = vector.memory[first : first + vector.control_bytes]
        joined = sock.control.join(length, turned[: form.length]) if form.train is None else b""
        headers, answers = vector.alike(sock.family, form.length, length, turned, joined)
        sock.pattern = Pattern(
            headers=headers,
            control=control * SLOTS,
            answers=answers,
            form=form,
            length=length,
            segment=self.segments.get(0, 0),
            weight=self.weight(0),
            on_loopback=self.on_loopback,
        )

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Return the peer of each slot. Computed on first use, because most batches do not need it."""
        if self._peers is None:
            self._peers = self.span.peers[self._sock.family]()
        return self._peers

    def peer(self, slot: int) -> bytes:
        """Return the peer of one slot."""
        at = slot * NAME_BYTES
        return self.names[at : at + self._sock.peer_length]

    def slot_of(self, datagram: int) -> int:
        """Return the slot that holds the datagram of this number, counted from 0 over the batch."""
        if self.trains is None:
            return datagram
        if self.pattern is not None:
            return datagram // self.pattern.weight
        return bisect_right(list(accumulate(self.trains)), datagram)

    def came_in_on_loopback(self, slot: int) -> bool:
        """Tell whether this slot came in on the loopback interface; True for a truncated one, which has no answer."""
        if self.whole:
            return self.on_loopback
        return self._parsed.interfaces[slot] == LOOPBACK_IFINDEX or slot in self.truncated

    def weight(self, slot: int) -> int:
        """Return how many datagrams this slot holds."""
        return 1 if self.trains is None else self.trains[slot]

    def last_datagram(self, slot: int) -> bytes:
        """Return the payload of the last, or only, datagram of this slot."""
        length = self.span.length[slot]
        first = (self.weight(slot) - 1) * self.segments.get(slot, 0)
        return self.vector.payload(slot, first, length)

    @property
    def forms(self) -> list[Form | None]:
        """Return the control messages of each slot; None of one that is truncated."""
        return self._parsed.forms if self.pattern is None else [self.pattern.form] * self.span.count

    @property
    def arrivals(self) -> Arrivals:
        """Return when and how each slot arrived."""
        arrivals = self._parsed.arrivals if self.pattern is None else None
        return Arrivals.unknown(self.span.count) if arrivals is None else arrivals

    def interface(self, slot: int) -> int:
        """Return the index of the interface on which this slot came in."""
        if self.pattern is None:
            return self._parsed.interfaces[slot]
        return self.span.words[self.pattern.form.ifindex][slot]

    def refuse(self, slot: int, datagrams: int) -> None:
        """Leave the last so many datagrams of this slot unanswered."""
        kept = self.weight(slot) - datagrams
        if kept <= 0 or self.trains is None:
            self.refused.add(slot)
        else:
            self._shorten(slot, kept, kept * self.segments[slot])

    def leave_out(self, slot: int, datagrams: Collection[int]) -> None:
        """Leave these datagrams of a train unanswered, by their numbers in it. The others close up."""
        kept = [number for number in range(self.weight(slot)) if number not in datagrams]
        if not kept:
            self.refused.add(slot)
            return
        length, segment = self.span.length[slot], self.segments[slot]
        starts = [number * segment for number in kept]
        closed = b"".join(self.vector.payload(slot, first, min(first + segment, length)) for first in starts)
        self.vector.payload_octets[slot * SLOT_BYTES :][: len(closed)] = closed
        self._shorten(slot, len(kept), len(closed))

    def _shorten(self, slot: int, datagrams: int, octets: int) -> None:
        """Answer only so many datagrams of a train, of so many octets together."""
        if self.pattern is not None:
            # Answer from the slots themselves: the pattern's answers are for whole trains.
            self._sock.control.turn(self.span, self.pattern.form)
            self._parsed = Parsed([], [self.pattern.form] * self.span.count)
            self.pattern = None
        cut = self.span.length[slot] - octets
        self.span.length[slot] = octets
        self.datagrams -= self.weight(slot) - datagrams
        if self.trains is not None:
            self.trains[slot] = datagrams
        self.octets -= cut
