"""echod.measurement.comparison: what UDP and TCP say together."""

from itertools import product

import pytest

from echod.measurement.comparison import Reachability, explain, reachability


@pytest.mark.parametrize(
    ("received", "damaged", "reasons", "expected"),
    [
        (1, 1, {"port unreachable"}, Reachability.ANSWERED),
        (0, 1, {"port unreachable"}, Reachability.DAMAGED),
        (0, 0, {"port unreachable", "host unreachable"}, Reachability.REFUSED),
        (0, 0, {"connection refused"}, Reachability.REFUSED),
        (0, 0, {"connection refused", "connection reset"}, Reachability.REFUSED),
        (0, 0, {"connection reset"}, Reachability.CLOSED),
        (0, 0, {"connection closed"}, Reachability.CLOSED),
        (0, 0, {"administratively prohibited"}, Reachability.UNREACHABLE),
        (0, 0, set(), Reachability.SILENT),
    ],
)
def test_an_outcome_is_the_best_that_came(
    received: int, damaged: int, reasons: set[str], expected: Reachability
) -> None:
    """A reply outweighs damage, damage an error, and the host's own error a router's."""
    assert reachability(received=received, damaged=damaged, reasons=frozenset(reasons)) is expected


@pytest.mark.parametrize(
    ("udp", "tcp", "words"),
    [
        (Reachability.ANSWERED, Reachability.ANSWERED, "replies over UDP and TCP"),
        (Reachability.SILENT, Reachability.ANSWERED, "replies over TCP; UDP has no reply: it is filtered"),
        (Reachability.REFUSED, Reachability.ANSWERED, "replies over TCP; nothing listens on that UDP port"),
        (Reachability.ANSWERED, Reachability.SILENT, "replies over UDP; TCP has no reply: it is filtered"),
        (Reachability.ANSWERED, Reachability.UNREACHABLE, "replies over UDP; TCP is rejected on the path"),
        (
            Reachability.ANSWERED,
            Reachability.CLOSED,
            "replies over UDP; TCP connections are accepted and closed: the server may",
        ),
        (
            Reachability.SILENT,
            Reachability.CLOSED,
            "does not echo: UDP has no reply: it is filtered, or the server's rules",
        ),
        (Reachability.SILENT, Reachability.REFUSED, "drop it; nothing listens on that TCP port"),
        (Reachability.UNREACHABLE, Reachability.SILENT, "the host is unreachable"),
        (Reachability.SILENT, Reachability.SILENT, "the host is down, or everything to it is filtered"),
    ],
)
def test_filtered_is_told_from_down(udp: Reachability, tcp: Reachability, words: str) -> None:
    """The sentence names which."""
    assert words in explain(udp, tcp)


def test_every_pair_has_a_sentence_without_gaps() -> None:
    """No braces are left."""
    assert all("{" not in explain(udp, tcp) for udp, tcp in product(Reachability, repeat=2))
