"""One word for one thing, wherever a person reads: replied, dropped, send failed, queue full, heartbeat age, "/s"."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.snapshots import BUSY, KERNEL, make_snapshot

from echod.exporter.metrics import of_daemon, of_kernel, of_self_tests, of_tcp, of_udp
from echod.status.overview import overview, text

ROOT = Path(__file__).parent.parent

OTHER_WORDS = re.compile(
    r"\banswer|kernel drop|drop\w* by the kernel|st(?:oo|an)ds? still|datagrams a second|loop has not turned",
    re.IGNORECASE,
)
"""What replied, queue full, heartbeat age and "/s" were called in one place or another."""

SNAPSHOT = make_snapshot(activity=BUSY, kernel=KERNEL)


def status() -> str:
    """Return what `echod status` shows."""
    return text(overview(SNAPSHOT, uptime_seconds=1, when=str))


def page() -> str:
    """Return the labels of the status page: what stands between tags, and the strings of its script."""
    source = (ROOT / "echod/exporter/status_page.html").read_text(encoding="utf-8")
    shown, _, script = source.partition("<script>")
    return "\n".join([*re.findall(r">([^<>]+)<", shown), *re.findall(r'"([^"\n]*)"', script)])


def dashboard() -> str:
    """Return titles, descriptions and legends of the dashboard."""

    def walk(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            for name, each in value.items():
                if name in ("title", "description", "legendFormat"):
                    yield str(each)
                yield from walk(each)
        for each in value if isinstance(value, list) else ():
            yield from walk(each)

    return "\n".join(walk(json.loads((ROOT / "packaging/grafana/echod.json").read_text())))


def alerts() -> str:
    """Return summaries and descriptions of the alerts."""
    rules = (ROOT / "packaging/prometheus/echod.rules.yaml").read_text()
    return "\n".join(re.findall(r"(?:summary|description): (.*)", rules))


def helps() -> str:
    """Return the HELP line of each metric."""
    metrics = [*of_udp(BUSY.udp), *of_tcp(BUSY.tcp), *of_daemon(SNAPSHOT), *of_self_tests([], 1.0), *of_kernel(KERNEL)]
    return "\n".join(metric.help for metric in metrics)


def config() -> str:
    """Return the config that is installed."""
    return (ROOT / "config/echod.yaml").read_text()


def readme() -> str:
    """Return README without names, of keys, metrics and tests, and the log entry that has the name of a counter."""
    return re.sub(r"`[^`]*`|^counters: .*$", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def manual() -> str:
    """Return the man pages, without the name of a counter and of a metric."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "packaging/man").iterdir()))
    return pages.replace("\\-", "-").replace("kernel_drops", "")


@pytest.mark.parametrize("view", [status, page, dashboard, alerts, helps, config, readme, manual])
def test_each_view_has_the_words_of_the_others(view: Any) -> None:  # noqa: ANN401 - a function
    """No view has a word of its own for what all show."""
    reported = view()
    assert OTHER_WORDS.findall(reported) == []
    assert re.search("repl(?:y|ie)", reported)


def test_rates_and_totals_are_called_that() -> None:
    """Where one view has both, the head of a column states which it is."""
    columns = "rates and totals|socket|/s, 1 s|/s, 10 s|/s, 60 s|total in|total out".replace("|", " +")
    assert re.search(f"^{columns}$", status(), re.MULTILINE)
    assert re.search(r"^UDP listener \(totals\) ", status(), re.MULTILINE)
    labels = {"datagrams/s", "received, total", "queue full, total", "received/s over 1 / 10 / 60 s", "heartbeat age"}
    assert labels <= set(page().splitlines())
    assert {"Received/s and replied/s", "Queue full/s", "Heartbeat age"} <= set(dashboard().splitlines())
