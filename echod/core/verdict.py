"""What UDP and TCP, measured side by side, say together.

Owns the sentence, nothing else. Invariant: every pair of outcomes has one.
"""

from enum import Enum


class Outcome(Enum):
    """What became of the probes over one protocol."""

    ANSWERED = "answered"
    SILENT = "silent"
    """Nothing came, no error either."""
    REFUSED = "refused"
    """The host itself said that nothing listens on that port."""
    CLOSED = "closed"
    """The host took the connection, and ended it before it had answered."""
    UNREACHABLE = "unreachable"
    """A router, or this host, said that there is no way, or that it is prohibited."""
    DAMAGED = "damaged"
    """What came was not what was sent."""


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
    """Name an outcome: probes answered whole, replies that were not, and the reasons of the errors that came."""
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
    """Say what two outcomes mean together."""
    if udp is Outcome.ANSWERED:
        return _ANSWERS[tcp].format(answered="UDP", other="TCP")
    if tcp is Outcome.ANSWERED:
        return _ANSWERS[udp].format(answered="TCP", other="UDP")
    if udp in _ALIVE or tcp in _ALIVE:
        return f"the host is up, but gives no echo: UDP is {udp.value}, TCP is {tcp.value}"
    if Outcome.UNREACHABLE in (udp, tcp):
        return "the host cannot be reached: an error says so"
    return "the host is down, or everything to it is filtered: nothing came over UDP or TCP"
