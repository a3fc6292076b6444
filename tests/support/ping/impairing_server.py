"""An echo server that impairs replies by a plan, and keeps an account: `echod ping` must report the same.

Run as `python impairing_server.py PLAN [HOST [trains]]`, where PLAN is JSON: a list of impairments, applied in turn. It
writes its port at once, and its account, impairments and how often, when stdin ends. With `trains` it receives and
sends trains of datagrams, and an impairment applies to a train, or to a byte of it.
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from impairments import Plan, corrupt  # its neighbour, for it runs as a script

LATE_SECONDS = 0.6
UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 16 << 20


class ImpairingServer:
    """The server."""

    def __init__(self, impairments: Sequence[str], host: str = "127.0.0.1", trains: str = "") -> None:
        """Open the port, and another one for answers from elsewhere."""
        self.plan = Plan(impairments)
        self._sock, self._other = _open(host), _open(host)
        if trains:
            self._sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self.port = self._sock.getsockname()[1]
        self._held: list[tuple[bytes, tuple[str, int]]] = []
        self._later: list[tuple[float, bytes, tuple[str, int]]] = []

    def run(self) -> None:
        """Serve until stdin ends."""
        while True:
            ready, _, _ = select.select([sys.stdin, self._sock], [], [], 0.02)
            if self._sock in ready:
                self._serve()
            while self._later and self._later[0][0] <= time.monotonic():
                _, data, peer = self._later.pop(0)
                self._sock.sendto(data, peer)
            if ready == [sys.stdin] and not self._later:
                return  # with an account of all that has come

    def _serve(self) -> None:
        data, control, _, peer = self._sock.recvmsg(65_536, 64)
        cut = [(level, UDP_SEGMENT, value[:2]) for level, kind, value in control if kind == UDP_GRO]
        impairment = self.plan.next()
        middle = len(data) // 2
        copies = {
            "drop": [],
            "duplicate": [data, data],
            "corrupt": [corrupt(data, middle)],
            "corrupt the number": [corrupt(data, 0)],
            "truncate": [data[:middle]],
            "extend": [data + b"more"],
        }.get(impairment, [data])
        if impairment == "overtaken":
            self._held.append((data, peer))
            return
        if impairment == "late":
            self._later.append((time.monotonic() + LATE_SECONDS, data, peer))
            return
        if impairment == "foreign":
            self._sock.sendto(b"what is this, and who are you to ask for it?", peer)
        sender = self._other if impairment == "elsewhere" else self._sock
        for copy in copies:
            sender.sendmsg([copy], cut, 0, peer)
        if self._held:
            self._sock.sendto(*self._held.pop())


def _open(host: str) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind)
    with suppress(PermissionError):  # a flood goes on while this process waits for a CPU
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    sock.bind(address)
    return sock


if __name__ == "__main__":
    server = ImpairingServer(json.loads(sys.argv[1]), *sys.argv[2:])
    os.write(1, f"{server.port}\n".encode())
    server.run()
    os.write(1, json.dumps(server.plan.account).encode())
