"""What happens to the probes of `echod ping`, one event each time.

Owns the vocabulary that measuring (`flight.py`), statistics (`survey.py`) and all reports share. Invariant: every
datagram that arrives is exactly one event, and so is every probe of which nothing was heard in time.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """What an event is."""

    REPLY = "reply"
    """The first whole reply, in time."""
    LATE = "late"
    """The first whole reply, after the probe had been given up."""
    DUPLICATE = "duplicate"
    """A whole reply to a probe that has had one."""
    STALE = "stale"
    """A whole reply to a probe so old that nobody remembers whether it is late or a duplicate."""
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    EXTENDED = "extended"
    ELSEWHERE = "elsewhere"
    """A whole reply, but from another address or port than the one asked."""
    FOREIGN = "foreign"
    """Something that is no reply to any probe."""
    REFUSED = "refused"
    """An error instead of a reply: from a router (ICMP), from the peer (TCP), or from this host."""
    LOST = "lost"
    """Nothing came in time."""


DAMAGED: Final = frozenset({Kind.CORRUPT, Kind.TRUNCATED, Kind.EXTENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event.

    Times are ns since 1970: `time` when it happened, `sent` when its probe was sent, `until` when the next one was, 0
    where none was yet. `rtt` is in ns; of a lost probe it is how long it was waited for. What is not known is None or
    empty.
    """

    kind: Kind
    time: int
    sequence: int | None = None
    settles: bool = False
    """Whether this is, from now on, what became of the probe."""
    before: Kind | None = None
    """What had become of it before; None where it was in flight."""
    source: int = 0
    """Index of the source port."""
    size: int = 0
    """Bytes of payload that came, or of the probe where nothing did."""
    expected: int = 0
    """Bytes of payload that were sent."""
    sent: int = 0
    until: int = 0
    rtt: int | None = None
    address: str = ""
    """Who sent what came: the peer, or the router that sent the error."""
    ttl: int | None = None
    offset: int = 0
    """Of damage: the first wrong byte, from zero."""
    count: int = 0
    """Of damage: how many bytes are wrong."""
    reason: str = ""
    """Of one refused: the error's name."""
    mtu: int = 0
    """Of one refused because it is too long: what would fit, in bytes, all headers but the link's included."""
