"""A real Prometheus scrapes a real echod: what it answers is what echod counted, and what ships for it fits."""

import json
import re
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, ask
from support.man import literals, source
from support.ports import free_port
from support.scraping import answers, fetch, metered, needs_prometheus, parse
from support.waiting import wait_until

HERE = Path(__file__).parent
PACKAGING = HERE.parents[1] / "packaging"
RULES = PACKAGING / "prometheus/echod.rules.yaml"
DASHBOARD = PACKAGING / "grafana/echod.json"

pytestmark = needs_prometheus

SCRAPE = next(each for each in literals(source("echod-metrics.7")) if each.startswith("scrape_configs:"))
"""As echod-metrics(7) has it."""

VARIABLES = {"$__rate_interval": "1m", "$__range": "1m", "$instance": ".*", "${datasource}": "prometheus"}
"""What Grafana puts in the place of a variable."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server, asked over its API."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query, which must succeed."""
        _, _, body = fetch(self.port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        answer = json.loads(body)
        assert answer["status"] == "success", f"{expression}: {body}"
        found = answer["data"]["result"]
        assert isinstance(found, list)
        return found

    def numbers(self, expression: str) -> list[float]:
        """Return the values of an instant query."""
        return [float(sample["value"][1]) for sample in self.query(expression)]


@pytest.fixture
def scraped(echod: Callable[..., Daemon], tmp_path: Path) -> Iterator[tuple[Daemon, int, Prometheus]]:
    """Start an echod, with traffic of every kind, and a Prometheus that scrapes it; give the echo port too."""
    port = free_port()
    config, http = metered(f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}", workers=1)
    daemon = echod(config)
    for _ in range(25):
        assert ask(port, b"x" * 40) == b"x" * 40
    often = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
    text = f"{often}rule_files: ['{RULES}']\n{SCRAPE}".replace("9007", str(http))
    (tmp_path / "prometheus.yml").write_text(text)
    api = free_port()
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{api}",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: answers(api, "/-/ready"), "Prometheus was ready", seconds=60)
            prometheus = Prometheus(api)
            wait_until(lambda: prometheus.numbers("count_over_time(up[1m]) > 2"), "it had scraped", seconds=60)
            yield daemon, port, prometheus
        finally:
            process.terminate()


def expressions() -> list[str]:
    """Return every query of the dashboard, as Grafana sends it."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [each["expr"] for each in board["annotations"]["list"] if "expr" in each]
    return [re.sub("|".join(map(re.escape, VARIABLES)), lambda match: VARIABLES[match[0]], each) for each in found]


def named(text: str) -> set[str]:
    """Return the names of metrics in an expression."""
    return set(re.findall(r"\b(?:echod|process)_\w+", text))


def test_a_real_prometheus_finds_the_counters_and_the_dashboard_what_it_shows(
    scraped: tuple[Daemon, int, Prometheus],
) -> None:
    """Its query equals the counters of echod; no alert is pending; every panel's query is one that it understands."""
    daemon, port, prometheus = scraped
    labels = f'{{job="echod", listener="udp://127.0.0.1:{port}", family="ipv4"}}'

    def equal() -> bool:
        """Compare, apart from self tests, of which each scrape makes one."""
        row = daemon.counters()[f"udp://127.0.0.1:{port}"]
        tests = f"echod_udp_self_tests_total{labels}"
        received = prometheus.numbers(f"echod_udp_datagrams_received_total{labels} - {tests}")
        sent = prometheus.numbers(f"echod_udp_sent_bytes_total{labels} - 32 * {tests}")
        return received == [25.0] == [row["received"] - row["self_test"]] and sent == [1000.0]

    wait_until(equal, "Prometheus knew what echod counted")
    assert prometheus.numbers('up{job="echod"}') == [1.0]
    assert prometheus.numbers("min(echod_self_test_successful)") == [1.0]
    assert prometheus.numbers("ALERTS") == []
    for expression in expressions():
        found = prometheus.numbers(expression)
        assert found or "> 0" in expression or "train_length" in expression, expression


def test_every_metric_that_is_named_is_told(echod: Callable[..., Daemon]) -> None:
    """What the dashboard and the alerts ask for stands in the exporter's output; none is asked for in vain."""
    port = free_port()
    config, http = metered(f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}")
    echod(config)
    reported = {name for name, _ in parse(fetch(http)[2])}
    asked = named(" ".join(expressions())) | named(RULES.read_text()) | named(DASHBOARD.read_text())
    assert len(asked) > 20
    assert asked - reported == set()


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its data source is a variable; ids are unique, no panel lies on another, and each shows something."""
    board = json.loads(DASHBOARD.read_text())
    assert {each["name"]: each["type"] for each in board["templating"]["list"]} == {
        "datasource": "datasource",
        "instance": "query",
    }
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["type"] == "row" or panel["targets"]
    assert "__inputs" not in board
    assert "id" not in board


def test_the_rules_are_what_prometheus_accepts_and_fire_when_they_should() -> None:
    """`promtool check rules` reports nothing, and every case of the unit tests holds."""
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(HERE / "echod.rules.test.yaml")]):
        result = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "SUCCESS" in result.stdout
        assert result.stderr == ""


def test_every_alert_has_its_unit_test() -> None:
    """An alert that is added without a case in echod.rules.test.yaml is found here."""
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    assert alerts == set(re.findall(r"alertname: (\w+)", (HERE / "echod.rules.test.yaml").read_text()))
    assert len(alerts) == 5
