"""A container that systemd boots in: its disk, its control group and the systemd-nspawn process that runs it.

Owns the processes and mounts of one host, and no network. All mounts are made in a mount namespace that one
process, the keeper, holds open. Nothing outlives the keeper, and the keeper does not outlive this process.
"""

import os
import re
import select
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from support.waiting import wait_until

BOOT_TIMEOUT = 60.0  # a second when idle; a machine that tests in parallel may need many
STOP_TIMEOUT = 15.0  # a clean stop takes 0.2 s; what hangs on its own TimeoutStopSec is not waited for
FORCE_RESTART = 133  # the status by which systemd-nspawn --keep-unit asks to be started again: a reboot

# Mounts the disk, says so, and keeps the namespace until its standard input ends, which it does when we do, however
# we end. Then it kills what is left in the container's group: nothing, unless we were killed ourselves. Neither
# PR_SET_PDEATHSIG nor killing nspawn would do: a booted PID 1 outlives its nspawn.
# The upper layer is memory: nothing is left on the machine's disk, and a write costs no seek.
KEEPER = """set -e
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn  # where nspawn would leave its locks behind
mount -t tmpfs tmpfs "$2/disk"
mkdir "$2/disk/upper" "$2/disk/work"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/disk/upper,workdir=$2/disk/work" "$2/root"
echo mounted
read -r _ || echo 1 >"$3/cgroup.kill"
"""

# nspawn makes its groups beside itself, so it starts in a group of its own.
IN_GROUP = 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"'

# What PID 1 of a real machine may do and nspawn's defaults refuse. Each is there for a setting of a unit or a call
# of a daemon: NET_ADMIN for SO_RCVBUFFORCE, BPF and PERFMON with the bpf call for IPAddressDeny=,
# SYS_RESOURCE for LimitNOFILE= and OOMScoreAdjust=, IPC_LOCK for LimitMEMLOCK=. nspawn ignores what we lack.
CAPABILITIES = "CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON,CAP_SYS_RESOURCE,CAP_IPC_LOCK"
NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--register=no",  # the machine's PID 1 need not be systemd
    "--keep-unit",
    "--console=pipe",
    "--notify-ready=yes",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
    f"--capability={CAPABILITIES}",
    "--system-call-filter=bpf",
)
NSPAWN_ENVIRONMENT = {
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",  # also where the machine itself is of the older hierarchy
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",  # /proc/sys/net is the host's own to set
}


class ContainerError(Exception):
    """A container did not boot or did not reboot; the message holds the end of its console."""


class Container:
    """One disk over a cached root, and the system that is booted from it, as often as wanted."""

    def __init__(self, name: str, root: Path, directory: Path, network: Path) -> None:
        """Make nothing yet. `directory` is an empty one for our files, `network` a bound network namespace."""
        self.name = name
        self.leader = 0
        self._root = root
        self._directory = directory
        self._network = network
        self._group = own_group() / name
        self._cleanup = ExitStack()
        self._console = directory / "console"

    def attach(self) -> None:
        """Mount the disk."""
        for mount_point in ("disk", "root"):
            (self._directory / mount_point).mkdir()
        self._group.mkdir()
        self._cleanup.callback(remove_group, self._group)
        command = ["unshare", "--mount", "sh", "-c", KEEPER, "sh"]
        keeper = subprocess.Popen(
            [*command, str(self._root), str(self._directory), str(self._group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # Ctrl-C is for us alone, who then clean up in order
        )
        self._cleanup.enter_context(keeper)  # closes its standard input and waits for its end
        assert keeper.stdout is not None
        if (answer := keeper.stdout.readline()) != "mounted\n":
            raise ContainerError(f"no disk: {answer}{keeper.stdout.read()}")
        self._keeper = keeper

    def boot(self) -> None:
        """Start the system and wait until its own PID 1 says that all of it is up, or ContainerError."""
        command = ["sh", "-c", IN_GROUP, "sh", str(self._group)]
        command += ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", *NSPAWN]
        command += [f"--machine={self.name}", f"--directory={self._directory / 'root'}"]
        command += [f"--network-namespace-path={self._network}"]
        address = self._directory / "notify"
        # Open only while we listen: a full socket would block nspawn, which notifies again after a daemon-reload.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications, self._console.open("ab") as console:
            notifications.bind(str(address))
            self._nspawn = subprocess.Popen(
                command,
                env={**os.environ, **NSPAWN_ENVIRONMENT, "NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            self._cleanup.callback(self.stop)
            self.leader = 0
            self._await_ready(notifications, time.monotonic() + BOOT_TIMEOUT)
        address.unlink()

    def await_reboot(self) -> None:
        """Wait until the system that was told to reboot is down, and boot it again from the same disk."""
        try:
            status = self._nspawn.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise ContainerError(f"did not go down\n{self._console_end()}") from None
        if status != FORCE_RESTART:
            raise ContainerError(f"nspawn ended with {status} instead of a reboot\n{self._console_end()}")
        self.boot()

    def stop(self) -> None:
        """Shut the system down, or kill it when it is not down after STOP_TIMEOUT. It may be down already."""
        if self._nspawn.poll() is None:
            self._nspawn.terminate()
            try:
                self._nspawn.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                # With its PID 1 all of a container dies, and nspawn, which has seen it die, ends.
                os.kill(self.leader or self._nspawn.pid, signal.SIGKILL)
                self._nspawn.wait()

    def close(self) -> None:
        """Stop the system and undo all that attach did."""
        self._cleanup.close()

    def _await_ready(self, notifications: socket.socket, deadline: float) -> None:
        """Read what nspawn notifies until READY=1, which it passes on from the container's PID 1."""
        pidfd = os.pidfd_open(self._nspawn.pid)
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                readable, _, _ = select.select([notifications.fileno(), pidfd], [], [], left)
                if notifications.fileno() not in readable:
                    reason = "nspawn ended" if pidfd in readable else f"not up after {BOOT_TIMEOUT} s"
                    raise ContainerError(f"{reason}\n{self._console_end()}")
                for line in notifications.recv(4096).decode().splitlines():
                    key, _, value = line.partition("=")
                    if key == "X_NSPAWN_LEADER_PID":
                        self.leader = int(value)
                    elif line == "READY=1" and self.leader:
                        return
        finally:
            os.close(pidfd)

    def _console_end(self) -> str:
        """Return the last words on the container's console."""
        return self._console.read_text(errors="replace")[-2000:]


def own_group() -> Path:
    """Return the directory of this process' control group in the unified hierarchy, wherever that is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        if source.startswith("cgroup2 "):
            (group,) = re.findall("^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
            return Path(fields.split()[4], group)
    raise ContainerError("no control group hierarchy of version 2 is mounted")


def remove_group(group: Path) -> None:
    """Remove a control group and those in it, as soon as the processes that are dying in it are gone."""

    def gone() -> bool:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                Path(directory).rmdir()
            except OSError:
                return False
        return True

    wait_until(gone, f"the processes in {group} are gone", seconds=STOP_TIMEOUT)
