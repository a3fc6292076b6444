"""echod.ping.plot: what is drawn of which events."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from echod.measurement.events import Event, Kind, Moment
from echod.measurement.responder import Report
from echod.measurement.statistics import Statistics
from echod.ping.plot import Plot

REPORT = Report(received=0, replied=3_000_000, wraps=2**62)


def test_round_trips_the_network_alone_and_changes_are_drawn(tmp_path: Path) -> None:
    """A point for each reply; where a responder reports its own time, another without that; and marks at the bottom."""
    session: Any = SimpleNamespace(target="udp://127.0.0.1:7", statistics=Statistics(sent=5, received=3))
    plot = Plot(tmp_path / "plot.svg")
    for number, more in enumerate(
        ({"report": REPORT}, {"previous_ttl": 60}, {"kind": Kind.LOST}, {"new_responder": True, "report": REPORT})
    ):
        known = {"kind": Kind.REPLY, "time": 0, "rtt": 5_000_000, "sent": Moment(wall=0, clock=number * 10**9)}
        plot.take(session, Event(**(known | more)))  # type: ignore[arg-type]
    plot.draw([session])
    drawn = {line.get_label(): [*zip(*line.get_data(), strict=True)] for line in plot._figure.axes[0].lines}
    assert drawn == {
        "udp://127.0.0.1:7: 3 of 5": [(0.0, 5.0), (1.0, 5.0), (3.0, 5.0)],
        "udp://127.0.0.1:7: without the time at the responder": [(0.0, 2.0), (3.0, 2.0)],
        "2 changes of path or responder": [(1.0, 0.0), (3.0, 0.0)],
        "1 lost": [(2.0, 0.0)],
    }
    assert (tmp_path / "plot.svg").read_bytes().startswith(b"<?xml")
