"""What the programs are made for: the maps that they use, and the numbers that are compiled into them.

Owns these values and their bounds. Invariant: the verifier accepts the programs of any `Options` within them.
"""

from dataclasses import dataclass
from typing import Final

from echod.bpf.layout import Abi, Driver, Hook, LinkKind

NANOSECONDS: Final = 1_000_000_000
"""In a second."""

FEWEST_ROWS: Final = 2
"""Rows of counters. With a single one its number would be constant to the verifier, which without CAP_PERFMON refuses
an address that is computed of constants on one way to an instruction, and of other numbers on another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The descriptors of the maps; `bpf.maps` has their shapes."""

    ports: int
    local: int
    refuse: int
    paths: int
    newcomers: int
    forgotten: int
    rates: int
    total: int
    peers: int
    samples: int
    counts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Datagrams a second, for each source and for all together, None for no limit; as in `admission.ratelimit`."""

    per_source: int | None
    burst: int
    total: int | None = None
    slip: int = 0
    """One in so many datagrams over the limit of its source is let through on credit; none if it is 0."""
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The numbers in the programs."""

    cpus: int
    """Rows of counters for so many CPUs: a power of two, not below the number of those that there may be."""
    rows: int
    """Rows for each of them: a power of two, at least FEWEST_ROWS."""
    limits: Limits | None = None
    seed: int = 0
    """The key of the hashes, 64 bits."""
    loop_breaker: bool = False
    """Whether loops are to be broken."""
    newcomers: int = 1
    """Slots of the map of newcomers: a power of two."""
    fresh_ns: int
    """So long after a reply of the sockets all of that path are left to the kernel, and then one in RENEW_NS is not."""
    stale_ns: int
    """So long after the last reply of the sockets a path ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What a program is assembled from."""

    hook: Hook
    tables: Tables
    options: Options

    @property
    def kind(self) -> LinkKind:
        """Return the kind of the interface."""
        return self.hook.kind

    @property
    def abi(self) -> Abi:
        """Return what the program at ingress is given."""
        return self.hook.abi

    @property
    def is_xdp(self) -> bool:
        """Tell whether the program at ingress runs in the driver of a card."""
        return self.hook.driver is Driver.XDP


def power_of_two(number: int, *, least: int = 1) -> int:
    """Return the least power of two that is not below a number."""
    return 1 << (max(number, least) - 1).bit_length()
