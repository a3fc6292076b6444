"""What a client on the network sees: exact answers, from the address asked, of every size that a datagram can have."""

import socket

import pytest
from system.host import Host
from system.installation import Mode
from system.operating import PORT, ask, converse, show, supervisor, systemctl

NEW_ADDRESSES = ("192.0.2.50", "192.0.2.51", "2001:db8::50", "2001:db8::51")
SIZES = (0, 1, 1472, 1473, 9000, 65_507)  # 1472 fills an Ethernet frame over IPv4; what is more comes in fragments
LARGEST6 = 65_527


def add_addresses(host: Host) -> None:
    """Give the host more addresses, as a network may at any time."""
    for address in NEW_ADDRESSES:
        options = ["nodad"] if ":" in address else []
        prefix = 64 if ":" in address else 24
        host.run(["ip", "address", "add", f"{address}/{prefix}", "dev", "eth0", *options])


def payload(size: int) -> bytes:
    """Return so many bytes, all different from their neighbours."""
    return bytes((at * 7 + at // 256) % 256 for at in range(size))


def test_addresses_that_came_after_the_start_are_answered(installed: Host) -> None:
    """The wildcard is every address at every time, and each answer comes from the very address asked."""
    before = supervisor(installed)
    add_addresses(installed)
    for address in (*NEW_ADDRESSES, installed.address, installed.address6):
        assert ask(installed, address=address) == b"hello"
        assert converse(installed, address=address) == b"hello"
    assert supervisor(installed) == before


def test_one_client_socket_gets_each_answer_from_the_address_asked(installed: Host) -> None:
    """One socket asks all addresses at once; nothing is mixed up, though all answers come from one server socket."""
    add_addresses(installed)
    for family in (socket.AF_INET, socket.AF_INET6):
        mine = [address for address in NEW_ADDRESSES if (":" in address) is (family == socket.AF_INET6)]
        asked = {address: f"{address} {number}".encode() for address in mine for number in range(20)}
        with installed.client(), socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            for address, text in asked.items():
                client.sendto(text, (address, PORT))
            answers = dict(reversed([(text, peer[0]) for text, peer in (client.recvfrom(2048) for _ in asked)]))
        assert answers == {text: address for address, text in asked.items()}


def test_link_local_addresses_are_answered(installed: Host) -> None:
    """A neighbour without any global address is answered from the link-local address asked, on its link."""
    listing = installed.run(["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link"]).stdout
    address = listing.split()[3].partition("/")[0]
    with installed.client(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((address, PORT, 0, socket.if_nametoindex("eth0")))
        client.send(b"neighbour")
        assert client.recv(64) == b"neighbour"
    with installed.client(), socket.socket(socket.AF_INET6) as stream:
        stream.settimeout(5)
        stream.connect((address, PORT, 0, socket.if_nametoindex("eth0")))
        stream.sendall(b"neighbour")
        assert stream.recv(64) == b"neighbour"


def test_every_size_comes_back_exact(installed: Host) -> None:
    """From the empty datagram to the largest there is, over both families, also in fragments; and a long stream."""
    for address, sizes in ((installed.address, SIZES), (installed.address6, (*SIZES, LARGEST6))):
        for size in sizes:
            assert ask(installed, payload(size), address=address) == payload(size)
    stream = payload(100_000)
    assert converse(installed, stream) == stream


@pytest.mark.parametrize("destination", ["192.0.2.255", "255.255.255.255", "ff02::1"])
def test_what_is_sent_to_everybody_is_not_answered(installed: Host, destination: str) -> None:
    """A broadcast or multicast gets no answer: echod is no amplifier. What comes after it is answered."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with installed.client(), socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        client.settimeout(5)
        if family == socket.AF_INET6:
            client.sendto(b"all", (destination, PORT, 0, socket.if_nametoindex("eth0")))
            client.sendto(b"one", (installed.address6, PORT))
        else:
            client.sendto(b"all", (destination, PORT))
            client.sendto(b"one", (installed.address, PORT))
        assert client.recv(64) == b"one"
    installed.run(["systemctl", "kill", "--kill-whom=main", "--signal=USR1", "echod"])
    assert dropped(installed) == 1


def dropped(host: Host) -> int:
    """Return how many datagrams were not answered for their destination."""
    systemctl(host, "stop")
    entries = host.journal("-u", "echod", "ECHOD_EVENT=counters")
    return sum(int(entry.get("ECHOD_DROPPED_DESTINATION_NOT_UNICAST", 0)) for entry in entries)


def test_no_other_port_is_open(installed: Host, mode: Mode) -> None:
    """From outside there is port 7 and nothing else: a listing of all sockets of the host shows no more."""
    listing = installed.run(["ss", "--no-header", "-lntu"]).stdout
    assert {line.split()[4].rpartition(":")[2] for line in listing.splitlines()} == {"7"}
    assert show(installed, "ActiveState") == "active"
