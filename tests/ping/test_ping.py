"""`echod ping` against a running echod: its output, its files and its exit code."""

import csv
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import ECHOD, Daemon
from support.ping.pinging import ended, ping, read_lines, shape, start, watched
from support.ports import free_port
from support.waiting import wait_until

IP_RECVTTL = 12  # linux/in.h


def test_the_output_is_pings(port: int) -> None:
    """A line for each reply and a closing block, to the letter but for the times."""
    found = ping("-c", 2, "-i", "10ms", f"127.0.0.1:{port}")
    assert (found.code, found.err) == (0, "")
    assert shape(found.out) == (
        f"PING udp://127.0.0.1:{port} (127.0.0.1) 56(84) bytes of data.\n"
        f"56 bytes from 127.0.0.1:{port}: seq=1 ttl=64 time=T ms\n"
        f"56 bytes from 127.0.0.1:{port}: seq=2 ttl=64 time=T ms\n"
        "\n"
        f"--- udp://127.0.0.1:{port} ping statistics ---\n"
        "2 packets transmitted, 2 received, 0% packet loss, time Tms\n"
        "rtt min/avg/max/mdev = T/T ms\n"
        "rtt median/p90/p99/p99.9 = T/T ms\n"
        "jitter T ms (RFC 3550), delay variation avg/max = T/T ms (RFC 3393)\n"
    )


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_every_size_comes_back(port: int, scheme: str) -> None:
    """From one byte (UDP: from none) to 65,507, in turn."""
    sizes = "1-30,1472,9000,65507" if scheme == "tcp" else "0-30,1472,9000,65507"
    found = ping("--json", "-i", 0, "-c", 70, "-s", sizes, f"{scheme}://127.0.0.1:{port}")
    assert (found.summary["sent"], found.summary["received"], found.summary["corrupt"]) == (70, 70, 0)
    assert {each["size"] for each in found.objects[:-1]} >= {1, 24, 30, 1472, 9000, 65_507}


def test_comparing_tells_a_server_that_refuses_this_source(echod: Callable[..., Daemon]) -> None:
    """Echod drops its datagrams, and accepts its connections and resets them: neither is closed or filtered."""
    port = free_port()
    listeners = [f"{scheme}://127.0.0.1:{port}" for scheme in ("udp", "tcp")]
    echod({"listeners": listeners, "workers": 1, "access": {"allow": ["192.0.2.0/24"]}})
    found = ping("-n", "-c", 1, "-W", 2, "--compare", "tcp", f"127.0.0.1:{port}")
    assert found.code == 1
    assert found.out.endswith(
        "the host is up, but does not echo: UDP has no reply: it is filtered, or the server's rules drop it; "
        "TCP connections are accepted and closed: the server may refuse this source\n"
    )


def test_several_hosts_are_asked_at_once(port: int) -> None:
    """Each has its lines, its block and a line at the end; one that replies is enough for exit code 0."""
    silent = f"[::1]:{free_port()}"
    found = ping("-c", 2, "-i", "10ms", "-W", 10, f"127.0.0.1:{port}", f"tcp://[::1]:{port}", silent)
    assert found.code == 0
    assert f"From ::1: {silent} udp seq=2 port unreachable\n" in found.out
    assert found.out.count("ping statistics ---") == 3
    assert found.out.count("2 packets transmitted, 2 received") == 2
    one, two, three = found.out.rpartition("\n\n")[2].splitlines()
    assert [shape(one), shape(two)] == [
        f"{target}: T/T packets, 0% loss, min/avg/max = T/T ms"
        for target in (f"udp://127.0.0.1:{port}", f"tcp://[::1]:{port}")
    ]
    assert three.endswith(": 0/2 packets, 100% loss")


def test_json_is_an_object_a_line_and_csv_a_row_for_each_event(port: int, tmp_path: Path) -> None:
    """The same fields in both."""
    rows = tmp_path / "events.csv"
    found = ping("--json", "--csv", rows, "-c", 3, "-i", 0, f"127.0.0.1:{port}")
    replies, summary = found.objects[:-1], found.objects[-1]
    assert [each["event"] for each in replies] == ["reply"] * 3
    assert (summary["event"], found.summary["rtt_ms"]["min"] > 0) == ("summary", True)
    assert (found.summary["reordered"], found.summary["dropped_here"]) == (0, 0)
    with rows.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(row["sequence"]) for row in written] == [1, 2, 3]
    assert [float(row["rtt_ms"]) for row in written] == [each["rtt_ms"] for each in replies]


@contextmanager
def mute(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Open a socket that receives probes with the fields of their IP headers, and never replies."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        sock.bind((host, 0))
        yield sock


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1"), ("127.0.0.1", "lo")])
def test_pattern_source_service_class_and_ttl_are_on_the_wire(host: str, source: str) -> None:
    """-p, -I, -Q and -t, in the datagram that arrives; -Q takes the name of a DSCP."""
    with mute(host) as sock:
        port = sock.getsockname()[1]
        ping("-p", "ff01", "-s", 30, "-I", source, "-Q", "EF", "-t", 9, "-c", 1, "-W", "50ms", f"[{host}]:{port}")
        data, control, _, peer = sock.recvmsg(100, 200)
    assert data[24:] == b"\xff\x01" * 3  # behind the header, in step with the first byte of all
    assert sorted(value[0] for _, _, value in control) == [9, 0xB8]
    assert peer[0] == (host if source == "lo" else source)


def test_no_more_than_a_window_is_in_flight() -> None:
    """--window 3: without an answer the fourth probe never goes, however often one is due."""
    with mute() as sock:
        words = ("--json", "-q", "-i", "1ms", "--window", 3, "-W", 20, "-w", 1)
        found = ping(*words, f"127.0.0.1:{sock.getsockname()[1]}").summary
    assert (found["sent"], found["in_flight"]) == (3, 3)


def test_each_line_has_its_time(port: int) -> None:
    """-D: seconds since 1970, to the microsecond, as ping has it."""
    before = time.time()
    found = re.search(r"^\[(\d+\.\d{6})\] 56 bytes from ", ping("-D", "-c", 1, f"127.0.0.1:{port}").out, re.MULTILINE)
    assert found
    assert before - 0.001 <= float(found[1]) <= time.time()


def test_a_name_is_asked_over_the_family_that_is_wanted(port: int) -> None:
    """-4 and -6; where the name has no address of that family, that is reported."""
    has_ipv6 = any(each[0] == socket.AF_INET6 for each in socket.getaddrinfo("localhost", port))
    assert ping("-4", "-c", 1, f"localhost:{port}").out.startswith(f"PING udp://localhost:{port} (127.0.0.1) ")
    found = ping("-6", "-c", 1, f"localhost:{port}")
    if has_ipv6:
        assert found.out.startswith(f"PING udp://localhost:{port} (::1) ")
    else:
        assert (found.code, found.err) == (2, "echod: localhost: has no IPv6 address\n")


def test_pace_is_kept_to_the_microsecond(port: int) -> None:
    """2,000 probes, 250 us apart, take half a second and no less."""
    found = ping("--json", "-q", "-i", "250us", "-c", 2000, f"127.0.0.1:{port}").summary
    assert found["sent"] == 2000
    assert 0.499 < found["seconds"] < 5


def test_the_mtu_of_loopback(port: int) -> None:
    """All of it, in both directions."""
    found = ping("--mtu", f"127.0.0.1:{port}")
    assert (found.code, found.out.splitlines()[-1]) == (
        0,
        "path MTU 65535 in both directions, the MTU of this host's interface",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_search_for_the_mtu_with_what_is_known(number: signal.Signals) -> None:
    """Here nothing, for nobody has answered; exit code 1. SIGTERM and SIGHUP do too, and Ctrl-backslash does not."""
    with mute() as sock, start("--mtu", "-W", "30", f"127.0.0.1:{sock.getsockname()[1]}") as process:
        sock.recv(100)
        process.send_signal(signal.SIGQUIT)
        process.send_signal(number)
        out, err = ended(process)
    assert (process.returncode, err) == (1, "")
    assert out.endswith("\ninterrupted: path MTU unknown, there was no reply yet\n")


def test_a_terminal_that_goes_away_ends_it_but_not_under_nohup(port: int) -> None:
    """SIGHUP ends it with the statistics; where it was ignored from the start it still is."""
    for command, interval, sent in (([], "3600", 1), (["nohup"], "1", 2)):
        words = [*command, *ECHOD, "ping", "-c", "2", "-i", interval, f"127.0.0.1:{port}"]
        with watched(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            read_lines(process, 2)
            process.send_signal(signal.SIGHUP)
            out = ended(process)[0]
        assert process.returncode == 0
        assert f"{sent} packets transmitted, {sent} received" in out


def test_a_histogram_and_a_picture(port: int, tmp_path: Path) -> None:
    """Twenty bars at most, and an SVG or PNG file."""
    for name, magic in (("x.svg", b"<?xml"), ("x.png", b"\x89PNG")):
        found = ping("-q", "--histogram", "--plot", tmp_path / name, "-c", 50, "-i", 0, f"127.0.0.1:{port}")
        assert found.code == 0
        assert (tmp_path / name).read_bytes().startswith(magic)
        assert "█" in found.out


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_another_echo_server_is_measured_too(scheme: str) -> None:
    """The protocol is RFC 862, not echod's own. (One at a time: pipes inside join probes that come together.)"""
    port = free_port()
    command = ["socat", f"{scheme.upper()}4-LISTEN:{port},fork", "PIPE"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            target = f"{scheme}://127.0.0.1:{port}"
            wait_until(lambda: ping("-c", 1, "-W", "300ms", target).code == 0, "socat replies")
            found = ping("--json", "-q", "-c", 20, "-i", 0, target).summary
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert (found["received"], found["corrupt"], found["duplicates"]) == (20, 0, 0)
