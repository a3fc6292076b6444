"""A running echod as Prometheus sees it: pages and numbers over HTTP.

Owns no state: each call asks anew, on a connection of its own.
"""

import http.client
import json
import shutil
from contextlib import suppress
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import Daemon, StartDaemon, children
from support.ports import free_port
from support.waiting import wait_until

CHROMIUM: Final = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
CHROMIUM_QUIET: Final = ("--disable-background-networking", "--disable-component-update", "--disable-sync")

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None, reason="prometheus is not installed"
)
needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def metered(*listeners: str, **more: Any) -> tuple[dict[str, Any], int]:  # noqa: ANN401 - what YAML can hold
    """Make a config of these listeners that serves metrics; return it with the port of the metrics."""
    port = free_port()
    metrics = {"listen": f"http://127.0.0.1:{port}"}
    return {"listeners": list(listeners), "workers": 2, "metrics": metrics, **more}, port


def both(port: int) -> tuple[str, str]:
    """Return a UDP and a TCP listener on one port of 127.0.0.1."""
    return f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"


def serve_metered(echod: StartDaemon, **more: Any) -> tuple[Daemon, dict[str, Any], int, int]:  # noqa: ANN401
    """Start a daemon with both protocols on one port, and metrics; return it with its config, port and HTTP port."""
    port = free_port()
    config, http = metered(*both(port), **more)
    daemon = echod(config)
    wait_until(lambda: answers(http), "the exporter served")
    return daemon, config, port, http


def fetch(port: int, path: str = "/metrics", *, host: str = "127.0.0.1", **headers: str) -> tuple[int, str, str]:
    """Return the status, content type and body of one page."""
    connection = http.client.HTTPConnection(host, port, timeout=15)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


def answers(port: int, path: str = "/readyz", status: int = 200) -> bool:
    """Return whether a page is served just now, with that status; for `wait_until`."""
    with suppress(OSError, http.client.HTTPException):
        return fetch(port, path)[0] == status
    return False


def parse(text: str) -> Series:
    """Return every number of a page of metrics by name and labels."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def scrape(port: int) -> Series:
    """Ask for metrics."""
    status, _, text = fetch(port)
    assert status == 200
    return parse(text)


def value(series: Series, name: str, **labels: str) -> float:
    """Return the one number of that name with these labels among its own."""
    (found,) = [number for (each, own), number in series.items() if each == name and frozenset(labels.items()) <= own]
    return found


def total(series: Series, name: str, **labels: str) -> float:
    """Return the sum of all numbers of that name with these labels among their own."""
    return sum(number for (each, own), number in series.items() if each == name and frozenset(labels.items()) <= own)


def status(port: int) -> dict[str, Any]:
    """Ask for what the status page shows."""
    found = json.loads(fetch(port, "/status.json")[2])
    assert isinstance(found, dict)
    return found


def exporters(daemon: Daemon) -> list[int]:
    """Return the process ids of the exporters that live."""
    born = [entry["pid"] for entry in daemon.log("exporter_started")]
    return [pid for pid in children(daemon.pid) if pid in born]


def wait_for_a_new_one(daemon: Daemon, before: list[int]) -> list[int]:
    """Wait until those exporters have gone and there is another; return it."""
    wait_until(lambda: exporters(daemon) and not set(before) & set(exporters(daemon)), "another exporter alone")
    return exporters(daemon)
