"""A batch of datagrams: one `recvmmsg` in, one `sendmmsg` out, from the same bytes.

Owns the contents of the vector from a receive to its reply, and no longer: no queue, no retry, no waiting. It never
decides which datagrams are answered (`Admission` does) and never counts (`UdpEcho` does); it reports what happened.
Invariant: after `reply`, datagrams = refused + replied + failed, and one datagram that cannot be answered has
never cost another its reply.

A slot holds one datagram, or a *train*: many datagrams of one peer, all of the same length but the last, that the
kernel keeps together (UDP_GRO, UDP_SEGMENT in udp(7)). Trains go out as trains, and adjacent slots that could form a
train are joined into one, because most of the cost of an echo is the path of each packet through the kernel.
"""

import socket
from bisect import bisect_right
from collections.abc import Hashable, Iterable
from itertools import accumulate
from mmap import mmap
from typing import Final

from echod.linux.mmsg import LAYOUTS, Span, Vector
from echod.linux.mmsg_layout import CONTROL_BYTES, NOTED_RECEIVED, NOTED_ROW, SLOTS
from echod.net.peers import NAME_BYTES
from echod.udp.cmsg import LOOPBACK_IFINDEX, Form, Parsed
from echod.udp.sock import Pattern, Port
from echod.udp.trains import WORTH_JOINING, find_alike, find_runs
from echod.udp.transmit import Dispatch, Outgoing, Slots, raise_fatal

FEWEST_JOINED: Final = 4
"""In a batch of fewer slots, the search for slots to join does not pay."""


class Batch:
    """Up to `SLOTS` received datagrams or trains. Each worker has one, used by its sockets in turn.

    After `receive`: `datagrams` and `octets` received; the `names` of the slots, a `sockaddr` in each NAME_BYTES, and
    the `peers`, the part of each name that identifies the peer; the slots that are `truncated` or `not_unicast`;
    `trains`, the number of datagrams in each slot, None if all are single. The batch is `whole` if every slot can be
    answered, and all or none came in on the loopback interface (`on_loopback`). After `reply`: `replied` datagrams,
    `replied_octets`, and `failures`, errno to datagrams.
    """

    def __init__(self, memory: mmap | None = None, control_bytes: int = CONTROL_BYTES) -> None:
        """Lay the vector over a mapping of `mmsg_layout.MEMORY_BYTES`, by default a new one; it is empty.

        `control_bytes` is the room for the control messages of each slot.
        """
        self._vector = Vector(memory, control_bytes)
        self._span: Span = self._vector.spans[0]
        self._touched = self._span
        """Slots that were received into since the vector was restored."""
        self._port: Port
        """The port of the last receive, unset before the first. All that is known of the slots was learned from it."""
        self._pattern: Pattern | None = None
        """The pattern of this port if the slots match it; the answers are then ready."""
        self._answers = b""
        self._parsed = Parsed([])
        self.trains: list[int] | None = None
        self._segments: dict[int, int] = {}
        self._refused: set[int] = set()
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

    # -- in

    def receive(self, port: Port, counted: int = 0) -> int:
        """Fill the slots from the port's queue, without waiting; return the number filled.

        `counted` is what the port's row of the counters says was received. It is noted beside the slots, so that the
        supervisor can count what this process has received and not counted, should it die. Raises OSError if the
        descriptor is not a socket: a defect, which no peer can cause.
        """
        vector, memory, pattern = self._vector, self._vector.memory, port.pattern
        if self._pattern is not None and port is self._port:
            vector.reopen(self._span)
        else:
            self._start_over(port)
        if self._refused:
            self._refused = set()
        vector.longs[NOTED_RECEIVED] = counted  # after the headers are reset, and before they are filled
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
            and memory[span.control] == pattern.control[span.first_control]
        ):
            # The pattern then describes the slots completely.
            self.datagrams, self.octets = count * pattern.weight, count * pattern.length
            if pattern is not self._pattern:
                self._take_on(pattern)
            if pattern.segment:
                self.trains, self._segments = [pattern.weight] * count, dict.fromkeys(range(count), pattern.segment)
        else:
            self._take_each(span, port)
        return count

    def _start_over(self, port: Port) -> None:
        """Prepare for a receive that may differ from those before, and forget all that was learned from those."""
        vector = self._vector
        vector.restore(self._touched)
        vector.longs[NOTED_ROW] = port.row
        self._port, self._pattern = port, None
        self._touched = vector.spans[0]
        if port.family is not self._named:
            # An IPv4 name is shorter: leftover bytes of an IPv6 name after it would make equal names look different.
            vector.memory[vector.spans[SLOTS].names] = bytes(SLOTS * NAME_BYTES)
            self._named = port.family

    def _empty(self, error: int) -> None:
        """Hold nothing, after a failed receive; raise the error if every later receive would fail with it too."""
        self._span = self._vector.spans[0]
        self.names, self._peers = b"", ()
        self.datagrams = self.octets = 0
        raise_fatal(error)

    def _take_on(self, pattern: Pattern) -> None:
        """Adopt a pattern that the slots match, and its answers."""
        self._pattern = pattern
        self.whole, self.on_loopback = True, pattern.on_loopback
        self.truncated, self.not_unicast = set(), set()
        self.trains, self._segments = None, {}
        if self._answers is not pattern.answers:
            self._vector.memory[self._vector.answers] = self._answers = pattern.answers

    def _take_each(self, span: Span, port: Port) -> None:
        """Parse the slots, if they do not match the port's pattern."""
        vector, layout = self._vector, port.control
        self._pattern = None
        lengths = span.length.tolist()
        form, control = layout.common_form(vector, span), b""
        if form is not None:
            if port.may_be_alike(lengths):
                control = vector.memory[span.control]
            parsed = layout.parse_all(vector, span, form, lengths)
        else:
            parsed = layout.parse_each(vector, span, lengths)
        self._parsed = parsed
        self.trains, self._segments = parsed.weights, parsed.segments
        self.truncated, self.not_unicast = parsed.truncated, parsed.not_unicast
        self.datagrams = span.count if self.trains is None else sum(self.trains)
        self.octets = sum(lengths)
        here = parsed.interfaces.count(LOOPBACK_IFINDEX)
        self.whole = here in (0, span.count) and not self.truncated and not self.not_unicast
        self.on_loopback = here > 0
        one = control[: vector.control_bytes]
        if form is not None and one and control == one * span.count:
            self._learn(port, form, lengths[0], one)

    def _learn(self, port: Port, form: Form, length: int, control: bytes) -> None:
        """Make a pattern for later batches of a batch whose slots are alike except for peers and payload."""
        vector, first = self._vector, self._span.control.start
        turned = vector.memory[first : first + vector.control_bytes]
        joined = port.control.join(length, turned) if form.train is None else b""
        headers, answers = vector.alike(port.family, form.length, length, turned, joined)
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
        """Return the peer of each slot. Computed on first use, because most batches do not need it."""
        if self._peers is None:
            self._peers = self._vector.peers(self._span, self._port.family)
        return self._peers

    def peer(self, slot: int) -> bytes:
        """Return the peer of one slot."""
        at = slot * NAME_BYTES
        return self.names[at : at + self._port.peer_length]

    def slot_of(self, datagram: int) -> int:
        """Return the slot that holds the datagram of this number, counted from 0 over the batch."""
        if self.trains is None:
            return datagram
        if self._pattern is not None:
            return datagram // self._pattern.weight
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
        length = self._span.length[slot]
        first = (self.weight(slot) - 1) * self._segments.get(slot, 0)
        return self._vector.payload(slot, first, length)

    def refuses(self, slot: int) -> bool:
        """Tell whether no datagram of this slot is to be answered."""
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
        """Prepare to answer from the slots themselves: the pattern's answers are for whole trains."""
        if self._pattern is not None:
            self._port.control.turn(self._vector, self._span, self._pattern.form)
            self._pattern = None

    def refuse_each(self, slots: Iterable[int]) -> None:
        """Leave these slots, of one datagram each, unanswered."""
        self._refused.update(slots)

    # -- out

    def reply(self, port: Port) -> None:
        """Send every slot that was not refused back to its peer, from the address it was sent to.

        Raises OSError if the descriptor is not a socket.
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
        """Tell from two pairs of slots whether adjacent slots often share a peer, so that the search may pay."""
        names, (first, second, before, middle) = self.names, self._span.pairs
        if names[first] != names[second] and names[before] != names[middle]:
            return False
        return port.longest_joined > 0 and len(self._segments) * WORTH_JOINING <= self._span.count

    def _find_out(self, port: Port, headers_at: int, runs: list[range] | None, sent: int) -> None:
        """Send the messages after the first `sent`, and record the outcome of each."""
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
        """Split the slots that were not refused into runs that can each be one message; empty if that does not pay."""
        span, pattern = self._span, self._pattern
        keys: list[Hashable]
        if pattern is not None:
            if not self._refused and not self._segments:
                return find_alike(self.names, pattern.length, port.longest_joined)
            lengths, keys = [pattern.length] * span.count, [*self.peers]
        else:
            lengths = span.length.tolist()
            # Slots with the same length, peer and local address have equal keys.
            keys = list(zip(lengths, self.peers, *port.control.local_addresses(self._vector, span), strict=True))
        for slot in self._segments:
            keys[slot] = slot  # already a train, equal to no other slot
        for slot in self._refused:
            keys[slot] = None
        return find_runs(keys, lengths, port.longest_joined)

    def _compose(self, port: Port, runs: list[range]) -> None:
        """Build one message for each run, over the payload of its slots."""
        vector, pattern, name_length = self._vector, self._pattern, LAYOUTS[port.family].name
        if pattern is not None:
            alone = range(vector.answers_control_at, vector.answers_control_at + pattern.form.length)
            joined = range(vector.answers_joined_at, vector.answers_joined_at + port.control.train.length)
            for message, run in enumerate(runs):
                control = joined if len(run) > 1 else alone
                vector.compose(message, run, name_length, vector.answers_iovecs_at, control)
            return
        for message, run in enumerate(runs):
            if len(run) > 1:
                control = self._join_control(port, message, run.start)
            else:
                at = vector.control_at + run.start * vector.control_bytes
                control = range(at, at + self._span.control_length[run.start])
            vector.compose(message, run, name_length, vector.iovecs_at, control)

    def _join_control(self, port: Port, message: int, slot: int) -> range:
        """Write the control messages of a run that begins with this slot; return their place in the mapping."""
        vector, size = self._vector, self._vector.control_bytes
        source, at = vector.control_at + slot * size, vector.composed_control_at + message * size
        joined = port.control.join(self._span.length[slot], vector.memory[source : source + size])
        vector.memory[at : at + len(joined)] = joined
        return range(at, at + len(joined))
