"""What a session is asked to do: its rate, its limits, its payloads, and how its sockets are set up.

Owns values alone: command line and config make them. Never reads either. Invariant: times are in ns, sizes in bytes of
payload, and a value is never changed.
"""

from dataclasses import dataclass
from typing import Final

from echod.measurement.payload import MAX_PROBES
from echod.probes.frames import Frame

DISCOVERY: Final = {"dont": 0, "want": 1, "do": 2, "probe": 3}
"""IP_PMTUDISC_* (linux/in.h): how a socket discovers the path MTU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSettings:
    """The options of the sockets; None is the default of the kernel."""

    source: str = ""
    """The source address, or the interface to send from; empty text is any."""
    source_port: int = 0
    """The first source port, which the others follow; zero is any."""
    tos: int | None = None
    """The TOS byte, or the traffic class of IPv6."""
    ttl: int | None = None
    """The time to live, or the hop limit of IPv6."""
    discovery: int | None = None
    """A value of `DISCOVERY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """The probes of one session."""

    interval: int
    """Time from one probe to the next; with zero the next is sent when the window has room."""
    window: int
    """Most probes in flight."""
    timeout: int
    """Time after which a probe in flight is given up."""
    sizes: tuple[int, ...]
    """Sizes of the probes, in turn."""
    pattern: bytes = b""
    """Fills the payload behind its header; empty is the default of `Payloads`."""
    count: int = MAX_PROBES
    """Probes to send."""
    deadline: int | None = None
    """Time after which the session ends; None is no limit."""
    source_ports: int = 1
    """Number of source ports, used in turn."""
    history: int = 65_536
    """Probes remembered after their outcome is known, to recognize a duplicate or a late reply."""
    frame: Frame | None = None
    """What carries each probe; None for those of a plain echo."""
    sockets: SocketSettings = SocketSettings()
