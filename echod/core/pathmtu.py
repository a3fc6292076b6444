"""The search for the path MTU: which size to probe next, and what the answers mean.

Owns the search and its words; never sends anything. Sizes are of whole IP packets, in bytes. Invariant: between
`passes` and `fails` lies the answer, and each round moves one of them.
"""

from dataclasses import dataclass
from typing import Final

ROUND: Final = 3
"""Probes of one size before silence counts as "too long": one in eight of such rounds is wrong at 50 % loss."""


class Search:
    """A binary search between a size that passes and one that does not."""

    def __init__(self, *, low: int, high: int) -> None:
        """Take the least size worth probing and the greatest that this host could send."""
        self.passes: int | None = None
        """The greatest size with a reply."""
        self.fails = high + 1
        """The least size without."""
        self._low, self._high = low, high
        self._hint: int | None = None
        self._asked = False

    def next_size(self) -> int | None:
        """Return the size to probe, or None when the search is over."""
        if self.passes is None:
            return None if self.fails <= self._low else self._low
        if not self._asked:
            return self._high  # most paths have no narrow place: ask for that first
        if self.fails - self.passes <= 1:
            return None
        if self._hint is not None and self.passes < self._hint < self.fails:
            return self._hint
        return (self.passes + self.fails) // 2

    def passed(self, size: int) -> None:
        """Note that a probe of that size was answered."""
        if self.passes is not None:
            self._asked = True
        self.passes = max(size, self.passes or 0)
        if self._hint == size:
            self._hint = size + 1  # what the router said is so; one more must fail

    def failed(self, size: int, told: int = 0) -> None:
        """Note that no probe of that size was answered; `told` is the MTU that a router or this host named."""
        self._asked = True
        self.fails = min(size, self.fails)
        if told:
            self._hint = told


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What the probes beyond the limit, sent in fragments, showed of the way back.

    `size` is that of the probes; `answered` tells whether they were answered at all, None where none was sent;
    `fragments` is the greatest fragment in which a reply came, zero where it came whole.
    """

    size: int = 0
    answered: bool | None = None
    fragments: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known at the end of the search."""

    passes: int | None
    fails: int
    highest: int
    """The greatest size that this host could send."""
    router: str = ""
    """Who said why a probe did not go on, if anybody did; the empty text is nobody."""
    reason: str = ""
    """What the router said, by its name in `icmp`."""
    told: int = 0
    """The MTU that the router or this host named; zero is none."""
    local: bool = False
    """Whether it was this host that knew."""
    fragments: int = 0
    """The greatest fragment in which a reply to a whole probe came, zero where all came whole."""
    back: Way = Way()
    interrupted: bool = False
    """Whether the search was ended before it had found the limit."""


def explain(finding: Finding) -> list[str]:
    """Say in sentences what was found."""
    if finding.interrupted:
        if finding.passes is None:
            return ["interrupted: path MTU unknown, for nothing was answered yet"]
        return [f"interrupted: path MTU at least {finding.passes}, at most {finding.fails - 1}"]
    if finding.passes is None:
        return ["path MTU unknown: not even the least probe was answered"]
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
        return f"probes above {finding.passes} vanish without a word, but in fragments they are answered: a black hole"
    return f"no router says that probes above {finding.passes} are too long"


def _way_back(finding: Finding) -> str:
    back = finding.back
    if back.answered is None:
        return ""
    if not back.answered:
        return f"cannot be told: probes of {back.size} in fragments are not answered, so fragments or replies vanish"
    if back.fragments:
        return f"replies of {back.size} come in fragments of up to {back.fragments}"
    return f"replies of {back.size} come whole"
