"""Real sockets for tests: servers as echod opens them, clients, hand-made datagrams, namespaces, and waiting.

All traffic stays on loopback or in a network namespace that the test made.
"""

import ctypes
import json
import os
import resource
import select
import socket
import struct
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from support.waiting import SECONDS, wait_until

from echod.linux.sockets import Buffers, open_socket
from echod.linux.sockopt import SO_MEMINFO, SO_RCVBUFFORCE, UDP_GRO, UDP_SEGMENT
from echod.net.listener import Listener, Protocol
from echod.udp import reply
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket

BUFFERS = Buffers(receive=16 * 1024**2, send=16 * 1024**2)
ANY = str(IPv4Address(0))
NOBODY = 65_534

_CLONE_NEWNET = 0x4000_0000
_SO_NO_CHECK, _UDP_NO_CHECK6_TX, _UDP_NO_CHECK6_RX = 11, 101, 102  # asm-generic/socket.h, linux/udp.h

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets, big buffers, users and namespaces need root")


# -- waiting


def sleeps(process: int | None = None) -> int:
    """Return how often a process, or this thread, has gone to sleep of itself (proc(5))."""
    lines = Path(f"/proc/{process or 'thread-self'}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))


def queued_bytes(sock: socket.socket) -> int:
    """Return the memory that the receive queue of a socket holds."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4), "little")


def deliver(server: socket.socket, send: Callable[..., object], *arguments: object, **options: object) -> None:
    """Send something and wait until it is in the server's queue, so that what is sent next comes next."""
    before = queued_bytes(server)
    send(*arguments, **options)
    wait_until(lambda: queued_bytes(server) > before, "the datagram in the server's queue")


# -- sockets


def listener(host: str = "127.0.0.1", port: int = 0, protocol: Protocol = Protocol.UDP, zone: str = "") -> Listener:
    """Make a listener; on port 0 the kernel chooses one that is free."""
    return Listener(protocol=protocol, address=ip_address(host), port=port, zone=zone)


def udp_server(host: str = "127.0.0.1", port: int = 0, buffers: Buffers = BUFFERS) -> socket.socket:
    """Open a UDP socket as echod does."""
    return open_socket(listener(host, port), buffers, sibling=False)


def hear(server: socket.socket) -> tuple[bytes, Any]:
    """Wait for the next datagram to a server, which does not block by itself; return it with its source."""
    select.select([server], [], [], SECONDS)
    return server.recvfrom(65_536)


def udp_client(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Open a UDP socket that waits for a reply only so long."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if os.geteuid() == 0:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFERS.receive)
    sock.bind((host, port))
    sock.settimeout(SECONDS)
    return sock


def netlink() -> socket.socket:
    """Open a netlink socket as the service manager passes one (ListenNetlink=route)."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def at(server: socket.socket, host: str = "") -> tuple[str, int]:
    """Return where to send to reach a server: at its own address, or at that one."""
    own, port = server.getsockname()[:2]
    return host or own, port


def send_train(client: socket.socket, data: bytes, segment: int, to: tuple[str, int]) -> None:
    """Send datagrams of one length, but for the last, as one train (UDP_SEGMENT, udp(7))."""
    client.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", segment))], 0, to)


def queue(client: socket.socket, server: socket.socket, data: bytes, segment: int = 0, *, host: str = "") -> None:
    """Send a datagram, or with a segment length a train, to a server or that address of it; wait until it is queued."""
    if segment:
        deliver(server, send_train, client, data, segment, at(server, host))
    else:
        deliver(server, client.sendto, data, at(server, host))


def receive_train(client: socket.socket) -> tuple[bytes, int]:
    """Receive what the kernel hands over at once; return it with the segment length, zero where it is no train."""
    data, messages, _, _ = client.recvmsg(65_536, 64)
    sizes = [struct.unpack("i", value)[0] for _, kind, value in messages if kind == UDP_GRO]
    return data, sizes[0] if sizes else 0


def assert_nothing_more(client: socket.socket) -> None:
    """Prove that nothing is on its way to a client: what is sent to it now is what it receives next."""
    host, port = client.getsockname()[:2]
    with udp_client(host) as other:
        other.sendto(b"nothing before this", (host, port))
        assert client.recvfrom(65_536) == (b"nothing before this", other.getsockname())


def assert_got(client: socket.socket, *payloads: bytes) -> None:
    """Prove that a client gets these answers, in this order, and nothing else."""
    assert [client.recv(65_536) for _ in payloads] == list(payloads)
    assert_nothing_more(client)


def let_trains_fail(server: socket.socket, *, fail: bool = True) -> None:
    """Switch off the checksums of what a server sends, or on again: without them the kernel makes no trains.

    UDP_SEGMENT is EINVAL then (udp_send_skb in net/ipv4/udp.c).
    """
    if server.family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_UDP, _UDP_NO_CHECK6_TX, fail)
    else:
        server.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, fail)


def take_without_checksum(client: socket.socket) -> None:
    """Let a client receive also what has no checksum, which over IPv6 it would not."""
    if client.family == socket.AF_INET6:
        client.setsockopt(socket.IPPROTO_UDP, _UDP_NO_CHECK6_RX, 1)


def reset_on_close(sock: socket.socket) -> None:
    """Let close(2) break the connection, with what was not sent or read (SO_LINGER of 0 seconds)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(sock: socket.socket) -> None:
    """Break a connection."""
    reset_on_close(sock)
    sock.close()


def tcp_client(server: socket.socket, source: str = "", port: int = 0, *, buffers: int = 0) -> socket.socket:
    """Connect to a TCP server, from that address and port where they are given; waits for data only so long."""
    sock = socket.socket(server.family, socket.SOCK_STREAM)
    sock.settimeout(SECONDS)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF) if buffers else ():
        sock.setsockopt(socket.SOL_SOCKET, option, buffers)
    if source:
        sock.bind((source, port))
    sock.connect(server.getsockname()[:2])
    return sock


# -- datagrams that no ordinary socket sends


def inject(to: tuple[str, int], payload: bytes, *, source: str = "", source_port: int = 0, wrong: int = 0) -> None:
    """Send a datagram with this source address and port, loopback by default; add `wrong` to its checksum.

    Over IPv4 it has no checksum unless that is to be wrong.
    """
    length = 8 + len(payload)
    if ":" in to[0]:
        addresses = IPv6Address(source or "::1").packed + IPv6Address(to[0]).packed
        header = struct.pack("!LHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + addresses
    else:
        addresses = IPv4Address(source or "127.0.0.1").packed + IPv4Address(to[0]).packed
        header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    checksum = (_checksum(addresses, source_port, to[1], payload) + wrong) % 0xFFFF or 0xFFFF
    if ":" not in to[0] and not wrong:
        checksum = 0
    udp = struct.pack("!HHH", source_port, to[1], length) + struct.pack("=H", checksum) + payload
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + udp, (to[0], 0))


def _checksum(addresses: bytes, source_port: int, port: int, payload: bytes) -> int:
    """Return the checksum of a UDP datagram (RFC 768, RFC 8200 8.1) in our byte order, computed as in RFC 1071."""
    length = 8 + len(payload)
    summed = addresses + struct.pack("!LLHHH", length, socket.IPPROTO_UDP, source_port, port, length) + payload
    return -sum(memoryview(summed + bytes(-len(summed) % 4)).cast("I")) % 0xFFFF


def send_by_link(to: tuple[str, int], payload: bytes, source: str) -> None:
    """Put an Ethernet frame with an IPv4 datagram on the link of `add_link`, from its far end."""
    addresses = socket.inet_aton(source) + socket.inet_aton(to[0])
    udp = struct.pack("!HHHH", 40_000, to[1], 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    checksum = -sum(memoryview(header).cast("H")) % 0xFFFF  # RFC 1071, in our byte order
    header = header[:10] + struct.pack("=H", checksum) + header[12:]
    near = bytes.fromhex(json.loads(ip("-json", "link", "show", "near"))[0]["address"].replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packet:
        packet.bind(("far", 0))
        packet.send(near + bytes(6) + struct.pack("!H", 0x0800) + header + udp)


def poison(to: tuple[str, int], payload: bytes) -> None:
    """Send a datagram from port 0, to which no reply can be sent (EINVAL)."""
    inject(to, payload)


# -- a batch


def answer(batch: Batch, port: UdpSocket, *, refuse: bool = True) -> int:
    """Receive once and reply to it, but to what cannot be answered; return the slots. Asserts the invariant."""
    slots = batch.receive(port)
    refused = 0
    for slot in batch.truncated | batch.not_unicast if refuse else ():
        refused += batch.weight(slot)
        batch.refuse(slot, batch.weight(slot))
    reply.send(batch, port)
    assert batch.datagrams == refused + batch.replied + sum(batch.failures.values())
    return slots


# -- hosts and users


def ip(*arguments: str) -> str:
    """Configure the namespace that we are in, or look at it."""
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def add_link(address: str, *, mtu: int = 1500) -> None:
    """Add an Ethernet link with this address, such as 10.0.0.1/24. At its other end nobody answers."""
    ip("link", "add", "near", "mtu", str(mtu), "type", "veth", "peer", "name", "far")
    for name in ("near", "far"):
        ip("link", "set", name, "addrgenmode", "none")
        ip("link", "set", name, "up")
    Path("/proc/sys/net/ipv6/conf/far/disable_ipv6").write_text("1")
    ip("address", "add", address, *(("nodad",) if ":" in address else ("broadcast", "+")), "dev", "near")
    # Both ends: as each comes up the kernel looks at its routes anew, and may lose what is under way.
    wait_until(lambda: all("state UP" in ip("link", "show", name) for name in ("near", "far")), "the link up")
    if ":" in address:
        wait_for_address(address, "near")


def wait_for_address(address: str, link: str) -> None:
    """Wait until an IPv6 address, such as fe80::7/64, can be reached: its routes come a moment after it."""
    network = ip_network(address, strict=False)
    routes = [f"local {address.partition('/')[0]} ", *([f"{network} "] if network.num_addresses > 1 else [])]
    shown = ("-6", "route", "show", "table", "all", "dev", link)
    wait_until(lambda: all(route in ip(*shown) for route in routes), f"the routes of {address} on {link}")


@contextmanager
def namespace() -> Iterator[None]:
    """Be in a new network namespace, with loopback up. It is gone when its last socket is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0


def ip_batch(*lines: str) -> None:
    """Have ip(8) do many things at once."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), check=True, capture_output=True, text=True)


def as_nobody(function: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever JSON can carry
    """Return what a function returns in a child process without privileges."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write, json.dumps(function()).encode())
        except BaseException:  # noqa: BLE001 - nothing may return from the copy of pytest
            os.write(write, json.dumps({"raised": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        result = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert not (isinstance(result, dict) and "raised" in result), result["raised"]
    return result


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open no further descriptor, until one that it has is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Every gap is filled: a descriptor above one, when closed, would be of no use below the limit.
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    fillers = [os.dup(0)]
    while fillers[-1] <= highest:
        fillers.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1, hard))
    try:
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
