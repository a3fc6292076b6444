"""The life of an exporter: started, replaced, moved and stopped, without an effect on the echo service."""

import os
import re
import resource
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import StartDaemon, ask, children, title
from support.loopback import as_nobody, needs_root, no_descriptor_left, sleeps
from support.ports import free_port, is_free
from support.scraping import (
    answers,
    both,
    exporters,
    fetch,
    metered,
    scrape,
    serve_metered,
    value,
    wait_for_a_new_one,
)
from support.waiting import wait_until

from echod.config.schema import Config
from echod.config.socket_unit import units_of
from echod.linux.poll import Poll
from echod.linux.sockets import Buffers
from echod.net.listener import parse_endpoint
from echod.stats.totals import Totals
from echod.supervisor.exporter import CHANNEL_BYTES, RESEND_SECONDS, STUCK_SECONDS, Exporters
from echod.supervisor.generation import Generation
from echod.supervisor.listening import ListeningSockets
from echod.supervisor.observer import Observer
from echod.supervisor.refusal_log import RefusalLog
from echod.supervisor.timers import Timers

NET_BIND_SERVICE = 1 << 10


def test_no_scrape_fails_over_twenty_reloads(echod: StartDaemon) -> None:
    """Who asks while exporters are replaced is answered, by the old one or the new."""
    daemon, _, _, http = serve_metered(echod)
    for number in range(1, 21):
        daemon.signal(signal.SIGHUP)
        assert fetch(http, "/status.json")[0] == 200
        daemon.wait_for("reloaded", number)
    wait_until(lambda: len(exporters(daemon)) == 1, "one exporter was left")


def test_a_listener_that_goes_is_free_at_once(echod: StartDaemon) -> None:
    """The exporter keeps no socket open that a reload has closed, however slow or stuck it is."""
    other = free_port()
    daemon, config, port, http = serve_metered(echod)
    with socket.create_connection(("127.0.0.1", http)):  # sends nothing, so the old exporter waits for it
        (old,) = exporters(daemon)
        wait_until(lambda: fetch(http, "/readyz")[0] == 200, "the silent one was accepted")
        assert daemon.reload({**config, "listeners": list(both(other))})["event"] == "reloaded"
        wait_until(lambda: is_free(port), "another process could have the port")
        assert old in exporters(daemon)
    wait_for_a_new_one(daemon, [old])
    os.kill(exporters(daemon)[0], signal.SIGSTOP)
    for listeners in (both(port), both(other)):
        assert daemon.reload({**config, "listeners": list(listeners)})["event"] == "reloaded"
    wait_until(lambda: answers(http), "the exporter served")


def test_a_killed_exporter_comes_back_and_the_echo_never_notices(echod: StartDaemon) -> None:
    """After any signal there is another, with all that was counted before; no worker is a new one."""
    daemon, _, port, http = serve_metered(echod)
    workers = daemon.workers()
    ends = (
        (signal.SIGKILL, "killed by SIGKILL"),
        (signal.SIGQUIT, "killed by SIGQUIT"),
        (signal.SIGSEGV, "killed by SIGSEGV"),
    )
    for number, (deadly, how) in enumerate(ends, 1):
        assert ask(port) == b"hi"
        (exporter,) = exporters(daemon)
        os.kill(exporter, deadly)
        assert daemon.wait_for("exporter_exited", number)["reason"] == how
        wait_for_a_new_one(daemon, [exporter])
        series = scrape(http)
        tests = value(series, "echod_udp_self_tests_total")
        assert value(series, "echod_udp_datagrams_received_total") == number + tests
    assert daemon.workers() == workers


def test_a_stuck_exporter_is_replaced(echod: StartDaemon) -> None:
    """One that takes no snapshot any more is killed; meanwhile the supervisor reloads and the echo answers."""
    daemon, _, port, http = serve_metered(echod)
    (stuck,) = exporters(daemon)
    os.kill(stuck, signal.SIGSTOP)
    daemon.write("nonsense")

    def killed() -> bool:
        daemon.reload()
        return ask(port) == b"hi" and bool(daemon.log("exporter_stuck"))

    wait_until(killed, "the stuck exporter was killed")
    (entry,) = daemon.log("exporter_stuck")
    assert entry["message"] == (
        f"the exporter (process {stuck}) is stuck: it has not read its messages for {entry['seconds']} seconds; it is "
        "killed and replaced"
    )
    assert entry["seconds"] >= STUCK_SECONDS
    wait_for_a_new_one(daemon, [stuck])
    assert answers(http)


def test_nobody_else_has_prometheus_client_in_memory(echod: StartDaemon) -> None:
    """It is imported once for each exporter: so no process that they were forked from has it."""
    config, http = metered(*both(free_port()))
    daemon = echod(config, variables={"PYTHONPROFILEIMPORTTIME": "1"})
    wait_until(lambda: answers(http), "the exporter served")
    os.kill(exporters(daemon)[0], signal.SIGKILL)
    daemon.wait_for("exporter_started", 2)
    wait_until(lambda: answers(http), "the second exporter served")
    for module in ("prometheus_client", "http.server", "echod.exporter.exporter"):
        assert len(re.findall(rf"^import time:.*\| +{module}$", daemon.stderr, re.MULTILINE)) == 2


def test_it_goes_with_its_supervisor(echod: StartDaemon) -> None:
    """Killed or stopped, echod leaves no exporter, and the port is free at once."""
    daemon, config, _, http = serve_metered(echod)
    (exporter,) = exporters(daemon)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    wait_until(lambda: not Path(f"/proc/{exporter}/stat").exists() or not exporters(daemon), "the exporter was gone")
    again = echod(config)
    assert answers(http)
    assert again.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        fetch(http)


def test_the_metrics_port_moves_and_goes_with_a_reload(echod: StartDaemon) -> None:
    """Taken by another, it rejects the whole reload; free, it is served there and no more here; off is nowhere."""
    other = free_port()
    daemon, config, port, http = serve_metered(echod)
    moved = {**config, "metrics": {"listen": f"http://127.0.0.1:{other}"}}
    with socket.create_server(("127.0.0.1", other)):
        assert "metrics.listen" in daemon.reload(moved)["message"]
        assert answers(http)
    for host in ("127.0.0.1", "0.0.0.0", "127.0.0.1"):  # noqa: S104 - as text
        there = {**config, "metrics": {"listen": f"http://{host}:{other}"}}
        assert daemon.reload(there)["event"] == "reloaded"
        wait_until(lambda: answers(other), "metrics at the new place")
        wait_until(lambda: not answers(http), "none at the old one")
    assert daemon.reload({**config, "metrics": {"listen": "off"}})["event"] == "reloaded"
    wait_until(lambda: exporters(daemon) == [], "the exporter had gone")
    with pytest.raises(ConnectionRefusedError):
        fetch(other)
    assert ask(port) == b"hi"


def test_a_metrics_port_that_goes_is_free_at_once(echod: StartDaemon) -> None:
    """Though an exporter that is slow or stuck has not closed it yet, a reload may have it back, and it is served."""
    daemon, config, _, http = serve_metered(echod)
    os.kill(exporters(daemon)[0], signal.SIGSTOP)
    for port in (free_port(), http):
        there = {**config, "metrics": {"listen": f"http://127.0.0.1:{port}"}}
        assert daemon.reload(there)["event"] == "reloaded"
    wait_until(lambda: answers(http), "the new exporter served")


def test_it_is_not_ready_while_echod_stops(echod: StartDaemon) -> None:
    """While connections finish, /readyz is 503 and metrics go on; then the exporter goes too."""
    daemon, _, port, http = serve_metered(echod, drain_timeout_seconds=60)
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(0.5)
        with pytest.raises(TimeoutError):
            stream.sendall(bytes(64 << 20))  # never read, so that it holds up the drain
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: answers(http, status=503), "it was not ready any more")
        assert fetch(http, "/readyz")[2] == "stopping\n"
        before = exporters(daemon)
        os.kill(before[0], signal.SIGKILL)
        wait_for_a_new_one(daemon, before)
        wait_until(lambda: answers(http, status=503), "the next one was not ready either")
        assert value(scrape(http), "echod_tcp_connections") == 1
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


class ExportersByHand:
    """Exporters of this process, with timers whose time the test sets."""

    def __init__(self) -> None:
        """Hold an HTTP socket, and have no exporter yet."""
        self.port = free_port()
        self.timers, self.listening = Timers(), ListeningSockets(units_of(""))
        buffers, metrics = Buffers(receive=65_536, send=65_536), parse_endpoint(f"http://127.0.0.1:{self.port}")
        self.listening.commit(self.listening.acquire((), workers=1, buffers=buffers, metrics=[metrics]))
        self.generation = Generation(
            1,
            Config(),
            {},
            workers=1,
            poll=Poll(),
            timers=self.timers,
            observer=Observer(self.listening, Totals(), RefusalLog(), Counter(), 0.0),
            restarts=Counter(),
            self_test=None,
            account=None,
            keys={},
            began=0,
        )
        self.exporters = Exporters(self.timers, self.listening, Totals(), lambda: [self.generation.page])

    @property
    def process(self) -> int:
        """Return the process id of the exporter."""
        (exporter,) = [child for child in children(os.getpid()) if title(child) == "echod: exporter"]
        return exporter

    def pass_time(self, now: float) -> None:
        """Do what is due."""
        for action in self.timers.due(now):
            action(now)


@needs_root
@pytest.mark.parametrize("missing", [resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE])
def test_a_host_without_a_process_to_spare_is_asked_again_later(missing: int) -> None:
    """Where none can be forked the supervisor goes on, and tries after 0.1 s, then 0.2 s, until there is one."""

    def hopeless() -> list[float | None]:
        by_hand = ExportersByHand()
        resource.setrlimit(missing, (0, 0))
        by_hand.exporters.renew(by_hand.generation, 0.0)
        by_hand.exporters.send(b"{}")
        waits = [by_hand.timers.seconds_left(0.0)]
        by_hand.pass_time(0.1)
        by_hand.exporters.kill()
        return [*waits, by_hand.timers.seconds_left(0.1)]

    assert as_nobody(hopeless) == pytest.approx([0.1, 0.2])


@pytest.fixture
def by_hand() -> Iterator[ExportersByHand]:
    """Have an exporter that serves, and end it."""
    by_hand = ExportersByHand()
    by_hand.exporters.renew(by_hand.generation, 0.0)
    try:
        wait_until(lambda: answers(by_hand.port), "the exporter served")
        yield by_hand
    finally:
        by_hand.exporters.kill()
        for sock in by_hand.listening.http_sockets:
            sock.close()


def test_an_exporter_with_a_full_channel_is_informed_of_the_stop_later(by_hand: ExportersByHand) -> None:
    """With its channel full when echod begins to stop, the message is sent each second until there is room."""
    os.kill(by_hand.process, signal.SIGSTOP)
    for _ in range(CHANNEL_BYTES):
        by_hand.exporters.send(b"{}")
    by_hand.exporters.drain(0.0)
    assert by_hand.timers.seconds_left(0.0) == RESEND_SECONDS
    by_hand.pass_time(RESEND_SECONDS)
    assert by_hand.timers.seconds_left(RESEND_SECONDS) == RESEND_SECONDS
    os.kill(by_hand.process, signal.SIGCONT)
    wait_until(lambda: answers(by_hand.port), "it had read what there was")
    by_hand.pass_time(2 * RESEND_SECONDS)
    wait_until(lambda: answers(by_hand.port, status=503), "it was not ready any more")
    assert by_hand.timers.seconds_left(2 * RESEND_SECONDS) is None


def test_a_stuck_exporter_is_found_by_few_snapshots(by_hand: ExportersByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    """An echod at rest writes one in five seconds: a channel that holds hundreds would hide it for half an hour."""
    monkeypatch.setattr("echod.supervisor.exporter.STUCK_SECONDS", 0.0)
    exporter = by_hand.process
    os.kill(exporter, signal.SIGSTOP)
    for _ in range(12):
        by_hand.exporters.send(b"{}")
    wait_until(lambda: not title(exporter), "it was killed")


def test_a_snapshot_of_any_length_is_received(by_hand: ExportersByHand) -> None:
    """That of very many busy listeners is longer than any message that net.core.wmem_max lets through."""
    snapshot = os.urandom(8 << 20).hex()
    by_hand.exporters.send(snapshot.encode())
    wait_until(lambda: fetch(by_hand.port, "/status.json")[2] == snapshot, "it had received it")


@needs_root
def test_without_a_descriptor_for_a_snapshot_the_next_one_is_received(by_hand: ExportersByHand) -> None:
    """Neither the supervisor nor the exporter falls where one of them may open no more."""
    exporter = by_hand.process
    with no_descriptor_left():
        by_hand.exporters.send(b"[1]")
    soft, hard = resource.prlimit(exporter, resource.RLIMIT_NOFILE)
    resource.prlimit(exporter, resource.RLIMIT_NOFILE, (0, hard))
    slept = sleeps(exporter)
    by_hand.exporters.send(b"[2]")
    wait_until(lambda: sleeps(exporter) > slept, "it had received the message")
    resource.prlimit(exporter, resource.RLIMIT_NOFILE, (soft, hard))
    by_hand.exporters.send(b"[3]")
    wait_until(lambda: fetch(by_hand.port, "/status.json")[2] == "[3]", "it had received it")
