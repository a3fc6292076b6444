"""The status file is replaced as a whole, and never in anybody's way."""

from pathlib import Path

from echod.status import NAME, StatusFile, directory, read


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The last of what was written is what is there, and no other file."""
    file = StatusFile(tmp_path)
    file.write({"pid": 1})
    file.write({"pid": 2})
    assert read(tmp_path) == {"pid": 2}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_without_a_directory_nothing_is_written() -> None:
    """A daemon in the foreground of a shell has no runtime directory."""
    file = StatusFile(None)
    file.write({"pid": 1})
    file.remove()


def test_a_directory_that_is_gone_disturbs_nobody(tmp_path: Path) -> None:
    """Neither writing nor removing raises."""
    file = StatusFile(tmp_path / "gone")
    file.write({"pid": 1})
    file.remove()
    assert read(tmp_path / "gone") is None


def test_what_is_no_status_is_none(tmp_path: Path) -> None:
    """Half a file, or one of another form, is read as none at all."""
    for text in ("", "{", "[1]", "\x00"):
        (tmp_path / NAME).write_text(text)
        assert read(tmp_path) is None


def test_the_first_runtime_directory_counts() -> None:
    """RUNTIME_DIRECTORY is a list with colons (systemd.exec(5))."""
    assert directory({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a")
    assert directory({}) is None
