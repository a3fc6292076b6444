"""A small HTTP server for metrics: GET and HEAD, one request for each connection.

Owns the connections, their number and their timeouts, and the parsing of requests. Never decides what the response is,
except that on loopback a DNS name is refused as the host. Invariant: no slow or silent client keeps another from being
served: there are at most MAX_CONNECTIONS, none for longer than TIMEOUT_SECONDS. If one more comes, the oldest
connection without a request is closed, or, if all have sent one, the oldest of all.

The parser is one pattern, the grammar of RFC 9112 for a request head. It takes a quarter of the time of h11 or of
the parser of `http.server`, is as strict as h11, and saves a dependency of 2,600 lines: no body is read here, and no
connection is used twice.
"""

import re
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from echod.linux.accept import ACCEPT_PAUSE_SECONDS, CONNECTION_ERRORS
from echod.linux.poll import READ, WRITE, OnReady, Poll

MAX_CONNECTIONS: Final = 32
"""One or two Prometheus servers, some browsers, and room for idle connections."""

TIMEOUT_SECONDS: Final = 10.0
"""From accept to the last byte; the usual scrape timeout of Prometheus."""

MAX_HEAD_BYTES: Final = 16_384
_READ_BYTES: Final = 16_384

_METHODS: Final = ("GET", "HEAD")

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_HEAD: Final = re.compile(
    rb"(%b) ([!-~]++) HTTP/(\d)\.(\d)\r?\n((?:%b:[\t -~\x80-\xff]*+\r?\n)*+)\r?\n" % (_TOKEN, _TOKEN)
)
"""Method, target, version and header fields, up to the empty line; a line may end without CR (RFC 9112, 2.2)."""


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
"""Called if the client closes the connection before the response."""

OnRequest = Callable[[Request, Respond], Withdraw | None]
"""Responds to a request now, or later and then returns how to withdraw it."""


class HttpServer:
    """Serves listening sockets, until `stop_accepting`."""

    def __init__(
        self, sockets: Sequence[socket.socket], *, hosts: Sequence[str] = (), poll: Poll, on_request: OnRequest
    ) -> None:
        """Start to accept. On loopback a request may be for these names, in lower case, and for localhost."""
        self._hosts = frozenset((*hosts, "localhost"))
        self._sockets = list(sockets)
        self._poll = poll
        self._on_request = on_request
        self._connections: dict[int, _Connection] = {}
        self._paused_until: float | None = None
        self._resume()

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
            self._resume()

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections are still served."""
        self._pause()
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def _resume(self) -> None:
        self._paused_until = None
        for sock in self._sockets:
            self._poll.register(sock.fileno(), READ, partial(self._on_acceptable, sock))

    def _pause(self) -> None:
        if self._paused_until is None:
            for sock in self._sockets:
                self._poll.unregister(sock.fileno())
        self._paused_until = None

    def _on_acceptable(self, listening: socket.socket, now: float) -> None:
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            return  # another exporter was faster
        except OSError as error:
            if error.errno not in CONNECTION_ERRORS:
                self._pause()  # while a socket stays ready in the poll, the loop would spin
                self._paused_until = now + ACCEPT_PAUSE_SECONDS
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            each = self._connections.values()
            next((one for one in each if not one.has_request), next(iter(each))).close()
        sock.setblocking(False)
        fd = sock.fileno()
        self._connections[fd] = _Connection(
            sock,
            poll=self._poll,
            on_request=self._on_request,
            hosts=self._hosts if _is_loopback(listening.getsockname()[0]) else None,
            deadline=now + TIMEOUT_SECONDS,
            on_close=lambda: self._forget(fd),
        )

    def _forget(self, fd: int) -> None:
        """Forget a connection; its descriptor may be enough to accept another."""
        del self._connections[fd]
        if self._paused_until is not None:
            self._resume()


class _Connection:
    """One request, one response, then a wait until the client has read it."""

    def __init__(  # noqa: PLR0913 - what the server shares out, and what it knows of the one connection
        self,
        sock: socket.socket,
        *,
        poll: Poll,
        on_request: OnRequest,
        hosts: Collection[str] | None,
        deadline: float,
        on_close: Callable[[], None],
    ) -> None:
        """Wait for the request; it may be for one of these `hosts`, or for any."""
        self._sock = sock
        self._poll = poll
        self._on_request = on_request
        self._hosts = hosts
        self.deadline = deadline
        self.has_request = False
        """Whether a complete request has arrived."""
        self._on_close = on_close
        self._withdraw: Withdraw | None = None
        self._head = b""
        self._rest = memoryview(b"")
        self._watched = False
        self._watch(READ, self._on_head)

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

    def _on_head(self, _now: float) -> None:
        data = self._receive()
        if data is None:
            return
        self._head = (self._head + data).lstrip(b"\r\n")  # empty lines before a request are ignored (RFC 9112, 2.2)
        if b"\n\r\n" in self._head or b"\n\n" in self._head or len(self._head) > MAX_HEAD_BYTES:
            self._unwatch()  # further data, or the end, is not read before the answer
            self.has_request = True
            self._decide()
        elif not data:
            self.close()

    def _decide(self) -> None:
        head = _parse(self._head)
        if isinstance(head, HTTPStatus):
            self._respond(failure(head), with_body=True)
            return
        method, host, request = head
        with_body = method != "HEAD"
        if method not in _METHODS:
            self._respond(failure(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(_METHODS))), with_body=with_body)
        elif self._hosts is not None and not _is_safe(host, self._hosts):
            self._respond(_MISDIRECTED, with_body=with_body)
        else:
            self._withdraw = self._on_request(request, partial(self._respond, with_body=with_body))

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


def _parse(head: bytes) -> tuple[str, str | None, Request] | HTTPStatus:
    """Return the method of a complete head, the host that it is for (None: it names none), and the request.

    If the head is not valid, return the status of the response.
    """
    if len(head) > MAX_HEAD_BYTES:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    found = _HEAD.match(head)
    if found is None:
        return HTTPStatus.BAD_REQUEST
    method, target, major, minor, fields = (part.decode("latin-1") for part in found.groups())
    if major != "1":
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    pairs = [(name.lower(), value.strip(" \t\r")) for name, _, value in (x.partition(":") for x in fields.split("\n"))]
    hosts = [value for name, value in pairs if name == "host"]
    if len(hosts) > 1 or (not hosts and minor != "0"):
        return HTTPStatus.BAD_REQUEST
    host = hosts[0] if hosts else None
    if target.lower().startswith("http://"):  # an absolute URL has both (RFC 9112, 3.2.2)
        try:
            url = urlsplit(target)
        except ValueError:
            return HTTPStatus.BAD_REQUEST
        host, target = url.netloc, url.path or "/"
    accept = next((value for name, value in pairs if name == "accept"), "")
    return method, host, Request(path=target.partition("?")[0], accept=accept)


def _is_loopback(host: str) -> bool:
    """Tell whether an address is of loopback, also in the form ::ffff:127.0.0.1 that a passed socket may have."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _is_safe(host: str | None, hosts: Collection[str]) -> bool:
    """Tell whether a host is safe from DNS rebinding: an attacker's name that resolves to this host's loopback address.

    A browser sends that name in its request. Nobody can make an IP address or `localhost` point elsewhere, and the
    operator lists which other names are safe.
    """
    if host is None:
        return True  # HTTP/1.0: browsers do not send it
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
    why=": on a loopback address a request must be for an IP address, localhost, or a name in metrics.hosts",
)
