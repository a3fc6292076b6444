"""The benchmark still runs: every row is there and every reply was exact. Its timings prove nothing here."""

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the benchmark's C peers need gcc, and there is none")
def test_a_short_benchmark_has_every_row_and_no_corrupt_reply(tmp_path: Path) -> None:
    """Each kind of traffic is answered exactly by each server; the footprint and the cost of the rules are there."""
    record = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--pairs", "1", "--seconds", "0.2", "--json", str(record)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr

    measured = json.loads(record.read_text(encoding="utf-8"))
    beside_c = {(row["case"], row["server"]) for row in measured["rows"]}
    assert beside_c == set(product(("clients", "bursts", "trains"), ("udp_loop", "echod", "udp_vector")))
    beside_bare = {(row["case"], row["server"]) for row in measured["rules"]}
    assert beside_bare == set(product(("clients", "strangers"), ("bare", "echod", "limited")))
    for row in measured["rows"] + measured["rules"]:
        assert row["received"] > 0
        assert row["sent"] == row["received"] + row["lost"]
        assert row["corrupt"] == 0
    assert [footprint["processes"] for footprint in measured["footprints"]] == [2]
