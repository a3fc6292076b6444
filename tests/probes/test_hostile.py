"""What a peer, or anybody else, may make `echod ping` do: it stays quick and small, and loses no reply for it."""

import json
import select
import socket
import time
from contextlib import suppress

from support.loopback import at, udp_client, udp_server
from support.ping.impairments import corrupt
from support.ping.pinging import ended, start
from support.processes import resident_bytes

MEBIBYTE = 1 << 20
UDP_SEGMENT = 103  # linux/udp.h


def test_damaged_copies_from_a_third_address_cost_no_reply() -> None:
    """Five hundred of 60,000 bytes a second, in the midst of replies that are as long: each probe has its reply."""
    words = ("--json", "-q", "-s", 60_000, "-i", "10ms", "-c", 150, "-W", 10)
    with udp_server() as server, udp_client() as third, start(*words, f"127.0.0.1:{at(server)[1]}") as process:
        damaged, asker, sent = b"", None, 0.0
        while process.poll() is None:
            if select.select([server], [], [], 0.002)[0]:
                data, asker = server.recvfrom(65_536)
                server.sendto(data, asker)
                damaged = damaged or corrupt(data, 30_000)
            if asker and time.monotonic() >= sent + 0.002:
                sent = time.monotonic()
                third.sendto(damaged, asker)
        out, _ = ended(process)
    summary = json.loads(out)["targets"][0]
    assert (summary["sent"], summary["received"], summary["lost"]) == (150, 150, 0)
    assert summary["corrupt"] > 150


def test_a_peer_that_reads_nothing_makes_the_client_keep_little() -> None:
    """Over TCP: what it does not take is kept up to a bound, and further probes are reported as without room."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = ("--json", "-q", "-s", 60_000, "-i", "1ms", "-w", 3, "-W", 30, f"tcp://127.0.0.1:{port}")
        with start(*words) as process:
            peer, _ = server.accept()
            most = 0
            with peer:
                while process.poll() is None:
                    most = max(most, resident_bytes(process.pid))
                    time.sleep(0.05)
                out, _ = ended(process)
    summary = json.loads(out)["targets"][0]
    assert 0 < most < 64 * MEBIBYTE
    assert summary["received"] == 0
    assert summary["sent"] == summary["errors"] + summary["in_flight"]
    assert [error["reason"] for error in summary["error_reasons"]] == ["send queue full on this host"]


def test_an_endless_stream_of_datagrams_does_not_hold_up_the_search_for_the_mtu() -> None:
    """A peer that sends as fast as it can is told from one that answers: the search ends."""
    with udp_server() as server:
        port = at(server)[1]
        with start("--mtu", "-W", "300ms", f"127.0.0.1:{port}") as process:
            select.select([server], [], [], 30)
            _, asker = server.recvfrom(65_536)
            while process.poll() is None:
                with suppress(OSError):
                    server.sendmsg([b"no" * 64], [(socket.IPPROTO_UDP, UDP_SEGMENT, b"\2\0")], 0, asker)
                while select.select([server], [], [], 0)[0]:
                    _, asker = server.recvfrom(65_536)
            out, _ = ended(process)
    assert "path MTU unknown" in out
