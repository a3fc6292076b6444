"""A command in a root of Debian, with the network of this machine: what it writes is gone with it."""

import subprocess
import tempfile
from pathlib import Path

from support.system.image import failure

# The root is the lower layer of an overlay in memory, which is mounted in a namespace that ends with the script.
SCRIPT = """set -e
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cp /etc/resolv.conf /etc/hosts "$2/root/etc/"
mount -t proc proc "$2/root/proc"
mkdir "$2/root/given" "$2/root/made"
mount --rbind "$3" "$2/root/given"
exec chroot "$2/root" sh -ec "$4"
"""

SECONDS = 900.0


def run_in(root: Path, script: str, given: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script of sh as root of a Debian, which has the folder `given` at /given, and an empty one at /made."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "unshare",
            "--mount",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            SCRIPT,
            "sh",
            root,
            folder,
            given,
            script,
        ]
        words = [str(word) for word in command]
        result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=SECONDS)
        if result.returncode != 0:
            raise failure(words, result)
        return result
