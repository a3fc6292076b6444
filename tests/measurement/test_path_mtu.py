"""echod.measurement.path_mtu: the search, played against paths, and its sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.path_mtu import Finding, Search, Way, explain


def play(limit: int, *, low: int = 52, high: int = 1500, told: int = 0) -> tuple[Search, list[int]]:
    """Search on a path that lets packets up to `limit` through, with a router that says `told`."""
    search, asked = Search(low=low, high=high), []
    while (size := search.next_size()) is not None:
        asked.append(size)
        if size <= limit:
            search.passed(size)
        else:
            search.failed(size, told)
    return search, asked


@given(limit=st.integers(52, 1600), high=st.integers(60, 1500))
def test_the_limit_is_found_in_as_many_steps_as_it_has_bits(limit: int, high: int) -> None:
    """Whatever the limit: the greatest that passes and the least that does not stand side by side."""
    search, asked = play(limit, high=high)
    assert search.passes == min(limit, high)
    assert search.fails == min(limit, high) + 1
    assert len(asked) <= 2 + high.bit_length()


def test_a_path_that_takes_all_is_found_in_two_steps() -> None:
    """The least first, then the greatest."""
    assert play(9000)[1] == [52, 1500]


@pytest.mark.parametrize("told", [1280, 1400, 1200, 9000])
def test_what_a_router_says_is_tried_and_not_believed(told: int) -> None:
    """If it is right three more steps do; if it is wrong the search goes on."""
    search, asked = play(1280, told=told)
    assert (search.passes, search.fails) == (1280, 1281)
    if told == 1280:
        assert asked[:4] == [52, 1500, 1280, 1281]


def test_where_nothing_passes_the_search_is_over_at_once() -> None:
    """Not even the least size came back."""
    search, asked = play(0)
    assert (search.passes, asked) == (None, [52])


def finding(**more: object) -> Finding:
    """Return a finding of 1280 out of 1500."""
    return Finding(**{"passes": 1280, "fails": 1281, "highest": 1500, **more})  # type: ignore[arg-type]


VANISH = "way back: cannot be told: probes of 1500 in fragments have no replies, so fragments or replies vanish"
WHOLE = Way(size=1500, answered=True)


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (finding(passes=None), ["path MTU unknown: not even the least probe had a reply"]),
        (finding(passes=1500), ["path MTU 1500 in both directions: as much as this host's interface takes"]),
        (
            finding(passes=1500, fragments=1276),
            [
                "path MTU 1500 on the way out: as much as this host's interface takes",
                "way back: replies come in fragments of up to 1276",
            ],
        ),
        (
            finding(router="10.0.0.1", reason="needs fragmentation", told=1280, back=WHOLE),
            [
                "path MTU 1280: replies stop at 1281",
                "way out: 10.0.0.1 says of probes above 1280: needs fragmentation, MTU 1280",
                "way back: replies of 1500 come whole",
            ],
        ),
        (
            finding(router="10.0.0.1", reason="administratively prohibited", back=WHOLE),
            [
                "path MTU 1280: replies stop at 1281",
                "way out: 10.0.0.1 says of probes above 1280: administratively prohibited",
                "way back: replies of 1500 come whole",
            ],
        ),
        (
            finding(local=True, told=1280),
            ["path MTU 1280: replies stop at 1281", "way out: this host knows of MTU 1280"],
        ),
        (
            finding(back=Way(size=1500, answered=True, fragments=1276)),
            [
                "path MTU 1280: replies stop at 1281",
                "way out: probes above 1280 vanish without a word, but in fragments they have replies: a black hole",
                "way back: replies of 1500 come in fragments of up to 1276",
            ],
        ),
        (
            finding(back=Way(size=1500, answered=False)),
            [
                "path MTU 1280: replies stop at 1281",
                "way out: no router says that probes above 1280 are too long",
                VANISH,
            ],
        ),
        (finding(passes=None, interrupted=True), ["interrupted: path MTU unknown, for there was no reply yet"]),
        (finding(fails=1391, interrupted=True), ["interrupted: path MTU at least 1280, at most 1390"]),
    ],
)
def test_each_finding_has_its_sentences(found: Finding, lines: list[str]) -> None:
    """What stops, where, who said so, and what is known of the way back."""
    assert explain(found) == lines
