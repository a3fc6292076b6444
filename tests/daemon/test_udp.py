"""Every datagram comes back byte for byte, to where it came from, from where it was sent to; and is counted."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, ask, connect_udp
from support.ports import free_port
from support.waiting import wait_until

EchodFactory = Callable[..., Daemon]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_of_every_size_come_back_identical(echod: EchodFactory, host: str) -> None:
    """From nothing to the most that IPv4 and IPv6 can carry, and no byte differs."""
    port = free_port()
    address = f"[{host}]" if ":" in host else host
    daemon = echod({"listeners": [f"udp://{address}:{port}"]})
    sizes = [0, 1, 1472, 1473, 9000, 65_507, *([65_527] if ":" in host else [])]
    for size in sizes:
        payload = os.urandom(size)
        assert ask(port, payload, host=host) == payload
    row = daemon.counters()[f"udp://{address}:{port}"]
    assert (row["received"], row["replied"]) == (len(sizes), len(sizes))
    assert row["received_bytes"] == row["replied_bytes"] == sum(sizes)


def test_a_burst_from_fifty_sockets_comes_back_whole(echod: EchodFactory) -> None:
    """2,000 datagrams at once, from 50 sockets: each socket gets its own 40 back, each whole, and no other."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 2})
    socks = [connect_udp("127.0.0.1", port) for _ in range(50)]
    sent: list[set[bytes]] = [set() for _ in socks]
    for number in range(40):
        for index, sock in enumerate(socks):
            payload = bytes([index, number]) * (1 + (index * 40 + number) % 100)
            sent[index].add(payload)
            sock.send(payload)
    for index, sock in enumerate(socks):
        assert {sock.recv(65_536) for _ in range(40)} == sent[index]
        sock.close()
    row = daemon.counters()[f"udp://127.0.0.1:{port}"]
    assert (row["received"], row["replied"]) == (2000, 2000)


def test_a_client_that_sends_trains_gets_every_datagram(echod: EchodFactory) -> None:
    """What one send with UDP_SEGMENT carries is 45 datagrams of 1,000 bytes and one of 7; so is the answer."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"]})
    payload = os.urandom(45 * 1000 + 7)
    with connect_udp("127.0.0.1", port) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
        sock.send(payload)
        answers = [sock.recv(65_536) for _ in range(46)]
    assert [len(answer) for answer in answers] == [1000] * 45 + [7]
    assert b"".join(answers) == payload
    row = daemon.counters()[f"udp://127.0.0.1:{port}"]
    assert (row["received"], row["replied"]) == (46, 46)


@pytest.mark.parametrize("host", ["127.0.0.9", "127.1.2.3"])
def test_a_wildcard_listener_answers_from_the_address_asked(echod: EchodFactory, host: str) -> None:
    """On 0.0.0.0 the answer to a datagram for 127.0.0.9 comes from 127.0.0.9."""
    port = free_port()
    echod({"listeners": [f"udp://0.0.0.0:{port}"]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(b"hi", (host, port))
        assert sock.recvfrom(16) == (b"hi", (host, port))


def test_both_families_have_their_own_listener(echod: EchodFactory) -> None:
    """[::] and 0.0.0.0 stand on one port side by side; each family is answered, and counted apart."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://0.0.0.0:{port}", f"udp://[::]:{port}"]})
    assert ask(port) == ask(port, host="::1") == b"hi"
    assert {name: row["replied"] for name, row in daemon.counters().items()} == {
        f"udp://0.0.0.0:{port}": 1,
        f"udp://[::]:{port}": 1,
    }


def test_a_port_range_opens_each_port(echod: EchodFactory) -> None:
    """`7000-7015` answers on 16 ports, each under its own name in log and counters."""
    first = free_port(16)
    daemon = echod({"listeners": [f"udp://127.0.0.1:{first}-{first + 15}"], "workers": 2})
    assert all(ask(port) == b"hi" for port in range(first, first + 16))
    names = [f"udp://127.0.0.1:{port}" for port in range(first, first + 16)]
    assert [entry["listener"] for entry in daemon.log("listener_bound")] == names
    assert [row["replied"] for row in daemon.counters().values()] == [1] * 16


def test_what_is_not_answered_is_counted_by_reason(echod: EchodFactory) -> None:
    """A datagram from a port of our own is dropped, named and counted; received = replied + drops + failures."""
    port = free_port()
    listeners = [f"udp://127.0.0.1:{port}", f"udp://127.0.0.2:{port}"]
    daemon = echod({"listeners": listeners, "workers": 1})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.3", port))
        for _ in range(5):
            sock.sendto(b"loop", ("127.0.0.1", port))
        assert ask(port) == b"hi"
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(16)
    row = daemon.counters()[listeners[0]]
    assert (row["received"], row["replied"], row["dropped_source_port_own"]) == (6, 1, 5)


def test_two_workers_share_the_peers(echod: EchodFactory) -> None:
    """With 64 clients no worker is left without work."""
    port = free_port()
    daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 2})
    before = {worker: cpu_ticks(worker) for worker in daemon.workers()}
    socks = [connect_udp("127.0.0.1", port) for _ in range(64)]

    def ask_all() -> bool:
        for sock in socks:
            sock.send(b"hi")
        assert all(sock.recv(16) == b"hi" for sock in socks)
        return all(cpu_ticks(worker) > ticks for worker, ticks in before.items())

    wait_until(ask_all, "each worker had done some of the work")
    for sock in socks:
        sock.close()


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Make two network namespaces on one wire, with the link-local addresses fe80::1 and fe80::2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root, with iproute2, can make network namespaces")
    one, two = f"echod-{os.getpid()}-a", f"echod-{os.getpid()}-b"
    commands = [
        f"netns add {one}",
        f"netns add {two}",
        f"-n {one} link add wire type veth peer name wire netns {two}",
        f"-n {one} address add fe80::1/64 dev wire nodad",
        f"-n {two} address add fe80::2/64 dev wire nodad",
        f"-n {one} link set wire up",
        f"-n {two} link set wire up",
    ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield one, two
    finally:
        for name in (one, two):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.parametrize("listener", ["[fe80::1%wire]", "[::]"])
def test_link_local_addresses_are_answered(echod: EchodFactory, two_hosts: tuple[str, str], listener: str) -> None:
    """A host on the same wire asks fe80::1 and is answered by fe80::1, by a listener of its own and by a wildcard."""
    daemon = echod({"listeners": [f"udp://{listener}:7007"]}, prefix=["ip", "netns", "exec", two_hosts[0]])
    program = (
        "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(10)\n"
        "s.sendto(b'hi', ('fe80::1%wire', 7007)); data, (host, port, _, zone) = s.recvfrom(16)\n"
        "print(data, host.partition('%')[0], port, socket.if_indextoname(zone))"
    )
    command = ["ip", "netns", "exec", two_hosts[1], sys.executable, "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == "b'hi' fe80::1 7007 wire\n"
    assert daemon.stop() == 0
