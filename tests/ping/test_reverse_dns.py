"""echod.ping.reverse_dns: the names of routers that complained."""

import os
from pathlib import Path

from echod.ping.reverse_dns import MAX_LOOKUPS, ReverseDns


def test_what_forged_addresses_ask_for_is_bounded() -> None:
    """Errors from many addresses start few processes; those that were asked first have their names."""
    addresses = [f"127.0.0.{number}" for number in range(1, MAX_LOOKUPS + 9)]
    lookups, tasks = ReverseDns(numeric=False), Path("/proc/self/task", f"{os.getpid()}", "children")
    before = len(tasks.read_text().split())
    for address in addresses:
        lookups.look_up(address)
    assert len(tasks.read_text().split()) - before == MAX_LOOKUPS
    found = lookups.results(addresses)
    assert found.keys() <= set(addresses[:MAX_LOOKUPS])
    assert len(tasks.read_text().split()) == before
