"""The daemons that faults are injected into."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.faults.injection import Fault
from support.faults.service import Service, config
from support.ports import free_port


@contextmanager
def running(folder: Path, tracebacks: int = 0) -> Iterator[Service]:
    """Start a daemon with one worker, and end it; it must have written so many tracebacks."""
    port = free_port()
    daemon = Daemon(folder, config(port))
    try:
        daemon.wait_for("ready")
        yield Service(daemon, port)
    finally:
        daemon.end()
    assert daemon.stderr.count("Traceback") == tracebacks


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start one daemon that lives through all tests of a module."""
    with running(tmp_path_factory.mktemp("echod")) as service:
        yield service


@pytest.fixture
def service(long_lived: Service) -> Service:
    """Look at the daemon that lives through all tests of a module."""
    return Service(long_lived.daemon, long_lived.port)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Service]:
    """Start a daemon for this test alone: the fault leaves a mark on the worker."""
    with running(tmp_path) as service:
        yield service


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Service]:
    """Start a daemon whose worker will die of the fault, and report why on stderr, once."""
    with running(tmp_path, tracebacks=1) as service:
        yield service


@pytest.fixture
def fault(tmp_path: Path) -> Callable[..., Fault]:
    """Make a Fault: `fault(pid, call, error, times)`."""
    return lambda pid, call, error, times: Fault(pid, tmp_path, call, error, times)
