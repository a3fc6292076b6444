"""echod.ping.reverse_dns: the names of routers that sent errors."""

import os
from pathlib import Path

import pytest

from echod.ping.reverse_dns import MAX_LOOKUPS, ReverseDns

ADDRESSES = [f"192.0.2.{number}" for number in range(1, 41)]


def children() -> int:
    """Return how many child processes there are."""
    return len(Path("/proc/self/task", f"{os.getpid()}", "children").read_text().split())


@pytest.fixture(autouse=True)
def _getent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `getent` know every address."""
    (tmp_path / "getent").write_text('#!/bin/sh\necho "$2 router-$2 alias"\n')
    (tmp_path / "getent").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("echod.ping.reverse_dns.TIMEOUT", 30.0)


def test_errors_from_many_addresses_start_few_lookups() -> None:
    """The first 32 addresses have their names, each by one process; further and repeated ones start none."""
    lookups, before = ReverseDns(numeric=False), children()
    for address in ADDRESSES:
        lookups.look_up(address)
        lookups.look_up(address)
    assert children() - before == MAX_LOOKUPS == 32
    assert lookups.results(ADDRESSES) == {address: f"router-{address}" for address in ADDRESSES[:32]}
    assert children() == before


def test_nothing_is_looked_up_where_numbers_are_wanted_or_there_is_no_getent(monkeypatch: pytest.MonkeyPatch) -> None:
    """-n, and a host without the program: there are no names, and no error."""
    for numeric in (True, False):
        lookups = ReverseDns(numeric=numeric)
        lookups.look_up("192.0.2.1")
        assert lookups.results(["192.0.2.1"]) == {}
        monkeypatch.setenv("PATH", "/nonexistent")
