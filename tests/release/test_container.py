"""The image: built by packaging/container/build without pulling, and run by podman with as few rights as it may have.

A slim root of Debian 13 stands in for the official image of Python. `support.release.containers` has what else stands
in for what.
"""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.daemon import REPOSITORY, ask, connect_tcp
from support.release.containers import Containers
from support.release.times import EPOCH
from support.system.chroot import run_in
from support.system.image import Debian
from support.system.installation import Release
from support.system.network import entered, namespaces
from support.waiting import wait_until

from echod import __version__

IMAGE = f"localhost/echod:{__version__}"
USER = 65_532
MAX_BYTES = 100 * 10**6
ON_PORT_7 = ("run", "--config", "/etc/echod-port7.yaml")
SYSCTL = "--sysctl=net.ipv4.ip_unprivileged_port_start=0"
QUADLET = """cd /tmp
apt-get update -qq && apt-get download -qq podman >/dev/null && dpkg -x podman_*.deb /
QUADLET_UNIT_DIRS=/given /usr/libexec/podman/quadlet -no-kmsg-log /made /made /made >/made.log 2>&1
cat /made.log /made/echod.service
systemd-analyze verify --man=no /made/echod.service
"""
READY_SECONDS = 60.0
DRAIN_SECONDS = 10  # the default of drain_timeout_seconds


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    """Make the network of the containers."""
    with namespaces("image") as (name,):
        yield name


@pytest.fixture(scope="module")
def running(containers: Containers, image_archive: Path, network: str) -> int:
    """Start a container with the image's own config; return its first process, as this machine numbers it."""
    return start(containers, "plain", network)


def start(containers: Containers, name: str, network: str, *words: str, options: Sequence[str] = ()) -> int:
    """Start a container, and return its first process when echod serves."""
    process = containers.start(name, IMAGE, *words, network=network, options=options)
    wait_until(lambda: "ready" in events(containers, name), f"{name} serves", seconds=READY_SECONDS)
    return process


def events(containers: Containers, name: str) -> list[str]:
    """Return the events that an echod in a container has logged."""
    return [entry["event"] for entry in containers.logs(name)]


def status(process: int) -> dict[str, str]:
    """Return what proc(5) says of a process and its rights."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def children(process: int) -> list[int]:
    """Return the children of a process."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def echoes(network: str, port: int) -> None:
    """Assert that a port replies, in both protocols and both families."""
    with entered(network):
        assert ask(port) == b"hi"
        assert ask(port, host="::1") == b"hi"
        with connect_tcp(port) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"


def test_it_replies_on_port_7007(running: int, network: str) -> None:
    """Of itself, with the config of the image."""
    echoes(network, 7007)


def test_its_processes_have_no_right_at_all(running: int) -> None:
    """Each is user 65532, without any capability, now and for ever, and with a filter of system calls."""
    for process in (running, *children(running)):
        its = status(process)
        assert set(its["Uid"].split()) == set(its["Gid"].split()) == {str(USER)}
        assert not any(int(its[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
        assert (its["NoNewPrivs"], its["Seccomp"]) == ("1", "2")


def test_it_writes_to_no_file_but_its_status(running: int) -> None:
    """Its root is read-only, and the status is on a tmpfs."""
    mounts = [line.split() for line in Path(f"/proc/{running}/mountinfo").read_text().splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    assert "ro" in options["/"]
    written = {path.name for path in Path(f"/proc/{running}/root/run/echod").iterdir()}
    assert written == {"status.json", "self-test.json"}


def test_the_health_check_of_the_image_succeeds(running: int, containers: Containers) -> None:
    """Podman runs it, as it is in the image: exit code 0."""
    assert containers.run("podman", "healthcheck", "run", "plain", check=False).returncode == 0
    assert containers.inspect(IMAGE)["Healthcheck"]["Test"] == ["CMD", "echod", "status", "--check"]


def test_the_image_has_every_module_compiled(running: int, containers: Containers) -> None:
    """Nothing that echod loads is compiled again at each start: nobody may write the result."""
    script = (
        "import pkgutil, importlib, pathlib, sys, echod\n"
        "names = [each.name for each in pkgutil.walk_packages(echod.__path__, 'echod.')]\n"
        "for name in names:\n"
        "    if name != 'echod.__main__': importlib.import_module(name)\n"
        "modules = list(sys.modules.values())\n"
        "loaded = [each for each in modules if (getattr(each, '__file__', '') or '').endswith('.py')]\n"
        "compiled = {each.__file__: each.__spec__.cached for each in loaded if getattr(each.__spec__, 'cached', '')}\n"
        "print(len(compiled), [name for name, its in compiled.items() if not pathlib.Path(its).exists()])\n"
    )
    number, _, missing = containers.execute("plain", "/opt/echod/bin/python3", "-c", script).stdout.partition(" ")
    assert (int(number) > 100, missing.strip()) == (True, "[]"), number


def test_a_reload_within_the_container_works(running: int, containers: Containers) -> None:
    """As the unit of packaging/container/echod.container does it."""
    containers.execute("plain", "echod", "reload")
    assert "reloaded" in events(containers, "plain")


def test_the_client_of_the_image_measures(running: int, containers: Containers) -> None:
    """The image is a client too."""
    printed = containers.execute("plain", "echod", "ping", "-c", "2", "-i", "0.01", "127.0.0.1:7007").stdout
    assert "2 packets transmitted, 2 received, 0% packet loss" in printed


def test_the_first_process_reaps_an_orphan_that_it_inherits(running: int, containers: Containers) -> None:
    """A child of a command that was run in the container loses its parent, becomes echod's, ends, and is gone."""
    own = set(children(running))
    # The shell ends at once, and leaves the sleep to process 1.
    containers.execute("plain", "sh", "-c", "sleep 1000 & exit 0")
    (orphan,) = wait_until(lambda: set(children(running)) - own, "the orphan is inherited")
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: set(children(running)) == own, "the orphan is reaped")


def test_sigterm_ends_it_within_the_drain(containers: Containers, image_archive: Path, network: str) -> None:
    """`podman stop` sends the signal of the image, and echod exits with code 0, although a connection is busy."""
    listener = "tcp://127.0.0.1:7100"
    config = image_archive.with_name("own.yaml")
    config.write_text(f"listeners: [{listener}]\n")
    config.chmod(0o644)
    start(containers, "stopped", network, options=[f"--volume={config}:/etc/echod.yaml:ro"])
    with entered(network), socket.create_connection(("127.0.0.1", 7100)) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        begin = time.monotonic()
        containers.run("podman", "stop", f"--time={6 * DRAIN_SECONDS}", "stopped")
        assert time.monotonic() - begin < 3 * DRAIN_SECONDS
    assert containers.inspect("stopped")["State"]["ExitCode"] == 0
    assert events(containers, "stopped")[-1] == "stopped"


def test_it_replies_on_port_7_with_the_sysctl(containers: Containers, image_archive: Path) -> None:
    """And still on 7007, without any capability."""
    with namespaces("port7") as (network,):
        process = start(containers, "port7", network, *ON_PORT_7, options=[SYSCTL])
        echoes(network, 7)
        echoes(network, 7007)
        assert not int(status(process)["CapBnd"], 16)
        containers.run("podman", "rm", "--force", "--time=20", "port7")


def test_without_the_sysctl_port_7_is_not_permitted(containers: Containers, image_archive: Path, network: str) -> None:
    """Echod has no capability for it: it reports that and exits with code 77, which no restart corrects."""
    containers.start("denied", IMAGE, *ON_PORT_7, network=network)
    assert containers.run("podman", "wait", "denied").stdout.strip() == "77"
    assert "udp://0.0.0.0:7 may not be bound by this user" in containers.run("podman", "logs", "denied").stderr


def test_readiness_reaches_systemd(containers: Containers, image_archive: Path, tmp_path: Path) -> None:
    """With `--sdnotify=container`, as `Notify=true` makes it, echod's READY=1 comes to the service manager."""
    with namespaces("notify") as (network,), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(READY_SECONDS)
        options = ["--sdnotify=container"]
        containers.start("notifies", IMAGE, network=network, options=options, notify=tmp_path / "notify")
        lines: set[str] = set()
        while "READY=1" not in lines:
            lines |= set(manager.recv(4096).decode().splitlines())
        containers.run("podman", "rm", "--force", "--time=20", "notifies")


def test_the_image_has_the_metadata_of_its_kind(containers: Containers, image_archive: Path) -> None:
    """Labels, ports, signal, user and commands; no volume."""
    image = containers.inspect(IMAGE)
    config = image["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"7/udp", "7/tcp", "7007/udp", "7007/tcp"}
    assert "Volumes" not in config
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["version"] == __version__
    assert labels["licenses"] == "MIT"
    assert labels["created"] == "2023-11-14T22:13:20Z"
    assert image["Created"].startswith("2023-11-14T22:13:20")


def test_the_archive_is_small(image_archive: Path) -> None:
    """What a registry sends is at most 100 MB."""
    assert image_archive.stat().st_size <= MAX_BYTES


def test_two_builds_give_the_same_image(
    containers: Containers, image_archive: Path, base: str, source: Release, tmp_path: Path
) -> None:
    """The same source, wheels and base give the same bytes."""
    command = (source.source / "packaging/container/build", "--base", base, "--wheels", source.wheels, tmp_path)
    containers.run(*command, variables=EPOCH)
    assert (tmp_path / image_archive.name).read_bytes() == image_archive.read_bytes()


def test_podmans_generator_makes_a_unit_of_the_quadlet(trixie: Debian) -> None:
    """Debian 13's podman reads packaging/container/echod.container without a word, and systemd finds nothing wrong."""
    folder = REPOSITORY / "packaging/container"
    unit = run_in(trixie.root, QUADLET, folder).stdout
    assert re.findall("^Image=(.*)$", unit, re.MULTILINE) == [IMAGE]
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    for option in ("--sdnotify=container", "--cap-drop all", "--read-only", "--security-opt=no-new-privileges"):
        assert f" {option} " in command
    assert " --publish 7:7/udp --publish 7:7/tcp " in command
    assert command.endswith(f" {IMAGE} {' '.join(ON_PORT_7)}")
