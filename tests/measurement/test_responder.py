"""echod.measurement.responder: the time at the responder, and whether a reply is of another responder."""

from dataclasses import replace

import pytest

from echod.measurement.responder import Report, Responders

WRAPS = 2**32 * 1000
REPORT = Report(received=1000, replied=5000, wraps=WRAPS)

Judged = tuple[int | None, bool]


def judge(responders: Responders, count: int | None, sequence: int, **more: int) -> Judged:
    """Judge the reply to a probe that left at its number of seconds, and came back 0.1 s later."""
    sent = more.get("sent", sequence * 10)
    report = replace(REPORT, count=count, copied=bool(more.get("copied")))
    found, new = responders.judge(
        report, sequence, more.get("port_index", 0), sent=sent, arrived=more.get("arrived", sent + 1)
    )
    assert found is not None
    return found.count, new


@pytest.mark.parametrize(
    ("received", "replied", "held"),
    [
        (1000, 5000, 4000),
        (5000, 5000, 0),
        (WRAPS - 1000, 2000, 3000),
        (WRAPS - 1000, WRAPS - 1000, 0),
        (0, 2_147_483_647_999, 2_147_483_647_999),
        (0, 2_147_483_648_000, None),
        (5000, 4999, None),
        (2000, WRAPS - 1000, None),
    ],
)
def test_the_time_at_the_responder_may_wrap(received: int, replied: int, held: int | None) -> None:
    """Its clock begins at zero again after 71.6 minutes (TR-143); a reply before its request says nothing."""
    assert replace(REPORT, received=received, replied=replied).held == held


def test_a_responder_whose_count_falls_back_is_another_one() -> None:
    """It began at zero again: the probe left after the reply to a later arrival had come."""
    responders = Responders()
    assert [judge(responders, count, count) for count in range(1, 51)] == [(count, False) for count in range(1, 51)]
    assert judge(responders, 7, 51) == (7, True)
    assert judge(responders, 8, 52) == (8, False)
    assert judge(responders, 3, 53) == (3, True)


def test_one_count_for_two_probes_is_that_of_two_responders() -> None:
    """Also where both probes were in flight at the same time."""
    responders = Responders()
    assert judge(responders, 1, 1, sent=10, arrived=100) == (1, False)
    assert judge(responders, 1, 2, sent=20, arrived=110) == (1, True)


def test_reordering_and_duplicates_are_of_the_same_responder() -> None:
    """A reply may overtake another, in either direction, and each may come twice."""
    responders = Responders()
    assert judge(responders, 1, 1, sent=10, arrived=100) == (1, False)
    assert judge(responders, 4, 2, sent=20, arrived=130) == (4, False)
    assert judge(responders, 2, 3, sent=30, arrived=140) == (2, False)
    assert judge(responders, 3, 4, sent=40, arrived=150) == (3, False)
    assert judge(responders, 3, 4, sent=40, arrived=160) == (3, False)
    assert judge(responders, 5, 4, sent=40, arrived=170) == (5, False)
    # The probe leaves after the reply to a later arrival has come: to the nanosecond.
    assert judge(responders, 7, 6, sent=180, arrived=190) == (7, False)
    assert judge(responders, 6, 5, sent=189, arrived=200) == (6, False)


@pytest.mark.parametrize(("sent", "new"), [(189, False), (190, True)])
def test_what_left_after_a_later_count_had_come_cannot_be_before_it(sent: int, *, new: bool) -> None:
    """Arrivals at one responder are in the order of their counts."""
    responders = Responders()
    assert judge(responders, 7, 1, sent=180, arrived=190) == (7, False)
    assert judge(responders, 6, 2, sent=sent, arrived=200) == (6, new)


def test_each_source_port_has_a_session_of_its_own() -> None:
    """Its count says nothing of that of another."""
    responders = Responders()
    assert judge(responders, 5, 1) == (5, False)
    assert judge(responders, 1, 2, port_index=1) == (1, False)
    assert judge(responders, 1, 3) == (1, True)


def test_a_number_that_is_copied_is_no_count_until_one_is_not() -> None:
    """A stateless reflector returns the sender's number. A stateful one does so by chance only."""
    responders = Responders()
    assert judge(responders, 2, 1, copied=1) == (None, False)
    assert judge(responders, 3, 2, copied=1) == (None, False)
    assert judge(responders, 3, 3) == (3, False)
    assert judge(responders, 5, 4, copied=1) == (5, False)


def test_a_count_that_begins_at_zero_again_goes_on() -> None:
    """After 2**32; a reply from before that may be late, and a fall of any other kind is still another responder."""
    responders = Responders()
    assert judge(responders, 4_294_967_294, 1) == (4_294_967_294, False)
    assert judge(responders, 0, 3, sent=30, arrived=50) == (4_294_967_296, False)
    assert judge(responders, 4_294_967_295, 2, sent=20, arrived=51) == (4_294_967_295, False)
    assert judge(responders, 1, 6) == (4_294_967_297, False)
    assert judge(responders, 4_294_967_295, 7) == (4_294_967_295, True)
    assert judge(responders, 0, 8) == (4_294_967_296, False)
    overtaken = Responders()
    assert judge(overtaken, 0, 2, sent=20, arrived=50) == (0, False)
    assert judge(overtaken, 4_294_967_295, 1, sent=10, arrived=51) == (-1, False)


def test_without_a_count_nothing_is_known() -> None:
    """Of a plain echo there is not even a report."""
    responders = Responders()
    assert judge(responders, None, 1) == (None, False)
    assert responders.judge(None, 1, 0, sent=0, arrived=1) == (None, False)


def test_memory_is_bounded() -> None:
    """Of 20,000 replies about 8,000 are remembered, and a fall to any count is still detected."""
    responders = Responders()
    for number in range(1, 20_001):
        judge(responders, number, number)
    responder = responders._by_port[0]
    assert (len(responder._peaks) <= 8192, len(responder._sequences)) == (True, 4096)
    assert judge(responders, 1, 20_001) == (1, True)
