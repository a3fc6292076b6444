"""The datapath in the kernel on a wire: the sockets reply first, and the kernel repeats it while they still reply."""

import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final

import pytest
from support.beside import daemon_in
from support.bpf import two_capabilities
from support.daemon import Daemon, children, end_processes
from support.loopback import ip, needs_root
from support.netns.datagrams import (
    CLIENT,
    CLIENT_LINK,
    OTHER_PORT,
    PORT,
    SENDER,
    SENDER6,
    SERVER,
    SERVER6,
    SERVER_LINK,
    Datagram,
    as_train,
    numbered,
    over,
    over_ipv4,
    over_ipv6,
)
from support.netns.kernel import Counted, ask, attached, attached_by_another, declared, is_answered, total
from support.netns.stage import config, totals
from support.netns.traffic import Client, Traffic
from support.netns.wire import LINK, Wire
from support.system.network import entered
from support.waiting import wait_until

from echod.bpf.maps import KernelTraffic

pytestmark = [needs_root, pytest.mark.sockets_only("it attaches the programs itself")]

NFT: Final = (
    "nft add table t; add chain t c {{{{ type filter hook {hook} priority 0; }}}}; add rule t c udp {port} 7007 drop"
)
BOTH: Final = pytest.mark.parametrize("to", [SERVER, SERVER6])
_TUNSETIFF: Final = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000  # linux/if_tun.h


# -- the first two and the next


@BOTH
def test_the_sockets_answer_the_first_two_and_the_kernel_all_others(wire: Wire, daemon: Daemon, to: str) -> None:
    """Byte for byte alike to the client; and each is counted in one place."""
    sockets = Counted(daemon)
    with attached(wire.server, declared()) as datapath, wire.client_of(to, PORT) as sock:
        ask(sock, 100)
        assert total(datapath) == KernelTraffic(replied=98, replied_bytes=98 * 11, passed=2)
        assert sockets["received"] == sockets["replied"] == 2
        assert datapath.traffic()[6 if ":" in to else 4, PORT].replied == 98
        assert datapath.count_paths(monotonic()) == 1


def test_a_neighbour_by_its_link_local_address_is_answered_too(wire: Wire, daemon: Daemon) -> None:
    """It has an address that is another's on another link."""
    with attached(wire.server, declared()) as datapath:
        wire.replies()
        for datagram in numbered(over_ipv6(source=CLIENT_LINK, to=SERVER_LINK), 20):
            wire.inject(datagram.frame())
            assert wait_until(wire.replies, "an answer") == [datagram.answer]
        assert total(datapath).replied == 18


def test_every_size_comes_back_byte_for_byte(own: tuple[Wire, Daemon]) -> None:
    """From nothing to what the link takes by the kernel; what is longer is a fragment, and for the sockets."""
    wire, daemon = own
    with attached(wire.server, declared()) as datapath:
        for to, most in ((SERVER, 1472), (SERVER6, 1452)):
            with wire.client_of(to, PORT) as sock:
                ask(sock, 2)
                for size in (*range(40), 1000, most - 1, most, most + 1, 3000, 65_000):
                    payload = os.urandom(size)
                    sock.send(payload)
                    assert sock.recv(65_536) == payload
        assert total(datapath).replied == 2 * 43
        assert totals(daemon)["replied"] == 2 * 5


def test_the_reply_is_the_frame_that_the_sockets_send(wire: Wire, daemon: Daemon) -> None:
    """On the wire nobody can tell them apart, but by the number of an IPv4 packet, and a flow label."""
    with entered(wire.client):
        seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with seen, attached(wire.server, declared()) as datapath:
        seen.bind((LINK, 3))
        frames = []
        for make in (over_ipv4, over_ipv6):
            for _ in range(3):
                wire.inject(make(payload=b"the same").frame())
                frames.append(wait_until(lambda: _sent_by_server(seen), "a reply"))
        assert replace(total(datapath), replied_bytes=0) == KernelTraffic(replied=2, passed=4)
        (_, first4, then4, _, first6, then6) = frames
        # What the sockets send over such a link has no UDP checksum yet, for its other end is in the same kernel.
        parts4 = (slice(18), slice(22, 24), slice(26, 40), slice(42, None))
        assert [then4[part] for part in parts4] == [first4[part] for part in parts4]
        parts6 = (slice(15), slice(18, 60), slice(62, None))
        assert [then6[part] for part in parts6] == [first6[part] for part in parts6]


def _sent_by_server(seen: socket.socket) -> bytes:
    """Return the next UDP frame from the port of echod; nothing if there is none."""
    while select.select([seen], [], [], 0)[0]:
        frame, address = seen.recvfrom(65_536)
        at = 34 if frame[12:14] == b"\x08\0" else 54
        if address[2] != socket.PACKET_OUTGOING and frame[at : at + 2] == PORT.to_bytes(2, "big"):
            return frame
    return b""


@BOTH
def test_headers_may_lie_in_any_part_of_a_packet(own: tuple[Wire, Daemon], to: str) -> None:
    """Here but the link header is in front, and all else in pages behind it, as some drivers leave it."""
    wire, daemon = own
    for name in (wire.server, wire.client):
        ip("-n", name, "link", "set", LINK, "mtu", "9000")
    with attached(wire.server, declared()) as datapath:
        wire.replies()
        for number in range(10):
            datagram = over(SENDER if to is SERVER else SENDER6, payload=bytes([number]) * 6000)
            wire.inject(datagram.frame(), struct.pack("=BBHHHH", 0, 0, 14, 0, 0, 0))
            assert wait_until(wire.replies, "an answer") == [datagram.answer]
        assert total(datapath) == KernelTraffic(replied=8, replied_bytes=8 * 6000, passed=2)
        assert totals(daemon)["replied"] == 2


@pytest.mark.parametrize("make", [over_ipv4, over_ipv6])
def test_a_train_is_answered_whole(wire: Wire, daemon: Daemon, make: Callable[[], Datagram]) -> None:
    """It counts as its datagrams, in the kernel and on the wire."""
    sockets = Counted(daemon)
    seen: list[list[Datagram]] = []
    with attached(wire.server, declared()) as datapath:
        datagrams = numbered(make(), 42)
        wire.replies()
        for sent in ([datagrams[0].frame()], [datagrams[1].frame()], as_train(datagrams[2:])):
            wire.inject(*sent)
            seen.append(wait_until(wire.replies, "an answer"))
        assert [each for some in seen for each in some] == [each.answer for each in datagrams]
        assert total(datapath).replied == 40
        assert sockets["received"] == 2


# -- who is refused


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (over("192.0.2.7"), "access"),
        (over("2001:db8::7"), "access"),
        (over_ipv4(source_port=53), "source_port_low"),
        (over_ipv6(source_port=OTHER_PORT), "source_port_own"),
        (over_ipv4(source="127.0.0.1"), "source_invalid"),
        (over_ipv6(source=SERVER6), "source_is_self"),
    ],
)
def test_who_is_refused_does_not_reach_the_sockets(wire: Wire, daemon: Daemon, datagram: Datagram, reason: str) -> None:
    """The kernel drops it for the reason of the sockets; a neighbour is answered as before."""
    to, sockets = SERVER6 if datagram.is_ipv6 else SERVER, Counted(daemon)
    wire.replies()
    with attached(wire.server, declared()) as datapath, wire.client_of(to, PORT) as sock:
        for each in numbered(datagram, 50):
            wire.inject(each.frame())
        ask(sock, 10)
        assert total(datapath).dropped == {reason: 50}
        assert sockets["received"] == 2
        assert len(wire.replies()) == 10


def test_what_is_for_another_port_or_host_is_not_touched(wire: Wire, daemon: Daemon) -> None:
    """Another service of this host hears all that is sent to it, also from whom echod refuses."""
    with attached(wire.server, declared()) as datapath, wire.listen(SERVER, 9000) as service:
        for each in numbered(over_ipv4(source_port=53, to_port=9000), 10):
            wire.inject(each.frame())
            assert service.recv(65_536) == each.payload
        assert total(datapath) == KernelTraffic()


# -- who keeps the limits


def test_kernel_and_sockets_together_keep_the_limit(tmp_path: Path) -> None:
    """A source that sends ten times its limit gets it, and not one more; some of it by the sockets, which renew."""
    limits = {"datagrams_per_second": 1000, "burst": 1000, "slip": 8}
    with (
        Wire() as wire,
        daemon_in(wire.server, tmp_path, config(limits=limits)) as daemon,
        attached(wire.server, declared(limits=limits, fresh_seconds=0.5)) as datapath,
        Traffic([Client(wire, SERVER, rate=10_000)]) as traffic,
    ):
        seconds = traffic.run(4.0)
        traffic.settle(lambda: total(datapath).passed == totals(daemon)["received"])
        found = total(datapath)
        assert found.replied + found.passed + found.dropped["rate"] == traffic.sent
        assert found.passed > 1
        # On credit, which one in eight over the limit has, there is a second burst.
        assert 0.98 * 1000 * seconds <= traffic.answered <= 1.02 * (2000 + 1000 * seconds)
        wait_until(lambda: totals(daemon)["replied"] + total(datapath).replied == traffic.answered, "all were counted")


# -- how it ends


def test_answers_end_with_the_daemon(own: tuple[Wire, Daemon]) -> None:
    """When nobody answers a renewal any more, the path ends, `stale_seconds` after the last reply of the sockets."""
    wire, daemon = own
    declaration = declared(fresh_seconds=0.2, stale_seconds=1.0)
    with attached(wire.server, declaration) as datapath, wire.client_of(SERVER, PORT) as sock:
        ask(sock, 5)
        end_processes([*children(daemon.pid), daemon.pid])
        daemon.wait()
        killed = monotonic()
        while monotonic() < killed + 1.0:
            if is_answered_or_refused(sock):
                answered = monotonic()
        wait_until(lambda: not is_answered_or_refused(sock), "nobody answered")
        assert answered > killed
        assert datapath.count_paths(killed + 1.0) == 0
        assert not is_answered_or_refused(sock)


def is_answered_or_refused(sock: socket.socket) -> bool:
    """Tell whether an answer comes; that nobody has the port any more is none."""
    try:
        return is_answered(sock)
    except ConnectionRefusedError:
        return False


def test_without_its_process_the_sockets_answer(wire: Wire, daemon: Daemon) -> None:
    """Killed, it leaves nothing behind, and not one datagram is lost."""
    sockets = Counted(daemon)
    clients = [Client(wire, to, rate=5000) for to in (SERVER, SERVER6)]
    with attached_by_another(wire.server, declared()) as process, Traffic(clients) as traffic:
        traffic.run(0.5)
        replied = sockets["replied"]
        assert replied < traffic.sent / 2
        os.kill(process, signal.SIGKILL)
        before = traffic.sent
        traffic.run(0.5)
        traffic.settle(lambda: traffic.answered == traffic.sent)
        assert sockets["replied"] - replied > (traffic.sent - before) / 2


def test_a_hundred_declarations_under_load_lose_nothing(wire: Wire, daemon: Daemon) -> None:
    """Each datagram meets one program or the other, and each is counted once."""
    sockets = Counted(daemon)
    with (
        attached(wire.server, declared()) as datapath,
        Traffic([Client(wire, SERVER, rate=5000), Client(wire, SERVER6, rate=5000)]) as traffic,
    ):
        for number in range(100):
            with two_capabilities():
                datapath.declare(declared(guard={"min_source_port": 1024 + number}))
            traffic.run(0.01)
        traffic.settle(lambda: traffic.answered == traffic.sent)
        found = total(datapath)
        assert found.replied + found.passed == traffic.sent
        assert found.passed == sockets["received"]
        assert found.replied > 0


CHANGES: Final = {
    "its address is gone": ("ip address delete {server}/24 dev eth0", "ip address add {server}/24 dev eth0"),
    "a route leads nowhere": ("ip route add blackhole {client}", "ip route delete blackhole {client}"),
    "nftables drops what comes": (NFT.format(hook="input", port="dport"), "nft flush ruleset"),
    "nftables drops what goes": (NFT.format(hook="output", port="sport"), "nft flush ruleset"),
    "a policy forbids it": ("ip xfrm policy add dir out dst {client} action block", "ip xfrm policy flush"),
}


def on_server(wire: Wire, command: str) -> None:
    """Run a command on the server."""
    words = [word.format(server=SERVER, client=CLIENT) for word in command.split()]
    subprocess.run(["ip", "netns", "exec", wire.server, *words], check=True)


@pytest.mark.parametrize(("change", "undo"), CHANGES.values(), ids=CHANGES)
def test_what_the_host_forbids_is_forbidden_when_paths_are_forgotten(
    wire: Wire, daemon: Daemon, change: str, undo: str
) -> None:
    """The very next datagram is for the sockets, which do not answer it; nor is any other."""
    with attached(wire.server, declared()) as datapath, wire.client_of(SERVER, PORT) as sock:
        ask(sock, 10)
        on_server(wire, change)
        try:
            assert is_answered(sock)  # by the kernel: it has not been told
            datapath.forget(monotonic())
            assert [is_answered(sock) for _ in range(3)] == [False] * 3
            assert total(datapath).replied == 9
        finally:
            on_server(wire, undo)
            wire.know(CLIENT)
            ip("-n", wire.server, "route", "replace", "default", "via", CLIENT)
