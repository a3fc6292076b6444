"""echod.measurement.outages: the longest time without an answer."""

from hypothesis import given
from hypothesis import strategies as st

from echod.measurement import outages
from echod.measurement.events import NEVER, Moment
from echod.measurement.outages import Outage, Outages

SECOND = 10**9


def at(seconds: int) -> Moment:
    """Return a moment; the wall clock goes back all the time, and nothing but what is shown depends on it."""
    return Moment(wall=10**18 - 7 * seconds * SECOND, clock=seconds * SECOND)


def lost(*sequences: int) -> Outages:
    """Lose these probes, one sent each second."""
    found = Outages()
    for sequence in sequences:
        found.lost(sequence, at(sequence), at(sequence + 1))
    return found


def outage(first: int, last: int) -> Outage:
    """Return the outage of these probes."""
    return Outage(first=first, last=last, start=at(first), end=at(last + 1))


def test_without_loss_there_is_none() -> None:
    """Nothing was lost, and an answer to nothing lost changes nothing."""
    found = Outages()
    found.answered(3, at(0), at(1))
    assert found.longest is None


def test_the_longest_run_is_the_outage() -> None:
    """Of 2, 5 6 7 and 9 it is the middle one: three probes, three seconds."""
    longest = lost(2, 5, 6, 7, 9).longest
    assert longest == outage(5, 7)
    assert (longest.probes, longest.duration) == (3, 3 * SECOND)


def test_probes_given_up_out_of_turn_make_the_same_runs() -> None:
    """An error may settle a probe before an earlier one is given up."""
    assert lost(7, 5, 6, 6).longest == outage(5, 7)


def test_a_late_answer_parts_the_outage() -> None:
    """4 to 9 with an answer to 6 is 4 5, and 7 8 9; answers at the ends shorten it."""
    found = lost(4, 5, 6, 7, 8, 9)
    found.answered(6, at(6), at(7))
    assert found.longest == outage(7, 9)
    found.answered(9, at(9), at(10))
    found.answered(7, at(7), at(8))
    assert found.longest == outage(4, 5)
    found.answered(6, at(6), at(7))
    for sequence in (4, 5, 8):
        found.answered(sequence, at(sequence), at(sequence + 1))
    assert found.longest is None


def test_an_outage_at_the_end_is_open() -> None:
    """It lasts from the sending of its first probe to that of its last, at least: nothing is known of what follows."""
    found = lost(4, 5)
    found.lost(6, at(6), NEVER)
    assert found.longest == Outage(first=4, last=6, start=at(4), end=at(6), open=True)
    found.settled(6, at(6))
    assert found.longest.open


def test_the_next_probe_ends_an_outage_however_late_it_goes() -> None:
    """Also where the one before had been given up by then; and whether that one is answered or not."""
    found = Outages()
    found.lost(4, at(4), NEVER)
    found.settled(5, at(9))
    assert found.longest == Outage(first=4, last=4, start=at(4), end=at(9))
    found.lost(5, at(9), NEVER)
    found.answered(5, at(9), NEVER)
    assert found.longest == Outage(first=4, last=4, start=at(4), end=at(9))


@given(sequences=st.permutations(range(12)), return_path=st.sets(st.integers(0, 11)))
def test_runs_are_those_of_a_plain_search(sequences: list[int], return_path: set[int]) -> None:
    """Whatever the order of loss and late answers, the longest run in a row is found."""
    missing = [sequence for sequence in sequences if sequence % 3]
    found = lost(*missing)
    for sequence in return_path:
        found.answered(sequence, at(sequence), at(sequence + 1))
    send_stamp = sorted(set(missing) - return_path)
    longest = max((len(run) for run in _runs(send_stamp)), default=0)
    assert (found.longest.probes if found.longest else 0) == longest


def _runs(send_stamp: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for sequence in send_stamp:
        if runs and runs[-1][-1] == sequence - 1:
            runs[-1].append(sequence)
        else:
            runs.append([sequence])
    return runs


def test_of_what_is_forgotten_the_longest_is_remembered() -> None:
    """Memory is bounded, and still the longest outage of the whole run is known."""
    found = lost(1, 2, 3, *range(10, 10 + 4 * outages._KEPT, 2))
    assert found.longest == outage(1, 3)
    assert len(found._runs) == outages._KEPT


def test_trains_make_the_runs_of_their_probes() -> None:
    """Four probes at once are as many in a row, and a late answer to two of them parts the run."""
    found = Outages()
    found.lost(8, at(2), at(3), 4)
    found.lost(4, at(1), at(2), 4)
    assert found.longest == Outage(first=4, last=11, start=at(1), end=at(3))
    found.answered(5, at(1), at(1), 2)
    assert found.longest == Outage(first=7, last=11, start=at(1), end=at(3))
    found.answered(7, at(1), at(2))
    found.answered(8, at(2), at(3), 4)
    assert found.longest == Outage(first=4, last=4, start=at(1), end=at(1))
