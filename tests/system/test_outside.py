"""What a client on the network sees: exact answers, from the address asked, of every size that a datagram can have."""

import socket
import subprocess

from support.system.operating import PORT, Host, family
from support.waiting import SECONDS, wait_until

NEW_ADDRESSES = {"10.77.0.50": 24, "10.77.0.51": 24, "fd00:77::50": 64, "fd00:77::51": 64}
"""With their prefix lengths; a network may give a host more addresses at any time."""
SIZES = (0, 1, 1472, 1473, 9000, 65_507)  # 1472 fills an Ethernet frame over IPv4; what is more comes in fragments
LARGEST6 = 65_527
NOT_UNICAST = "ECHOD_DROPPED_DESTINATION_NOT_UNICAST"


def payload(size: int) -> bytes:
    """Return so many bytes, all different from their neighbours."""
    return bytes((at * 7 + at // 256) % 256 for at in range(size))


def test_addresses_that_came_after_the_start_are_answered(standing: Host) -> None:
    """The wildcard is every address at every time, and each answer comes from the very address asked.

    One socket asks all addresses at once; nothing is mixed up, though all answers come from one server socket.
    """
    before = standing.supervisor()
    for address, length in NEW_ADDRESSES.items():
        standing.add_address(f"{address}/{length}")
    for address in (*NEW_ADDRESSES, standing.address, standing.address6):
        assert standing.ask(address=address) == b"hello"
        assert standing.converse(address=address) == b"hello"
    assert standing.supervisor() == before
    for kind in (socket.AF_INET, socket.AF_INET6):
        mine = [address for address in NEW_ADDRESSES if family(address) == kind]
        asked = {address: f"{address} {number}".encode() for address in mine for number in range(20)}
        with standing.client(), socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.settimeout(SECONDS)
            for address, text in asked.items():
                client.sendto(text, (address, PORT))
            answers = dict(reversed([(text, peer[0]) for text, peer in (client.recvfrom(2048) for _ in asked)]))
        assert answers == {text: address for address, text in asked.items()}


def test_link_local_addresses_are_answered(standing: Host) -> None:
    """A neighbour without any global address is answered from the link-local address asked, on its link."""
    show = ["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link"]
    with standing.client():  # its own comes when the kernel has looked after its carrier
        wait_until(lambda: subprocess.run(show, check=True, capture_output=True).stdout, "the client's address")
    address = standing.run(show).stdout.split()[3].partition("/")[0]
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with standing.client(), socket.socket(socket.AF_INET6, kind) as client:
            client.settimeout(SECONDS)
            client.connect((address, PORT, 0, socket.if_nametoindex("eth0")))
            client.sendall(b"neighbour")
            assert client.recv(64) == b"neighbour"


def test_every_size_comes_back_exact(standing: Host) -> None:
    """From the empty datagram to the largest there is, over both families, also in fragments; and a long stream."""
    for address, sizes in ((standing.address, SIZES), (standing.address6, (*SIZES, LARGEST6))):
        for size in sizes:
            assert standing.ask(payload(size), address=address) == payload(size)
    stream = payload(100_000)
    assert standing.converse(stream) == stream


def test_what_is_sent_to_everybody_is_not_answered(standing: Host) -> None:
    """A broadcast or multicast is counted and gets no answer, for echod is no amplifier; what comes next gets one."""
    for destination, address in (("10.77.0.255", ""), ("255.255.255.255", ""), ("ff02::1", standing.address6)):
        with standing.client(), socket.socket(family(address), socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
            client.settimeout(SECONDS)
            client.sendto(b"all", (destination, PORT))  # out of the device that it is bound to
            client.sendto(b"one", (address or standing.address, PORT))
            assert client.recv(64) == b"one"
    standing.kill("USR1", standing.supervisor())
    # The kernel gives each of several sockets of a port a copy of its own.
    drops = [int(entry.get(NOT_UNICAST, 0)) for entry in standing.await_event("counters", 4)]
    assert sum(drop > 0 for drop in drops) == 2
    assert sum(drops) >= 3


def test_no_other_port_is_open(standing: Host) -> None:
    """There is port 7 and nothing else: a listing of all listening sockets of the host shows no more."""
    listing = standing.run(["ss", "--no-header", "-lntu"]).stdout
    assert {line.split()[4].rpartition(":")[2] for line in listing.splitlines()} == {"7"}
