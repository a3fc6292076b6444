"""Real clients, as Debian ships them, get their answers: ncat, socat and nping, UDP and TCP, IPv4 and IPv6."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.ports import free_port

HOSTS = ["127.0.0.1", "::1"]


def requires(client: str) -> pytest.MarkDecorator:
    """Skip a test where its client is not installed."""
    return pytest.mark.skipif(shutil.which(client) is None, reason=f"{client} is not installed")


@pytest.fixture
def port(echod: Callable[..., Daemon]) -> int:
    """Return a port that echod serves in UDP and TCP, on 127.0.0.1 and ::1."""
    port = free_port()
    echod({"listeners": [f"{scheme}://{host}:{port}" for scheme in ("udp", "tcp") for host in ("127.0.0.1", "[::1]")]})
    return port


def shell(command: str) -> str:
    """Run a line as an operator types it; return what it printed."""
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@requires("ncat")
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("udp", [[], ["-u"]])
def test_ncat_is_answered(port: int, host: str, udp: list[str]) -> None:
    """`ncat` prints what it sent. (Its stdin stays open until then: at its end ncat may quit before any answer.)"""
    command = ["timeout", "60", "ncat", *udp, host, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as ncat:
        assert ncat.stdin is not None
        assert ncat.stdout is not None
        ncat.stdin.write(b"hi")
        assert ncat.stdout.read(2) == b"hi"
        ncat.terminate()


@requires("socat")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize(("protocol", "size"), [("UDP", 2), ("TCP", 1_000_000)])
def test_socat_is_answered(port: int, host: str, protocol: str, size: int) -> None:
    """`socat` prints what it sent, over TCP a megabyte until both sides have closed."""
    data = f"head -c {size} /dev/zero | tr '\\0' x"
    assert shell(f"{data} | socat -t5 - {protocol}:{host}:{port} | md5sum") == shell(f"{data} | md5sum")


@requires("nping")
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("probe", "answered"),
    [("--udp --unprivileged --data-length 32", "Rcvd: 3"), ("--tcp-connect", "Successful connections: 3")],
)
def test_nping_is_answered(port: int, host: str, probe: str, answered: str) -> None:
    """Each of nping's three UDP probes or TCP handshakes succeeds."""
    family = "-6" if ":" in host else ""
    assert answered in shell(f"nping {family} {probe} -p {port} --delay 100ms -c 3 {host}")


@requires("nping")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may send raw packets")
def test_nping_with_raw_packets_is_answered(port: int) -> None:
    """A probe that nping builds itself, as it does for root, is answered. (Its default source port is 53.)"""
    answer = shell(f"nping --udp -g 40000 -p {port} --data-length 32 --delay 100ms -c 3 127.0.0.1")
    assert answer.count(f" UDP 127.0.0.1:{port} > 127.0.0.1:40000 ") == 3, answer
