"""The conclusion from UDP and TCP measured side by side.

Owns the sentence, nothing else. Invariant: every pair of outcomes has one.
"""

from enum import Enum


class Reachability(Enum):
    """The outcome of the probes over one protocol."""

    ANSWERED = "answered"
    SILENT = "silent"
    """Neither a reply nor an error came."""
    REFUSED = "refused"
    """The target host reported that nothing listens on the port."""
    CLOSED = "closed"
    """The host accepted the connection, and closed it before a reply: so does echod where a rule refuses the source."""
    UNREACHABLE = "unreachable"
    """A router, or this host, reported that there is no route, or that it is prohibited."""
    DAMAGED = "damaged"
    """The replies differ from what was sent."""


_PHRASES = {
    Reachability.SILENT: "{other} has no reply: it is filtered, or the server's rules drop it",
    Reachability.REFUSED: "nothing listens on that {other} port",
    Reachability.CLOSED: "{other} connections are accepted and closed: the server may refuse this source",
    Reachability.UNREACHABLE: "{other} is rejected on the path",
    Reachability.DAMAGED: "{other} replies are damaged",
}
"""The sentence about a protocol without an intact reply."""

_HOST_UP = (Reachability.REFUSED, Reachability.CLOSED, Reachability.DAMAGED)


def reachability(*, received: int, damaged: int, reasons: frozenset[str]) -> Reachability:
    """Return the outcome, from the number of whole replies, of damaged ones, and the reasons of errors."""
    if received:
        return Reachability.ANSWERED
    if damaged:
        return Reachability.DAMAGED
    if reasons & {"port unreachable", "connection refused"}:
        return Reachability.REFUSED
    if reasons & {"connection reset", "connection closed"}:  # a connection that never stood is refused, or times out
        return Reachability.CLOSED
    return Reachability.UNREACHABLE if reasons else Reachability.SILENT


def explain(udp: Reachability, tcp: Reachability) -> str:
    """Return the sentence for two outcomes."""
    if udp is tcp is Reachability.ANSWERED:
        return "the host replies over UDP and TCP"
    if udp is Reachability.ANSWERED:
        return f"the host replies over UDP; {_phrase(tcp, 'TCP')}"
    if tcp is Reachability.ANSWERED:
        return f"the host replies over TCP; {_phrase(udp, 'UDP')}"
    if udp in _HOST_UP or tcp in _HOST_UP:
        return f"the host is up, but does not echo: {_phrase(udp, 'UDP')}; {_phrase(tcp, 'TCP')}"
    if Reachability.UNREACHABLE in (udp, tcp):
        return "the host is unreachable: an error reports it"
    return "the host is down, or everything to it is filtered: no reply over UDP or TCP"


def _phrase(found: Reachability, protocol: str) -> str:
    return _PHRASES[found].format(other=protocol)
