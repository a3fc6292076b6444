"""echod.udp.arrivals: a time that the kernel did not report is that of whoever asks."""

from echod.udp.arrivals import SECOND, Arrivals


def test_times_count_from_a_whole_second() -> None:
    """They are never changed."""
    arrivals = Arrivals(5 * SECOND, [1, SECOND + 2], [64, 63], [0, 0])
    assert arrivals.stamps == [5_000_000_001, 6_000_000_002]
    assert arrivals.known(9 * SECOND) == (5 * SECOND, [1, SECOND + 2])


def test_a_time_that_is_not_known_is_now() -> None:
    """Of all slots, or of some: those that are known stay."""
    unknown = Arrivals.unknown(2)
    assert (unknown.stamps, unknown.ttls, unknown.toses) == ([0, 0], [255, 255], [0, 0])
    assert unknown.known(9 * SECOND + 7) == (9 * SECOND, [7, 7])
    assert Arrivals(0, [9 * SECOND + 3, 0], [1, 255], [0, 0]).known(9 * SECOND + 7) == (9 * SECOND, [3, 7])
    early = Arrivals(0, [9 * SECOND - 1, 0], [1, 255], [0, 0])
    assert early.known(9 * SECOND) == (8 * SECOND, [SECOND - 1, SECOND])
