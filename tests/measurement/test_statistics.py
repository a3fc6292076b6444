"""echod.measurement.statistics: the numbers that events add up to."""

from echod.measurement.events import NEVER, Event, Kind, Moment
from echod.measurement.responder import Report
from echod.measurement.statistics import MOST_ADDRESSES, OTHERS, ErrorCount, Statistics

SECOND = 10**9


def at(seconds: int) -> Moment:
    """Return a moment; the wall clock shows another time."""
    return Moment(wall=10**18 - seconds, clock=seconds * SECOND)


def event(kind: Kind, sequence: int | None, **more: object) -> Event:
    """Return an event of a probe sent at its number of seconds."""
    number = sequence or 0
    fields = {"settles": sequence is not None, "sent": at(number), "next_sent": at(number + 1), "rtt": 1000}
    fields |= {"kind": kind, "time": 10**18 - number, "clock": number * SECOND + 1000, "sequence": sequence}
    return Event(**{**fields, **more})  # type: ignore[arg-type]


def statistics(*events: Event, sent: int, source_ports: int = 1) -> Statistics:
    """Return the statistics of these events."""
    found = Statistics(sent=sent, source_ports=source_ports)
    for each in events:
        found.add(each)
    return found


def test_every_probe_ends_in_one_number() -> None:
    """Sent = received + damaged + errors + lost + in flight. Latency is that of the probes received."""
    found = statistics(
        event(Kind.REPLY, 1, rtt=5),
        event(Kind.LOST, 2),
        event(Kind.CORRUPT, 3, offset=7),
        event(Kind.ERROR, 4, reason="host unreachable", address="10.0.0.1"),
        event(Kind.DUPLICATE, 1, settles=False),
        event(Kind.UNMATCHED, None),
        event(Kind.DIFFERENT_ADDRESS, 5, address="192.0.2.2:7"),
        event(Kind.REPLY, 6, rtt=9),
        sent=8,
    )
    assert (found.received, found.in_flight, found.loss) == (2, 2, 4 / 6)
    outcomes = (Kind.LOST, Kind.CORRUPT, Kind.ERROR, Kind.DIFFERENT_ADDRESS)
    assert {kind: number for kind, number in found.outcomes.items() if number} == dict.fromkeys(outcomes, 1)
    assert found.counts[Kind.DUPLICATE] == found.counts[Kind.UNMATCHED] == 1
    assert (found.first_damage[Kind.CORRUPT].offset, found.other_addresses) == (7, {"192.0.2.2:7"})
    assert (found.latency.count, found.latency.max, found.patience) == (2, 9, 27)
    assert (Statistics().loss, Statistics().patience) == (None, None)


def test_a_late_reply_undoes_loss_and_outage() -> None:
    """Only the count of events remains."""
    late = event(Kind.LATE, 1, previous=Kind.LOST)
    found = statistics(event(Kind.LOST, 1), late, sent=1)
    assert (found.received, found.outcomes[Kind.LOST], found.counts[Kind.LOST], found.loss) == (1, 0, 1, 0.0)
    assert found.outages.longest is None


def test_loss_and_errors_of_the_path_make_an_outage() -> None:
    """Damage does not, and neither do errors of this host: those that did not send a probe end the outage before."""
    refused = event(Kind.ERROR, 3, reason="network unreachable")
    unsent = [event(Kind.ERROR, number, reason="not permitted by this host", unsent=True) for number in (4, 5, 6)]
    found = statistics(event(Kind.LOST, 2), refused, event(Kind.CORRUPT, 4), sent=4)
    assert found.outages.longest
    assert (found.outages.longest.first, found.outages.longest.last) == (2, 3)
    found = statistics(
        event(Kind.REPLY, 1), event(Kind.LOST, 3, next_sent=NEVER), *unsent, event(Kind.REPLY, 7), sent=6
    )
    longest = found.outages.longest
    assert longest
    assert (longest.first, longest.last, longest.open, longest.duration) == (3, 3, False, SECOND)
    assert found.errors["not permitted by this host", ""].count == 3
    assert statistics(event(Kind.REPLY, 1), *unsent, sent=4).outages.longest is None


def test_an_outage_ends_when_the_next_probe_is_sent() -> None:
    """Until then it is open: the wait for a reply does not count."""
    found = statistics(event(Kind.LOST, 1, next_sent=NEVER), sent=2)
    assert found.outages.longest
    assert (found.outages.longest.open, found.outages.longest.duration) == (True, 0)
    found.add(event(Kind.REPLY, 2, sent=at(7)))
    assert (found.outages.longest.open, found.outages.longest.duration) == (False, 6 * SECOND)


def test_errors_are_counted_by_reason_and_address_with_the_least_mtu() -> None:
    """Zero is no MTU."""
    long = {"reason": "needs fragmentation", "address": "10.0.0.1"}
    mtus = [event(Kind.ERROR, number, **long, mtu=mtu) for number, mtu in enumerate((0, 1400, 1280))]
    found = statistics(*mtus, event(Kind.ERROR, 4, reason="port unreachable", address="10.0.0.2"), sent=4)
    assert {key: (each.count, each.mtu) for key, each in found.errors.items()} == {
        ("needs fragmentation", "10.0.0.1"): (3, 1280),
        ("port unreachable", "10.0.0.2"): (1, 0),
    }


def test_order_and_variation_are_judged_within_each_source_port() -> None:
    """Probes 1 3 5 of one port and 2 4 of the other, the second path slower: nothing is reordered, nothing varies."""
    events = [event(Kind.REPLY, number, port_index=(number - 1) % 2) for number in (1, 3, 5)]
    events += [event(Kind.REPLY, number, port_index=(number - 1) % 2, rtt=9000) for number in (2, 4)]
    found = statistics(*events, sent=5, source_ports=2)
    assert (found.order.reordered, found.order.arrived) == (0, 5)
    assert (found.variation.max, found.variation.pairs) == (0, 3)
    mixed = statistics(*(event(Kind.REPLY, each.sequence, rtt=each.rtt) for each in events), sent=5)
    assert (mixed.order.reordered, mixed.variation.max) == (2, 8000)


def test_forged_addresses_are_bounded() -> None:
    """All are counted; those of errors and of replies after the first 256 under one name."""
    found = Statistics()
    for number in range(2 * MOST_ADDRESSES):
        found.add(event(Kind.ERROR, None, reason="host unreachable", address=f"r{number}"))
        found.add(event(Kind.DIFFERENT_ADDRESS, None, address=f"e{number}"))
    for address in ("", "r0"):
        found.add(event(Kind.ERROR, None, reason="host unreachable", address=address))
    found.add(event(Kind.DIFFERENT_ADDRESS, None, address="e0"))
    assert len(found.errors) == MOST_ADDRESSES + 2
    assert found.errors["host unreachable", OTHERS] == ErrorCount(count=MOST_ADDRESSES)
    assert [found.errors["host unreachable", address].count for address in ("", "r0")] == [1, 2]
    assert found.other_addresses == {OTHERS, *(f"e{number}" for number in range(MOST_ADDRESSES))}
    assert found.counts[Kind.DIFFERENT_ADDRESS] == 2 * MOST_ADDRESSES + 1


def test_what_a_responder_reports_is_that_of_each_source_port() -> None:
    """Of four probes from two ports the second port lost one on the way back; one more was not sent."""

    def report(count: int) -> Report:
        return Report(received=0, replied=400, wraps=10**9, count=count)

    found = statistics(
        event(Kind.REPLY, 1, report=report(1)),
        event(Kind.REPLY, 2, port_index=1, report=report(1)),
        event(Kind.ERROR, 3, reason="send queue full on this host", unsent=True),
        event(Kind.LOST, 4, port_index=1),
        event(Kind.REPLY, 5, report=report(2)),
        event(Kind.REPLY, 6, port_index=1, report=report(3)),
        event(Kind.STALE, None, report=report(9)),
        sent=6,
        source_ports=2,
    )
    assert (found.far_end.reports, found.far_end.network.max, found.far_end.held.max, found.unsent) == (4, 600, 400, 1)
    directions = found.directions
    assert (directions.counted, directions.out.lost, directions.back.lost) == (True, 0, 1)
    assert found.lost_by_direction == (0, 1)
    one_of_two = statistics(event(Kind.REPLY, 1, report=report(1)), event(Kind.REPLY, 2, port_index=1), sent=2)
    plain = statistics(event(Kind.REPLY, 1), sent=1)
    assert (one_of_two.lost_by_direction, plain.lost_by_direction, Statistics().lost_by_direction) == (None, None, None)
    assert not plain.directions.counted
