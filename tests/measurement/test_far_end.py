"""echod.measurement.far_end: the time at the far end, and how requests arrived there."""

from typing import Any

from echod.measurement.events import Event, Kind
from echod.measurement.far_end import FarEnd
from echod.measurement.responder import Report


def reply(sequence: int, *, kind: Kind = Kind.REPLY, rtt: int | None = 10_000, **more: Any) -> Event:  # noqa: ANN401
    """Return a reply after 10 us, of which the responder took 4; fields of the report and of the event."""
    names = ("count", "ttl", "dscp", "request_dscp", "reply_dscp", "replied")
    written = {"received": 0, "replied": 4000, "wraps": 2**32 * 1000}
    written |= {name: more.pop(f"far_{name}") for name in names if f"far_{name}" in more}
    report = Report(**written)
    fields = {"settles": True, "time": 0, "report": report} | {
        name.removeprefix("arrived_"): more[name] for name in more
    }
    return Event(kind=kind, sequence=sequence, rtt=rtt, **fields)


def test_the_round_trip_is_split() -> None:
    """Of first replies, in time or late: the time at the responder and the rest."""
    far = FarEnd()
    for event in (reply(1), reply(2, rtt=20_000), reply(3, kind=Kind.LATE, rtt=30_000)):
        far.add(event)
    assert (far.reports, far.network.count, far.held.count) == (3, 3, 3)
    assert (far.network.min, far.network.max, far.held.min, far.held.max) == (6000, 26_000, 4000, 4000)
    assert (far.ttls, far.dscps, far.remarked_out, far.remarked_back) == ({}, {}, 0, 0)


def test_no_network_is_faster_than_none() -> None:
    """A clock that counts in steps may show more than the whole round trip."""
    event = reply(1, rtt=3000)
    assert event.network == 0
    assert reply(1, rtt=None).network is None
    assert Event(kind=Kind.LOST, time=0, rtt=5).network is None


def test_a_reply_that_left_before_its_request_arrived_has_no_times() -> None:
    """By the clock of the responder; what it says of the request counts all the same."""
    far = FarEnd()
    for event in (reply(1), reply(2, far_replied=-1, far_ttl=60)):
        far.add(event)
    assert (far.reports, far.network.count, far.held.count, far.held.max, far.ttls) == (2, 1, 1, 4000, {60: 1})


def test_what_is_no_first_reply_is_not_counted() -> None:
    """A duplicate, a damaged reply, a plain echo."""
    far = FarEnd()
    for event in (
        reply(1, kind=Kind.DUPLICATE, settles=False),
        reply(2, kind=Kind.CORRUPT),
        reply(3, settles=False),
        reply(4, report=None),
        reply(5, rtt=None),
    ):
        far.add(event)
    assert (far.reports, far.network.count, far.changes) == (0, 0, 0)


def test_each_ttl_and_dscp_is_counted_and_what_the_way_re_marked() -> None:
    """Of requests and of replies, each against what it was sent with, if both are known."""
    far = FarEnd()
    known = {"far_ttl": 60, "far_request_dscp": 46, "far_reply_dscp": 46}
    for event in (
        reply(1, far_dscp=46, arrived_dscp=46, **known),
        reply(2, far_dscp=0, arrived_dscp=46, **known),
        reply(3, far_dscp=46, arrived_dscp=0, **known),
        reply(4, far_dscp=10, arrived_dscp=10, **known),
        reply(5, far_ttl=59, far_dscp=0, far_request_dscp=46, arrived_dscp=0),
        reply(6, arrived_dscp=9),
        reply(7, far_reply_dscp=46),
        reply(8, far_reply_dscp=46, arrived_dscp=46),
    ):
        far.add(event)
    assert far.ttls == {60: 4, 59: 1}
    assert far.dscps == {46: 2, 0: 2, 10: 1}
    assert (far.remarked_out, far.remarked_back, far.marked_back) == (3, 2, 5)


def test_another_responder_is_counted_once() -> None:
    """Whatever kind of reply shows it; the first is remembered."""
    far, first = FarEnd(), reply(2, kind=Kind.CORRUPT, new_responder=True)
    for event in (reply(1), first, reply(3), reply(4, new_responder=True)):
        far.add(event)
    assert (far.changes, far.first_change) == (2, first)
