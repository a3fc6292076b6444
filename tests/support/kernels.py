"""Machines with other kernels of Debian, emulated: they run a script in the working tree, with root all in memory.

Owns CACHE/kernels: the root of these machines (Debian 13) and a kernel of each suite, downloaded and unpacked once by
apt. A machine has no disk, and no network but for a port; all else that comes out of it is what it prints.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from support.daemon import REPOSITORY
from support.system.chroot import run_in
from support.system.image import make_cached, make_root, succeed

SUITES: Final = ("bookworm", "trixie", "trixie-backports")
"""What Debian has of kernels at one time: of 6.1, of 6.12, and one of the newest."""

TREE: Final = ("echod", "tests", "config", "packaging", "pyproject.toml", "README.md", "LICENSE")
SECONDS: Final = 3000.0

# Run in the root of Debian 13, which is as it was afterwards.
_DOWNLOAD: Final = """export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt="apt-get -qq -y -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io"
archive=$(sed -n 's/^deb \\(.*\\) trixie main$/\\1/p' /etc/apt/sources.list)
for suite in bookworm trixie-backports; do echo "deb $archive $suite main" >>/etc/apt/sources.list; done
$apt update
$apt -t trixie install --no-install-recommends cpio kmod nftables python3-daemon python3-hypothesis \\
    python3-prometheus-client python3-pydantic python3-pytest python3-pytest-timeout python3-scapy python3-sdnotify \\
    python3-setproctitle python3-structlog python3-yaml >/dev/null
find / -xdev \\( -path /given -o -path /made -o -path /var/lib/apt -o -path /var/cache -o -path /usr/share/doc \\) \\
    -prune -o -print0 | cpio --null --create --format=newc --quiet >/given/root.cpio
for suite in {suites}; do
    mkdir -p /made/$suite/partial /made/$suite/new/usr/lib
    cd /made/$suite
    $apt -t $suite -o Dir::Cache::archives=/made/$suite install --download-only --no-install-recommends \\
        linux-image-cloud-amd64 >/dev/null
    for package in linux-*.deb; do dpkg-deb -x $package tree; done
    cp "$(find tree -name 'vmlinuz*')" /given/$suite.vmlinuz
    mv "$(find tree -name modules -type d)" new/usr/lib
    (cd new && find . -print0 | cpio --null --create --format=newc --quiet >/given/$suite.cpio)
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a machine printed, line by line, and the exit code of its script."""

    lines: list[str]
    code: int


def run_on_kernel(suite: str, script: str, folder: Path, port: int = 0) -> Ended:
    """Boot the kernel of a suite, run a script of sh in a copy of the working tree, as root, and end the machine.

    With a port it has a network card, 10.0.2.15, whose UDP port 7 is that port of 127.0.0.1. `folder` is an empty one.
    RuntimeError: the machine ended before the script did; the text is what it printed.
    """
    script_download = _DOWNLOAD.replace("{suites}", " ".join(SUITES))
    cached = make_cached("kernels", ".script", script_download, partial(_build, script_download))
    initial = folder / "initial.cpio"
    _pack(script, folder / "tree", initial, (cached / "root.cpio", cached / f"{suite}.cpio"))
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
    command += ["-m", "3G", "-nographic", "-nodefaults", "-no-reboot", "-serial", "stdio"]
    command += ["-kernel", str(cached / f"{suite}.vmlinuz"), "-initrd", str(initial)]
    # Where emulation has to wait for a CPU, the kernel finds that its timer does not tick, and panics.
    command += ["-append", "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/first"]
    if port:
        command += ["-netdev", f"user,id=net,hostfwd=udp:127.0.0.1:{port}-10.0.2.15:7"]
        command += ["-device", "virtio-net-pci,netdev=net"]
    ended = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )
    initial.unlink()
    # The console has control sequences of the firmware, and carriage returns.
    printed = re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|c)|\r", "", ended.stdout.decode(errors="replace"))
    found = re.search(r"^exit code: (\d+)$", printed, re.MULTILINE)
    if found is None:
        raise RuntimeError(printed)
    return Ended(lines=printed[: found.start()].splitlines(), code=int(found[1]))


def _build(script: str, target: Path) -> None:
    """Download into a folder."""
    target.mkdir(mode=0o755)
    run_in(make_root("trixie").root, script, target)


def _pack(script: str, tree: Path, initial: Path, before: tuple[Path, ...]) -> None:
    """Write the file system of a machine: archives, one behind the other, of which the last is the working tree."""
    (tree / "src").mkdir(parents=True)
    (tree / "script").write_text(script)
    (tree / "first").write_bytes((REPOSITORY / "tests/support/kernels.sh").read_bytes())
    (tree / "first").chmod(0o755)
    succeed(["cp", "--archive", *(str(REPOSITORY / each) for each in TREE), str(tree / "src")])
    command = "find . -name __pycache__ -prune -o -print0 | cpio --null --create --format=newc --quiet"
    with initial.open("wb") as file:
        for each in before:
            subprocess.run(["cat", each], check=True, stdout=file)
            file.seek(0, os.SEEK_END)
        subprocess.run(["sh", "-c", command], check=True, cwd=tree, stdout=file)
