"""Listeners that do not echo, or echo behind a path that misbehaves: a whole daemon, asked by clients."""

import os
import signal
import socket
import time
from typing import Any

import pytest
from support.daemon import Daemon, StartDaemon, connect_tcp, connect_udp, run_echod
from support.ports import free_port
from support.waiting import wait_until

from echod.wire.reveal import decode

pytestmark = pytest.mark.sockets_only("what is asserted is what the daemon itself counted and did")

MESSY = {"loss": "2%", "duplicate": "1%", "reorder": "1%", "corrupt": "0.1%", "seed": 7}

ENDS = ("received", "replied", "held", "duplicated", "reordered", "corrupted", "interrupted")


def start(echod: StartDaemon, *listeners: dict[str, Any], **keys: Any) -> tuple[Daemon, list[int]]:  # noqa: ANN401 - of a config
    """Start echod with these options of UDP listeners, or of TCP listeners where `tcp` is among them."""
    ports = [free_port() for _ in listeners]
    config = [
        {"address": f"{'tcp' if each.get('tcp') else 'udp'}://127.0.0.1:{port}"}
        | {name: value for name, value in each.items() if name != "tcp"}
        for each, port in zip(listeners, ports, strict=True)
    ]
    return echod({"listeners": config, "workers": 1, **keys}), ports


def row(daemon: Daemon, port: int) -> dict[str, int]:
    """Return the counters of a UDP listener that are about what became of datagrams, without zeros."""
    numbers = daemon.counters()[f"udp://127.0.0.1:{port}"]
    named = {"received": 0} | {name: count for name, count in numbers.items() if count}
    return {name: count for name, count in named.items() if name in ENDS or name.startswith("dropped_")}


def wait_for_received(daemon: Daemon, port: int, count: int) -> None:
    """Wait until so many were received, and counted."""
    wait_until(lambda: row(daemon, port)["received"] == count, f"{count} received")


def drain(client: socket.socket) -> list[bytes]:
    """Receive what there is."""
    found = []
    client.setblocking(False)
    try:
        while True:
            found.append(client.recv(65_536))
    except BlockingIOError:
        return found


# -- impairment


def test_a_seed_has_the_same_fates_again(echod: StartDaemon) -> None:
    """Of 2,000 datagrams 40 are lost, and so on: literally, twice, and the same ones each time."""
    runs = []
    for _ in range(2):
        daemon, [port] = start(echod, {"impair": MESSY})
        replies: list[bytes] = []
        with connect_udp("127.0.0.1", port) as client:
            for number in range(2000):
                client.send(b"%04d" % number)
                if number % 200 == 199:  # no more than every buffer holds
                    wait_for_received(daemon, port, number + 1)
                    replies += drain(client)
            assert row(daemon, port) == {
                "received": 2000,
                "replied": 1960,
                "dropped_impaired": 40,
                "duplicated": 17,
                "reordered": 28,
                "corrupted": 3,
            }
            replies += drain(client)
        assert daemon.stop() == 0
        assert len(replies) == 1977
        runs.append(replies)
    assert runs[0] == runs[1]


def test_what_is_held_is_counted_and_leaves_in_a_reload(echod: StartDaemon) -> None:
    """A hundred are held for a minute; a reload sends them when its drain is over. None is lost, none sent twice."""
    daemon, [port] = start(echod, {"impair": {"delay": "60s"}}, drain_timeout_seconds=1)
    payloads = [b"%d" % number for number in range(100)]
    with connect_udp("127.0.0.1", port) as client:
        for payload in payloads:
            client.send(payload)
        wait_until(lambda: row(daemon, port) == {"received": 100, "held": 100}, "all held")
        daemon.reload()
        assert [client.recv(100) for _ in payloads] == payloads
        wait_until(lambda: row(daemon, port) == {"received": 100, "replied": 100}, "all counted")
        client.send(b"new")
        wait_until(lambda: row(daemon, port) == {"received": 101, "replied": 100, "held": 1}, "it held")
    assert daemon.stop() == 0


def test_a_reload_waits_for_what_is_due_soon(echod: StartDaemon) -> None:
    """The path keeps its delay. The new workers do not wait for that."""
    daemon, [port] = start(echod, {"impair": {"delay": "500ms"}})
    with connect_udp("127.0.0.1", port) as client:
        began = time.monotonic()
        client.send(b"slow")
        wait_for_received(daemon, port, 1)
        daemon.reload({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1})
        with connect_udp("127.0.0.1", port) as other:
            other.send(b"quick")
            assert other.recv(100) == b"quick"
        assert client.recv(100) == b"slow"
        assert time.monotonic() - began >= 0.499
    wait_until(lambda: len(daemon.workers()) == 1, "the old worker gone")
    assert row(daemon, port) == {"received": 2, "replied": 2}


def test_what_is_held_leaves_in_a_stop(echod: StartDaemon) -> None:
    """At the end of the drain at the latest."""
    daemon, [port] = start(echod, {"impair": {"delay": "60s"}}, drain_timeout_seconds=0)
    with connect_udp("127.0.0.1", port) as client:
        for number in range(100):
            client.send(b"%d" % number)
        wait_until(lambda: row(daemon, port).get("held") == 100, "all held")
        assert daemon.stop() == 0
        assert [client.recv(100) for _ in range(100)] == [b"%d" % number for number in range(100)]


def test_what_a_killed_worker_held_is_interrupted(echod: StartDaemon) -> None:
    """The numbers still add up, and the next worker holds nothing yet."""
    daemon, [port] = start(echod, {"impair": {"delay": "60s"}})
    with connect_udp("127.0.0.1", port) as client:
        for number in range(10):
            client.send(b"%d" % number)
        wait_until(lambda: row(daemon, port).get("held") == 10, "all held")
        [worker] = daemon.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: daemon.workers() not in ([], [worker]), "a new worker")
        wait_until(lambda: row(daemon, port) == {"received": 10, "interrupted": 10}, "all counted")


def test_beside_an_impaired_listener_an_echo_is_exact(echod: StartDaemon) -> None:
    """In one worker: each listener has its own numbers, and the path of one is not that of the other."""
    daemon, [impaired, plain] = start(echod, {"impair": {**MESSY, "delay": "5ms", "jitter": "5ms"}}, {})
    with connect_udp("127.0.0.1", impaired) as one, connect_udp("127.0.0.1", plain) as other:
        for number in range(500):
            one.send(b"%d" % number)
            other.send(b"%d" % number)
            assert other.recv(100) == b"%d" % number
        wait_until(
            lambda: row(daemon, impaired).get("received") == 500 and "held" not in row(daemon, impaired), "all sent"
        )
        counters = row(daemon, impaired)
        assert len(drain(one)) == counters["replied"] + counters["duplicated"]
        assert counters["replied"] == 500 - counters["dropped_impaired"]
    assert row(daemon, plain) == {"received": 500, "replied": 500}


def test_a_stream_is_delayed(echod: StartDaemon) -> None:
    """Over TCP every byte comes back, in order, later."""
    daemon, [port] = start(echod, {"tcp": True, "impair": {"delay": "200ms", "rate": "100 Mbit/s"}})
    with connect_tcp(port) as client:
        began = time.monotonic()
        client.sendall(bytes(range(256)) * 400)
        client.shutdown(socket.SHUT_WR)
        got = bytearray()
        while part := client.recv(65_536):
            got += part
        assert got == bytes(range(256)) * 400
        assert time.monotonic() - began >= 0.2
    daemon.wait_for_closes(finished=1)


# -- other modes


def test_discard_answers_nothing(echod: StartDaemon) -> None:
    """Over UDP and TCP, counted."""
    daemon, [udp, tcp] = start(echod, {"mode": "discard"}, {"mode": "discard", "tcp": True})
    with connect_udp("127.0.0.1", udp) as client:
        for number in range(10):
            client.send(b"%d" % number)
        wait_until(lambda: row(daemon, udp) == {"received": 10, "dropped_discarded": 10}, "all counted")
        assert drain(client) == []
    with connect_tcp(tcp) as client:
        client.sendall(bytes(1000))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    daemon.wait_for_closes(finished=1)
    numbers = daemon.counters()[f"tcp://127.0.0.1:{tcp}"]
    assert (numbers["received_bytes"], numbers["sent_bytes"]) == (1000, 0)


def test_reveal_tells_what_was_seen(echod: StartDaemon) -> None:
    """The client learns its own port."""
    _, [port] = start(echod, {"mode": "reveal"})
    with connect_udp("127.0.0.1", port) as client:
        client.send(bytes(400))
        seen = decode(client.recv(1000))
        assert seen is not None
        assert (seen.peer, seen.peer_port, seen.local_port) == ("127.0.0.1", client.getsockname()[1], port)
        assert seen.interface == "lo"


def test_each_mode_passes_its_self_test(echod: StartDaemon) -> None:
    """Also one that loses or discards all that others send, or holds it for a minute."""
    daemon, _ = start(
        echod,
        {"mode": "discard"},
        {"mode": "discard", "tcp": True},
        {"mode": "reveal"},
        {"impair": {"loss": "100%"}},
        {"impair": {"delay": "60s"}},
        {"impair": {"delay": "60s"}, "tcp": True},
    )
    checked = run_echod("status", "--check", RUNTIME_DIRECTORY=str(daemon.status_path))
    assert (checked.returncode, "all 6 listeners replied" in checked.stdout) == (0, True), checked


def test_a_listener_changes_its_mode_in_a_reload(echod: StartDaemon) -> None:
    """And back."""
    daemon, [port] = start(echod, {})
    address = f"udp://127.0.0.1:{port}"
    with connect_udp("127.0.0.1", port) as client:
        for number, (options, replied) in enumerate(
            [({"mode": "discard"}, False), ({}, True), ({"impair": {"loss": "100%"}}, False), ({"mode": "echo"}, True)]
        ):
            daemon.reload({"listeners": [{"address": address, **options}], "workers": 1})
            wait_until(lambda: len(daemon.workers()) == 1, "the old worker gone")
            client.send(b"%d" % number)
            wait_for_received(daemon, port, number + 1)
            assert drain(client) == ([b"%d" % number] if replied else [])
