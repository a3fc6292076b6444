"""`echod config` prints a config with every key, as a file that echod reads."""

import re
import tomllib
from pathlib import Path

import pytest
from support.daemon import REPOSITORY, run_echod

from echod.config.parse import parse_config
from echod.config.schema import Config

TEXT = "listeners: ['udp://0.0.0.0:7', 'tcp://0.0.0.0:7']\nlimits: {datagrams_per_second: 1000}\nworkers: 3\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a config."""
    path = tmp_path / "echod.yaml"
    path.write_text(TEXT)
    return path


def run(*words: str | Path) -> tuple[int, str, str]:
    """Run a command of echod; return exit code, stdout and stderr."""
    done = run_echod(*words)
    return done.returncode, done.stdout, done.stderr


def warnings(path: Path) -> list[str]:
    """Return what `echod check` warns of."""
    return sorted(re.findall(r"warning: (.*)", run("check", "--config", path)[1]))


def test_the_printed_config_is_the_config(path: Path) -> None:
    """With every key, and nothing else on stdout; printed again, it is the same text."""
    code, stdout, stderr = run("config", "--config", path)
    assert (code, stderr) == (0, "")
    for line in ("workers: 3", "  datagrams_per_second: 1000", "  burst: 256", "- udp://0.0.0.0:7", "  listen: 'off'"):
        assert line in stdout.splitlines()
    path.write_text(stdout)
    assert run("config", "--config", path) == (0, stdout, "")


def test_the_printed_config_is_warned_of_as_the_file_was(path: Path) -> None:
    """One warning for a range of ports, and none for what is printed because it is a default."""
    path.write_text("listeners: [udp://127.0.0.1:40000-40010]\naccess: {allow: []}\nlimits: {slip: 1}\n")
    before = warnings(path)
    assert len(before) == 3
    path.write_text(run("config", "--config", path)[1])
    assert warnings(path) == before


def test_the_defaults_are_the_config_of_a_file_that_sets_no_key(path: Path) -> None:
    """They are what each key has that is left out."""
    path.write_text("{}")
    code, stdout, stderr = run("config", "--defaults")
    assert (code, stdout, stderr) == run("config", "--config", path)
    assert parse_config(stdout.encode()) == (Config(), ())


def test_of_a_wrong_file_the_mistakes_are_on_stderr(path: Path) -> None:
    """Exit code 78, and stdout, which may become a config, is empty; likewise of a file that is not there."""
    path.write_text("workers: many\n")
    code, stdout, stderr = run("config", "--config", path)
    assert (code, stdout) == (78, "")
    assert stderr.startswith(f"{path}:1:10: error: workers: ")
    path.unlink()
    code, stdout, stderr = run("config", "--config", path)
    assert (code, stdout, stderr) == (66, "", f"echod: cannot read {path}: there is no such file\n")


def test_the_schema_is_the_one_that_is_installed() -> None:
    """To the letter: config/echod.schema.json, which the default config names by the place where packages put it."""
    assert run("config", "--schema") == (0, (REPOSITORY / "config/echod.schema.json").read_text(), "")
    shared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    place = shared["shared-data"]["config/echod.schema.json"]
    lines = (REPOSITORY / "config/echod.yaml").read_text().splitlines()
    assert f"# yaml-language-server: $schema=/usr/{place}" in lines


def test_one_thing_is_asked_at_a_time(path: Path) -> None:
    """The defaults are not those of a file."""
    assert run("config", "--config", path, "--defaults")[:2] == (2, "")
