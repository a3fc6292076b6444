"""`echod accelerate` on kernels of Debian: the oldest that it can use, one of the newest, and one too old for it."""

import os
import shutil
from pathlib import Path

import pytest
from support.kernels import run_on_kernel

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("qemu-system-x86_64", "debootstrap"))),
    reason="machines with other kernels need root, debootstrap and qemu",
)

STEPS = """uname --kernel-release
python3 - <<END
from support.bpf import XDP, Kernel, declaration, verified_steps
from echod.bpf.layout import Hook, LinkKind
from echod.bpf.options import Limits
limits = Limits(per_source=1000, burst=100, total=10_000, slip=8)
for hook in *map(Hook, LinkKind), XDP:
    for more in {}, {"limits": limits, "loop_breaker": True}:
        with Kernel(declaration(**more), hook) as kernel:
            steps = [verified_steps(each) for each in (kernel.programs.ingress, kernel.programs.egress)]
            print(hook.driver.value, hook.kind.value, *more, "steps of the verifier:", *steps)
END
"""

# The random frames are fewer than elsewhere.
TESTS = """modprobe -a veth bridge macvlan tun nf_tables xfrm_user
export ECHOD_TEST_FRAMES=2000
python3 -m pytest -q -rf --tb=short -p no:cacheprovider --timeout=900 tests/linux/test_bpf.py tests/bpf \\
    tests/accelerator tests/netns/test_kernel.py tests/netns/test_kernel_links.py tests/netns/test_kernel_differences.py
"""

ACCELERATE = """uname --kernel-release
echo '{listeners: ["udp://127.0.0.1:7777"], kernel: {interfaces: [lo]}}' >/tmp/echod.yaml
python3 -m echod accelerate --config /tmp/echod.yaml
"""


def show(*lines: str) -> None:
    """Show what a machine printed."""
    os.write(1, "\n".join(("", *lines, "")).encode())


@pytest.mark.parametrize("suite", ["trixie", "trixie-backports"])
def test_the_datapath_is_as_it_is_here(suite: str, tmp_path: Path) -> None:
    """Programs are verified and attached, the kernel replies, limits hold, and nothing is lost by a killed loader."""
    ended = run_on_kernel(suite, STEPS + TESTS, tmp_path)
    show(*ended.lines)
    assert ended.code == 0


def test_a_kernel_that_is_too_old_is_named(tmp_path: Path) -> None:
    """That of Debian 12: the sentence says what it lacks, and the exit code that it is not there."""
    ended = run_on_kernel("bookworm", ACCELERATE, tmp_path)
    show(*ended.lines)
    assert ended.code == 69
    release = next(line for line in ended.lines if line.startswith("6.1."))
    sentence = f"this kernel ({release}) cannot attach programs to an interface (tcx): that needs Linux 6.6"
    assert sentence in ended.lines[-1]
