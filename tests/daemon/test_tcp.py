"""TCP comes back whole with a clean end, and no connection can hold the daemon, or UDP, up."""

import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.daemon import Daemon, ask
from support.ports import free_port
from support.processes import cpu_ticks
from support.waiting import SECONDS, wait_until

EchodFactory = Callable[..., Daemon]
ATTEMPTS = 100


def serve(echod: EchodFactory, **config: object) -> tuple[Daemon, int]:
    """Start a daemon that serves one port in UDP and TCP on 0.0.0.0."""
    port = free_port()
    return echod({"listeners": [f"udp://0.0.0.0:{port}", f"tcp://0.0.0.0:{port}"], **config}), port


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Connect from this address, with a deadline on all that follows."""
    sock = socket.create_connection(("127.0.0.1", port), SECONDS, (source, 0))
    sock.settimeout(SECONDS)
    return sock


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


def closes(daemon: Daemon, port: int) -> dict[str, int]:
    """Return how many connections ended for each reason."""
    row = daemon.counters()[f"tcp://0.0.0.0:{port}"]
    return {name.removeprefix("closed_"): n for name, n in row.items() if name.startswith("closed_")}


def test_ten_megabytes_come_back_whole_with_a_clean_end(echod: EchodFactory) -> None:
    """10 MB written and half-closed are echoed to the last byte, then FIN and no RST."""
    daemon, port = serve(echod)
    payload = os.urandom(10_000_000)
    with connect(port) as sock:

        def write() -> None:
            sock.sendall(payload)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        assert read_to_end(sock) == payload
        writer.join()
    assert closes(daemon, port) == {"finished": 1}
    row = daemon.counters()[f"tcp://0.0.0.0:{port}"]
    assert row["received_bytes"] == row["sent_bytes"] == 10_000_000


def test_a_slow_reader_gets_everything(echod: EchodFactory) -> None:
    """Written in full and half-closed before the first byte is read, it all comes back still."""
    _, port = serve(echod)
    with connect(port) as sock:
        taken = fill(sock)
        sock.settimeout(SECONDS)
        sock.shutdown(socket.SHUT_WR)
        assert len(read_to_end(sock)) == taken
    with connect(port) as sock:  # nothing at all is an exchange too
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b""


@pytest.mark.parametrize(("ends", "stays", "reason"), [("stall", "idle", "stalled"), ("idle", "stall", "idle")])
def test_a_connection_without_progress_is_closed_on_time_while_udp_goes_on(
    echod: EchodFactory, ends: str, stays: str, reason: str
) -> None:
    """`stall_timeout_seconds` ends the one whose peer never reads, `idle_timeout_seconds` the one that never writes."""
    timeouts = {f"{ends}_timeout_seconds": 1, f"{stays}_timeout_seconds": 600}
    daemon, port = serve(echod, workers=1, tcp=timeouts)
    with connect(port) as stalled, connect(port):
        fill(stalled)

        def closed() -> bool:
            assert ask(port) == b"hi"
            return bool(closes(daemon, port))

        wait_until(closed, "a connection was closed", seconds=5)
        assert closes(daemon, port) == {reason: 1}


def is_refused(sock: socket.socket) -> bool:
    """Return whether the connection was closed at once, rather than echoed on."""
    try:
        sock.sendall(b"hi")
        return sock.recv(16) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


def test_the_limits_on_connections_hold_over_all_workers(echod: EchodFactory) -> None:
    """A connection over the limit of all, or of its source, is closed at once and counted; one that ends makes room."""
    daemon, port = serve(echod, workers=2, tcp={"max_connections": 4, "max_connections_per_source": 2})
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(port, source=f"127.0.0.{1 + number // 2}")) for number in range(4)]
        assert not any(is_refused(sock) for sock in socks)
        with connect(port, source="127.0.0.3") as sock:
            assert is_refused(sock)
        assert closes(daemon, port) == {"over_limit": 1}
        socks[-1].shutdown(socket.SHUT_WR)
        assert read_to_end(socks[-1]) == b""
        with connect(port) as sock:
            assert is_refused(sock)
        assert closes(daemon, port) == {"over_limit": 1, "over_source_limit": 1, "finished": 1}
        with connect(port, source="127.0.0.3") as sock:
            assert not is_refused(sock)


def test_without_descriptors_udp_goes_on_and_accepting_resumes(echod: EchodFactory) -> None:
    """At EMFILE connections wait, UDP is answered and nothing spins; then those that waited are served."""
    daemon, port = serve(echod, workers=1, user="root")  # whose limits any root may set
    (worker,) = daemon.workers()
    room = 1 + max(int(entry.name) for entry in Path(f"/proc/{worker}/fd").iterdir())
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (room + 3, room + 3))
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(port)) for _ in range(10)]
        for sock in socks:
            sock.sendall(b"hi")
        wait_until(lambda: daemon.counters()[f"tcp://0.0.0.0:{port}"].get("accept_failed"), "descriptors had run out")
        ticks = cpu_ticks(worker)
        sock = socks[-1]
        sock.settimeout(1.5)
        with pytest.raises(TimeoutError):
            sock.recv(16)
        assert cpu_ticks(worker) - ticks < 30  # of the 150 that a spinning worker would have used
        assert ask(port) == b"hi"
        for sock in socks:
            sock.settimeout(SECONDS)
            assert sock.recv(16) == b"hi"
            sock.close()
    wait_until(lambda: closes(daemon, port).get("finished") == 10, "all ten had been served")


@pytest.mark.parametrize("how", ["stop", "reload"])
def test_bytes_under_way_are_delivered_while_draining(echod: EchodFactory, how: str) -> None:
    """What was written before SIGTERM, or before a reload, comes back though it is read only after."""
    daemon, port = serve(echod, workers=1)
    with connect(port) as sock:
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


def test_a_quiet_connection_does_not_hold_up_a_stop(echod: EchodFactory) -> None:
    """A peer that sends nothing more sees a clean end soon after SIGTERM, long before the drain timeout."""
    daemon, port = serve(echod, drain_timeout_seconds=60)
    with connect(port) as sock:
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


def test_a_new_client_is_refused_at_once_while_echod_drains(echod: EchodFactory) -> None:
    """While old connections finish, no client waits in a queue that is never served."""
    daemon, port = serve(echod, workers=2, drain_timeout_seconds=60)
    with connect(port) as sock:
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


def test_a_port_of_a_reload_that_a_stop_overtook_is_closed(echod: EchodFactory) -> None:
    """What was opened for a generation that never served goes with it, long before the old one has drained."""
    daemon, port = serve(echod, workers=1, drain_timeout_seconds=60)
    other = free_port()
    listeners = [f"udp://0.0.0.0:{port}", f"tcp://0.0.0.0:{port}"]
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


def test_the_default_limits_hold_as_many_connections_as_they_say(echod: EchodFactory) -> None:
    """1,024 connections, 64 from each of 16 sources, are open and echoed at once; of a 17th source, none is."""
    daemon, port = serve(echod)
    with ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 2048:
            pytest.skip(f"this process may have {hard} descriptors only")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        target = ("127.0.0.1", port)
        socks = [
            stack.enter_context(socket.create_connection(target, SECONDS, (f"127.1.0.{source}", 0)))
            for source in range(1, 17)
            for _ in range(64)
        ]
        for number, sock in enumerate(socks):
            sock.sendall(f"{number:04}".encode())
        assert [sock.recv(4) for sock in socks] == [f"{number:04}".encode() for number in range(1024)]
        with socket.create_connection(target, SECONDS, ("127.1.0.17", 0)) as one_more:
            assert read_to_end(one_more) == b""
    wait_until(lambda: closes(daemon, port) == {"finished": 1024, "over_limit": 1}, "all had ended")
