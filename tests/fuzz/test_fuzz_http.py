"""Anything may be sent to the HTTP server: it sends a valid response or closes, and holds no more than a head."""

import re
import socket
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings
from support.http_serving import GET, Served, serve

from echod.metrics.http_server import MAX_HEAD_BYTES

PIECES = [
    *(b"GET ", b"HEAD ", b"/", b"//", b"?", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/0.9", b" HTTP/", b"\xb2.1"),
    *(b"http://", b"[", b"]", b"@", b":", b"%", b";", b",", b"=", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t"),
    *(b"Host: ", b"Host: localhost\r\n", b"Accept: ", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Content-Type: multipart/x; boundary=y\r\n", b"Content-Transfer-Encoding: base64\r\n"),
]
RESPONSES = {200, 400, 405, 421, 431, 505}
TOKEN = rb"[^\x00-\x20()<>@,;:\\\"/\[\]?={}\x7f-\xff]+"


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve on loopback."""
    with serve("127.0.0.1") as served:
        yield served


def is_request(sent: bytes) -> bool:
    """Tell whether bytes begin with a request for a page, line by line as RFC 9112 says."""
    head = re.split(rb"\n\r?\n", sent.lstrip(b"\r\n"), maxsplit=1)[0]
    first, *fields = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    words = first.split(b" ")
    if len(words) != 3 or words[0] not in (b"GET", b"HEAD") or not re.fullmatch(rb"HTTP/1\.[0-9]", words[2]):
        return False
    if not words[1] or not all(0x21 <= octet <= 0x7E for octet in words[1]):
        return False
    names = [field.partition(b":")[0] for field in fields]
    hosts = sum(name.lower() == b"host" for name in names)
    return (
        all(re.fullmatch(TOKEN, name) for name in names)
        and all(b":" in field and not re.search(rb"[\x00-\x08\n-\x1f\x7f]", field) for field in fields)
        and (hosts == 1 or (hosts == 0 and words[2] == b"HTTP/1.0"))
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(
    st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(PIECES)), max_size=12),
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HEAD /x?y HTTP/1.0\r\n"]),
    st.sampled_from([b"", b"\r\n\r\n", b"\nHost: localhost\n\n"]),
)
@example([b"Host: [::1]\r\n", b"Accept:x"], b"GET / HTTP/1.1\r\n", b"\r\n\r\n")
def test_any_bytes_in_pieces_get_a_valid_response_or_the_end(
    served: Served, pieces: list[bytes], before: bytes, after: bytes
) -> None:
    """A request that RFC 9112 forbids never gets the page, and nothing ends the server."""
    with served.connect() as client:
        for piece in (before, *pieces, after):
            client.send(piece)
            served.turn()
        client.shutdown(socket.SHUT_WR)
        status, headers, body = served.read(client)
    sent = b"".join((before, *pieces, after))
    if status:
        version, code, _ = status.split(" ", 2)
        assert version == "HTTP/1.1"
        assert int(code) in RESPONSES
        assert len(body) in (int(headers["Content-Length"]), 0)
        assert code != "200" or is_request(sent)
    served.turn_until(lambda: not served.server.busy, "the connection was closed")
    assert served.ask(GET)[2] == b"hello"


@pytest.mark.parametrize("endless", [b"A", b" \n", b"A: b\r\n", b"GET / HTTP/1.1\r\n", b"\xff\0"])
def test_a_head_without_an_end_is_refused_at_its_limit(served: Served, endless: bytes) -> None:
    """However much is sent, no more is held than the limit and one read, and the response is 431."""
    with served.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        served.turn()
        (connection,) = served.server._connections.values()
        for _ in range(4 * MAX_HEAD_BYTES // 1000):
            client.send((endless * 1000)[:1000])
            served.turn()
            assert len(connection._head) <= 2 * MAX_HEAD_BYTES
        assert served.read(client)[0] == "HTTP/1.1 431 Request Header Fields Too Large"
