"""A host: a real Debian with systemd, booted clean in a second, and the wire by which its clients reach it.

Owns the life of a host from its boot to its last trace, and the ways to work on it from inside. It never changes
the cached root: what a host writes is gone with it.

    with BootedHost(make_root("bookworm").root) as host:
        host.run(["systemctl", "start", "echod"])
        with host.client():
            connection = socket.create_connection((host.address, 7))
"""

import io
import itertools
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

from support.system import network
from support.system.container import Container, ContainerError, own_group, remove_group
from support.system.image import failure

TOOLS = ("systemd-nspawn", "debootstrap", "ip", "nsenter", "unshare", "setpriv")

# A login of root would have these and little else.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
RUN_TIMEOUT = 200.0  # an installation takes ten seconds; on a machine that tests in parallel, many more

# All that a host makes on the machine has a name of this form: what a killed run left is known by its dead number.
NAME = "echod-{pid}-{number}"
NAME_PATTERN = re.compile(r"echod-(\d+)-\d+(-[hc])?")
REMOVE = partial(shutil.rmtree, ignore_errors=True)
_numbers = itertools.count(1)


def obstacle() -> str:
    """Return why hosts cannot be booted here, or an empty string if they can."""
    if os.geteuid() != 0:
        return "booting a Debian takes root"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(lacking)}"
    try:
        own_group()
    except ContainerError as error:
        return str(error)
    return ""


def sweep() -> None:
    """Remove what hosts of killed runs left: names and empty directories, since their processes die with them."""
    for parent, remove in (
        (network.NAMESPACES, lambda path: network.remove_namespace(path.name)),
        (own_group(), remove_group),
        (Path(tempfile.gettempdir()), REMOVE),
    ):
        for path in parent.glob("echod-*-*"):
            match = NAME_PATTERN.fullmatch(path.name)
            if match and not Path("/proc", match[1]).exists():
                remove(path)


class BootedHost:
    """A booted host; a context manager, to be entered once. Hosts may be used side by side."""

    address = network.HOST_ADDRESS
    address6 = network.HOST_ADDRESS6

    def __init__(self, root: Path) -> None:
        """Prepare a host over the cached root `root`; entering it makes and boots it."""
        self._root = root
        self._cleanup = ExitStack()
        self._client = ""
        self._container: Container

    @property
    def leader(self) -> int:
        """The host's PID 1 as this machine numbers it."""
        return self._container.leader

    def __enter__(self) -> Self:
        """Boot the host and return it when systemd has started all that it was to start."""
        sweep()
        name = NAME.format(pid=os.getpid(), number=next(_numbers))
        with ExitStack() as stack:
            directory = Path(tempfile.gettempdir(), name)
            directory.mkdir(mode=0o700)
            stack.callback(REMOVE, directory)  # its mount points are empty outside the namespace of the keeper
            host, self._client = stack.enter_context(network.wire(name))
            self._container = Container(name, self._root, directory, network.NAMESPACES / host)
            stack.callback(self._container.close)
            self._container.attach()
            self._container.boot()
            self._await_system()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Shut the host down and remove every trace of it."""
        self._cleanup.close()

    def client(self) -> AbstractContextManager[None]:
        """Be a client: sockets made and processes started inside live at the other end of the wire, for ever."""
        return network.entered(self._client)

    def start(self, arguments: list[str], **pipes: Any) -> "subprocess.Popen[bytes]":  # noqa: ANN401 - Popen's
        """Start a command on the host, with a login's environment.

        It runs as root, in no unit of the host's systemd, and is killed with the process that stands for it here.
        """
        return subprocess.Popen(self._command(arguments), env=ENVIRONMENT, **pipes)

    def _command(self, arguments: list[str]) -> list[str]:
        inside = ["setpriv", "--pdeathsig", "KILL", "--", *arguments]
        return ["nsenter", "--target", str(self.leader), "--all", "--", *inside]

    def run(
        self,
        arguments: list[str],
        *,
        check: bool = True,
        timeout: float = RUN_TIMEOUT,
        stdin: str | bytes = "",
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root and return its status and output, decoded.

        A failure raises subprocess.CalledProcessError with the output as a note, unless `check` is false.
        """
        result = subprocess.run(
            self._command(arguments),
            check=False,
            capture_output=True,
            env={**ENVIRONMENT, **(environment or {})},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            timeout=timeout,
        )
        output, complaint = result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
        decoded = subprocess.CompletedProcess(arguments, result.returncode, output, complaint)
        if check and result.returncode != 0:
            raise failure(arguments, decoded)
        return decoded

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file on the host, with the directories that it needs."""
        # By a process inside: symbolic links on the way must be the host's, not the machine's.
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], stdin=text)

    def read(self, path: str) -> str:
        """Return the text of a file on the host."""
        return self.run(["cat", path]).stdout

    def copy(self, source: Path, destination: str) -> None:
        """Copy a file or a directory of this machine to `destination`, its full new name on the host."""
        parent, _, name = destination.rstrip("/").rpartition("/")

        def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            return member

        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(source, arcname=name, filter=owned_by_root)
        script = 'mkdir -p "$1" && tar -x -C "$1"'
        self.run(["sh", "-c", script, "sh", parent or "/"], stdin=archive.getvalue())

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the journal's entries that journalctl(1) finds by `arguments`, oldest first.

        Values are strings; what is not text is a list of bytes, and a field set twice is a list of values.
        """
        self.run(["journalctl", "--sync"])  # what was logged before this call is on the disk after it
        lines = self.run(["journalctl", "--output=json", "--no-pager", "--all", *arguments]).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def reboot(self) -> None:
        """Reboot by `systemctl reboot`; files and the wire stay, processes and /run, /tmp and /dev/shm do not."""
        # Its connection to PID 1 may break before the answer comes.
        self.run(["systemctl", "reboot"], check=False)
        self._container.await_reboot()
        self._await_system()

    def _await_system(self) -> None:
        """Wait until systemd is done; "degraded" is up too: a test may have enabled a service that fails."""
        state = self.run(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
        if state not in {"running", "degraded"}:
            raise ContainerError(f"the system is {state!r}")
