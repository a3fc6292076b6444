"""A bridge that impairs frames by a plan, and keeps an account: `echod ping` must report the same.

Run as `python impairing_bridge.py PLAN [udp|tcp|measured]` in a namespace with the links `near` (to the client) and
`far` (to the server). It writes the port of the impaired service at once, and its account, impairments and how often,
when stdin ends. It forwards everything else unchanged, also what TCP sends again. It impairs the probe on its way out
("... out") or the reply.

`measured` is UDP whose replies are not the same bytes: a probe is recognized by its last bytes. There each source port
has the whole plan, and an account of its own.
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

PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP, "measured": socket.IPPROTO_UDP}

UNIQUE_BYTES = 24
"""Bytes at the end of a measured probe that no other one has: number, send time and checksum."""

REMARKED = 10 << 2
"""The TOS byte of a packet that is "remarked": the DSCP AF11."""


@dataclass(slots=True, kw_only=True)
class Held:
    """A packet that is held back: a reply, or a probe on its way out."""

    frame: bytes
    due: float
    out: bool
    port: int
    """The source port of the probe, where each has its own plan; else 0."""
    overtaken: bool = False


class ImpairingBridge:
    """The bridge."""

    def __init__(self, impairments: list[str], protocol: str = "udp") -> None:
        """Open both links."""
        self._impairments = impairments
        self._plans: dict[int, Plan] = {}
        self._protocol = PROTOCOLS[protocol]
        self._measured = protocol == "measured"
        self._seen: set[bytes] = set()
        self._near, self._far = _link("near"), _link("far")
        self._fates: dict[bytes, str] = {}
        self._held: list[Held] = []

    @property
    def account(self) -> object:
        """Return what was done, and how often; of each source port by itself if that was measured."""
        accounts = {port: plan.account for port, plan in self._plans.items()}
        return accounts if self._measured else accounts.get(0, {})

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
        probe = self._probe(payload)
        if ports[1:] != (ECHO_PORT,) or not payload or probe in self._seen:
            self._far.send(frame)
            return
        self._seen.add(probe)
        port = ports[0] if self._measured else 0
        plan = self._plans.setdefault(port, Plan(self._impairments))
        impairment, _, way = plan.next().partition(" ")
        if not way:
            self._fates[probe] = impairment
        # One whose reply will not come as it is cannot show that it has overtaken another.
        self._pass(impairment if way or impairment == "answer" else "pass", frame, payload, out=port)

    def _carry_back(self, frame: bytes) -> None:
        payload, ports = _read(frame, self._protocol)
        impairment = self._fates.pop(self._probe(payload), "answer") if ports[:1] == (ECHO_PORT,) else ""
        self._pass(impairment, frame, payload, back=ports[1] if self._measured and ports else 0)

    def _probe(self, payload: bytes) -> bytes:
        """Return what the packet of a probe and that of its reply have in common."""
        return payload[-UNIQUE_BYTES:] if self._measured else payload

    def _pass(
        self, impairment: str, frame: bytes, payload: bytes, *, out: int | None = None, back: int | None = None
    ) -> None:
        """Carry a frame of a source port out or back."""
        way = out is not None, out or back or 0
        if impairment in HELD_SECONDS:
            due = time.monotonic() + HELD_SECONDS[impairment]
            self._held.append(Held(frame=frame, due=due, out=way[0], port=way[1]))
            return
        for copy in _copies(impairment, frame, payload, measured=self._measured):
            (self._far if way[0] else self._near).send(copy)
        if impairment == "answer":
            for held in self._held:
                held.overtaken |= (held.out, held.port) == way

    def _release(self) -> None:
        now = time.monotonic()
        ripe = [held for held in self._held if held.overtaken and held.due <= now]
        for held in ripe:
            (self._far if held.out else self._near).send(held.frame)
            self._held.remove(held)


def _copies(impairment: str, frame: bytes, payload: bytes, *, measured: bool) -> list[bytes]:
    """Return what becomes of a frame. A server that measures may overwrite what is in the middle."""
    if impairment == "drop":
        return []
    if impairment == "corrupt":
        return [corrupt(frame, len(frame) - (1 if measured else len(payload) // 2))]
    if impairment == "remarked":
        return [_remark(frame)]
    return [frame] * (2 if impairment == "duplicate" else 1)


def _remark(frame: bytes) -> bytes:
    """Return a frame with another DSCP; the checksum of the header of IPv4 (RFC 791) is right again."""
    marked, at = bytearray(frame), VNET + 14
    if frame[at] >> 4 == 6:
        marked[at : at + 2] = (frame[at] << 8 & 0xF000 | REMARKED << 4 | frame[at + 1] & 0xF).to_bytes(2)
        return bytes(marked)
    marked[at + 1], marked[at + 10 : at + 12] = REMARKED, b"\0\0"
    total = sum(int.from_bytes(marked[at + word : at + word + 2]) for word in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    marked[at + 10 : at + 12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2)
    return bytes(marked)


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
    bridge = ImpairingBridge(json.loads(sys.argv[1]), *sys.argv[2:])
    os.write(1, f"{ECHO_PORT}\n".encode())
    bridge.run()
    os.write(1, json.dumps(bridge.account).encode())
