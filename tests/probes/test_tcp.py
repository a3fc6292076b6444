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
    """It takes all, and no reply ever comes: of so many probes the sizes are known, and no more are sent."""
    monkeypatch.setattr(tcp, "MOST_UNANSWERED", 3)
    with socket.create_server(("127.0.0.1", 0)) as server, connected(server, loop, print) as line:
        for _ in range(3):
            assert line.send(b"12345678") is None
        refused = line.send(b"12345678")
        assert refused is not None
        assert refused.reason == "send queue full on this host"


def test_a_peer_that_ends_each_connection_leaves_little_behind(monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
    """Of the handshakes so many are told."""
    monkeypatch.setattr(session, "MOST_HANDSHAKES", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = session.Course(target_of(server), settings(), loop, watchers=[])
        for _ in range(5):
            with connected(server, loop, asked.hear) as line:
                asked.hear(line)
                line.close()
    assert len(asked.handshakes) == 2


def target_of(server: socket.socket) -> Target:
    """Return a TCP server as a target."""
    return target_at(f"tcp://127.0.0.1:{server.getsockname()[1]}")


@contextmanager
def connected(server: socket.socket, loop: Loop, hear: Callable[[tcp.TcpLine], None]) -> Iterator[tcp.TcpLine]:
    """Open a line to a TCP server, whose connection stands."""
    line = tcp.TcpLine(target_of(server), 0, settings(), loop=loop, hear=hear)
    try:
        assert line.send(b"first") is None
        line._waiting.clear()
        assert line._sock is not None
        select.select([], [line._sock], [], 10)
        peer, _ = server.accept()
        with peer:
            yield line
    finally:
        line.close()
