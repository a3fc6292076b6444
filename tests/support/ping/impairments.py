"""Impairments of probes: a plan, the next one of it, and the account of those that were applied.

Shared by `impairing_server`, `impairing_bridge` and the tests that compare their account with the report.
"""

import random
from collections import Counter
from collections.abc import Sequence


class Plan:
    """Impairments in turn, each counted when it is handed out."""

    def __init__(self, impairments: Sequence[str]) -> None:
        """Begin with the first of them."""
        self._impairments = impairments
        self.account: Counter[str] = Counter()

    def next(self) -> str:
        """Return what to do to the next probe; after the last impairment the first comes again."""
        impairment = self._impairments[self.account.total() % len(self._impairments)]
        self.account[impairment] += 1
        return impairment


def corrupt(data: bytes, place: int) -> bytes:
    """Return the data with one bit of a byte turned over."""
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def shuffled(impairments: Sequence[str], seed: int) -> list[str]:
    """Return the impairments in the order of a seed, and an answer last, which overtakes what is held back."""
    order = list(impairments)
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return [*order, "answer"]
