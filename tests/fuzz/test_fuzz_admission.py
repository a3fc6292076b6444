"""Any sequence of peers, weights, times and flags: the decision is a value, sums hold, and memory is bounded.

The seed of a sequence stands in the name of its test.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from random import Random

import pytest
import structlog
from support.loopback import listener
from support.peers import access, peer

from echod.admission.admission import Admission
from echod.admission.loops import LoopDetector
from echod.admission.ratelimit import RateLimit
from echod.admission.rules import Rules
from echod.net.peers import NAME_BYTES, address_of
from echod.stats.outcomes import Drop
from echod.stats.refusals import Report, Tally
from echod.supervisor.refusal_log import RefusalLog

SEEDS = range(6)
TURNS = 150
SOURCES = 1024

LISTS = ((), ("0.0.0.0/0", "::/0"), ("10.0.0.0/8", "fd00::/8", "127.0.0.0/8", "::1"))
OWN = ((), ("10.0.0.1", "fd00::1"), ("0.0.0.0/0", "::/0"))


class Sequence:
    """One sequence of what may come, made of a seed."""

    def __init__(self, seed: int) -> None:
        """Choose a config, and some peers that come more often than others."""
        self.random = random = Random(seed)  # noqa: S311 - the same in each run
        self.now = random.choice([0.0, 1e3, 1e8])
        self.regulars = {
            8: [peer(f"10.0.0.{number}", 2000 + number) for number in range(1, 20)],
            28: [peer(f"fd00::{number}", 2000 + number) for number in range(1, 20)],
        }
        declared = replace(
            access(allow=random.choice(LISTS[1:]), deny=random.choice(LISTS[::2])),
            own_ports=frozenset({7, 7007}),
            min_source_port=random.choice([0, 1, 1024]),
            refuse_source_ports=frozenset(random.sample(range(65_536), 5)),
        )
        limited = random.random() < 0.8
        memory = memoryview(bytearray(RateLimit.size(SOURCES)))
        limit = RateLimit(
            memory,
            sources=SOURCES,
            per_source=random.choice([None, 1, 1000, 10_000_000]),
            burst=random.choice([1, 256, 1_000_000]),
            total=random.choice([None, 10, 100_000_000]),
            slip=random.choice([None, lambda: random.random() < 0.5]),
            dry_run=random.random() < 0.2,
        )
        loop_detector = LoopDetector(sources=SOURCES, gap=lambda: random.choice([1, 2, 3, 100, 1000]))
        self.admission = Admission(
            Rules(declared),
            sources=SOURCES,
            limit=limit if limited else None,
            loop_detector=loop_detector if random.random() < 0.8 else None,
        )

    def peers(self) -> list[bytes]:
        """Make the peers of a batch, of one family: known, unknown, and bytes that no kernel would write."""
        random = self.random
        size = random.choice([8, 28])
        kinds = [
            lambda: random.choice(self.regulars[size]),
            lambda: random.choice(self.regulars[size][:2]),
            lambda: random.randbytes(size),
            lambda: bytes(size - 4) + random.randbytes(4),
            lambda: random.choice([b"\0", b"\xff"]) * size,
        ]
        kind = random.choice([*kinds, None])
        return [(kind or random.choice(kinds))() for _ in range(random.randint(0, 64))]

    def turn(self) -> None:
        """Let some time pass, or none, or a little back, and decide on a batch in one way or the other."""
        random, admission = self.random, self.admission
        self.now = max(0.0, self.now + random.choice([0, 1e-6, 1e-3, 1, 3600, -1e-3]))
        peers, on_loopback, slipped = self.peers(), random.random() < 0.5, admission.slipped
        if random.random() < 0.02:
            admission.set_own_addresses(map(ip_network, random.choice(OWN)))
        if random.random() < 0.5:
            names = b"".join(each.ljust(NAME_BYTES, b"\0") for each in peers)
            cleared = bool(peers) and admission.clears_all(names, len(peers[0]), on_loopback)
            if cleared and random.random() < 0.5:
                refused = admission.charge_all(names, len(peers[0]), self.now)
            else:
                refused = admission.admit_all(peers, on_loopback=on_loopback, now=self.now)
            assert not (cleared and set(refused.values()) - {Drop.RATE})
            assert set(refused) <= set(range(len(peers)))
            assert all(drop in Drop for drop in refused.values())
            weights = [1] * len(peers)
        else:
            weights = list(self.slot_by_slot(peers, on_loopback=on_loopback))
        assert admission.slipped >= slipped
        for known in admission._known.values():
            assert len(known) <= SOURCES
        if admission.loop_detector is not None and peers:
            self.look(admission.loop_detector, peers, weights)

    def look(self, loop_detector: LoopDetector, peers: list[bytes], weights: list[int]) -> None:
        """Look at those that are due: few, each once, all in the batch."""
        random, datagrams = self.random, sum(weights)
        loop_detector.left -= datagrams
        due = loop_detector.choose(datagrams)
        assert due == sorted(set(due))
        assert set(due) <= set(range(datagrams))
        assert loop_detector.left > 0
        for index in due[:100]:
            datagram = random.randbytes(random.choice([0, 1, 1500]))
            assert loop_detector.repeats(peers[index % len(peers)], datagram) in (False, True)
        assert len(loop_detector._seen) <= SOURCES // 64

    def slot_by_slot(self, peers: list[bytes], *, on_loopback: bool) -> Iterator[int]:
        """Decide as on trains; yield the datagrams of each."""
        random, admission = self.random, self.admission
        for each in peers:
            weight = random.choice([1, 2, 64, 65_535])
            yield weight
            unicast, truncated = random.random() < 0.9, random.random() < 0.1
            drop = admission.admit(each, on_loopback=on_loopback, unicast=unicast, truncated=truncated)
            if drop is not None:
                assert drop in Drop
                continue
            within = admission.take(each, weight, self.now)
            assert 0 <= within <= weight


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sequence_raises_or_grows(seed: int) -> None:
    """Whatever comes, each datagram has one decision and little is remembered."""
    sequence = Sequence(seed)
    for _ in range(TURNS):
        sequence.turn()


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_refused_is_reported_in_full(seed: int) -> None:
    """Any addresses, reasons and counts: as bytes and as entries they add up; few are remembered, little is logged."""
    random, refusals = Random(seed), RefusalLog()  # noqa: S311 - the same in each run
    listeners = [listener(port=1 + number) for number in range(5)]
    tallies = [Tally(index) for index in range(5)]
    refused = 0
    with structlog.testing.capture_logs() as log:
        for second in range(160):
            for _ in range(random.choice([0, 1, 500]) if second < 100 else 0):
                address = address_of(random.randbytes(random.choice([8, 28])))
                count = random.choice([1, 64, 2**32])
                random.choice(tallies).add(random.choice(list(Drop)), address, count)
                refused += count
            for report in [report for tally in tallies for report in tally.reports()]:
                assert len(report.sources) <= 256
                refusals.add(listeners[report.listener], Report.unpack(report.pack()))
            before = len(log)
            refusals.log_due(float(second))
            assert len(log) - before <= 10
            assert all(len(summary.sources) <= 1024 for summary in refusals._summaries.values())
    assert sum(entry["refused"] for entry in log) == refused
