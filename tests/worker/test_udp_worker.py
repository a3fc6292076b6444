"""A worker, run by hand in this process: its commands, its reports, and its end."""

import mmap
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network

import pytest
from support.loopback import (
    add_link,
    assert_nothing_more,
    at,
    deliver,
    needs_root,
    queue,
    send_by_link,
    udp_client,
    udp_server,
)
from support.peers import peer
from support.udp_worker import LISTENER

from echod.admission.ratelimit import RateLimit
from echod.config.schema import Config, LimitsConfig
from echod.linux.mmsg_layout import MEMORY_BYTES, SLOTS
from echod.linux.netlink import MAX_OWN
from echod.linux.poll import READ, SHARED
from echod.linux.sockopt import SO_RCVBUFFORCE
from echod.net.networks import pack_networks
from echod.stats.counters import CounterPage, SlotField, describe
from echod.stats.outcomes import Drop
from echod.stats.refusals import Report
from echod.stats.top_sources import unpack_report
from echod.udp.service import MAX_BATCHES_PER_WAKEUP, UdpEcho
from echod.worker.channel import DRAIN, OWN_ADDRESSES, READY, SERVE, TOP_SOURCES, Birth, ServedSocket, open_channel
from echod.worker.worker import Worker, _gap


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUnderTest:
    """A worker that serves one UDP socket, with the supervisor's end of its channel."""

    worker: Worker
    channel: socket.socket
    server: socket.socket
    page: CounterPage

    @property
    def echo(self) -> UdpEcho:
        """Return what it serves."""
        ((echo, _),) = self.worker._udp
        return echo

    def send(self, command: bytes) -> None:
        """Send it a command, and let it act."""
        self.channel.send(command)
        self.worker._on_command(0.0)

    def row(self) -> dict[str, int]:
        """Return its row by name."""
        return describe(LISTENER, self.page.row(0, LISTENER))


@contextmanager
def worker(config: Config | None = None, host: str = "127.0.0.1", *, shared: bool = False) -> Iterator[WorkerUnderTest]:
    """Make a worker; it does not serve yet."""
    born = Config() if config is None else config
    size = CounterPage.size(slots=1, listeners=1, places=0)
    page = CounterPage(memoryview(bytearray(size)), slots=1, listeners=[LISTENER], places=0)
    ours, theirs = open_channel()
    ours.setblocking(False)
    server = udp_server(host)
    rates = memoryview(mmap.mmap(-1, RateLimit.size(born.limits.sources)))
    with ours, theirs, server:
        birth = Birth(
            slot=0,
            config=born,
            sockets=[ServedSocket(listener=LISTENER, sock=server, shared=shared)],
            vector=mmap.mmap(-1, MEMORY_BYTES),
            page=page,
            rates=rates if born.limits.datagrams_per_second else None,
            own_addresses=(),
            secret=b"secret",
            began=0,
            self_test=None,
            channel=theirs,
            supervisor=os.getpid(),
            account=None,
        )
        made = Worker(birth)
        try:
            yield WorkerUnderTest(worker=made, channel=ours, server=server, page=page)
        finally:
            made._poll.close()


def test_a_worker_that_drains_amid_traffic_ends_in_order() -> None:
    """The order to drain and a datagram arrive in one turn: the datagram is answered, and the worker returns."""
    with worker() as hands, udp_client() as client:
        hands.send(SERVE)
        hands.channel.send(DRAIN)
        queue(client, hands.server, b"last one")
        hands.worker.run()
        assert hands.channel.recv(64) == READY
        assert client.recv(16) == b"last one"
        assert hands.page.header(0)[SlotField.HEARTBEAT] == 1


@needs_root
def test_a_worker_that_drains_answers_all_that_is_queued() -> None:
    """Also where that is more than it answers in a turn."""
    count = 3 * MAX_BATCHES_PER_WAKEUP * SLOTS
    with worker() as hands, udp_client() as client:
        hands.send(SERVE)
        hands.server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        for number in range(count):
            client.sendto(b"%d" % number, at(hands.server))
        hands.send(DRAIN)
        assert hands.row()["received"] == hands.row()["replied"] == count


@pytest.mark.parametrize("unread", [False, True])
def test_a_worker_whose_supervisor_is_gone_drains(*, unread: bool) -> None:
    """The end of the channel means the same as DRAIN, also as a reset because a report was left unread (unix(7)).

    That nobody receives its reports does no harm.
    """
    with worker() as hands, udp_client() as client:
        hands.send(SERVE)
        if unread:
            hands.worker._channel.send(READY)
        hands.worker._tallies[0].add(Drop.ACCESS, bytes(4), 1)
        queue(client, hands.server, b"last one")
        hands.channel.close()
        hands.worker._on_command(0.0)
        hands.worker._on_deadline(0.0)
        assert client.recv(16) == b"last one"


@needs_root
def test_a_worker_takes_new_addresses_for_its_own(network: None) -> None:
    """Each list of this host's addresses that it receives decides on the next datagram."""
    add_link("10.0.0.1/24")
    with worker(host="10.0.0.1") as hands:
        drops = []
        for own in ((), ("10.0.0.9", "10.0.0.10"), ("fd00::9",), ("10.0.0.8/31",)):
            hands.send(OWN_ADDRESSES + pack_networks(map(ip_network, own)))
            deliver(hands.server, send_by_link, at(hands.server), b"x", "10.0.0.9")
            hands.echo.on_readable(0.0)
            drops.append(hands.row().get("dropped_source_is_self", 0))
        assert drops == [0, 1, 1, 2]
        assert hands.row()["replied"] == 2


def test_a_worker_receives_as_many_addresses_as_can_be_known() -> None:
    """The longest command there is, with only IPv6 addresses in it, goes through the channel in one piece."""
    most = [IPv6Network((number, 128)) for number in range(2**32, 2**32 + MAX_OWN)]
    with worker() as hands:
        hands.send(OWN_ADDRESSES + pack_networks(most))
        judge = hands.worker._admission.admit
        assert judge(peer("::1:0:7"), on_loopback=False, unicast=True, truncated=False) is Drop.SOURCE_IS_SELF


def test_a_worker_reports_refused_and_top_sources() -> None:
    """At its deadline it reports to the supervisor, once, by listener, reason and address, and by source."""
    with worker(Config.model_validate({"access": {"deny": ["127.0.0.0/8"]}})) as hands, udp_client() as client:
        for _ in range(3):
            queue(client, hands.server, b"x")
        hands.echo.on_readable(0.0)
        assert hands.row()["dropped_access"] == 3
        hands.worker._on_deadline(0.0)
        report = Report(listener=0, reason=Drop.ACCESS, refused=3, sources={"127.0.0.1": 3}, more=False)
        assert Report.unpack(hands.channel.recv(65_536)) == report
        top = hands.channel.recv(65_536)
        assert (top[:1], unpack_report(top[1:])) == (TOP_SOURCES, [("127.0.0.1", 3)])
        hands.worker._on_deadline(1.0)
        with pytest.raises(BlockingIOError):
            hands.channel.recv(65_536)
        assert_nothing_more(client)


def test_a_supervisor_that_does_not_read_loses_only_reports() -> None:
    """With its channel full a worker goes on, without waiting."""
    with worker() as hands:
        for _ in range(5000):
            hands.worker._tallies[0].add(Drop.ACCESS, bytes(4), 1)
            hands.worker._on_deadline(0.0)
        with pytest.raises(BlockingIOError):
            hands.worker._channel.send(bytes(1000), socket.MSG_DONTWAIT)


@pytest.mark.parametrize(
    ("limits", "least", "most"),
    [({"slip": 8}, 13, 87), ({"slip": 0}, 0, 0), ({"slip": 1}, 400, 400), ({"dry_run": True}, 400, 400)],
)
def test_as_many_slip_through_as_the_config_allows(limits: dict[str, int], least: int, most: int) -> None:
    """Of 800 datagrams at once with a burst of 400, an eighth of the rest, none, or all are answered all the same."""
    config = Config(limits=LimitsConfig.model_validate({"datagrams_per_second": 1, "burst": 400, **limits}))
    with worker(config) as hands, udp_client() as client:
        for number in range(800):
            queue(client, hands.server, b"%d" % number)
            hands.echo.on_readable(1000.0)
        row = hands.row()
        slipped = row.get("slipped", 0)
        assert least <= slipped <= most
        assert (row["replied"], row.get("dropped_rate", 0)) == (400 + slipped, 400 - slipped)
        assert len([client.recv(16) for _ in range(400 + slipped)]) == 400 + slipped
        assert_nothing_more(client)


@pytest.mark.parametrize("shared", [False, True])
def test_a_socket_is_waited_for_as_a_busy_one(*, shared: bool) -> None:
    """One that is shared is known as such: of all who sleep until it is ready the kernel wakes one alone."""
    with worker(shared=shared) as hands, udp_client() as client:
        hands.send(SERVE)
        assert hands.worker._poll._busy == {hands.server.fileno(): SHARED if shared else READ}
        queue(client, hands.server, b"hello")
        for on_ready in hands.worker._poll.wait(0.0):
            on_ready(0.0)
        assert client.recv(16) == b"hello"


def test_the_distance_between_samples_of_the_loop_detector_is_random() -> None:
    """It is 1 to 2,047 datagrams, 1,024 on average, and differs between workers."""
    gaps = [[gap() for _ in range(20_000)] for gap in (_gap(), _gap())]
    assert gaps[0] != gaps[1]
    for each in gaps:
        assert min(each) >= 1
        assert max(each) <= 2 * 1024 - 1
        assert sum(each) / len(each) == pytest.approx(1024, rel=0.05)
        assert len(set(each)) > 1024


@pytest.mark.parametrize("loop_breaker", [False, True])
def test_a_worker_breaks_loops_only_if_the_config_says_so(*, loop_breaker: bool) -> None:
    """With the guard switched off, there is no loop detector."""
    with worker(Config.model_validate({"guard": {"loop_breaker": loop_breaker}})) as hands:
        assert (hands.echo._admission.loop_detector is not None) == loop_breaker
