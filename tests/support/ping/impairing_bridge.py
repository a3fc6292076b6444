"""A bridge that impairs frames by a plan, and keeps an account: `echod ping` must report the same.

Run as `python impairing_bridge.py PLAN [udp|tcp]` in a namespace with the links `near` (to the client) and `far` (to
the server). It writes the port of the impaired service at once, and its account, impairments and how often, when stdin
ends. It forwards everything else unchanged, also what TCP sends again. It impairs the probe on its way out ("... out")
or the reply.
"""

import json
import os
import select
import socket
import sys
import time
from dataclasses import dataclass

from impairments import Plan, corrupt  # its neighbour, for it runs as a script

ECHO_PORT = 7
FRAME_BYTES = 1 << 17

HELD_SECONDS = {"overtaken": 0.0, "delay": 0.05, "late": 2.2}
"""Impairments that hold a reply back: for so long, and until another one has passed."""

# linux/if_packet.h and linux/if_ether.h
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 16 << 20  # no frame is lost that is not in the account

VNET = 10  # a virtio_net_hdr: with it, checksums that the kernel has left to the hardware pass as such
HEADERS = {b"\x08\x00": (9, 20, 2, 0), b"\x86\xdd": (6, 40, 4, 40)}
"""By EtherType: where the IP header says what it carries, how long it is, where it says how long the packet is, and
how many bytes that leaves out."""

PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}


@dataclass(slots=True, kw_only=True)
class Held:
    """A reply that is held back."""

    frame: bytes
    due: float
    overtaken: bool = False


class ImpairingBridge:
    """The bridge."""

    def __init__(self, plan: Plan, protocol: str = "udp") -> None:
        """Open both links."""
        self._plan = plan
        self._protocol = PROTOCOLS[protocol]
        self._seen: set[bytes] = set()
        self._near, self._far = _link("near"), _link("far")
        self._fates: dict[bytes, str] = {}
        self._held: list[Held] = []

    def run(self) -> None:
        """Carry frames until stdin ends."""
        while True:
            ready, _, _ = select.select([sys.stdin, self._near, self._far], [], [], 0.01)
            if self._near in ready:
                self._carry_out(self._near.recv(FRAME_BYTES))
            if self._far in ready:
                self._carry_back(self._far.recv(FRAME_BYTES))
            self._release()
            if ready == [sys.stdin]:
                return  # with an account of all that has come

    def _carry_out(self, frame: bytes) -> None:
        payload, ports = _read(frame, self._protocol)
        if ports[1:] != (ECHO_PORT,) or not payload or payload in self._seen:
            self._far.send(frame)
            return
        self._seen.add(payload)
        impairment, _, way = self._plan.next().partition(" ")
        if not way:
            self._fates[payload] = impairment
        for copy in _copies(impairment if way else "answer", frame, payload):
            self._far.send(copy)

    def _carry_back(self, frame: bytes) -> None:
        payload, ports = _read(frame, self._protocol)
        impairment = self._fates.pop(payload, "answer") if ports[:1] == (ECHO_PORT,) else ""
        if impairment in HELD_SECONDS:
            self._held.append(Held(frame=frame, due=time.monotonic() + HELD_SECONDS[impairment]))
            return
        for copy in _copies(impairment, frame, payload):
            self._near.send(copy)
        if impairment == "answer":
            for held in self._held:
                held.overtaken = True

    def _release(self) -> None:
        now = time.monotonic()
        ripe = [held for held in self._held if held.overtaken and held.due <= now]
        for held in ripe:
            self._near.send(held.frame)
            self._held.remove(held)


def _copies(impairment: str, frame: bytes, payload: bytes) -> list[bytes]:
    """Return what becomes of a frame."""
    if impairment == "drop":
        return []
    if impairment == "corrupt":
        return [corrupt(frame, len(frame) - len(payload) // 2)]
    return [frame] * (2 if impairment == "duplicate" else 1)


def _read(frame: bytes, protocol: int) -> tuple[bytes, tuple[int, ...]]:
    """Return payload, source port and destination port of a packet of a protocol; nothing of any other frame."""
    packet = frame[VNET + 14 :]
    carries, header, length, left_out = HEADERS.get(frame[VNET + 12 : VNET + 14], (0, 0, 0, 0))
    if not header or packet[carries] != protocol:
        return b"", ()
    ports = tuple(int.from_bytes(packet[at : at + 2]) for at in (header, header + 2))
    begin = header + (8 if protocol == socket.IPPROTO_UDP else 4 * (packet[header + 12] >> 4))
    return packet[begin : int.from_bytes(packet[length : length + 2]) + left_out], ports


def _link(name: str) -> socket.socket:
    # Protocol 0 hears nothing, so that nothing of another link is in its queue when it is bound to one.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.bind((name, ETH_P_ALL))
    return sock


if __name__ == "__main__":
    plan = Plan(json.loads(sys.argv[1]))
    bridge = ImpairingBridge(plan, *sys.argv[2:])
    os.write(1, f"{ECHO_PORT}\n".encode())
    bridge.run()
    os.write(1, json.dumps(plan.account).encode())
