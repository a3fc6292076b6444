"""echod.tcp.limits: the limits on TCP connections hold exactly, over all workers and without a lock."""

import mmap
import os
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from echod.net.listener import Listener, Protocol
from echod.stats.counters import CounterPage, SlotField
from echod.stats.outcomes import Close
from echod.tcp.limits import ConnectionLedger

SECRET = b"0123456789abcdef"
TCP = Listener(protocol=Protocol.TCP, address=IPv4Address("127.0.0.1"), port=7)
SOURCES = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1")
SAME_SOURCE = {"2001:db8::2": "2001:db8::1"}
"""Another address of a source, and the one that stands for it."""


@dataclass(slots=True, kw_only=True)
class Workers:
    """Some workers on one page, each with its view of the ledger, as a generation has them."""

    page: CounterPage
    limit: int
    limit_per_source: int
    ledgers: list[ConnectionLedger]

    def reborn(self, slot: int) -> None:
        """Let the worker of a slot die, settle its books, and put a new one in its place."""
        self.page.settle(slot)
        self.ledgers[slot] = self.ledger(slot)

    def ledger(self, slot: int) -> ConnectionLedger:
        """Make the view of the ledger that a worker of that slot has at birth."""
        limits = {"limit": self.limit, "limit_per_source": self.limit_per_source}
        return ConnectionLedger(self.page, slot, **limits, secret=SECRET)


def workers(count: int, *, limit: int, limit_per_source: int) -> Workers:
    """Raise that many workers on a fresh page with two places more than the limit each, as a generation makes it."""
    places = limit + 2
    memory = mmap.mmap(-1, CounterPage.size(slots=count, listeners=1, places=places))
    page = CounterPage(memoryview(memory), slots=count, listeners=[TCP], places=places)
    made = Workers(page=page, limit=limit, limit_per_source=limit_per_source, ledgers=[])
    made.ledgers = [made.ledger(slot) for slot in range(count)]
    return made


def accept(ledger: ConnectionLedger, host: str) -> int | Close:
    """Do what TcpEcho does with a connection: keep it and return its entry, or refuse it and return why."""
    key = ledger.key(host)
    entry = ledger.enter(key)
    refusal = ledger.over_limit(key)
    if refusal is None:
        return entry
    ledger.leave(entry)
    return refusal


# -- what is one source


ONE_SOURCE = (
    [("192.0.2.1", 0)],
    [("192.0.2.2", 0)],
    [("0.0.0.0", 0)],  # noqa: S104 - a source here; nobody binds it
    [("1.0.0.0", 0)],
    [("::", 0)],
    [("::1", 0)],
    [("2001:db8::1", 0), ("2001:0db8:0000::0001", 0), ("2001:db8::ffff:ffff:ffff:ffff", 3)],
    [("2001:db8:0:1::1", 0)],
    [("fe80::1", 0), ("fe80::1%eth0", 0), ("fe80::1%a%b", 0)],
    [("fe80::1", 2), ("fe80::1%3", 2)],
    [("fe80::1", 3)],
    [("fe80::2", 0)],
    [("64:ff9b::192.0.2.1", 0)],
    [("64:ff9b::192.0.2.2", 0)],
)
"""Addresses and scope ids, as accept(2) returns them, by source: an IPv4 address, an IPv6 /64, an address of NAT64, or
a link-local address on one link."""


def test_a_key_is_that_of_one_source() -> None:
    """All addresses of a source have one key of 64 bits, and it is not 0, which marks a free entry of the ledger."""
    ledger = workers(1, limit=1, limit_per_source=1).ledgers[0]
    keys = [{ledger.key(*address) for address in source} for source in ONE_SOURCE]
    assert [len(each) for each in keys] == [1] * len(ONE_SOURCE)
    assert len(set.union(*keys)) == len(ONE_SOURCE)
    assert all(0 < key < 2**64 for key in set.union(*keys))


def test_the_secret_makes_the_keys() -> None:
    """Workers with one secret agree on the key of a source; without the secret nobody can compute it."""
    page = workers(2, limit=1, limit_per_source=1).page
    one, same, other = (
        ConnectionLedger(page, slot, limit=1, limit_per_source=1, secret=secret).key("192.0.2.1")
        for slot, secret in ((0, SECRET), (1, SECRET), (1, SECRET[::-1]))
    )
    assert one == same != other


# -- limits


def test_two_that_accept_at_one_moment_never_both_get_the_last_place() -> None:
    """Both note first and count then, so each sees the other: the last place may go to none, never to two."""
    first, second = workers(2, limit=1, limit_per_source=1).ledgers
    key = first.key("192.0.2.1")
    places = first.enter(key), second.enter(key)
    assert (first.over_limit(key), second.over_limit(key)) == (Close.OVER_LIMIT, Close.OVER_LIMIT)
    first.leave(places[0])
    assert second.over_limit(key) is None


def test_a_place_is_counted_only_once_its_key_stands_in_it() -> None:
    """Interrupted at the key, `enter` has taken no entry: else others would count what a dead worker left there."""
    made = workers(1, limit=1, limit_per_source=1)
    header, places = made.page.header(0), len(made.page.ledger(0))
    for _ in range(places):
        made.ledgers[0].enter(1)
    with pytest.raises(IndexError):
        made.ledgers[0].enter(1)
    assert (header[SlotField.CONNECTIONS], header[SlotField.PLACES]) == (places, places)


# -- any history


class History(RuleBasedStateMachine):
    """Connections come, go and are refused, and workers die, in any order; a plain list says what is right."""

    @initialize(count=st.integers(1, 4), limit=st.integers(1, 8), limit_per_source=st.integers(1, 5))
    def begin(self, count: int, limit: int, limit_per_source: int) -> None:
        """Raise the workers."""
        self.workers = workers(count, limit=limit, limit_per_source=limit_per_source)
        self.open: list[tuple[int, int, str]] = []
        self.most = [0] * count

    @rule(worker=st.integers(0, 3), host=st.sampled_from((*SOURCES, *SAME_SOURCE)))
    def connect(self, worker: int, host: str) -> None:
        """Keep a connection exactly where the list has room for it."""
        slot = worker % len(self.workers.ledgers)
        source = SAME_SOURCE.get(host, host)
        from_source = sum(other == source for _, _, other in self.open)
        answer = accept(self.workers.ledgers[slot], host)
        held = sum(other == slot for other, _, _ in self.open)
        self.most[slot] = max(self.most[slot], held + 1)
        if len(self.open) >= self.workers.limit:
            assert answer is Close.OVER_LIMIT
        elif from_source >= self.workers.limit_per_source:
            assert answer is Close.OVER_SOURCE_LIMIT
        else:
            assert not isinstance(answer, Close)
            assert (slot, answer) not in [each[:2] for each in self.open]
            self.open.append((slot, answer, source))

    @rule(choice=st.integers(0, 100))
    def disconnect(self, choice: int) -> None:
        """End any connection."""
        if self.open:
            slot, entry, _ = self.open.pop(choice % len(self.open))
            self.workers.ledgers[slot].leave(entry)

    @rule(worker=st.integers(0, 3))
    def die(self, worker: int) -> None:
        """Let any worker die: its connections end and another one takes its slot."""
        slot = worker % len(self.workers.ledgers)
        self.workers.reborn(slot)
        self.open = [each for each in self.open if each[0] != slot]
        self.most[slot] = 0

    @invariant()
    def the_page_says_what_the_list_says(self) -> None:
        """Find each worker's connections and keys on its part of the page, in as few places as it ever needed."""
        for slot, ledger in enumerate(self.workers.ledgers):
            header, part = self.workers.page.header(slot), self.workers.page.ledger(slot)
            used = part[: header[SlotField.PLACES]].tolist()
            ours = {entry: ledger.key(host) for at, entry, host in self.open if at == slot}
            assert header[SlotField.CONNECTIONS] == len(ours)
            assert {entry: key for entry, key in enumerate(used) if key} == ours
            assert len(used) == self.most[slot]


TestHistory = History.TestCase
TestHistory.__doc__ = "Whatever happened before, a connection is refused exactly where a limit is reached."
TestHistory.settings = settings(deadline=None, max_examples=100, stateful_step_count=50)


# -- real processes


@pytest.mark.parametrize(
    ("limit", "limit_per_source", "least", "most"),
    [(10, 10, 7, 10), (1000, 10, 28, 40)],
    ids=["the limit of all", "the limit of each of four sources"],
)
def test_processes_that_accept_at_once_never_exceed_a_limit(
    limit: int,
    limit_per_source: int,
    least: int,
    most: int,
) -> None:
    """Four processes race for places: they never keep one too many, and lose no more than the last three to a race.

    Three, because each of the others can have entered one that it is about to refuse.
    """
    for _ in range(20):
        made = workers(4, limit=limit, limit_per_source=limit_per_source)
        children = [_fork(made, slot) for slot in range(4)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        headers = [made.page.header(slot) for slot in range(4)]
        used = [made.page.ledger(slot)[: headers[slot][SlotField.PLACES]].tolist() for slot in range(4)]
        keys = [key for part in used for key in part if key]
        assert least <= len(keys) <= most
        assert len(keys) == sum(header[SlotField.CONNECTIONS] for header in headers)
        assert all(keys.count(key) <= limit_per_source for key in keys)


def _fork(made: Workers, slot: int) -> int:
    """Start a process that waits for the others and then accepts 25 connections of each source."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        made.page.header(slot)[SlotField.HEARTBEAT] = 1
        while not all(made.page.header(other)[SlotField.HEARTBEAT] for other in range(4)):
            os.sched_yield()
        for number in range(100):
            accept(made.ledgers[slot], SOURCES[number % len(SOURCES)])
        code = 0
    finally:
        os._exit(code)
