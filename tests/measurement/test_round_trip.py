"""echod.measurement.round_trip: which clock a round-trip time is measured by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.events import Moment
from echod.measurement.round_trip import STEP, Response, round_trip

SENT = Moment(wall=10**18, clock=5000)
OFFSET = SENT.wall - SENT.clock


def read(clock: int, step: int = 0) -> Moment:
    """Return a moment of the reader; the wall clock was set forward by `step` since the probe was sent."""
    return Moment(wall=OFFSET + clock + step, clock=clock)


@pytest.mark.parametrize(
    ("stamp", "moment", "expected"),
    [
        (SENT.wall + 700, read(6000), 700),
        (None, read(6000), 1000),
        (SENT.wall + 1001, read(6000), 1000),  # longer than the monotonic clock has seen
        (SENT.wall - 1, read(6000), 1000),
        (SENT.wall + 700, read(6000, STEP - 1), 700),
        (SENT.wall + 700, read(6000, STEP), 1000),
        (SENT.wall + 700, read(6000, -STEP), 1000),
        (SENT.wall, read(4000), 0),
        (None, read(4000), 0),
    ],
)
def test_the_stamps_count_unless_a_clock_was_set(stamp: int | None, moment: Moment, expected: int) -> None:
    """A step of the wall clock shows in its distance from the monotonic one."""
    assert round_trip(SENT, OFFSET, stamp, moment) == expected


@given(took=st.integers(0, 10**10), waited=st.integers(0, 10**10), step=st.integers(-(10**13), 10**13))
def test_a_step_is_never_a_part_of_a_round_trip(took: int, waited: int, step: int) -> None:
    """A reply that was under way for a time, and then waited for its reader, is as long as one of them or both."""
    moment = read(SENT.clock + took + waited, step)
    found = round_trip(SENT, OFFSET, SENT.wall + took + step, moment)
    assert took - STEP <= found <= took + waited + STEP


def test_where_the_kernel_has_no_stamp_a_datagram_came_when_it_was_read() -> None:
    """Nothing else is known."""
    response = Response(data=b"", stamp=None, read=SENT, address="192.0.2.1:7")
    assert response.wall == SENT.wall
