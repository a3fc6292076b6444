"""echod.measurement.outages: the longest time without a reply."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.events import NEVER, Moment
from echod.measurement.outages import Outage, Outages

SECOND = 10**9
PROBES = range(12)


def at(seconds: int) -> Moment:
    """Return a moment; the wall clock goes back all the time, and nothing but what is shown depends on it."""
    return Moment(wall=10**18 - 7 * seconds * SECOND, clock=seconds * SECOND)


def outage(first: int, last: int) -> Outage:
    """Return the outage of these probes, one sent each second."""
    return Outage(first=first, last=last, start=at(first), end=at(last + 1))


@given(order=st.permutations(PROBES), lost=st.sets(st.sampled_from(PROBES)), answered=st.sets(st.sampled_from(PROBES)))
def test_the_longest_outage_is_the_longest_run_of_probes_without_a_reply(
    order: list[int], lost: set[int], answered: set[int]
) -> None:
    """Of equal ones the first; in whatever order probes are lost, some of them twice, and answered late."""
    found = Outages()
    for sequence in [*filter(lost.__contains__, order), *lost]:
        found.lost(sequence, at(sequence), at(sequence + 1))
    for sequence in filter(answered.__contains__, order):
        found.answered(sequence, at(sequence), at(sequence + 1))
    runs = [list(run) for missing, run in groupby(PROBES, lambda number: number in lost - answered) if missing]
    longest = max(runs, key=len, default=None)
    assert found.longest == (outage(longest[0], longest[-1]) if longest else None)


def test_the_length_of_an_outage() -> None:
    """It is counted in probes and in ns."""
    assert (outage(5, 7).probes, outage(5, 7).duration) == (3, 3 * SECOND)


def test_an_outage_at_the_end_is_open_until_the_next_probe_is_sent() -> None:
    """Until then it lasts from the sending of its first probe to that of its last; afterwards to that of the next."""
    found = Outages()
    found.lost(4, at(4), at(5))
    found.lost(5, at(5), NEVER)
    still = Outage(first=4, last=5, start=at(4), end=at(5), open=True)
    for sequence in (4, 5, 7):
        found.settled(sequence, at(9))
        assert found.longest == still
    found.settled(6, at(9))
    ended = Outage(first=4, last=5, start=at(4), end=at(9))
    assert found.longest == ended
    found.lost(6, at(9), NEVER)
    found.answered(6, at(9), NEVER)
    assert found.longest == ended


def test_memory_is_bounded_and_the_longest_outage_is_remembered() -> None:
    """Of those that are forgotten, whatever comes after it."""
    found = Outages()
    for sequence in (1, 2, 3, *range(10, 20_000, 2)):
        found.lost(sequence, at(sequence), at(sequence + 1))
    assert found.longest == outage(1, 3)
    assert len(found._runs) == 4096


def test_the_probes_of_a_train_are_lost_and_answered_together() -> None:
    """Four probes at once are as many in a row, and a late reply to two of them splits the run."""
    found = Outages()
    found.lost(8, at(2), at(3), 4)
    found.lost(4, at(1), at(2), 4)
    assert found.longest == Outage(first=4, last=11, start=at(1), end=at(3))
    found.answered(5, at(1), at(1), 2)
    assert found.longest == Outage(first=7, last=11, start=at(1), end=at(3))
    found.answered(7, at(1), at(2))
    found.answered(8, at(2), at(3), 4)
    assert found.longest == Outage(first=4, last=4, start=at(1), end=at(1))
