"""A server of UDPEchoPlus, of STAMP or of reveal, which impairs both directions by a plan and keeps an account.

Run as `python measuring_server.py OPTIONS PLAN`, both in JSON. It is written from TR-143 (A.1), RFC 8762 and RFC 8972
alone, and shares no code with echod. It writes its port at once, and its account when stdin ends. Impairments: those
with `out` befall a request before it is counted, the others its reply; a request that "failed" is counted as one that
could not be replied to (UDPEchoPlus).
"""

import hmac
import json
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress

from impairments import Plan, corrupt  # its neighbour, for it runs as a script

IP_RECVTTL, IP_RECVTOS = 12, 13  # linux/in.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 16 << 20
UNAUTHENTICATED = {"base": 44, "stamp": 4, "estimate": 12, "received": 16, "sequence": 24, "copy": 28, "ttl": 40}
AUTHENTICATED = {"base": 112, "stamp": 16, "estimate": 24, "received": 32, "sequence": 48, "copy": 64, "ttl": 80}


class MeasuringServer:
    """The server."""

    def __init__(self, options: dict[str, object], plan: Plan) -> None:
        """Open the port: `port` and `host`, by default one of 127.0.0.1."""
        self.plan = plan
        self.mode = options["mode"]
        self.key = str(options.get("key", "")).encode()
        self.stateful = bool(options.get("stateful"))
        self.shared = bool(options.get("shared"))
        self.before = int(str(options.get("before", 0)))
        self.sleep = float(str(options.get("sleep", 0)))
        self.dscp = int(str(options.get("dscp", 0)))
        self.began = time.monotonic_ns()
        self.counts: dict[object, list[int]] = {}
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with suppress(PermissionError):  # probes go on while this process waits for a CPU
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.dscp << 2)
        self.sock.bind((str(options.get("host", "127.0.0.1")), int(str(options.get("port", 0)))))
        self.port = self.sock.getsockname()[1]
        self.requests: list[tuple[bytes, tuple[str, int], int, int]] = []
        self.replies: list[tuple[bytes, tuple[str, int]]] = []

    def run(self) -> None:
        """Serve until stdin ends."""
        while True:
            ready, _, _ = select.select([sys.stdin, self.sock], [], [])
            if self.sock in ready:
                data, control, _, peer = self.sock.recvmsg(65_536, 256)
                fields = {kind: value[0] for _, kind, value in control}
                self.arrive(data, peer, fields.get(socket.IP_TTL, 0), fields.get(socket.IP_TOS, 0))
            elif ready == [sys.stdin]:
                return

    def arrive(self, data: bytes, peer: tuple[str, int], ttl: int, tos: int) -> None:
        """Do to a request what the plan says, on its way out."""
        impairment = self.plan.next()
        request = data, peer, ttl, tos
        if impairment == "overtaken out":
            self.requests.append(request)
            return
        if impairment == "drop out":
            return
        if impairment == "corrupt out":
            request = corrupt(data, len(data) - 1), peer, ttl, tos
        for _ in range(2 if impairment == "duplicate out" else 1):
            self.reply(request, impairment)
        while self.requests:
            self.reply(self.requests.pop(), "answer")

    def reply(self, request: tuple[bytes, tuple[str, int], int, int], impairment: str) -> None:
        """Count a request, and do to its reply what the plan says."""
        data, peer, ttl, tos = request
        received = time.time_ns()
        if self.sleep:
            time.sleep(self.sleep)
        count = self.counts.setdefault(None if self.shared else peer, [self.before, 0])
        count[impairment == "fail"] += 1
        reply = data
        if self.mode == "plus":
            reply = self.plus(data, received, count)
        elif self.mode == "stamp":
            reply = self.stamp(data, received, count, ttl, tos)
        elif self.mode == "reveal":
            reply = self.reveal(data, peer, received, ttl, tos)
        if impairment in ("drop", "fail"):
            return
        if impairment == "corrupt":
            reply = corrupt(reply, len(reply) - 1)
        if impairment == "overtaken":
            self.replies.append((reply, peer))
            return
        for _ in range(2 if impairment == "duplicate" else 1):
            self.sock.sendto(reply, peer)
        while self.replies:
            self.sock.sendto(*self.replies.pop())

    def plus(self, data: bytes, received: int, count: list[int]) -> bytes:
        """Return a reply of UDPEchoPlus: the clock counts microseconds from the start."""
        if len(data) < 24:
            return data
        since = received - time.time_ns() + time.monotonic_ns() - self.began
        stamps = [since // 1000, (time.monotonic_ns() - self.began) // 1000]
        return data[:4] + struct.pack(">IIII", count[0] % 2**32, *stamps, count[1]) + data[20:]

    def stamp(self, data: bytes, received: int, count: list[int], ttl: int, tos: int) -> bytes:
        """Return a reply of a STAMP reflector, which knows extra padding, class of service, and HMAC."""
        at = AUTHENTICATED if self.key else UNAUTHENTICATED
        reply = bytearray(data)
        sequence = struct.pack(">I", (count[0] - 1) % 2**32) if self.stateful else data[:4]
        reply[: at["base"]] = bytes(at["base"])
        reply[:4] = sequence
        put(reply, at["received"], ntp(received))
        put(reply, at["estimate"], b"\x80\x01")
        ssid = at["estimate"] + 2
        put(reply, ssid, data[ssid : ssid + 2])
        put(reply, at["sequence"], data[:4])
        put(reply, at["copy"], data[at["stamp"] : at["estimate"] + 2])
        reply[at["ttl"]] = ttl
        put(reply, at["stamp"], ntp(time.time_ns()))
        if self.key:
            put(reply, 96, self.code(bytes(reply[:96])))
        place = at["base"]
        while place + 4 <= len(data):
            kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
            reply[place] &= 0x7F
            if kind == 4:
                wanted = data[place + 4] >> 2
                field = wanted << 26 | (tos >> 2) << 20 | (tos & 3) << 18 | (wanted != self.dscp) << 16
                put(reply, place + 4, field.to_bytes(4, "big"))
            elif kind == 8:
                put(reply, place + 4, self.code(bytes(reply[:4] + reply[at["base"] : place])))
            place += 4 + length
        return bytes(reply)

    def reveal(self, data: bytes, peer: tuple[str, int], received: int, ttl: int, tos: int) -> bytes:
        """Return what was seen as JSON."""
        seen = {"peer": peer[0], "peer_port": peer[1], "local": self.sock.getsockname()[0], "local_port": self.port}
        seen |= {"ttl": ttl, "dscp": tos >> 2, "ecn": tos & 3, "length": len(data), "interface": "lo"}
        text = json.dumps(seen | {"received_ns": received, "train": 1}, separators=(",", ":")).encode()
        return text.ljust(len(data)) if len(text) <= len(data) else data

    def code(self, data: bytes) -> bytes:
        """Return the HMAC of a packet, or of its TLVs."""
        return hmac.digest(self.key, data, "sha256")[:16]


def put(into: bytearray, at: int, value: bytes) -> None:
    """Overwrite a field."""
    into[at : at + len(value)] = value


def ntp(time_ns: int) -> bytes:
    """Return a time as an NTP timestamp."""
    seconds, rest = divmod(time_ns, 10**9)
    return struct.pack(">II", seconds + 2_208_988_800, (rest << 32) // 10**9)


if __name__ == "__main__":
    plan = Plan(json.loads(sys.argv[2]))
    server = MeasuringServer(json.loads(sys.argv[1]), plan)
    os.write(1, f"{server.port}\n".encode())
    server.run()
    os.write(1, json.dumps(plan.account).encode())
