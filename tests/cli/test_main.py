"""echod.cli.main: a command loads what it needs and nothing else."""

import sys
from pathlib import Path

import pytest
from support.daemon import StartDaemon, run_echod
from support.ports import free_port

SPY = """
import atexit, sys

def write():
    with open(f"{__file__}.loaded", "w") as file:
        file.write("\\n".join(name for name, module in sys.modules.items() if module is not None))

atexit.register(write)
"""
"""Loaded by Python before echod: at its exit a process writes down what it has loaded."""

FOREIGN = frozenset(
    {"ctypes", "daemon", "matplotlib", "prometheus_client", "pydantic", "rich", "sdnotify"}
    | {"setproctitle", "structlog", "yaml"}
)
"""What takes long to load, or memory."""

START = {"cli.errors", "cli.main", "cli.options", "errors", "linux", "logs"}
CHECK = START | {"cli.check", "cli.host", "cli.host_kernel", "cli.key_files", "cli.service_unit", "config", "net"}
STATUS = START | {"admission", "cli.directory", "config", "net", "stats", "status"}


def loaded(folder: Path, *words: str, code: int = 0, place: object = "") -> tuple[set[str], set[str]]:
    """Run echod until it ends; return which packages of echod, or modules of its cli, and which foreign ones it loaded.

    `place` is the status directory.
    """
    spy = folder / "sitecustomize.py"
    spy.write_text(SPY)
    ended = run_echod(*words, PYTHONPATH=str(folder), RUNTIME_DIRECTORY=str(place))
    assert ended.returncode == code, ended.stderr
    modules = set(Path(f"{spy}.loaded").read_text().splitlines())
    ours = {name.removeprefix("echod.") for name in modules if name.startswith("echod.cli.")}
    ours |= {name.split(".")[1] for name in modules if name.startswith("echod.")} - {"__main__", "cli"}
    return ours, modules & FOREIGN


@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_version_and_help_load_no_command(tmp_path: Path, words: list[str]) -> None:
    """Neither a parser of configs nor anything of the daemon or the client."""
    assert loaded(tmp_path, *words) == (START, set())


def test_a_ping_loads_the_client_alone(tmp_path: Path, echod: StartDaemon) -> None:
    """No config, no status, no log: neither pydantic nor yaml nor structlog; for its help not even ctypes."""
    port = free_port()
    echod({"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1})
    ours, foreign = loaded(tmp_path, "ping", "-c", "1", f"127.0.0.1:{port}")
    assert ours == START | {"cli.ping", "measurement", "net", "ping", "probes", "wire"}
    assert foreign == {"ctypes"}
    assert loaded(tmp_path, "ping", "nowhere.invalid", code=2)[1] == {"ctypes"}
    assert loaded(tmp_path, "ping", "--help")[1] == set()


def test_status_and_reload_load_nothing_of_the_daemon_but_its_files(tmp_path: Path, echod: StartDaemon) -> None:
    """They read a config and a status file; no log, no supervisor, no worker, no client."""
    daemon = echod({"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1})
    config = ["--config", str(daemon.config_path)]
    for words in (["status"], ["status", "--json"], ["reload"]):
        expected = STATUS | {f"cli.{words[0]}"}, {"pydantic", "yaml"}
        assert loaded(tmp_path, *words, *config, place=daemon.status_path) == expected


def test_check_loads_the_config_alone(tmp_path: Path) -> None:
    """And with --source what decides about a source."""
    path = tmp_path / "echod.yaml"
    path.write_text("listeners: [udp://127.0.0.1:7]\n")
    config = ["check", "--config", str(path)]
    assert loaded(tmp_path, *config) == (CHECK, {"ctypes", "pydantic", "yaml"})
    ours, foreign = loaded(tmp_path, *config, "--source", "127.0.0.1:40000")
    assert (ours, foreign) == (CHECK | {"admission", "cli.inquiry", "stats", "worker"}, {"ctypes", "pydantic", "yaml"})


def test_config_loads_the_config_alone(tmp_path: Path) -> None:
    """It asks no host."""
    ours = START | {"cli.config", "config", "net"}
    for words in (["--defaults"], ["--schema"]):
        assert loaded(tmp_path, "config", *words) == (ours, {"pydantic", "yaml"})


def test_units_loads_nothing_but_the_command_line(tmp_path: Path) -> None:
    """It reads no config."""
    assert loaded(tmp_path, "units", "--help") == (START | {"cli.units"}, set())


def test_run_loads_no_other_command(tmp_path: Path) -> None:
    """What `check`, `status` and `ping` need is not in the daemon's memory, nor python-daemon without --daemonize."""
    path = tmp_path / "echod.yaml"
    path.write_text("listeners: [udp://127.0.0.1:0]\n")
    ours, foreign = loaded(tmp_path, "run", "--config", str(path), code=78)
    assert {name for name in ours if "." in name} == {"cli.errors", "cli.main", "cli.options", "cli.run"}
    assert ours.isdisjoint({"ping", "probes", "measurement", "metrics"})
    assert foreign == {"ctypes", "pydantic", "sdnotify", "setproctitle", "structlog", "yaml"}


def test_asyncio_is_loaded_when_something_of_it_is_used() -> None:
    """What stands for it until then, for want of a use, is the real one to who does use it."""
    program = (
        "import sys; from echod import __main__ as entry; sys.modules['asyncio'] = entry._Asyncio('asyncio'); "
        "import asyncio; assert 'asyncio.events' not in sys.modules; kept = asyncio; "
        "from asyncio import run; import asyncio.queues; "
        "print(run.__module__, kept.Queue is asyncio.queues.Queue, asyncio.run is run)"
    )
    finished = run_echod(command=(sys.executable, "-c", program))
    assert (finished.stdout, finished.stderr) == ("asyncio.runners True True\n", "")
