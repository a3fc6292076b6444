"""echod.measurement.reply_headers: which TTL and DSCP replies arrive with, and when these change."""

from echod.measurement.events import NEVER, Event, Kind
from echod.measurement.reply_headers import HeaderCounts, ReplyHeaders
from echod.measurement.round_trip import Response


def response(ttl: int | None, dscp: int | None, port_index: int = 0) -> Response:
    """Return a reply with these headers."""
    return Response(data=b"", stamp=None, read=NEVER, address="", port_index=port_index, ttl=ttl, dscp=dscp)


def test_what_has_changed_is_named_with_what_it_was() -> None:
    """TTL and DSCP each by itself, within a source port: another port may have another path."""
    headers = ReplyHeaders()
    assert headers.previous(response(64, 0)) == (None, None)
    assert headers.previous(response(64, 0)) == (None, None)
    assert headers.previous(response(63, 0)) == (64, None)
    assert headers.previous(response(60, 10, port_index=1)) == (None, None)
    assert headers.previous(response(63, 46)) == (None, 0)
    assert headers.previous(response(62, 0)) == (63, 46)
    assert headers.previous(response(61, 10, port_index=1)) == (60, None)


def test_what_is_not_known_is_no_change() -> None:
    """Over TCP there is neither."""
    headers = ReplyHeaders()
    assert headers.previous(response(None, None)) == (None, None)
    assert headers.previous(response(None, None)) == (None, None)


def reply(sequence: int, ttl: int | None, dscp: int | None, before: tuple[int | None, int | None]) -> Event:
    """Return the event of a reply with these headers, and with what the reply before it had."""
    known = {"ttl": ttl, "dscp": dscp, "previous_ttl": before[0], "previous_dscp": before[1]}
    return Event(kind=Kind.REPLY, time=0, sequence=sequence, **known)  # type: ignore[arg-type]


def test_each_value_is_counted_and_so_are_changes() -> None:
    """A change of both at once is one; the first is remembered."""
    counts = HeaderCounts()
    assert (counts.ttls, counts.dscps, counts.changes, counts.first_change) == ({}, {}, 0, None)
    first = reply(3, 63, 0, (64, None))
    for event in (reply(1, 64, 0, (None, None)), reply(2, 64, 0, (None, None)), first, reply(4, 64, 46, (63, 0))):
        counts.add(event)
    assert (counts.ttls, counts.dscps) == ({64: 3, 63: 1}, {0: 3, 46: 1})
    assert (counts.changes, counts.first_change) == (2, first)
    counts.add(reply(5, None, None, (None, 46)))
    assert (counts.ttls, counts.dscps, counts.changes) == ({64: 3, 63: 1}, {0: 3, 46: 1}, 3)
    assert counts.first_change is first
