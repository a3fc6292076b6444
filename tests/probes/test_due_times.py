"""echod.probes.due_times: which keys are due, and when the next one is."""

from random import Random

import pytest

from echod.probes.due_times import DueTimes


def test_keys_come_in_the_order_of_their_times() -> None:
    """Those that are due now are removed; the others, and the time of the first of them, stay."""
    due: DueTimes[str] = DueTimes()
    assert due.next_time() is None
    for key, time in (("c", 30), ("a", 10), ("b", 20)):
        due.set(key, time)
    assert due.next_time() == 10
    assert due.take_due(20) == ["a", "b"]
    assert due.take_due(29) == []
    assert (due.next_time(), "a" in due, "c" in due) == (30, False, True)
    assert due.take_due(30) == ["c"]
    assert due.next_time() is None


@pytest.mark.parametrize("times", [(20, 10), (10, 20), (20, 10, 20), (20, 20)])
def test_the_time_that_was_set_last_counts(times: tuple[int, ...]) -> None:
    """A key may be due earlier or later than before, and comes once."""
    due: DueTimes[str] = DueTimes()
    for time in times:
        due.set("a", time)
    assert due.next_time() == times[-1]
    assert due.take_due(times[-1] - 1) == []
    assert due.take_due(100) == ["a"]


def test_memory_does_not_grow_with_the_times_that_are_set() -> None:
    """Of 10,000 times that were set, those that count are kept, and at most as many more."""
    due: DueTimes[int] = DueTimes()
    for time in range(10_000):
        due.set(time % 10, 10_000 - time)
        assert len(due._heap) <= 20
    assert due.take_due(5) == [9, 8, 7, 6, 5]


def test_it_agrees_with_a_table_that_is_searched() -> None:
    """Whatever is set and taken, by chance."""
    random, due, table = Random(1), DueTimes[int](), dict[int, int]()  # noqa: S311
    for _ in range(2000):
        key, time = random.randrange(20), random.randrange(1000)
        due.set(key, time)
        table[key] = time
        assert due.next_time() == min(table.values())
        if random.random() < 0.2:
            now = random.randrange(1000)
            taken = {key for key, time in table.items() if time <= now}
            assert set(due.take_due(now)) == taken
            for key in taken:
                del table[key]
