"""The exporter's HTTP server with one page, whose loop the test turns and whose time it sets."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.waiting import wait_until

from echod.linux.poll import Poll
from echod.metrics.http_server import HttpServer, Request, Respond, Response, Withdraw

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A server of one page, turned by hand."""

    def __init__(self, host: str) -> None:
        """Listen on a free port."""
        six = ":" in host
        family = socket.AF_INET6 if six else socket.AF_INET
        self.door = socket.create_server((host, 0), family=family, dualstack_ipv6=six)
        self.door.setblocking(False)
        self.address = ("127.0.0.1", self.door.getsockname()[1])
        self.poll = Poll()
        self.requests: list[Request] = []
        self.held: list[Respond] = []
        self.page = b"hello"
        self.server = HttpServer([self.door], hosts=["echo.example.com"], poll=self.poll, on_request=self.answer)

    def answer(self, request: Request, respond: Respond) -> Withdraw | None:
        """Answer `/later` when the test says so, and all else at once."""
        self.requests.append(request)
        if request.path == "/later":
            self.held.append(respond)
            return lambda: self.held.remove(respond)
        respond(Response(body=self.page, headers=(("X-Test", "yes"),)))
        return None

    def turn(self, now: float = 0.0) -> None:
        """Turn the loop once."""
        for on_ready in self.poll.wait(0.0):
            on_ready(now)

    def turn_until(self, condition: Callable[[], bool], what: str) -> None:
        """Turn the loop until a condition is true."""

        def true() -> bool:
            self.turn()
            return condition()

        wait_until(true, what)

    def connect(self) -> socket.socket:
        """Connect a client and have it accepted."""
        client = socket.create_connection(self.address)
        client.setblocking(False)
        self.turn()
        return client

    def ask(self, request: bytes = GET) -> tuple[str, dict[str, str], bytes]:
        """Return status line, headers and body of the answer to one request."""
        with self.connect() as client:
            client.send(request)
            return self.read(client)

    def read(self, client: socket.socket) -> tuple[str, dict[str, str], bytes]:
        """Return what a client is sent until the end."""
        whole = b""

        def ended() -> bool:
            nonlocal whole
            self.turn()
            try:
                data = client.recv(1 << 20)
            except BlockingIOError:
                return False
            whole += data
            return not data

        wait_until(ended, "the end of the response")
        head, _, body = whole.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return first, dict(line.split(": ", 1) for line in lines), body


@contextmanager
def serve(host: str) -> Iterator[Served]:
    """Serve there, and close all at the end."""
    served = Served(host)
    yield served
    served.server.on_deadline(float("inf"))
    served.door.close()
    served.poll.close()
