"""May this datagram be answered?

Owns the order of the checks, and the state that they need: no socket, no clock, no counter. Invariant: a decision is a
value, `None` for yes or the `Drop` that says why not, and never an exception, whatever a peer sends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from echod.admission.loops import LoopDetector
from echod.admission.ratelimit import RateLimit
from echod.admission.rules import Rules, Verdict
from echod.admission.selftest import SelfTest
from echod.net.networks import Network
from echod.net.peers import source_of, sources_in, sources_of
from echod.stats.outcomes import Drop


class Admission:
    """The rules of one worker, with their state: the peers admitted so far, rates and samples."""

    def __init__(
        self,
        rules: Rules,
        *,
        sources: int,
        limit: RateLimit | None = None,
        loop_detector: LoopDetector | None = None,
        self_test: SelfTest | None = None,
    ) -> None:
        """Remember at most `sources` peers.

        Without `loop_detector` no loop is broken. The port of `self_test` must be one of the own ports of the rules.
        """
        self._self_test = self_test
        self._test_port = self_test.port.to_bytes(2, "big") if self_test is not None else None
        self._sources = sources
        self._limit = limit
        self.limited = limit is not None
        """Whether each datagram has to be charged."""
        self.loop_detector = loop_detector
        """The sampling that finds datagrams in a loop."""
        self._known: dict[bool, set[bytes]] = {False: set(), True: set()}
        self._apply(rules)

    def _apply(self, rules: Rules) -> None:
        """Apply these rules from now on, and forget earlier decisions."""
        self._rules = rules
        self.clears_all = rules.clears_all
        """Tells from the names of a batch whether the rules admit it as a whole, as they do with most batches."""
        self.judge_address = rules.judge_address
        """Decides on a peer with the port of self tests as if it had any other."""
        for known in self._known.values():
            known.clear()

    @property
    def slipped(self) -> int:
        """Datagrams over the limit that were answered, since the start."""
        return self._limit.slipped if self._limit is not None else 0

    def set_own_addresses(self, own: Iterable[Network]) -> None:
        """Set this host's own addresses."""
        self._apply(Rules(replace(self._rules.declared, own_addresses=tuple(own))))

    def admit_all(self, peers: Sequence[bytes], *, on_loopback: bool, now: float) -> dict[int, Drop]:
        """Decide on a batch of single, whole, unicast datagrams, by their peers.

        Returns the index of each that is not answered, with the reason.
        """
        refused: dict[int, Drop] = {}
        known = self._known[on_loopback]
        if not known.issuperset(peers):
            unknown = set(peers) - known
            by_peer = self._rules.judge_each(unknown, on_loopback=on_loopback)
            if len(known) + len(unknown) > self._sources:
                # Forget all at once. The only cost is that returning peers are judged again.
                known.clear()
            known |= unknown.difference(by_peer) if by_peer else unknown
            if by_peer:
                refused = {index: by_peer[peer] for index, peer in enumerate(peers) if peer in by_peer}
        if self._limit is not None and len(refused) < len(peers):
            # Charge those that are not refused yet.
            slots = [slot for slot in range(len(peers)) if slot not in refused] if refused else range(len(peers))
            over = self._limit.take_each(sources_of([peers[slot] for slot in slots] if refused else peers), now)
            refused |= {slots[index]: Drop.RATE for index in over}
        return refused

    def charge_all(self, names: bytes, peer_length: int, now: float) -> dict[int, Drop]:
        """Charge a batch of single datagrams that the rules admit; return what `admit_all` does."""
        if self._limit is None:
            return {}
        over = self._limit.take_each(sources_in(names, peer_length), now)
        return dict.fromkeys(over, Drop.RATE)

    # -- slot by slot: trains, and slots that are truncated or not unicast

    def admit(self, peer: bytes, *, on_loopback: bool, unicast: bool, truncated: bool) -> Verdict:
        """Decide on one datagram, or train, by all rules that need no state."""
        if not unicast:
            return Drop.DESTINATION_NOT_UNICAST
        drop = self._rules.judge(peer, on_loopback=on_loopback)
        return Drop.TRUNCATED if drop is None and truncated else drop

    # -- datagrams refused because they came from the port of self tests

    def may_be_test(self, peer: bytes) -> bool:
        """Tell whether a peer has the port of self tests: it must then be judged by `is_test` and `judge_address`."""
        return peer[2:4] == self._test_port

    def is_test(self, peer: bytes, datagram: bytes) -> bool:
        """Tell whether a datagram from that port is a self test: from this host, and with the secret."""
        test = self._self_test
        return test is not None and datagram == test.secret and self._rules.is_own(peer)

    # -- rate

    def take(self, peer: bytes, datagrams: int, now: float) -> int:
        """Charge the source for these datagrams; return how many may be answered."""
        if self._limit is None:
            return datagrams
        return self._limit.take(source_of(peer), datagrams, now)
