"""A wire of one's own: a server's and a client's network namespace, joined by a veth pair.

Owns both namespaces, what is sent into the wire by hand, and what is seen coming out of it. Nothing of it touches a
network of the machine. Invariant: what the server sends over the wire or to itself is seen, each datagram once.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Final, Self

from support.daemon import connect_udp
from support.loopback import ip
from support.netns.datagrams import (
    CLIENT,
    CLIENT6,
    CLIENT_LINK,
    CLIENT_MAC,
    SENDER,
    SENDER6,
    SERVER,
    SERVER6,
    SERVER_LINK,
    SERVER_MAC,
    Datagram,
    read,
)
from support.system.network import entered, namespaces, set_kernel
from support.waiting import SECONDS

from echod.linux.sockopt import SO_RCVBUFFORCE

LINK: Final = "eth0"
"""The name of either end, in its namespace."""

_STRICT: Final = ("ipv4/conf/{}/rp_filter", "ipv4/conf/{}/accept_local", "ipv4/conf/{}/route_localnet")
"""Settings that a new namespace may inherit, as the kernel has them where nobody has changed them: all off."""

_BUFFER_BYTES: Final = 64 << 20
_FRAME_BYTES: Final = 1 << 17
_MOST_FRAMES: Final = 20_000
"""More than any test asks for."""

# linux/if_packet.h and linux/if_ether.h
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_ETH_P_ALL: Final = 3
_NO_TRAIN: Final = bytes(10)  # a virtio_net_hdr that says nothing


class Wire:
    """Two namespaces with addresses of both families, and packet sockets on the client's end and the server's `lo`."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Lay the wire."""
        with ExitStack() as stack:
            self.server, self.client = stack.enter_context(namespaces("server", "client"))
            self._lay()
            self._injector = stack.enter_context(_packet_socket(self.client, 0))
            self._injector.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._seen = stack.enter_context(_packet_socket(self.client, _ETH_P_ALL))
            self._overheard = stack.enter_context(_packet_socket(self.server, _ETH_P_ALL, "lo"))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove both namespaces; the pair goes with them."""
        self._cleanup.close()

    def _lay(self) -> None:
        for name, setting, which in product((self.server, self.client), _STRICT, ("all", "default")):
            set_kernel(name, setting.format(which), 0)
        ends = (
            (self.server, SERVER_MAC, SERVER, SERVER6, SERVER_LINK),
            (self.client, CLIENT_MAC, CLIENT, CLIENT6, CLIENT_LINK),
        )
        ip("-n", self.server, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", self.client)
        for name, mac, address, address6, link_address in ends:
            # One datagram a frame leaves either end, as on a cable; left to itself a veth carries trains as they are.
            ip("-n", name, "link", "set", LINK, "address", mac, "addrgenmode", "none", "gso_max_segs", "1")
            ip("-n", name, "address", "add", f"{address}/24", "broadcast", "+", "dev", LINK)
            for each in (address6, link_address):
                ip("-n", name, "address", "add", f"{each}/64", "dev", LINK, "nodad")
            ip("-n", name, "link", "set", LINK, "up")
        # All answers of the server have a way to the wire, whoever they are for: none is lost unseen.
        for address in (CLIENT, CLIENT6, CLIENT_LINK, SENDER, SENDER6):
            self.know(address)
        ip("-n", self.server, "route", "add", "default", "via", CLIENT)
        ip("-n", self.server, "-6", "route", "add", "default", "via", CLIENT6, "dev", LINK)
        for address in (SERVER, SERVER6, SERVER_LINK):
            ip("-n", self.client, "neighbour", "replace", address, "lladdr", SERVER_MAC, "dev", LINK)

    # -- the two hosts

    def know(self, address: str) -> None:
        """Tell the server that this neighbour is the client's station."""
        ip("-n", self.server, "neighbour", "replace", address, "lladdr", CLIENT_MAC, "dev", LINK)

    def configure(self, *arguments: str) -> None:
        """Run ip(8) on the server."""
        ip("-n", self.server, *arguments)

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Have the server's kernel let through what it takes for a Martian (RFC 1812, 5.3.7) when left to itself."""
        settings = [f"ipv4/conf/{LINK}/{name}" for name in ("accept_local", "route_localnet")]
        for setting in settings:
            set_kernel(self.server, setting, 1)
        try:
            yield
        finally:
            for setting in settings:
                set_kernel(self.server, setting, 0)

    def client_of(self, host: str, port: int) -> socket.socket:
        """Return an ordinary client's socket, connected to the server."""
        with entered(self.client):
            return connect_udp(host, port)

    def listen(self, host: str, port: int, name: str = "") -> socket.socket:
        """Return an ordinary UDP socket of another service, on the server or in that namespace."""
        with entered(name or self.server):
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(SECONDS)
        sock.bind((host, port))
        return sock

    # -- the frames

    def inject(self, frame: bytes, header: bytes = _NO_TRAIN) -> None:
        """Send a frame to the server as it is, behind its `virtio_net_hdr`."""
        self._injector.send(header + frame)

    def replies(self) -> list[Datagram]:
        """Return what the server has sent over the wire since last asked."""
        return _read_all(self._seen)

    def whispers(self) -> list[Datagram]:
        """Return what went over the server's own loopback interface since last asked."""
        return _read_all(self._overheard)


def _packet_socket(name: str, protocol: int, link: str = LINK) -> socket.socket:
    with entered(name):
        # Protocol 0 hears nothing, so that nothing of another interface is in its queue when it is bound to one.
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER_BYTES)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.bind((link, protocol))
    return sock


def _read_all(sock: socket.socket) -> list[Datagram]:
    """Read what a packet socket has in its queue."""
    datagrams: list[Datagram] = []
    for _ in range(_MOST_FRAMES):
        try:
            frame = sock.recv(_FRAME_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return datagrams
        if datagram := read(frame):
            datagrams.append(datagram)
    raise AssertionError(f"more than {_MOST_FRAMES:,} frames, and no end: a loop")
