"""What goes wrong does not end the service: workers killed, stopped or crash-looping; stops of every kind; idleness."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, Serve, StartDaemon, ask, children, connect_udp, title
from support.loopback import sleeps
from support.processes import cpu_ticks
from support.udp_load import UdpLoad
from support.waiting import wait_until

from echod.linux.sockopt import UDP_SEGMENT

BATCH = 64


def replaced(daemon: Daemon, worker: int) -> Callable[[], bool]:
    """Return a condition: this worker is gone and there are two again."""
    return lambda: worker not in (workers := daemon.workers()) and len(workers) == 2


def queued_bytes(port: int) -> int:
    """Return the memory of the receive queues of the UDP sockets with this port (proc_net_udp of proc(5))."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[4].partition(":")[2], 16) for row in rows if row[1].endswith(f":{port:04X}"))


def test_killing_each_worker_in_turn_loses_at_most_one_batch_each(
    serve: Serve, udp_load: Callable[..., UdpLoad]
) -> None:
    """Of 20,000 datagrams a second, a `kill -9` loses what the worker held at that moment and nothing queued."""
    daemon, port = serve(workers=2)
    load = udp_load(port)

    def row() -> dict[str, int]:
        return daemon.counters()[f"udp://127.0.0.1:{port}"]

    interrupted = 0
    for _ in range(3):
        for worker in daemon.workers():
            seen = row()["received"]
            wait_until(lambda seen=seen: row()["received"] > seen + 1000, "it was under load")
            os.kill(worker, signal.SIGKILL)
            wait_until(replaced(daemon, worker), "the killed worker was replaced")
            before, interrupted = interrupted, row().get("interrupted", 0)
            assert interrupted - before <= BATCH
    report = load.finish()
    assert (report.repeated, report.wrong, report.refused) == (0, 0, 0)
    # What was interrupted may have been sent already.
    assert len(report.lost) <= interrupted
    assert row()["received"] == report.sent
    assert row()["kernel_drops"] == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which holds a worker inside a batch, is missing")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace a process that is no child")
@pytest.mark.parametrize(
    "held",
    [
        ["recvmmsg:delay_enter=1500000:delay_exit=60000000:when=1"],
        ["recvmmsg:delay_enter=1500000:when=1", "sendmmsg:delay_enter=60000000:when=1"],
    ],
    ids=["before it counted them", "after it counted them"],
)
def test_a_worker_killed_inside_a_batch_loses_exactly_that_batch(serve: Serve, tmp_path: Path, held: list[str]) -> None:
    """With 200 datagrams queued, a worker killed in its receive or before its send loses 64; all are counted."""
    daemon, port = serve(workers=1)
    (worker,) = daemon.workers()
    command = ["strace", "-o", str(tmp_path / "trace"), "-e", "trace=recvmmsg,sendmmsg", "-p", str(worker)]
    injections = [argument for each in held for argument in ("-e", f"inject={each}")]
    with subprocess.Popen([*command, *injections], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b" attached\n" in tracer.stderr.readline()
        with connect_udp("127.0.0.1", port) as sock:
            for number in range(200):
                sock.send(number.to_bytes(2, "big"))
            queued = queued_bytes(port)
            assert queued
            wait_until(lambda: queued_bytes(port) < queued, "the worker had received its batch")
            if len(held) > 1:
                wait_until(lambda: "sendmmsg" in (tmp_path / "trace").read_text(), "and counted it")
            os.kill(worker, signal.SIGKILL)
            tracer.kill()  # else it would keep the dead worker from its parent
            answered = {int.from_bytes(sock.recv(16), "big") for _ in range(200 - BATCH)}
    assert answered == set(range(BATCH, 200))
    row = daemon.counters()[f"udp://127.0.0.1:{port}"]
    assert (row["received"], row["replied"], row["interrupted"]) == (200, 200 - BATCH, BATCH)


def test_a_stopped_worker_is_replaced_and_service_goes_on(serve: Serve, udp_load: Callable[..., UdpLoad]) -> None:
    """A worker that hangs is killed after some 5 s, and what was queued for it is answered by its successor."""
    daemon, port = serve(workers=2)
    load = udp_load(port, rate=1000)
    worker = daemon.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    stuck = daemon.wait_for("worker_stuck")
    assert (stuck["pid"], stuck["seconds"]) == (worker, 5)
    assert stuck["message"] == (
        f"worker {stuck['worker']} (process {worker}) is stuck: its heartbeat has not changed for 5 seconds; it is "
        "killed and replaced"
    )
    wait_until(replaced(daemon, worker), "the stopped worker was replaced")
    report = load.finish()
    assert len(report.lost) <= BATCH
    assert daemon.log("worker_exited")[-1]["reason"] == "killed by SIGKILL"


def test_a_killed_supervisor_takes_its_workers_with_it(echod: StartDaemon, serve: Serve) -> None:
    """After SIGKILL no process is left, and the next echod finds the ports free."""
    daemon, port = serve(workers=2)
    workers = daemon.workers()
    assert len(workers) == 2
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    wait_until(lambda: not any(title(worker) for worker in workers), "the workers were gone")
    echod(daemon.config_path.read_text())
    assert ask(port) == b"hi"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean(serve: Serve, number: signal.Signals) -> None:
    """SIGTERM and SIGINT drain, log the totals, leave no process and exit 0."""
    daemon, port = serve(workers=2)
    workers = daemon.workers()
    assert ask(port) == b"hi"
    daemon.signal(number)
    assert daemon.wait() == 0
    assert [entry["event"] for entry in daemon.log()[-4:]] == ["draining", "worker_exited", "worker_exited", "stopped"]
    assert daemon.log("stopped")[0]["datagrams_replied"] == 1
    assert not any(title(worker) for worker in workers)


def test_a_stop_while_starting_is_clean_too(serve: Serve) -> None:
    """SIGTERM that comes before any worker is ready exits 0, without an error."""
    daemon, _ = serve(workers=8, ready=False)
    daemon.wait_for("worker_started")
    assert daemon.stop() == 0
    assert not [entry for entry in daemon.log() if entry["level"] in ("warning", "error")]


def test_a_second_sigterm_ends_at_once(serve: Serve) -> None:
    """A connection that holds up the drain for 60 s does not hold up the second SIGTERM."""
    daemon, port = serve(workers=2, drain_timeout_seconds=60)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(64 << 20))  # never read, so the echo stands still with bytes due to us
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining")
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(2.5)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


def test_an_idle_echod_wakes_at_most_once_a_second(serve: Serve) -> None:
    """In five seconds without traffic no process wakes more than seven times, or spins; nor is the status written."""
    daemon, port = serve(workers=2)
    written = daemon.status()["at"]
    pids = [daemon.pid, *daemon.workers()]
    begin, before, ticks = time.monotonic(), [sleeps(pid) for pid in pids], [cpu_ticks(pid) for pid in pids]
    time.sleep(5)  # the measured interval itself, at least
    woken = [sleeps(pid) - count for pid, count in zip(pids, before, strict=True)]
    assert max(woken) <= 2 + time.monotonic() - begin, woken
    assert max(cpu_ticks(pid) - before for pid, before in zip(pids, ticks, strict=True)) < 50  # of the 500 there were
    again = daemon.status()["at"]
    assert again == written or again - written > 4.9
    assert ask(port) == b"hi"


@pytest.mark.parametrize("datagrams", [1, 20])
def test_a_queue_that_overflows_is_logged(serve: Serve, datagrams: int) -> None:
    """While its worker stands still, the kernel drops what the queue does not hold: one entry has their number.

    The kernel counts socket buffers, and a train of 20 datagrams is one: so the entry has the words "at least".
    """
    daemon, port = serve(workers=1, udp={"receive_buffer": "4 KiB"})
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    with connect_udp("127.0.0.1", port) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        for _ in range(100):
            sock.send(b"x" * 1000 * datagrams)
    os.kill(worker, signal.SIGCONT)
    entry = daemon.wait_for("queue_full")
    row = daemon.counters()[f"udp://127.0.0.1:{port}"]
    dropped = row["kernel_drops"]
    assert 100 - row["received"] // datagrams == entry["dropped"] == dropped > 0
    assert entry["level"] == "warning"
    start = f"the kernel dropped at least {dropped} datagrams at udp://127.0.0.1:{port} before echod received them"
    assert entry["message"].startswith(f"{start} (a train counts as one)")


def test_children_of_somebody_else_leave_no_zombie(serve: Serve) -> None:
    """A process that echod inherits, from its launcher or as the first process of a container, is reaped at its end."""
    daemon, port = serve(prefix=["sh", "-c", 'sleep 600 & exec "$@"', "sh"])
    sleeper = next(pid for pid in children(daemon.pid) if title(pid).startswith("sleep"))
    os.kill(sleeper, signal.SIGKILL)
    wait_until(lambda: sleeper not in children(daemon.pid), "it was reaped")
    assert ask(port) == b"hi"
    assert daemon.stop() == 0
