"""support.beside: what an accelerator beside a daemon did is in the counters that the tests of a second run see."""

from pathlib import Path

import pytest
from support.beside import Accelerator, daemon_in
from support.daemon import Daemon
from support.loopback import needs_root
from support.netns.datagrams import PORT, SERVER, numbered, over_ipv4
from support.netns.kernel import ask
from support.netns.stage import config, totals
from support.netns.wire import LINK, Wire
from support.waiting import wait_until

pytestmark = [needs_root, pytest.mark.sockets_only("it starts an accelerator itself")]

ASKED, REFUSED = 100, 10


def test_the_counters_are_those_of_both(folder: Path) -> None:
    """Also after a reload with other listeners; alone, the daemon has seen less."""
    listeners = [f"udp://0.0.0.0:{PORT}", "udp://0.0.0.0:7009"]
    sections = {"kernel": {"interfaces": [LINK]}}
    with Wire() as wire, daemon_in(wire.server, folder, config(**sections)) as daemon:
        daemon.beside = beside = Accelerator(daemon, ("ip", "netns", "exec", wire.server))
        for number in (1, 2):
            with wire.client_of(SERVER, PORT) as sock:
                ask(sock, ASKED)
            for each in numbered(over_ipv4(source_port=53), REFUSED):
                wire.inject(each.frame())
            due = number * REFUSED
            wait_until(lambda due=due: refused(daemon) == due, "all were refused")  # type: ignore[misc]
            found = totals(daemon)
            assert (found["received"], found["replied"]) == (number * (ASKED + REFUSED), number * ASKED)
            daemon.reload({"listeners": listeners, "workers": 1} | sections)
        daemon.beside = None
        assert 0 < totals(daemon)["replied"] < 2 * ASKED
        assert refused(daemon) == 0
        beside.end()


def refused(daemon: Daemon) -> int:
    """Return how many datagrams were refused for their port."""
    return totals(daemon)["dropped_source_port_low"]
