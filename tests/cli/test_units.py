"""`echod units` writes the units of an echod that pip or pipx has installed, and never what it should not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import REPOSITORY

from echod.cli import units
from echod.errors import ExitCode, UsageError

SOURCE = REPOSITORY / "packaging/systemd"
SHIPPED = {path.name: path.read_text() for path in SOURCE.iterdir()}
UNITS = {name: text for name, text in SHIPPED.items() if not name.endswith(".conf")}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be an echod in a folder that a service sees, wherever these tests are."""
    command = tmp_path / "bin/echod"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(command), "units"])
    monkeypatch.setattr(units, "_HIDDEN", ("/home/nobody",))
    return command


def test_each_unit_starts_the_echod_that_wrote_it(
    command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All else is as shipped; everybody may read them, whatever the umask; what was written is printed."""
    place = tmp_path / "new/system"
    before = os.umask(0o077)
    try:
        assert units.main([str(place)]) == ExitCode.OK
    finally:
        os.umask(before)
    written = {path.name: path.read_text() for path in place.iterdir()}
    assert written == {name: text.replace("/usr/local/bin/echod", str(command)) for name, text in UNITS.items()}
    assert f"ExecStart=/usr/bin/env --ignore-signal=HUP,USR1 {command} run" in written["echod.service"]
    assert f"ExecReload={command} reload\n" in written["echod.service"]
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}
    *lines, last = capsys.readouterr().out.splitlines()
    assert {*lines} == {f"wrote {place / name}" for name in UNITS}
    assert last == f"other drop-ins: {SOURCE}"


def test_with_socket_the_drop_in_is_there_too(
    command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once they are there, nothing is written again."""
    assert units.main(["--socket", str(tmp_path / "system")]) == ExitCode.OK
    drop_in = tmp_path / "system/echod.service.d/socket-activated.conf"
    assert drop_in.read_text() == SHIPPED["socket-activated.conf"]
    assert f"wrote {drop_in}\n" in capsys.readouterr().out
    assert units.main(["--socket", str(tmp_path / "system")]) == ExitCode.OK
    said, _ = capsys.readouterr().out.splitlines()
    assert said == f"the units in {tmp_path / 'system'} are those of this echod"


@pytest.mark.parametrize("masked", [False, True])
def test_what_somebody_has_changed_is_replaced_with_force_alone(command: Path, tmp_path: Path, *, masked: bool) -> None:
    """Without it the files are named and nothing is written; a mask of systemctl is such a file."""
    changed = tmp_path / "echod.service"
    if masked:
        changed.symlink_to("/dev/null")
    else:
        changed.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(UsageError, match=rf"^{changed} would be replaced: .*--force; nothing was written$"):
        units.main([str(tmp_path)])
    assert not (tmp_path / "echod.socket").exists()
    assert units.main(["--force", str(tmp_path)]) == ExitCode.OK
    assert str(command) in changed.read_text()
    assert not changed.is_symlink()


def test_the_commands_that_follow_apply_them(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only in the directory of systemd; with config and catalogue if they are missing, from the source tree here."""
    monkeypatch.setattr(units, "_DIRECTORY", tmp_path / "system")
    monkeypatch.setattr(units, "_CONFIG", tmp_path / "echod.yaml")
    monkeypatch.setattr(units, "_CATALOG", tmp_path / "lib/echod.catalog")
    units.main([])
    printed = capsys.readouterr().out.partition("to apply them:\n")[2]
    config, catalog, *rest, _ = [line.strip() for line in printed.splitlines()]
    assert rest == [
        "journalctl --update-catalog",
        "systemctl daemon-reload",
        "systemctl enable echod.service",
        "systemctl restart echod.service",
        "systemctl try-restart echod-accelerate.service",
    ]
    for command_line in (config, catalog):
        subprocess.run(["sh", "-ec", command_line], check=True)
    shipped = (REPOSITORY / "config/echod.yaml").read_text()
    assert (tmp_path / "echod.yaml").read_text() == shipped.replace("=/usr/share/", f"={sys.prefix}/share/")
    explanations = (REPOSITORY / "packaging/journal/echod.catalog").read_text()
    assert (tmp_path / "lib/echod.catalog").read_text() == explanations
    units.main(["--socket"])
    printed = capsys.readouterr().out
    assert "install" not in printed
    assert "catalog" not in printed
    assert "systemctl enable echod.socket echod.service" in printed
    (tmp_path / "lib/echod.catalog").write_text("of an older version")
    units.main([])
    assert f"\n  {catalog}\n  journalctl --update-catalog\n" in capsys.readouterr().out


def test_a_command_that_the_service_could_not_start_is_refused(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a home directory, under a name with a space, or with no path at all; a link into a home is one."""
    with monkeypatch.context() as patched:
        patched.setattr(units, "_HIDDEN", (str(tmp_path),))
        with pytest.raises(UsageError, match=r"it does not see .*; install echod outside of /home, /root"):
            units.main([str(tmp_path / "system")])
    other = tmp_path / "a b/echod"
    other.parent.mkdir()
    shutil.copy(command, other)
    monkeypatch.setattr(sys, "argv", [str(other)])
    with pytest.raises(UsageError, match=r"a unit cannot name '.*a b/echod'"):
        units.main([str(tmp_path / "system")])
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "gone/echod")])
    with pytest.raises(UsageError, match=r"run this command as `echod units`$"):
        units.main([str(tmp_path / "system")])
    link = tmp_path / "echod"
    link.symlink_to(command)
    monkeypatch.setattr(sys, "argv", [str(link)])
    monkeypatch.setattr(units, "_HIDDEN", (str(command.parent),))
    with pytest.raises(UsageError, match=f"could not run {link}: it does not see {command};"):
        units.main([str(tmp_path / "system")])
    assert not (tmp_path / "system").exists()


def test_a_link_stays_the_name_that_the_units_have(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pipx links may be another file after an upgrade; started by `python -m echod`, it is the one beside."""
    link = tmp_path / "sbin/echod"
    link.parent.mkdir()
    link.symlink_to(command)
    monkeypatch.setattr(sys, "argv", [str(link)])
    assert units.find_command() == link
    monkeypatch.setattr(sys, "argv", ["/x/echod/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(command.with_name("python3")))
    assert units.find_command() == command


def test_what_cannot_be_written_is_one_sentence(command: Path, small: Path) -> None:
    """A file where the directory should be, and a full disk, on which no part of a unit stays."""
    (small / "file").touch()
    with pytest.raises(UsageError, match=r"^cannot write the units: .*: (Not a directory|File exists)$"):
        units.main([str(small / "file")])
    (small / "full").write_bytes(bytes(60 << 10))
    (small / "system").mkdir()
    with pytest.raises(UsageError, match=rf"^cannot write the units: {small}/system.*: No space left on device$"):
        units.main([str(small / "system")])
    assert [path.name for path in (small / "system").iterdir() if path.name.startswith(".")] == []
