"""The echo that a Python programmer writes first, on three event loops, and the least that Python can do over TCP.

Usage: event_echo.py asyncio|uvloop|twisted|epoll udp|tcp PORT. Owns one server on 127.0.0.1; never looks at what it
echoes. `epoll` has nothing but an epoll, a receive and a send: no limit, no count, no time, and whoever does not read
holds up all others.
Its socket has the receive buffer that the C peers have.
"""

import asyncio
import ctypes
import importlib
import select
import signal
import socket
import sys
from typing import Any

HOST = "127.0.0.1"
RECEIVE_BUFFER = 8 << 20
SO_RCVBUFFORCE = 33
PR_SET_PDEATHSIG = 1


class Datagrams(asyncio.DatagramProtocol):
    """Every datagram goes back."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's is of no class that asyncio knows
        """Keep the way back."""
        self._send = transport.sendto

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401 - an address
        """Send it back."""
        self._send(data, addr)


class Stream(asyncio.Protocol):
    """Every byte goes back."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as above
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self._transport.write(data)


def bound(port: int) -> socket.socket:
    """Return a UDP socket with room for a burst."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    enlarge(sock)
    sock.bind((HOST, port))
    return sock


def enlarge(sock: socket.socket) -> None:
    """Give it the receive buffer of the C peers, as far as this user may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


async def serve(protocol: str, port: int) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    if protocol == "udp":
        await loop.create_datagram_endpoint(Datagrams, sock=bound(port))
    else:
        await loop.create_server(Stream, HOST, port, backlog=4096)
    await asyncio.Event().wait()


def twisted(protocol: str, port: int) -> None:
    """Serve for ever, with Twisted's own examples of an echo."""
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    parts: Any = importlib.import_module("twisted.internet.protocol")

    def datagram_received(self: Any, datagram: bytes, address: Any) -> None:  # noqa: ANN401 - Twisted's
        self.transport.write(datagram, address)

    def data_received(self: Any, data: bytes) -> None:  # noqa: ANN401 - Twisted's
        self.transport.write(data)

    if protocol == "udp":
        echo = type("Echo", (parts.DatagramProtocol,), {"datagramReceived": datagram_received})
        enlarge(reactor.listenUDP(port, echo(), interface=HOST, maxPacketSize=65536).getHandle())
    else:
        echo = type("Echo", (parts.Protocol,), {"dataReceived": data_received})
        factory = parts.Factory.forProtocol(echo)
        reactor.listenTCP(port, factory, interface=HOST, backlog=4096)
    reactor.run()


def bare_epoll(port: int) -> None:
    """Serve streams for ever."""
    listener = socket.create_server((HOST, port), backlog=4096)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    calls: dict[int, tuple[socket.socket, Any, Any]] = {}
    buffer = memoryview(bytearray(65_536))
    while True:
        for fd, _ in poll.poll(-1, 256):
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                calls[sock.fileno()] = sock, sock.recv_into, sock.sendall
                poll.register(sock.fileno(), select.EPOLLIN)
                continue
            sock, receive, send = calls[fd]
            try:
                received = receive(buffer)
                send(buffer[:received])
            except OSError:
                received = 0
            if not received:
                del calls[fd]
                sock.close()


def main() -> None:
    """Serve until ended."""
    flavour, protocol, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # nobody stops it when the benchmark is killed
    if flavour == "twisted":
        twisted(protocol, port)
    elif flavour == "epoll":
        bare_epoll(port)
    elif flavour == "uvloop":
        importlib.import_module("uvloop").run(serve(protocol, port))
    else:
        asyncio.run(serve(protocol, port))


if __name__ == "__main__":
    main()
