"""An echo behind a path that misbehaves: `impair` in the config.

Each admitted datagram but a self test meets the path once, between its receive and its reply; the replies are not
delayed again on their way back. Owns the datagrams that are held, and when they are sent. Invariants: a datagram is
held, replied to, dropped or has failed, and the row always has the number of those that are held; the work of a turn is
bounded. Never waits, never logs, never raises for what a peer sent.
"""

import errno
from collections.abc import Sequence
from math import inf
from random import Random
from time import monotonic_ns
from typing import Final

from echod.linux.mmsg import NAMES, Vector, constant
from echod.linux.mmsg_layout import HEADER_BYTES, MAX_CONTROL_BYTES, SLOT_BYTES, SLOTS
from echod.linux.poll import Poll
from echod.net.link import Link
from echod.net.mode import Impairment
from echod.net.peers import NAME_BYTES, address_of
from echod.stats.counters import UdpField, send_failed_field
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.udp.batch import Batch
from echod.udp.impairment import (
    CORRUPTED,
    DUPLICATED,
    HEADER_OCTETS,
    LOST,
    REORDERED,
    Datagram,
    Fates,
    Held,
    flip,
)
from echod.udp.reply import send
from echod.udp.service import BATCHES
from echod.udp.sock import UdpSocket
from echod.udp.transmit import raise_fatal

_IMPAIRED: Final = int(UdpField.DROPPED + Drop.IMPAIRED)
_HELD: Final = int(UdpField.HELD)

_AHEAD: Final = 50_000
"""Ns, about as long as a wake-up takes. So much before something is due this process wakes up; what else is due so soon
leaves with it."""

Fate = tuple[int, float, int]


class ImpairedEcho:
    """The replies of one socket."""

    def __init__(self, impairment: Impairment, sock: UdpSocket, row: memoryview, tally: Tally, *, poll: Poll) -> None:
        """Reply from this socket, also when the poll says that something is due; count into this row.

        What finds the queue full is tallied, what is lost is not.
        """
        self._sock = sock
        self._row = row
        self._tally = tally
        self._fates = Fates(impairment, Random(impairment.seed).random)  # noqa: S311 - no secret
        self._link = Link(impairment.rate)
        self._headers = HEADER_OCTETS[sock.peer_length]
        self._at_once = not (impairment.delay or impairment.jitter or impairment.rate)
        """Whether what is not reordered leaves in the turn in which it came."""
        self._held = Held(impairment.queue)
        self._vector = Vector(control_bytes=MAX_CONTROL_BYTES)
        """What is held is sent from here, one datagram in each slot."""
        self._vector.longs[1 : SLOTS * HEADER_BYTES // 8 : HEADER_BYTES // 8] = constant("Q", NAMES[sock.family][0])
        self._poll = poll
        self._call_at = inf
        self._draining = False

    def __len__(self) -> int:
        """Return how many datagrams are held."""
        return len(self._held)

    # -- in

    def reply(self, batch: Batch, sock: UdpSocket) -> None:
        """Let the datagrams of a batch meet their fates."""
        draw, spared = self._fates.draw, batch.refused | batch.tests
        slots = [slot for slot in range(batch.span.count) if slot not in spared]
        if batch.trains is None:
            fates = [[draw()] for _ in slots]
        else:
            fates = [[draw() for _ in range(batch.trains[slot])] for slot in slots]
        if self._at_once and not self._held and all(map(_keeps_place, fates)):
            self._change(batch, slots, fates)
        else:
            now = monotonic_ns()
            for slot, each in zip(slots, fates, strict=True):
                self._hold(batch, slot, each, now)
            batch.refused.update(slots)
            while self._at_once and self._send_due(now):
                pass
            self._wait_for_due()
        send(batch, sock)

    def _change(self, batch: Batch, slots: list[int], fates: list[list[Fate]]) -> None:
        """Lose and corrupt datagrams of a batch that goes out as it came otherwise."""
        vector, row = batch.vector, self._row
        for slot, each in zip(slots, fates, strict=True):
            length = batch.span.length[slot]
            step = batch.segments.get(slot, length)
            for number, (marks, place, _) in enumerate(each):
                if marks & LOST:
                    batch.refuse(slot, 1)
                    row[_IMPAIRED] += 1
                elif marks & CORRUPTED and length:
                    first, after = number * step, min((number + 1) * step, length)
                    at = slot * SLOT_BYTES + first
                    vector.payload_octets[at : at + after - first] = flip(vector.payload(slot, first, after), place)
                    row[UdpField.CORRUPTED] += 1

    def _hold(self, batch: Batch, slot: int, fates: list[Fate], now: int) -> None:
        """Hold the datagrams of a slot until each is due."""
        vector, row, held, headers = batch.vector, self._row, self._held, self._headers
        name = batch.names[slot * NAME_BYTES : (slot + 1) * NAME_BYTES]
        control, length, refused = self._control(batch, slot), batch.span.length[slot], 0
        step = batch.segments.get(slot, length)
        for number, (marks, place, delay) in enumerate(fates):
            if marks & LOST:
                row[_IMPAIRED] += 1
                continue
            payload = vector.payload(slot, number * step, min((number + 1) * step, length))
            if not held.has_room(len(payload)):
                refused += 1
                continue
            due = self._link.carry(now, len(payload) + headers) + delay
            if marks:
                payload = self._mark(payload, marks, place, now)
            held.add(due, Datagram(name, control, payload, marks))
            row[_HELD] += 1
        if refused:
            row[UdpField.DROPPED + Drop.IMPAIR_QUEUE] += refused
            self._tally.add(Drop.IMPAIR_QUEUE, address_of(batch.peer(slot)), refused)

    def _mark(self, payload: bytes, marks: int, place: float, now: int) -> bytes:
        """Let a datagram take its time twice, or count its wrong bit; return its payload after that."""
        if marks & DUPLICATED:
            self._link.carry(now, len(payload) + self._headers)  # the duplicate takes its time there, too
        if not (marks & CORRUPTED and payload):
            return payload
        self._row[UdpField.CORRUPTED] += 1
        return flip(payload, place)

    def _control(self, batch: Batch, slot: int) -> bytes:
        """Return the control messages of the reply to one datagram of a slot."""
        vector = batch.vector
        if batch.pattern is not None:
            at, length = vector.answers_control_at, batch.pattern.form.length
        else:
            at, length = vector.control_at + slot * vector.control_bytes, batch.span.control_length[slot]
        alone = self._sock.control.segment_end(length) if slot in batch.segments else 0
        return vector.memory[at + alone : at + length]

    # -- out

    def _on_due(self, _now: float) -> None:
        """Send what is due, as much as may have come in one turn; the next turn comes at once if there is more."""
        self._call_at, until = inf, monotonic_ns() + _AHEAD
        for _ in BATCHES:
            if not self._send_due(until):
                break
        self._wait_for_due()

    def drain(self) -> None:
        """Close the socket as soon as nothing is held: no more will come."""
        self._draining = True
        self._wait_for_due()

    def flush(self) -> None:
        """Send all that is held at once, in the order in which it is due."""
        while self._send_due(inf):
            pass
        self._wait_for_due()

    def _wait_for_due(self) -> None:
        """Be called when something is due; a call that comes too early costs nothing. Close when all has left."""
        due = self._held.next_due()
        if due < self._call_at:
            self._call_at = due
            self._poll.call_at(due - _AHEAD, self._on_due)
        if self._draining and not self._held:
            self._sock.sock.close()

    def _send_due(self, now: float) -> bool:
        """Send what is due, at most what the vector has room for; tell whether there may be more."""
        held, vector, row = self._held, self._vector, self._row
        span, originals = vector.spans[SLOTS], list[bool]()
        while len(originals) < SLOTS - 1 and (datagram := held.pop(now)) is not None:
            if datagram.marks & REORDERED:
                row[UdpField.REORDERED] += 1
            for original in (True, False) if datagram.marks & DUPLICATED else (True,):
                slot = len(originals)
                at, control_at = vector.names_at + slot * NAME_BYTES, vector.control_at + slot * MAX_CONTROL_BYTES
                vector.memory[at : at + NAME_BYTES] = datagram.name
                vector.memory[control_at : control_at + len(datagram.control)] = datagram.control
                span.control_length[slot], span.iov_length[slot] = len(datagram.control), len(datagram.payload)
                payload_at = slot * SLOT_BYTES
                vector.payload_octets[payload_at : payload_at + len(datagram.payload)] = datagram.payload
                originals.append(original)
        if originals:
            row[_HELD] -= sum(originals)
            self._send(originals)
        return len(originals) >= SLOTS - 1

    def _send(self, originals: Sequence[bool]) -> None:
        """Send the first slots of the vector; count those that are originals as replied, the others as duplicated."""
        vector, row, done = self._vector, self._row, 0
        while done < len(originals):
            sent = vector.send(self._sock.fd, vector.received_at + done * HEADER_BYTES, len(originals) - done)
            for slot in range(done, done + max(0, sent)):
                if originals[slot]:
                    row[UdpField.REPLIED] += 1
                    row[UdpField.REPLIED_BYTES] += vector.spans[SLOTS].iov_length[slot]
                else:
                    row[UdpField.DUPLICATED] += 1
            done += max(0, sent)
            if sent <= 0:
                raise_fatal(-sent)
                after = len(originals) if sent == -errno.EAGAIN else done + 1  # the send buffer is full
                row[send_failed_field(-sent)] += sum(originals[done:after])
                done = after


def _keeps_place(fates: list[Fate]) -> bool:
    """Tell whether a slot with these fates is sent as one, or not at all."""
    apart = DUPLICATED | REORDERED | (LOST if len(fates) > 1 else 0)
    return not any(marks & apart for marks, _, _ in fates)
