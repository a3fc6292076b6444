"""The exporter's HTTP server: real connections to a real server, whose loop the test turns and whose time it says."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.http_serving import GET, Served, serve
from support.loopback import no_descriptor_left
from support.waiting import wait_until

from echod.metrics.http_server import Request, Response

MAX_CONNECTIONS, MAX_HEAD_BYTES, TIMEOUT_SECONDS, ACCEPT_PAUSE_SECONDS = 32, 16_384, 10.0, 1.0


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve on loopback."""
    with serve("127.0.0.1") as served:
        yield served


def test_a_page_is_served_with_its_length_and_not_kept(served: Served) -> None:
    """The body comes whole, its length and type are reported, and the connection ends."""
    status, headers, body = served.ask(b"GET /page?x=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")
    assert (status, body) == ("HTTP/1.1 200 OK", b"hello")
    assert headers == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "5",
        "Connection": "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Test": "yes",
    }
    assert served.requests == [Request(path="/page", accept="text/html")]
    served.turn_until(lambda: not served.server.busy, "the connection was forgotten")


def test_head_has_no_body(served: Served) -> None:
    """HEAD is told what GET would be, with no body behind it."""
    status, headers, body = served.ask(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, headers["Content-Length"], body) == ("HTTP/1.1 200 OK", "5", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "x"])
def test_other_methods_are_not_allowed(served: Served, method: str) -> None:
    """405 names the two that are."""
    status, headers, body = served.ask(f"{method} / HTTP/1.0\r\n\r\n".encode())
    assert (status, headers["Allow"], body) == (
        "HTTP/1.1 405 Method Not Allowed",
        "GET, HEAD",
        b"405 Method Not Allowed\n",
    )
    assert served.requests == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nno colon\r\nHost: localhost\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: a;\r\n b\r\n\r\n", "400 Bad Request"),
        (b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 Bad Request"),
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/x\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x00\xee\n\n", "400 Bad Request"),
        (b"GET / HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported"),
        (b"GET / HTTP/0.9\r\n\r\n", "505 HTTP Version Not Supported"),
        (b"GET /\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\0\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA(b: c\r\n\r\n", "400 Bad Request"),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 Bad Request"),
        (b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 Bad Request"),
        (b"G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 3000 + b"\r\n", "431 Request Header Fields Too Large"),
        (b"GET /" + b"x" * (MAX_HEAD_BYTES - 4), "431 Request Header Fields Too Large"),
    ],
)
def test_what_is_no_request_is_told_so(served: Served, request_: bytes, status: str) -> None:
    """With the status that HTTP has for it, and nothing of what was sent."""
    first, _, body = served.ask(request_)
    assert (first, body) == (f"HTTP/1.1 {status}", f"{status}\n".encode())
    assert served.requests == []


@pytest.mark.parametrize(("length", "status"), [(MAX_HEAD_BYTES, "200 OK"), (MAX_HEAD_BYTES + 1, "431 Request")])
def test_a_head_may_have_16_kib(served: Served, length: int, status: str) -> None:
    """To the byte."""
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "
    assert served.ask(head.ljust(length - 4, b"x") + b"\r\n\r\n")[0].startswith(f"HTTP/1.1 {status}")


def test_a_request_may_come_in_pieces(served: Served) -> None:
    """Byte by byte it is the same request."""
    with served.connect() as client:
        for number in range(len(GET)):
            client.send(GET[number : number + 1])
            served.turn()
        assert served.read(client)[2] == b"hello"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://127.0.0.1:9007/page HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET HTTP://LOCALHOST/page?x=1 HTTP/1.1\r\nHost:\r\n\r\n",
        b"\r\nGET /page HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\n\r\n\nGET /page HTTP/1.0\r\n\r\n",
        b"GET /page HTTP/1.0\n\n",
        b"GET /page HTTP/1.0\n\r\n",
        b"GET /page HTTP/1.0\r\n\n",
        b"GET /page HTTP/1.0\r\nA: b\n\r\n",
    ],
)
def test_what_is_a_request_is_understood(served: Served, request_: bytes) -> None:
    """A whole URL as its target, empty lines before it, and lines that end without CR (RFC 9112, 2.2 and 3.2.2)."""
    assert served.ask(request_)[2] == b"hello"
    assert served.requests == [Request(path="/page", accept="")]


OURS = ["127.0.0.1:9007", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9007", "192.0.2.1", "Echo.example.com"]
OURS += ["echo.example.com.:80"]
OTHERS = ["evil.example", "evil.example:9007", "localhost.evil.example", "", "127.0.0.1@evil.example", "[", "1.evil"]
OTHERS += ["x.echo.example.com"]


@pytest.mark.parametrize(("host", "ours"), [*((host, True) for host in OURS), *((host, False) for host in OTHERS)])
def test_on_loopback_a_name_that_may_be_anybody_s_is_refused(served: Served, host: str, *, ours: bool) -> None:
    """So no page can have a browser of this host read what is here, by a name that leads to 127.0.0.1: 421."""
    for target, named in (("/", host), (f"http://{host}/", "localhost")):
        status, _, body = served.ask(f"GET {target} HTTP/1.1\r\nHost: {named}\r\n\r\n".encode())
        assert (status == "HTTP/1.1 200 OK", body == b"hello") == (ours, ours)
    if not ours and host != "[":
        assert status == "HTTP/1.1 421 Misdirected Request"
        assert body.startswith(b"421 Misdirected Request: on a loopback address a request must be for an IP address")
    assert len(served.requests) == (2 if ours else 0)


@pytest.mark.parametrize(
    ("address", "status"),
    [("::ffff:127.0.0.1", "421 Misdirected Request"), ("0.0.0.0", "200 OK")],  # noqa: S104 - asked on 127.0.0.1
)
def test_only_on_loopback_is_a_name_refused(address: str, status: str) -> None:
    """Also in the form ::ffff:127.0.0.1, which a passed socket may have; other addresses are asked by any name."""
    with serve(address) as served:
        assert served.ask(b"GET / HTTP/1.1\r\nHost: echo.example\r\n\r\n")[0] == f"HTTP/1.1 {status}"


def test_an_answer_may_come_later_and_holds_up_nobody(served: Served) -> None:
    """While one waits for its answer, another is served; then the first one gets its own."""
    with served.connect() as patient:
        patient.send(b"GET /later HTTP/1.0\r\n\r\n")
        served.turn_until(lambda: bool(served.held), "the request was there")
        assert served.ask()[2] == b"hello"
        served.held[0](Response(body=b"at last"))
        assert served.read(patient)[2] == b"at last"


def test_an_answer_to_a_client_that_has_left_is_nothing(served: Served) -> None:
    """Who left while it waited, or was cut off, harms nobody, and costs no turn of the loop meanwhile."""
    client = served.connect()
    client.send(b"GET /later HTTP/1.0\r\n\r\n")
    served.turn_until(lambda: bool(served.held), "the request was there")
    (respond,) = served.held
    client.close()
    assert list(served.poll.wait(0.05)) == []
    served.server.on_deadline(TIMEOUT_SECONDS)
    assert not served.server.busy
    respond(Response(body=b"too late"))
    assert served.ask()[2] == b"hello"


def test_a_large_answer_is_taken_at_the_client_s_pace(served: Served) -> None:
    """A page of 8 MiB comes whole to who reads slowly, and another is served meanwhile."""
    with served.connect() as slow:
        served.page = bytes(8 << 20)
        slow.send(GET)
        served.turn_until(lambda: bool(served.requests), "the request was there")
        served.page = b"hello"
        assert served.ask()[2] == b"hello"
        assert len(served.read(slow)[2]) == 8 << 20


def test_a_silent_client_is_gone_when_its_time_is_over(served: Served) -> None:
    """Said nothing, or read nothing, it is cut off after 10 seconds and not before."""
    with served.connect() as client:
        assert served.server.next_deadline() == TIMEOUT_SECONDS
        served.server.on_deadline(TIMEOUT_SECONDS - 0.001)
        assert served.server.busy
        served.server.on_deadline(TIMEOUT_SECONDS)
        assert not served.server.busy
        assert served.server.next_deadline() is None
        wait_until(lambda: client.recv(1) == b"", "the end of the connection")


def test_who_has_asked_is_not_the_one_to_go(served: Served) -> None:
    """Beside 32 that say nothing, a client that waits for its answer gets it; where all wait, the oldest goes."""
    with served.connect() as patient, ExitStack() as stack:
        patient.send(b"GET /later HTTP/1.0\r\n\r\n")
        served.turn_until(lambda: bool(served.held), "the request was there")
        silent = [stack.enter_context(served.connect()) for _ in range(MAX_CONNECTIONS)]
        wait_until(lambda: silent[0].recv(1) == b"", "the oldest of the silent ones was cut off")
        for client in silent[1:]:
            with pytest.raises(BlockingIOError):
                client.recv(1)
        served.held[0](Response(body=b"at last"))
        assert served.read(patient)[2] == b"at last"
    served.turn_until(lambda: not served.server.busy, "all had gone")
    with ExitStack() as stack:
        waiting = [stack.enter_context(served.connect()) for _ in range(MAX_CONNECTIONS)]
        for client in waiting:
            client.send(b"GET /later HTTP/1.0\r\n\r\n")
        served.turn_until(lambda: len(served.held) == MAX_CONNECTIONS, "all had asked")
        assert served.ask()[2] == b"hello"
        assert waiting[0].recv(1) == b""


def test_without_descriptors_accepting_pauses_and_does_not_spin(served: Served) -> None:
    """Until a second is over the poll reports the door no more; then who waited is served."""
    with socket.create_connection(served.address) as client:
        client.setblocking(False)
        with no_descriptor_left():
            served.turn()
            assert served.server.next_deadline() == ACCEPT_PAUSE_SECONDS
            assert list(served.poll.wait(0.0)) == []
            served.server.on_deadline(ACCEPT_PAUSE_SECONDS)
            served.turn(ACCEPT_PAUSE_SECONDS)
            assert served.server.next_deadline() == 2 * ACCEPT_PAUSE_SECONDS
        served.server.on_deadline(2 * ACCEPT_PAUSE_SECONDS)
        client.send(GET)
        assert served.read(client)[2] == b"hello"


def test_an_ended_connection_ends_the_pause(served: Served) -> None:
    """Its descriptor is what the next one needs: nobody waits for the pause to pass."""
    first = served.connect()
    with socket.create_connection(served.address) as second:
        second.setblocking(False)
        with no_descriptor_left():
            served.turn()
            first.close()
            served.turn_until(lambda: served.server.next_deadline() == TIMEOUT_SECONDS, "the second one was accepted")
        second.send(GET)
        assert served.read(second)[2] == b"hello"


def test_doors_close_in_a_pause_too(served: Served) -> None:
    """And are not opened again."""
    with socket.create_connection(served.address):
        with no_descriptor_left():
            served.turn()
        served.server.stop_accepting()
        assert served.server.next_deadline() is None


def test_closed_doors_let_those_in_finish(served: Served) -> None:
    """After the sockets are closed no client connects; a connected one gets its response."""
    with served.connect() as client:
        served.server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(served.address)
        client.send(GET)
        assert served.read(client)[2] == b"hello"


def test_a_client_that_resets_is_forgotten(served: Served) -> None:
    """A reset in the middle of anything is the end of that connection alone."""
    for request in (b"", b"GET /", GET):
        client = served.connect()
        client.send(request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        served.turn_until(lambda: not served.server.busy, "the connection was forgotten")


def test_a_request_dies_with_its_connection(served: Served) -> None:
    """However many come and go, no more wait for an answer than may be connected."""
    clients = [served.connect() for _ in range(3 * MAX_CONNECTIONS)]
    for client in clients:
        client.send(GET.replace(b"/", b"/later", 1))
    served.turn_until(lambda: len(served.held) == MAX_CONNECTIONS, "those that are connected have asked")
    for client in (served.connect() for _ in range(MAX_CONNECTIONS)):
        clients.append(client)
        client.send(GET.replace(b"/", b"/later", 1))
        served.turn_until(lambda: len(served.requests) == len(clients) - 2 * MAX_CONNECTIONS, "it was asked")
        assert len(served.held) == MAX_CONNECTIONS
    served.server.on_deadline(TIMEOUT_SECONDS + 1)
    assert served.held == []
    for client in clients:
        client.close()
