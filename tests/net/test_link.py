"""echod.net.link: what it carries takes its time."""

from echod.net.link import Link

SECOND = 10**9


def test_a_link_carries_one_datagram_after_the_other() -> None:
    """At 8,000 bit/s a byte takes a millisecond: 100 bytes take 100 ms, also the next 100 that come meanwhile."""
    link = Link(8000)
    assert link.carry(5 * SECOND, 100) == 5_100_000_000
    assert link.carry(5 * SECOND + 1, 100) == 5_200_000_000
    assert link.carry(7 * SECOND, 1) == 7_001_000_000


def test_a_part_of_a_nanosecond_is_rounded_up() -> None:
    """At 3 bit/s a byte takes 2.67 s. No link is faster than its rate."""
    assert Link(3).carry(0, 1) == 2_666_666_667


def test_a_link_without_a_rate_takes_no_time() -> None:
    """Whatever it carries."""
    link = Link(0)
    assert [link.carry(3, 65_507), link.carry(3, 1), link.carry(2, 0)] == [3, 3, 2]
