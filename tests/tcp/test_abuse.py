"""TCP peers that mean no good: they are let go on time or turned away, and UDP never notices."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.daemon import Daemon, Serve, ask, connect_tcp, is_served
from support.processes import descriptors
from support.tcp_worker import push
from support.udp_load import UdpLoad
from support.waiting import wait_until

NARROW = 4096
"""A receive window that a few datagrams fill."""

FIN_WAIT1 = "04"  # include/net/tcp_states.h

LOAD_RATE = 1000
"""Datagrams a second of the bystander: a pause of the loop would show, and a slow machine keeps up."""


def accept_failures(daemon: Daemon) -> int:
    """Return how often accepting stood still."""
    return sum(row.get("accept_failed", 0) for row in daemon.counters().values())


def push_more(sock: socket.socket) -> None:
    """Write, without reading, until the other side takes no more for now, or has ended."""
    with suppress(ConnectionResetError, BrokenPipeError):
        while push(sock):
            pass


# -- those that take time


def test_twenty_peers_that_never_read_are_closed_on_time(
    serve: Serve, udp_load: Callable[..., UdpLoad], stack: ExitStack
) -> None:
    """Zero windows, all at once: each ends as stalled, each descriptor comes back, and no datagram is lost."""
    daemon, port = serve(workers=1, tcp={"stall_timeout_seconds": 1})
    (worker,) = daemon.workers()
    before = descriptors(worker)
    load = udp_load(port, rate=LOAD_RATE)
    socks = [stack.enter_context(connect_tcp(port, window=NARROW)) for _ in range(20)]

    def all_closed() -> bool:
        for sock in socks:
            push_more(sock)
        return daemon.closes() == {"stalled": 20}

    wait_until(all_closed, "all twenty were closed as stalled")
    report = load.finish()
    assert (report.lost, report.repeated, report.wrong) == ([], 0, 0)
    wait_until(lambda: descriptors(worker) == before, "each descriptor came back")
    assert daemon.workers() == [worker]


def test_a_peer_that_reads_a_byte_at_a_time_is_closed_on_time(
    serve: Serve, udp_load: Callable[..., UdpLoad], stack: ExitStack
) -> None:
    """Single bytes open no window: no byte due to such a peer moves, so it has stalled."""
    daemon, port = serve(workers=1, tcp={"stall_timeout_seconds": 1})
    load = udp_load(port, rate=LOAD_RATE)
    sock = stack.enter_context(connect_tcp(port))
    read = 0

    def closed() -> bool:
        nonlocal read
        push_more(sock)
        read += len(sock.recv(1))
        time.sleep(0.2)  # the slowness itself
        return daemon.closes() == {"stalled": 1}

    wait_until(closed, "the peer was closed as stalled")
    report = load.finish()
    assert (report.lost, report.repeated, report.wrong) == ([], 0, 0)
    assert read < 100


def unsent(port: int) -> int:
    """Return how many connections the kernel still keeps for a port that has closed them: bytes are unsent."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == FIN_WAIT1 for row in rows)


@pytest.mark.parametrize("octets", [60_000, 6_000_000])
def test_a_peer_that_was_let_go_leaves_nothing_in_the_kernel(serve: Serve, stack: ExitStack, octets: int) -> None:
    """What it did not take is given up too: else each such peer would hold memory of ours beyond every limit."""
    daemon, port = serve(workers=1, tcp={"stall_timeout_seconds": 1, "idle_timeout_seconds": 1})
    sock = stack.enter_context(connect_tcp(port, window=NARROW))
    sock.settimeout(0.2)
    with suppress(TimeoutError):
        sock.sendall(bytes(octets))
    wait_until(daemon.closes, "the peer was let go")
    wait_until(lambda: not unsent(port), "the kernel had let go of it too")


# -- those that take descriptors

FEW_DESCRIPTORS = 32


@pytest.mark.parametrize("trial", ["release", "death", "reload"])
def test_under_a_small_limit_connections_wait_and_all_else_goes_on(serve: Serve, stack: ExitStack, trial: str) -> None:
    """With 32 descriptors from the start: the rest waits, UDP, reload and recovery work, and the rest is served."""
    prefix = ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}")
    daemon, port = serve(workers=1, prefix=prefix, drain_timeout_seconds=1)
    (entry,) = daemon.log("descriptors_capped")
    assert (entry["level"], entry["limit"]) == ("warning", FEW_DESCRIPTORS)
    assert entry["message"].startswith(
        f"this config can need {entry['wanted']:,} file descriptors and the limit is 32: raise LimitNOFILE= or lower "
    )
    (worker,) = daemon.workers()
    before = descriptors(worker)
    room = FEW_DESCRIPTORS - before
    first = [stack.enter_context(connect_tcp(port)) for _ in range(room)]
    assert all(is_served(sock) for sock in first)
    second = [stack.enter_context(connect_tcp(port)) for _ in range(room)]
    wait_until(lambda: accept_failures(daemon), "descriptors had run out")
    assert ask(port) == b"hi"
    assert descriptors(worker) == FEW_DESCRIPTORS
    if trial == "death":
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: daemon.workers() not in ([], [worker]), "the worker was replaced")
    elif trial == "reload":
        assert daemon.reload()["event"] == "reloaded"
    for sock in first if trial == "release" else ():
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(16) == b""
    assert all(is_served(sock) for sock in second)
    assert ask(port) == b"hi"
    for sock in second:
        sock.close()
    wait_until(lambda: descriptors(daemon.workers()[0]) == before, "each descriptor came back")
    assert daemon.stop() == 0


# -- those that may not


def test_a_source_that_is_denied_is_closed_without_a_byte(serve: Serve, stack: ExitStack) -> None:
    """Deny wins over allow, what neither names is refused, and those who are allowed are served beside them."""
    daemon, port = serve(workers=1, access={"allow": ["127.0.0.0/30"], "deny": ["127.0.0.2"]})
    allowed = [stack.enter_context(connect_tcp(port, source)) for source in ("127.0.0.1", "127.0.0.3")]
    assert all(is_served(sock) for sock in allowed)
    (worker,) = daemon.workers()
    before = descriptors(worker)
    for source in ("127.0.0.2", "127.0.0.4", "127.0.0.2", "127.255.255.254"):
        assert stack.enter_context(connect_tcp(port, source)).recv(16) == b""  # FIN at once, and no reset
        assert not is_served(stack.enter_context(connect_tcp(port, source)))
        assert all(is_served(sock) for sock in allowed)
    wait_until(lambda: descriptors(worker) == before, "each descriptor came back")
    daemon.wait_for_closes(access=8)
