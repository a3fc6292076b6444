"""Fixtures for the tests that start a real echod, and for those of its sockets and batches."""

import os
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.typing import EventDict
from support import beside
from support.daemon import ACCELERATED, Daemon, Serve, StartDaemon
from support.loopback import namespace, udp_client, udp_server
from support.ports import free_port
from support.tcp_worker import NARROW, Connect, TcpWorker
from support.udp_load import BUFFER_BYTES, UdpLoad

from echod.config.socket_unit import units_of
from echod.linux.sockopt import SO_RCVBUFFORCE
from echod.supervisor.listening import ListeningSockets
from echod.udp.batch import Batch

SOCKETS_ONLY = "sockets_only"

SKIP_FAILS = "ECHOD_TEST_SKIP_FAILS" in os.environ
"""Set by `./tests/run` as root: all that a test needs is there, so a skipped test is a promise without its proof."""

# How fast examples are found says how busy the machine is, not whether the code is right.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, bool, bool]:
    """Be in a network of our own where accelerators are: none is attached to the `lo` of the machine."""
    with namespace() if ACCELERATED else nullcontext():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the sockets themselves, where the kernel replies, too."""
    if ACCELERATED:
        config.hook.pytest_deselected(items=[each for each in items if each.get_closest_marker(SOCKETS_ONLY)])
        items[:] = [each for each in items if not each.get_closest_marker(SOCKETS_ONLY)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a test that was skipped, where none may be."""
    report = yield
    if SKIP_FAILS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make a failure of a test file that was skipped, where none may be."""
    report = yield
    if SKIP_FAILS and report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    """Catch what this process logs."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that any user may enter. Pytest's are root's alone, and each run of it that begins sees to that."""
    with TemporaryDirectory(prefix="echod-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def echod(tmp_path: Path) -> Iterator[StartDaemon]:
    """Start echod with a config and wait until it is ready; end it with the test.

    `ready=False` does not wait; all else goes to `Daemon`.
    """
    daemons: list[Daemon] = []

    def start(config: Any = None, *, ready: bool = True, **options: Any) -> Daemon:  # noqa: ANN401 - as Daemon says
        folder = tmp_path / f"echod{len(daemons)}"
        folder.mkdir()
        daemons.append(Daemon(folder, config, **options))
        if ready:
            daemons[-1].wait_for("ready")
            beside.start(daemons[-1])
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.end()
    for daemon in daemons:
        assert "Traceback" not in daemon.stderr


@pytest.fixture
def serve(echod: StartDaemon) -> Serve:
    """Start echod with one port of 127.0.0.1, in UDP and TCP unless said otherwise; return it with the port.

    What `Daemon` and `echod` have as options goes to them; all else is a key of the config.
    """

    def start(protocols: Sequence[str] = ("udp", "tcp"), **keys: Any) -> tuple[Daemon, int]:  # noqa: ANN401 - of a config
        port = free_port()
        options = {name: keys.pop(name) for name in ("ready", "prefix", "variables") if name in keys}
        return echod({"listeners": [f"{each}://127.0.0.1:{port}" for each in protocols], **keys}, **options), port

    return start


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB, which `fill` fills."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system of our own: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture(params=["alone", "together"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve TCP connections one by one, as few are, or together, as many are, however few they be."""
    if request.param == "together":
        monkeypatch.setattr("echod.tcp.connections.MIN_BATCH", 1)


@pytest.fixture(params=["with a ring", "without"])
def worker(request: pytest.FixtureRequest) -> Iterator[TcpWorker]:
    """Serve TCP with generous limits, on a host that has a ring and on one that has none."""
    with TcpWorker(without_ring=request.param == "without") as worker:
        yield worker


@pytest.fixture
def narrow() -> Iterator[TcpWorker]:
    """Serve TCP connections of which the kernel holds only little."""
    with TcpWorker(send_buffer=NARROW) as worker:
        yield worker


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close at the end what a test opens."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(stack: ExitStack) -> Connect:
    """Make clients of a worker; they are closed at the end."""
    return lambda worker, count: [stack.enter_context(worker.connect()) for _ in range(count)]


@pytest.fixture
def udp_load(stack: ExitStack) -> Callable[..., UdpLoad]:
    """Start a paced load on a port; end it with the test."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:
            pytest.skip("only root may have receive buffers that hold this load while a process waits for a CPU")
    return lambda port, **options: stack.enter_context(UdpLoad(port, **options))


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Share one batch, as the sockets of a worker do."""
    return Batch()


@pytest.fixture
def listening() -> Iterator[ListeningSockets]:
    """Hold no socket; close at the end what is held then."""
    listening = ListeningSockets(units_of("red"))
    yield listening
    for sock in chain(listening.http_sockets, *listening.sockets.values()):
        sock.close()


@pytest.fixture
def network() -> Iterator[None]:
    """Be in a network of our own, where a forged datagram can reach nobody."""
    with namespace():
        yield


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Open a server on 127.0.0.1."""
    with udp_server() as sock:
        yield sock


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """Open a UDP client on 127.0.0.1."""
    with udp_client() as sock:
        yield sock
