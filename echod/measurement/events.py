"""The events of probes.

Owns the vocabulary that measurement, statistics and output share. Invariant: every datagram that arrives is exactly one
event, and so is every probe without a reply in time.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from echod.measurement.payload import Damage
from echod.measurement.responder import Report


class Kind(Enum):
    """The kind of an event. A reply is *whole* if it equals its probe."""

    REPLY = "reply"
    """The first whole reply, in time."""
    LATE = "late"
    """The first whole reply, after its probe was given up."""
    DUPLICATE = "duplicate"
    """A further whole reply to a probe."""
    STALE = "stale"
    """A whole reply to a probe that is no longer remembered: it is late or a duplicate."""
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    EXTENDED = "extended"
    DIFFERENT_ADDRESS = "different_address"
    """A whole reply, but from another address or port than the one probed."""
    UNMATCHED = "unmatched"
    """A datagram that is not a reply to any probe."""
    ERROR = "error"
    """An error instead of a reply: from a router (ICMP), from the peer (TCP), or from this host."""
    LOST = "lost"
    """No reply came in time."""


KIND_OF_DAMAGE: Final = {Damage.CORRUPT: Kind.CORRUPT, Damage.TRUNCATED: Kind.TRUNCATED, Damage.EXTENDED: Kind.EXTENDED}

DAMAGED: Final = frozenset(KIND_OF_DAMAGE.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A time by both clocks: `wall`, ns since 1970, is shown; durations are differences of `clock`, monotonic, in ns.

    The wall clock may be set while a run lasts.
    """

    wall: int
    clock: int


NEVER: Final = Moment(wall=0, clock=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event.

    `time` is when it happened, in ns since 1970, and `clock` the same by the monotonic clock, 0 if it is not known. Its
    probe was sent at `sent`, and the next probe at `next_sent`: `NEVER` if there is none. `rtt` is in ns; for a lost
    probe it is the time that its reply was awaited. An unknown value is None or empty.
    """

    kind: Kind
    time: int
    clock: int = 0
    sequence: int | None = None
    settles: bool = False
    """Whether this is the outcome of the probe from now on."""
    previous: Kind | None = None
    """The outcome that the probe had until now; None if it was in flight."""
    port_index: int = 0
    """Index of the source port."""
    size: int = 0
    """Bytes of payload that came, or of the probe if nothing came."""
    expected: int = 0
    """Bytes of payload that were sent."""
    sent: Moment = NEVER
    next_sent: Moment = NEVER
    rtt: int | None = None
    address: str = ""
    """The sender: the peer, or the router that sent the error."""
    ttl: int | None = None
    dscp: int | None = None
    """0 to 63, as it arrived."""
    previous_ttl: int | None = None
    previous_dscp: int | None = None
    """For a reply with another TTL or DSCP than the one before it, from the same source port: what that had."""
    report: Report | None = None
    """For a reply: what the responder wrote into it."""
    new_responder: bool = False
    """Whether it is the first reply of another responder: it was restarted, or replaced."""
    offset: int = 0
    """For damage: the first wrong byte, from zero."""
    count: int = 0
    """For damage: how many bytes are wrong."""
    reason: str = ""
    """For an error: the name of the error."""
    unsent: bool = False
    """For an error: whether this host did not send the probe, so that it says nothing of the path."""
    mtu: int = 0
    """For an error because of size: the size that fits, in bytes, with all headers but those of the link."""

    @property
    def network(self) -> int | None:
        """Return the part of the round trip that was spent in the network, in ns; None if it is not known."""
        if self.rtt is None or self.report is None or self.report.held is None:
            return None
        return max(0, self.rtt - self.report.held)  # a clock in steps of 1 us may show more than there was
