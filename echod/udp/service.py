"""Echo on one UDP socket: receive, admit, reply.

Owns the path of a datagram and its accounting. Never waits, never logs, never raises for what a peer sent.
Invariant: every received datagram is counted exactly once: as replied, as one drop, or as one send failure.
"""

from collections import Counter
from collections.abc import Callable
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Final

from echod.admission.admission import Admission
from echod.admission.loops import LoopDetector
from echod.linux.mmsg_layout import SLOTS
from echod.net.peers import address_of
from echod.stats.counters import UdpField, send_failed_field, train_field
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.stats.top_sources import TopSources
from echod.udp.batch import Batch
from echod.udp.refusal import refuse
from echod.udp.reply import send
from echod.udp.sock import UdpSocket

MAX_BATCHES_PER_WAKEUP: Final = 8
"""Most batches of one socket in one turn of the loop, so that a flood on it starves no other."""
BATCHES: Final = range(MAX_BATCHES_PER_WAKEUP)

WORTH_ANOTHER_LOOK: Final = 16
"""Slots. While a batch of at least this size was answered, more datagrams have most likely arrived."""

_LEAST_OF_A_TURN: Final = MAX_BATCHES_PER_WAKEUP * SLOTS * 512
"""Bytes that so many datagrams take of a receive buffer at the least: the kernel counts its own headers (socket(7))."""

PASSED_OVER: Final = 8
"""After an empty receive, so many smaller batches are not followed by another receive. The loop polls instead, which
costs more than a receive that finds something, and less than an empty one."""

# As plain integers: indexing with the enum itself costs as much as the counting.
_RECEIVED: Final = int(UdpField.RECEIVED)
_RECEIVED_BYTES: Final = int(UdpField.RECEIVED_BYTES)
_REPLIED: Final = int(UdpField.REPLIED)
_REPLIED_BYTES: Final = int(UdpField.REPLIED_BYTES)
_BATCH: Final = [UdpField.BATCHES + max(slots - 1, 0).bit_length() for slots in range(SLOTS + 1)]
"""The counter of a batch, by the number of slots that it filled."""


Reply = Callable[[Batch, UdpSocket], None]
"""What sends the replies to a batch, of which some slots were refused, and records in it what became of them."""

Identity = Callable[[bytes], bytes]
"""What of a datagram stays the same when it circulates, although a mode writes into it each time."""


class UdpEcho:
    """One UDP socket of a worker."""

    def __init__(  # noqa: PLR0913 - each is a part that the worker owns and shares out
        self,
        sock: UdpSocket,
        batch: Batch,
        admission: Admission,
        row: memoryview,
        *,
        tally: Tally,
        top_sources: TopSources,
        reply: Reply = send,
        identity: Identity | None = None,
    ) -> None:
        """Share the worker's batch, admission and top_sources.

        Count into this listener's row, and count refusals into its tally. `reply` and `identity` are those of its mode;
        an echo sends all of a datagram back, so that all of it is compared.
        """
        self.sock = sock
        self._top_sources = top_sources
        self._batch = batch
        self._admission = admission
        self._row = row
        self._tally = tally
        self._reply = reply
        self._identity = identity
        self._in_vain = 0
        """Small batches still to go without another receive."""

    def on_readable(self, now: float) -> None:
        """Answer queued datagrams, at most MAX_BATCHES_PER_WAKEUP batches."""
        batch, admission, row, sock, reply = self._batch, self._admission, self._row, self.sock, self._reply
        top_sources, loop_detector, limited = self._top_sources, admission.loop_detector, admission.limited
        for _ in BATCHES:
            counted = row[_RECEIVED]
            slots = batch.receive(sock, counted)
            if not slots:
                self._in_vain = PASSED_OVER
                return
            datagrams = batch.datagrams
            row[_RECEIVED] = counted + datagrams
            row[_RECEIVED_BYTES] += batch.octets
            row[_BATCH[slots]] += 1
            top_sources.undrawn += datagrams
            if top_sources.undrawn >= top_sources.draw_at:
                top_sources.draw(batch.slot_of, batch.peer, datagrams)
            if batch.trains is not None:
                self._count_trains(batch.trains)
            cleared = batch.whole and admission.clears_all(batch.names, sock.peer_length, batch.on_loopback)
            if limited or not cleared:
                self._decide(now, cleared=cleared)
            if loop_detector is not None:
                loop_detector.left -= batch.datagrams
                if loop_detector.left <= 0:
                    self._detect_loops(loop_detector)
            reply(batch, sock)
            row[_REPLIED] += batch.replied
            row[_REPLIED_BYTES] += batch.replied_octets
            if batch.failures:
                self._count_failures(batch.failures)
            if slots < WORTH_ANOTHER_LOOK and self._in_vain:
                self._in_vain -= 1
                return

    def drain(self, now: float) -> None:
        """Answer all that is queued; of what comes meanwhile no more than the queue can hold: a flood never ends."""
        row, turns = self._row, 1 + self.sock.sock.getsockopt(SOL_SOCKET, SO_RCVBUF) // _LEAST_OF_A_TURN
        for _ in range(turns):
            received = row[_RECEIVED]
            self.on_readable(now)
            if row[_RECEIVED] == received:
                return

    def _count_failures(self, failures: dict[int, int]) -> None:
        for error, datagrams in failures.items():
            self._row[send_failed_field(error)] += datagrams

    def _count_trains(self, weights: list[int]) -> None:
        """Count the trains of a batch by their length; most often all are of one."""
        row, first = self._row, weights[0]
        alike = weights.count(first) == len(weights)
        for weight, trains in ((first, len(weights)),) if alike else Counter(weights).items():
            if weight > 1:
                row[UdpField.TRAIN_DATAGRAMS] += weight * trains
                row[train_field(weight)] += trains

    def _decide(self, now: float, *, cleared: bool) -> None:
        """Decide which slots are answered; with limits, also in a batch that the rules let pass."""
        batch, admission = self._batch, self._admission
        slipped = admission.slipped
        if not batch.whole or batch.trains is not None:
            self._admit_each(now)
        elif cleared:
            self._refuse_each(admission.charge_all(batch.names, self.sock.peer_length, now), now)
        else:
            self._refuse_each(admission.admit_all(batch.peers, on_loopback=batch.on_loopback, now=now), now)
        if admission.slipped != slipped:
            self._row[UdpField.SLIPPED] += admission.slipped - slipped

    def _admit_each(self, now: float) -> None:
        """Decide slot by slot: for trains, and for a batch that is not `whole`."""
        batch, admission = self._batch, self._admission
        for slot, peer in enumerate(batch.peers):
            weight, on_loopback = batch.weight(slot), batch.came_in_on_loopback(slot)
            unicast, truncated = slot not in batch.not_unicast, slot in batch.truncated
            drop = admission.admit(peer, on_loopback=on_loopback, unicast=unicast, truncated=truncated)
            if drop is Drop.SOURCE_PORT_OWN and admission.may_be_test(peer):
                self._look_for_test(slot, now)
            elif drop is not None:
                self._refuse(slot, drop, weight)
            else:
                self._charge(slot, peer, now)

    def _charge(self, slot: int, peer: bytes, now: float) -> None:
        """Answer as much of a slot as the limits allow."""
        weight = self._batch.weight(slot)
        within = self._admission.take(peer, weight, now)
        if within < weight:
            self._refuse(slot, Drop.RATE, weight - within)

    def _look_for_test(self, slot: int, now: float) -> None:
        """Answer a self test; judge any other datagram from the self-test port like one from any port."""
        batch, admission = self._batch, self._admission
        peer, weight = batch.peers[slot], batch.weight(slot)
        if self._is_test(slot, peer):
            self._row[UdpField.SELF_TEST] += 1
            batch.tests.add(slot)
            return
        drop = admission.judge_address(peer, on_loopback=batch.came_in_on_loopback(slot))
        if drop is None and slot in batch.truncated:
            drop = Drop.TRUNCATED
        if drop is not None:
            self._refuse(slot, drop, weight)
        else:
            self._charge(slot, peer, now)

    def _is_test(self, slot: int, peer: bytes) -> bool:
        """Tell whether a slot holds a self test and nothing else."""
        batch, admission = self._batch, self._admission
        alone = admission.may_be_test(peer) and batch.weight(slot) == 1
        return alone and admission.is_test(peer, batch.last_datagram(slot))

    def _detect_loops(self, loop_detector: LoopDetector) -> None:
        """Check the sampled datagrams (of a train, its last), and refuse those that circulate; exempt self tests."""
        batch = self._batch
        for slot in dict.fromkeys(map(batch.slot_of, loop_detector.choose(batch.datagrams))):
            peer = batch.peer(slot)
            if slot in batch.refused or self._is_test(slot, peer):
                continue
            datagram = batch.last_datagram(slot)
            if loop_detector.repeats(peer, datagram if self._identity is None else self._identity(datagram)):
                self._refuse(slot, Drop.LOOP, 1)

    def _refuse_each(self, refused: dict[int, Drop], now: float) -> None:
        """Leave these slots, of one datagram each, unanswered; those of one reason and address are counted at once."""
        if not refused:
            return
        peers, may_be_test = self._batch.peers, self._admission.may_be_test
        if Drop.SOURCE_PORT_OWN in refused.values():
            for slot in [slot for slot, drop in refused.items() if drop is Drop.SOURCE_PORT_OWN]:
                if may_be_test(peers[slot]):
                    del refused[slot]
                    self._look_for_test(slot, now)
        self._batch.refused.update(refused)
        alike = Counter((drop, address_of(peers[slot])) for slot, drop in refused.items())
        for (drop, address), datagrams in alike.items():
            self._row[UdpField.DROPPED + drop] += datagrams
            self._tally.add(drop, address, datagrams)

    def _refuse(self, slot: int, drop: Drop, datagrams: int) -> None:
        """Leave the last so many datagrams of a slot unanswered, and count why."""
        refuse(self._batch, self._row, self._tally, slot, drop, datagrams)
