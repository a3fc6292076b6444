"""echod.ping.charts: histogram and sparkline."""

from hypothesis import given
from hypothesis import strategies as st

from echod.ping.charts import bin_edges, histogram, sparkline, supports_blocks


def test_equal_steps_for_times_of_one_size_and_equal_ratios_for_others() -> None:
    """Up to eightfold the bars are equally wide; beyond it each is so many times the last."""
    assert bin_edges([(1000, 1), (1999, 1)], 4) == [1000, 1250, 1500, 1750, 2000]
    assert bin_edges([(1, 1), (9_999, 1)], 4) == [1, 10, 100, 1000, 10_000]


def test_a_histogram_of_two_heights() -> None:
    """The greatest bar fills the room, the others their share of it; an empty one has none."""
    lines = histogram([(1_000_000, 4), (1_999_999, 1)], bins=3, width=35)
    assert lines == [
        "    1.000 ..     1.333       4 ████",
        "    1.333 ..     1.667       0",
        "    1.667 ..     2.000       1 █",
    ]
    assert histogram([], bins=3, width=80) == []


def test_bars_are_ascii_where_an_encoding_has_no_blocks() -> None:
    """As long as the others."""
    assert [supports_blocks(encoding) for encoding in ("utf-8", "latin-1", "ascii")] == [True, False, False]
    blocks = histogram([(1_000_000, 4), (1_999_999, 1)], bins=3, width=35)
    assert histogram([(1_000_000, 4), (1_999_999, 1)], bins=3, width=35, plain=True) == [
        line.replace("█", "#") for line in blocks
    ]
    assert sparkline([1, 8, None, 4], plain=True) == "_#!-"


@given(times=st.dictionaries(st.integers(0, 10**10), st.integers(1, 1000), min_size=1), width=st.integers(20, 200))
def test_every_time_is_in_one_bar(times: dict[int, int], width: int) -> None:
    """The counts add up, and no line is too long."""
    lines = histogram(sorted(times.items()), bins=20, width=width)
    assert sum(int(line[23:30]) for line in lines) == sum(times.values())
    assert 1 <= len(lines) <= 21


def test_a_sparkline_has_a_character_for_each_value() -> None:
    """From the least to the greatest, and a mark where there is none."""
    assert sparkline([1, 8, None, 4]) == "▁█!▄"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([None]) == "!"
    assert sparkline([]) == ""
