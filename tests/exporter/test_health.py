"""/healthz: what echod reports of itself is what a client would find, and asking costs at most one test a second."""

import mmap
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.daemon import StartDaemon, children
from support.loopback import listener, namespace, needs_root, udp_server
from support.ports import free_port
from support.scraping import answers, fetch, metered, scrape, serve_metered, value
from support.waiting import wait_until

from echod.exporter import health
from echod.exporter.health import NOT_TESTED, Health, HealthReport
from echod.linux.netlink import in_our_network
from echod.linux.poll import Poll
from echod.stats.counters import CounterPage, SlotField


def test_all_is_well_where_every_listener_answers(echod: StartDaemon) -> None:
    """200, with how long each took; wildcards and both families are asked too."""
    port = free_port()
    names = [f"{scheme}://{host}:{port}" for scheme in ("udp", "tcp") for host in ("0.0.0.0", "[::]")]  # noqa: S104
    config, http = metered(*names)
    echod(config)
    status, _, body = fetch(http, "/healthz")
    first, *lines = body.splitlines()
    assert (status, first) == (200, "ok")
    assert [line.partition(": replied in ")[0] for line in lines] == names
    assert all(line.endswith(" ms") for line in lines)
    successful = [number for (name, _), number in scrape(http).items() if name == "echod_self_test_successful"]
    assert successful == [1.0] * 4


def test_the_listener_that_does_not_answer_is_named(echod: StartDaemon) -> None:
    """With every TCP connection taken, 503 names the TCP listener and why, and the UDP listener answers."""
    *_, port, http = serve_metered(echod, tcp={"max_connections": 1, "max_connections_per_source": 1})
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"x")
        assert stream.recv(1) == b"x"
        status, _, body = fetch(http, "/healthz")
        assert status == 503
        assert f"\ntcp://127.0.0.1:{port}: closed the connection at once\n" in body
        assert f"\nudp://127.0.0.1:{port}: replied in " in body
        series = scrape(http)
        assert value(series, "echod_self_test_successful", listener=f"tcp://127.0.0.1:{port}") == 0
        assert value(series, "echod_self_test_successful", listener=f"udp://127.0.0.1:{port}") == 1
    wait_until(lambda: answers(http, "/healthz"), "all was well again")


def test_workers_that_hang_are_found_within_a_second_and_hold_up_nobody(echod: StartDaemon) -> None:
    """With all workers stopped /healthz is 503, other pages are served meanwhile, and afterwards all is well."""
    daemon, _, port, http = serve_metered(echod)
    workers = daemon.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(fetch, http, "/healthz")
        assert fetch(http, "/readyz")[0] == 200
        status, _, body = asked.result()
    assert (status, body.splitlines()[0]) == (503, "failing")
    assert f"udp://127.0.0.1:{port}: no reply within 1 s" in body
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: answers(http, "/healthz"), "all was well again")
    assert daemon.workers() == workers


def test_a_hundred_who_ask_cost_one_test(echod: StartDaemon) -> None:
    """All are answered by the same test, or by the one after it."""
    *_, http = serve_metered(echod)
    with ThreadPoolExecutor(20) as pool:
        assert {status for status, _, _ in pool.map(lambda _: fetch(http, "/healthz"), range(100))} == {200}
    assert value(scrape(http), "echod_udp_self_tests_total") <= 3


class Asked:
    """Health as the exporter has it, with a loop that the test turns."""

    def __init__(self, sock: socket.socket, workers: int) -> None:
        """Have one listener, on that socket, and so many workers."""
        self.poll = Poll()
        shared = memoryview(mmap.mmap(-1, CounterPage.size(slots=workers, listeners=1, places=0)))
        self.page = CounterPage(shared, slots=workers, listeners=[listener(*sock.getsockname()[:2])], places=0)
        self.health = Health(self.page, mark=None, reachable=in_our_network([sock]), poll=self.poll)

    def ask(self, now: float, *, turning: int) -> HealthReport:
        """Return the report, while the loops of the first so many workers turn."""
        reported: list[HealthReport] = []

        def over() -> bool:
            for slot in range(turning):
                self.page.header(slot)[SlotField.HEARTBEAT] += 1
            for on_ready in self.poll.wait(0.005):
                on_ready(now)
            return bool(reported)

        self.health.request(now, reported.append)
        wait_until(over, "the report")
        return reported[0]


@needs_root
def test_from_another_network_it_looks_at_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sockets are of a network that this process is not in, every loop must turn, and the report has that."""
    monkeypatch.setattr(health, "HEARTBEAT_SECONDS", 0.2)
    with namespace():
        sock = udp_server()
    with sock:
        asked = Asked(sock, 2)
        report = asked.ask(0.0, turning=2)
        assert report.healthy
        assert report.lines == (NOT_TESTED, "worker 1: heartbeat fresh", "worker 2: heartbeat fresh")
        report = asked.ask(5.0, turning=1)
        assert (report.healthy, report.lines[-1]) == (False, "worker 2: heartbeat old")


def test_an_outcome_serves_for_a_second() -> None:
    """A request within a second gets the same result, and no process is forked; a later one is tested anew."""
    with udp_server() as sock:
        asked = Asked(sock, 1)
        first = asked.ask(0.0, turning=0)
        assert first.lines[0].endswith("no reply within 1 s")
        reported: list[HealthReport] = []
        asked.health.request(0.999, reported.append)
        assert reported == [first]
        assert asked.health.next_deadline() is None
        asked.health.request(1.0, reported.append)
        assert asked.health.next_deadline() is not None
        asked.health.on_deadline(1e9)
        assert len(reported) == 2


def test_a_test_process_that_does_not_finish_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed by its deadline or by anybody, it leaves a report of that, and no process."""
    monkeypatch.setattr(health, "run_self_test", lambda _listeners, _mark: signal.pause())
    with udp_server() as sock:
        asked = Asked(sock, 1)
        reported: list[HealthReport] = []
        before = set(children(os.getpid()))
        asked.health.request(0.0, reported.append)
        (test_process,) = set(children(os.getpid())) - before
        asked.health.on_deadline(health.TIMEOUT_SECONDS - 0.001)
        assert reported == []
        asked.health.on_deadline(health.TIMEOUT_SECONDS)
    assert [(one.healthy, one.lines) for one in reported] == [(False, ("the test did not finish",))]
    with pytest.raises(ChildProcessError):
        os.waitpid(test_process, os.WNOHANG)
