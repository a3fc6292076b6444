"""Images and containers: buildah and podman in a mount namespace of their own, with storage of their own.

Owns what it starts and mounts; nothing outlives it. What stands in for what a host has:

- the control groups are not used (`--cgroups=disabled`): the machine may have the older hierarchy, which no runtime of
  Debian accepts beside the newer one;
- the network is a namespace that the test made, in place of podman's bridge;
- the timer of health checks, which systemd would be, is the test, which runs the check.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from support.system.host import obstacle as no_hosts
from support.system.image import failure
from support.system.network import NAMESPACES

TOOLS = ("buildah", "crun", "podman")

# Left out of the base: what a slim image leaves out, and, as the official images of Python do, compiled files.
LEFT_OUT = (
    *("./dev/*", "./proc/*", "./run/*", "./sys/*", "./tmp/*"),
    *("./var/cache/*", "./var/lib/apt/lists/*", "./var/log/*", "__pycache__"),
    *(f"./usr/share/{name}/*" for name in ("bash-completion", "doc", "i18n", "info", "lintian", "locale", "man")),
    *("./usr/share/perl", "./usr/share/zoneinfo", "./usr/lib/systemd", "./usr/lib/udev"),
)

# Waits for its input to end, which it does when we do; with the last process its mounts are gone.
KEEPER = """set -e
mount -t cgroup2 none /sys/fs/cgroup
echo mounted
read -r _ || true
"""


def obstacle() -> str:
    """Return why containers cannot be run here, or an empty string if they can."""
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(lacking)}"
    return no_hosts()


class Containers:
    """What buildah and podman have: images, and containers that end with it."""

    def __init__(self, folder: Path) -> None:
        """Take an empty folder for all images and containers."""
        self._folder = folder
        self._stack = ExitStack()
        self._names: list[str] = []

    def __enter__(self) -> Self:
        """Make the namespace and the storage."""
        keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", KEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self._stack.enter_context(keeper)
        assert keeper.stdout is not None
        answer = keeper.stdout.readline()
        assert answer == "mounted\n", answer
        self._inside = ("nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt", "--wdns=/")
        storage = self._folder / "storage.conf"
        rows = {"driver": "overlay", "graphroot": self._folder / "images", "runroot": self._folder / "run"}
        storage.write_text("[storage]\n" + "".join(f'{name} = "{value}"\n' for name, value in rows.items()))
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(self._folder),
        }
        return self

    def __exit__(self, *_: object) -> None:
        """End all containers, then the namespace."""
        for name in self._names:
            self.run("podman", "rm", "--force", "--time=0", name, check=False)
        # The storage has the mounts of its layers in the namespace alone.
        self._stack.close()
        shutil.rmtree(self._folder / "images", ignore_errors=True)

    def run(
        self,
        *command: object,
        check: bool = True,
        variables: Mapping[str, str] | None = None,
        seconds: float = 900,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command beside the containers until it ends, with these variables."""
        words = [*self._inside, *map(str, command)]
        environment = {**self._environment, **(variables or {})}
        result = subprocess.run(words, check=False, capture_output=True, text=True, env=environment, timeout=seconds)
        if check and result.returncode != 0:
            raise failure(words, result)
        return result

    def import_base(self, root: Path, name: str) -> str:
        """Make an image of a root without what a slim image leaves out; return its name."""
        left_out = [f"--exclude={pattern}" for pattern in LEFT_OUT]
        archive = self._folder / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "--numeric-owner", *left_out, "."], check=True)
        self.run("podman", "import", "--quiet", archive, name)
        archive.unlink()
        return f"localhost/{name}"

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what podman knows of an image or a container."""
        (found,) = json.loads(self.run("podman", "inspect", name).stdout)
        return dict(found)

    def start(
        self, name: str, image: str, *words: str, network: str, options: Sequence[str] = (), notify: Path | None = None
    ) -> int:
        """Start a container as an operator would, with as few rights as it may have; return its first process."""
        self._names.append(name)
        # Limits that need no right to raise them, and no timer of systemd for the health check.
        limits = ("--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
        here = (f"--name={name}", "--health-interval=disable", *limits)
        rights = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
        # Mounts that the machine makes later, as those of named namespaces, are not in the namespace of the containers.
        variables = {"NOTIFY_SOCKET": str(notify)} if notify else {}
        with (NAMESPACES / network).open("rb") as file:
            where = f"--network=ns:/proc/{os.getpid()}/fd/{file.fileno()}"
            self.run("podman", "run", "--detach", *here, where, *rights, *options, image, *words, variables=variables)
        return int(self.inspect(name)["State"]["Pid"])

    def execute(self, name: str, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command in a container, as its user."""
        return self.run("podman", "exec", name, *words, check=check)

    def logs(self, name: str) -> list[dict[str, Any]]:
        """Return the log entries of an echod in a container."""
        result = self.run("podman", "logs", name)
        lines = (result.stdout + result.stderr).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
