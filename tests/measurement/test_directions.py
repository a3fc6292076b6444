"""echod.measurement.directions: what was lost, duplicated, overtaken and delayed, out and back."""

from dataclasses import replace
from typing import Any

import pytest

from echod.measurement.directions import Directions, Tally
from echod.measurement.events import Event, Kind, Moment
from echod.measurement.responder import Report

WRAPS = 2**32 * 1000
SECOND = 10**9


def reply(index: int, count: int | None, **more: Any) -> Event:  # noqa: ANN401 - fields of an event
    """Return the reply to the probe that left at its number of seconds: 1 ms out, 2 ms back, by a clock behind."""
    sent, out, back = index * SECOND, more.pop("out", 1_000_000), more.pop("back", 2_000_000)
    failures = more.pop("failures", 0)
    behind = more.pop("behind", 5)
    received = (sent + out - behind) % WRAPS
    report = Report(received=received, replied=received, wraps=WRAPS, count=count, failures=failures)
    event = Event(
        kind=Kind.REPLY,
        time=0,
        clock=sent + out + back,
        sequence=index,
        settles=True,
        sent=Moment(wall=7, clock=sent),
        rtt=out + back,
        report=report,
    )
    return replace(event, **more)


def counted(*replies: tuple[int, int | None], unsent: tuple[int, ...] = (), **more: Any) -> Directions:  # noqa: ANN401
    """Return what these replies say, each a probe and a count, in the order of their arrival."""
    tally = Tally()
    for index in unsent:
        tally.unsent(index)
    for at, (index, count) in enumerate(replies):
        tally.add(index, reply(index, count, clock=10**12 + at, **more))
    return tally.directions


def lost(found: Directions) -> tuple[int, int]:
    """Return the losses out and back."""
    return found.out.lost, found.back.lost


@pytest.mark.parametrize(
    ("replies", "losses"),
    [
        ([(1, 1), (2, 2), (3, 3)], (0, 0)),
        ([(1, 1), (4, 2)], (2, 0)),
        ([(1, 1), (4, 4)], (0, 2)),
        ([(1, 1), (5, 3)], (2, 1)),
        ([(3, 1), (4, 2)], (2, 0)),
        ([(3, 3), (4, 4)], (0, 2)),
        ([(3, 2), (4, 3)], (1, 1)),
        ([(2, 2), (1, 1), (4, 4), (3, 3)], (0, 0)),
        ([(2, 1), (1, 2), (4, 3), (3, 4)], (0, 0)),
        ([(1, 1)], (0, 0)),
    ],
)
def test_what_is_counted_and_did_not_come_was_lost_on_the_way_back(
    replies: list[tuple[int, int]], losses: tuple[int, int]
) -> None:
    """And what was sent and is not counted, on the way out."""
    found = counted(*replies)
    assert (lost(found), found.counted, found.contradictory) == (losses, True, False)


@pytest.mark.parametrize(
    ("replies", "losses"),
    [
        ([(1, 101), (2, 102), (3, 103)], (0, 0)),
        ([(3, 101), (6, 103)], (1, 1)),
        ([(3, 101), (2, 100), (5, 102)], (1, 0)),
        ([(3, 0), (2, -1), (5, 1)], (1, 0)),
    ],
)
def test_a_responder_that_had_counted_before_is_known_from_its_first_reply_on(
    replies: list[tuple[int, int]], losses: tuple[int, int]
) -> None:
    """What was lost before that is in no direction."""
    assert lost(counted(*replies)) == losses


@pytest.mark.parametrize(
    ("replies", "losses"),
    [
        ([(5, 4), (6, 5), (7, 6)], (0, 0)),
        ([(5, 4), (8, 6), (9, 7)], (1, 1)),
        ([(1, 1), (4, 2)], (2, 0)),
    ],
)
def test_from_a_port_that_was_used_before_nothing_is_known_before_the_first_reply(
    replies: list[tuple[int, int]], losses: tuple[int, int]
) -> None:
    """A small count may be that of older requests: here of 3, and the first 4 were lost on the way out."""
    tally = Tally(fresh=False)
    for index, count in replies:
        tally.add(index, reply(index, count))
    assert lost(tally.directions) == losses


def test_duplicates_have_a_direction_and_are_no_loss() -> None:
    """Out: two counts of one probe. Back: one count twice."""
    found = counted((1, 1), (2, 2), (2, 3), (3, 4), (3, 4), (3, 4), (5, 6))
    assert (found.out.duplicates, found.back.duplicates, lost(found)) == (1, 2, (0, 1))
    assert (found.out.order.reordered, found.back.order.reordered) == (0, 0)
    assert found.out.order.arrived == 4


def test_reordering_is_that_of_each_direction() -> None:
    """Out: counts that are not in the order of the probes. Back: replies that are not in the order of the counts."""
    found = counted((1, 1), (3, 2), (2, 3), (4, 4), (6, 6), (5, 5), (7, 7))
    assert (found.out.order.reordered, found.out.order.max_extent) == (1, 1)
    assert (found.back.order.reordered, found.back.order.max_extent) == (1, 1)
    both = counted((1, 1), (2, 4), (3, 2), (4, 3), (5, 5))
    assert (both.out.order.reordered, both.out.order.max_extent) == (1, 2)
    assert (both.back.order.reordered, both.back.order.max_extent) == (2, 2)


def test_the_order_of_many_arrivals_is_that_of_their_counts() -> None:
    """Of 1,000 pairs that swapped places on the way back alone, none did on the way out."""
    pairs = [each for number in range(1, 1001, 2) for each in ((number + 1, number + 1), (number, number))]
    found = counted(*pairs)
    assert (found.out.order.reordered, found.out.order.arrived) == (0, 1000)
    assert (found.back.order.reordered, found.back.order.max_extent, lost(found)) == (500, 1, (0, 0))
    out = counted(*((number, number - 1 if number % 2 else number + 1) for number in range(2, 1002)))
    assert (out.out.order.reordered, out.out.order.max_extent, out.out.order.arrived) == (500, 1, 1000)


def test_a_late_reply_tells_the_order_out_all_the_same() -> None:
    """Behind 2,000 others: whichever of two comes first, one of them arrived after a later one, or neither did."""
    others = [(number, number) for number in range(1, 2001) if number not in (10, 20, 21)]
    for late, reordered in (
        ([(10, 10), (20, 21), (21, 20)], 1),
        ([(21, 20), (20, 21), (10, 10)], 1),
        ([(20, 20), (10, 10), (21, 21)], 0),
    ):
        found = counted(*others, *late)
        assert (found.out.order.reordered, found.out.order.arrived, found.back.order.reordered > 0) == (
            reordered,
            2000,
            True,
        )


def test_what_this_host_did_not_send_was_not_lost() -> None:
    """Single ones and rows of them, between the first and the last reply; those behind it say nothing yet."""
    assert lost(counted((1, 1), (9, 3), unsent=(2, 4, 5, 6, 8, 10, 11))) == (1, 1)
    assert lost(counted((4, 1), (5, 2), unsent=(1, 2, 3))) == (0, 0)


def test_rows_of_probes_that_were_not_sent_are_bounded() -> None:
    """Of 10,000 that are apart the last 4,096 are remembered; those in a row are one."""
    tally = Tally()
    for index in range(1, 20_001, 2):
        tally.unsent(index)
    assert len(tally._responder._unsent) == 4096
    row = Tally()
    for index in range(1, 10_001):
        row.unsent(index)
    assert list(row._responder._unsent) == [(1, 10_000)]


def test_what_the_responder_could_not_reply_to_was_not_lost() -> None:
    """It says how many there were (TestRespReplyFailureCount), from zero, or since the first reply."""
    tally = Tally()
    tally.add(1, reply(1, 1))
    tally.add(4, reply(4, 4, failures=2))
    assert (lost(tally.directions), tally.directions.failures) == ((0, 0), 2)
    later = Tally()
    later.add(1, reply(1, 90, failures=30))
    later.add(3, reply(3, 92, failures=31))
    assert (lost(later.directions), later.directions.failures) == ((0, 0), 1)


@pytest.mark.parametrize("replies", [[(1, 1), (2, 5)], [(1, 70), (2, 80)], [(5, 9), (6, 7)]])
def test_a_responder_that_counts_others_too_says_nothing_of_directions(replies: list[tuple[int, int]]) -> None:
    """It has counted more than was sent."""
    found = counted(*replies)
    assert (found.contradictory, lost(found), found.out.duplicates) == (True, (0, 0), 0)


def test_one_count_for_two_probes_is_a_contradiction() -> None:
    """No responder gives one; a forged reply may."""
    found = counted((1, 1), (2, 1), (3, 2))
    assert (found.contradictory, found.out.duplicates, lost(found)) == (True, 0, (0, 0))


def test_a_responder_that_does_not_count_says_nothing_of_directions() -> None:
    """Delay variation is known all the same."""
    tally = Tally()
    for index in (1, 2, 3):
        tally.add(index, reply(index, None, out=index**2 * 1000))
    found = tally.directions
    assert (found.counted, found.out.order.arrived, found.out.variation.max) == (False, 0, 5000)


def test_another_responder_begins_anew_and_nothing_between_is_in_a_direction() -> None:
    """Its count begins anywhere; late replies of the one before it say nothing any more."""
    tally = Tally()
    for index, count in ((1, 1), (3, 3), (4, 4), (6, 5)):
        tally.add(index, reply(index, count))
    assert lost(tally.directions) == (1, 1)
    tally.add(10, reply(10, 3, new_responder=True))
    assert lost(tally.directions) == (1, 1)
    tally.add(8, reply(8, 6))
    tally.add(9, reply(9, 2))
    tally.add(13, reply(13, 5, failures=0))
    found = tally.directions
    assert (lost(found), found.counted, found.contradictory) == ((2, 2), True, False)
    tally.add(14, reply(14, 1, new_responder=True))
    assert (lost(tally.directions), tally.lost) == ((2, 2), (2, 2))


def test_losses_alone_are_known_at_once() -> None:
    """As long as they have a direction."""
    tally = Tally()
    assert tally.lost is None
    tally.add(1, reply(1, 1))
    assert tally.lost == (0, 0)
    tally.add(5, reply(5, 3))
    assert tally.lost == lost(tally.directions) == (2, 1)
    tally.add(6, reply(6, 90))
    assert tally.lost is None
    tally.add(7, reply(7, 1, new_responder=True))
    assert tally.lost is None


def test_delays_vary_in_each_direction_by_clocks_that_have_nothing_in_common() -> None:
    """RFC 3393 between neighbours that were both replied to, and RFC 5481 beyond the least; a clock may wrap."""
    for behind in (5, 10**15, -(10**15), 2 * SECOND, WRAPS - 3 * SECOND):
        tally = Tally()
        for index, out, back in ((1, 4000, 500), (2, 1000, 500), (3, 3000, 700), (5, 9000, 400)):
            tally.add(index, reply(index, index, out=out, back=back, behind=behind))
        found = tally.directions
        assert (found.out.variation.pairs, found.out.variation.sum, found.out.variation.max) == (2, 5000, 3000)
        assert (found.back.variation.pairs, found.back.variation.sum, found.back.variation.max) == (2, 200, 200)
        assert (found.out.spread, found.back.spread) == (8000, 300)


def test_delays_are_those_of_first_replies() -> None:
    """Of a duplicate, a damaged reply, and one that settles nothing, the time is not a delay of the path."""
    tally = Tally()
    tally.add(1, reply(1, 1))
    tally.add(1, reply(1, 1, kind=Kind.DUPLICATE, settles=False, out=10**9))
    tally.add(2, reply(2, 2, kind=Kind.CORRUPT, out=10**9))
    tally.add(3, reply(3, 3, settles=False, out=10**9))
    tally.add(4, reply(4, 4, kind=Kind.LATE))
    tally.add(5, reply(5, 5, report=None))
    found = tally.directions
    assert (found.out.delays.count, found.out.spread, found.back.delays.count) == (2, 0, 2)
    assert (found.back.duplicates, lost(found)) == (1, (0, 0))


def test_source_ports_add_up() -> None:
    """Loss, duplicates, order, variation and delays; one that is not known makes the sum unknown."""
    total = Directions()
    first, second = counted((1, 1), (3, 2), (3, 2), (6, 6)), counted((1, 2), (2, 1), (4, 3), (5, 4), (5, 5))
    for each in (first, second):
        total.merge(each)
    assert (lost(first), lost(second), lost(total)) == ((0, 3), (1, 0), (1, 3))
    assert (total.out.duplicates, total.back.duplicates) == (1, 1)
    assert (total.out.order.reordered, total.out.order.arrived, total.out.delays.count) == (1, 7, 9)
    assert (total.counted, total.contradictory, total.failures) == (True, False, 0)
    total.merge(counted((1, 1), (2, 9), failures=2))
    assert (total.contradictory, total.failures) == (True, 2)


def test_memory_is_bounded() -> None:
    """Of 10,000 replies 4,096 are remembered, and nothing is lost for it."""
    tally = Tally()
    for index in range(1, 10_001):
        tally.add(index, reply(index, index))
    account = tally._responder
    assert (len(account._counts), len(account._probes)) == (4096, 4096)
    arrivals = account._arrivals
    assert (len(arrivals._waiting), len(arrivals._counts) <= 8192, len(arrivals._probes) <= 8192) == (256, True, True)
    assert lost(tally.directions) == (0, 0)
    assert tally.directions.out.order.arrived == 10_000
