"""echod.probes.tcp: what a peer makes a connection keep."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.probing import settings, target_at

from echod.probes import session, tcp
from echod.probes.loop import Loop
from echod.probes.target import Target


def test_a_peer_that_answers_nothing_is_not_kept_account_of_without_end(
    monkeypatch: pytest.MonkeyPatch, loop: Loop
) -> None:
    """It reads all and replies nothing: the sizes of so many probes are kept, and no more are sent."""
    monkeypatch.setattr(tcp, "MOST_UNANSWERED", 3)
    with socket.create_server(("127.0.0.1", 0)) as server, connected(server, loop, print) as transport:
        for _ in range(3):
            assert transport.send(b"12345678") is None
        refused = transport.send(b"12345678")
        assert refused is not None
        assert refused.reason == "send queue full on this host"


def test_a_peer_that_ends_each_connection_leaves_little_behind(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    """The durations of so many handshakes are kept."""
    monkeypatch.setattr(session, "MOST_HANDSHAKES", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        probed = session.ProbeSession(target_of(server), settings(), loop, [])
        for _ in range(5):
            with connected(server, loop, probed.receive) as transport:
                probed.receive(transport)
                transport.close()
    assert len(probed.handshakes) == 2


def target_of(server: socket.socket) -> Target:
    """Return a TCP server as a target."""
    return target_at(f"tcp://127.0.0.1:{server.getsockname()[1]}")


@contextmanager
def connected(
    server: socket.socket, loop: Loop, receive: Callable[[tcp.TcpTransport], None]
) -> Iterator[tcp.TcpTransport]:
    """Open a transport to a TCP server, with an open connection."""
    transport = tcp.TcpTransport(target_of(server), 0, settings(), loop=loop, receive=receive)
    try:
        assert transport.send(b"first") is None
        transport._waiting.clear()
        assert transport._sock is not None
        select.select([], [transport._sock], [], 10)
        peer, _ = server.accept()
        with peer:
            yield transport
    finally:
        transport.close()
