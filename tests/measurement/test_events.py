"""echod.measurement.events: the vocabulary."""

from dataclasses import replace

from echod.measurement.events import DAMAGED, Event, Kind
from echod.measurement.responder import Report


def test_damage_is_what_came_but_is_not_what_was_sent() -> None:
    """Three kinds of reply are damaged; one from elsewhere is whole."""
    assert {kind.value for kind in DAMAGED} == {"corrupt", "truncated", "extended"}


def test_an_event_by_itself_knows_its_kind_and_time_only() -> None:
    """All else is unknown until it is reported."""
    event = Event(kind=Kind.UNMATCHED, time=1)
    assert (event.sequence, event.rtt, event.ttl, event.previous, event.settles) == (None, None, None, None, False)


def test_the_time_in_the_network_is_the_round_trip_without_that_at_the_responder() -> None:
    """It is known if both are, and never negative: a clock in steps may show more than there was."""
    report = Report(received=1000, replied=4000, wraps=10**6)
    known = Event(kind=Kind.REPLY, time=1, rtt=5000, report=report)
    assert (known.network, replace(known, rtt=2000).network) == (2000, 0)
    assert (replace(known, rtt=None).network, replace(known, report=None).network) == (None, None)
