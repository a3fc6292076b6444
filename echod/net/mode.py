"""What a listener does with what it receives: its mode and the options of that.

Owns values alone: `config` reads them from the file, the services act on them. Invariant: times are in ns, rates in
bit/s, shares from 0 to 1, and a value is never changed.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

SERVICE_CLASSES: Final = {
    "EF": 46,
    "VA": 44,
    "LE": 1,
    **{f"CS{number}": 8 * number for number in range(8)},
    **{f"AF{row}{drop}": 8 * row + 2 * drop for row in range(1, 5) for drop in range(1, 4)},
}
"""DSCP by name (RFC 2474, 2597, 3246, 5865, 8622)."""

REFLECT: Final = "reflect"
"""The reply has the DSCP of the datagram."""

Dscp: TypeAlias = int | Literal["reflect"] | None
"""The DSCP of replies, 0 to 63 (RFC 2474); None leaves it to the kernel."""

ShortPackets: TypeAlias = Literal["refuse", "pad"]
"""What a STAMP listener does with requests below 44 octets, such as of TWAMP Light (RFC 5357, appendix I)."""


class Mode(Enum):
    """What a listener answers with."""

    ECHO = "echo"
    """The same bytes (RFC 862)."""
    UDPECHO_PLUS = "udpecho_plus"
    """The same bytes, with counters and timestamps written into them (TR-143, UDPEchoPlus)."""
    STAMP = "stamp"
    """A test packet of a Session-Reflector (RFC 8762)."""
    REVEAL = "reveal"
    """What the listener saw of the datagram, as JSON."""
    DISCARD = "discard"
    """Nothing (RFC 863)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """A path that misbehaves: what befalls a datagram between its receive and its reply."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    """The shares of datagrams that are lost, sent twice, sent after the next one, and sent with one bit inverted."""
    delay: int = 0
    jitter: int = 0
    """The delay is uniform from `delay` - `jitter` to `delay` + `jitter`."""
    rate: int = 0
    """The rate of the link; 0 is unlimited."""
    seed: int | None = None
    """The seed of all draws; None draws one."""
    queue: int = 10_000
    """Most datagrams that are held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """The mode of a listener, and the options that its mode knows."""

    mode: Mode = Mode.ECHO
    dscp: Dscp = None
    stateful: bool = False
    """Whether a STAMP listener numbers its packets itself, for each session (RFC 8762, 4)."""
    hmac_key: str = ""
    """Where the key of authenticated STAMP is: an absolute path, or the name of a credential (systemd.exec(5))."""
    short_packets: ShortPackets = "refuse"
    impair: Impairment | None = None

    @property
    def plain(self) -> bool:
        """Whether the listener is an echo and nothing more, whose replies another program may repeat."""
        return self.mode is Mode.ECHO and self.dscp is None and self.impair is None

    @property
    def label(self) -> str:
        """What a list of listeners says beside its name: empty for an echo, `stamp`, `impaired echo`."""
        if self.impair is not None:
            return f"impaired {self.mode.value}"
        return "" if self.mode is Mode.ECHO else self.mode.value

    @property
    def measured(self) -> bool:
        """Whether its UDP sockets report the arrival time, TTL and TOS of each datagram."""
        return self.mode in _MEASURED or self.dscp == REFLECT

    @property
    def has_sessions(self) -> bool:
        """Whether it counts for each peer, so that all datagrams of a peer have to reach one worker."""
        return self.mode is Mode.UDPECHO_PLUS or self.stateful


_MEASURED: Final = (Mode.UDPECHO_PLUS, Mode.STAMP, Mode.REVEAL)

PLAIN: Final = ListenerOptions()
"""The echo of RFC 862, which a listener is without options."""
