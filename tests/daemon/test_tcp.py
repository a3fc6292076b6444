"""TCP comes back whole with a clean end, and no connection can hold the daemon, or UDP, up."""

import os
import resource
import signal
import socket
from contextlib import ExitStack, suppress

import pytest
from support.daemon import Serve, ask, connect_tcp, is_served
from support.ports import free_port
from support.tcp_worker import pull, push
from support.waiting import SECONDS, wait_until

ATTEMPTS = 100


def read_to_end(sock: socket.socket) -> bytes:
    """Read until the peer's clean end; a reset raises."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def fill(sock: socket.socket) -> int:
    """Write, without ever reading, until the other side takes no more; return how much it took."""
    sock.settimeout(0.5)
    taken = 0
    while True:
        try:
            taken += sock.send(bytes(1 << 16))
        except TimeoutError:
            return taken


def test_ten_megabytes_come_back_whole_with_a_clean_end(serve: Serve) -> None:
    """10 MB written and half-closed are echoed to the last byte, then FIN and no RST."""
    daemon, port = serve()
    payload = os.urandom(10_000_000)
    with connect_tcp(port) as sock:
        left, got = memoryview(payload), bytearray()
        while left:
            left = left[push(sock, left) :]
            got += pull(sock)
        sock.shutdown(socket.SHUT_WR)
        assert got + read_to_end(sock) == payload
    daemon.wait_for_closes(finished=1)
    row = daemon.counters()[f"tcp://127.0.0.1:{port}"]
    assert row["received_bytes"] == row["sent_bytes"] == 10_000_000


@pytest.mark.parametrize(("ends", "stays", "reason"), [("stall", "idle", "stalled"), ("idle", "stall", "idle")])
def test_a_connection_without_progress_is_closed_on_time_while_udp_goes_on(
    serve: Serve, ends: str, stays: str, reason: str
) -> None:
    """`stall_timeout_seconds` ends the one whose peer never reads, `idle_timeout_seconds` the one that never writes."""
    timeouts = {f"{ends}_timeout_seconds": 1, f"{stays}_timeout_seconds": 600}
    daemon, port = serve(workers=1, tcp=timeouts)
    with connect_tcp(port) as stalled, connect_tcp(port):

        def closed() -> bool:
            with suppress(ConnectionResetError, BrokenPipeError):
                push(stalled)
            assert ask(port) == b"hi"
            return bool(daemon.closes())

        wait_until(closed, "a connection was closed")
        assert daemon.closes() == {reason: 1}


def test_the_limits_on_connections_hold_over_all_workers(serve: Serve) -> None:
    """A connection over the limit of all, or of its source, is closed at once and counted; one that ends makes room."""
    daemon, port = serve(workers=2, tcp={"max_connections": 4, "max_connections_per_source": 2})
    with ExitStack() as stack:
        socks = [stack.enter_context(connect_tcp(port, source=f"127.0.0.{1 + number // 2}")) for number in range(4)]
        assert all(is_served(sock) for sock in socks)
        with connect_tcp(port, source="127.0.0.3") as sock:
            assert not is_served(sock)
        daemon.wait_for_closes(over_limit=1)
        socks[-1].shutdown(socket.SHUT_WR)
        assert read_to_end(socks[-1]) == b""
        daemon.wait_for_closes(over_limit=1, finished=1)
        with connect_tcp(port) as sock:
            assert not is_served(sock)
        daemon.wait_for_closes(over_limit=1, over_source_limit=1, finished=1)
        with connect_tcp(port, source="127.0.0.3") as sock:
            assert is_served(sock)


@pytest.mark.parametrize("how", ["stop", "reload"])
def test_bytes_under_way_are_delivered_while_draining(serve: Serve, how: str) -> None:
    """What was written before SIGTERM, or before a reload, comes back though it is read only after."""
    daemon, port = serve(workers=1)
    with connect_tcp(port) as sock:
        taken = fill(sock)
        sock.settimeout(SECONDS)
        if how == "stop":
            daemon.signal(signal.SIGTERM)
            daemon.wait_for("draining")
        else:
            assert daemon.reload()["event"] == "reloaded"
        sock.shutdown(socket.SHUT_WR)
        assert len(read_to_end(sock)) == taken
    if how == "reload":
        assert daemon.stop() == 0
    assert daemon.wait() == 0
    assert daemon.log("stopped")[0]["tcp_bytes"] == taken


def test_a_quiet_connection_does_not_hold_up_a_stop(serve: Serve) -> None:
    """A peer that sends nothing more sees a clean end soon after SIGTERM, long before the drain timeout."""
    daemon, port = serve(drain_timeout_seconds=60)
    with connect_tcp(port) as sock:
        sock.sendall(b"hi")
        assert sock.recv(16) == b"hi"
        daemon.signal(signal.SIGTERM)
        assert sock.recv(16) == b""
    assert daemon.wait() == 0


def refuses(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Return whether nobody has the port any more."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(b"hi")  # over UDP the next call fails
            sock.send(b"hi")
        except ConnectionRefusedError:
            return True
        except (ConnectionResetError, BrokenPipeError):  # it was in the queue when the listener was closed
            return False
    return False


def test_a_new_client_is_refused_at_once_while_echod_drains(serve: Serve) -> None:
    """While old connections finish, no client waits in a queue that is never served."""
    daemon, port = serve(workers=2, drain_timeout_seconds=60)
    with connect_tcp(port) as sock:
        left = fill(sock)
        sock.settimeout(SECONDS)
        sock.shutdown(socket.SHUT_WR)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining")
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            while not refuses(port, kind):
                left -= len(sock.recv(4096))  # what moves is not closed
        assert len(read_to_end(sock)) == left
    assert daemon.wait() == 0


def test_a_port_of_a_reload_that_a_stop_overtook_is_closed(serve: Serve) -> None:
    """What was opened for a generation that never served goes with it, long before the old one has drained."""
    daemon, port = serve(workers=1, drain_timeout_seconds=60)
    other = free_port()
    listeners = [f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"]
    for _ in range(ATTEMPTS):  # until one was caught, which takes milliseconds
        if len(daemon.log("reloading")) > len(daemon.log("reloaded")):
            break
        daemon.signal(signal.SIGCONT)
        assert daemon.reload({"listeners": listeners, "workers": 1})["event"] == "reloaded"
        wait_until(lambda: len(daemon.workers()) == 1, "the old worker had gone")
        (worker,) = daemon.workers()
        daemon.write({"listeners": [*listeners, f"tcp://127.0.0.1:{other}"], "workers": 1})
        born = len(daemon.log("worker_started"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("worker_started", born + 1)
        daemon.signal(signal.SIGSTOP)
    assert len(daemon.log("reloading")) > len(daemon.log("reloaded")), f"none of {ATTEMPTS} reloads was caught"
    os.kill(worker, signal.SIGSTOP)
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    daemon.wait_for("draining")
    wait_until(lambda: refuses(other), "the new port was closed")
    assert not daemon.log("stopped")
    os.kill(worker, signal.SIGCONT)
    assert daemon.wait() == 0


def test_the_default_limits_hold_as_many_connections_as_they_say(serve: Serve) -> None:
    """1,024 connections, 64 from each of 16 sources, are open and echoed at once; of a 17th source, none is."""
    daemon, port = serve()
    with ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 2048:
            pytest.skip(f"this process may have {hard} descriptors only")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        socks = [
            stack.enter_context(connect_tcp(port, f"127.1.0.{source}")) for source in range(1, 17) for _ in range(64)
        ]
        for number, sock in enumerate(socks):
            sock.sendall(f"{number:04}".encode())
        assert [sock.recv(4) for sock in socks] == [f"{number:04}".encode() for number in range(1024)]
        with connect_tcp(port, "127.1.0.17") as one_more:
            assert read_to_end(one_more) == b""
    daemon.wait_for_closes(finished=1024, over_limit=1)
