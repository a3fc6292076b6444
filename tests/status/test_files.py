"""The status files are replaced as a whole, for those they are meant for, and never in anybody's way."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from support.daemon import fill
from support.loopback import NOBODY, needs_root
from support.snapshots import make_snapshot

from echod.admission.selftest import SelfTest
from echod.errors import NoStatusError, StatusUnknownError
from echod.status.files import (
    NAME,
    SELF_TEST_NAME,
    StatusFiles,
    directory,
    find,
    is_alive,
    load,
    read,
    read_self_test,
)
from echod.status.instances import birth

MARK = SelfTest(port=61_000, secret=b"a secret of thirty-two bytes ...")
SNAPSHOT = make_snapshot(config_read=1.0)


@pytest.fixture
def gone() -> tuple[int, int | None]:
    """Give the number of a process that is no more, and when it began."""
    with subprocess.Popen(["sleep", "60"]) as process:
        began = birth(process.pid)
        process.kill()
    return process.pid, began


@contextmanager
def umask(bits: int) -> Iterator[None]:
    """Have this umask meanwhile."""
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def test_everybody_may_read_the_status_and_only_we_the_secret(tmp_path: Path) -> None:
    """Whatever the umask is: the unit has one that lets nobody read anything."""
    with umask(0o077):
        files = StatusFiles(tmp_path / "run")
        files.write(SNAPSHOT.pack())
    with umask(0):
        files.write_self_test(MARK.pack())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert modes == {NAME: 0o644, SELF_TEST_NAME: 0o600}
    assert read_self_test(tmp_path / "run") == MARK


@contextmanager
def logged(*words: str) -> Iterator[None]:
    """Hold what is logged meanwhile to an entry for each of these, which are its reason and the way out."""
    with structlog.testing.capture_logs() as entries:
        yield
    assert [entry["event"] for entry in entries] == ["status_not_written"] * len(words)
    for entry, reason in zip(entries, words, strict=True):
        assert entry["message"].startswith("no status is written for `echod status` and `echod reload`: ")
        assert entry["message"].endswith(f": {reason}")


def test_without_a_directory_nothing_is_written() -> None:
    """A daemon in the foreground of a user's shell has none."""
    with logged():
        files = StatusFiles(None)
        files.write(b"{}")
        files.write_self_test(b"{}")
        files.remove()


def test_a_directory_that_goes_comes_again(tmp_path: Path) -> None:
    """Whoever cleaned it away, with both files; those who read it need not be root, whatever our umask is."""
    place = tmp_path / "run"
    files = StatusFiles(place)
    files.write_self_test(MARK.pack())
    files.write(b"{}")
    shutil.rmtree(place)
    assert read(place) is None
    assert read_self_test(place) is None
    with logged(), umask(0o077):
        files.write(b'{"pid": 1}')
    assert read(place) == {"pid": 1}
    assert read_self_test(place) == MARK
    assert place.stat().st_mode & 0o777 == 0o755
    files.remove()
    assert list(place.iterdir()) == []


@pytest.mark.timeout(60)
def test_whatever_another_has_put_in_the_way_is_not_written_to(tmp_path: Path) -> None:
    """Neither waits the service for the reader of a FIFO, nor does who has the file open already read the secret."""
    os.mkfifo(tmp_path / f"{NAME}.new")
    waiting = tmp_path / f"{SELF_TEST_NAME}.new"
    waiting.touch()
    with waiting.open() as theirs:
        files = StatusFiles(tmp_path)
        files.write_self_test(MARK.pack())
        files.write(b"{}")
        assert theirs.read() == ""
    assert (read(tmp_path), read_self_test(tmp_path)) == ({}, MARK)


def test_an_old_mark_is_worse_than_none(tmp_path: Path) -> None:
    """Where a new generation has none, or its mark cannot be written, no worker knows the one before."""
    files = StatusFiles(tmp_path)
    files.write_self_test(MARK.pack())
    files.write_self_test(None)
    files.write(b"{}")
    assert read_self_test(tmp_path) is None
    files.write_self_test(MARK.pack())
    (tmp_path / f"{SELF_TEST_NAME}.new").mkdir()  # in its way
    files.write_self_test(b"{}")
    assert read_self_test(tmp_path) is None
    (tmp_path / f"{SELF_TEST_NAME}.new").rmdir()
    files.write_self_test(MARK.pack())
    assert read_self_test(tmp_path) == MARK


def test_a_directory_that_cannot_be_had_is_reported_once(tmp_path: Path) -> None:
    """The operator learns why there is no status, and again after it was well; the daemon goes on without."""
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "run"
    elsewhere = "give echod's user write permission there, or set another status.directory and restart echod"
    with logged(*[f"{place} cannot be written: Not a directory; {elsewhere}"] * 2):
        files = StatusFiles(place)
        for _ in range(2):
            files.write_self_test(b"{}")
            files.write(b"{}")
        (tmp_path / "file").unlink()
        (tmp_path / "file").mkdir()
        files.write(b"{}")
        assert read(place) == {}
        shutil.rmtree(tmp_path / "file")
        (tmp_path / "file").touch()
        for _ in range(2):
            files.write(b"{}")
        files.remove()
    (tmp_path / "file").unlink()
    with logged(
        f"{place} cannot be written: No such file or directory; create it again, or restart the unit whose "
        "RuntimeDirectory= it was"
    ):
        StatusFiles(place).write(b"{}")


def test_a_full_file_system_is_reported_and_nothing_half_is_left(small: Path) -> None:
    """The status that is there stays whole; as soon as there is room it is written again."""
    files = StatusFiles(small)
    files.write_self_test(MARK.pack())
    files.write(b'{"pid": 1}')
    fill(small)
    with logged(f"{small} cannot be written: No space left on device; make room there"):
        for _ in range(2):
            files.write(b'{"pid": 2}')
    assert read(small) == {"pid": 1}
    assert sorted(path.name for path in small.iterdir()) == ["fill", SELF_TEST_NAME, NAME]
    files.write_self_test(MARK.pack())
    assert sorted(path.name for path in small.iterdir()) == ["fill", NAME]
    (small / "fill").unlink()
    files.write(b'{"pid": 3}')
    assert read(small) == {"pid": 3}
    assert read_self_test(small) == MARK


@needs_root
def test_what_a_sandbox_forbids_is_reported_with_the_directory_that_it_allows(tmp_path: Path) -> None:
    """To make a directory on a read-only file system is no way out."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("no file system of our own")
    try:
        with logged(
            f"{tmp_path} cannot be written: Read-only file system; give echod a directory that is not read-only: "
            "RuntimeDirectory= in the unit with status.directory: auto, or in a container a tmpfs there"
        ):
            StatusFiles(tmp_path).write(b"{}")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_the_status_of_another_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Two daemons with one place: the second logs it, and writes nothing."""
    with subprocess.Popen(["sleep", "60"]) as other:
        reported = {"pid": other.pid, "born": birth(other.pid), "config": "/etc/echod.yaml", "config_read": None}
        (tmp_path / NAME).write_text(json.dumps(reported))
        with logged(
            f"{tmp_path} has the status of another echod, process {other.pid}, which runs without a config file: set "
            "another status.directory in the config of this one, and restart it"
        ):
            StatusFiles(tmp_path)
        reported = {"pid": other.pid, "born": birth(other.pid), "config": "/etc/a\x1b.yaml"}
        (tmp_path / NAME).write_text(json.dumps(reported))
        with logged(
            f"{tmp_path} has the status of another echod, process {other.pid}, which runs with "
            "/etc/a\N{REPLACEMENT CHARACTER}.yaml: set another status.directory in the config of this one, "
            "and restart it"
        ):
            files = StatusFiles(tmp_path)
            files.write(b"{}")
            files.write_self_test(None)
            files.remove()
        assert read(tmp_path) == reported
        other.kill()
    again = StatusFiles(tmp_path)
    again.write(b'{"pid": 1}')
    assert read(tmp_path) == {"pid": 1}


def test_where_it_stands_is_what_the_config_says_or_the_service_manager_made() -> None:
    """RUNTIME_DIRECTORY is a list with colons (systemd.exec(5)); a path of the config comes before it."""
    runtime = {"RUNTIME_DIRECTORY": "/run/a:/run/b"}
    assert directory(runtime, "auto") == Path("/run/a")
    assert directory(runtime, "/run/c") == Path("/run/c")
    assert directory({}, "auto") == (Path("/run/echod") if os.geteuid() == 0 else None)


@needs_root
def test_who_is_not_root_has_it_in_the_directory_of_the_session() -> None:
    """XDG_RUNTIME_DIR, if it is a path; root's is where everybody looks, whatever a session left in its variables."""
    session = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    assert directory(session, "auto") == Path("/run/echod")
    os.seteuid(NOBODY)
    try:
        assert directory(session, "auto") == Path("/run/user/1000/echod")
        assert directory(session | {"RUNTIME_DIRECTORY": "/run/a"}, "auto") == Path("/run/a")
        assert directory({"XDG_RUNTIME_DIR": "run"}, "auto") is directory({}, "auto") is None
    finally:
        os.seteuid(0)


# -- who is reported


@pytest.mark.parametrize("step", [-3600, 0, 3600])
@pytest.mark.parametrize(("age", "stale"), [(0.0, False), (7.5, False), (10.1, True)])
def test_a_status_is_stale_after_ten_seconds(tmp_path: Path, step: float, age: float, *, stale: bool) -> None:
    """By the monotonic clock, also where the clock of the host was set by an hour meanwhile."""
    written = replace(SNAPSHOT, at=time.time() - step, at_monotonic=time.monotonic() - age)
    (tmp_path / NAME).write_bytes(written.pack())
    assert load(tmp_path) == replace(written, stale=stale)


def test_an_echod_is_found_where_its_config_said_when_it_was_started(tmp_path: Path) -> None:
    """A directory that is configured since is not where it is; another config's echod is not the one that is meant."""
    was, is_now = tmp_path / "was", tmp_path / "is"
    for place in (was, is_now):
        place.mkdir()
    runtime = {"RUNTIME_DIRECTORY": str(was)}

    def found() -> list[Path | None]:
        return [find(runtime, str(is_now), SNAPSHOT.config, named=named) for named in (False, True)]

    assert found() == [is_now] * 2
    (was / NAME).write_bytes(SNAPSHOT.pack())
    assert found() == [was] * 2
    assert find(runtime, str(is_now), "/etc/other.yaml", named=False) == is_now
    assert find(runtime, "auto", "/etc/other.yaml", named=False) == was
    (is_now / NAME).write_bytes(SNAPSHOT.pack())
    assert found() == [is_now] * 2


def test_a_config_that_is_named_decides(tmp_path: Path) -> None:
    """An echod with another one is not meant, wherever its status is; one with the same file by another path is."""
    mine, its = tmp_path / "mine.yaml", tmp_path / "its.yaml"
    for path in (mine, its):
        path.touch()
    (tmp_path / "link.yaml").symlink_to(its)
    (tmp_path / NAME).write_bytes(replace(SNAPSHOT, config=str(its)).pack())
    runtime = {"RUNTIME_DIRECTORY": str(tmp_path)}
    with pytest.raises(NoStatusError) as caught:
        find(runtime, "auto", str(mine), named=True)
    assert str(caught.value) == (
        f"no echod is running with {mine}: the one that has its status in {tmp_path}, process {os.getpid()}, runs with "
        f"{its}; name that with --config {its}"
    )
    assert find(runtime, "auto", str(mine), named=False) == tmp_path
    assert find(runtime, "auto", str(tmp_path / "link.yaml"), named=True) == tmp_path
    for other in (1, "a\x00b"):
        (tmp_path / NAME).write_text(json.dumps({"pid": os.getpid(), "config": other}))
        with pytest.raises(NoStatusError):
            find(runtime, "auto", str(mine), named=True)


@pytest.mark.parametrize("place", ["gone", "file"])
def test_where_there_is_no_status_nothing_runs(tmp_path: Path, place: str) -> None:
    """No directory, or something else in its place; the message names the option that looks for another."""
    (tmp_path / "file").touch()
    with pytest.raises(NoStatusError, match=r"no echod is running: there is no .*/status.json; .*--config "):
        load(tmp_path / place)


def test_a_status_that_outlived_its_daemon_is_none(tmp_path: Path, gone: tuple[int, int | None]) -> None:
    """After SIGKILL the file remains, and another process may have the number: the time of its birth differs."""
    for pid, born in (gone, (os.getpid(), 1)):
        (tmp_path / NAME).write_bytes(replace(SNAPSHOT, pid=pid, born=born).pack())
        with pytest.raises(NoStatusError, match=f"process {pid}, which wrote .*, is gone"):
            load(tmp_path)


def test_a_process_of_another_user_lives() -> None:
    """PID 1 may not be signalled by everybody, and is there; nonsense is nobody."""
    assert is_alive({"pid": 1})
    for pid in (None, "1", 2**40, 0, -1, -(2**40), 1.0, [1]):
        assert not is_alive({"pid": pid})
    assert not is_alive({})


def test_a_status_that_cannot_be_understood_is_unknown(tmp_path: Path) -> None:
    """Then echod may run or not: that is another answer than that it does not."""
    (tmp_path / NAME).write_bytes(b"{}")
    with pytest.raises(StatusUnknownError, match="is not valid: it was written by another version of echod"):
        load(tmp_path)


# -- what another user may have put there


def bind(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def make_endless(path: Path) -> None:
    """Make a file that is longer than any status."""
    with path.open("wb") as file:
        file.truncate(16 * 1024**2 + 1)


@pytest.mark.parametrize("name", [NAME, SELF_TEST_NAME])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is not a regular file"),
        (Path.mkdir, "it is not a regular file"),
        (bind, "it is not a regular file"),
        (lambda path: path.symlink_to("elsewhere"), "it is a symbolic link"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a symbolic link"),
        (make_endless, "it is longer than 16,777,216 bytes"),
    ],
)
@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_neither_waited_for_nor_read(
    tmp_path: Path, make: Callable[[Path], object], reason: str, name: str
) -> None:
    """A FIFO, whose writer never comes, a link, a socket, and a file without end: each is reported for what it is."""
    (tmp_path / "elsewhere").write_bytes(SNAPSHOT.pack() if name == NAME else MARK.pack())
    make(tmp_path / name)
    if name == NAME:
        with pytest.raises(StatusUnknownError, match=f"^{tmp_path / name} cannot be read: {reason}$"):
            load(tmp_path)
    assert (read(tmp_path), read_self_test(tmp_path)) == (None, None)
    StatusFiles(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\0", b"[" * 200_000])
def test_what_is_no_status_is_not_read(tmp_path: Path, text: bytes) -> None:
    """Half a file, another form, or nesting that a recursive parser cannot follow; it is then replaced."""
    for name in (NAME, SELF_TEST_NAME):
        (tmp_path / name).write_bytes(text)
    assert (read(tmp_path), read_self_test(tmp_path)) == (None, None)
    with pytest.raises(StatusUnknownError, match="is not valid"):
        load(tmp_path)
    StatusFiles(tmp_path).write(b"{}")
    assert read(tmp_path) == {}
