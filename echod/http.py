"""A small HTTP server for the exporter: GET and HEAD, one request for each connection.

Owns the connections, their number and their time; the grammar of a request is the standard library's. Never decides
what is answered. Invariant: no client, slow or silent, keeps another from being served: there are at most
MAX_CONNECTIONS, the oldest goes where one more comes, and none is there for longer than SECONDS.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Final

from echod.poll import READ, WRITE, OnReady, Poll

MAX_CONNECTIONS: Final = 32
"""A Prometheus or two, some browsers, and room for those that say nothing."""

SECONDS: Final = 10.0
"""From accept to the last byte; the usual scrape timeout of Prometheus."""

MAX_HEAD_BYTES: Final = 16_384
_READ_BYTES: Final = 16_384

ALLOWED: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: a path without its query, and what the client takes."""

    path: str
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What is answered."""

    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes


Respond = Callable[[Response], None]
"""To be called once, now or later; where the client is gone by then, it does nothing."""

Answer = Callable[[Request, Respond], None]


class HttpServer:
    """Serves the doors, which are listening sockets, until they are closed."""

    def __init__(self, doors: Sequence[socket.socket], *, poll: Poll, answer: Answer) -> None:
        """Begin to accept."""
        self._doors = list(doors)
        self._poll = poll
        self._answer = answer
        self._connections: dict[int, _Connection] = {}
        for door in self._doors:
            poll.register(door.fileno(), READ, lambda now, door=door: self._on_door(door, now))  # type: ignore[misc]

    @property
    def busy(self) -> bool:
        """Whether there is any connection."""
        return bool(self._connections)

    def next_deadline(self) -> float | None:
        """Return when `on_deadline` is to be called next, or None."""
        return next((each.deadline for each in self._connections.values()), None)  # they are in the order of coming

    def on_deadline(self, now: float) -> None:
        """Let those go whose time is over."""
        for each in [each for each in self._connections.values() if each.deadline <= now]:
            each.close()

    def close_doors(self) -> None:
        """Accept no more."""
        for door in self._doors:
            self._poll.unregister(door.fileno())
            door.close()
        self._doors = []

    def _on_door(self, door: socket.socket, now: float) -> None:
        try:
            sock, _ = door.accept()
        except OSError:
            return  # another exporter was faster, the client has left, or there is no descriptor just now
        if len(self._connections) >= MAX_CONNECTIONS:
            next(iter(self._connections.values())).close()
        sock.setblocking(False)
        fd = sock.fileno()
        self._connections[fd] = _Connection(
            sock, poll=self._poll, answer=self._answer, deadline=now + SECONDS, on_close=lambda: self._forget(fd)
        )

    def _forget(self, fd: int) -> None:
        del self._connections[fd]


class _Connection:
    """One request, one response, then nothing but waiting for the client to have read it."""

    def __init__(
        self, sock: socket.socket, *, poll: Poll, answer: Answer, deadline: float, on_close: Callable[[], None]
    ) -> None:
        """Wait for the request."""
        self._sock = sock
        self._poll = poll
        self._answer = answer
        self.deadline = deadline
        self._on_close = on_close
        self._head = b""
        self._rest = memoryview(b"")
        self._watched = False
        self._watch(READ, self._on_request)

    def close(self) -> None:
        """Be gone; once."""
        if self._sock.fileno() >= 0:
            self._unwatch()
            self._on_close()
            self._sock.close()

    def _watch(self, events: int, on_ready: OnReady) -> None:
        self._unwatch()
        self._poll.register(self._sock.fileno(), events, on_ready)
        self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._poll.unregister(self._sock.fileno())
            self._watched = False

    def _receive(self) -> bytes | None:
        """Return what has come, nothing at the end, or None where there was nothing to read after all."""
        try:
            return self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _on_request(self, _now: float) -> None:
        data = self._receive()
        if data is None:
            return
        self._head += data
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head or len(self._head) > MAX_HEAD_BYTES:
            self._unwatch()  # what a client says next, or that it leaves, is not looked at before it is answered
            self._decide()
        elif not data:
            self.close()

    def _decide(self) -> None:
        if len(self._head) > MAX_HEAD_BYTES:
            self._respond(failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), with_body=True)
            return
        parsed = _Parsed(self._head)
        if parsed.status is not HTTPStatus.OK:
            self._respond(failure(parsed.status), with_body=True)
        elif parsed.command not in ALLOWED:
            self._respond(failure(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(ALLOWED))), with_body=True)
        else:
            request = Request(path=parsed.path.partition("?")[0], accept=parsed.headers.get("Accept", ""))
            self._answer(request, lambda response: self._respond(response, with_body=parsed.command == "GET"))

    def _respond(self, response: Response, *, with_body: bool) -> None:
        if self._sock.fileno() < 0:
            return
        lines = [
            f"HTTP/1.1 {response.status.value} {response.status.phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            "Connection: close",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(f"{name}: {value}" for name, value in response.headers),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._rest = memoryview(head + response.body if with_body else head)
        self._watch(WRITE, self._on_writable)

    def _on_writable(self, _now: float) -> None:
        try:
            self._rest = self._rest[self._sock.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._rest:
            # Closed with bytes unread, it would be reset, and the response be lost on its way (RFC 9112, 9.6).
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._watch(READ, self._on_rest)

    def _on_rest(self, _now: float) -> None:
        if self._receive() == b"":
            self.close()


class _Parsed(BaseHTTPRequestHandler):
    """The standard library's reading of a request that is there as a whole."""

    def __init__(self, head: bytes) -> None:
        """Parse it; `status` says whether it is one."""
        self.status = HTTPStatus.OK
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if not self.parse_request() and self.status is HTTPStatus.OK:
            self.status = HTTPStatus.BAD_REQUEST

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Take note of what is wrong; the words are not for the client."""
        self.status = HTTPStatus(code)


def failure(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    """Make a response that says what its status says."""
    return Response(status=status, headers=headers, body=f"{status.value} {status.phrase}\n".encode())
