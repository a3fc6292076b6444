"""A batch of datagrams: one `recvmmsg` in, one `sendmmsg` out, from the same bytes.

Owns what is in the vector between a receive and its reply, and nothing longer: no queue, no retry, no waiting. It
never decides who is answered (`Admission` does) and never counts (`UdpEcho` does); it says what happened.
Invariant: after `reply`, datagrams = refused + replied + failed, and one datagram that cannot be answered has
never cost another its reply.

A slot holds one datagram, or a *train*: many of one peer, all of the same length but the last, that the kernel
keeps together (UDP_GRO, UDP_SEGMENT in udp(7)). Trains go out as trains, and neighbours in the batch that could be
one are joined into one, because the walk of each packet through the kernel is what an echo costs.
"""

import errno
import os
import socket
from collections.abc import Hashable
from contextlib import suppress
from typing import Final

from echod.core.trains import find_runs
from echod.port import Port
from echod.sockets import UDP_GRO
from echod.vector import (
    CONTROL_BYTES,
    HEADER_BYTES,
    IOVEC_BYTES,
    LAYOUTS,
    MULTICAST_FIRST_BYTE,
    SEGMENT_CMSG_BYTES,
    SEGMENT_WORDS,
    SLOTS,
    Outgoing,
    Span,
    Vector,
)

UDP_SEGMENT: Final = 103

SEGMENT_CMSG_LENGTH: Final = 18
"""`CMSG_LEN(sizeof(u16))`: UDP_SEGMENT takes no other."""

WORTH_JOINING: Final = 2
"""Datagrams a message, on the average, below which joining costs more time here than it saves in the kernel."""

LOOPBACK_IFINDEX: Final = 1
"""Of `lo`, in every network namespace (include/net/flow.h)."""

_NOT_WHOLE: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC
_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK})
_NO_TRAIN: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})
"""What the kernel says of a train that the route or the device cannot take, though each datagram may pass."""


class Batch:
    """Up to `SLOTS` received datagrams or trains. One for each worker, used by one socket after another.

    After `receive`: `datagrams` and `octets` received; the `peers` of the slots, as they lie in a `sockaddr`, and the
    `distinct` ones among them; the slots that are `truncated` or `not_unicast`. After `reply`: `replied` datagrams,
    `replied_octets`, and `failures`, errno to datagrams.
    """

    def __init__(self) -> None:
        """Map the vector; it is empty."""
        self._vector = Vector()
        self._span: Span = self._vector.spans[0]
        self._weights: list[int] | None = None
        self._segments: dict[int, int] = {}
        self._refused: set[int] = set()
        self._arrivals: list[int] = []
        self.peers: tuple[bytes, ...] = ()
        self.distinct: set[bytes] = set()
        self.truncated: set[int] = set()
        self.not_unicast: set[int] = set()
        self.datagrams = self.octets = self.replied = self.replied_octets = 0
        self.failures: dict[int, int] = {}

    # -- in

    def receive(self, port: Port) -> int:
        """Fill the slots from the port's queue, without waiting; return how many.

        Raises OSError where the descriptor is no socket: that is a defect, not a peer's doing.
        """
        vector = self._vector
        vector.restore(self._span)
        if self._weights is not None:
            self._weights, self._segments = None, {}
        self._refused, self.truncated, self.not_unicast = set(), set(), set()
        count = vector.receive(port.fd)
        if count < 0:
            self._span = vector.spans[0]
            self.peers, self.distinct = (), set()
            self.datagrams = self.octets = 0
            self._look_at_receive_error(vector.error())
            return 0
        span = self._span = vector.spans[count]
        self.datagrams = count
        self.octets = sum(span.length.tolist())
        self.peers = vector.peers(span, port.family)
        self.distinct = set(self.peers)
        self._arrivals = span.ifindex[port.family].tolist()
        if self._all_plain(span, port.family):
            # Left as it came, the index would force the reply out of that interface, past the routing table.
            span.ifindex[port.family][:] = span.zeros32
        else:
            self._inspect(span, port.family)
        return count

    @property
    def uniform(self) -> bool:
        """Whether all slots are single datagrams, whole, sent to a unicast address, and came in the same way."""
        on_loopback = self._arrivals.count(LOOPBACK_IFINDEX)
        return self._weights is None and on_loopback in (0, len(self._arrivals))

    def came_in_on_loopback(self, slot: int) -> bool:
        """Tell whether this slot came in on the loopback interface, or cannot be answered wherever it came in."""
        return self._arrivals[slot] == LOOPBACK_IFINDEX or slot in self.truncated

    def weight(self, slot: int) -> int:
        """Return how many datagrams this slot holds."""
        return 1 if self._weights is None else self._weights[slot]

    def last_datagram(self, slot: int) -> bytes:
        """Return the payload of the last, or only, datagram of this slot."""
        length = self._span.length[slot]
        first = (self.weight(slot) - 1) * self._segments.get(slot, 0)
        return self._vector.payload(slot, first, length)

    def refuse(self, slot: int, datagrams: int) -> None:
        """Leave the last so many datagrams of this slot unanswered."""
        kept = self.weight(slot) - datagrams
        if kept <= 0 or self._weights is None:
            self._refused.add(slot)
            return
        cut = self._span.length[slot] - kept * self._segments[slot]
        self._span.length[slot] -= cut
        self._weights[slot] = kept
        self.datagrams -= datagrams
        self.octets -= cut

    @staticmethod
    def _look_at_receive_error(error: int) -> None:
        """Pass over what a later receive may not meet; raise what every later one would."""
        if error in _FATAL:
            raise OSError(error, os.strerror(error))

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
        self._weights = weights
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
        vector, span = self._vector, self._span
        span.iov_length[:] = span.length
        if self.failures:
            self.failures = {}
        runs = self._runs(port) if self._refused or self._has_neighbours(port) else None
        if runs is None or (len(runs) * WORTH_JOINING > span.count and not self._refused):
            sent = vector.send(port.fd, vector.received_at, span.count)
            if sent == span.count:
                self.replied, self.replied_octets = self.datagrams, self.octets
                return
            out = Outgoing(vector.received_at, span.length, self._weights)
        else:
            out, sent = self._compose(runs), 0
        self.replied = self.replied_octets = 0
        self._send(port, out, sent)

    def _has_neighbours(self, port: Port) -> bool:
        """Tell whether two slots may be of one peer: joining costs, so look first if it can pay."""
        return port.longest_joined > 0 and len(self.distinct) < self._span.count

    def _runs(self, port: Port) -> list[range]:
        """Split the slots that were not refused into runs that can each go out as one message."""
        span = self._span
        ipv6 = port.family == socket.AF_INET6
        local = span.destination6 if ipv6 else (span.spec_dst,)
        lengths = span.length.tolist()
        # Equal are those of one length, one peer and one local address.
        keys: list[Hashable] = list(zip(lengths, self.peers, *(part.tolist() for part in local), strict=True))
        for slot in self._segments:
            keys[slot] = slot  # a train already, equal to nothing else
        for slot in self._refused:
            keys[slot] = None
        return find_runs(keys, lengths, port.longest_joined)

    def _compose(self, runs: list[range]) -> Outgoing:
        """Build the outgoing vector: one message for each run, over the received payload."""
        vector = self._vector
        octets, longs, words = vector.octets, vector.longs, vector.words
        weights = []
        for message, run in enumerate(runs):
            slot = run.start
            source = vector.received_at + slot * HEADER_BYTES
            header = vector.composed_at + message * HEADER_BYTES
            octets[header : header + HEADER_BYTES] = octets[source : source + HEADER_BYTES]
            if len(run) == 1:
                weights.append(1 if self._weights is None else self._weights[slot])
                continue
            weights.append(len(run))
            control = vector.composed_control_at + message * CONTROL_BYTES
            longs[header // 8 + 3] = len(run)
            longs[header // 8 + 4] = vector.base + control
            longs[header // 8 + 5] += SEGMENT_CMSG_BYTES
            longs[control // 8] = SEGMENT_CMSG_LENGTH
            words[control // 4 + 2], words[control // 4 + 3] = socket.IPPROTO_UDP, UDP_SEGMENT
            words[control // 4 + 4] = self._span.length[slot]
            source = vector.control_at + slot * CONTROL_BYTES
            control += SEGMENT_CMSG_BYTES
            room = CONTROL_BYTES - SEGMENT_CMSG_BYTES
            octets[control : control + room] = octets[source : source + room]
        return Outgoing(vector.composed_at, vector.composed_length[: len(runs)], weights, runs)

    def _send(self, port: Port, out: Outgoing, sent: int = 0) -> None:
        """Send all messages; what the kernel refuses is passed over, alone, and recorded.

        `sent` is what a first attempt returned; the error of one that failed comes again.
        """
        count, done = len(out.lengths), 0
        while True:
            if sent > 0:
                self.replied += out.weight(done, done + sent)
                self.replied_octets += sum(out.lengths[done : done + sent].tolist())
                done += sent
            if done == count:
                return
            sent = self._vector.send(port.fd, out.headers_at + done * HEADER_BYTES, count - done)
            if sent > 0:
                continue
            error = self._vector.error()
            if error in _FATAL:
                raise OSError(error, os.strerror(error))
            if error == errno.EAGAIN:
                # The send buffer is full. Waiting would make every other client wait too.
                self._fail(error, out.weight(done, count))
                return
            if error in _NO_TRAIN and (out.weight(done, done + 1) > 1 or self._is_cut(out, done)):
                self._send_apart(port, error, out.run(done))
            else:
                self._fail(error, out.weight(done, done + 1))
            done += 1

    def _is_cut(self, out: Outgoing, message: int) -> bool:
        """Tell whether this is a train that was cut to one datagram: it still asks to be taken apart."""
        whole = out.headers_at in (self._vector.received_at, self._vector.composed_at)
        return whole and out.run(message).start in self._segments

    def _fail(self, error: int, datagrams: int) -> None:
        self.failures[error] = self.failures.get(error, 0) + datagrams

    def _send_apart(self, port: Port, error: int, run: range) -> None:
        """Send the datagrams of a train that the kernel refused one by one, and learn from it."""
        vector, span = self._vector, self._span
        if error == errno.EIO:
            # No checksum offload on the way out: no train will ever pass, so let the kernel make none for us.
            port.longest_joined = 0
            with suppress(OSError):
                port.sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
        if len(run) > 1:
            port.longest_joined = min(port.longest_joined, span.length[run.start] - 1)
            self._send(
                port,
                Outgoing(vector.received_at + run.start * HEADER_BYTES, span.length[run.start : run.stop]),
            )
            return
        slot = run.start
        segment = self._segments[slot]
        starts = range(0, span.length[slot], segment)
        for chunk in (starts[i : i + SLOTS] for i in range(0, len(starts), SLOTS)):
            self._split(slot, chunk)
            self._send(port, Outgoing(vector.apart_at, vector.apart_length[: len(chunk)]))

    def _split(self, slot: int, starts: range) -> None:
        """Build one message for each segment of a train that starts at one of these offsets of the slot."""
        vector = self._vector
        octets, longs = vector.octets, vector.longs
        source = vector.received_at + slot * HEADER_BYTES
        end = self._span.length[slot]
        for message, start in enumerate(starts):
            header = vector.apart_at + message * HEADER_BYTES
            iovec = vector.apart_iovecs_at + message * IOVEC_BYTES
            octets[header : header + HEADER_BYTES] = octets[source : source + HEADER_BYTES]
            longs[header // 8 + 2] = vector.base + iovec
            longs[header // 8 + 4] += SEGMENT_CMSG_BYTES
            longs[header // 8 + 5] -= SEGMENT_CMSG_BYTES
            longs[iovec // 8] = longs[(vector.iovecs_at + slot * IOVEC_BYTES) // 8] + start
            longs[iovec // 8 + 1] = min(starts.step, end - start)
