"""echod.measurement.events: the vocabulary."""

from echod.measurement.events import DAMAGED, Event, Kind


def test_damage_is_what_came_but_is_not_what_was_sent() -> None:
    """Three kinds of reply are damaged; one from elsewhere is whole."""
    assert {kind.value for kind in DAMAGED} == {"corrupt", "truncated", "extended"}


def test_an_event_by_itself_knows_its_kind_and_time_only() -> None:
    """All else is unknown until it is reported."""
    event = Event(kind=Kind.UNMATCHED, time=1)
    assert (event.sequence, event.rtt, event.ttl, event.previous, event.settles) == (None, None, None, None, False)
