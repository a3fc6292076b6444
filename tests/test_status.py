"""The status files are replaced as a whole, for those they are meant for, and never in anybody's way."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from echod.core.errors import NoStatusError, StatusUnknownError
from echod.core.selftest import SelfTest
from echod.core.snapshot import Snapshot
from echod.status import NAME, SELF_TEST_NAME, StatusFiles, birth, directory, is_alive, load, read, read_self_test

MARK = SelfTest(port=61_000, secret=b"secret")
SNAPSHOT = Snapshot(
    version="1.0",
    pid=os.getpid(),
    born=birth(os.getpid()),
    at=1.0,
    started=1.0,
    started_monotonic=1.0,
    generation=1,
    config="/etc/echod.yaml",
    config_read=None,
)


@pytest.fixture
def gone() -> tuple[int, int | None]:
    """Give the number of a process that is no more, and when it began."""
    with subprocess.Popen(["sleep", "60"]) as process:
        began = birth(process.pid)
        process.kill()
    return process.pid, began


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The last of what was written is what is there, and no other file."""
    files = StatusFiles(tmp_path)
    files.write(b'{"pid": 1}')
    files.write(b'{"pid": 2}')
    assert read(tmp_path) == {"pid": 2}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_everybody_may_read_the_status_and_only_we_the_secret(tmp_path: Path) -> None:
    """Whatever the umask is: the unit has one that lets nobody read anything."""
    before = os.umask(0o077)
    try:
        files = StatusFiles(tmp_path / "run")
        files.write(SNAPSHOT.pack())
        os.umask(0)
        files.write_self_test(MARK.pack())
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert modes == {NAME: 0o644, SELF_TEST_NAME: 0o600}
    assert read_self_test(tmp_path / "run") == MARK


def test_when_it_stops_nothing_is_left(tmp_path: Path) -> None:
    """Neither file outlives the daemon that says so."""
    files = StatusFiles(tmp_path)
    files.write(b"{}")
    files.write_self_test(b"{}")
    files.remove()
    assert list(tmp_path.iterdir()) == []


def test_without_a_directory_nothing_is_written() -> None:
    """A daemon in the foreground of a user's shell has none."""
    files = StatusFiles(None)
    files.write(b"{}")
    files.remove()
    assert not files.problem


def test_a_directory_that_goes_disturbs_nobody(tmp_path: Path) -> None:
    """Neither writing nor removing raises."""
    place = tmp_path / "run"
    files = StatusFiles(place)
    place.rmdir()
    files.write(b"{}")
    files.remove()
    assert read(place) is None
    assert read_self_test(place) is None


def test_a_directory_that_cannot_be_had_is_told_once(tmp_path: Path) -> None:
    """The operator learns why there is no status; the daemon goes on without."""
    (tmp_path / "file").touch()
    files = StatusFiles(tmp_path / "file" / "run")
    files.write(b"{}")
    reason = f"{tmp_path}/file/run cannot be written: Not a directory; give echod's user a directory that can"
    assert files.problem.endswith(f"{reason} (status.directory)")


def test_the_status_of_another_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Two daemons with one place: the second says so, and writes nothing."""
    with subprocess.Popen(["sleep", "60"]) as other:
        told = {"pid": other.pid, "born": birth(other.pid)}
        (tmp_path / NAME).write_text(json.dumps(told))
        files = StatusFiles(tmp_path)
        files.write(b"{}")
        files.remove()
        assert read(tmp_path) == told
        assert f"another echod, process {other.pid}, has its status in {tmp_path}" in files.problem
        other.kill()
    again = StatusFiles(tmp_path)
    again.write(b'{"pid": 1}')
    assert read(tmp_path) == {"pid": 1}


def test_what_is_no_status_is_none(tmp_path: Path) -> None:
    """Half a file, or one of another form, is read as none at all."""
    for text in ("", "{", "[1]", "\x00"):
        (tmp_path / NAME).write_text(text)
        assert read(tmp_path) is None


def test_where_it_stands_is_what_the_config_says_or_the_service_manager_made() -> None:
    """RUNTIME_DIRECTORY is a list with colons (systemd.exec(5)); a path of the config comes before it."""
    runtime = {"RUNTIME_DIRECTORY": "/run/a:/run/b"}
    assert directory(runtime, "auto") == Path("/run/a")
    assert directory(runtime, "/run/c") == Path("/run/c")
    assert directory({}, "auto") == (Path("/run/echod") if os.geteuid() == 0 else None)


# -- who is told


def test_the_status_of_a_process_that_lives_is_loaded(tmp_path: Path) -> None:
    """What its daemon wrote."""
    (tmp_path / NAME).write_bytes(SNAPSHOT.pack())
    assert load(tmp_path) == SNAPSHOT


@pytest.mark.parametrize("place", ["gone", "file"])
def test_where_there_is_no_status_nothing_runs(tmp_path: Path, place: str) -> None:
    """No directory, or something else in its place; the sentence says where another may be looked for."""
    (tmp_path / "file").touch()
    with pytest.raises(NoStatusError, match=r"no echod is running: there is no status in .*--config FILE"):
        load(tmp_path / place)


def test_a_status_that_outlived_its_daemon_is_none(tmp_path: Path, gone: tuple[int, int | None]) -> None:
    """After kill -9 the file stands there still."""
    pid, born = gone
    told = json.loads(SNAPSHOT.pack()) | {"pid": pid, "born": born}
    (tmp_path / NAME).write_text(json.dumps(told))
    with pytest.raises(NoStatusError, match=f"process {pid}, which wrote .*, is gone"):
        load(tmp_path)


def test_another_process_with_the_number_is_not_the_daemon(tmp_path: Path) -> None:
    """A number is given again; the time of birth tells them apart."""
    told = json.loads(SNAPSHOT.pack()) | {"born": 1}
    (tmp_path / NAME).write_text(json.dumps(told))
    with pytest.raises(NoStatusError):
        load(tmp_path)


def test_a_process_of_another_user_lives() -> None:
    """PID 1 may not be signalled by everybody, and is there; nonsense is nobody."""
    assert is_alive({"pid": 1})
    for pid in (None, "1", 2**40):
        assert not is_alive({"pid": pid})
    assert not is_alive({})


def test_a_status_that_cannot_be_understood_is_unknown(tmp_path: Path) -> None:
    """Then echod may run or not: that is another answer than that it does not."""
    (tmp_path / NAME).write_bytes(b"{}")
    with pytest.raises(StatusUnknownError, match="cannot be understood: it was written by another version of echod"):
        load(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    with pytest.raises(StatusUnknownError, match="cannot be read: Is a directory"):
        load(tmp_path)
