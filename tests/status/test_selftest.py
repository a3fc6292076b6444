"""The self test finds what does not answer, reports why, and leaves nothing behind."""

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from support.daemon import Daemon, StartDaemon
from support.loopback import BUFFERS, add_link, ip, namespace, needs_root, queued_bytes
from support.ports import free_port
from support.snapshots import make_snapshot
from support.waiting import wait_until

from echod.admission.selftest import Result, SelfTest
from echod.errors import StatusUnknownError
from echod.linux.sockets import open_probe, open_socket
from echod.net.listener import Listener, Protocol, parse_listener
from echod.stats.snapshot import Activity, Snapshot, UdpTraffic
from echod.status import files, writing
from echod.status.selftest import _Run, listeners_of, run_self_test


def parsed(*texts: str) -> list[Listener]:
    """Write listeners as the config does."""
    return [listener for text in texts for listener in parse_listener(text)]


def reported(daemon: Daemon) -> tuple[list[Listener], SelfTest]:
    """Return the listeners and the mark that a daemon reports."""
    mark = files.read_self_test(daemon.status_path)
    assert mark is not None
    return listeners_of(Snapshot.unpack((daemon.status_path / writing.NAME).read_bytes())), mark


def problems(results: tuple[Result, ...]) -> dict[str, str]:
    """Return the problem of each listener, empty where it passed."""
    assert all(result.passed is not bool(result.problem) for result in results)
    return {str(result.listener): result.problem for result in results}


def self_tests(daemon: Daemon) -> dict[str, int]:
    """Return how many self tests each listener counted."""
    rows = daemon.counters()
    return {name: row.get("self_test", 0) + row.get("closed_self_test", 0) for name, row in rows.items()}


@pytest.fixture
def everything(echod: StartDaemon) -> Daemon:
    """Serve both protocols on wildcards, single addresses and a range, and refuse everybody."""
    port = free_port(4)
    more = port + 1
    listeners = [
        f"udp://0.0.0.0:{port}",
        f"udp://[::]:{port}",
        f"tcp://0.0.0.0:{port}",
        f"tcp://[::1]:{port}",
        f"udp://127.0.0.1:{more}-{more + 2}",
        f"udp://127.0.0.2:{more}",
    ]
    return echod({"listeners": listeners, "workers": 2, "access": {"deny": ["any"]}})


def test_every_listener_passes_though_everybody_is_refused(everything: Daemon) -> None:
    """Through each listener one probe, counted apart and in no other row; again and again, the port is free at once."""
    listeners, mark = reported(everything)
    assert len(listeners) == 8
    for times in (1, 2, 3):
        results = run_self_test(listeners, mark)
        assert problems(results) == dict.fromkeys(map(str, listeners), "")
        assert [result.listener for result in results] == listeners
        assert all(0 < (result.seconds or 0) < 1 for result in results)
        wait_until(
            lambda times=times: self_tests(everything) == dict.fromkeys(map(str, listeners), times), "all were counted"
        )
    rows = everything.counters()
    for row in rows.values():
        assert row.get("replied", 3) == row.get("received", 3) == 3
        assert "dropped_access" not in row


def test_without_the_mark_it_asks_as_anybody(everything: Daemon) -> None:
    """And finds out that nobody is answered: the probe is an ordinary one."""
    listeners, _ = reported(everything)
    found = problems(run_self_test(listeners, None, 0.3))
    assert found == {
        str(each): "closed the connection at once" if str(each).startswith("tcp") else "no reply within 0.3 s"
        for each in listeners
    }
    assert set(self_tests(everything).values()) == {0}


def test_two_tests_at_once_wait_for_each_other(everything: Daemon) -> None:
    """The one that has the port is not disturbed; the other passes as soon as it is free, within its time."""
    listeners, mark = reported(everything)
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    holder.bind(("127.0.0.1", mark.port))
    pid = os.fork()
    if not pid:
        time.sleep(0.3)  # the other test goes on for so long
        os._exit(0)
    holder.close()  # ours; the child has it still
    results = run_self_test(listeners, mark, 5.0)
    os.waitpid(pid, 0)
    assert all(result.passed for result in results)


def test_two_tests_at_once_wait_for_a_connection_too(everything: Daemon) -> None:
    """Over TCP the other test has the very pair of ports until its connection ends: no reason to miss the address."""
    listeners, mark = reported(everything)
    (asked,) = [each for each in listeners if str(each).startswith("tcp://[::1]")]
    with open_probe(asked, mark.port) as other:
        other.setblocking(True)
        other.connect(("::1", asked.port))
        assert problems(run_self_test([asked], mark, 0.1)) == {
            str(asked): "the source port of self tests is in use by another process"
        }
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert problems(run_self_test([asked], mark)) == {str(asked): ""}


def test_a_port_that_somebody_keeps_is_reported(everything: Daemon) -> None:
    """Not as a listener that fails without a reason."""
    listeners, mark = reported(everything)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", mark.port))
        found = problems(run_self_test(listeners, mark, 0.3))
    assert {why for name, why in found.items() if name.startswith("udp://0.0.0.0")} == {
        "the source port of self tests is in use by another process"
    }
    assert {why for name, why in found.items() if "[" in name} == {""}


def test_a_daemon_that_hangs_answers_nothing_in_time(everything: Daemon) -> None:
    """Each listener failed, and the test ends when its time is over."""
    listeners, mark = reported(everything)
    halted = [everything.pid, *everything.workers()]
    for pid in halted:
        os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        found = problems(run_self_test(listeners, mark, 0.5))
        assert time.monotonic() - begun < 5
    finally:
        for pid in halted:
            os.kill(pid, signal.SIGCONT)
    assert set(found.values()) == {"no reply within 0.5 s"}


def test_where_nothing_listens_that_is_reported() -> None:
    """Over TCP at once; of UDP there is no answer; an address or interface that is not there has a name."""
    port = free_port()
    found = problems(
        run_self_test(
            parsed(
                f"tcp://127.0.0.1:{port}",
                f"udp://127.0.0.1:{port}",
                f"udp://192.0.2.123:{port}",
                f"tcp://192.0.2.123:{port}",
                f"udp://[fe80::1%nosuch]:{port}",
                f"tcp://[fe80::1%nosuch]:{port}",
            ),
            None,
            0.3,
        )
    )
    assert list(found.values()) == [
        "nothing listens there",
        "no reply within 0.3 s",
        "this host does not have the address 192.0.2.123",
        "this host does not have the address 192.0.2.123",
        "this host does not have its interface",
        "this host does not have its interface",
    ]


@pytest.fixture
def liar() -> Iterator[int]:
    """Run a server on one port of 127.0.0.1, in a process of its own, that answers once, but not with an echo."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("127.0.0.1", port)) as tcp:
        udp.bind(("127.0.0.1", port))
        pid = os.fork()
        if not pid:
            data, peer = udp.recvfrom(100)
            udp.sendto(data + b"!", peer)
            connection, _ = tcp.accept()
            connection.recv(10)
            connection.sendall(b"?!")
            os._exit(0)
        yield port
    os.waitpid(pid, 0)


def test_what_is_no_echo_does_not_pass(liar: int) -> None:
    """An answer must be the very bytes."""
    listeners = parsed(f"udp://127.0.0.1:{liar}", f"tcp://127.0.0.1:{liar}")
    assert list(problems(run_self_test(listeners, None, 0.3)).values()) == [
        "no reply within 0.3 s",
        "replied with other data",
    ]


@needs_root
def test_the_hosts_own_addresses_pass_though_they_are_refused(echod: StartDaemon) -> None:
    """From an outside address of the host itself a client has no answer; the self test has, also on a link."""
    with namespace():
        add_link("10.99.0.1")
        listeners = parsed("udp://10.99.0.1:7007", "tcp://10.99.0.1:7007")
        daemon = echod({"listeners": list(map(str, listeners)), "workers": 1, "access": {"allow": ["192.0.2.0/24"]}})
        _, mark = reported(daemon)
        assert set(problems(run_self_test(listeners, mark)).values()) == {""}
        assert set(problems(run_self_test(listeners, None, 0.3)).values()) > {"no reply within 0.3 s"}
        assert set(self_tests(daemon).values()) == {1}


@needs_root
def test_an_interface_may_go_while_the_answer_comes(network: None) -> None:
    """What was answered has passed, also where its listener can be asked no more."""
    add_link("fe80::5/64")
    listeners = [Listener(protocol=Protocol.UDP, address=IPv6Address("fe80::5"), port=9999, zone="near")]
    with open_socket(listeners[0], BUFFERS, sibling=False) as server:
        asked = _Run(listeners, None)
        asked._attempt(*asked._udp_groups())
        wait_until(lambda: queued_bytes(server), "the question")
        server.sendto(*server.recvfrom(100))
        ((sock, _),) = asked._sent
        wait_until(lambda: queued_bytes(sock), "the answer")
        ip("link", "delete", "near")
        asked._wait(time.monotonic() + 5)
        sock.close()
        asked._poll.close()
    assert [probe.problem for probe in asked._probes] == [""]
    assert asked._probes[0].done


def test_a_reload_has_a_mark_of_its_own(everything: Daemon) -> None:
    """The old one is worth nothing from then on; the new one passes."""
    listeners, old = reported(everything)
    everything.reload()
    _, new = reported(everything)
    assert new != old
    assert set(problems(run_self_test(listeners, new)).values()) == {""}
    assert "" not in problems(run_self_test(listeners, old, 0.3)).values()


@pytest.mark.parametrize("name", ["", "udp://example.com:7", "\x1b[2J", "tcp://127.0.0.1:70000"])
def test_a_status_that_names_no_listener_is_one_sentence(name: str) -> None:
    """Whoever may write to the directory chooses the names; a range is asked at its first port alone."""
    with pytest.raises(StatusUnknownError, match=r"^the status names a listener that cannot be probed: "):
        listeners_of(snapshot_of(name))
    assert [str(one) for one in listeners_of(snapshot_of("udp://127.0.0.1:1-65535"))] == ["udp://127.0.0.1:1"]


def snapshot_of(name: str) -> Snapshot:
    """Make the snapshot of an echod with one listener."""
    return make_snapshot(activity=Activity(udp=(UdpTraffic(name=name, family="ipv4", adopted=False),)))
