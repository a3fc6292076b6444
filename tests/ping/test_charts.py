"""echod.ping.charts: histogram and sparkline."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from echod.ping.charts import bin_edges, histogram, sparkline, supports_blocks


def test_bins_have_equal_widths_up_to_a_ratio_of_eight_and_equal_ratios_beyond() -> None:
    """The last edge lies above the greatest value; a value of zero has a bin of its own."""
    assert bin_edges([(1000, 1), (1999, 1)], 4) == [1000, 1250, 1500, 1750, 2000]
    assert bin_edges([(1000, 1), (7999, 1)], 2) == [1000, 4500, 8000]
    assert bin_edges([(1, 1), (9_999, 1)], 4) == [1, 10, 100, 1000, 10_000]
    assert bin_edges([(0, 1), (9_999, 1)], 4) == [0, 10, 100, 1000, 10_000]


def test_the_bar_of_the_greatest_count_fills_the_width_and_the_others_are_in_proportion() -> None:
    """In blocks to an eighth of a column, in ASCII to a column."""
    weights = [(1_000_000, 16), (1_400_000, 1), (1_999_999, 6)]
    labels = ("    1.000 ..     1.333      16 ", "    1.333 ..     1.667       1 ", "    1.667 ..     2.000       6 ")
    for plain, bars in ((False, ("████", "▎", "█▌")), (True, ("####", "", "##"))):
        lines = [f"{label}{bar}".rstrip() for label, bar in zip(labels, bars, strict=True)]
        assert histogram(weights, bins=3, width=35, plain=plain) == lines
    assert histogram([], bins=3, width=80) == []


def test_blocks_are_drawn_only_where_the_encoding_has_them() -> None:
    """A part of them, as cp437 has, is not enough."""
    supported = {encoding: supports_blocks(encoding) for encoding in ("utf-8", "latin-1", "ascii", "cp437")}
    assert supported == {"utf-8": True, "latin-1": False, "ascii": False, "cp437": False}


@given(times=st.dictionaries(st.integers(0, 10**10), st.integers(1, 1000), min_size=1), width=st.integers(20, 200))
@example(times={0: 1}, width=80)
@example(times={5: 2, 10**10: 1}, width=32)
def test_every_time_is_in_one_bar_and_no_line_is_too_wide(times: dict[int, int], width: int) -> None:
    """Each count is that of the values from its edge to the next; a line has at least 32 columns."""
    weights = sorted(times.items())
    edges, lines = bin_edges(weights, 20), histogram(weights, bins=20, width=width)
    assert edges[0] <= weights[0][0]
    assert edges[-1] > weights[-1][0]
    assert 2 <= len(edges) <= 22
    expected = [sum(times[time] for time in times if low <= time < high) for low, high in pairwise(edges)]
    assert [int(line[23:30]) for line in lines] == expected
    assert sum(expected) == sum(times.values())
    assert max(map(len, lines)) == max(width, 32)


def test_a_sparkline_has_a_character_for_each_value() -> None:
    """From the least to the greatest, and a mark where there is none."""
    assert sparkline([1, 8, None, 4]) == "▁█!▄"
    assert sparkline([1, 8, None, 4], plain=True) == "_#!-"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([None]) == "!"
    assert sparkline([]) == ""
