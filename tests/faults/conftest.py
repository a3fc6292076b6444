"""The daemons that faults are injected into."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.faults.injection import Fault
from support.faults.service import Service, config
from support.ports import free_port


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, int]]:
    """Start one daemon that lives through all tests of a module."""
    port = free_port()
    daemon = Daemon(tmp_path_factory.mktemp("echod"), config(port))
    try:
        daemon.wait_for("ready")
        yield daemon, port
    finally:
        daemon.end()
    assert "Traceback" not in daemon.stderr


@pytest.fixture
def service(long_lived: tuple[Daemon, int]) -> Service:
    """Look at the daemon that lives through all tests of a module."""
    return Service(*long_lived)


@pytest.fixture
def fresh(echod: Callable[..., Daemon]) -> Service:
    """Start a daemon for this test alone: the fault leaves a mark on the worker."""
    port = free_port()
    return Service(echod(config(port)), port)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Service]:
    """Start a daemon whose worker will die of the fault, and report why on stderr, once."""
    port = free_port()
    daemon = Daemon(tmp_path, config(port))
    try:
        daemon.wait_for("ready")
        yield Service(daemon, port)
    finally:
        daemon.end()
    assert daemon.stderr.count("Traceback") == 1


@pytest.fixture
def fault(tmp_path: Path) -> Callable[..., Fault]:
    """Make a Fault: `fault(pid, call, error, times)`."""
    return lambda pid, call, error, times: Fault(pid, tmp_path, call, error, times)
