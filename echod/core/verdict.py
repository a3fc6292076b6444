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
    """The host accepted the connection, and closed it before it had answered."""
    UNREACHABLE = "unreachable"
    """A router, or this host, reported that there is no route, or that it is prohibited."""
    DAMAGED = "damaged"
    """The replies differ from what was sent."""


_ANSWERS = {
    Outcome.ANSWERED: "UDP and TCP are both answered",
    Outcome.SILENT: "the host is up and answers {answered}: {other} is filtered, or nothing answers it there",
    Outcome.REFUSED: "the host is up and answers {answered}: nothing listens on that {other} port",
    Outcome.CLOSED: "the host is up and answers {answered}: who listens on that {other} port closes the connection",
    Outcome.UNREACHABLE: "the host is up and answers {answered}: {other} is refused on the way",
    Outcome.DAMAGED: "the host is up and answers {answered}: what comes back over {other} is not what was sent",
}
"""By the outcome of the other protocol."""

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
    if udp is Outcome.ANSWERED:
        return _ANSWERS[tcp].format(answered="UDP", other="TCP")
    if tcp is Outcome.ANSWERED:
        return _ANSWERS[udp].format(answered="TCP", other="UDP")
    if udp in _ALIVE or tcp in _ALIVE:
        return f"the host is up, but gives no echo: UDP is {udp.value}, TCP is {tcp.value}"
    if Outcome.UNREACHABLE in (udp, tcp):
        return "the host cannot be reached: an error says so"
    return "the host is down, or everything to it is filtered: nothing came over UDP or TCP"
