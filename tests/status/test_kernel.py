"""echod.status.kernel: what an accelerator reports is read with care, and only where it is the one of this echod."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.loopback import NOBODY, needs_root
from support.snapshots import make_snapshot

from echod.stats.snapshot import Snapshot
from echod.status import kernel
from echod.status.instances import birth
from echod.status.kernel import with_kernel

CONFIG = "/etc/echod.yaml"
SNAPSHOT = make_snapshot(config=CONFIG)
ANOTHER_VERSION = "it was written by another version of echod"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Give a function that writes the status of an accelerator, which this process stands for."""
    monkeypatch.setattr(kernel, "DIRECTORIES", (tmp_path, "echod-accelerate*"))

    def write(name: str = "echod-accelerate", **changes: Any) -> Path:  # noqa: ANN401 - JSON
        status = {
            "version": "1.0",
            "pid": os.getpid(),
            "born": birth(os.getpid()),
            "at": 1.0,
            "at_monotonic": time.monotonic(),
            "started": 1.0,
            "config": CONFIG,
            "paths": 3,
        }
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        path = place / "status.json"
        path.write_text(json.dumps(status | changes))
        return path

    return write


def found(snapshot: Snapshot = SNAPSHOT) -> tuple[int | None, str]:
    """Return how many paths the accelerator of this echod reports, None without one, and the problem."""
    shown = with_kernel(snapshot)
    return None if shown.kernel is None else shown.kernel.paths, shown.kernel_problem


def test_without_an_accelerator_there_is_nothing(write: Write, tmp_path: Path) -> None:
    """No directory, an empty one, as systemd makes it before the start, or a file of that name."""
    assert found() == (None, "")
    (tmp_path / "echod-accelerate").mkdir()
    assert found() == (None, "")
    assert with_kernel(SNAPSHOT) == SNAPSHOT
    (tmp_path / "echod-accelerate").rmdir()
    (tmp_path / "echod-accelerate").touch()
    assert found() == (None, "")


def test_the_accelerator_with_the_config_of_this_echod_is_the_one(write: Write, tmp_path: Path) -> None:
    """Of those of all instances; a link to the file names it too."""
    write(config="/etc/echod/other.yaml", paths=1)
    write("echod-accelerate-lab", config=CONFIG, paths=2)
    write("echod-elsewhere", config=CONFIG, paths=4)
    assert found() == (2, "")
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.touch()
    link.symlink_to(real)
    write("echod-accelerate-lab", config=str(link), paths=5)
    assert found(make_snapshot(config=str(real))) == (5, "")


def test_one_of_another_echod_or_that_is_gone_is_none(write: Write) -> None:
    """Whose process has ended, or whose number another process has by now."""
    for changes in ({"config": "/etc/echod/other.yaml"}, {"pid": 2**31 - 1}, {"born": 1}):
        write(**changes)
        assert found() == (None, ""), changes


def test_one_that_writes_no_more_is_shown_as_old(write: Write) -> None:
    """It lives, and writes at least every five seconds."""
    write(at_monotonic=time.monotonic() - 11)
    problem = (
        f"process {os.getpid()} has written no status for more than 10 seconds; it hangs, or its log says why it cannot"
    )
    assert found() == (3, problem)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"pid": 1}', '{"config": 5, "pid": [7]}', "[" * 100_000, "\udcff"],
)
def test_what_is_no_status_is_named(write: Write, text: str) -> None:
    """Half a file, another form, or none at all: one sentence, whose it may be is not known."""
    path = write()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    problem = "" if "5" in text else f"{path} is not valid: {ANOTHER_VERSION}"
    assert found() == (None, problem)


@pytest.mark.parametrize("changes", [{"paths": "many"}, {"traffic": [{"family": "ipx", "port": 7}]}, {"started": None}])
def test_another_form_of_ours_is_named_and_another_form_of_another_is_not(write: Write, changes: Any) -> None:  # noqa: ANN401
    """After an upgrade the accelerator of before may still run; and each instance has one of its own."""
    path = write(**changes)
    assert found() == (None, f"{path} is not valid: {ANOTHER_VERSION}")
    write(**changes, config="/etc/echod/other.yaml")
    assert found() == (None, "")


def test_what_is_no_file_is_neither_followed_nor_waited_for(write: Write, tmp_path: Path) -> None:
    """The directory belongs to a user with fewer privileges."""
    path = write()
    secret = tmp_path / "secret"
    path.rename(secret)
    path.symlink_to(secret)
    assert found() == (None, f"{path} cannot be read: it is a symbolic link")
    path.unlink()
    os.mkfifo(path)
    assert found() == (None, f"{path} cannot be read: it is not a regular file")


@needs_root
def test_one_that_may_not_be_read_is_named(write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file, and why, if none of another instance is ours; where all is hidden, there is none."""
    path = write()
    path.chmod(0o600)
    shutil.copytree(path.parent.parent, folder / "run")
    monkeypatch.setattr(kernel, "DIRECTORIES", (folder / "run", "echod-accelerate*"))
    path = folder / "run/echod-accelerate/status.json"
    (folder / "run").chmod(0o755)
    path.parent.chmod(0o755)
    try:
        os.seteuid(NOBODY)
        assert found() == (None, f"{path} cannot be read: Permission denied")
        os.seteuid(0)
        folder.chmod(0o700)
        os.seteuid(NOBODY)
        assert found() == (None, "")
    finally:
        os.seteuid(0)


def test_what_another_instance_has_is_no_problem_of_ours(write: Write) -> None:
    """Where ours is found, nothing is said of others."""
    write().write_text("{")
    write("echod-accelerate-lab", paths=8)
    assert found() == (8, "")
