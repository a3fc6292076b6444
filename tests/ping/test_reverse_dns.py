"""echod.ping.reverse_dns: the names of routers that complained."""

import os
from pathlib import Path

from echod.ping.reverse_dns import MOST, Names


def test_what_forged_addresses_ask_for_is_bounded() -> None:
    """Errors from many addresses start few processes; those that were asked first have their names."""
    addresses = [f"127.0.0.{number}" for number in range(1, MOST + 9)]
    names, tasks = Names(numeric=False), Path("/proc/self/task", f"{os.getpid()}", "children")
    before = len(tasks.read_text().split())
    for address in addresses:
        names.ask(address)
    assert len(tasks.read_text().split()) - before == MOST
    found = names.known(addresses)
    assert found.keys() <= set(addresses[:MOST])
    assert len(tasks.read_text().split()) == before
