"""The README is true: its commands run as printed and its tables hold what the code holds."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.ping.pinging import shape

from echod.config.parse import parse_config
from echod.config.schema import Config
from echod.errors import ConfigError, ExitCode
from echod.stats.outcomes import Drop

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def serving(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Wait until something answers on the default port, or the process has ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 7007))
        probe.settimeout(0.2)
        while process.poll() is None and time.monotonic() < deadline:
            try:
                probe.send(b"?")
                if probe.recv(10) == b"?":
                    return True
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.05)  # refused answers come at once
    return False


def measure_as_printed(echod: Path, folder: Path) -> None:
    """Run each console block of "Measure", and the command that made the picture; times are not compared."""
    section = README[README.index("## Measure") : README.index("## Operate")]
    blocks = re.findall(r"^```console\n\$ echod (.*?)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for words, shown in blocks:
        command = [echod, *words.split()]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
        assert shape(told) == shape(shown)
    drawing = re.search(r"`echod (ping [^`]*--plot \.github/ping\.svg [^`]*)`", section)
    assert drawing
    (folder / ".github").mkdir(exist_ok=True)
    command = [ROOT / ".venv-tests/bin/echod", *drawing[1].split()]  # this one has the plot extra
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=60)
    assert (folder / ".github/ping.svg").read_bytes().startswith(b"<?xml")


def test_the_first_command_serves_what_the_examples_ask(tmp_path: Path) -> None:
    """In a fresh copy the first command installs and serves, and each line of "Try it" gets its answer."""
    if Path("/etc/echod.yaml").exists():
        pytest.skip("this host has an /etc/echod.yaml, so the command would serve that")
    install, tests, examples = BLOCKS[:3]
    assert tests.strip() == "./tests/run"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [name for name in tracked.decode().split("\0") if (ROOT / name).is_file()]
    subprocess.run(["cp", "--parents", *files, tmp_path], cwd=ROOT, check=True)
    # A status of its own: this host may have an echod.
    variables = os.environ | {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    with subprocess.Popen(["sh", "-ec", install], cwd=tmp_path, env=variables, start_new_session=True) as process:
        try:
            assert serving(process, time.monotonic() + 240)
            answers = [
                subprocess.run(
                    ["sh", "-ec", line],
                    cwd=tmp_path,
                    env=variables,
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=30,
                ).stdout
                for line in examples.strip().splitlines()
            ]
            measure_as_printed(tmp_path / ".venv/bin/echod", tmp_path)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    measured, told, *answers = answers
    assert "0% packet loss" in measured
    assert "UDP listener" in told
    assert answers[:3] == ["hi", "hello", "bonjour"]
    assert "Successful connections: 3" in answers[3]
    assert "Lost: 0 (0.00%)" in answers[4]


def key_rows() -> dict[str, str]:
    """Return the keys in the table of keys with their defaults; that of `listeners` is told in words."""
    section = README[README.index("## Configure") : README.index("## Measure")]
    return dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]+)` \|", section, re.MULTILINE))


def test_the_table_of_keys_has_every_key_with_its_default() -> None:
    """Each key of the models stands in the table, and its default is the code's."""
    rows = key_rows()
    flat: dict[str, str] = {}
    for key, value in rows.items():
        section, _, name = key.partition(".")
        if name:
            flat[section] = flat.get(section, f"{section}:\n") + f"  {name}: {value}\n"
        else:
            flat[key] = f"{key}: {value}\n"
    config, warnings = parse_config("".join(flat.values()).encode())
    assert config == Config()
    assert not warnings
    names = {"listeners"} | {
        f"{name}.{inner}" if hasattr(value, "model_dump") else name
        for name, value in Config()
        for inner in (type(value).model_fields if hasattr(value, "model_dump") else [""])
    }
    assert rows.keys() | {"listeners"} == names
    assert "| `listeners` |" in README


def test_the_table_of_exit_codes_is_the_codes() -> None:
    """Each exit code has its row."""
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert codes == set(ExitCode)


def test_the_table_of_drops_has_every_drop() -> None:
    """Each reason for which a datagram is not answered has its row."""
    names = set(re.findall(r"^\| `dropped_([a-z_]+)` \|", README, re.MULTILINE))
    assert names == {drop.name.lower() for drop in Drop}


def test_each_promise_is_held_by_a_test_that_is_there() -> None:
    """The test named beside a promise is a function of the file named there, and no promise is without."""
    section = README[README.index("## Promises") : README.index("## What it does not promise")]
    rows = re.findall(r"^\| (?!echod \||---)(.*?) \| (.*?) \|$", section, re.MULTILINE)
    assert rows
    for promise, proof in rows:
        found = re.fullmatch(r"`([a-z0-9_/]+\.py)`: `(test_[a-z0-9_]+)`", proof)
        assert found, promise
        assert f"\ndef {found[2]}(" in (ROOT / "tests" / found[1]).read_text(), promise


def test_the_mistake_shown_is_what_check_says(tmp_path: Path) -> None:
    """The console block of "Configure" is the output of `echod check`, to the letter."""
    shown = re.search(r"^```console\n\$ (.*?)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown
    (tmp_path / "echod.yaml").write_text("listeners:\n  - udp://0.0.0.0:7\ntcp:\n  max_conections: 10\n")
    command = shown[1].replace("echod ", f"{ROOT}/.venv-tests/bin/echod ", 1)
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (ExitCode.CONFIG, shown[2])


def test_the_mistake_that_operate_makes_is_where_it_is_shown() -> None:
    """The log entry below `sed` has the line that the installed config has, however many keys stand above it."""
    before, after = re.search(r"^# sed -i 's/(.*?)/(.*?)/' /etc/echod\.yaml$", README, re.MULTILINE).groups()  # type: ignore[union-attr]
    with pytest.raises(ConfigError) as caught:
        parse_config((ROOT / "config/echod.yaml").read_text().replace(before, after).encode())
    told = re.findall(r"^reload rejected: /etc/echod\.yaml:(.*)$", README, re.MULTILINE)
    assert len(told) == 2
    assert {*told} == {
        f"{each.line}:{each.column}: error: {each.path}: {each.message}" for each in caught.value.mistakes
    }
