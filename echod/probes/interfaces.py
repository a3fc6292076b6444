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
    """A connection stands, and what waited for it went at this moment; `took` is the length of the handshake in ns."""

    moment: Moment
    took: int


Received = Response | ProbeError | Connected


class Transport(Protocol):
    """What carries probes to a target and brings back what comes."""

    port_index: int
    """Index of its source port among those of the target."""
    port: int
    """The source port; zero while there is none."""
    send_stamp: int
    """When the kernel passed the last probe to a device, in ns since 1970; zero, or earlier, if that is not known."""

    @property
    def dropped(self) -> int:
        """How many datagrams found no room in the receive buffer of this host."""

    @property
    def has_errors(self) -> bool:
        """Whether there is something to receive of which no wait will tell."""

    def send(self, payload: bytes) -> NetworkError | None:
        """Send a probe; return what stands in the way if it could not go."""

    def receive(self) -> Iterable[Received]:
        """Yield what has come."""


class Session(Protocol):
    """A target that is being probed, by single probes (`ProbeSession`) or by a flood (`FloodSession`)."""

    @property
    def target(self) -> Target:
        """Return whom."""

    @property
    def statistics(self) -> Statistics:
        """Return what it adds up to."""

    @property
    def port_statistics(self) -> Sequence[Statistics]:
        """Return what it adds up to for each source port."""

    @property
    def ports(self) -> Sequence[int]:
        """Return the source ports."""

    @property
    def handshakes(self) -> Sequence[int]:
        """Return the times that connections took to stand, in ns."""

    @property
    def elapsed(self) -> int:
        """Return how long it took, or has taken so far, in ns."""

    def start(self, now: int) -> None:
        """Begin; `now` is monotonic, in ns."""

    def run_due(self, now: int) -> int | None:
        """Do what is due; return when to be called again, or None if all is done."""

    def finish(self) -> None:
        """Count what will not come any more."""


Watcher = Callable[[Session, Event], None]
"""Is told of every event, after it was counted."""
