"""A batch of datagrams: one `recvmmsg` in, one `sendmmsg` out, from the same bytes.

Owns what is in the vector between a receive and its reply, and nothing longer: no queue, no retry, no waiting. It
never decides who is answered (`Admission` does) and never counts (`UdpEcho` does); it says what happened.
Invariant: after `reply`, datagrams = refused + replied + failed, and one datagram that cannot be answered has
never cost another its reply.

A slot holds one datagram, or a *train*: many of one peer, all of the same length but the last, that the kernel
keeps together (UDP_GRO, UDP_SEGMENT in udp(7)). Trains go out as trains, and neighbours in the batch that could be
one are joined into one, because the walk of each packet through the kernel is what an echo costs.
"""

import socket
from collections.abc import Hashable, Iterable
from struct import Struct
from typing import Final

from echod.core.admission import NAME_BYTES
from echod.core.trains import find_runs
from echod.dispatch import Dispatch, Outgoing, Slots, raise_fatal
from echod.port import Pattern, Port
from echod.sockets import UDP_GRO
from echod.vector import (
    CONTROL_BYTES,
    HEADER_BYTES,
    LAYOUTS,
    MULTICAST_FIRST_BYTE,
    SEGMENT_CMSG_BYTES,
    SEGMENT_WORDS,
    SLOTS,
    Span,
    Vector,
)

UDP_SEGMENT: Final = 103

SEGMENT_CMSG_LENGTH: Final = 18
"""`CMSG_LEN(sizeof(u16))`: UDP_SEGMENT takes no other."""

_SEGMENT: Final = Struct("<QiiH6x")
"""That control message: `struct cmsghdr`, and the length of a segment."""

WORTH_JOINING: Final = 2
"""Datagrams a message, on the average, below which joining costs more time here than it saves in the kernel."""

LOOPBACK_IFINDEX: Final = 1
"""Of `lo`, in every network namespace (include/net/flow.h)."""

_NOT_WHOLE: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC


class Batch:
    """Up to `SLOTS` received datagrams or trains. One for each worker, used by one socket after another.

    After `receive`: `datagrams` and `octets` received; the `names` of the slots, a `sockaddr` in each NAME_BYTES, and
    the `peers`, the part of each that tells one from the other; the slots that are `truncated` or `not_unicast`;
    `trains`, the datagrams of each slot, None where all are single ones. It is `whole` where all slots may be answered
    and came in the same way: `on_loopback`, or not. After `reply`: `replied` datagrams, `replied_octets`, and
    `failures`, errno to datagrams.
    """

    def __init__(self) -> None:
        """Map the vector; it is empty."""
        self._vector = Vector()
        self._span: Span = self._vector.spans[0]
        self.trains: list[int] | None = None
        self._segments: dict[int, int] = {}
        self._refused: set[int] = set()
        self._arrivals: list[int] = []
        self._alike = False
        """Whether the slots look like those of the port's pattern; then the answers are ready."""
        self._answers = b""
        self.names = b""
        self._peers: tuple[bytes, ...] | None = ()
        self._family = socket.AF_INET
        self.truncated: set[int] = set()
        self.not_unicast: set[int] = set()
        self.whole = True
        self.on_loopback = False
        self.datagrams = self.octets = self.replied = self.replied_octets = 0
        self.failures: dict[int, int] = {}

    # -- in

    def receive(self, port: Port) -> int:
        """Fill the slots from the port's queue, without waiting; return how many.

        Raises OSError where the descriptor is no socket: that is a defect, not a peer's doing.
        """
        vector, memory, pattern = self._vector, self._vector.memory, port.pattern
        vector.restore(self._span)
        if self._refused:
            self._refused = set()
        self.whole = True
        if self.trains is not None:
            self.trains, self._segments = None, {}
            self.truncated, self.not_unicast = set(), set()
        count = vector.receive(port.fd)
        if count < 0:
            self._empty()
            return 0
        span = self._span = vector.spans[count]
        self.datagrams = count
        self._family = port.family
        self.names = memory[span.names]
        self._peers = None
        self._alike = (
            pattern is not None
            and memory[span.headers] == pattern.headers[: count * HEADER_BYTES]
            and memory[span.control] == pattern.control[: count * CONTROL_BYTES]
        )
        if pattern is not None and self._alike:
            self.octets = count * pattern.length
            self.on_loopback = pattern.on_loopback
            if self._answers is not pattern.answers:
                memory[vector.answers] = self._answers = pattern.answers
        else:
            self._look_at_each(span, port)
        return count

    def _empty(self) -> None:
        """Hold nothing, after a receive that failed; raise what every later one would meet too."""
        self._span = self._vector.spans[0]
        self.names, self._peers = b"", ()
        self.datagrams = self.octets = 0
        raise_fatal(self._vector.error())

    def _look_at_each(self, span: Span, port: Port) -> None:
        """Find out what is in the slots, where that is not what was there before."""
        lengths = span.length.tolist()
        self.octets = sum(lengths)
        self._arrivals = arrivals = span.ifindex[port.family].tolist()
        plain = self._all_plain(span, port.family)
        if not plain:
            self._inspect(span, port.family)
        here = arrivals.count(LOOPBACK_IFINDEX)
        self.whole = here in (0, span.count) and not self.truncated and not self.not_unicast
        self.on_loopback = here > 0
        if not plain:
            return
        if lengths.count(lengths[0]) < span.count:
            port.last_length = -1
        elif lengths[0] == port.last_length:
            self._learn(span, port, lengths[0])
        else:
            port.last_length = lengths[0]  # learning costs as much as a batch: not for one that may be the only one
        # Left as it came, the index would force the reply out of that interface, past the routing table.
        span.ifindex[port.family][:] = span.zeros32

    def _learn(self, span: Span, port: Port, length: int) -> None:
        """Take a batch whose slots are alike for the pattern of those to come, but for its peers and payload."""
        memory, first = self._vector.memory, span.control.start
        control = memory[first : first + CONTROL_BYTES]
        if memory[span.control] != control * span.count:
            return
        headers, answers = self._vector.alike(port.family, length, control)
        port.pattern = Pattern(
            headers=headers, control=control * SLOTS, answers=answers, length=length, on_loopback=self.on_loopback
        )

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Return the peer of each slot. Made when it is first asked for: of most batches nobody does."""
        if self._peers is None:
            self._peers = self._vector.peers(self._span, self._family)
        return self._peers

    def came_in_on_loopback(self, slot: int) -> bool:
        """Tell whether this slot came in on the loopback interface; said as well of one that has no answer anyway."""
        if self.whole:
            return self.on_loopback
        return self._arrivals[slot] == LOOPBACK_IFINDEX or slot in self.truncated

    def weight(self, slot: int) -> int:
        """Return how many datagrams this slot holds."""
        return 1 if self.trains is None else self.trains[slot]

    def last_datagram(self, slot: int) -> bytes:
        """Return the payload of the last, or only, datagram of this slot."""
        length = self._span.length[slot]
        first = (self.weight(slot) - 1) * self._segments.get(slot, 0)
        return self._vector.payload(slot, first, length)

    def refuse(self, slot: int, datagrams: int) -> None:
        """Leave the last so many datagrams of this slot unanswered."""
        kept = self.weight(slot) - datagrams
        if kept <= 0 or self.trains is None:
            self._refused.add(slot)
            return
        cut = self._span.length[slot] - kept * self._segments[slot]
        self._span.length[slot] -= cut
        self.trains[slot] = kept
        self.datagrams -= datagrams
        self.octets -= cut

    def refuse_each(self, slots: Iterable[int]) -> None:
        """Leave these slots, of one datagram each, unanswered."""
        self._refused.update(slots)

    @staticmethod
    def _all_plain(span: Span, family: socket.AddressFamily) -> bool:
        """Tell in four looks whether all slots are whole, no trains, and sent to a unicast address.

        IPv4: the kernel names the header's destination and the address it would answer from; only for a unicast
        destination are they one. (They also differ for what was queued before IP_PKTINFO was on.)
        """
        if span.control_length != span.plain_control[family] or span.flags != span.zeros:
            return False
        if family == socket.AF_INET:
            return span.destination == span.spec_dst
        return MULTICAST_FIRST_BYTE not in span.destination6_first.tobytes()

    def _inspect(self, span: Span, family: socket.AddressFamily) -> None:
        """Look at each slot: weigh trains and turn them round, mark what must not be answered."""
        words = self._vector.words
        layout = LAYOUTS[family]
        weights = [1] * span.count
        lengths = span.length.tolist()
        for slot, (control, flags) in enumerate(zip(span.control_length.tolist(), span.flags.tolist(), strict=True)):
            at = (self._vector.control_at + slot * CONTROL_BYTES) // 4
            train = control == layout.train and words[at + 3] == UDP_GRO
            if flags & _NOT_WHOLE or not (train or control == layout.plain):
                self.truncated.add(slot)
                continue
            if train:
                # In: UDP_GRO with an int. Out: UDP_SEGMENT with a u16, or EINVAL. Little-endian: same place.
                words[at], words[at + 3] = SEGMENT_CMSG_LENGTH, UDP_SEGMENT
                self._segments[slot] = words[at + 4]
                weights[slot] = -(-lengths[slot] // words[at + 4])
                at += SEGMENT_WORDS
            # Of one queued before IP_PKTINFO was on nothing is known. From 127/8 it can only have come on loopback.
            self._arrivals[slot] = words[at + layout.ifindex] or LOOPBACK_IFINDEX
            words[at + layout.ifindex] = 0
            if not self._unicast(family, at):
                self.not_unicast.add(slot)
        self.trains = weights
        self.datagrams = sum(weights)

    def _unicast(self, family: socket.AddressFamily, at: int) -> bool:
        """Tell whether the PKTINFO message at that word names a unicast destination."""
        words = self._vector.words
        if family == socket.AF_INET6:
            return words[at + 4] & 0xFF != MULTICAST_FIRST_BYTE
        if words[at + 5] == 0:
            # Queued before IP_PKTINFO was on, as the datagram that starts a socket-activated service is. Answer
            # from the destination; the kernel refuses that, with EINVAL or (newer) ENETUNREACH, where it is no unicast
            # address of ours.
            words[at + 5] = words[at + 6]
        return words[at + 5] == words[at + 6]

    # -- out

    def reply(self, port: Port) -> None:
        """Send every slot that was not refused back where it came from, from the address it was sent to.

        Raises OSError where the descriptor is no socket.
        """
        if self.failures:
            self.failures = {}
        sent, count = 0, self._span.count
        if self._alike and not self._refused and not self._may_have_neighbours(port):
            sent = self._vector.answer(port.fd, count)
        if sent == count:
            self.replied, self.replied_octets = self.datagrams, self.octets
        else:
            self._reply_each(port, sent)

    def _may_have_neighbours(self, port: Port) -> bool:
        """Tell by two pairs whether many slots may be of the peer before: joining costs, so see if it can pay."""
        names, step = self.names, NAME_BYTES
        at = len(names) // 2 // step * step
        if not at or not port.longest_joined or len(self._segments) * WORTH_JOINING > self._span.count:
            return False
        return names[:step] == names[step : 2 * step] or names[at - step : at] == names[at : at + step]

    def _reply_each(self, port: Port, sent: int) -> None:
        """Send what is not sent yet, joined where that pays, and find out what became of each message."""
        vector, span = self._vector, self._span
        slots_at, lengths = vector.received_at, span.length
        if self._alike:
            slots_at, lengths = vector.answers_at, vector.answers_length[: span.count]
        else:
            span.iov_length[:] = lengths
        headers_at, count, weights, runs = slots_at, span.count, self.trains, None
        if self._refused or (sent == 0 and self._may_have_neighbours(port)):
            found = self._runs(port)
            if self._refused or len(found) * WORTH_JOINING <= count:
                runs, weights = found, self._compose(port, found, slots_at)
                headers_at, count = vector.composed_at, len(found)
        if sent == 0 and count:
            sent = vector.send(port.fd, headers_at, count)
        if sent == count and not self._refused:
            self.replied, self.replied_octets = self.datagrams, self.octets
            return
        out = Outgoing(headers_at, lengths if runs is None else vector.composed_length[:count], weights, runs)
        dispatch = Dispatch(vector, port, Slots(slots_at, lengths, self._segments))
        self.replied, self.replied_octets, self.failures = dispatch.send(out, sent)

    def _runs(self, port: Port) -> list[range]:
        """Split the slots that were not refused into runs that can each go out as one message."""
        span = self._span
        keys: list[Hashable]
        if self._alike:
            lengths = [span.length[0]] * span.count
            one_peer = self.names[NAME_BYTES:] == self.names[:-NAME_BYTES]
            keys = [b""] * span.count if one_peer else [*self.peers]
        else:
            lengths = span.length.tolist()
            local = span.destination6 if port.family == socket.AF_INET6 else (span.spec_dst,)
            # Equal are those of one length, one peer and one local address.
            keys = list(zip(lengths, self.peers, *(part.tolist() for part in local), strict=True))
        for slot in self._segments:
            keys[slot] = slot  # a train already, equal to nothing else
        for slot in self._refused:
            keys[slot] = None
        return find_runs(keys, lengths, port.longest_joined)

    def _compose(self, port: Port, runs: list[range], slots_at: int) -> list[int]:
        """Build one message for each run from those of its slots, over the same payload; return their datagrams."""
        vector, memory = self._vector, self._vector.memory
        plain = LAYOUTS[port.family].plain
        weights = []
        for message, run in enumerate(runs):
            slot = run.start
            source = slots_at + slot * HEADER_BYTES
            header = vector.composed_at + message * HEADER_BYTES
            memory[header : header + HEADER_BYTES] = memory[source : source + HEADER_BYTES]
            if len(run) == 1:
                weights.append(1 if self.trains is None else self.trains[slot])
                continue
            weights.append(len(run))
            control = vector.composed_control_at + message * CONTROL_BYTES
            vector.join(header, len(run), control, SEGMENT_CMSG_BYTES + plain)
            _SEGMENT.pack_into(
                memory, control, SEGMENT_CMSG_LENGTH, socket.IPPROTO_UDP, UDP_SEGMENT, self._span.length[slot]
            )
            source = vector.answers_control_at if self._alike else vector.control_at + slot * CONTROL_BYTES
            control += SEGMENT_CMSG_BYTES
            memory[control : control + plain] = memory[source : source + plain]
        return weights
