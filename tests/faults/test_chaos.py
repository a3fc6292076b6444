"""Everything that can happen to a daemon happens to one, at random, under load; and not one datagram is unexplained.

Workers are killed, stopped for a moment or until they are found stuck; reloads are good, bad, or come two at once;
storms overflow the queues; connections come in hundreds and are reset; descriptors run out. ECHOD_TEST_SECONDS sets how
long, by default 20 seconds.
"""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, Final

from support.daemon import Daemon, ask, children, is_balanced, title
from support.loopback import needs_root, reset_on_close, udp_client
from support.ports import free_port
from support.udp_load import UdpLoad
from support.waiting import wait_until

from echod.linux.sockets import kernel_drops

SECONDS: Final = float(os.environ.get("ECHOD_TEST_SECONDS", "20"))
STUCK_SECONDS: Final = 20.0
STORM: Final = 3000
"""Datagrams: more than the queues below hold."""
DEADLY: Final = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTRAP)
BAD: Final = ("listeners: [udp://127.0.0.1:70000]", "wrkers: 2", "{{{", "workers: 99", "listeners: []\x00")


class Storm:
    """Clients that send as fast as they can, without a look at what comes back until the end."""

    def __init__(self, port: int) -> None:
        """Open them."""
        self._clients = [udp_client("127.0.0.1") for _ in range(8)]
        for client in self._clients:
            client.setblocking(False)
        self._low = udp_client("127.0.0.1", 1000)
        self._port = port
        self.sent = self.received = self.refused = 0

    def blow(self) -> None:
        """Send a storm."""
        for number in range(STORM):
            self._clients[number % 8].sendto(b"%d" % self.sent, ("127.0.0.1", self._port))
            self.sent += 1
        self.take()

    def break_a_rule(self) -> None:
        """Send what is refused: from a low port."""
        self._low.sendto(b"%d" % self.sent, ("127.0.0.1", self._port))
        self.sent += 1
        self.refused += 1

    def take(self) -> None:
        """Take all replies that have come."""
        for client in self._clients:
            with suppress(BlockingIOError):
                while client.recv(64):
                    self.received += 1

    def close(self) -> None:
        """Close them. No reply may have been lost in their own queues, or the account would not be echod's."""
        assert sum(map(kernel_drops, self._clients)) == 0
        for client in (*self._clients, self._low):
            client.close()


class Chaos:
    """What happens, from one seed."""

    def __init__(self, daemon: Daemon, port: int, storm: Storm, seed: int) -> None:
        """Let it happen to this daemon."""
        self._daemon = daemon
        self._port = port
        self._storm = storm
        self.random = Random(seed)  # noqa: S311 - the same in each run
        self.events = (
            *(self.kill_a_worker, self.stop_a_worker, self.reload, self.reload, self.reload_badly, self.reload_twice),
            *(self.storm, self.storm_a_halt, self.break_a_rule, self.connect, self.run_out_of_descriptors),
            *(self.kill_the_exporter, self.stop_the_supervisor),
        )

    def _worker(self) -> list[int]:
        """Choose a worker; there may be none at the moment."""
        workers = self._daemon.workers()
        return [self.random.choice(workers)] if workers else []

    def kill_a_worker(self) -> None:
        """End one, however."""
        number = self.random.choice(DEADLY)
        for worker in self._worker():
            with suppress(ProcessLookupError):
                os.kill(worker, number)

    def stop_a_worker(self) -> None:
        """Let one stand still for a moment."""
        with self.halted(*self._worker()):
            self.break_a_rule()

    def leave_a_worker_stopped(self) -> None:
        """Let one stand still until it is found stuck."""
        worker = self._daemon.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: worker not in self._daemon.workers(), "the stuck worker is gone", seconds=STUCK_SECONDS)

    def reload(self) -> None:
        """Change the workers, a limit that nobody reaches, and another listener."""
        self._daemon.write(config(self._port, self.random))
        self._daemon.signal(signal.SIGHUP)

    def reload_badly(self) -> None:
        """Reload a config with a mistake."""
        self._daemon.write(self.random.choice(BAD))
        self._daemon.signal(signal.SIGHUP)

    def reload_twice(self) -> None:
        """Reload again before the first is through."""
        self.reload()
        self.reload()

    def storm(self) -> None:
        """Send more than anybody asked for."""
        self._storm.blow()

    def storm_a_halt(self) -> None:
        """Overflow the queues of workers that stand still."""
        with self.halted(*self._daemon.workers()):
            self._storm.blow()

    def break_a_rule(self) -> None:
        """Send a datagram that is refused."""
        self._storm.break_a_rule()

    def connect(self) -> None:
        """Open connections, send, and reset them all."""
        opened = []
        for _ in range(self.random.choice([1, 30, 200])):
            with suppress(OSError):
                opened.append(socket.create_connection(("127.0.0.1", self._port), 1.0))
                opened[-1].send(b"x" * self.random.choice([1, 100_000]), socket.MSG_DONTWAIT)
        for sock in opened:
            if self.random.random() < 0.5:
                reset_on_close(sock)
            sock.close()

    def run_out_of_descriptors(self) -> None:
        """Leave the supervisor or a worker without descriptors, and ask for what needs some."""
        pid = self.random.choice([self._daemon.pid, *self._worker()])
        with suppress(ProcessLookupError):
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, before[1]))
            self.reload()
            self.connect()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    def kill_the_exporter(self) -> None:
        """End the process that serves metrics."""
        for child in children(self._daemon.pid):
            if title(child) == "echod: exporter":
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def stop_the_supervisor(self) -> None:
        """Let it stand still while its workers go on, or die."""
        with self.halted(self._daemon.pid):
            self.kill_a_worker()
            self.storm()

    @contextmanager
    def halted(self, *pids: int) -> Iterator[None]:
        """Let processes stand still."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def config(port: int, random: Random) -> dict[str, Any]:
    """Make a config that serves this port, with queues that a storm overflows."""
    other = f"udp://127.0.0.1:{port + 1 + random.randrange(3)}"
    return {
        "listeners": [f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}", other],
        "workers": random.randint(1, 3),
        "user": "root",  # so that also a root without CAP_SYS_RESOURCE may take the workers' descriptors away
        "udp": {"receive_buffer": "256 KiB"},
        "guard": {"loop_breaker": False},
        "limits": {"datagrams_per_second": random.choice(["unlimited", 10_000_000])},
        "metrics": {"listen": f"http://127.0.0.1:{port + 5}"},
        "drain_timeout_seconds": random.choice([0, 1, 10]),
    }


@needs_root
def test_not_a_datagram_is_unexplained(
    echod: Callable[..., Daemon], udp_load: Callable[..., UdpLoad], network: None
) -> None:
    """Sent = received + queue full; received = replied + refused + failed + interrupted; replied = what clients got."""
    port, random = free_port(6), Random(1)  # noqa: S311 - the same in each run
    daemon = echod(config(port, random))
    storm, load = Storm(port), udp_load(port, rate=5000)
    chaos, end = Chaos(daemon, port, storm, seed=1), time.monotonic() + SECONDS
    happened = {event.__name__: 0 for event in chaos.events}
    chaos.leave_a_worker_stopped()
    while time.monotonic() < end:
        event = random.choice(chaos.events)
        event()
        happened[event.__name__] += 1
        storm.take()
        if random.random() < 0.5:
            wait_until(daemon.workers, "a worker lives")
    chaos.reload()
    report = load.finish()
    wait_until(lambda: ask(port) == b"hi", "it still answers")
    rows = daemon.counters()
    storm.take()
    row = rows[f"udp://127.0.0.1:{port}"]
    print(report, happened, storm.sent, storm.received, row)  # noqa: T201 - pytest shows it with -s, or if it fails
    sent, got = report.sent + storm.sent + 1, report.sent - len(report.lost) + storm.received + 1
    assert sent - row["received"] - row["kernel_drops"] == 0
    assert all(is_balanced(each) for each in rows.values())
    assert row["replied"] <= got <= row["replied"] + row.get("interrupted", 0)
    assert row.get("dropped_source_port_low", 0) + row.get("dropped_truncated", 0) <= storm.refused
    assert (report.repeated, report.wrong, report.refused) == (0, 0, 0)
    assert all(happened.values()) or SECONDS < 20
    assert not daemon.log("worker_miscounted")
    storm.close()
    assert daemon.stop() == 0
    last = daemon.log("stopped")[-1]
    assert last["datagrams_received"] >= row["received"]
