"""What is done to probes: a plan, what it asks for next, and the account of what was done.

Shared by what does harm (`mischief`, a server, and `meddler`, a bridge) and by the tests that judge the report.
"""

import random
from collections import Counter
from collections.abc import Sequence


class Plan:
    """Deeds in turn, each counted when it is handed out."""

    def __init__(self, deeds: Sequence[str]) -> None:
        """Begin with the first of them."""
        self._deeds = deeds
        self.account: Counter[str] = Counter()

    def next(self) -> str:
        """Return what to do to the next probe; after the last deed the first comes again."""
        deed = self._deeds[self.account.total() % len(self._deeds)]
        self.account[deed] += 1
        return deed


def corrupt(data: bytes, place: int) -> bytes:
    """Return the data with one bit of a byte turned over."""
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def shuffled(deeds: Sequence[str], seed: int) -> list[str]:
    """Return the deeds in an order that the seed says; the last is always an answer, to overtake what was held."""
    order = list(deeds)
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return [*order, "answer"]
