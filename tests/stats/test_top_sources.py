"""echod.stats.top_sources: whoever is loud is found, in bounded memory; no source is reported as louder than it was."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.stats.top_sources import EACH, MAX_REPORTED, PLACES, LastMinute, SpaceSaving, TopSources, unpack_report


def peer(host: str, port: int = 40_000) -> bytes:
    """Write a peer as it lies in a sockaddr, as the vector gives it."""
    address = ip_address(host).packed
    head = bytes([2, 0]) + port.to_bytes(2, "big")
    return head + address if len(address) == 4 else head + bytes(4) + address + bytes(4)


def one(datagram: int) -> int:
    """Tell the slot of a datagram where each slot holds one."""
    return datagram


def train(_datagram: int) -> int:
    """Tell it where all are in one train."""
    return 0


def dice(seed: int) -> Callable[[], float]:
    """Draw by chance, the same at each run."""
    return random.Random(seed).random  # noqa: S311 - it protects nothing


def collect(top_sources: TopSources, peers: list[bytes], datagrams: int, slot_of: Callable[[int], int]) -> None:
    """Receive a batch, as a worker does."""
    top_sources.undrawn += datagrams
    if top_sources.undrawn >= top_sources.draw_at:
        top_sources.draw(slot_of, peers.__getitem__, datagrams)


# -- the table


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), loud=st.integers(1, 20))
def test_who_has_more_than_his_share_has_a_place(seed: int, loud: int) -> None:
    """Among thousands of sources each top source is in the table, with no more than it sent."""
    chance = random.Random(seed)  # noqa: S311
    true: Counter[int] = Counter()
    table: SpaceSaving[int] = SpaceSaving()
    for number in range(8000):
        key = chance.randrange(loud) if chance.random() < 0.3 else 1000 + number
        count = chance.randrange(1, 65)
        true[key] += count
        table.add(key, count)
    assert len(table.counts) == PLACES
    assert sum(table.counts.values()) == true.total()
    share = true.total() * 4 / 3 / PLACES
    assert {key for key, count in true.items() if count > share} <= table.counts.keys()
    assert all(count <= true[key] for key, count in table.charges())


def test_few_are_counted_exactly() -> None:
    """As long as there is a place for each, nothing is estimated."""
    table: SpaceSaving[str] = SpaceSaving()
    for _ in range(3):
        for number in range(PLACES):
            table.add(str(number), number)
    assert dict(table.charges()) == {str(number): 3 * number for number in range(PLACES)}


def test_one_that_was_heard_again_before_its_turn_stays() -> None:
    """Who was among the lowest when these were looked for, and is not any more, is not forgotten."""
    table: SpaceSaving[int] = SpaceSaving()
    for number in range(PLACES):
        table.add(number, 1 + number)
    table.add(-1, 1)  # in the place of 0
    table.add(1, 1000)
    table.add(-2, 1)  # in the place of 2
    assert {0, 2}.isdisjoint(table.counts)
    assert dict(table.charges())[1] == 1002


# -- what a worker hears


def test_with_little_traffic_nobody_is_passed_over() -> None:
    """Each of a few batches counts, to the datagram, under the address of its sender whatever its port."""
    top_sources = TopSources(dice(1))
    for port in range(10):
        collect(top_sources, [peer("192.0.2.1", port)], 1, one)
        collect(top_sources, [peer("2001:db8:1:2:3::4", port)], 1, one)
    collect(top_sources, [peer("192.0.2.2")], 3, train)
    assert unpack_report(top_sources.report() or b"") == [
        ("192.0.2.1", 10),
        ("2001:db8:1:2::/64", 10),
        ("192.0.2.2", 3),
    ]


@pytest.mark.parametrize(
    ("chance", "drawn"), [(0.0, "192.0.2.1"), (0.24, "192.0.2.1"), (0.25, "192.0.2.2"), (0.999, "192.0.2.2")]
)
def test_the_slot_that_holds_the_datagram_drawn_is_charged_with_the_batch(chance: float, drawn: str) -> None:
    """Of four datagrams the first is one sender's, the others are a train of another."""
    top_sources = TopSources(lambda: chance)
    collect(top_sources, [peer("192.0.2.1"), peer("192.0.2.2")], 4, (0, 1, 1, 1).__getitem__)
    assert unpack_report(top_sources.report() or b"") == [(drawn, 4)]


@pytest.mark.parametrize("host", ["::1", "fe80::1"])
def test_where_a_prefix_is_not_one_host_the_address_is_told(host: str) -> None:
    """Loopback, and the neighbours on a link."""
    top_sources = TopSources(dice(1))
    collect(top_sources, [peer(host)], 1, one)
    assert unpack_report(top_sources.report() or b"") == [(host, 1)]


def test_a_report_begins_anew_and_nobody_heard_is_no_report() -> None:
    """What was reported is not reported again."""
    top_sources = TopSources(dice(1))
    assert top_sources.report() is None
    collect(top_sources, [peer("192.0.2.1")], 1, one)
    assert top_sources.report() is not None
    assert top_sources.report() is None


def test_a_report_tells_so_many_and_no_more() -> None:
    """It must fit into a message."""
    top_sources = TopSources(dice(1))
    for number in range(EACH - 1):
        collect(top_sources, [peer(f"192.0.2.{number}")], 1 + number, train)
    collect(top_sources, [peer("198.51.100.1")], 1000, train)
    reported = unpack_report(top_sources.report() or b"")
    assert len(reported) == MAX_REPORTED
    assert reported[0][0] == "198.51.100.1"


def traffic(kind: str) -> Iterator[tuple[list[bytes], int, Callable[[int], int]]]:
    """Make batches in which the first of two senders has a quarter of all datagrams."""
    few, many = peer("192.0.2.1"), peer("192.0.2.2")
    if kind == "single":
        yield from cycle([([few], 1, one)] + 3 * [([many], 1, one)])
    elif kind == "mixed":
        yield from cycle([([few, many, many, many], 4, one)])
    else:  # a train of three and a single one, in turn the first
        yield from cycle([([few, many], 4, (0, 1, 1, 1).__getitem__), ([many, few], 4, (0, 0, 0, 1).__getitem__)])


@pytest.mark.parametrize("kind", ["single", "mixed", "trains"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_the_long_run_each_has_what_he_sent(kind: str, seed: int) -> None:
    """Whether alone in a batch, among others, or as a train: by chance, and so that nobody can hide."""
    top_sources, datagrams = TopSources(dice(seed)), 0
    for (peers, count, slot_of), _ in zip(traffic(kind), range(200_000), strict=False):
        collect(top_sources, peers, count, slot_of)
        datagrams += count
    reported = dict(unpack_report(top_sources.report() or b""))
    assert sum(reported.values()) == pytest.approx(datagrams, rel=0.01)
    assert reported["192.0.2.1"] / datagrams == pytest.approx(0.25, abs=0.06)


# -- the last minute


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    """In spans of ten seconds, and each change is reported once."""
    minute: LastMinute[str] = LastMinute(1000.0)
    assert not minute.moved(1000.0)
    minute.add([("a", 5)])
    assert minute.moved(1000.0)
    assert not minute.moved(1001.0)
    assert not minute.moved(1031.0)
    minute.add([("b", 7), ("a", 3)])
    assert minute.moved(1032.0)
    assert minute.top() == [("a", 8), ("b", 7)]
    assert minute.moved(1060.0)
    assert minute.top() == [("b", 7), ("a", 3)]
    assert not minute.moved(1089.0)
    assert minute.moved(1090.0)
    assert minute.top() == []
    minute.add([("c", 1)])
    assert minute.moved(5000.0)
    assert minute.top() == []
    assert not minute.moved(9000.0)


def test_ten_are_shown() -> None:
    """Those that sent most, in order."""
    minute: LastMinute[int] = LastMinute(0.0)
    minute.add((number, number) for number in range(1, 30))
    assert minute.top() == [(number, number) for number in range(29, 19, -1)]
