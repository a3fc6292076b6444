"""echod.socket holds the ports: the first datagram is answered, and nothing that happens to echod takes them away."""

import re
import socket
import subprocess
import time
from contextlib import suppress

import pytest
from support.system.operating import CONFIG, PORT, Host, family
from support.waiting import wait_until

SECOND_ADDRESS, SECOND_ADDRESS6 = "10.77.0.77", "fd00:77::77"
STATUS = re.compile(r"serving 2 udp and 2 tcp listeners with [1-9]\d* workers?; ([\d,]+) datagrams/s")

MANY_STARTS = 20  # four times as many as a unit may have in ten seconds by default
RESTARTS = 15  # three times as many as a unit may have in ten seconds by default
LATE = "delay_enter=200000"  # microseconds; the ports are bound again after 20 milliseconds


def knock(host: Host) -> None:
    """Send a datagram to each family and forget it."""
    with host.client():
        for address in (host.address, host.address6):
            with socket.socket(family(address), socket.SOCK_DGRAM) as client, suppress(OSError):
                client.sendto(b"knock", (address, PORT))


def starts(host: Host) -> int:
    """Return how often systemd has begun to start echod in this boot."""
    return sum("Starting echod.service" in entry["MESSAGE"] for entry in host.journal("-b", "_PID=1", "-u", "echod"))


@pytest.mark.parametrize(("address", "length"), [(SECOND_ADDRESS, 24), (SECOND_ADDRESS6, 64)])
def test_the_very_first_datagram_or_connection_is_answered(activated: Host, address: str, length: int) -> None:
    """What comes to a stopped echod starts it and is answered itself, from the address asked, of several."""
    activated.add_address(f"{address}/{length}")
    for first in (activated.ask, activated.converse):
        activated.systemctl("stop")
        assert activated.show("ActiveState") == "inactive"
        assert first(b"first", address=address) == b"first"
        assert activated.show("ActiveState") == "active"


def test_the_ports_alone_are_enough_at_boot(activated: Host) -> None:
    """With echod.service disabled, the socket unit is up after a boot and the first datagram starts echod."""
    activated.systemctl("disable")
    activated.reboot()
    assert (activated.show("ActiveState"), activated.show("ActiveState", "echod.socket")) == ("inactive", "active")
    assert activated.ask() == b"hello"
    assert activated.serves_everything()


def test_a_crash_loop_never_takes_the_ports_away(activated: Host) -> None:
    """While echod fails at once, again and again, with datagrams coming, the socket listens; repaired, it answers."""
    activated.systemctl("stop")
    activated.drop_in("[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=10ms\n")
    before = starts(activated)

    def crashed_often() -> bool:
        knock(activated)
        return starts(activated) > before + MANY_STARTS

    wait_until(crashed_often, "a long crash loop", seconds=60)
    assert activated.show("ActiveState", "echod.socket") == "active"
    activated.run(["rm", "/etc/systemd/system/echod.service.d/test.conf"])
    activated.daemon_reload()
    activated.await_answer()
    assert activated.serves_everything()


def test_the_ports_can_be_restarted_as_often_as_wanted(activated: Host) -> None:
    """As README and installer print it, again and again: no limit takes the ports away, nor those of the metrics."""
    activated.systemctl("enable", "--quiet", "echod-metrics.socket")
    restart = "systemctl restart echod.socket echod-metrics.socket echod.service"
    activated.run(["sh", "-c", f"for turn in $(seq {RESTARTS}); do {restart} || exit 1; done"])
    assert activated.serves_everything()
    assert activated.journal("-b", "_PID=1", "--priority=warning", "--unit=echod*.socket") == []


def test_nothing_that_systemd_forks_holds_the_ports_that_it_closes(activated: Host) -> None:
    """Its children have its descriptors until they close them. However late they do, the ports can be bound again."""
    late = ["strace", "-f", "--output=/dev/null", "--trace=close_range", f"--inject=close_range:{LATE}"]
    with subprocess.Popen([*late, f"--attach={activated.leader}"], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        try:
            assert b" attached\n" in tracer.stderr.readline()
            activated.systemctl("restart", "echod.socket", "echod.service")
        finally:
            tracer.terminate()
    assert activated.serves_everything()


def test_a_bad_file_does_not_make_every_datagram_a_start(activated: Host) -> None:
    """With mistakes in the file and datagrams coming, echod is tried at leisure; mended, it answers by itself."""
    activated.systemctl("stop")
    activated.write(CONFIG, "workers: many\n")
    before, begin = starts(activated), time.monotonic()

    def tried_again() -> bool:
        knock(activated)
        return starts(activated) > before + 2

    wait_until(tried_again, "a few attempts", seconds=60)
    assert 2 * (starts(activated) - before - 1) <= time.monotonic() - begin  # seconds: ExecStopPost=
    assert activated.show("ActiveState", "echod.socket") == "active"
    activated.write(CONFIG, "workers: 2\n")
    activated.await_answer()
    assert activated.serves_everything()


def test_one_socket_is_served_by_all_workers(activated: Host) -> None:
    """Workers wait on the very sockets that systemd passed, and no process of echod has another."""
    activated.configure("workers: 2\n")
    wait_until(lambda: len(activated.workers()) == 2, "the old workers have gone", seconds=30)
    assert len(activated.events("listener_adopted")) == 4
    assert activated.events("listener_bound") == []
    inodes = [
        {
            link
            for link in activated.run(
                ["find", f"/proc/{pid}/fd", "-lname", "socket:*", "-printf", "%l\n"]
            ).stdout.split()
            if link.removeprefix("socket:[").removesuffix("]") in activated.run(["cat", "/proc/net/udp"]).stdout
        }
        for pid in activated.workers()
    ]
    assert inodes[0] == inodes[1] != set()


def test_a_socket_that_takes_both_families_is_refused(activated: Host) -> None:
    """Forged v4-mapped sources would come in: the message names the line to mend, and echod is not restarted."""
    activated.systemctl("stop", "echod.service", "echod.socket")
    lines = "[Socket]\nListenDatagram=\nListenStream=\nListenDatagram=[::]:7\nBindIPv6Only=both\n"
    activated.drop_in(lines, unit="echod.socket")
    activated.systemctl("start", "echod.socket")
    assert activated.systemctl("start", check=False) != 0
    printed = [entry["MESSAGE"] for entry in activated.journal("-u", "echod", "-p", "err", "SYSLOG_IDENTIFIER=echod")]
    assert any("set BindIPv6Only=ipv6-only in the .socket unit" in line for line in printed)
    assert (activated.show("ExecMainStatus"), activated.show("NRestarts")) == ("78", "0")


def test_other_ports_are_named_in_the_socket_unit_and_in_the_config(activated: Host) -> None:
    """In the unit alone they are not enough: echod then has to open those of the config, may not, and reports it."""
    lines = "[Socket]\nListenStream=\nListenDatagram=[::]:7007\nListenStream=[::]:7007\nListenNetlink=route\n"
    activated.drop_in(lines, unit="echod.socket")
    assert activated.systemctl("restart", "echod.socket", "echod.service", check=False) != 0
    (refusal, *_) = [entry["MESSAGE"] for entry in activated.journal("-u", "echod", "-p", "err", "-t", "echod")]
    assert re.search("udp://0.0.0.0:7 may not be opened: .* it belongs into the .socket unit", refusal)
    activated.write(CONFIG, "listeners: ['udp://[::]:7007', 'tcp://[::]:7007']\n")
    activated.systemctl("restart", "echod.socket", "echod.service")
    assert activated.ask(address=activated.address6, port=7007) == b"hello"
    assert activated.converse(address=activated.address6, port=7007) == b"hello"
    assert not activated.answers()
    assert activated.events("own_addresses_unknown") == []


def test_the_lines_of_the_unit_that_are_off_can_be_switched_on(activated: Host) -> None:
    """An address that comes later is held before it comes, and replies; on one device, no other is answered on."""
    path = "/etc/systemd/system/echod.socket"
    unit = activated.read(path)
    for off, on in (
        ("\n#FreeBind=yes\n", f"\nFreeBind=yes\nListenDatagram={SECOND_ADDRESS}:8\n"),
        ("\n#BindToDevice=eth1\n", "\nBindToDevice=eth0\n"),
    ):
        assert unit.count(off) == 1
        unit = unit.replace(off, on)
    activated.write(path, unit)
    names = [f"{kind}://{host}:7" for kind in ("udp", "tcp") for host in ("0.0.0.0%eth0", "[::%eth0]")]
    activated.write(CONFIG, f"listeners: {[*names, f'udp://{SECOND_ADDRESS}%eth0:8']}\n")
    activated.daemon_reload()
    assert "mistake" not in activated.run(["echod", "check"]).stdout
    assert activated.run(["systemd-analyze", "verify", "--man=no", "echod.socket"]).stderr == ""
    activated.systemctl("restart", "echod.socket", "echod.service")
    assert activated.serves_everything()
    assert activated.events("own_addresses_unknown") == []
    activated.add_address(f"{SECOND_ADDRESS}/24")
    assert activated.ask(address=SECOND_ADDRESS, port=8) == b"hello"
    lo = "import socket; s = socket.socket(); s.connect(('127.0.0.1', 7))"
    assert "ConnectionRefusedError" in activated.run(["python3", "-c", lo], check=False).stderr


def test_the_status_is_one_line_that_an_operator_understands(standing: Host) -> None:
    """`systemctl status` shows what is served, by how many workers, and how fast; it counts what clients send."""
    wait_until(lambda: STATUS.fullmatch(standing.show("StatusText")), "the status line")
    before = standing.supervisor()

    def busy() -> bool:
        for _ in range(20):
            standing.ask()
        found = STATUS.fullmatch(standing.show("StatusText"))
        return found is not None and int(found[1].replace(",", "")) > 10

    wait_until(busy, "the rate in the status line", seconds=60)
    assert standing.supervisor() == before
    assert standing.ask() == b"hello"
