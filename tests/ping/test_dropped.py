"""Replies that came, and found the receive buffer of this host full, are told apart from those that the path lost."""

import json
import select
import signal
import socket
from pathlib import Path

from support.loopback import at, udp_server
from support.ping.pinging import ended, start
from support.waiting import wait_until

PROBES = 5
COPIES = 2000
"""Of 8,000 bytes: more than a receive buffer of 4 MiB takes."""


def stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def overrun(server: socket.socket, *words: object) -> tuple[str, int]:
    """Answer the first of five probes so often, while the client is stopped, that the other replies find no room.

    Return what the client wrote, and how many datagrams were sent to it.
    """
    words = ("-s", 8000, "-i", "10ms", "-c", PROBES, "-W", 1, *words)
    with start(*words, f"127.0.0.1:{at(server)[1]}") as process:
        came = []
        while len(came) < PROBES:
            select.select([server], [], [], 30)
            came.append(server.recvfrom(65_536))
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: stopped(process.pid), "the client is stopped")
        for data, asker in [came[0]] * COPIES + came[1:]:
            server.sendto(data, asker)
        process.send_signal(signal.SIGCONT)
        out, _ = ended(process)
    return out, COPIES + PROBES - 1


def test_what_this_host_dropped_is_counted_apart() -> None:
    """Each datagram that was sent was read or is in that number."""
    with udp_server() as server:
        out, sent = overrun(server, "--json", "-q")
    figures = json.loads(out)["targets"][0]
    assert (figures["sent"], figures["received"], figures["lost"]) == (PROBES, 1, PROBES - 1)
    assert figures["dropped_here"] == sent - figures["received"] - figures["duplicates"] > PROBES


def test_a_flood_that_overruns_its_own_buffer_says_so() -> None:
    """Each reply of 60,000 bytes comes thrice, which is more than its window: what found no room is counted."""
    with udp_server() as server:
        words = ("--json", "-q", "-f", "-s", 60_000, "--window", 64, "-c", 64, "-W", 1)
        with start(*words, f"127.0.0.1:{at(server)[1]}") as process:
            select.select([server], [], [], 30)
            data, asker = server.recvfrom(65_536)
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: stopped(process.pid), "the client is stopped")
            for _ in range(400):
                server.sendto(data, asker)
            process.send_signal(signal.SIGCONT)
            out, _ = ended(process)
    figures = json.loads(out)["targets"][0]
    assert figures["dropped_here"] == 400 - figures["received"] - figures["duplicates"] > 0
