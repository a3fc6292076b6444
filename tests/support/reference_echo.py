"""The echo to compare with: one datagram at a time, one system call for each step, and nothing learned from any.

It answers in the process of the test, and only when it is told to. On loopback a datagram is in the queue when its send
returns, so it then answers all that was sent, in order.
"""

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Final, Self

from support.loopback import BUFFERS

from echod.linux.sockopt import SO_RCVBUFFORCE

IP_PKTINFO: Final = 8
MIN_SOURCE_PORT: Final = 1024
Address = tuple[str, int]


class Reference:
    """An echo on these addresses and ports, with the rules on source ports that echod has by default."""

    def __init__(self, addresses: Iterable[Address], own_ports: Iterable[int]) -> None:
        """Open the sockets. `own_ports` are those that no datagram may come from."""
        self._stack = ExitStack()
        self._own = frozenset(own_ports)
        self.outcomes: Counter[str] = Counter()
        self._sockets = [self._stack.enter_context(self._open(*address)) for address in addresses]

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the sockets."""
        self._stack.close()

    @staticmethod
    def _open(host: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFERS.receive)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setblocking(False)
        sock.bind((host, port))
        return sock

    def serve(self) -> None:
        """Answer all that is queued."""
        for sock in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    self._echo(sock)

    def _echo(self, sock: socket.socket) -> None:
        data, [(level, kind, info)], _, peer = sock.recvmsg(65_536, 64)
        self.outcomes["received"] += 1
        if refused := self._refuses(peer[1]):
            self.outcomes[refused] += 1
            return
        if level == socket.IPPROTO_IP:
            _, local, _ = struct.unpack("=i4s4s", info)
            info = struct.pack("=i4s4s", 0, local, bytes(4))
        else:
            info = info[:16] + bytes(4)
        assert sock.sendmsg([data], [(level, kind, info)], 0, peer) == len(data)
        self.outcomes["replied"] += 1

    def _refuses(self, port: int) -> str:
        if port == 0:
            return "dropped_source_port_zero"
        if port in self._own:
            return "dropped_source_port_own"
        return "dropped_source_port_low" if port < MIN_SOURCE_PORT else ""
