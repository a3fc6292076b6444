"""echod.measurement.path_mtu: the search, played against paths, and its sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.path_mtu import MtuResult, ReturnPath, Search, explain


def play(limit: int, *, low: int = 52, high: int = 1500, reported_mtu: int = 0) -> tuple[Search, list[int]]:
    """Search on a path that lets packets up to `limit` through, with a router that says `reported_mtu`."""
    search, sizes = Search(low=low, high=high), []
    while (size := search.next_size()) is not None:
        sizes.append(size)
        if size <= limit:
            search.passed(size)
        else:
            search.failed(size, reported_mtu)
    return search, sizes


@given(limit=st.integers(52, 1600), high=st.integers(60, 1500))
def test_the_limit_is_found_in_as_many_steps_as_it_has_bits(limit: int, high: int) -> None:
    """Whatever the limit: the greatest that passes and the least that does not stand side by side."""
    search, sizes = play(limit, high=high)
    assert search.passes == min(limit, high)
    assert search.fails == min(limit, high) + 1
    assert len(sizes) <= 2 + high.bit_length()


def test_a_path_that_takes_all_is_found_in_two_steps() -> None:
    """The least first, then the greatest."""
    assert play(9000)[1] == [52, 1500]


@pytest.mark.parametrize("reported_mtu", [1280, 1400, 1200, 9000])
def test_what_a_router_says_is_tried_and_not_believed(reported_mtu: int) -> None:
    """If it is right three more steps do; if it is wrong the search goes on."""
    search, sizes = play(1280, reported_mtu=reported_mtu)
    assert (search.passes, search.fails) == (1280, 1281)
    if reported_mtu == 1280:
        assert sizes[:4] == [52, 1500, 1280, 1281]


def test_where_nothing_passes_the_search_is_over_at_once() -> None:
    """Not even the least size came back."""
    search, sizes = play(0)
    assert (search.passes, sizes) == (None, [52])


def result(**more: object) -> MtuResult:
    """Return a result of 1280 out of 1500."""
    return MtuResult(**{"passes": 1280, "fails": 1281, "interface_mtu": 1500, **more})  # type: ignore[arg-type]


VANISH = "return path: unknown: probes of 1500 in fragments have no replies, so fragments or replies are lost"
WHOLE = ReturnPath(size=1500, replied=True)


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (result(passes=None), ["path MTU unknown: the smallest probe had no reply"]),
        (result(passes=1500), ["path MTU 1500 in both directions, the MTU of this host's interface"]),
        (
            result(passes=1500, reply_fragments=1276),
            [
                "path MTU 1500 outbound, the MTU of this host's interface",
                "return path: replies arrive in fragments of up to 1276",
            ],
        ),
        (
            result(router="10.0.0.1", reason="needs fragmentation", reported_mtu=1280, return_path=WHOLE),
            [
                "path MTU 1280: replies stop at 1281",
                "outbound: 10.0.0.1 reports for probes above 1280: needs fragmentation, MTU 1280",
                "return path: replies of 1500 arrive whole",
            ],
        ),
        (
            result(router="10.0.0.1", reason="administratively prohibited", return_path=WHOLE),
            [
                "path MTU 1280: replies stop at 1281",
                "outbound: 10.0.0.1 reports for probes above 1280: administratively prohibited",
                "return path: replies of 1500 arrive whole",
            ],
        ),
        (
            result(local=True, reported_mtu=1280),
            ["path MTU 1280: replies stop at 1281", "outbound: this host reports MTU 1280"],
        ),
        (
            result(return_path=ReturnPath(size=1500, replied=True, reply_fragments=1276)),
            [
                "path MTU 1280: replies stop at 1281",
                "outbound: probes above 1280 are lost without ICMP error, fragmented ones have replies: a black hole",
                "return path: replies of 1500 arrive in fragments of up to 1276",
            ],
        ),
        (
            result(return_path=ReturnPath(size=1500, replied=False)),
            [
                "path MTU 1280: replies stop at 1281",
                "outbound: no router reports that probes above 1280 are too long",
                VANISH,
            ],
        ),
        (result(passes=None, interrupted=True), ["interrupted: path MTU unknown, there was no reply yet"]),
        (result(fails=1391, interrupted=True), ["interrupted: path MTU at least 1280, at most 1390"]),
    ],
)
def test_each_finding_has_its_sentences(found: MtuResult, lines: list[str]) -> None:
    """What stops, where, who said so, and what is known of the way back."""
    assert explain(found) == lines
