"""What the supervisor sees of the workers: everything that changed, once, and nothing where nothing did."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.loopback import BUFFERS, deliver, listener, udp_client
from support.ports import free_port

from echod.config.socket_unit import units_of
from echod.linux.sockets import Buffers
from echod.net.listener import Listener, Protocol
from echod.net.mode import Impairment, ListenerOptions, Mode
from echod.stats.counters import CounterPage, TcpField, UdpField
from echod.stats.outcomes import Close, Drop
from echod.stats.refusals import Report
from echod.stats.snapshot import Activity, Rates, Refused, TcpTraffic, TopSource, UdpEchoConfig, UdpTraffic, WorkerState
from echod.stats.totals import Totals
from echod.supervisor.listening import ListeningSockets
from echod.supervisor.observer import KERNEL_SECONDS, Observer
from echod.supervisor.refusal_log import RefusalLog

UDP, TCP = listener(port=7), listener(port=7, protocol=Protocol.TCP)
BOTH = (UDP, TCP)
FRESH = WorkerState(worker=1, pid=1, cpu_seconds=1.0, heartbeat_age_seconds=0, restarts=0, connections=0)


def page(*listeners: Listener) -> CounterPage:
    """Lay a page of two worker slots."""
    size = CounterPage.size(slots=2, listeners=len(listeners), places=0)
    return CounterPage(memoryview(bytearray(size)), slots=2, listeners=listeners, places=0)


class Watched:
    """An observer of one generation, with a clock that the test turns."""

    def __init__(self, listening: ListeningSockets, *listeners: Listener) -> None:
        """Look for the first time."""
        self.refusal_log, self.restarts = RefusalLog(), Counter[int]()
        self.observer = Observer(listening, Totals(), self.refusal_log, self.restarts, 1000.0)
        self.now = 1000.0
        self.listeners: tuple[Listener, ...] = listeners
        self.page = page(*listeners)
        self.pages = [self.page]
        self.workers = (FRESH,)
        self.first = self.look(0.0)

    def look(self, seconds: float = 1.0) -> Activity | None:
        """Look again, so much later."""
        self.now += seconds
        return self.observer.look(self.listeners, self.pages, self.workers, self.now)

    def see(self, seconds: float = 1.0) -> Activity:
        """Look again; there must be something new."""
        seen = self.look(seconds)
        assert seen is not None
        return seen


@pytest.fixture
def watched() -> Watched:
    """Watch a generation with a UDP and a TCP listener."""
    return Watched(ListeningSockets(units_of("")), *BOTH)


def test_the_first_look_reports_all_and_the_next_ones_nothing(watched: Watched) -> None:
    """With zeros, because the listeners are there; then there is nothing new until something happens."""
    assert watched.first == Activity(
        udp=(UdpTraffic(name="udp://127.0.0.1:7", family="ipv4", adopted=False),),
        tcp=(TcpTraffic(name="tcp://127.0.0.1:7", family="ipv4", adopted=False),),
        workers=(FRESH,),
    )
    assert [watched.look() for _ in range(100)] == [None] * 100


def test_what_any_worker_counts_is_summed_and_reported(watched: Watched) -> None:
    """Over the slots and over the generations that still live."""
    watched.page.row(0, UDP)[UdpField.RECEIVED] = 3
    watched.page.row(1, UDP)[UdpField.RECEIVED] = 4
    watched.page.row(1, TCP)[TcpField.ACCEPTED] = 5
    draining = page(TCP, UDP)
    draining.row(0, UDP)[UdpField.RECEIVED] = 10
    watched.pages.append(draining)
    seen = watched.see()
    assert (seen.udp[0].received, seen.tcp[0].accepted, seen.tcp[0].open) == (17, 5, 5)
    assert (seen.udp[0].received_per_second.last_1s, seen.tcp[0].accepted_per_second.last_1s) == (17.0, 5.0)


def test_a_mode_that_a_reload_changed_is_reported_at_once() -> None:
    """Of a listener at rest too, with the first look at the new generation."""
    listening = ListeningSockets(units_of(""))
    watched = Watched(listening, *BOTH)
    listening.options[UDP] = ListenerOptions(mode=Mode.UDPECHO_PLUS)
    listening.options[TCP] = ListenerOptions(impair=Impairment(delay=1))
    assert watched.look() is None
    watched.listeners = tuple(reversed(BOTH))
    seen = watched.see()
    assert (seen.udp[0].mode, seen.udp[0].udpecho_config) == ("udpecho_plus", UdpEchoConfig())
    assert (seen.tcp[0].mode, seen.tcp[0].impaired) == ("echo", True)


def test_rates_fall_and_then_there_is_rest(watched: Watched) -> None:
    """For a minute after the last datagram the rates change now and then; after it, nothing does."""
    watched.page.row(0, UDP)[UdpField.RECEIVED] = 600
    reported = [watched.look() for _ in range(100)]
    changes = [(second, seen.udp[0].received_per_second) for second, seen in enumerate(reported) if seen]
    assert changes == [
        (0, Rates(600.0, 60.0, 10.0)),
        (1, Rates(0.0, 60.0, 10.0)),
        (10, Rates(0.0, 0.0, 10.0)),
        (60, Rates(0.0, 0.0, 0.0)),
    ]


def test_a_generation_that_is_gone_keeps_its_numbers(watched: Watched) -> None:
    """Also those of its last moment, after which nobody looked at its page."""
    watched.page.row(0, UDP)[UdpField.RECEIVED] = 5
    watched.see()
    watched.see(100.0)  # at rest: no rate has it looked at again
    watched.page.row(0, UDP)[UdpField.RECEIVED] = 6
    watched.observer.take_over(watched.page)
    watched.pages = [page(*BOTH)]
    assert watched.see().udp[0].received == 6
    watched.pages[0].row(1, UDP)[UdpField.RECEIVED] = 1
    assert watched.see().udp[0].received == 7


def test_only_what_is_served_is_reported(watched: Watched) -> None:
    """A listener that a reload closed is gone; one that it opened is there, with zeros; the others go on."""
    new = listener(port=9)
    watched.page.row(0, TCP)[TcpField.ACCEPTED] = 5
    watched.see()
    watched.listeners = (new, TCP)
    watched.pages.append(page(new, TCP))
    seen = watched.see()
    assert [each.name for each in (*seen.udp, *seen.tcp)] == ["udp://127.0.0.1:9", "tcp://127.0.0.1:7"]
    assert (seen.udp[0].received, seen.tcp[0].accepted) == (0, 5)


def test_a_change_of_a_worker_is_reported_but_not_its_cpu_time(watched: Watched) -> None:
    """A look costs CPU time itself: to report that would never end."""
    watched.workers = (replace(FRESH, cpu_seconds=2.0),)
    assert watched.look() is None
    for change in ({"pid": 2}, {"pid": None}, {"heartbeat_age_seconds": 2.0}, {"restarts": 1}, {"connections": 1}):
        watched.workers = (replace(watched.workers[0], **change),)
        assert watched.see().workers == watched.workers
        assert watched.look() is None
    watched.restarts[5] += 2
    watched.workers = (replace(FRESH, pid=9),)
    assert watched.see().worker_restarts == 2


def test_top_and_refused_sources_are_reported_for_a_minute(watched: Watched) -> None:
    """Summed over the workers and their reports, most first; a minute later they are forgotten."""
    for _ in range(2):
        watched.observer.add_top_sources([("192.0.2.1", 5), ("2001:db8::/64", 7)])
        for reported, reason, count in ((UDP, Drop.RATE, 3), (TCP, Close.ACCESS, 1)):
            sources = {"192.0.2.9": count}
            report = Report(listener=0, reason=reason, refused=count, sources=sources, more=False)
            watched.observer.add_refusals(reported, report)
    seen = watched.see()
    assert seen.top_sources == (TopSource(source="2001:db8::/64", count=14), TopSource(source="192.0.2.1", count=10))
    assert seen.refused == (
        Refused(source="192.0.2.9", protocol="udp", reason="rate", count=6),
        Refused(source="192.0.2.9", protocol="tcp", reason="access", count=2),
    )
    assert watched.look() is None
    later = watched.see(60.0)
    assert (later.top_sources, later.refused) == ((), ())


# -- what the kernel dropped


@pytest.fixture
def full() -> Iterator[tuple[Watched, Listener]]:
    """Watch a real socket with a queue so small that a few datagrams fill it, which no worker reads."""
    listening = ListeningSockets(units_of(""))
    served = listener(port=free_port())
    small = Buffers(receive=4096, send=BUFFERS.send)
    listening.commit(listening.acquire([served], workers=1, buffers=small))
    (sock,) = listening.sockets[served]
    watched = Watched(listening, served)
    with sock, udp_client() as client:
        deliver(sock, client.sendto, b"x", sock.getsockname())
        for _ in range(100):
            client.sendto(b"x", sock.getsockname())
        yield watched, served


def test_drops_of_a_listener_with_traffic_are_reported_at_once(full: tuple[Watched, Listener]) -> None:
    """Where a worker counts anything, the kernel is asked too."""
    watched, served = full
    assert watched.look() is None
    watched.page.row(0, served)[UdpField.RECEIVED] = 1
    assert watched.see().udp[0].kernel_drops > 80


def test_drops_before_a_worker_that_is_stuck_are_reported_at_once(full: tuple[Watched, Listener]) -> None:
    """It counts nothing; that it does not turn is the hint."""
    watched, _ = full
    watched.workers = (replace(FRESH, heartbeat_age_seconds=2.0),)
    assert watched.see().udp[0].kernel_drops > 80


def test_drops_that_nothing_hints_at_are_reported_soon(full: tuple[Watched, Listener]) -> None:
    """Not at each look, which would cost an idle daemon more than all the rest."""
    watched, _ = full
    reported = [watched.look() for _ in range(int(KERNEL_SECONDS))]
    assert reported[:-1] == [None] * (len(reported) - 1)
    assert reported[-1] is not None
    assert reported[-1].udp[0].kernel_drops > 80
