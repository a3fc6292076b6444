"""The benchmark still runs: every row is there and every reply was exact. Its timings prove nothing here."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.loopback import needs_root

REPOSITORY = Path(__file__).resolve().parents[2]

UDP = {
    *product(("clients", "bursts", "apart", "trains", "ports"), (64, 1400)),
    ("large", 60000),
}

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="the benchmark's C peers need gcc, and there is none"
)


def measured(into: Path, *arguments: str) -> dict[str, Any]:
    """Run the benchmark as briefly as it can; return what it recorded."""
    record = into / "bench.json"
    command = [sys.executable, "-m", "tests.bench", *arguments, "--quick", "--no-peers", "--json", str(record)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(record.read_text(encoding="utf-8")))


def rows(record: dict[str, Any], group: str) -> set[tuple[str, str]]:
    """Return work and server of each row of a group."""
    return {(row["work"], row["server"]) for row in record["rows"] if row["group"] == group}


def beside(works: Iterable[str], *servers: str) -> set[tuple[str, str]]:
    """Return the rows that these servers have under these works."""
    return set(product(works, servers))


def test_a_short_benchmark_has_every_row_and_no_corrupt_reply(tmp_path: Path) -> None:
    """Each kind of traffic is answered exactly by echod and the C loops; the cost of the rules is there."""
    record = measured(tmp_path, "udp", "latency", "tcp", "rules", "modes")
    works = {f"{name}-{size}" for name, size in UDP} | {"footprint"}
    servers = "udp_loop", "echod", "udp_vector", "least"
    assert rows(record, "udp") == beside(works, *servers)
    assert rows(record, "latency") == beside(("latency-idle", "latency-loaded"), *servers)
    streams = ("streams-1", "streams-50", "streams-1000", "messages-1M")
    assert rows(record, "tcp") == beside(streams, "tcp_epoll", "echod", "epoll")
    assert rows(record, "rules") == beside(("clients-64", "sources"), "bare", "echod", "limited")
    modes = ("echod", "udpecho_plus", "stamp")
    assert rows(record, "modes") == beside(("modes-clients-44", "modes-trains-44"), *modes)
    assert record["not_measured"] == []
    for row in record["rows"]:
        assert row["corrupt"] == 0
        assert row["refused"] == 0
        assert row["sent"] == row["received"] + row["lost"], row
        assert row["received"] > 0 or row["work"] == "footprint"


def test_the_clients_are_compared(tmp_path: Path) -> None:
    """A round trip by C and by `echod ping`, and its flood; every reply was exact, and every probe is accounted for."""
    record = measured(tmp_path, "ping")
    assert rows(record, "ping") == beside(("round-trip",), "udp_latency", "echod ping") | {("flood", "echod ping")}
    for row in record["rows"]:
        assert (row["corrupt"], row["sent"]) == (0, row["received"] + row["lost"])
    [flood] = [row for row in record["rows"] if row["work"] == "flood"]
    assert flood["sent"] == 50_000
    assert flood["received"] > 0  # how many are lost is the machine's matter


def test_servers_without_traffic_are_looked_at_too(tmp_path: Path) -> None:
    """What wakes up without a client is a row for each server, and one for 64 listeners."""
    record = measured(tmp_path, "idle")
    assert rows(record, "idle") == beside(("idle",), "udp_loop", "echod", "echod-64", "udp_vector", "least")


@needs_root
def test_the_kernel_answers_for_servers_with_a_network_of_their_own(tmp_path: Path) -> None:
    """From another host and from their own, under each kind of traffic, and in floods; every reply was exact."""
    record = measured(tmp_path, "veth", "lo", "floods")
    servers = "udp_loop", "echod", "kernel", "kernel-limited"
    works = {"clients-64", "bursts-64", "trains-64", "latency-idle", "latency-loaded"}
    assert rows(record, "veth") == beside(works, *servers)
    assert rows(record, "lo") == beside(works | {"large-60000", "sources"}, *servers)
    assert rows(record, "floods") == beside(("flood-none", "flood-refused", "flood-admitted"), *servers)
    assert record["not_measured"] == []
    for row in record["rows"]:
        assert (row["corrupt"], row["sent"]) == (0, row["received"] + row["lost"]), row


@needs_root
def test_kills_and_reloads_of_the_accelerator_are_counted_beside_what_is_lost() -> None:
    """Each of them under load, and every reply was exact. How many are late is the machine's matter."""
    command = [sys.executable, "-m", "tests.bench.disturbed", "--kills", "1", "--reloads", "2"]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240)
    lines = finished.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1 x kill -9", "2 x reload"], finished.stderr
    for line in lines:
        assert re.search(r": [1-9][\d,]* sent, .* 0 corrupt$", line), line
