"""The time by both clocks.

Owns reading them together. Never waits. Invariant: the monotonic clock is read first, so that no event after the
reading is before it by that clock.
"""

from time import monotonic_ns, time_ns

from echod.measurement.events import Moment


def read_clocks() -> Moment:
    """Return the time."""
    clock = monotonic_ns()
    return Moment(wall=time_ns(), clock=clock)
