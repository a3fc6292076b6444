"""The search for the path MTU: which size to probe next, and what the answers mean.

Owns the search and its output; never sends anything. Sizes are of whole IP packets, in bytes. Invariant: the answer
lies between `passes` and `fails`, and each round moves one of them.
"""

from dataclasses import dataclass
from typing import Final

TRIES: Final = 3
"""Probes of one size without a reply before it counts as too long: at 50 % loss one size in eight is wrong."""


class Search:
    """A binary search between a size that passes and one that fails."""

    def __init__(self, *, low: int, high: int) -> None:
        """Search from the least size that is probed to the greatest that this host can send."""
        self.passes: int | None = None
        """The greatest size with a reply."""
        self.fails = high + 1
        """The least size without a reply."""
        self._low, self._high = low, high
        self._reported = 0
        """The MTU that was reported last; zero is none."""
        self._tried_high = False

    def next_size(self) -> int | None:
        """Return the size to probe, or None when the search is over."""
        if self.passes is None:
            return None if self.fails <= self._low else self._low
        if not self._tried_high:
            return self._high  # most paths have no narrow link: try the greatest size first
        if self.fails - self.passes <= 1:
            return None
        for size in (self._reported, self._reported + 1):  # if the report is right, one passes and the other fails
            if self.passes < size < self.fails:
                return size
        return (self.passes + self.fails) // 2

    def passed(self, size: int) -> None:
        """Note that a probe of this size had a reply."""
        if self.passes is not None:
            self._tried_high = True
        self.passes = max(size, self.passes or 0)

    def failed(self, size: int, reported_mtu: int = 0) -> None:
        """Note that no probe of this size had a reply; a router or this host may have reported the MTU."""
        self._tried_high = True
        self.fails = min(size, self.fails)
        self._reported = reported_mtu or self._reported


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnPath:
    """What probes above the path MTU, sent in fragments, showed of the return path.

    `size` is their size; `replied` tells whether any had a reply, None if none was sent; `reply_fragments` is the size
    of the greatest fragment of a reply, zero if the reply came whole.
    """

    size: int = 0
    replied: bool | None = None
    reply_fragments: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MtuResult:
    """The result of the search."""

    passes: int | None
    fails: int
    interface_mtu: int
    """The greatest size that this host can send."""
    router: str = ""
    """The router that reported why a probe was not forwarded; empty if none did."""
    reason: str = ""
    """What the router reported, by its name in `icmp`."""
    reported_mtu: int = 0
    """The MTU that the router or this host named; zero is none."""
    local: bool = False
    """Whether this host itself reported it."""
    reply_fragments: int = 0
    """The size of the greatest fragment of a reply to a whole probe, zero if all came whole."""
    return_path: ReturnPath = ReturnPath()
    interrupted: bool = False
    """Whether the search was stopped before it found the limit."""


def explain(result: MtuResult) -> list[str]:
    """Describe the result in sentences."""
    if result.interrupted:
        if result.passes is None:
            return ["interrupted: path MTU unknown, there was no reply yet"]
        return [f"interrupted: path MTU at least {result.passes}, at most {result.fails - 1}"]
    if result.passes is None:
        return ["path MTU unknown: the smallest probe had no reply"]
    if result.passes >= result.interface_mtu:
        if result.reply_fragments:
            return [
                f"path MTU {result.passes} outbound, the MTU of this host's interface",
                f"return path: replies arrive in fragments of up to {result.reply_fragments}",
            ]
        return [f"path MTU {result.passes} in both directions, the MTU of this host's interface"]
    lines = [f"path MTU {result.passes}: replies stop at {result.fails}", f"outbound: {_way_out(result)}"]
    if return_path := _way_back(result):
        lines.append(f"return path: {return_path}")
    return lines


def _way_out(result: MtuResult) -> str:
    if result.router:
        mtu = f", MTU {result.reported_mtu}" if result.reported_mtu else ""
        return f"{result.router} reports for probes above {result.passes}: {result.reason}{mtu}"
    if result.local:
        return f"this host reports MTU {result.reported_mtu}"
    if result.return_path.replied:
        return f"probes above {result.passes} are lost without ICMP error, fragmented ones have replies: a black hole"
    return f"no router reports that probes above {result.passes} are too long"


def _way_back(result: MtuResult) -> str:
    return_path = result.return_path
    if return_path.replied is None:
        return ""
    if not return_path.replied:
        return f"unknown: probes of {return_path.size} in fragments have no replies, so fragments or replies are lost"
    if return_path.reply_fragments:
        return f"replies of {return_path.size} arrive in fragments of up to {return_path.reply_fragments}"
    return f"replies of {return_path.size} arrive whole"
