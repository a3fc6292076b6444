"""Whatever is refused, and however much, the log has few entries, and in the end they add up."""

from collections import Counter
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loopback import listener

from echod.net.listener import Protocol
from echod.stats.outcomes import Close, Drop
from echod.stats.refusals import Report
from echod.supervisor.refusal_log import MAX_ENTRIES, MAX_SOURCES, SUMMARY_SECONDS, RefusalLog

UDP = listener(port=7)
OTHER = listener("::1", port=7)
TCP = listener(port=7, protocol=Protocol.TCP)

Entries = list[MutableMapping[str, Any]]


@pytest.fixture
def log() -> Iterator[Entries]:
    """Catch what is logged."""
    with structlog.testing.capture_logs() as entries:
        yield entries


def report(reason: int = Drop.ACCESS, *, more: bool = False, **sources: int) -> Report:
    """Make a report; `a=3` is 192.0.2.97, refused three times."""
    known = {f"192.0.2.{ord(name)}": refused for name, refused in sources.items()}
    return Report(listener=0, reason=reason, refused=sum(known.values()) + more, sources=known, more=more)


def test_nothing_refused_is_nothing_logged(log: Entries) -> None:
    """Looks without a report leave the log as it is."""
    refusals = RefusalLog()
    for second in range(100):
        refusals.log_due(float(second))
    assert log == []


def test_the_first_refusal_is_logged_at_once(log: Entries) -> None:
    """An entry has where, why, how many, from how many, and from whom most; and one sentence of all that."""
    refusals = RefusalLog()
    refusals.add(UDP, report(a=1, b=1199))
    refusals.log_due(1000.0)
    assert log == [
        {
            "event": "refused",
            "log_level": "warning",
            "message": "refused 1,200 datagrams at udp://127.0.0.1:7: access, from 2 sources, "
            "most from 192.0.2.98 (1,199)",
            "listener": "udp://127.0.0.1:7",
            "reason": "access",
            "refused": 1200,
            "sources": 2,
            "more_sources": False,
            "top_source": "192.0.2.98",
            "top_source_refused": 1199,
        }
    ]


def test_one_is_singular(log: Entries) -> None:
    """A single datagram of a single source is not in the plural."""
    refusals = RefusalLog()
    refusals.add(UDP, report(Drop.LOOP, a=1))
    refusals.log_due(1000.0)
    assert log[0]["message"] == (
        "refused 1 datagram at udp://127.0.0.1:7: loop, from 1 source, most from 192.0.2.97 (1)"
    )


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            Drop.SOURCE_PORT_LOW,
            "their source port is below guard.min_source_port: let honest clients send from a high",
        ),
        (Drop.SOURCE_PORT_REFUSED, "guard.refuse_source_ports has their source port: let honest clients"),
        (Drop.SOURCE_PORT_OWN, "echod listens on their source port: let honest clients send from another port"),
    ],
)
def test_an_entry_about_a_source_port_has_advice(log: Entries, reason: Drop, advice: str) -> None:
    """It is in the hands of the client; a closed connection of the same number has no such reason."""
    refusals = RefusalLog()
    refusals.add(UDP, report(reason, a=1))
    refusals.add(TCP, report(Close(reason), a=1))
    refusals.log_due(1000.0)
    assert f", most from 192.0.2.97 (1); {advice}" in log[0]["message"]
    assert log[1]["message"].endswith(", most from 192.0.2.97 (1)")


def test_refused_connections_are_named_as_such(log: Entries) -> None:
    """At a TCP listener the reason is that of a closed connection, though its number is a drop's too."""
    refusals = RefusalLog()
    refusals.add(TCP, report(Close.OVER_SOURCE_LIMIT, a=2))
    refusals.log_due(1000.0)
    assert (log[0]["reason"], log[0]["listener"]) == ("over_source_limit", "tcp://127.0.0.1:7")
    assert log[0]["message"].startswith("refused 2 connections at tcp://127.0.0.1:7: over_source_limit,")


def test_further_sources_are_named_as_more(log: Entries) -> None:
    """Where a worker did not know all, neither does the entry, and it says so."""
    refusals = RefusalLog()
    refusals.add(UDP, report(a=5, more=True))
    refusals.add(UDP, report(b=5))
    refusals.log_due(1000.0)
    assert (log[0]["refused"], log[0]["sources"], log[0]["more_sources"]) == (11, 2, True)
    assert "from more than 2 sources" in log[0]["message"]


def test_the_reports_of_all_workers_are_one_entry(log: Entries) -> None:
    """What several say of one source is added up before the loudest is named."""
    refusals = RefusalLog()
    for _ in range(3):
        refusals.add(UDP, report(a=4))
        refusals.add(UDP, report(b=5, c=1))
    refusals.add(UDP, report(a=4))
    refusals.log_due(1000.0)
    assert [(entry["refused"], entry["top_source"], entry["top_source_refused"]) for entry in log] == [
        (34, "192.0.2.97", 16)
    ]


def test_one_listener_and_reason_speak_at_most_each_ten_seconds(log: Entries) -> None:
    """Refused without end, at looks each second: an entry at once, then one each ten seconds, with all since then."""
    refusals = RefusalLog()
    for second in range(61):
        refusals.add(UDP, report(a=100))
        before = len(log)
        refusals.log_due(1000.0 + second)
        assert len(log) - before == (second % SUMMARY_SECONDS == 0)
    assert [entry["refused"] for entry in log] == [100, *[1000] * 6]


def test_reasons_and_listeners_wait_for_nobody_else(log: Entries) -> None:
    """A new reason, or the same at another listener, is logged at the next look."""
    refusals = RefusalLog()
    refusals.add(UDP, report(Drop.ACCESS, a=1))
    refusals.log_due(1000.0)
    refusals.add(UDP, report(Drop.RATE, a=1))
    refusals.add(OTHER, report(Drop.ACCESS, a=1))
    refusals.add(UDP, report(Drop.ACCESS, a=1))
    refusals.log_due(1001.0)
    assert [(entry["listener"], entry["reason"]) for entry in log] == [
        ("udp://127.0.0.1:7", "access"),
        ("udp://127.0.0.1:7", "rate"),
        ("udp://[::1]:7", "access"),
    ]


def test_at_most_ten_entries_at_a_look_and_the_rest_waits_its_turn(log: Entries) -> None:
    """Many listeners that all refuse are logged ten at a look, each once before any is logged twice, none lost."""
    refusals = RefusalLog()
    listeners = [listener(port=1 + number) for number in range(100)]
    for second in range(30):
        for each in listeners:
            refusals.add(each, report(a=1))
        before = len(log)
        refusals.log_due(1000.0 + second)
        assert len(log) - before <= MAX_ENTRIES
    spoken = Counter(entry["listener"] for entry in log)
    assert set(spoken.values()) == {3}
    assert len(spoken) == 100
    assert sum(entry["refused"] for entry in log[-100:]) == 100 * 10


def test_sources_are_bounded_and_refusals_are_not(log: Entries) -> None:
    """Of 100,000 addresses a thousand are remembered, and each datagram is counted."""
    refusals = RefusalLog()
    for number in range(400):
        sources = {f"10.{number >> 8}.{number & 255}.{index}": 1 for index in range(250)}
        refusals.add(UDP, Report(listener=0, reason=Drop.RATE, refused=250, sources=sources, more=False))
    assert {len(summary.sources) for summary in refusals._summaries.values()} == {MAX_SOURCES}
    refusals.log_due(1000.0)
    assert (log[0]["refused"], log[0]["sources"], log[0]["more_sources"]) == (100_000, MAX_SOURCES, True)


REPORTS = st.tuples(
    st.sampled_from([UDP, OTHER]),
    st.sampled_from(list(Drop)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=1),
)


@settings(deadline=None)
@given(looks=st.lists(st.lists(REPORTS, max_size=20), max_size=20))
def test_in_the_end_nothing_was_lost(looks: list[list[tuple[Any, Drop, dict[str, int]]]]) -> None:
    """Whatever comes when: for each listener and reason the entries add up to the reports, and name the top source."""
    refusals, reported, since = RefusalLog(), Counter[tuple[str, str]](), dict[tuple[str, str], Counter[str]]()
    with structlog.testing.capture_logs() as log:
        for second in range(len(looks) + 60):
            for where, reason, sources in looks[second] if second < len(looks) else ():
                each = Report(listener=0, reason=reason, refused=sum(sources.values()), sources=sources, more=False)
                refusals.add(where, each)
                key = (str(where), reason.name.lower())
                reported[key] += each.refused
                since.setdefault(key, Counter()).update(each.sources)
            before = len(log)
            refusals.log_due(1000.0 + second)
            assert len(log) - before <= MAX_ENTRIES
            for entry in log[before:]:
                loud = since.pop((entry["listener"], entry["reason"]))
                assert entry["top_source_refused"] == max(loud.values()) == loud[entry["top_source"]]
                assert (entry["refused"], entry["sources"]) == (loud.total(), len(loud))
    logged = Counter[tuple[str, str]]()
    for entry in log:
        logged[entry["listener"], entry["reason"]] += entry["refused"]
    assert logged == reported


def test_full_queues_are_logged_like_refusals(log: Entries) -> None:
    """Once in ten seconds for each listener, with the sum; one that lost nothing is not mentioned."""
    refusals = RefusalLog()
    refusals.add_kernel_drops(UDP, 4777)
    refusals.add_kernel_drops(OTHER, 0)
    for second in range(10):
        refusals.log_due(1000.0 + second)
        refusals.add_kernel_drops(UDP, 1)
    refusals.log_due(1000.0 + SUMMARY_SECONDS)
    assert [(entry["event"], entry["dropped"]) for entry in log] == [("queue_full", 4777), ("queue_full", 10)]
    assert log[0]["message"] == (
        "the kernel dropped at least 4,777 datagrams at udp://127.0.0.1:7 before echod received them (a train counts "
        "as one), most likely because the queue was full: raise udp.receive_buffer, or workers if they are busy"
    )
    assert log[0]["log_level"] == "warning"
