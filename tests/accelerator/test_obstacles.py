"""What keeps `echod accelerate` from its work is one sentence and an exit code, and nothing is left attached."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import AS_NOBODY, run_echod
from support.loopback import needs_root
from support.netns.accelerator import NEVER, Accelerated, accelerated
from support.netns.datagrams import PORT, SERVER

from echod.accelerator.obstacles import explain
from echod.errors import ExitCode
from echod.linux.bpf import ProgramRefusedError

pytestmark = needs_root

PERMISSION = "echod accelerate needs CAP_BPF and CAP_NET_ADMIN, and has no"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accelerated]:
    """Start a daemon on a wire, without an accelerator."""
    folder = tmp_path_factory.mktemp("host")
    with accelerated(folder, start=False) as host:
        yield host


def refusal(
    host: Accelerated, *prefix: str, code: ExitCode, config: Path | None = None, place: Path | None = None
) -> str:
    """Start the accelerator behind this prefix, which must end with this code; return its sentence.

    `place` is its status directory, by default one that is not there.
    """
    path = config or host.daemon.config_path
    found = run_echod(
        *("accelerate", "--config", path),
        prefix=("ip", "netns", "exec", host.wire.server, *prefix),
        RUNTIME_DIRECTORY=str(place or path.parent / "refused"),
    )
    assert found.returncode == code
    assert found.stdout == ""
    (line,) = (each for each in found.stderr.splitlines() if not each.startswith("{"))
    return line


def test_without_interfaces_there_is_nothing_to_do(host: Accelerated, tmp_path: Path) -> None:
    """A restart does not help, as with any mistake in the file."""
    path = tmp_path / "echod.yaml"
    path.write_text("workers: 1\n")
    sentence = refusal(host, code=ExitCode.CONFIG, config=path)
    assert sentence == f"echod: {path} has no kernel.interfaces: write those where the kernel is to reply"


def test_a_mistake_in_the_file_is_reported_with_its_line(host: Accelerated, tmp_path: Path) -> None:
    """As `echod check` does."""
    path = tmp_path / "echod.yaml"
    path.write_text("kernel: {interfaces: [a/b]}\n")
    found = run_echod("accelerate", "--config", path)
    assert found.returncode == ExitCode.CONFIG
    assert found.stderr.startswith(f"{path}:1:23: error: kernel.interfaces[0]: ")


@pytest.mark.parametrize(
    ("capabilities", "missing"),
    [("-all", "CAP_BPF and no CAP_NET_ADMIN"), ("-all,+bpf", "CAP_NET_ADMIN"), ("-all,+net_admin", "CAP_BPF")],
)
def test_a_capability_that_is_missing_is_named(folder: Path, capabilities: str, missing: str) -> None:
    """Whichever of the two."""
    path = folder / "echod.yaml"
    path.write_text("kernel: {interfaces: [lo]}\n")
    path.chmod(0o644)
    sets = [f"--{each}={capabilities}" for each in ("inh-caps", "ambient-caps", "bounding-set")]
    found = run_echod("accelerate", "--config", path, prefix=(*AS_NOBODY, *sets))
    assert found.returncode == ExitCode.NO_PERMISSION
    assert f"echod: {PERMISSION} {missing}: start it by its unit or as root" in found.stderr.splitlines()


def test_a_user_namespace_is_named(host: Accelerated) -> None:
    """Its root has all capabilities, but not for this."""
    sentence = refusal(host, "unshare", "--user", "--map-root-user", code=ExitCode.NO_PERMISSION)
    assert "a process in a user namespace" in sentence
    assert "PrivateUsers=" in sentence


def test_a_foreign_socket_on_a_port_of_ours_is_named(host: Accelerated) -> None:
    """Beside a listener on all addresses: by its replies the kernel could not tell it from echod."""
    host.daemon.write({"listeners": [f"udp://0.0.0.0:{PORT}", "udp://0.0.0.0:9"], "kernel": NEVER})
    with host.wire.listen(SERVER, 9):
        sentence = refusal(host, code=ExitCode.UNAVAILABLE)
    assert sentence == (
        f"echod: a process of the user with the id 0 has a UDP socket at {SERVER} on port 9, which udp://0.0.0.0:9 has "
        "too: the kernel would repeat what it sends, so end that process or change the listener"
    )


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.EINVAL, 69, f"this kernel ({os.uname().release}) cannot attach programs to an interface (tcx): that"),
        (errno.ENOMEM, 69, "the kernel has no memory for the maps: lower limits.sources"),
        (errno.E2BIG, 69, "the kernel has no memory for the maps: lower limits.sources"),
        (errno.EMFILE, 69, "no descriptor is left for the maps and programs: raise LimitNOFILE="),
        (errno.EPERM, 77, "a filter of system calls forbids bpf(2): add bpf to SystemCallFilter="),
        (errno.ENOSYS, 77, "a filter of system calls forbids bpf(2): add bpf to SystemCallFilter="),
        (errno.EIO, 69, "the kernel refuses: Input/output error"),
    ],
)
def test_what_the_kernel_refuses_becomes_a_sentence(number: int, code: int, words: str) -> None:
    """This process has all capabilities, so what is not permitted is so for another reason."""
    error = explain(OSError(number, os.strerror(number)))
    assert int(error.exit_code) == code
    assert str(error).startswith(words)


def test_a_verifier_that_has_no_descriptor_is_not_to_blame() -> None:
    """It has a log, and no objection."""
    error = explain(ProgramRefusedError(errno.EMFILE, "Too many open files", log="func#0 @0"))
    assert str(error).startswith("no descriptor is left")


def test_a_second_one_with_the_same_directory_is_refused(host: Accelerated) -> None:
    """Each would write the status of the other. When the first has ended, its directory is free."""
    host.write()
    host.start(prefix=())
    place = host.accelerator.status_path
    try:
        sentence = refusal(host, code=ExitCode.UNAVAILABLE, place=place)
    finally:
        host.end()
    assert sentence == (f"echod: another echod accelerate runs with {place}: stop it, or set another RUNTIME_DIRECTORY")
    host.start(prefix=())
    host.end()


def test_what_the_verifier_says_is_not_in_the_sentence() -> None:
    """It is for the log, at debug."""
    error = explain(ProgramRefusedError(errno.EACCES, "Permission denied", log="R1 invalid mem access"))
    assert int(error.exit_code) == 69
    assert str(error) == (
        f"the verifier of this kernel ({os.uname().release}) refuses a program of echod: please report what log.level: "
        "debug logs of it"
    )


def test_a_verifier_that_is_too_old_is_not_to_blame() -> None:
    """It refuses the programs before anybody can say that they cannot be attached: that of 6.1 does."""
    for release in ("5.10.0-30-amd64", "6.1.0-50-cloud-amd64", "6.5"):
        error = explain(ProgramRefusedError(errno.EACCES, "Permission denied", log="R1 invalid mem access"), release)
        assert int(error.exit_code) == 69
        assert str(error) == (
            f"this kernel ({release}) cannot attach programs to an interface (tcx): that needs Linux 6.6"
        )
    for release in ("6.6.0", "6.10.1", "7.3.4+deb13-amd64", "unheard of"):
        error = explain(ProgramRefusedError(errno.EACCES, "Permission denied", log="R1 invalid mem access"), release)
        assert str(error).startswith(f"the verifier of this kernel ({release}) refuses a program")
