"""What the tests in network namespaces ask for: echod behind a wire."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.beside import daemon_in
from support.daemon import Daemon
from support.netns.stage import Stage, config, raised
from support.netns.wire import Wire


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give an echod whose config says nothing of access, guard and limits, to all tests of a module."""
    with raised(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Start echod on a wire of its own, with these sections in its config; end it with the test."""
    with ExitStack() as stack:
        yield lambda **sections: stack.enter_context(raised(tmp_path, **sections))


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Lay a wire for all tests of this module that leave it as it was."""
    with Wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def daemon(wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Start echod behind it."""
    with daemon_in(wire.server, tmp_path_factory.mktemp("daemon"), config()) as daemon:
        yield daemon


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Wire, Daemon]]:
    """Lay a wire, and start echod behind it, for one test."""
    with Wire() as wire, daemon_in(wire.server, tmp_path, config()) as daemon:
        yield wire, daemon
