"""What the tests with hostile frames ask for: echod behind a wire."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from netns.stage import Stage, config
from netns.wire import Wire
from running import Daemon


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


@contextmanager
def raised(folder: Path, **sections: Any) -> Iterator[Stage]:  # noqa: ANN401 - as YAML is
    """Lay a wire and start echod behind it, ready; end it, and remove the wire."""
    with Wire() as wire:
        daemon = Daemon(folder, config(**sections), prefix=("ip", "netns", "exec", wire.server))
        try:
            daemon.wait_for("ready")
            stage = Stage(wire, daemon)
            try:
                yield stage
            finally:
                stage.close()
        finally:
            daemon.end()
        assert "Traceback" not in daemon.stderr
