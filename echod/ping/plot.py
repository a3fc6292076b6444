"""The plot of a run: latency over time with losses marked, and its distribution beside it.

Owns the samples and the drawing. Loads matplotlib before the first probe, so that a missing package is an error at the
start. Invariant: no target has more than `MAX_SAMPLES` replies, nor more marks of one kind.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from echod.errors import UsageError
from echod.measurement.events import DAMAGED, Event, Kind, Moment
from echod.probes.session import Session

MAX_SAMPLES: Final = 200_000
"""Replies of one target. At this limit every second one is removed, so that the rest covers the whole run."""

_BINS: Final = 60
_REPLIES: Final = (Kind.REPLY, Kind.LATE)
_MARKS: Final = {Kind.LOST: ("x", "lost"), Kind.ERROR: ("v", "error")}
_CHANGE: Final = ("^", "changes of path or responder")
_DAMAGE: Final = ("s", "damaged")
"""The shape of a mark, and its name in the legend."""


class Plot:
    """Samples of all targets, and their drawing."""

    def __init__(self, path: Path) -> None:
        """Load matplotlib. Raises UsageError if it is not installed or the file cannot be written."""
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load, and optional
        except ImportError:
            raise UsageError(f"ping: --plot needs matplotlib: {sys.executable} -m pip install matplotlib") from None
        try:
            path.open("ab").close()
        except OSError as error:
            raise UsageError(f"ping: --plot {path}: {error.strerror}") from None
        self._path = path
        self._figure: Any = Figure(figsize=(11, 4.5), layout="constrained")
        self._began: Moment | None = None
        """The first event by both clocks: converts a monotonic time to the time of day."""
        self._start = 0
        """The monotonic time, in ns, that is zero on the time axis."""
        self._replies: dict[int, list[tuple[int, int]]] = {}
        self._network: dict[int, list[tuple[int, int]]] = {}
        """Round trips without the time at the responder, where it reports that."""
        self._marks: dict[tuple[int, tuple[str, str]], list[int]] = {}
        self._every: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def take(self, session: Session, event: Event) -> None:
        """Add an event: a reply with its round-trip time, or a mark for a loss, an error or damage."""
        key = id(session)
        if self._began is None:
            self._began = Moment(wall=event.time, clock=event.clock)
        if event.kind in _REPLIES and event.rtt is not None:
            replies = self._replies.setdefault(key, [])
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] % self._every.setdefault(key, 1) == 0:
                replies.append((event.sent.clock, event.rtt))
                if event.network is not None:
                    self._network.setdefault(key, []).append((event.sent.clock, event.network))
            if len(replies) > MAX_SAMPLES:
                del replies[::2], self._network.get(key, [])[::2]
                self._every[key] *= 2
        elif event.kind in _MARKS or event.kind in DAMAGED:
            self._mark(key, _MARKS.get(event.kind, _DAMAGE), event)
        if event.new_responder or event.previous_ttl is not None or event.previous_dscp is not None:
            self._mark(key, _CHANGE, event)

    def _mark(self, key: int, mark: tuple[str, str], event: Event) -> None:
        marks = self._marks.setdefault((key, mark), [])
        if len(marks) < MAX_SAMPLES:
            marks.append(event.sent.clock or event.clock)

    def draw(self, sessions: Sequence[Session]) -> None:
        """Draw the plot and write the file. Raises UsageError if that fails."""
        over_time, beside = self._figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
        times = [sent for replies in self._replies.values() for sent, _ in replies]
        times += [time for marks in self._marks.values() for time in marks]
        self._start = min(times, default=0)
        began = self._began.wall - self._began.clock + self._start if self._began else 0
        for number, session in enumerate(sessions):
            self._draw_one(over_time, beside, session, f"C{number}")
        over_time.set_ylim(bottom=0)
        over_time.set_xlabel(f"send time (seconds since {datetime.fromtimestamp(began / 1e9, UTC):%F %T} UTC)")
        over_time.set_ylabel("round-trip time (ms)")
        over_time.grid(alpha=0.3)
        self._figure.legend(loc="outside upper left", fontsize="small", ncols=3, frameon=False)
        beside.set_xlabel("replies")
        beside.grid(alpha=0.3)
        try:
            self._figure.savefig(self._path)
        except OSError as error:
            raise UsageError(f"ping: --plot {self._path}: {error.strerror}") from None

    def _draw_one(self, over_time: Any, beside: Any, session: Session, colour: str) -> None:  # noqa: ANN401 - untyped
        replies = self._replies.get(id(session), [])
        statistics = session.statistics
        label = f"{session.target}: {statistics.received} of {statistics.sent}"
        times = [(sent - self._start) / 1e9 for sent, _ in replies]
        rtts = [rtt / 1e6 for _, rtt in replies]
        over_time.plot(times, rtts, ".", markersize=3, color=colour, label=label)
        if network := self._network.get(id(session)):
            times = [(sent - self._start) / 1e9 for sent, _ in network]
            label = f"{session.target}: without the time at the responder"
            over_time.plot(times, [each / 1e6 for _, each in network], "_", markersize=3, color=colour, label=label)
        if rtts:
            beside.hist(rtts, bins=_BINS, orientation="horizontal", color=colour, alpha=0.6)
        for (key, (shape, name)), marks in self._marks.items():
            if key == id(session):
                low = [0.0] * len(marks)
                when = [(mark - self._start) / 1e9 for mark in marks]
                more = {"clip_on": False, "zorder": 3, "label": f"{len(marks)} {name}"}
                over_time.plot(when, low, shape, color="red", markersize=5, **more)
