"""Refusals by reason and address: a worker's report to its supervisor once a second, from which a summary is logged.

Owns the counts by reason and address, bounded, and their form as bytes. It never logs and knows no time. Invariant:
the number of refusals is exact; at most MOST_SOURCES addresses are known, and the report says if there were more.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Final, NamedTuple

from pydantic import Field, StringConstraints, TypeAdapter

Source = Annotated[str, StringConstraints(pattern=r"^[0-9a-f:.]{2,45}(/64)?$")]
"""An address or a /64, as a worker writes it."""

Count = Annotated[int, Field(ge=0, lt=2**63)]

MOST_SOURCES: Final = 256
"""Most addresses remembered for one reason between two reports. The one refused most is most likely among them."""


class Report(NamedTuple):
    """The refusals of one listener for one reason."""

    listener: Count
    """Its index on the counters page."""
    reason: Count
    refused: Count
    sources: Annotated[dict[Source, Count], Field(min_length=1)]
    """Addresses with how often each was refused."""
    more: bool
    """Whether there were further addresses."""

    def pack(self) -> bytes:
        """Write it as bytes."""
        return json.dumps(self, separators=(",", ":")).encode()

    @staticmethod
    def unpack(packed: bytes) -> "Report":
        """Read what `pack` wrote. Raises ValueError for anything else."""
        return _FORM.validate_json(packed)


_FORM: Final = TypeAdapter(Report)


class Tally:
    """The refusals of one listener since the last report."""

    def __init__(self, listener: int) -> None:
        """Take the listener's index on the counters page."""
        self._listener = listener
        self._refused: Counter[IntEnum] = Counter()
        self._sources: defaultdict[IntEnum, Counter[bytes]] = defaultdict(Counter)

    def add(self, reason: IntEnum, address: bytes, refused: int) -> None:
        """Count refusals of an address, of 4 or 16 bytes."""
        self._refused[reason] += refused
        sources = self._sources[reason]
        if address in sources or len(sources) <= MOST_SOURCES:
            sources[address] += refused

    def reports(self) -> Iterator[Report]:
        """Yield a report for each reason, and start afresh."""
        refused, sources = self._refused, self._sources
        self._refused, self._sources = Counter(), defaultdict(Counter)
        for reason, count in refused.items():
            known = sources[reason]
            yield Report(
                listener=self._listener,
                reason=reason,
                refused=count,
                sources={_text(address): times for address, times in known.most_common(MOST_SOURCES)},
                more=len(known) > MOST_SOURCES,
            )


def _text(address: bytes) -> str:
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))  # noqa: PLR2004
