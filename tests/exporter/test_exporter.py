"""The exporter of a running echod: its numbers are the workers' own, summed up over all there ever were."""

import os
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from support.daemon import StartDaemon, ask, connect_udp
from support.loopback import needs_root
from support.ports import free_port
from support.scraping import (
    answers,
    both,
    exporters,
    fetch,
    metered,
    needs_prometheus,
    scrape,
    serve_metered,
    status,
    total,
    value,
    wait_for_a_new_one,
)
from support.waiting import wait_until

from echod.exporter.channel import ExporterInputs, Traffic
from echod.exporter.exporter import Exporter
from echod.net.listener import Listener, Protocol
from echod.stats.counters import CounterPage

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def test_the_numbers_are_the_counters(echod: StartDaemon) -> None:
    """What was received, answered and refused is reported as USR1 logs it, a self test apart; bytes too."""
    daemon, _, port, http = serve_metered(echod, access={"deny": ["127.0.0.2"]})
    for _ in range(30):
        assert ask(port, b"x" * 100) == b"x" * 100
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as refused:
        refused.bind(("127.0.0.2", 0))
        for _ in range(7):
            refused.sendto(b"hi", ("127.0.0.1", port))
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"hello")
        assert stream.recv(16) == b"hello"
    wait_until(lambda: daemon.counters()[f"udp://127.0.0.1:{port}"]["received"] == 37, "all were counted")
    series = scrape(http)
    rows = daemon.counters()
    udp, tcp = (rows[name] for name in both(port))
    labels = {"listener": f"udp://127.0.0.1:{port}", "family": "ipv4"}
    assert value(series, "echod_udp_datagrams_received_total", **labels) == udp["received"] == 38
    assert value(series, "echod_udp_datagrams_replied_total", **labels) == udp["replied"] == 31
    assert value(series, "echod_udp_datagrams_dropped_total", reason="access", **labels) == udp["dropped_access"] == 7
    assert value(series, "echod_udp_received_bytes_total", **labels) == udp["received_bytes"]
    assert value(series, "echod_udp_sent_bytes_total", **labels) == udp["replied_bytes"] == 3000 + 32
    assert value(series, "echod_udp_self_tests_total", **labels) == 1
    assert value(series, "echod_udp_kernel_drops_total", **labels) == 0
    ends = total(series, "echod_udp_datagrams_dropped_total") + total(series, "echod_udp_datagrams_send_failures_total")
    assert udp["received"] == udp["replied"] + ends
    labels["listener"] = f"tcp://127.0.0.1:{port}"
    assert value(series, "echod_tcp_connections_accepted_total", **labels) == tcp["accepted"] == 2
    assert value(series, "echod_tcp_received_bytes_total", **labels) == tcp["received_bytes"] == 6
    wait_until(
        lambda: value(scrape(http), "echod_tcp_connections_closed_total", reason="self_test") > 0,
        "the test's own connection was counted apart",
    )


@needs_prometheus
def test_prometheus_finds_nothing_to_improve(echod: StartDaemon) -> None:
    """`promtool check metrics`, which lints names, units and help, is silent."""
    *_, http = serve_metered(echod)
    text = fetch(http)[2]
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_both_formats_have_the_same(echod: StartDaemon) -> None:
    """By the Accept header: Prometheus' own text, or OpenMetrics with its end mark."""
    *_, http = serve_metered(echod)
    (_, plain, text), (_, open_, other) = fetch(http), fetch(http, Accept=OPENMETRICS)
    assert plain.startswith("text/plain; version=0.0.4")
    assert open_.startswith("application/openmetrics-text; version=1.0.0")
    assert other.endswith("# EOF\n")
    # What a test was sent back is counted a moment later, and that a connection is closed.
    moving = "process_|echod_self_test_duration|echod_udp_replied|echod_tcp_sent|echod_tcp_conn|echod_worker_conn|#"
    steady = rf"^(?!{moving}).*$"
    assert re.findall(steady, text, re.MULTILINE) == re.findall(steady, other.removesuffix("# EOF\n"), re.MULTILINE)


def test_no_label_names_a_peer(echod: StartDaemon) -> None:
    """However many ask, the series are the same."""
    *_, port, http = serve_metered(echod)
    before = scrape(http).keys()
    for _ in range(20):
        assert ask(port) == b"hi"
    assert scrape(http).keys() == before


def test_each_process_has_its_metrics(echod: StartDaemon) -> None:
    """Supervisor, workers and exporter, with what they take, by the names of every exporter."""
    daemon, *_, http = serve_metered(echod)
    series = scrape(http)
    processes = {"supervisor", "exporter", "worker 1", "worker 2"}
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        found = {dict(labels)["process"]: number for (each, labels), number in series.items() if each == name}
        assert found.keys() == processes
    assert all(abs(begun - time.time()) < 300 for begun in found.values())
    resident = value(series, "process_resident_memory_bytes", process="supervisor")
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    assert abs(resident - pages * os.sysconf("SC_PAGE_SIZE")) < 8 << 20


def test_a_reload_is_reported_and_counts_go_on(echod: StartDaemon) -> None:
    """A new exporter counts on from the old one's numbers, at the same port; a reload that was rejected is reported."""
    daemon, _, port, http = serve_metered(echod)
    begun = time.time()
    series = scrape(http)
    assert value(series, "echod_config_last_reload_successful") == 1
    before = exporters(daemon)
    for generation in (2, 3):
        ask(port)
        assert daemon.reload()["event"] == "reloaded"
        before = wait_for_a_new_one(daemon, before)
        wait_until(lambda: len(daemon.workers()) == 2, "the old workers had gone")
        series = scrape(http)
        tests = value(series, "echod_udp_self_tests_total")
        assert value(series, "echod_udp_datagrams_received_total") == generation - 1 + tests
        assert value(series, "echod_generation") == generation
    assert daemon.reload("nonsense")["event"] == "reload_rejected"
    wait_until(lambda: value(scrape(http), "echod_config_last_reload_successful") == 0, "the rejection was reported")
    assert value(scrape(http), "echod_config_last_reload_timestamp_seconds") >= begun
    assert exporters(daemon) == before


@needs_root
def test_kernel_drops_are_reported(echod: StartDaemon) -> None:
    """What the queue of a socket did not hold is counted, though no worker ever saw it."""
    port = free_port()
    config, http = metered(f"udp://127.0.0.1:{port}", workers=1, udp={"receive_buffer": "4 KiB"})
    daemon = echod(config)
    wait_until(lambda: answers(http), "the exporter served")
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    with connect_udp("127.0.0.1", port) as client:
        for _ in range(200):
            client.send(bytes(500))
    os.kill(worker, signal.SIGCONT)
    drops = daemon.counters()[f"udp://127.0.0.1:{port}"]["kernel_drops"]
    assert drops > 0
    wait_until(lambda: value(scrape(http), "echod_udp_kernel_drops_total") == drops, "all drops were reported")
    before = exporters(daemon)
    daemon.reload({**config, "listeners": [f"udp://127.0.0.1:{free_port()}"]})
    wait_for_a_new_one(daemon, before)
    gone = f"udp://127.0.0.1:{port}"
    assert value(scrape(http), "echod_udp_kernel_drops_total", listener=gone) == drops


def test_paths_that_are_not_there_are_not_found(echod: StartDaemon) -> None:
    """404, and the page, the status and the readiness are where they should be."""
    daemon, *_, http = serve_metered(echod)
    assert fetch(http, "/nothing")[::2] == (404, "404 Not Found\n")
    assert fetch(http, "/")[:2] == (200, "text/html; charset=utf-8")
    assert fetch(http, "/readyz")[::2] == (200, "serving\n")
    assert fetch(http, "/status.json")[1] == "application/json"
    assert status(http)["pid"] == daemon.pid


def read_all(client: socket.socket) -> bytes:
    """Return all that comes until the end, and close the connection."""
    with client:
        return b"".join(iter(partial(client.recv, 65_536), b""))


def test_whoever_waits_is_answered_by_one_count(tmp_path: Path) -> None:
    """Many ask while a test runs, and some go; those who have stayed get the same numbers, counted once for all."""
    with ExitStack() as stack:
        silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind(("127.0.0.1", 0))  # no answer: the test takes its whole second
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        door.setblocking(False)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = Listener(protocol=Protocol.UDP, address=IPv4Address("127.0.0.1"), port=silent.getsockname()[1])
        size = CounterPage.size(slots=1, listeners=1, places=0)
        counted: list[None] = []

        def traffic() -> Traffic:
            counted.append(None)
            return [], []

        inputs = ExporterInputs(
            page=CounterPage(memoryview(bytearray(size)), slots=1, listeners=[listener], places=0),
            http_sockets=[door],
            hosts=(),
            reachable=True,
            self_test=None,
            traffic=traffic,
            snapshot=b"",
            draining=False,
            channel=stack.enter_context(theirs),
            supervisor=os.getpid(),
            account=None,
        )
        clients = [
            stack.enter_context(socket.create_connection(door.getsockname())) for _ in range(32)
        ]  # as many as may be connected
        for client in clients:
            client.settimeout(15)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for client in clients[:12]:
            client.close()
        with ThreadPoolExecutor(1) as pool:

            def read() -> list[bytes]:
                with ours:  # its end is that of the loop
                    return [read_all(client) for client in clients[12:]]

            answers = pool.submit(read)
            Exporter(inputs).run()
        assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers.result())
        assert len(set(answers.result())) == len(counted) <= 3


def test_metrics_are_served_at_every_address_and_by_the_name_of_a_proxy(echod: StartDaemon) -> None:
    """`metrics.listen` may be a list, and `metrics.hosts` names what else than localhost may be asked; reloads too."""
    config, http = metered(*both(free_port()))
    config["metrics"] = {"listen": [f"http://127.0.0.1:{http}", f"http://[::1]:{http}"], "hosts": ["echo.example.com"]}
    daemon = echod(config)
    wait_until(lambda: answers(http), "the exporter served")
    for host in ("127.0.0.1", "::1"):
        assert fetch(http, "/readyz", host=host, Host="echo.example.com")[0] == 200
        assert fetch(http, "/readyz", host=host, Host="other.example.com")[0] == 421
    before = exporters(daemon)
    config["metrics"] = {"listen": f"http://[::1]:{http}", "hosts": ["other.example.com"]}
    printed = daemon.reload(config)["changed"]
    assert printed == [
        f"metrics.listen: [http://127.0.0.1:{http}, http://[::1]:{http}] -> http://[::1]:{http}",
        "metrics.hosts: [echo.example.com] -> [other.example.com]",
    ]
    wait_for_a_new_one(daemon, before)
    assert fetch(http, "/readyz", host="::1", Host="other.example.com")[0] == 200
    assert not answers(http)
