"""Replies that find the receive buffer of this host full are counted apart from those that the path lost."""

import signal

import pytest
from support.loopback import at, hear, udp_server
from support.ping.pinging import Pinged, ended, start
from support.processes import is_stopped
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("words", "copies"),
    [(("-s", 8000, "-i", "10ms", "-c", 5), 2000), (("-f", "-s", 60_000, "--window", 64, "-c", 64), 400)],
    ids=["paced", "flood"],
)
def test_what_this_host_dropped_is_counted_apart(words: tuple[object, ...], copies: int) -> None:
    """The client is stopped while more replies come than a buffer of 4 MiB takes: each is read, or in that number."""
    with udp_server() as server, start("--json", "-q", "-W", 3, *words, f"127.0.0.1:{at(server)[1]}") as process:
        data, client = hear(server)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(process.pid), "the client is stopped")
        for _ in range(copies):
            server.sendto(data, client)
        process.send_signal(signal.SIGCONT)
        out, _ = ended(process)
    figures = Pinged(process.returncode, out, "").summary
    assert (figures["received"], figures["lost"]) == (1, figures["sent"] - 1)
    assert figures["dropped_here"] == copies - figures["received"] - figures["duplicates"] > 0
