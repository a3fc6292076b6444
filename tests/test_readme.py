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
    section = README[README.index("## Measure") : README.index("## Promises")]
    blocks = re.findall(r"^```console\n\$ echod (.*?)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    for words, shown in blocks:
        command = [echod, *words.split()]
        reported = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
        assert shape(reported) == shape(shown)
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
    measured, reported, *answers = answers
    assert "0% packet loss" in measured
    assert "UDP listener" in reported
    assert answers[:3] == ["hi", "hello", "bonjour"]
    assert "Lost: 0 (0.00%)" in answers[3]


def test_which_command_to_type_is_read_before_the_first_command() -> None:
    """What runs in a copy names the command of that copy; what is typed on a host with echod stands below that."""
    before, _, after = README.partition("```sh\n")
    assert "Until echod is [installed](#install), its command is `.venv/bin/echod`, not `echod`:" in before
    assert "\n### Install\n" in after
    assert [block for block in BLOCKS if re.search(r"(?<!\.venv/bin/)\bechod (?=[a-z])", block)] == []


def test_the_table_of_keys_states_the_defaults() -> None:
    """The keys of the table are keys of the config, and their defaults are the code's."""
    section = README[README.index("## Configure") : README.index("## Operate")]
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]+)` \|", section, re.MULTILINE))
    assert rows.keys() == {"access.allow", "limits.datagrams_per_second", "workers", "metrics.listen"}
    lines = [":\n  ".join(key.split(".")) + f": {value}\n" for key, value in rows.items()]
    assert parse_config("".join(lines).encode()) == (Config(), ())
    assert "| `listeners` | UDP and TCP on port 7 of `0.0.0.0` and `[::]` |" in section
    assert [str(each) for each in Config().listeners] == [
        f"{protocol}://{host}:7"
        for protocol in ("udp", "tcp")
        for host in ("0.0.0.0", "[::]")  # noqa: S104 - as text
    ]


def test_it_is_short() -> None:
    """A newcomer reads it to its end; the man pages are the reference."""
    assert len(README.splitlines()) <= 220


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
    reported = re.findall(r"^reload rejected: /etc/echod\.yaml:(.*)$", README, re.MULTILINE)
    assert len(reported) == 1
    assert {*reported} == {
        f"{each.line}:{each.column}: error: {each.path}: {each.message}" for each in caught.value.mistakes
    }
