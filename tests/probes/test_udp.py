"""echod.probes.udp: the kernel reports when each probe was sent, in the same queue as errors."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic_ns, time_ns

import pytest
from support.loopback import add_link, at, namespace, needs_root, udp_server
from support.ports import free_port
from support.probing import settings, target_at
from support.waiting import wait_until

from echod.linux.sockopt import SO_TIMESTAMPING
from echod.measurement.in_flight import ProbeError
from echod.measurement.round_trip import Response
from echod.probes.loop import Loop
from echod.probes.session import ProbeSession, open_session
from echod.probes.settings import SocketSettings
from echod.probes.sockets import open_probe_socket
from echod.probes.udp import UdpTransport


@contextmanager
def line_to(host: str, port: int, *, stamps: bool = True) -> Iterator[UdpTransport]:
    """Open a transport to a port of a host."""
    target = target_at(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    with open_probe_socket(target, SocketSettings()) as sock:
        yield UdpTransport(sock, target, 0, stamps=stamps)


def collected(transport: UdpTransport) -> Response | ProbeError:
    """Wait for the first response or error, and return it; nothing else has come with it."""
    received: list[Response | ProbeError] = []

    def has_come() -> bool:
        received.extend(transport.receive())
        return bool(received)

    wait_until(has_come, "a reply, or an error")
    (first,) = received
    return first


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_probe_went_while_it_was_sent(host: str) -> None:
    """Each has a timestamp of its own, between the begin and the end of its send, and before its reply."""
    with udp_server(host) as server, line_to(host, at(server)[1]) as transport:
        assert transport.send_stamp == 0
        for number in range(3):
            before = time_ns()
            assert transport.send(b"%d" % number) is None
            assert before <= transport.send_stamp <= time_ns()
            data, _, _, address = server.recvmsg(16)
            server.sendto(data, address)
            response = collected(transport)
            assert isinstance(response, Response)
            assert response.stamp is not None
            assert transport.send_stamp < response.wall


def test_a_line_that_is_not_to_ask_has_no_stamps() -> None:
    """Where probes follow one another too fast."""
    with udp_server() as server, line_to("127.0.0.1", at(server)[1], stamps=False) as transport:
        assert transport.send(b"x") is None
        assert transport.send_stamp == 0


def test_errors_are_told_from_stamps() -> None:
    """If nothing listens, each probe has a timestamp and one error."""
    with line_to("127.0.0.1", free_port()) as transport:
        for number in range(3):
            before = time_ns()
            assert transport.send(b"%d" % number) is None
            assert transport.send_stamp >= before
            probe_error = collected(transport)
            assert isinstance(probe_error, ProbeError)
            assert (probe_error.reason, probe_error.data) == ("port unreachable", b"%d" % number)


@needs_root
def test_what_waits_for_a_neighbour_has_not_gone() -> None:
    """The timestamp of an earlier probe is not that of a probe that waits: it is before its send."""
    with namespace():
        add_link("10.0.0.1/24")
        with line_to("10.0.0.2", 7) as transport:
            for _ in range(2):
                before = time_ns()
                assert transport.send(b"x") is None
                assert transport.send_stamp < before


def test_a_round_trip_begins_with_the_stamp_and_an_error_is_told_at_once(loop: Loop) -> None:
    """The round trip of a probe begins with its timestamp; an error that was read with it is reported at once."""
    session = ProbeSession(target_at(f"127.0.0.1:{free_port()}"), settings(), loop, [])
    with open_probe_socket(session.target, SocketSettings()) as sock:
        transport = UdpTransport(sock, session.target, 0, stamps=True)
        session.transports = [transport]
        session.start(monotonic_ns())
        before = time_ns()
        session.run_due(monotonic_ns())
        assert session.statistics.errors["port unreachable", "127.0.0.1"].count == 1
        (probe,) = session.in_flight._probes.values()
        assert before <= probe.stamp < probe.moment.wall == transport.send_stamp


@pytest.mark.parametrize(("interval", "asks"), [(100_000, True), (99_999, False), (0, False)])
def test_probes_that_are_hurried_are_not_stamped(loop: Loop, interval: int, *, asks: bool) -> None:
    """They are requested from an interval of a tenth of a millisecond on."""
    with ExitStack() as stack:
        (transport,) = open_session(target_at("127.0.0.1"), settings(interval=interval), loop, [], stack).transports
        assert isinstance(transport, UdpTransport)
        assert (transport.sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING) != 0) is asks
