"""A small HTTP server for the exporter: GET and HEAD, one request for each connection.

Owns the connections, their number and their timeouts; the standard library parses requests. Never decides what is
answered, except that on loopback a DNS name is refused as the host. Invariant: no slow or silent client keeps another
from being served: there are at most MAX_CONNECTIONS, none for longer than SECONDS. If one more comes, the oldest
connection without a request is closed, or, if all have sent one, the oldest of all.
"""

import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from echod.linux.accept import ACCEPT_PAUSE_SECONDS, OF_ONE_CONNECTION
from echod.linux.poll import READ, WRITE, OnReady, Poll

MAX_CONNECTIONS: Final = 32
"""One or two Prometheus servers, some browsers, and room for idle connections."""

SECONDS: Final = 10.0
"""From accept to the last byte; the usual scrape timeout of Prometheus."""

MAX_HEAD_BYTES: Final = 16_384
_READ_BYTES: Final = 16_384

ALLOWED: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request: the path without its query, and the Accept header."""

    path: str
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response."""

    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes


Respond = Callable[[Response], None]
"""To be called once, now or later; it does nothing if the client is gone by then."""

Withdraw = Callable[[], None]
"""Called where the client is gone before the response: nobody waits for that any more."""

Answer = Callable[[Request, Respond], Withdraw | None]
"""Responds to a request now, or later and then returns how to withdraw it."""


class HttpServer:
    """Serves the doors, which are listening sockets, until they are closed."""

    def __init__(
        self, doors: Sequence[socket.socket], *, hosts: Sequence[str] = (), poll: Poll, answer: Answer
    ) -> None:
        """Start to accept. On loopback the server may be asked by these names, in lower case, and as localhost."""
        self._hosts = frozenset((*hosts, "localhost"))
        self._doors = list(doors)
        self._poll = poll
        self._answer = answer
        self._connections: dict[int, _Connection] = {}
        self._paused_until: float | None = None
        self._watch_doors()

    @property
    def busy(self) -> bool:
        """Whether there is any connection."""
        return bool(self._connections)

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline` next, or None."""
        oldest = next((each.deadline for each in self._connections.values()), None)  # in order of arrival
        return min((each for each in (oldest, self._paused_until) if each is not None), default=None)

    def on_deadline(self, now: float) -> None:
        """Close the connections that have timed out; resume accepting after a pause."""
        for each in [each for each in self._connections.values() if each.deadline <= now]:
            each.close()
        if self._paused_until is not None and now >= self._paused_until:
            self._watch_doors()

    def close_doors(self) -> None:
        """Stop accepting."""
        self._ignore_doors()
        for door in self._doors:
            door.close()
        self._doors = []

    def _watch_doors(self) -> None:
        self._paused_until = None
        for door in self._doors:
            self._poll.register(door.fileno(), READ, lambda now, door=door: self._on_door(door, now))  # type: ignore[misc]

    def _ignore_doors(self) -> None:
        if self._paused_until is None:
            for door in self._doors:
                self._poll.unregister(door.fileno())
        self._paused_until = None

    def _on_door(self, door: socket.socket, now: float) -> None:
        try:
            sock, _ = door.accept()
        except BlockingIOError:
            return  # another exporter was faster
        except OSError as error:
            if error.errno not in OF_ONE_CONNECTION:
                self._ignore_doors()  # while a door stays ready in the poll, the loop would spin
                self._paused_until = now + ACCEPT_PAUSE_SECONDS
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            each = self._connections.values()
            next((one for one in each if not one.asked), next(iter(each))).close()
        sock.setblocking(False)
        fd = sock.fileno()
        self._connections[fd] = _Connection(
            sock,
            poll=self._poll,
            answer=self._answer,
            hosts=self._hosts if _is_loopback(door.getsockname()[0]) else None,
            deadline=now + SECONDS,
            on_close=lambda: self._forget(fd),
        )

    def _forget(self, fd: int) -> None:
        """Forget a connection; its descriptor may be enough to accept another."""
        del self._connections[fd]
        if self._paused_until is not None:
            self._watch_doors()


class _Connection:
    """One request, one response, then a wait until the client has read it."""

    def __init__(  # noqa: PLR0913 - what the server shares out, and what it knows of the one connection
        self,
        sock: socket.socket,
        *,
        poll: Poll,
        answer: Answer,
        hosts: Collection[str] | None,
        deadline: float,
        on_close: Callable[[], None],
    ) -> None:
        """Wait for the request; it may be for one of these `hosts`, or for any."""
        self._sock = sock
        self._poll = poll
        self._answer = answer
        self._hosts = hosts
        self.deadline = deadline
        self.asked = False
        """Whether a complete request has arrived."""
        self._on_close = on_close
        self._withdraw: Withdraw | None = None
        self._head = b""
        self._rest = memoryview(b"")
        self._watched = False
        self._watch(READ, self._on_request)

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._sock.fileno() >= 0:
            self._unwatch()
            self._on_close()
            self._sock.close()
            if self._withdraw is not None:
                self._withdraw()

    def _watch(self, events: int, on_ready: OnReady) -> None:
        self._unwatch()
        self._poll.register(self._sock.fileno(), events, on_ready)
        self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._poll.unregister(self._sock.fileno())
            self._watched = False

    def _receive(self) -> bytes | None:
        """Return what was received, nothing at the end, or None if there was nothing to read after all."""
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
        self._head = (self._head + data).lstrip(b"\r\n")  # empty lines before a request are ignored (RFC 9112, 2.2)
        if b"\n\r\n" in self._head or b"\n\n" in self._head or len(self._head) > MAX_HEAD_BYTES:
            self._unwatch()  # further data, or the end, is not read before the answer
            self.asked = True
            self._decide()
        elif not data:
            self.close()

    def _decide(self) -> None:
        if len(self._head) > MAX_HEAD_BYTES:
            self._respond(failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), with_body=True)
            return
        parsed = _Parsed(self._head)
        with_body = parsed.command != "HEAD"
        if parsed.status is not HTTPStatus.OK:
            self._respond(failure(parsed.status), with_body=with_body)
        elif parsed.command not in ALLOWED:
            self._respond(failure(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(ALLOWED))), with_body=with_body)
        elif self._hosts is not None and not _is_ours(parsed.host, self._hosts):
            self._respond(_MISDIRECTED, with_body=with_body)
        else:
            request = Request(path=parsed.path.partition("?")[0], accept=parsed.headers.get("Accept", ""))
            self._withdraw = self._answer(request, lambda response: self._respond(response, with_body=with_body))

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
            # Closing with unread bytes would send a reset, and the response could be lost (RFC 9112, 9.6).
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._watch(READ, self._on_rest)

    def _on_rest(self, _now: float) -> None:
        if self._receive() == b"":
            self.close()


class _Parsed(BaseHTTPRequestHandler):
    """A complete request, parsed by the standard library."""

    def __init__(self, head: bytes) -> None:
        """Parse it; `status` tells whether it is valid."""
        self.status = HTTPStatus.OK
        self.host: str | None = None
        """The host that the request is for, by name or address, if it names one."""
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if not (self.parse_request() and self._find_target()) and self.status is HTTPStatus.OK:
            self.status = HTTPStatus.BAD_REQUEST

    def _find_target(self) -> bool:
        """Find host and path, both of which an absolute URL has (RFC 9112, 3.2); tell whether they are valid."""
        hosts = self.headers.get_all("Host", [])
        folded = any("\n" in value for value in self.headers.values())  # to be refused (RFC 9112, 5.2)
        if folded or len(hosts) > 1 or (not hosts and self.request_version >= "HTTP/1.1"):
            return False
        self.host = hosts[0] if hosts else None
        if self.path.lower().startswith("http://"):
            try:
                target = urlsplit(self.path)
            except ValueError:
                return False
            self.host, self.path = target.netloc, target.path or "/"
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Note the status; the text is not sent to the client."""
        self.status = HTTPStatus(code)


def _is_loopback(host: str) -> bool:
    """Tell whether an address is of loopback, also in the form ::ffff:127.0.0.1 that a passed socket may have."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _is_ours(host: str | None, hosts: Collection[str]) -> bool:
    """Tell whether a host is safe from DNS rebinding: an attacker's name that resolves to this host's loopback address.

    A browser sends that name in its request. Nobody can make an IP address or `localhost` point elsewhere, and the
    operator says which other names are his.
    """
    if host is None:
        return True  # HTTP/1.0, which no browser speaks
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ip_address(name)
    except ValueError:
        return name.removesuffix(".") in hosts
    return True


def failure(status: HTTPStatus, *headers: tuple[str, str], why: str = "") -> Response:
    """Make a response with the text of its status, and why."""
    return Response(status=status, headers=headers, body=f"{status.value} {status.phrase}{why}\n".encode())


_MISDIRECTED: Final = failure(
    HTTPStatus.MISDIRECTED_REQUEST,
    why=": on a loopback address echod is asked by IP address, as localhost, or by a name of metrics.hosts",
)
