"""echod.measurement.comparison: what UDP and TCP say together."""

from itertools import product

import pytest

from echod.measurement.comparison import Outcome, explain, outcome


@pytest.mark.parametrize(
    ("received", "damaged", "reasons", "expected"),
    [
        (1, 1, {"port unreachable"}, Outcome.ANSWERED),
        (0, 1, {"port unreachable"}, Outcome.DAMAGED),
        (0, 0, {"port unreachable", "host unreachable"}, Outcome.REFUSED),
        (0, 0, {"connection refused"}, Outcome.REFUSED),
        (0, 0, {"connection refused", "connection reset"}, Outcome.REFUSED),
        (0, 0, {"connection reset"}, Outcome.CLOSED),
        (0, 0, {"connection closed"}, Outcome.CLOSED),
        (0, 0, {"administratively prohibited"}, Outcome.UNREACHABLE),
        (0, 0, set(), Outcome.SILENT),
    ],
)
def test_an_outcome_is_the_best_that_came(received: int, damaged: int, reasons: set[str], expected: Outcome) -> None:
    """A reply outweighs damage, damage an error, and the host's own error a router's."""
    assert outcome(received=received, damaged=damaged, reasons=frozenset(reasons)) is expected


@pytest.mark.parametrize(
    ("udp", "tcp", "words"),
    [
        (Outcome.ANSWERED, Outcome.ANSWERED, "replies over UDP and TCP"),
        (Outcome.SILENT, Outcome.ANSWERED, "replies over TCP; over UDP nothing came: it is filtered"),
        (Outcome.REFUSED, Outcome.ANSWERED, "replies over TCP; nothing listens on that UDP port"),
        (Outcome.ANSWERED, Outcome.SILENT, "replies over UDP; over TCP nothing came: it is filtered"),
        (Outcome.ANSWERED, Outcome.UNREACHABLE, "replies over UDP; TCP is refused on the way"),
        (Outcome.ANSWERED, Outcome.CLOSED, "replies over UDP; TCP connections are accepted and closed: the server may"),
        (Outcome.SILENT, Outcome.CLOSED, "gives no echo: over UDP nothing came: it is filtered, or the server's rules"),
        (Outcome.SILENT, Outcome.REFUSED, "drop it; nothing listens on that TCP port"),
        (Outcome.UNREACHABLE, Outcome.SILENT, "cannot be reached"),
        (Outcome.SILENT, Outcome.SILENT, "the host is down, or everything to it is filtered"),
    ],
)
def test_filtered_is_told_from_down(udp: Outcome, tcp: Outcome, words: str) -> None:
    """The sentence says which."""
    assert words in explain(udp, tcp)


def test_every_pair_has_a_sentence_without_gaps() -> None:
    """No braces are left."""
    assert all("{" not in explain(udp, tcp) for udp, tcp in product(Outcome, repeat=2))
