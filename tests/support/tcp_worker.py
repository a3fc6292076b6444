"""A TCP echo for tests: a real listener and a real poll, turned by hand, at a time that the test says."""

import errno
import socket
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

from support.limited_poll import LimitedPoll
from support.loopback import BUFFERS, listener, tcp_client
from support.peers import access
from support.waiting import SECONDS

from echod.admission.rules import Access
from echod.linux.io_uring import SLOTS, IoUring
from echod.linux.poll import Poll
from echod.linux.sockets import open_socket
from echod.net.listener import Protocol
from echod.stats.counters import CounterPage, TcpField
from echod.stats.outcomes import Close
from echod.stats.refusals import Tally
from echod.tcp.connection import READ_BYTES, Connection
from echod.tcp.connections import Connections, IoBuffers, Timeouts
from echod.tcp.limits import ConnectionLedger
from echod.tcp.service import TcpEcho

NARROW = 16 * 1024
"""A buffer of the kernel's that is soon full."""


PLENTY = bytes(1 << 24)
"""More than the kernel takes at once."""


@contextmanager
def without_waiting(client: socket.socket) -> Iterator[None]:
    """Do what can be done at once; what would have to wait ends the block."""
    client.setblocking(False)
    try:
        with suppress(BlockingIOError):
            yield
    finally:
        client.settimeout(SECONDS)


def push(client: socket.socket, data: bytes | memoryview = PLENTY) -> int:
    """Send as much of this as the kernel takes at once; return how many bytes that is."""
    sent = 0
    with without_waiting(client):
        sent += client.send(data)
    return sent


def pull(client: socket.socket) -> bytes:
    """Receive what there is, without waiting."""
    got = bytearray()
    with without_waiting(client):
        while part := client.recv(1 << 20):
            got += part
    return bytes(got)


class WatchedRing(IoUring):
    """A ring that tells what it was asked for, and to which a test can do what may come between."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked: list[int] = []
        """How many streams there were to receive from, each time."""
        self.before_receive: Callable[[], object] = lambda: None
        self.before_send: Callable[[], object] = lambda: None
        self.means = SLOTS
        """For how many it has memory."""
        super().__init__()

    def receive(self, descriptors: memoryview) -> memoryview:
        """Receive as ever."""
        self.asked.append(len(descriptors))
        self.before_receive()
        results = super().receive(descriptors[: self.means])
        return memoryview(array("i", [*results, *([-errno.EAGAIN] * max(0, len(descriptors) - self.means))]))

    def send(self, lengths: memoryview) -> memoryview:
        """Send as ever."""
        self.before_send()
        return super().send(lengths)


class TcpWorker:
    """A TcpEcho with a real poll, turned by hand. The time is what the test says."""

    def __init__(  # noqa: PLR0913 - each is one of the limits under test
        self,
        host: str = "127.0.0.1",
        *,
        limit: int = 1000,
        limit_per_source: int = 1000,
        idle: float = 300.0,
        stall: float = 30.0,
        send_buffer: int = 0,
        deny: str = "192.0.2.0/24",
        test_port: int | None = None,
        without_ring: bool = False,
        mode: Callable[[Poll], Callable[..., Connections]] = lambda _: Connections,
    ) -> None:
        """Listen; a send buffer, where given, is that of every connection. All are allowed but those of one network.

        `mode` makes what makes the connections.
        """
        self.ring = None if without_ring else WatchedRing()
        where = listener(host, protocol=Protocol.TCP)
        self.server = open_socket(where, BUFFERS, sibling=False)
        if send_buffer:
            self.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            # What is received waits in a buffer as the kernel makes it at first: it is soon full, too.
            self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        places = limit + 2
        size = CounterPage.size(slots=1, listeners=1, places=places)
        page = CounterPage(memoryview(bytearray(size)), slots=1, listeners=[where], places=places)
        self.row = page.row(0, where)
        self.now = 1000.0
        self.poll = LimitedPoll()
        self.tally = Tally(0)
        ledger = ConnectionLedger(page, 0, limit=limit, limit_per_source=limit_per_source, secret=b"secret")
        self.echo = TcpEcho(
            self.server,
            poll=self.poll,
            io=IoBuffers(buffer=memoryview(bytearray(READ_BYTES)), io_uring=self.ring),
            access=Access(access(deny=[deny])),
            ledger=ledger,
            row=self.row,
            tally=self.tally,
            timeouts=Timeouts(idle=idle, stall=stall),
            test_port=test_port,
            connections=mode(self.poll),
        )
        self.connections = self.echo.connections
        self.echo.listen(self.now)

    def __enter__(self) -> Self:
        """Serve."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything that is open still."""
        for connection in self.connections.open.values():
            connection.sock.close()
        self.server.close()
        self.poll.close()
        if self.ring is not None:
            self.ring.close()

    @property
    def reading(self) -> list[Connection]:
        """Return the connections that are read from."""
        return [connection for connection in self.connections.open.values() if not connection.unsent]

    @property
    def writing(self) -> list[Connection]:
        """Return the connections to which bytes are due."""
        return [connection for connection in self.connections.open.values() if connection.unsent]

    def turn(self, seconds: float = 0.0) -> int:
        """Do one turn of the loop; return how many were ready. Asserts what holds after every turn."""
        ready = list(self.poll.wait(seconds))
        for on_ready in ready:
            reading, moved = len(self.reading), self.row[TcpField.RECEIVED_BYTES : TcpField.SENT_BYTES + 1].tolist()
            on_ready(self.now)
            received, sent = self.row[TcpField.RECEIVED_BYTES : TcpField.SENT_BYTES + 1].tolist()
            assert reading or sent > moved[1] or received == moved[0], "read while bytes were held"
        self.check()
        return len(ready)

    def check(self) -> None:
        """Assert that every connection is open or has ended once, and that little is unsent."""
        assert self.row[TcpField.ACCEPTED] == len(self.echo.connections) + sum(self.row[TcpField.CLOSED :])
        held = [len(connection.unsent) for connection in self.writing]
        assert max(held, default=0) <= READ_BYTES
        if not self.closed():
            assert self.row[TcpField.RECEIVED_BYTES] == self.row[TcpField.SENT_BYTES] + sum(held)

    def turn_until(self, condition: Callable[[], bool], what: str) -> None:
        """Do turns until a condition comes."""
        deadline = time.monotonic() + SECONDS
        self.turn(0.01)
        while not condition():
            assert time.monotonic() < deadline, f"turned in vain until {what}"
            self.turn(0.01)

    def pass_time(self, seconds: float) -> None:
        """Let so much time go by, and do what it brings."""
        self.now += seconds
        self.echo.on_deadline(self.now)
        self.check()

    def connect(self, source: str = "", *, buffers: int = 0) -> socket.socket:
        """Connect a client, with buffers of so many bytes where they are given, and accept it."""
        accepted = self.row[TcpField.ACCEPTED]
        client = tcp_client(self.server, source, buffers=buffers)
        self.turn_until(lambda: self.row[TcpField.ACCEPTED] > accepted, "the connection accepted")
        return client

    def exchange(self, words: Mapping[socket.socket, bytes], *, half_close: bool = False) -> None:
        """Let all these clients send at once, and perhaps say that this was all; assert that each gets its own back."""
        left = {client: memoryview(word) for client, word in words.items()}
        got = {client: bytearray() for client in words}

        def moved() -> bool:
            for client, unsent in left.items():
                if unsent:
                    left[client] = unsent[push(client, unsent) :]
                    if half_close and not left[client]:
                        client.shutdown(socket.SHUT_WR)
                got[client] += pull(client)
            return all(len(got[client]) >= len(word) for client, word in words.items())

        moved()
        self.turn_until(moved, "every byte back")
        assert got == words

    def read(self, client: socket.socket, octets: int | None = None) -> bytes:
        """Do turns until so many bytes have come, or the end; return what came."""
        got = bytearray()

        def came() -> bool:
            with without_waiting(client):
                while octets is None or len(got) < octets:
                    part = client.recv(1 << 20)
                    if not part:
                        return True
                    got.extend(part)
            return len(got) == octets

        self.turn_until(came, "every byte, or the end")
        return bytes(got)

    def stuff(self, client: socket.socket, payload: bytes) -> bytes:
        """Let a client send and not read, until bytes are held for it and it can send no more.

        Returns what it sent: the payload, or a part of it, again and again.
        """
        already, sent = len(self.writing), bytearray()

        def stuck() -> bool:
            quiet = not self.turn() and len(self.writing) > already
            taken = push(client, payload)
            sent.extend(payload[:taken])
            return quiet and not taken

        self.turn_until(stuck, "a connection that holds bytes")
        return bytes(sent)

    def connect_stuck(self, payload: bytes = bytes(READ_BYTES)) -> tuple[socket.socket, bytes]:
        """Connect a client that is stuffed; return it with what it sent."""
        client = self.connect(buffers=NARROW)
        return client, self.stuff(client, payload)

    def closed(self) -> dict[str, int]:
        """Return why connections ended, and how many of each."""
        counts = {reason.name: self.row[TcpField.CLOSED + reason] for reason in Close}
        return {name: count for name, count in counts.items() if count}


Connect = Callable[[TcpWorker, int], list[socket.socket]]
"""Makes so many clients of a worker."""
