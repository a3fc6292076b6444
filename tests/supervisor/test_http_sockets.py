"""The HTTP sockets, which listen for requests of metrics: opened before the commit, kept, moved, closed, or passed."""

import os
import socket

import pytest
from support.loopback import ANY, BUFFERS, listener, tcp_client, udp_client
from support.ports import free_port

from echod.errors import AddressUnavailableError
from echod.net.listener import Endpoint, Protocol, parse_endpoint
from echod.supervisor.listening import ListeningSockets


def endpoint(host: str = "127.0.0.1", port: int = 0) -> Endpoint:
    """Make an endpoint, on a port that is free where none is given."""
    return parse_endpoint(f"http://{host}:{port or free_port()}")


def http_sockets(listening: ListeningSockets, *metrics: Endpoint) -> list[socket.socket]:
    """Acquire and commit with metrics there; return the http_sockets."""
    listening.commit(listening.acquire((), workers=1, buffers=BUFFERS, metrics=metrics))
    return listening.http_sockets


def test_an_http_socket_is_kept_moved_and_closed_at_commit(listening: ListeningSockets) -> None:
    """The same endpoint keeps the very socket; another one opens before the old one closes; none closes it."""
    here, there = endpoint(), endpoint("[::1]")
    (first,) = http_sockets(listening, here)
    assert http_sockets(listening, here) == [first]
    acquisition = listening.acquire((), workers=1, buffers=BUFFERS, metrics=[there])
    assert listening.http_sockets == [first]
    listening.abandon(acquisition)
    assert listening.http_sockets == [first]
    with tcp_client(first) as client:
        assert client.getpeername() == ("127.0.0.1", here.listener.port)
    (second,) = http_sockets(listening, there)
    assert (first.fileno(), second.getsockname()[1]) == (-1, there.listener.port)
    assert http_sockets(listening) == []
    assert second.fileno() == -1


def test_an_http_socket_can_widen_and_narrow_on_its_port(listening: ListeningSockets) -> None:
    """From one address to all and back, without a moment in which nobody listens."""
    narrow = endpoint()
    wide = endpoint(ANY, narrow.listener.port)
    for metrics in (narrow, wide, narrow):
        (http_socket,) = http_sockets(listening, metrics)
        assert http_socket.getsockname() == (str(metrics.listener.address), narrow.listener.port)


def test_an_http_socket_that_cannot_be_opened_closes_all_that_was_opened(listening: ListeningSockets) -> None:
    """Neither the port of another process nor that of an echo listener; the sentence names the key."""
    wanted = listener("127.0.0.1", free_port())
    echo = listener("127.0.0.1", free_port(), Protocol.TCP)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = endpoint(port=other.getsockname()[1])
        sentence = rf"metrics\.listen: {taken.listener}.*:{taken.listener.port}'. shows which"
        with pytest.raises(AddressUnavailableError, match=sentence):
            listening.acquire((wanted,), workers=2, buffers=BUFFERS, metrics=[taken])
    udp_client(port=wanted.port).close()
    with pytest.raises(AddressUnavailableError, match=r"metrics\.listen: .*in use"):
        listening.acquire((echo,), workers=1, buffers=BUFFERS, metrics=[endpoint(port=echo.port)])


def test_an_http_socket_and_a_listener_can_exchange_their_ports(listening: ListeningSockets) -> None:
    """By one reload, and back: each is bound beside the other, which closes at the commit."""
    ports = [free_port() for _ in range(2)]
    for here, there in (ports, ports[::-1], ports):
        wanted, metrics = listener("127.0.0.1", here, Protocol.TCP), endpoint(port=there)
        listening.commit(listening.acquire((wanted,), workers=1, buffers=BUFFERS, metrics=[metrics]))
        (http_socket,) = listening.http_sockets
        ((echo,),) = listening.sockets.values()
        assert (echo.getsockname()[1], http_socket.getsockname()[1]) == (here, there)
        for server in (echo, http_socket):
            with tcp_client(server) as client, server.accept()[0] as accepted:
                assert accepted.getpeername() == client.getsockname()
    listening.commit(listening.acquire((), workers=1, buffers=BUFFERS, metrics=[metrics]))


def test_an_http_socket_is_never_bound_beside_a_listener_that_stays(listening: ListeningSockets) -> None:
    """Nor beside a new one that takes the place of a wider one on that port: it is in use."""
    echo = listener("127.0.0.1", free_port(), Protocol.TCP)
    wide = listener(ANY, echo.port, Protocol.TCP)
    for wanted in (wide, wide, echo):
        with pytest.raises(AddressUnavailableError, match=r"metrics\.listen: .*in use"):
            listening.acquire((wanted,), workers=1, buffers=BUFFERS, metrics=[endpoint(port=echo.port)])
        listening.commit(listening.acquire((wide,), workers=1, buffers=BUFFERS))
    listening.commit(listening.acquire((), workers=1, buffers=BUFFERS))


def test_where_systemd_holds_the_ports_the_error_says_how_to_pass_an_http_socket(listening: ListeningSockets) -> None:
    """In the socket unit of the listeners the port would be an echo port: that of the metrics is named."""
    with udp_client() as one, socket.create_server(("127.0.0.1", 0)) as other:
        listening.adopt({os.dup(one.fileno()): ""}, BUFFERS)
        sentence = (
            r"metrics\.listen: .*; as systemd holds .* enable echod-metrics@red\.socket and .* echod@red\.service$"
        )
        with pytest.raises(AddressUnavailableError, match=sentence):
            listening.acquire((), workers=1, buffers=BUFFERS, metrics=[endpoint(port=other.getsockname()[1])])


def test_a_passed_http_socket_takes_the_place_of_the_configured_one(listening: ListeningSockets) -> None:
    """By its name it is no listener; whatever the config says of metrics, it is the only HTTP socket, and stays."""
    passed = socket.create_server(("127.0.0.1", 0))
    number = passed.detach()
    listening.adopt({number: "metrics"}, BUFFERS)
    assert listening.adopted == {}
    for metrics in (endpoint(), None, endpoint()):
        (http_socket,) = http_sockets(listening, metrics)
        assert (http_socket.fileno(), http_socket.getblocking()) == (number, False)


def test_metrics_may_be_served_at_several_addresses(listening: ListeningSockets) -> None:
    """Of a list, each that stays keeps its socket; `[::]` and 0.0.0.0 stand side by side on one port."""
    port = free_port()
    four, six = endpoint(ANY, port), endpoint("[::]", port)
    first, second = http_sockets(listening, four, six)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port)).close()
    (last,) = http_sockets(listening, six)
    assert last is second
    assert first.fileno() == -1
