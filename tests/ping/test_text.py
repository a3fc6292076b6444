"""echod.ping.text: the statistics, line by line, of events that a test makes."""

from types import SimpleNamespace
from typing import Any

import pytest

from echod.measurement.events import Event, Kind, Moment
from echod.measurement.statistics import Statistics
from echod.net.mode import Mode
from echod.ping.text import line, progress, summary
from echod.probes.target import parse, resolve

SECOND = 10**9


def event(kind: Kind, sequence: int | None, **more: object) -> Event:
    """Return an event of a probe that was sent at its number of seconds, with a round trip of so many ms."""
    number = sequence or 0
    sent, until = (Moment(wall=each * SECOND, clock=each * SECOND) for each in (number, number + 1))
    fields = {"settles": sequence is not None, "sent": sent, "next_sent": until, "rtt": number * 10**6, "time": 1}
    fields |= {"clock": number * SECOND + number * 10**6, "kind": kind, "sequence": sequence, "expected": 56}
    return Event(**{**fields, **more})  # type: ignore[arg-type]


def block(*events: Event, sent: int, **more: object) -> list[str]:
    """Return the closing block of these events, without its head."""
    statistics = Statistics(sent=sent)
    for each in events:
        statistics.add(each)
    statistics.dropped = int(str(more.pop("dropped", 0)))
    fields = {
        "statistics": statistics,
        "port_statistics": [statistics],
        "ports": [40_000],
        "handshakes": [],
        "elapsed": 12 * SECOND,
        "mode": Mode.ECHO,
    }
    session: Any = SimpleNamespace(target=resolve(parse("127.0.0.1"), None), **(fields | more))
    assert progress([session]).count("\n") == 1
    lines = summary(session, {"192.0.2.1": "router.example"}).splitlines()
    assert lines[:2] == ["", "--- udp://127.0.0.1:7 ping statistics ---"]
    return lines[2:]


def test_each_kind_of_event_has_its_line_with_its_number() -> None:
    """In one order, with the total first and the longest gap last."""
    lines = block(
        event(Kind.REPLY, 1),
        event(Kind.REPLY, 3),
        event(Kind.REPLY, 2, clock=5 * SECOND),
        event(Kind.DUPLICATE, 1, settles=False),
        event(Kind.DUPLICATE, 1, settles=False),
        event(Kind.LATE, 4),
        event(Kind.CORRUPT, 5, offset=28, count=1, size=56),
        event(Kind.TRUNCATED, 6, size=28),
        event(Kind.EXTENDED, 7, size=60),
        event(Kind.DIFFERENT_ADDRESS, 8, address="192.0.2.9:7"),
        event(Kind.LOST, 9),
        event(Kind.LOST, 10),
        event(Kind.ERROR, 11, reason="needs fragmentation", address="192.0.2.1", mtu=1280),
        event(Kind.ERROR, 12, reason="not permitted by this host", unsent=True),
        event(Kind.STALE, None),
        event(Kind.UNMATCHED, None),
        sent=13,
        dropped=3,
        handshakes=[10**6, 2 * 10**7],
    )
    more = "+2 duplicates, +3 corrupted, +2 errors"
    assert lines == [
        f"13 packets transmitted, 4 received, {more}, 66.6667% packet loss, time 12000ms, 1 still in flight",
        "tcp handshake 1.00 ms, 20.0 ms",
        "rtt min/avg/max/mdev = 1.000/2.500/4.000/1.118 ms",
        "rtt median/p90/p99/p99.9 = 2.000/4.000/4.000/4.000 ms",
        lines[4],
        "lost: 2 probes",
        "dropped by this host: 3 datagrams, receive buffer full; this is not a loss of the path",
        "duplicated: 2 extra replies",
        "reordered: 1 reply (25%, RFC 4737), up to 1 place and 1997.000 ms behind",
        "late: 1 reply after the timeout, not counted as lost",
        "corrupt: 1 reply, the first seq=5: 1 wrong byte from byte 28 of 56",
        "truncated: 1 reply, the first seq=6: 28 bytes instead of 56",
        "extended: 1 reply, the first seq=7: 60 bytes instead of 56",
        "from a different address: 1 reply, from 192.0.2.9:7",
        "late or duplicated: 1 reply to probes no longer remembered",
        "unmatched: 1 datagram, no reply to any probe",
        "needs fragmentation: 1 error from 192.0.2.1 (router.example), mtu 1280",
        "not permitted by this host: 1 error from this host",
        lines[-1],
    ]
    assert lines[4].startswith("jitter ")
    assert lines[-1].startswith("longest gap without replies: 3.0 s from ")
    assert lines[-1].endswith(" (3 probes, seq 9 to 11)")


@pytest.mark.parametrize(
    ("lost", "parts"),
    [
        ((2,), ("longest gap without replies: 1.0 s from ", " (1 probe, seq 2)")),
        ((4, 5), ("longest gap without replies: at least 1.0 s from ", " on (2 probes, seq 4 to 5)")),
        ((5,), ("longest gap without replies: from ", " on (1 probe, seq 5)")),
    ],
)
def test_a_gap_up_to_the_end_is_at_least_as_long_as_from_its_first_probe_to_its_last(
    lost: tuple[int, ...], parts: tuple[str, str]
) -> None:
    """The wait for its replies is no part of it; a single probe at the end has no length."""
    ends = [event(Kind.LOST, n, **({"next_sent": Moment(wall=0, clock=0)} if n == 5 else {})) for n in lost]
    replies = [event(Kind.REPLY, number) for number in range(1, 6) if number not in lost]
    gap = block(*replies, *ends, sent=5)[-1]
    assert (gap.startswith(parts[0]), gap.endswith(parts[1])) == (True, True), gap


def test_without_any_reply_the_loss_is_all_that_is_known() -> None:
    """No times and no gap; of probes in flight alone no loss either."""
    assert block(event(Kind.LOST, 1), event(Kind.LOST, 2), sent=2) == [
        "2 packets transmitted, 0 received, 100% packet loss, time 12000ms",
        "lost: 2 probes",
    ]
    (only,) = block(sent=2)
    assert only == "2 packets transmitted, 0 received, unknown packet loss, time 12000ms, 2 still in flight"


def test_what_arrived_with_other_headers_is_named() -> None:
    """TTL and DSCP of the replies have a line if they are not what is usual, and a change of them too."""
    usual = block(event(Kind.REPLY, 1, ttl=64, dscp=0), event(Kind.REPLY, 2, ttl=64, dscp=0), sent=2)
    assert [each for each in usual if "ttl" in each or "dscp" in each] == []
    changed = event(Kind.REPLY, 3, ttl=63, dscp=0, previous_ttl=64, previous_dscp=46)
    replies = [event(Kind.REPLY, number, ttl=64, dscp=46) for number in (1, 2)]
    lines = block(*replies, changed, event(Kind.REPLY, 4, ttl=63, dscp=0), sent=4)
    assert [each for each in lines if "ttl" in each or "dscp" in each or "path" in each] == [
        "ttl of replies: 63 (2 replies), 64 (2 replies)",
        "dscp of replies: 0 (2 replies), EF (2 replies)",
        "path changed: 1 time, the first at seq=3 (TTL CHANGED! 64 before) (DSCP CHANGED! EF before)",
    ]


def test_each_source_port_has_a_line() -> None:
    """With its own loss and times, where there are several."""
    good, bad = Statistics(sent=1, source_ports=2), Statistics(sent=1, source_ports=2)
    good.add(event(Kind.REPLY, 1))
    bad.add(event(Kind.LOST, 2))
    assert block(sent=2, port_statistics=[good, bad], ports=[40_000, 40_001])[-2:] == [
        "source port 40000: 1 transmitted, 1 received, 0% loss, rtt min/avg/max/mdev = 1.000/1.000/1.000/0.000 ms",
        "source port 40001: 1 transmitted, 0 received, 100% loss",
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (Kind.REPLY, {"ttl": 64}, "56 bytes from 127.0.0.1:7: seq=5 ttl=64 time=5.00 ms"),
        (Kind.REPLY, {"ttl": 64, "dscp": 46}, "56 bytes from 127.0.0.1:7: seq=5 ttl=64 dscp=EF time=5.00 ms"),
        (
            Kind.LATE,
            {"ttl": 63, "dscp": 3, "previous_ttl": 64, "previous_dscp": 0},
            (
                "56 bytes from 127.0.0.1:7: seq=5 ttl=63 dscp=3 time=5.00 ms "
                "(LATE!) (TTL CHANGED! 64 before) (DSCP CHANGED! 0 before)"
            ),
        ),
        (Kind.DUPLICATE, {}, "56 bytes from 127.0.0.1:7: seq=5 time=5.00 ms (DUP!)"),
        (Kind.LATE, {}, "56 bytes from 127.0.0.1:7: seq=5 time=5.00 ms (LATE!)"),
        (Kind.STALE, {"rtt": None}, "56 bytes from 127.0.0.1:7: seq=5 (LATE or DUP!)"),
        (
            Kind.CORRUPT,
            {"count": 2, "offset": 28},
            "56 bytes from 127.0.0.1:7: seq=5 time=5.00 ms (CORRUPT! 2 wrong bytes, from byte 28)",
        ),
        (Kind.TRUNCATED, {"size": 28}, "28 bytes from 127.0.0.1:7: seq=5 time=5.00 ms (TRUNCATED! 28 of 56 bytes)"),
        (
            Kind.EXTENDED,
            {"size": 60},
            "60 bytes from 127.0.0.1:7: seq=5 time=5.00 ms (EXTENDED! 60 bytes instead of 56)",
        ),
        (
            Kind.DIFFERENT_ADDRESS,
            {"address": "127.0.0.1:9"},
            "56 bytes from 127.0.0.1:9: seq=5 time=5.00 ms (DIFFERENT ADDRESS! probed was 127.0.0.1:7)",
        ),
        (Kind.UNMATCHED, {"rtt": None}, "56 bytes from 127.0.0.1:7: (no reply to any probe)"),
        (Kind.LOST, {"rtt": 3 * SECOND}, "no reply from 127.0.0.1:7: seq=5 within 3.0 s"),
        (Kind.ERROR, {"reason": "too long", "address": "", "mtu": 1280}, "From this host: seq=5 too long (mtu=1280)"),
    ],
)
def test_each_kind_of_event_has_its_line(kind: Kind, fields: dict[str, object], expected: str) -> None:
    """In the form of ping's; over two protocols and to several hosts it names them, and of several ports its own."""
    session: Any = SimpleNamespace(target=resolve(parse("127.0.0.1"), None), ports=[40_000])
    found = event(kind, None if kind is Kind.UNMATCHED else 5, **({"size": 56, "address": "127.0.0.1:7"} | fields))
    assert line(session, found, protocol=False, host=False) == expected
    session.ports.append(40_001)
    more = line(session, found, protocol=True, host=True)
    host = " 127.0.0.1:7" if kind is Kind.ERROR else ""
    number = "" if found.sequence is None else " seq=5"
    assert f":{host} udp{number} sport=40000" in more
    assert len(more) == len(expected) + len(f"{host} udp sport=40000")
