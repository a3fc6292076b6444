"""echod.measurement.path_mtu: the search, on simulated paths, and its sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.path_mtu import MtuResult, ReturnPath, Search, explain


def play(limit: int, *, low: int = 52, high: int = 1500, reported_mtu: int = 0) -> tuple[Search, list[int]]:
    """Search on a path that lets packets up to `limit` through, with a router that reports `reported_mtu`."""
    search, sizes = Search(low=low, high=high), []
    while (size := search.next_size()) is not None:
        sizes.append(size)
        if size <= limit:
            search.passed(size)
        else:
            search.failed(size, reported_mtu)
    return search, sizes


@given(limit=st.integers(52, 1600), high=st.integers(60, 1500), reported_mtu=st.integers(0, 9000))
def test_the_limit_is_found_whatever_a_router_reports(limit: int, high: int, reported_mtu: int) -> None:
    """In as many steps as it has bits, and two more for the MTU that a router reports, right or wrong."""
    search, sizes = play(limit, high=high, reported_mtu=reported_mtu)
    assert (search.passes, search.fails) == (min(limit, high), min(limit, high) + 1)
    assert len(sizes) <= high.bit_length() + (4 if reported_mtu else 2)


@pytest.mark.parametrize(
    ("limit", "reported_mtu", "sizes"),
    [(9000, 0, [52, 1500]), (1280, 1280, [52, 1500, 1280, 1281]), (0, 0, [52])],
)
def test_the_search_is_short_where_it_can_be(limit: int, reported_mtu: int, sizes: list[int]) -> None:
    """If the greatest size passes, if a router reports the MTU, or if nothing passes."""
    assert play(limit, reported_mtu=reported_mtu)[1] == sizes


def result(**more: object) -> MtuResult:
    """Return a result of 1280 out of 1500."""
    return MtuResult(**{"passes": 1280, "fails": 1281, "interface_mtu": 1500, **more})  # type: ignore[arg-type]


STOP = "path MTU 1280: replies stop at 1281"
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
                STOP,
                "outbound: 10.0.0.1 reports for probes above 1280: needs fragmentation, MTU 1280",
                "return path: replies of 1500 arrive whole",
            ],
        ),
        (
            result(router="10.0.0.1", reason="administratively prohibited"),
            [STOP, "outbound: 10.0.0.1 reports for probes above 1280: administratively prohibited"],
        ),
        (result(local=True, reported_mtu=1280), [STOP, "outbound: this host reports MTU 1280"]),
        (
            result(return_path=ReturnPath(size=1500, replied=True, reply_fragments=1276)),
            [
                STOP,
                "outbound: probes above 1280 are lost without ICMP error, fragmented ones have replies: a black hole",
                "return path: replies of 1500 arrive in fragments of up to 1276",
            ],
        ),
        (
            result(return_path=ReturnPath(size=1500, replied=False)),
            [
                STOP,
                "outbound: no router reports that probes above 1280 are too long",
                "return path: unknown: probes of 1500 in fragments have no replies, so fragments or replies are lost",
            ],
        ),
        (result(passes=None, interrupted=True), ["interrupted: path MTU unknown, there was no reply yet"]),
        (result(fails=1391, interrupted=True), ["interrupted: path MTU at least 1280, at most 1390"]),
    ],
)
def test_each_result_has_its_sentences(found: MtuResult, lines: list[str]) -> None:
    """The size, the reason, its sender, and what is known of the return path."""
    assert explain(found) == lines
