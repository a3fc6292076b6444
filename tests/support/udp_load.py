"""A paced UDP load in a process of its own, which says at the end exactly which datagrams got no answer.

Each datagram carries its number; each answer must come back whole, once, on the socket that asked, from the address
asked (the sockets are connected). A load for measuring modes is of STAMP requests, whose answers may be of a listener
that echoes, of UDPEchoPlus or of a stateless STAMP: all leave the number where it is. Ran as a program, this file is
that process: it sends until its stdin ends, waits until the last answer is overdue, and writes its report as JSON.
"""

import json
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final, Self

RATE: Final = 20_000
"""Datagrams a second."""

SOCKETS: Final = 48
"""Enough that every worker's socket is some client's."""

BUFFER_BYTES: Final = 8 << 20
CHUNK: Final = 64
"""Datagrams that may be sent before the answers are looked at again."""

PAYLOAD_NUMBERS: Final = 8
"""The number, so many times: 64 bytes."""

STAMP_BYTES: Final = 44
"""A request and its answer (RFC 8762, 4.2.1); the number is in the first four bytes."""

SETTLE_SECONDS: Final = 3.0
"""Without any answer for so long, those that are missing are lost."""

SO_RCVBUFFORCE: Final = 33


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the load."""

    sent: int
    seconds: float
    lost: list[int]
    """The number of each datagram without an answer."""
    repeated: int
    wrong: int
    refused: int
    """Sends that the kernel refused; those datagrams count as not sent."""

    @property
    def rate(self) -> float:
        """Return the datagrams a second that were truly sent."""
        return self.sent / self.seconds

    def __str__(self) -> str:
        """Say the figures in one line."""
        return (
            f"{self.sent:,} datagrams in {self.seconds:.1f} s ({self.rate:,.0f}/s): "
            f"{len(self.lost)} lost, {self.repeated} repeated, {self.wrong} wrong, {self.refused} refused"
        )


class UdpLoad:
    """The load, while it runs."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", rate: int = RATE, measuring: bool = False) -> None:
        """Start it, and wait until its first answer came."""
        arguments = json.dumps({"port": port, "host": host, "rate": rate, "measuring": measuring})
        command = [sys.executable, __file__, arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "answered\n"

    def finish(self) -> Report:
        """Stop sending; return what became of the load."""
        output, _ = self._process.communicate(timeout=60)
        report = Report(**json.loads(output))
        print(report)  # noqa: T201 - pytest shows it with -s and where the test fails
        return report

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End it, if it still runs."""
        with self._process:
            self._process.kill()


class _Sender:
    """The loop of the load process."""

    def __init__(self, host: str, port: int, *, measuring: bool) -> None:
        self._measuring = measuring
        self.answered = bytearray()
        self.missing = self.repeated = self.wrong = self.refused = 0
        self.last_answer = time.monotonic()
        self._socks = [self._client(host, port) for _ in range(SOCKETS)]
        self._epoll = select.epoll()
        for sock in self._socks:
            self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._index = {sock.fileno(): index for index, sock in enumerate(self._socks)}

    @staticmethod
    def _client(host: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        sock.setblocking(False)
        sock.connect((host, port))
        return sock

    def send(self, count: int) -> None:
        first = len(self.answered)
        for number in range(first, first + count):
            try:
                self._socks[number % len(self._socks)].send(self._payload(number))
            except OSError:
                self.refused += 1
                self.answered.append(1)  # never sent, so nothing is due
            else:
                self.missing += 1
                self.answered.append(0)

    def _payload(self, number: int) -> bytes:
        if self._measuring:
            return number.to_bytes(4, "big").ljust(STAMP_BYTES, b"\0")
        return number.to_bytes(8, "big") * PAYLOAD_NUMBERS

    def receive(self, seconds: float) -> None:
        for fd, _ in self._epoll.poll(seconds):
            index = self._index[fd]
            recv = self._socks[index].recv
            try:
                while True:
                    self._take(recv(65_536), index)
            except OSError:
                continue

    def _take(self, answer: bytes, index: int) -> None:
        number = int.from_bytes(answer[: 4 if self._measuring else 8], "big")
        exact = len(answer) == STAMP_BYTES if self._measuring else answer == answer[:8] * PAYLOAD_NUMBERS
        if not exact or number >= len(self.answered) or number % len(self._socks) != index:
            self.wrong += 1
        elif self.answered[number]:
            self.repeated += 1
        else:
            self.answered[number] = 1
            self.missing -= 1
            self.last_answer = time.monotonic()


def main(host: str, port: int, rate: int, *, measuring: bool) -> None:
    """Be the load process."""
    sender = _Sender(host, port, measuring=measuring)
    begin = time.monotonic()
    printed = False
    while not select.select([sys.stdin], [], [], 0)[0]:
        due = int((time.monotonic() - begin) * rate) - len(sender.answered)
        sender.send(min(due, CHUNK))
        sender.receive(0 if due > CHUNK else 0.0005)
        if not printed and 1 in sender.answered:
            printed = True
            print("answered", flush=True)  # noqa: T201 - to the test
    seconds = time.monotonic() - begin
    sender.last_answer = time.monotonic()
    while sender.missing and time.monotonic() - sender.last_answer < SETTLE_SECONDS:
        sender.receive(0.1)
    lost = [number for number, answered in enumerate(sender.answered) if not answered]
    sent = len(sender.answered) - sender.refused
    report = {"sent": sent, "seconds": seconds, "lost": lost}
    report |= {"repeated": sender.repeated, "wrong": sender.wrong, "refused": sender.refused}
    print(json.dumps(report))  # noqa: T201 - to the test


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
