"""Metrics and health of a host, asked over the wire as a Prometheus elsewhere asks, in both ways to have the port."""

from collections.abc import Iterator

import pytest
from support.scraping import Series, fetch, parse, total, value
from support.system.installation import Mode
from support.system.operating import CONFIG, Host
from support.waiting import wait_until

from echod.exporter.health import NOT_TESTED

PORT = 9007
SOCKET = "echod-metrics.socket"
LISTEN = f"[Socket]\nListenStream=\nListenStream=0.0.0.0:{PORT}\n"


@pytest.fixture
def metered(standing: Host, mode: Mode) -> Iterator[Host]:
    """Have metrics served to the outside: by the config, or by systemd's socket; afterwards they are not."""
    before = standing.read(CONFIG)
    if mode is Mode.BOUND:
        standing.configure(before.replace("listen: off", f"listen: http://0.0.0.0:{PORT}"))
    else:
        standing.drop_in(LISTEN, unit=SOCKET)
        standing.systemctl("enable", SOCKET)
        standing.systemctl("restart")
    yield standing
    if mode is Mode.BOUND:
        standing.configure(before)
    else:
        standing.systemctl("disable", "--now", SOCKET)
        standing.systemctl("restart")
        standing.run(["rm", "-r", f"/etc/systemd/system/{SOCKET}.d"])
        standing.daemon_reload()


def scrape(host: Host) -> Series:
    """Ask for metrics from the other end of the wire."""
    return parse(page(host, "/metrics"))


def page(host: Host, path: str) -> str:
    """Ask for a page from the other end of the wire; it must be there."""
    with host.client():
        status, _, body = fetch(PORT, path, host=host.address)
    assert status == 200, body
    return body


def test_a_host_is_scraped_from_outside(metered: Host, mode: Mode) -> None:
    """Replies, kernel drops and every process are reported, also in the sandbox of systemd."""

    def received() -> float:
        series = scrape(metered)
        reported = value(series, "echod_udp_datagrams_received_total", listener="udp://0.0.0.0:7")
        return reported - total(series, "echod_udp_self_tests_total", listener="udp://0.0.0.0:7")

    before = received()
    for _ in range(10):
        assert metered.ask() == b"hello"
    wait_until(lambda: received() == before + 10, "the datagrams were reported")
    series = scrape(metered)
    assert value(series, "echod_udp_kernel_drops_total", listener="udp://0.0.0.0:7") == 0
    processes = {dict(labels)["process"] for name, labels in series if name == "process_open_fds"}
    assert processes == {
        "supervisor",
        "exporter",
        *(f"worker {number + 1}" for number in range(len(metered.workers()))),
    }
    if mode is Mode.BOUND:
        assert total(series, "echod_self_test_successful") == 4
    assert page(metered, "/readyz") == "serving\n"
    assert page(metered, "/").startswith("<!doctype html>")


def test_health_is_tested_or_says_what_it_rests_on(metered: Host, mode: Mode) -> None:
    """With the host's network every listener is asked; without it echod reports it, and looks whether loops turn."""
    first, *lines = page(metered, "/healthz").splitlines()
    assert first == "ok"
    if mode is Mode.BOUND:
        names = ["udp://0.0.0.0:7", "udp://[::]:7", "tcp://0.0.0.0:7", "tcp://[::]:7"]
        assert [line.partition(": replied in ")[0] for line in lines] == names
    else:
        fresh = [f"worker {number + 1}: heartbeat fresh" for number in range(len(metered.workers()))]
        assert lines == [NOT_TESTED, *fresh]


def test_the_exporter_has_no_more_privileges_than_a_worker(metered: Host, mode: Mode) -> None:
    """Bound, CAP_NET_BIND_SERVICE is all that it could ever have; activated, nothing."""
    wait_until(lambda: page(metered, "/readyz"), "the exporter served")
    (pid,) = metered.run(["pgrep", "--full", "--parent", str(metered.supervisor()), "^echod: exporter"]).stdout.split()
    metered.assert_unprivileged(mode, int(pid))
