"""When a probe went is what the kernel says, beside the errors that the same queue tells."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic_ns, time_ns

import pytest
from support.loopback import add_link, at, namespace, needs_root, udp_client, udp_server
from support.probing import settings, target_at
from support.waiting import wait_until

from echod.linux.sockopt import SO_TIMESTAMPING
from echod.measurement.in_flight import Arrival, Obstacle
from echod.probes.loop import Loop
from echod.probes.session import Course, open_session
from echod.probes.settings import SocketSettings
from echod.probes.sockets import open_outlet
from echod.probes.udp import UdpLine


@contextmanager
def line_to(host: str, port: int, *, stamps: bool = True) -> Iterator[UdpLine]:
    """Open a line to a port of a host."""
    target = target_at(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    with open_outlet(target, SocketSettings()) as sock:
        yield UdpLine(sock, target, 0, stamps=stamps)


def heard(line: UdpLine) -> Arrival | Obstacle:
    """Wait for what comes first, and return it; nothing else has come with it."""
    news: list[Arrival | Obstacle] = []

    def has_come() -> bool:
        news.extend(line.receive())
        return bool(news)

    wait_until(has_come, "a reply, or an error")
    (first,) = news
    return first


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_probe_went_while_it_was_sent(host: str) -> None:
    """Each has a stamp of its own, not before it was begun nor after it was done, and before it arrived."""
    with udp_server(host) as server, line_to(host, at(server)[1]) as line:
        assert line.left == 0
        for number in range(3):
            before = time_ns()
            assert line.send(b"%d" % number) is None
            assert before <= line.left <= time_ns()
            data, _, _, address = server.recvmsg(16)
            server.sendto(data, address)
            arrival = heard(line)
            assert isinstance(arrival, Arrival)
            assert arrival.stamp is not None
            assert line.left < arrival.wall


def test_a_line_that_is_not_to_ask_has_no_stamps() -> None:
    """Where probes follow one another too fast."""
    with udp_server() as server, line_to("127.0.0.1", at(server)[1], stamps=False) as line:
        assert line.send(b"x") is None
        assert line.left == 0


def test_errors_are_told_from_stamps() -> None:
    """Where nobody listens, each probe has a stamp, and is said to be refused, once."""
    with udp_client() as closed:
        port = closed.getsockname()[1]
    with line_to("127.0.0.1", port) as line:
        for number in range(3):
            before = time_ns()
            assert line.send(b"%d" % number) is None
            assert line.left >= before
            obstacle = heard(line)
            assert isinstance(obstacle, Obstacle)
            assert (obstacle.reason, obstacle.data) == ("port unreachable", b"%d" % number)


@needs_root
def test_what_waits_for_a_neighbour_has_not_gone() -> None:
    """The stamp of an earlier probe is not that of one that waits: it lies before it was begun."""
    with namespace():
        add_link("10.0.0.1/24")
        with line_to("10.0.0.2", 7) as line:
            for _ in range(2):
                before = time_ns()
                assert line.send(b"x") is None
                assert line.left < before


def test_a_round_trip_begins_with_the_stamp_and_an_error_is_told_at_once(loop: Loop) -> None:
    """Of the probe that has one; and where the error came along with it, nobody waits for more."""
    with udp_client() as closed:
        port = closed.getsockname()[1]
    course = Course(target_at(f"127.0.0.1:{port}"), settings(), loop, watchers=[])
    with open_outlet(course.target, SocketSettings()) as sock:
        line = UdpLine(sock, course.target, 0, stamps=True)
        course.lines = [line]
        course.start(monotonic_ns())
        before = time_ns()
        course.run_due(monotonic_ns())
        assert course.survey.obstacles["port unreachable", "127.0.0.1"].count == 1
        (sent,) = course.flight._sent.values()
        assert before <= sent.stamp < sent.moment.wall == line.left


@pytest.mark.parametrize(("interval", "asks"), [(100_000, True), (99_999, False), (0, False)])
def test_probes_that_are_hurried_are_not_stamped(loop: Loop, interval: int, *, asks: bool) -> None:
    """Asked from a tenth of a millisecond on, where a look at the queue is little beside the rest."""
    with ExitStack() as stack:
        (line,) = open_session(target_at("127.0.0.1"), settings(interval=interval), loop, [], stack).lines
        assert isinstance(line, UdpLine)
        assert (line.sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING) != 0) is asks
