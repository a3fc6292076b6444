"""The conclusion from UDP and TCP measured side by side.

Owns the sentence, nothing else. Invariant: every pair of outcomes has one.
"""

from enum import Enum


class Outcome(Enum):
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
    Outcome.SILENT: "over {other} nothing came: it is filtered, or the server's rules drop it",
    Outcome.REFUSED: "nothing listens on that {other} port",
    Outcome.CLOSED: "{other} connections are accepted and closed: the server may refuse this source",
    Outcome.UNREACHABLE: "{other} is refused on the way",
    Outcome.DAMAGED: "what comes back over {other} is not what was sent",
}
"""What is said of a protocol without a whole reply."""

_ALIVE = (Outcome.REFUSED, Outcome.CLOSED, Outcome.DAMAGED)


def outcome(*, received: int, damaged: int, reasons: frozenset[str]) -> Outcome:
    """Return the outcome, from the number of whole replies, of damaged ones, and the reasons of errors."""
    if received:
        return Outcome.ANSWERED
    if damaged:
        return Outcome.DAMAGED
    if reasons & {"port unreachable", "connection refused"}:
        return Outcome.REFUSED
    if reasons & {"connection reset", "connection closed"}:  # a connection that never stood is refused, or times out
        return Outcome.CLOSED
    return Outcome.UNREACHABLE if reasons else Outcome.SILENT


def explain(udp: Outcome, tcp: Outcome) -> str:
    """Return the sentence for two outcomes."""
    if udp is tcp is Outcome.ANSWERED:
        return "the host replies over UDP and TCP"
    if udp is Outcome.ANSWERED:
        return f"the host replies over UDP; {_phrase(tcp, 'TCP')}"
    if tcp is Outcome.ANSWERED:
        return f"the host replies over TCP; {_phrase(udp, 'UDP')}"
    if udp in _ALIVE or tcp in _ALIVE:
        return f"the host is up, but gives no echo: {_phrase(udp, 'UDP')}; {_phrase(tcp, 'TCP')}"
    if Outcome.UNREACHABLE in (udp, tcp):
        return "the host cannot be reached: an error says so"
    return "the host is down, or everything to it is filtered: nothing came over UDP or TCP"


def _phrase(found: Outcome, protocol: str) -> str:
    return _PHRASES[found].format(other=protocol)
