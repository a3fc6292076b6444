"""The benchmark still runs: every row is there and every reply was exact. Its timings prove nothing here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the benchmark's C peers need gcc, and there is none")
def test_a_short_benchmark_has_every_row_and_no_corrupt_reply(tmp_path: Path) -> None:
    """Three kinds of traffic on three servers, each answered exactly, and echod's footprint beside them."""
    record = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--pairs", "1", "--seconds", "0.2", "--json", str(record)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr

    measured = json.loads(record.read_text(encoding="utf-8"))
    rows = {(row["case"], row["server"]): row for row in measured["rows"]}
    cases, servers = ("clients", "bursts", "trains"), ("udp_loop", "echod", "udp_vector")
    assert set(rows) == {(case, server) for case in cases for server in servers}
    for row in rows.values():
        assert row["received"] > 0
        assert row["sent"] == row["received"] + row["lost"]
        assert row["corrupt"] == 0
    assert [footprint["processes"] for footprint in measured["footprints"]] == [2]
