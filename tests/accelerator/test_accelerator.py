"""`echod accelerate` beside a real echod: the kernel repeats what the daemon replied, until something changes."""

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from support.daemon import REPOSITORY, Daemon, children, end_processes
from support.loopback import needs_root, sleeps
from support.manager import Manager
from support.netns.accelerator import NEVER, Accelerated, accelerated
from support.netns.datagrams import CLIENT, CLIENT_MAC, PORT, SERVER, SERVER6
from support.netns.stage import totals
from support.netns.traffic import Client, Traffic
from support.netns.wire import LINK
from support.system.network import entered
from support.waiting import wait_until

from echod.linux.prctl import CAP_BPF, CAP_NET_ADMIN

pytestmark = needs_root

_TUNSETIFF, _TUNSETLINK = 0x4004_54CA, 0x4004_54CD
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000  # linux/if_tun.h
_ARPHRD_IEEE1394: Final = 24


@pytest.fixture
def host(folder: Path) -> Iterator[Accelerated]:
    """Start both for one test."""
    with accelerated(folder) as host:
        yield host


def ask(sock: socket.socket, number: int) -> None:
    """Ask so often, and have each answer."""
    for each in range(number):
        payload = b"question %04d" % each
        sock.send(payload)
        assert sock.recv(65_536) == payload


def is_answered(sock: socket.socket, payload: bytes = b"are you there?") -> bool:
    """Tell whether an answer comes; one that does not come within a tenth of a second is taken for none."""
    try:
        sock.send(payload)
        return bool(select.select([sock], [], [], 0.1)[0]) and sock.recv(65_536) == payload
    except ConnectionRefusedError:
        return False


def await_silence(sock: socket.socket) -> None:
    """Wait until nobody answers, and see that it stays so."""
    wait_until(lambda: not is_answered(sock), "nobody answered")
    assert [is_answered(sock) for _ in range(3)] == [False] * 3


def on_server(host: Accelerated, command: str) -> None:
    """Run a command on the server."""
    subprocess.run(["ip", "netns", "exec", host.wire.server, *command.split()], check=True)


# -- the first and the next


@pytest.mark.parametrize("to", [SERVER, SERVER6])
def test_the_daemon_answers_the_first_and_the_kernel_all_others(host: Accelerated, to: str) -> None:
    """The status file says so, and its numbers and those of the daemon are all that was sent."""
    sockets = totals(host.daemon)
    with host.wire.client_of(to, PORT) as sock:
        ask(sock, 100)
        wait_until(lambda: host.total("replied") + host.total("passed") == 100, "the status has what was sent")
        replied, passed = host.total("replied"), host.total("passed")
        assert replied > 90
        assert host.total("replied_bytes") == replied * 13
        assert totals(host.daemon)["received"] - sockets["received"] == passed
        (account,) = (each for each in host.accelerator.status()["traffic"] if each["replied"])
        assert (account["family"], account["port"]) == ("ipv6" if ":" in to else "ipv4", PORT)
        wait_until(lambda: is_answered(sock) and host.accelerator.status()["paths"] == 1, "the status has the path")


def test_it_says_where_it_replies(host: Accelerated) -> None:
    """In its status, in its log, and in its title."""
    status, accelerator = host.accelerator.status(), host.accelerator
    (interface,) = status["interfaces"]
    assert (interface["name"], interface["kind"], interface["driver"]) == (LINK, "ethernet", "tcx")
    assert interface["ifindex"] > 1
    assert (status["pid"], status["config"]) == (accelerator.pid, str(host.daemon.config_path))
    assert accelerator.wait_for("kernel_attached")["interface"] == LINK
    assert accelerator.wait_for("ready")["message"] == f"ready: repeating replies at {LINK}"
    title = Path(f"/proc/{accelerator.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert title == f"echod: accelerator {host.daemon.config_path}"


def test_it_keeps_exactly_the_two_capabilities(host: Accelerated) -> None:
    """And cannot have more; so does one that root has started, with all of them."""

    def held(process: Daemon) -> dict[str, int]:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return {name: int(mask, 16) for name, _, mask in (line.partition(":\t") for line in lines) if "Cap" in name}

    wanted = CAP_BPF | CAP_NET_ADMIN
    assert set(held(host.accelerator).values()) == {wanted}
    host.end()
    held_by_root = held(host.start(prefix=()))
    assert held_by_root["CapPrm"] == held_by_root["CapEff"] == wanted


def test_idle_it_wakes_up_once_a_second(host: Accelerated) -> None:
    """Its file, whose time tells how long it was idle, is written each five seconds."""
    accelerator = host.accelerator

    def written(after: float) -> float:
        at: float = accelerator.status()["at"]
        return at if at > after else 0.0

    first = wait_until(lambda: written(0.0), "the status was written")
    for _ in range(3):  # beside other work a sleep may be for something else, such as a page or a lock: not each time
        first = wait_until(partial(written, first), "the status was written again")
        before = sleeps(accelerator.pid)
        last = wait_until(partial(written, first), "the status was written once more")
        assert last - first > 4.0
        if (woken := sleeps(accelerator.pid) - before) <= last - first + 3:
            break
    assert woken <= last - first + 3


# -- what ends an answer

_CHAIN: Final = "{ type filter hook input priority 0; }"
_DROP: Final = f"nft add table t; add chain t c {_CHAIN}; add rule t c udp dport {PORT} drop"
CHANGES: Final = {
    "address": f"ip address delete {SERVER}/24 dev {LINK}",
    "route": f"ip route add blackhole {CLIENT}",
    "rule": f"ip rule add to {CLIENT} blackhole",
    "firewall": _DROP,
    "ipsec": f"ip xfrm policy add dir out dst {CLIENT} action block",
}


@pytest.mark.parametrize("cause", CHANGES)
def test_what_the_host_forbids_the_kernel_ends_to_repeat(host: Accelerated, cause: str) -> None:
    """Of each kind that the kernel tells of, long before the path would end by itself; the status counts it."""
    with host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        on_server(host, CHANGES[cause])
        await_silence(sock)
        wait_until(lambda: host.accelerator.status()["flushes"][cause], "the status has the cause")


def test_another_station_of_a_neighbour_ends_the_path_to_the_old_one(host: Accelerated) -> None:
    """What goes up to the daemon then goes to the new one; a neighbour that is confirmed ends nothing."""
    with host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        host.wire.know(CLIENT)
        on_server(host, f"ip neighbour replace {CLIENT} lladdr 02:00:00:00:00:99 dev {LINK}")
        await_silence(sock)
        wait_until(lambda: host.accelerator.status()["flushes"]["neighbour"] == 1, "the status has the cause")
        on_server(host, f"ip neighbour replace {CLIENT} lladdr {CLIENT_MAC} dev {LINK}")
        wait_until(lambda: is_answered(sock), "it was answered again")


def test_a_reload_takes_the_answers_of_a_peer_away(host: Accelerated) -> None:
    """At once, also before the daemon has reloaded; and gives them back."""
    with host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        host.write(access={"deny": [CLIENT]})
        assert host.accelerator.reload()["event"] == "reloaded"
        assert [is_answered(sock) for _ in range(3)] == [False] * 3
        wait_until(lambda: host.dropped() == {"access": 3}, "the status has what was dropped")
        assert host.accelerator.status()["flushes"]["config"] == 1
        host.write()
        host.daemon.reload()
        host.accelerator.reload()
        ask(sock, 20)
        wait_until(lambda: host.total("replied") > 30, "the kernel replied again")


def test_what_changes_while_a_config_is_read_counts_at_once(host: Accelerated) -> None:
    """The process that reads it is held; paths are forgotten meanwhile, as ever, and then the reload ends."""
    host.write(log={"level": "debug"})
    host.accelerator.reload()
    reader = 0
    for reloads in range(1, 20):
        if reader := hold_reader(host, reloads):
            break
    assert reader, "a reader ended before it could be held, each time"
    before = len(host.accelerator.log("kernel_paths_forgotten"))
    on_server(host, "ip route add 203.0.113.0/24 dev lo")
    host.accelerator.wait_for("kernel_paths_forgotten", before + 1)
    assert len(host.accelerator.log("reloaded")) == reloads
    os.kill(reader, signal.SIGCONT)
    host.accelerator.wait_for("reloaded", reloads + 1)


def hold_reader(host: Accelerated, reloads: int) -> int:
    """Begin a reload after so many, and stop the process that reads the config; return its id, or 0 if it has ended."""
    pid = host.accelerator.pid
    host.accelerator.signal(signal.SIGHUP)
    wait_until(lambda: children(pid) or len(host.accelerator.log("reloaded")) > reloads, "there was a reader")
    for reader in children(pid):
        with suppress(ProcessLookupError):
            os.kill(reader, signal.SIGSTOP)
            wait_until(partial(is_at_rest, reader), "it is stopped, or gone")
            if process_state(reader) == "T":
                return reader
    host.accelerator.wait_for("reloaded", reloads + 1)
    return 0


def is_at_rest(pid: int) -> bool:
    """Tell whether a process is stopped, or gone."""
    return process_state(pid) in "TZ"


def process_state(pid: int) -> str:
    """Return the letter of the state of a process; Z if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_a_bad_file_changes_nothing(host: Accelerated) -> None:
    """It is rejected with its mistake, and the kernel goes on."""
    with host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        host.daemon.write("access: {deny: nobody}")
        rejected = host.accelerator.reload()
        assert rejected["event"] == "reload_rejected"
        assert "access.deny" in rejected["message"]
        ask(sock, 20)
        wait_until(lambda: host.total("replied") > 30, "the kernel went on")


def test_a_file_without_interfaces_switches_it_off(host: Accelerated) -> None:
    """It stays, and the sockets alone reply until there is one again."""
    with host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        host.write(kernel={})
        host.accelerator.reload()
        assert host.accelerator.wait_for("kernel_detached")["interface"] == LINK
        received = totals(host.daemon)["received"]
        ask(sock, 20)
        assert totals(host.daemon)["received"] == received + 20
        host.write()
        host.accelerator.reload()
        ask(sock, 20)
        wait_until(lambda: host.total("replied") > 30, "the kernel replied before and after")
        assert host.total("replied") <= 38


def test_a_thousand_events_a_second_do_not_cost_a_core(host: Accelerated) -> None:
    """They are handled together: few flushes, and answers all the time."""
    lines = "".join(
        f"route {verb} 198.51.100.{number % 250}/32 dev lo\n" for number in range(1000) for verb in ("add", "delete")
    )
    with Traffic([Client(host.wire, SERVER, rate=500)]) as traffic:
        batch = host.daemon.config_path.with_name("routes")
        batch.write_text(lines)
        traffic.during("ip", "-n", host.wire.server, "-batch", str(batch))
        traffic.settle(lambda: traffic.answered == traffic.sent)
    flushes = wait_until(lambda: host.accelerator.status()["flushes"]["route"], "the status has the flushes")
    assert flushes < 500


# -- interfaces


def test_an_interface_that_comes_back_is_attached_again(host: Accelerated) -> None:
    """By itself; while it is away, the status says so."""
    wire, accelerator = host.wire, host.accelerator
    wire.configure("link", "delete", LINK)
    wait_until(lambda: accelerator.status()["interfaces"][0]["kind"] == "", "it was seen to be gone")
    wire.configure("link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", wire.client)
    accelerator.wait_for("kernel_attached", 2)
    wait_until(lambda: accelerator.status()["interfaces"][0]["kind"] == "ethernet", "it is there again")


def test_an_interface_may_come_later(folder: Path) -> None:
    """Until then the log says that the sockets alone reply there; on `lo` the kernel replies already."""
    kernel = NEVER | {"interfaces": ["lo", "later"]}
    with accelerated(folder, kernel=kernel) as host:
        warned = host.accelerator.wait_for("kernel_not_attached")
        assert warned["message"] == "kernel.interfaces: later is not there yet: the sockets alone reply there"
        assert host.accelerator.wait_for("ready")["message"] == "ready: repeating replies at lo"
        host.wire.configure("link", "add", "later", "type", "veth", "peer", "name", "other")
        assert host.accelerator.wait_for("kernel_attached", 2)["interface"] == "later"
        host.wire.configure("link", "set", "later", "name", "never")
        assert host.accelerator.wait_for("kernel_detached")["interface"] == "later"


@contextmanager
def unfit_interface(host: Accelerated) -> Iterator[None]:
    """Make an interface of a type that no program is made for, while this lasts."""
    with entered(host.wire.server):
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"later", _IFF_TUN | _IFF_NO_PI))
        fcntl.ioctl(device, _TUNSETLINK, _ARPHRD_IEEE1394)
    try:
        yield
    finally:
        os.close(device)


def test_an_interface_of_another_kind_is_left_to_the_sockets(folder: Path) -> None:
    """The log says so once, however often interfaces change."""
    with (
        accelerated(folder, kernel=NEVER | {"interfaces": [LINK, "later"]}, start=False) as host,
        unfit_interface(host),
    ):
        host.start()
        message = "kernel.interfaces: later is of a kind that it cannot use: the sockets alone reply there"
        assert host.accelerator.wait_for("kernel_not_attached")["message"] == message
        host.wire.configure("link", "set", "lo", "mtu", "1400")
        wait_until(lambda: host.accelerator.status()["flushes"]["link"], "the change was seen")
        assert len(host.accelerator.log("kernel_not_attached")) == 1
        assert [each["kind"] for each in host.accelerator.status()["interfaces"]] == ["ethernet", ""]


def test_in_the_driver_of_what_is_no_card_the_sockets_reply(folder: Path) -> None:
    """The log says so in one sentence for each; with another config the kernel replies at once."""
    kernel = NEVER | {"interfaces": [LINK, "lo"], "driver": "xdp"}
    obstacle = "is no network card, which kernel.driver: xdp needs: the sockets alone reply there"
    with accelerated(folder, kernel=kernel) as host, host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        assert totals(host.daemon)["received"] == 20
        told = [each["message"] for each in host.accelerator.log("kernel_not_attached")]
        assert told == [f"kernel.interfaces: {name} {obstacle}" for name in (LINK, "lo")]
        wait_until(host.accelerator.status, "there was a status")
        assert [(each["kind"], each["driver"]) for each in host.accelerator.status()["interfaces"]] == [("", "xdp")] * 2
        host.write()
        host.accelerator.reload()
        ask(sock, 20)
        wait_until(lambda: host.total("replied") > 10, "the kernel replied")


# -- what it tells systemd


def test_it_tells_the_service_manager(folder: Path) -> None:
    """That it is ready, alive, reloading, ready again whatever came of it, and stopping."""
    place = folder / "notify"
    with closing(Manager(str(place))) as manager, accelerated(folder, start=False) as host:
        place.chmod(0o777)
        host.start(variables=manager.variables | {"WATCHDOG_USEC": "3000000"})
        assert manager.wait_for("READY=1")["STATUS"] == f"repeating replies at {LINK}"
        manager.wait_for("WATCHDOG=1", 2)
        host.daemon.write("workers: nobody")
        host.accelerator.reload()
        assert int(manager.wait_for("RELOADING=1")["MONOTONIC_USEC"]) > 0
        manager.wait_for("READY=1", 2)
        host.accelerator.stop()
        manager.wait_for("STOPPING=1")


# -- how it ends


def test_reloads_under_load_lose_nothing(host: Accelerated) -> None:
    """Each datagram is answered by the kernel or by the sockets, and counted there."""
    before = totals(host.daemon)["received"]
    with Traffic([Client(host.wire, SERVER, rate=3000), Client(host.wire, SERVER6, rate=3000)]) as traffic:
        for number in range(10):
            host.write(guard={"min_source_port": 1024 + number})
            assert host.accelerator.reload()["event"] == "reloaded"
            traffic.run(0.05)
        traffic.settle(lambda: traffic.answered == traffic.sent)
        wait_until(lambda: host.total("replied") + host.total("passed") == traffic.sent, "all were counted")
        assert host.total("passed") == totals(host.daemon)["received"] - before
        assert host.total("replied") > 1000


def test_killed_under_load_it_loses_nothing(host: Accelerated) -> None:
    """The kernel detaches its programs, and the sockets reply to the very next datagram."""
    with Traffic([Client(host.wire, SERVER, rate=5000), Client(host.wire, SERVER6, rate=5000)]) as traffic:
        traffic.run(1.5)
        assert host.total("replied") > 1000
        replied = totals(host.daemon)["replied"]
        host.accelerator.signal(signal.SIGKILL)
        host.accelerator.wait()
        traffic.run(0.5)
        traffic.settle(lambda: traffic.answered == traffic.sent)
        assert totals(host.daemon)["replied"] > replied + 1000


STOP_AND_RELOAD = """
import os, signal
from echod.accelerator.accelerator import Accelerator
accelerator = Accelerator(path=None, environment={})
for number in (signal.SIGTERM, signal.SIGHUP):
    os.kill(os.getpid(), number)
    accelerator._on_signals(0.0)
print(accelerator._stopping, accelerator._reload_wanted)
"""


def test_a_reload_that_comes_after_a_stop_does_not_undo_it() -> None:
    """Both are taken, one after the other."""
    command = [sys.executable, "-c", STOP_AND_RELOAD]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, timeout=30)
    assert finished.stdout == b"True True\n"


def test_it_stops_in_order(host: Accelerated) -> None:
    """It ends with code 0, and takes its status away."""
    wait_until(host.accelerator.status, "there was a status")
    assert host.accelerator.stop() == 0
    assert not (host.accelerator.status_path / "status.json").exists()
    with host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 5)


def test_answers_end_with_the_daemon(folder: Path) -> None:
    """Where nobody renews a path it ends, `stale_seconds` after the last reply of the sockets."""
    kernel = NEVER | {"fresh_seconds": 1, "stale_seconds": 2}
    with accelerated(folder, kernel=kernel) as host, host.wire.client_of(SERVER, PORT) as sock:
        ask(sock, 20)
        end_processes([*children(host.daemon.pid), host.daemon.pid])
        host.daemon.wait()
        wait_until(lambda: not any(is_answered(sock) for _ in range(5)), "nobody answered, renewal or not")
        wait_until(lambda: host.accelerator.status()["paths"] == 0, "there was no path")
