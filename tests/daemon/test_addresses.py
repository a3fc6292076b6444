"""Addresses and interfaces that a real echod listens on: those that come later, and those of one device."""

import socket
from collections.abc import Iterator

import pytest
from support.daemon import Daemon, StartDaemon, ask, is_served
from support.loopback import BUFFERS, add_link, ip, namespace, needs_root, wait_for_address
from support.netns.wire import LINK, SERVER, SERVER6, Wire
from support.system.network import entered
from support.waiting import SECONDS, wait_until

from echod.linux.sockets import open_socket
from echod.net.listener import Listener, parse_listener
from echod.stats.snapshot import Snapshot
from echod.status.files import read_self_test
from echod.status.selftest import listeners_of, run_self_test
from echod.supervisor.adoption import adopt_socket

PORT = 7
METRICS_PORT = 9007
OTHER, OTHER_CLIENT = "10.99.0.1", "10.99.0.2"
OTHER_LINK, OTHER_CLIENT_LINK = "fe80::99:1", "fe80::99:2"


def one(text: str) -> Listener:
    """Parse a text that opens a single listener."""
    (listener,) = parse_listener(text)
    return listener


@needs_root
@pytest.mark.parametrize("address", ["10.9.9.9", "2001:db8::9"])
def test_an_address_that_comes_later_is_answered_from_when_it_comes(echod: StartDaemon, address: str) -> None:
    """As with VRRP: an absent address keeps no listener down, the log warns of it, and once it is there it answers."""
    host = f"[{address}]" if ":" in address else address
    with namespace():
        later = [f"udp://{host}:{PORT}", f"tcp://{host}:{PORT}"]
        config = {"listeners": [f"udp://127.0.0.1:{PORT}", *later], "workers": 2, "access": {"allow": ["any"]}}
        metrics = f"http://{host}:9007"
        config["metrics"] = {"listen": metrics}
        daemon = echod({**config, "limits": {"datagrams_per_second": "unlimited"}})
        assert ask(PORT) == b"hi"
        warned = daemon.log("address_absent")
        assert [(entry["level"], entry["listener"]) for entry in warned] == [
            ("warning", name) for name in (*later, f"metrics.listen: {metrics}")
        ]
        assert warned[0]["message"] == (
            f"{later[0]} is no address of this host; `ip address` lists them: it is bound all the same, and served "
            "when this host has it"
        )
        length = ("/128", "nodad") if ":" in address else ("/32",)
        ip("address", "add", address + length[0], *length[1:], "dev", "lo")
        if ":" in address:
            wait_for_address(address + length[0], "lo")
        assert ask(PORT, host=address) == b"hi"
        with socket.create_connection((address, PORT), SECONDS) as client:
            assert is_served(client)


def read_snapshot(daemon: Daemon) -> Snapshot:
    """Return the snapshot of a daemon."""
    return Snapshot.unpack((daemon.status_path / "status.json").read_bytes())


def failed_self_tests(daemon: Daemon) -> list[tuple[str, str]]:
    """Test a daemon; return the listeners that failed, and why."""
    results = run_self_test(listeners_of(read_snapshot(daemon)), read_self_test(daemon.status_path))
    assert results
    return [(str(each.listener), each.problem) for each in results if not each.passed]


def lay_other(wire: Wire) -> None:
    """Lay another wire between the same hosts."""
    ip("-n", wire.server, "link", "add", "other", "type", "veth", "peer", "name", "other", "netns", wire.client)
    ends = ((wire.server, OTHER, OTHER_LINK), (wire.client, OTHER_CLIENT, OTHER_CLIENT_LINK))
    for name, address, link_address in ends:
        ip("-n", name, "link", "set", "other", "addrgenmode", "none")
        ip("-n", name, "address", "add", f"{address}/24", "dev", "other")
        ip("-n", name, "address", "add", f"{link_address}/64", "dev", "other", "nodad")
        ip("-n", name, "link", "set", "other", "up")


@pytest.fixture
def two_links() -> Iterator[Wire]:
    """Lay a wire, and beside it another one between the same hosts."""
    with Wire() as wire:
        lay_other(wire)
        yield wire


@needs_root
@pytest.mark.sockets_only("it reads the status of the daemon, which has what the sockets received")
def test_a_listener_on_an_interface_receives_and_replies_there_alone(two_links: Wire, echod: StartDaemon) -> None:
    """What comes in by another is refused, over UDP and TCP, until a listener of all stands beside it."""
    bound = [f"udp://0.0.0.0%{LINK}:{PORT}", f"tcp://0.0.0.0%{LINK}:{PORT}", f"udp://[::%{LINK}]:{PORT}"]
    with entered(two_links.server):
        daemon = echod({"listeners": bound, "workers": 2})
        assert failed_self_tests(daemon) == []
    with entered(two_links.client):
        for host in (SERVER, SERVER6, SERVER):
            assert ask(PORT, host=host) == b"hi"
        with socket.create_connection((SERVER, PORT), SECONDS) as client:
            assert is_served(client)
        with pytest.raises(ConnectionRefusedError):
            ask(PORT, host=OTHER)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((OTHER, PORT), SECONDS)
    expected = {bound[0]: 2, bound[2]: 1}

    def counted() -> bool:
        return {each.name: each.replied - each.self_test for each in read_snapshot(daemon).activity.udp} == expected

    wait_until(counted, "each listener had counted its own")
    assert daemon.reload({"listeners": [*bound, f"udp://0.0.0.0:{PORT}"], "workers": 3})["event"] == "reloaded"
    with entered(two_links.server):
        assert failed_self_tests(daemon) == []
    with entered(two_links.client):
        assert [ask(PORT, host=host) for host in (SERVER, OTHER, SERVER6)] == [b"hi"] * 3


@needs_root
def test_listeners_with_and_without_an_interface_start_together(two_links: Wire, echod: StartDaemon) -> None:
    """In either order, over UDP and TCP: the kernel would refuse the second, but for SO_REUSEPORT."""
    pair = [f"0.0.0.0:{PORT}", f"0.0.0.0%{LINK}:{PORT}"]
    with entered(two_links.server):
        for places in (pair, pair[::-1]):
            daemon = echod({"listeners": [f"{kind}://{each}" for kind in ("udp", "tcp") for each in places]})
            assert failed_self_tests(daemon) == []
            assert daemon.stop() == 0


@needs_root
def test_each_of_two_listeners_of_one_address_passes_whichever_interface_it_is_bound_to(echod: StartDaemon) -> None:
    """The probe that is bound to the interface and the other one come from the same address and port, together."""
    same = [f"{host}{at}" for host in (SERVER, SERVER6) for at in ("", f"%{LINK}")]
    hosts = [f"[{each}]" if ":" in each else each for each in same]
    wider = [f"udp://0.0.0.0%{LINK}:{PORT + 1}", f"udp://[::%{LINK}]:{PORT + 1}"]
    with Wire() as wire, entered(wire.server):
        daemon = echod(
            {"listeners": [*(f"{kind}://{each}:{PORT}" for kind in ("udp", "tcp") for each in hosts), *wider]}
        )
        for _ in range(3):
            assert failed_self_tests(daemon) == []


def served_on_the_other_link() -> list[bool]:
    """Ask over IPv4 and IPv6, UDP and TCP, and for metrics; return which are answered."""
    answered = []
    scope = socket.if_nametoindex("other")
    for kind, family, port in (
        (socket.SOCK_DGRAM, socket.AF_INET, PORT),
        (socket.SOCK_DGRAM, socket.AF_INET6, PORT),
        (socket.SOCK_STREAM, socket.AF_INET, PORT),
        (socket.SOCK_STREAM, socket.AF_INET, METRICS_PORT),
    ):
        with socket.socket(family, kind) as client:
            client.settimeout(SECONDS)
            try:
                client.connect((OTHER_LINK, port, 0, scope) if family == socket.AF_INET6 else (OTHER, port))
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                answered.append(bool(client.recv(4096)))
            except ConnectionRefusedError:
                answered.append(False)
    return answered


@needs_root
def test_an_interface_that_is_made_anew_is_served_after_a_reload(two_links: Wire, echod: StartDaemon) -> None:
    """Once it is gone the log names the listener and the remedy; a reload before that changes nothing."""
    bound = [f"udp://0.0.0.0%other:{PORT}", f"tcp://{OTHER}%other:{PORT}", f"udp://[{OTHER_LINK}%other]:{PORT}"]
    metrics = f"http://{OTHER}%other:{METRICS_PORT}"
    names = [*bound, f"metrics.listen: {metrics}"]
    with entered(two_links.server):
        daemon = echod({"listeners": [*bound, f"udp://0.0.0.0:{PORT + 1}"], "metrics": {"listen": metrics}})

    def warned() -> list[str]:
        return [entry["listener"] for entry in daemon.log("listener_detached")]

    ip("-n", two_links.server, "link", "delete", "other")
    wait_until(lambda: warned() == names, "each was warned of")
    assert daemon.log("listener_detached")[0]["message"] == (
        f"{bound[0]} receives nothing any more: its interface was removed or renamed; run `echod reload` when this "
        "host has the interface other again"
    )
    assert (daemon.reload()["event"], daemon.log("reloaded")[-1]["changed"]) == ("reloaded", ["nothing"])
    wait_until(lambda: warned() == names * 2, "each was warned of again")
    lay_other(two_links)
    with entered(two_links.client):
        assert served_on_the_other_link() == [False] * 4
    assert daemon.reload()["event"] == "reloaded"
    assert daemon.log("reloaded")[-1]["changed"] == [f"+{name}" for name in bound]
    with entered(two_links.client):
        assert served_on_the_other_link() == [True] * 4
    with entered(two_links.server):
        assert failed_self_tests(daemon) == []
    assert daemon.reload()["event"] == "reloaded"
    assert (daemon.log("reloaded")[-1]["changed"], warned()) == (["nothing"], names * 2)


@needs_root
def test_a_listener_follows_its_interface_to_another_name(two_links: Wire, echod: StartDaemon) -> None:
    """The config says the new name, and the port is not taken by the socket that is about to be closed."""
    with entered(two_links.server):
        daemon = echod({"listeners": [f"{kind}://0.0.0.0%other:{PORT}" for kind in ("udp", "tcp")]})
    for command in (("down",), ("name", "another"), ("up",)):
        ip("-n", two_links.server, "link", "set", "another" if command == ("up",) else "other", *command)
    renamed = {"listeners": [f"{kind}://0.0.0.0%another:{PORT}" for kind in ("udp", "tcp")]}
    assert daemon.reload(renamed)["event"] == "reloaded"
    with entered(two_links.server):
        assert failed_self_tests(daemon) == []


@needs_root
def test_a_passed_socket_that_is_bound_to_an_interface_is_that_listener() -> None:
    """BindToDevice= of a .socket unit is kept, and named as in the config, also for a link-local address."""
    with namespace():
        add_link("fe80::5/64")
        for text in ("udp://0.0.0.0%near:7", "udp://[::%near]:7", "tcp://127.0.0.1%lo:7", "udp://[fe80::5%near]:7"):
            wanted = one(text)
            sock = open_socket(wanted, BUFFERS, sibling=False)
            found, sock = adopt_socket(sock.detach(), BUFFERS)
            with sock:
                assert (found, str(found)) == (wanted, text)


@needs_root
def test_a_listener_on_an_interface_without_an_address_cannot_be_tested() -> None:
    """The self test reports that, and sends no probe elsewhere."""
    with namespace():
        add_link("10.0.0.1/24")
        for text in ("udp://0.0.0.0%far:7", "tcp://[::%far]:7"):
            (result,) = run_self_test([one(text)], None, 0.1)
            assert result.problem == "its interface has no address to probe"
