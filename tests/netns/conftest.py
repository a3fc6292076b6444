"""What the tests with hostile frames ask for: echod behind a wire."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.netns.stage import Stage, raised


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
