"""What the parts of the probing engine know of each other.

Owns the types that loop, sessions, transports and output share. Never does anything. Invariant: output reads a session
and changes nothing in it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from echod.measurement.events import Event, Moment
from echod.measurement.icmp import NetworkError
from echod.measurement.in_flight import ProbeError
from echod.measurement.round_trip import Response
from echod.measurement.statistics import Statistics
from echod.probes.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A connection is open; the probes that waited for it are sent at `moment`. `took` is its handshake in ns."""

    moment: Moment
    took: int


Received = Response | ProbeError | Connected


class Transport(Protocol):
    """Sends probes to a target and receives from it."""

    port_index: int
    """Index of its source port among those of the session."""
    port: int
    """The source port; zero while there is none."""
    send_stamp: int
    """When the kernel passed the last probe to a device, in ns since 1970; zero or earlier if that is not known."""

    @property
    def dropped(self) -> int:
        """Datagrams that had no room in the receive buffer of this host."""

    @property
    def has_errors(self) -> bool:
        """Whether there are errors to receive that no wait will report."""

    def send(self, payload: bytes) -> NetworkError | None:
        """Send a probe; return the error if it could not be sent."""

    def receive(self) -> Iterable[Received]:
        """Yield what was received."""


class Session(Protocol):
    """A target that is being probed, by single probes (`ProbeSession`) or by a flood (`FloodSession`)."""

    @property
    def target(self) -> Target:
        """Return the target."""

    @property
    def statistics(self) -> Statistics:
        """Return the statistics."""

    @property
    def port_statistics(self) -> Sequence[Statistics]:
        """Return the statistics of each source port."""

    @property
    def ports(self) -> Sequence[int]:
        """Return the source ports."""

    @property
    def handshakes(self) -> Sequence[int]:
        """Return the durations of TCP handshakes in ns."""

    @property
    def elapsed(self) -> int:
        """Return how long it took, or has taken so far, in ns."""

    def start(self, now: int) -> None:
        """Begin; `now` is monotonic, in ns."""

    def run_due(self, now: int) -> int | None:
        """Do what is due; return when to be called again, or None if all is done."""

    def finish(self) -> None:
        """Count the probes whose replies will not come any more."""


Watcher = Callable[[Session, Event], None]
"""Gets every event after it was counted."""
