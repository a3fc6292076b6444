"""The round-trip time of a probe, by the timestamps of the kernel if they can be trusted.

Owns `Response` and the arithmetic of the two clocks. Never reads a clock. The kernel stamps datagrams by the wall
clock, which an operator or a time service may set while a probe is in flight. Invariant: a round-trip time is
never negative, and never longer than the monotonic clock shows.
"""

from dataclasses import dataclass
from typing import Final

from echod.measurement.events import Moment
from echod.measurement.responder import Report

STEP: Final = 1_000_000
"""Ns. Wall clock and monotonic clock run at one rate, so their distance changes only when the wall clock is set; less
than this may be the time between the two readings of a process that has to wait for a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Data from `address`: a datagram, or a part of a stream; `from_target` is whether that is the address probed.

    `stamp` is the timestamp of the kernel in ns since 1970, or None; `read` is when the data was read.
    """

    data: bytes
    stamp: int | None
    read: Moment
    address: str
    from_target: bool = True
    port_index: int = 0
    ttl: int | None = None
    dscp: int | None = None
    report: Report | None = None
    """What the responder wrote into it; `data` is then the request as it arrived there."""

    @property
    def wall(self) -> int:
        """Return when it came, in ns since 1970."""
        return self.read.wall if self.stamp is None else self.stamp


def round_trip(sent: Moment, offset: int, stamp: int | None, read: Moment) -> int:
    """Return the time from `sent` to the arrival, in ns.

    `offset` is how far the wall clock was ahead of the monotonic clock when the probe was sent; for the others see
    `Response`. It is the time between the timestamps, unless they contradict the monotonic clock or the wall clock was
    set meanwhile. Then it is the monotonic clock's, which includes the time that the reply waited for its reader.
    """
    most = max(0, read.clock - sent.clock)
    if stamp is None or abs(read.wall - read.clock - offset) >= STEP:
        return most
    measured = stamp - sent.wall
    return measured if 0 <= measured <= most else most
