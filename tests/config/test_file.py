"""echod.config.file: what reading a config leaves behind."""

import os
from pathlib import Path

import pytest

from echod.config.file import read_text
from echod.errors import ConfigUnreadableError


def test_a_path_that_cannot_be_read_leaves_no_descriptor(tmp_path: Path) -> None:
    """A directory, and what is not a regular file, is closed again: an operator may reload as often as they like."""
    os.mkfifo(tmp_path / "fifo")
    before = set(Path("/proc/self/fd").iterdir())
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none"):
        with pytest.raises(ConfigUnreadableError):
            read_text(path)
    assert set(Path("/proc/self/fd").iterdir()) == before
