"""The search for the path MTU: which size to probe next, and what the answers mean.

Owns the search and its output; never sends anything. Sizes are of whole IP packets, in bytes. Invariant: the answer
lies between `passes` and `fails`, and each round moves one of them.
"""

from dataclasses import dataclass
from typing import Final

ROUND: Final = 3
"""Probes of one size before silence counts as "too long": at 50 % loss, one round in eight is wrong."""


class Search:
    """A binary search between a size that passes and one that does not."""

    def __init__(self, *, low: int, high: int) -> None:
        """Search from the least size worth probing to the greatest that this host can send."""
        self.passes: int | None = None
        """The greatest size with a reply."""
        self.fails = high + 1
        """The least size without a reply."""
        self._low, self._high = low, high
        self._hint: int | None = None
        self._asked = False

    def next_size(self) -> int | None:
        """Return the size to probe, or None when the search is over."""
        if self.passes is None:
            return None if self.fails <= self._low else self._low
        if not self._asked:
            return self._high  # most paths have no narrow link: try the greatest size first
        if self.fails - self.passes <= 1:
            return None
        if self._hint is not None and self.passes < self._hint < self.fails:
            return self._hint
        return (self.passes + self.fails) // 2

    def passed(self, size: int) -> None:
        """Note that a probe of this size was answered."""
        if self.passes is not None:
            self._asked = True
        self.passes = max(size, self.passes or 0)
        if self._hint == size:
            self._hint = size + 1  # the router's MTU passes; one byte more must fail

    def failed(self, size: int, told: int = 0) -> None:
        """Note that no probe of this size was answered; `told` is the MTU that a router or this host reported."""
        self._asked = True
        self.fails = min(size, self.fails)
        if told:
            self._hint = told


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What fragmented probes above the limit showed about the return path.

    `size` is the size of the probes; `answered` tells whether any was answered, None if none was sent; `fragments` is
    the size of the greatest fragment of a reply, zero if the reply came whole.
    """

    size: int = 0
    answered: bool | None = None
    fragments: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of the search."""

    passes: int | None
    fails: int
    highest: int
    """The greatest size that this host can send."""
    router: str = ""
    """The router that reported why a probe was not forwarded; empty if none did."""
    reason: str = ""
    """What the router reported, by its name in `icmp`."""
    told: int = 0
    """The MTU that the router or this host named; zero is none."""
    local: bool = False
    """Whether this host itself reported it."""
    fragments: int = 0
    """The size of the greatest fragment of a reply to a whole probe, zero if all came whole."""
    back: Way = Way()
    interrupted: bool = False
    """Whether the search was stopped before it found the limit."""


def explain(finding: Finding) -> list[str]:
    """Describe the result in sentences."""
    if finding.interrupted:
        if finding.passes is None:
            return ["interrupted: path MTU unknown, for there was no reply yet"]
        return [f"interrupted: path MTU at least {finding.passes}, at most {finding.fails - 1}"]
    if finding.passes is None:
        return ["path MTU unknown: not even the least probe had a reply"]
    if finding.passes >= finding.highest:
        if finding.fragments:
            return [
                f"path MTU {finding.passes} on the way out: as much as this host's interface takes",
                f"way back: replies come in fragments of up to {finding.fragments}",
            ]
        return [f"path MTU {finding.passes} in both directions: as much as this host's interface takes"]
    lines = [f"path MTU {finding.passes}: replies stop at {finding.fails}", f"way out: {_way_out(finding)}"]
    if back := _way_back(finding):
        lines.append(f"way back: {back}")
    return lines


def _way_out(finding: Finding) -> str:
    if finding.router:
        mtu = f", MTU {finding.told}" if finding.told else ""
        return f"{finding.router} says of probes above {finding.passes}: {finding.reason}{mtu}"
    if finding.local:
        return f"this host knows of MTU {finding.told}"
    if finding.back.answered:
        return f"probes above {finding.passes} vanish without a word, but in fragments they have replies: a black hole"
    return f"no router says that probes above {finding.passes} are too long"


def _way_back(finding: Finding) -> str:
    back = finding.back
    if back.answered is None:
        return ""
    if not back.answered:
        return f"cannot be told: probes of {back.size} in fragments have no replies, so fragments or replies vanish"
    if back.fragments:
        return f"replies of {back.size} come in fragments of up to {back.fragments}"
    return f"replies of {back.size} come whole"
