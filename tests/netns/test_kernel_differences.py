"""What is different where the kernel repeats the replies: each point of DIFFERENCES in echod-accelerate(8), on a wire.

Those of single frames are in `tests/bpf`: short frames keep their filling (test_checks); a train is charged and refused
whole, a datagram over a limit slips by chance (test_limits), and a train is tested for a loop whole (test_loops).
"""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from support.daemon import Daemon
from support.loopback import needs_root
from support.netns.datagrams import PORT, SERVER, SERVER6, Datagram, as_train, numbered, over_ipv4, over_ipv6
from support.netns.kernel import ask, attached, declared, total
from support.netns.wire import LINK, Wire
from support.processes import is_stopped
from support.system.network import entered
from support.waiting import wait_until

from echod.stats.snapshot import Snapshot, UdpTraffic

pytestmark = [needs_root, pytest.mark.sockets_only("it attaches the programs itself")]

IDENTIFICATION, FLAGS, HEADER_CHECKSUM, UDP_CHECKSUM, UDP_CHECKSUM6 = 18, 20, 24, 40, 60
DONT_FRAGMENT = 0x40


@contextmanager
def seen(wire: Wire) -> Iterator[socket.socket]:
    """See frames at the client's end of the wire."""
    with entered(wire.client):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind((LINK, 3))
        yield sock


def next_reply(sock: socket.socket) -> bytes:
    """Return the next UDP frame from the port of echod; nothing if there is none."""
    while select.select([sock], [], [], 0)[0]:
        frame, address = sock.recvfrom(65_536)
        at = 34 if frame[12:14] == b"\x08\0" else 54
        if address[2] != socket.PACKET_OUTGOING and frame[at : at + 2] == PORT.to_bytes(2, "big"):
            return frame
    return b""


def changed(frame: bytes, at: int, new: bytes) -> bytes:
    """Return a frame with other bytes at a place."""
    return frame[:at] + new + frame[at + len(new) :]


@pytest.mark.parametrize(("make", "at"), [(over_ipv4, UDP_CHECKSUM), (over_ipv6, UDP_CHECKSUM6)])
def test_a_wrong_udp_checksum_is_returned(wire: Wire, daemon: Daemon, make: Callable[..., Datagram], at: int) -> None:
    """Where there is a path; without one the sockets never see such a datagram."""
    *first, next_ = numbered(make(), 3)
    wrong = changed(next_.frame(), at, b"\x12\x34")
    with seen(wire) as replies, attached(wire.server, declared()) as datapath:
        wire.inject(wrong)  # no path yet
        for each in first:
            wire.inject(each.frame())
            assert wait_until(lambda: next_reply(replies), "a reply").endswith(each.payload)
        wire.inject(wrong)
        reply = wait_until(lambda: next_reply(replies), "another")
        assert reply[at:] == wrong[at:]
        found = total(datapath)
        assert (found.replied, found.passed) == (1, 3)


def test_the_number_is_that_of_the_request_if_it_may_be_fragmented(wire: Wire, daemon: Daemon) -> None:
    """The sockets choose their own. No reply forbids that it is fragmented."""
    with seen(wire) as replies, attached(wire.server, declared()):
        frames = [changed(each.frame(), IDENTIFICATION, b"\xab\xcd") for each in numbered(over_ipv4(), 4)]
        # The header checksum of RFC 791 is corrected by what has changed: "don't fragment" is one bit of it.
        frames = [with_header_checksum(each) for each in (*frames[:3], changed(frames[3], FLAGS, b"\x40\0"))]
        found = []
        for frame in frames:
            wire.inject(frame)
            reply = wait_until(lambda: next_reply(replies), "a reply")
            found.append((reply[IDENTIFICATION:FLAGS], reply[FLAGS] & DONT_FRAGMENT))
    assert b"\xab\xcd" not in (found[0][0], found[1][0])
    assert found[2][0] == b"\xab\xcd"
    assert [flag for _, flag in found] == [0, 0, 0, 0]


def with_header_checksum(frame: bytes) -> bytes:
    """Return a frame whose IPv4 header checksum is right."""
    words = [int.from_bytes(frame[at : at + 2], "big") for at in range(14, 34, 2) if at != HEADER_CHECKSUM]
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return changed(frame, HEADER_CHECKSUM, (total ^ 0xFFFF).to_bytes(2, "big"))


COUNTERS = """table inet t {
    chain before { type filter hook prerouting priority raw; udp dport 7007 counter; }
    chain in { type filter hook input priority 0; udp dport 7007 counter; }
    chain out { type filter hook output priority 0; udp sport 7007 counter; }
    chain after { type filter hook postrouting priority 0; udp sport 7007 counter; }
}
"""


@pytest.mark.parametrize("to", [SERVER, SERVER6])
def test_the_firewall_counts_what_the_sockets_replied_to(wire: Wire, daemon: Daemon, to: str) -> None:
    """Two of ten, in each of its hooks, in both directions; so for a quota or a rule that logs."""
    nft = ["ip", "netns", "exec", wire.server, "nft"]
    subprocess.run([*nft, "-f", "-"], input=COUNTERS, text=True, check=True)
    try:
        with attached(wire.server, declared()), wire.client_of(to, PORT) as sock:
            ask(sock, 10)
        listed = subprocess.run([*nft, "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run([*nft, "flush", "ruleset"], check=True)
    assert listed.count("counter packets 2 ") == listed.count("counter packets") == 4


def udp_of_the_host(wire: Wire) -> int:
    """Return how many UDP datagrams the sockets of the server have received (proc_pid_net(5))."""
    with entered(wire.server):
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("InDatagrams")])


def test_the_statistics_of_the_host_have_what_the_sockets_received(wire: Wire, daemon: Daemon) -> None:
    """Two of a hundred."""
    before = udp_of_the_host(wire)
    with attached(wire.server, declared()), wire.client_of(SERVER, PORT) as sock:
        ask(sock, 100)
    assert udp_of_the_host(wire) - before == 2


def test_the_status_of_the_daemon_has_what_the_sockets_received(own: tuple[Wire, Daemon]) -> None:
    """Of a hundred datagrams and a train of forty one datagram each: as batches, and none as a train."""
    wire, daemon = own
    with attached(wire.server, declared()) as datapath:
        with wire.client_of(SERVER, PORT) as sock:
            ask(sock, 100)
        first, second, *train = numbered(over_ipv4(), 42)
        for frames in ([first.frame()], [second.frame()], as_train(train)):
            wire.replies()
            wire.inject(*frames)
            wait_until(wire.replies, "an answer")
        assert total(datapath).replied == 98 + 40
        wait_until(lambda: sum(each.received for each in reported(daemon)) == 4, "four were reported")
        batches, trains = (sum(sum(getattr(each, name)) for each in reported(daemon)) for name in ("batches", "trains"))
        assert (batches, trains) == (4, 0)


def reported(daemon: Daemon) -> tuple[UdpTraffic, ...]:
    """Return what the daemon says of its traffic."""
    return Snapshot.unpack((daemon.status_path / "status.json").read_bytes()).activity.udp


def test_a_reply_of_the_kernel_overtakes_one_of_the_sockets(own: tuple[Wire, Daemon]) -> None:
    """Where a path is renewed, or begins: while one datagram is with the daemon, the next has its reply already."""
    wire, daemon = own
    (worker,) = daemon.workers()
    with attached(wire.server, declared(fresh_seconds=0.1)) as datapath:
        seen: list[Datagram] = []
        sent: list[Datagram] = []
        first, others = numbered(over_ipv4(), 2), numbered(over_ipv4(), 100)
        for each in first:
            wire.replies()
            wire.inject(each.frame())
            wait_until(wire.replies, "the daemon replied")
        noted = monotonic()
        # The clock of the program is up to a tick behind: 10 ms at most.
        wait_until(lambda: monotonic() > noted + 0.2, "the path was no longer fresh")
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: is_stopped(worker), "the daemon was halted")
        for each in others:
            wire.inject(each.frame())
            sent.append(each.answer)
            seen += wire.replies()
            if seen:
                break
        assert total(datapath).passed > 2
        os.kill(worker, signal.SIGCONT)

        def are_all_there() -> bool:
            seen.extend(wire.replies())
            return len(seen) == len(sent)

        wait_until(are_all_there, "all were answered")
    assert seen[0] == sent[-1]
    assert sorted(each.payload for each in seen) == [each.payload for each in sent]
