"""The measuring modes of a whole daemon: several workers, bound and passed sockets, IPv4 and IPv6."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, StartDaemon, ask, connect_udp
from support.ports import free_port
from support.socket_passing import pass_sockets
from support.waiting import wait_until

from echod.wire import stamp, udpecho_plus

KEY = b"a key that both know"
CLIENTS, ROUNDS = 5, 12

Ask = Callable[[socket.socket, int], tuple[int, int]]
"""Asks with a number; returns that of the request in the reply, and that of the server."""


def ask_plus(client: socket.socket, number: int) -> tuple[int, int]:
    """Ask a server of UDPEchoPlus."""
    client.send(udpecho_plus.request(number, 1, b"data"))
    reply = udpecho_plus.read(client.recv(100))
    assert (reply.data, reply.failures) == (b"data", 0)
    assert (reply.replied - reply.received) % 2**32 < 2**31
    return reply.sequence, reply.response_sequence - 1


def ask_stamp(client: socket.socket, number: int, key: bytes = b"") -> tuple[int, int]:
    """Ask a Session-Reflector."""
    client.send(stamp.request(number, 0, key=key))
    reply = stamp.read_reply(client.recv(200), key)
    assert reply.received <= reply.sent + 10**6
    return reply.sender_sequence, reply.sequence


def ask_authentic(client: socket.socket, number: int) -> tuple[int, int]:
    """Ask one that has a key."""
    return ask_stamp(client, number, KEY)


MODES: dict[str, tuple[dict[str, object], Ask]] = {
    "udpecho_plus": ({"mode": "udpecho_plus"}, ask_plus),
    "stamp": ({"mode": "stamp", "stateful": True}, ask_stamp),
    "authenticated stamp": ({"mode": "stamp", "stateful": True, "hmac_key": "KEY"}, ask_authentic),
}


def start(
    echod: StartDaemon, folder: Path, options: dict[str, object], *, host: str, passed: bool
) -> tuple[Daemon, int]:
    """Start a daemon of three workers with one listener of this mode; return it with the port."""
    port = free_port()
    if "hmac_key" in options:
        (folder / "key").write_bytes(KEY + b"\n")
        options = options | {"hmac_key": str(folder / "key")}
    address = f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"
    config = {"workers": 3, "listeners": [{"address": address, **options}]}
    prefix = pass_sockets([(host, port)]) if passed else ()
    return echod(config, prefix=prefix), port


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("passed", [False, True], ids=["bound", "passed"])
def test_five_clients_at_once_keep_their_numbers_apart(
    echod: StartDaemon, tmp_path: Path, name: str, host: str, *, passed: bool
) -> None:
    """Whichever worker serves them, and although they ask in turns: each counts its own requests from zero."""
    options, ask_once = MODES[name]
    daemon, port = start(echod, tmp_path, options, host=host, passed=passed)
    clients = [connect_udp(host, port) for _ in range(CLIENTS)]
    for turn in range(ROUNDS):
        for number, client in enumerate(clients):
            # Those that ask more often do not count for the others.
            for again in range(1 + number % 2):
                asked = 1000 * number + 2 * turn + again
                expected = turn * (1 + number % 2) + again
                assert ask_once(client, asked) == (asked, expected)
    for client in clients:
        client.close()
    assert daemon.stop() == 0


def test_the_clock_of_udpecho_plus_is_that_of_the_daemon(echod: StartDaemon, tmp_path: Path) -> None:
    """All workers share it: the time stamps of many clients, asked one after another, never go back."""
    _, port = start(echod, tmp_path, {"mode": "udpecho_plus"}, host="127.0.0.1", passed=False)
    last = 0
    for number in range(60):
        with connect_udp("127.0.0.1", port) as client:
            client.send(udpecho_plus.request(number, 1))
            reply = udpecho_plus.read(client.recv(100))
        assert last <= reply.replied
        last = reply.replied
    assert last < 2**31  # it began with the daemon


def test_a_reload_names_the_listener_whose_key_is_new(echod: StartDaemon, tmp_path: Path) -> None:
    """Although the config is the same; the key itself is in no log. A reload after that has nothing to report."""
    daemon, port = start(echod, tmp_path, MODES["authenticated stamp"][0], host="127.0.0.1", passed=False)
    (tmp_path / "key").write_bytes(b"another key")
    for changed in (f"udp://127.0.0.1:{port}: new key", "nothing"):
        assert daemon.reload()["changed"] == [changed]
        wait_until(lambda: len(daemon.workers()) == 3, "the old workers gone")
        with connect_udp("127.0.0.1", port) as client:
            client.send(stamp.request(1, 0, key=b"another key"))
            assert stamp.read_reply(client.recv(200), b"another key").sender_sequence == 1
    log = daemon.stderr_path.read_bytes()
    assert (KEY in log, b"another key" in log) == (False, False)


def test_what_is_no_request_is_counted_and_has_no_reply(echod: StartDaemon, tmp_path: Path) -> None:
    """The client that follows is served; status and counters name both reasons."""
    daemon, port = start(echod, tmp_path, MODES["authenticated stamp"][0], host="127.0.0.1", passed=False)
    with connect_udp("127.0.0.1", port) as client:
        client.send(b"short")
        client.send(stamp.request(1, 0, key=b"another"))
        assert ask_authentic(client, 2) == (2, 0)
    counted = daemon.counters()[f"udp://127.0.0.1:{port}"]
    names = ("received", "replied", "dropped_malformed", "dropped_unauthenticated")
    assert [counted[name] for name in names] == [3, 1, 1, 1]


def test_other_listeners_stay_what_they_are(echod: StartDaemon) -> None:
    """An echo beside a reflector echoes what the reflector would answer."""
    echo = free_port(3)
    plus, reflector = echo + 1, echo + 2
    echod(
        {
            "workers": 2,
            "listeners": [
                f"udp://127.0.0.1:{echo}",
                {"address": f"udp://127.0.0.1:{plus}", "mode": "udpecho_plus"},
                {"address": f"udp://127.0.0.1:{reflector}", "mode": "stamp"},
            ],
        }
    )
    request = stamp.request(7, 0)
    for _ in range(10):
        assert ask(echo, request) == request
        assert stamp.read_reply(ask(reflector, request)).sequence == 7
        assert struct.unpack_from(">II", ask(plus, request)) == (7, 1)
