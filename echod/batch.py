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
from bisect import bisect_right
from collections.abc import Hashable, Iterable
from itertools import accumulate
from typing import Final

from echod.arrival import LOOPBACK_IFINDEX, Arrival, form_of, look_at_all, look_at_each, turn_round
from echod.core.peers import NAME_BYTES
from echod.core.trains import WORTH_JOINING, find_alike, find_runs
from echod.dispatch import Dispatch, Outgoing, Slots, raise_fatal
from echod.port import Pattern, Port
from echod.vector import (
    CONTROL_BYTES,
    LAYOUTS,
    SLOTS,
    Layout,
    Span,
    Vector,
    segment,
)

FEWEST_JOINED: Final = 4
"""Slots below which it is not worth to look whether they can be joined."""


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
        self._touched = self._span
        """Slots that were received into since the vector was restored."""
        self._pattern: Pattern | None = None
        """That of the port, where the slots look like it; then the answers are ready."""
        self._answers = b""
        self._arrival = Arrival([])
        self.trains: list[int] | None = None
        self._segments: dict[int, int] = {}
        self._refused: set[int] = set()
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
        if pattern is not None and pattern is self._pattern:
            vector.reopen(self._span)
        else:
            self._start_over(port)
        if self._refused:
            self._refused = set()
        count = vector.receive(port.fd)
        if count < 0:
            self._empty(-count)
            return 0
        span = self._span = vector.spans[count]
        if count > self._touched.count:
            self._touched = span
        self.names, self._peers = memory[span.names], None
        if (
            pattern is not None
            and memory[span.headers] == pattern.headers[span.first]
            and memory[span.control] == pattern.control[span.first]
        ):
            # So the pattern says all that is to be known of the slots.
            self.datagrams, self.octets = count * pattern.weight, count * pattern.length
            if pattern is not self._pattern or pattern.segment:
                self._take_on(pattern, count)
        else:
            self._take_each(span, port)
        return count

    def _start_over(self, port: Port) -> None:
        """Make ready for a receive that may be like none before."""
        vector = self._vector
        vector.restore(self._touched)
        self._touched = vector.spans[0]
        if port.family is not self._family:
            # What a long name left behind would make two of the short ones of IPv4, in its place, look different.
            vector.memory[vector.spans[SLOTS].names] = bytes(SLOTS * NAME_BYTES)
        self._family = port.family

    def _empty(self, error: int) -> None:
        """Hold nothing, after a receive that failed; raise what every later one would meet too."""
        self._span = self._vector.spans[0]
        self.names, self._peers = b"", ()
        self.datagrams = self.octets = 0
        raise_fatal(error)

    def _take_on(self, pattern: Pattern, count: int) -> None:
        """Take a pattern for that of the slots, and its answers for theirs."""
        self._pattern = pattern
        self.whole, self.on_loopback = True, pattern.on_loopback
        self.truncated, self.not_unicast = set(), set()
        self.trains, self._segments = None, {}
        if pattern.segment:
            self.trains, self._segments = [pattern.weight] * count, dict.fromkeys(range(count), pattern.segment)
        if self._answers is not pattern.answers:
            self._vector.memory[self._vector.answers] = self._answers = pattern.answers

    def _take_each(self, span: Span, port: Port) -> None:
        """Find out what is in the slots, where that is not what was there before."""
        vector, family = self._vector, port.family
        self._pattern = None
        lengths = span.length.tolist()
        form = form_of(vector, span, family)
        control = vector.memory[span.control] if form and self._may_be_alike(lengths, port) else b""
        if form:
            arrival = look_at_all(vector, span, family, form, lengths)
        else:
            arrival = look_at_each(vector, span, family, lengths)
        self._arrival = arrival
        self.trains, self._segments = arrival.weights, arrival.segments
        self.truncated, self.not_unicast = arrival.truncated, arrival.not_unicast
        self.datagrams = span.count if self.trains is None else sum(self.trains)
        self.octets = sum(lengths)
        here = arrival.interfaces.count(LOOPBACK_IFINDEX)
        self.whole = here in (0, span.count) and not self.truncated and not self.not_unicast
        self.on_loopback = here > 0
        one = control[:CONTROL_BYTES]
        if one and control == one * span.count:
            self._learn(port, form, lengths[0], one)

    @staticmethod
    def _may_be_alike(lengths: list[int], port: Port) -> bool:
        """Tell whether all are of one length, the second time: learning costs as much as a batch."""
        if lengths.count(lengths[0]) < len(lengths):
            port.last_length = -1
            return False
        last, port.last_length = port.last_length, lengths[0]
        return last == lengths[0]

    def _learn(self, port: Port, form: int, length: int, control: bytes) -> None:
        """Take a batch whose slots are alike for the pattern of those to come, but for its peers and payload."""
        first = self._span.control.start
        turned = self._vector.memory[first : first + CONTROL_BYTES]
        headers, answers = self._vector.alike(port.family, form, length, turned)
        port.pattern = Pattern(
            headers=headers,
            control=control * SLOTS,
            answers=answers,
            form=form,
            length=length,
            segment=self._segments.get(0, 0),
            weight=self.weight(0),
            on_loopback=self.on_loopback,
        )

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Return the peer of each slot. Made when it is first asked for: of most batches nobody does."""
        if self._peers is None:
            self._peers = self._vector.peers(self._span, self._family)
        return self._peers

    def peer(self, slot: int) -> bytes:
        """Return the peer of one slot."""
        at = slot * NAME_BYTES
        return self.names[at : at + LAYOUTS[self._family].peer_length]

    def slot_of(self, datagram: int) -> int:
        """Return the slot that holds the datagram of this number, of those received."""
        if self.trains is None:
            return datagram
        if self._pattern is not None:
            return datagram // self._pattern.weight
        return bisect_right(list(accumulate(self.trains)), datagram)

    def came_in_on_loopback(self, slot: int) -> bool:
        """Tell whether this slot came in on the loopback interface; said as well of one that has no answer anyway."""
        if self.whole:
            return self.on_loopback
        return self._arrival.interfaces[slot] == LOOPBACK_IFINDEX or slot in self.truncated

    def weight(self, slot: int) -> int:
        """Return how many datagrams this slot holds."""
        return 1 if self.trains is None else self.trains[slot]

    def last_datagram(self, slot: int) -> bytes:
        """Return the payload of the last, or only, datagram of this slot."""
        length = self._span.length[slot]
        first = (self.weight(slot) - 1) * self._segments.get(slot, 0)
        return self._vector.payload(slot, first, length)

    def refuses(self, slot: int) -> bool:
        """Tell whether nothing of this slot is to be answered."""
        return slot in self._refused

    def refuse(self, slot: int, datagrams: int) -> None:
        """Leave the last so many datagrams of this slot unanswered."""
        kept = self.weight(slot) - datagrams
        if kept <= 0 or self.trains is None:
            self._refused.add(slot)
            return
        self._turn_round()
        cut = self._span.length[slot] - kept * self._segments[slot]
        self._span.length[slot] -= cut
        self.trains[slot] = kept
        self.datagrams -= datagrams
        self.octets -= cut

    def _turn_round(self) -> None:
        """Make ready to answer each slot by itself: the ready answers are of whole trains."""
        if self._pattern is not None:
            turn_round(self._vector, self._span, self._family, self._pattern.form)
            self._pattern = None

    def refuse_each(self, slots: Iterable[int]) -> None:
        """Leave these slots, of one datagram each, unanswered."""
        self._refused.update(slots)

    # -- out

    def reply(self, port: Port) -> None:
        """Send every slot that was not refused back where it came from, from the address it was sent to.

        Raises OSError where the descriptor is no socket.
        """
        vector, count, runs = self._vector, self._span.count, None
        if self.failures:
            self.failures = {}
        if self._pattern is not None:
            headers_at = vector.answers_at
        else:
            headers_at = vector.received_at
            self._span.iov_length[:] = self._span.length
        if self._refused or (count >= FEWEST_JOINED and self._may_have_neighbours(port)):
            found = self._runs(port)
            if self._refused or 0 < len(found) * WORTH_JOINING <= count:
                runs, count, headers_at = found, len(found), vector.composed_at
                self._compose(port, found)
        sent = vector.send(port.fd, headers_at, count) if count else 0
        if sent == count and not self._refused:
            self.replied, self.replied_octets = self.datagrams, self.octets
        else:
            self._find_out(port, headers_at, runs, sent)

    def _may_have_neighbours(self, port: Port) -> bool:
        """Tell by two pairs whether many slots may be of the peer before: joining costs, so see if it can pay."""
        names, (first, second, before, middle) = self.names, self._span.pairs
        if names[first] != names[second] and names[before] != names[middle]:
            return False
        return port.longest_joined > 0 and len(self._segments) * WORTH_JOINING <= self._span.count

    def _find_out(self, port: Port, headers_at: int, runs: list[range] | None, sent: int) -> None:
        """Find out what becomes of each message, of which so many are sent."""
        vector, span = self._vector, self._span
        slots_at, lengths = vector.received_at, span.length
        if self._pattern is not None:
            slots_at, lengths = vector.answers_at, vector.answers_length[: span.count]
        if runs is None:
            out = Outgoing(headers_at, lengths, self.trains)
        else:
            weights = [self.weight(run.start) if len(run) == 1 else len(run) for run in runs]
            out = Outgoing(headers_at, vector.composed_length[: len(runs)], weights, runs)
        dispatch = Dispatch(vector, port, Slots(slots_at, lengths, self._segments))
        self.replied, self.replied_octets, self.failures = dispatch.send(out, sent)

    def _runs(self, port: Port) -> list[range]:
        """Split the slots that were not refused into runs that can each go out as one message; none: not worth it."""
        span, pattern = self._span, self._pattern
        keys: list[Hashable]
        if pattern is not None:
            if not self._refused and not self._segments:
                return find_alike(self.names, pattern.length, port.longest_joined)
            lengths, keys = [pattern.length] * span.count, [*self.peers]
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

    def _compose(self, port: Port, runs: list[range]) -> None:
        """Build one message for each run from those of its slots, over the same payload."""
        vector, pattern, layout = self._vector, self._pattern, LAYOUTS[port.family]
        if pattern is not None:
            alone = range(vector.answers_control_at, vector.answers_control_at + pattern.form)
            joined = range(vector.answers_joined_at, vector.answers_joined_at + layout.train)
            for message, run in enumerate(runs):
                control = joined if len(run) > 1 else alone
                vector.compose(message, run, layout.name, vector.answers_iovecs_at, control)
            return
        for message, run in enumerate(runs):
            if len(run) > 1:
                control = self._join_control(message, run.start, layout)
            else:
                at = vector.control_at + run.start * CONTROL_BYTES
                control = range(at, at + self._span.control_length[run.start])
            vector.compose(message, run, layout.name, vector.iovecs_at, control)

    def _join_control(self, message: int, slot: int, layout: Layout) -> range:
        """Write the control messages that join what follows to this slot; return where."""
        vector = self._vector
        source = vector.control_at + slot * CONTROL_BYTES
        at = vector.composed_control_at + message * CONTROL_BYTES
        plain = vector.memory[source : source + layout.plain]
        vector.memory[at : at + layout.train] = segment(self._span.length[slot]) + plain
        return range(at, at + layout.train)
