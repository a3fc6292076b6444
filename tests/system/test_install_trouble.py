"""packaging/install where things are against it: its message names what to do, and what ran before runs on."""

import signal
import subprocess

import pytest
from support.system.acceleration import ACCELERATOR, state, switch_on
from support.system.host import ENVIRONMENT
from support.system.image import LONG, RELEASES
from support.system.installation import SOURCE, Mode, Release, install_command
from support.system.operating import Host

# Each of these takes several installations. Debian 12 has the older tools: what it takes, Debian 13 takes.
pytestmark = pytest.mark.parametrize("debian", list(RELEASES) if LONG else ["bookworm"], indirect=True, scope="session")

INSTALL = f"{SOURCE}/packaging/install"
UNCHANGED = "; nothing was changed\n"

# The lines of the installer before which it is killed, in their order: one in each part of what it does.
STEPS = (
    '"$release/bin/python" -m compileall',
    'install -m 0644 "$units"/*.service',
    'said=$("${check[@]}"',
    "ln -sfn /opt/echod/current/bin/echod",
    "mv -T /opt/echod/current.new",
    "running=$(systemctl",
    "rm $unfinished",
)


def current(host: Host) -> str:
    """Return the release that is to run, which must be there."""
    return host.run(["readlink", "--canonicalize-existing", "/opt/echod/current"]).stdout.strip()


def cut_before(host: Host, release: Release, step: str, number: signal.Signals, mode: Mode) -> list[str]:
    """Put an installer beside the other that sends itself a signal before a step; return the command that runs it."""
    before, after = (release.source / "packaging/install").read_text().split(f"\n{step}")
    host.write(f"{SOURCE}/packaging/cut", f"{before}\nkill -{number:d} $$\n{step}{after}", mode=0o755)
    return [word.replace("packaging/install", "packaging/cut") for word in install_command(mode)]


def test_two_at_once_take_turns(bound: Host, release: Release) -> None:
    """The second waits, and reports it; so does uninstall. What is left is whole: a release, which runs, or nothing."""
    release.bring(bound)
    with (
        bound.start(install_command(Mode.BOUND), stderr=subprocess.PIPE) as one,
        bound.start(install_command(Mode.BOUND), stderr=subprocess.PIPE) as two,
    ):
        complaints = {one.communicate()[1], two.communicate()[1]}
    assert (one.returncode, two.returncode) == (0, 0)
    assert complaints == {b"", b"packaging/install: waiting for another install or uninstall to end\n"}
    assert current(bound) in bound.run(["cat", f"/proc/{bound.supervisor()}/maps"]).stdout
    assert bound.serves_everything()
    with bound.start(["flock", "/run/echod-install.lock", "cat"], stdin=subprocess.PIPE) as holder:
        bound.run(["sh", "-c", "until ! flock --nonblock /run/echod-install.lock true; do sleep 0.01; done"])
        with bound.start([f"{SOURCE}/packaging/uninstall"], stderr=subprocess.PIPE) as uninstall:
            assert uninstall.stderr is not None
            printed = uninstall.stderr.readline()
            assert printed == b"packaging/uninstall: waiting for another install or uninstall to end\n"
            assert bound.serves_everything()
            assert holder.stdin is not None
            holder.stdin.close()
    assert uninstall.returncode == 0
    assert not bound.answers()


@pytest.mark.parametrize("size", ["4M", "24M"])
def test_a_full_disk_is_called_that(host: Host, release: Release, size: str) -> None:
    """Whether it is full before pip is there or after; and it is empty again."""
    release.bring(host)
    host.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/opt"])
    printed = host.run(install_command(Mode.BOUND), check=False)
    assert printed.returncode == 1
    assert printed.stderr.endswith(
        f"packaging/install: no space is left; to see where: df -h /opt/echod /tmp{UNCHANGED}"
    )
    assert host.run(["find", "/opt", "/etc/systemd/system", "-name", "*echod?*"]).stdout == ""
    assert host.run(["ls", "-A", "/opt/echod"]).stdout == ""


def test_without_a_network_it_asks_for_wheels(host: Host, release: Release) -> None:
    """The output of pip comes first; the last line names what to type. Wheels that do not suffice are named."""
    release.bring(host)
    printed = host.run([INSTALL], check=False, environment={"PIP_RETRIES": "0"})
    assert printed.returncode == 1
    assert len(printed.stderr.splitlines()) > 1
    assert printed.stderr.endswith(
        "packaging/install: pip could not get all packages; without a network, bring wheels: "
        f"packaging/install --wheels DIR{UNCHANGED}"
    )
    host.run(["mkdir", "/root/none"])
    printed = host.run([INSTALL, "--wheels", "/root/none"], check=False)
    assert printed.stderr.endswith(
        "packaging/install: pip could not install from /root/none: it must hold wheels of echod and of all its "
        f"dependencies for this Python{UNCHANGED}"
    )
    assert host.run(["ls", "-A", "/opt/echod"]).stdout == ""


def test_the_environment_and_the_pip_of_root_do_not_matter(host: Host, release: Release) -> None:
    """Neither where root's pip puts things, nor what other Pythons are reported, nor where `cd` looks."""
    release.bring(host)
    host.write("/root/lib/yaml.py", "raise SystemError\n")
    host.write("/etc/pip.conf", "[install]\nuser = true\ntarget = /root/target\n")
    host.run(["mkdir", "-p", "/root/other/packaging"])
    printed = host.run(
        ["sh", "-c", "cd /root/echod && packaging/install --wheels /root/wheels"],
        environment={
            "CDPATH": "/root/other",
            "PIP_USER": "1",
            "PIP_TARGET": "/root/target",
            "PIP_PREFIX": "/root/target",
            "PIP_DRY_RUN": "1",
            "PIP_REQUIRE_HASHES": "1",
            "PYTHONHOME": "/root/lib",
            "PYTHONPATH": "/root/lib",
            "PYTHONWARNINGS": "error",
            "VIRTUAL_ENV": "/root/lib",
        },
    )
    assert printed.stderr == ""
    assert host.serves_everything()
    assert host.run(["find", "/root", "-name", "*pydantic*", "-not", "-name", "*.whl"]).stdout == ""


def test_a_python_that_the_service_may_not_run_is_refused(bound: Host, release: Release) -> None:
    """One in root's home would do for root alone: that is reported before anything is stopped."""
    release.bring(bound)
    before = bound.supervisor()
    bound.run(["ln", "-s", "/usr/bin/python3", "/root/python3"])
    printed = bound.run(install_command(Mode.BOUND), check=False, environment={"PYTHON": "/root/python3"})
    assert printed.returncode == 1
    assert "packaging/install: the service cannot run /opt/echod/" in printed.stderr
    assert printed.stderr.endswith(UNCHANGED)
    assert bound.supervisor() == before
    assert bound.serves_everything()


def test_an_upgrade_leaves_off_what_was_off(installed: Host, release: Release, mode: Mode) -> None:
    """Stopped and disabled, it stays both, and the installer reports that; stopped alone, it is there after a boot.

    So does an accelerator, beside an echod that runs.
    """
    release.bring(installed)
    ports = ["echod.socket"] if mode is Mode.ACTIVATED else []
    installed.systemctl("disable", "--now", "--quiet", "echod.service", *ports)
    printed = installed.run(install_command(mode)).stdout
    assert printed.endswith(
        "It was stopped, and still is; to start it, now and at each boot: systemctl enable --now echod.service\n"
    )
    for unit in ("echod.service", *ports):
        assert (installed.show("ActiveState", unit), installed.show("UnitFileState", unit)) == (
            "inactive",
            "disabled",
        )
    installed.systemctl("enable", "--now", "--quiet", "echod.service", *ports)
    switch_on(installed)
    installed.systemctl("stop", ACCELERATOR)
    assert "stopped" not in installed.run(install_command(mode)).stdout
    assert installed.serves_everything()
    assert (state(installed), installed.show("UnitFileState", ACCELERATOR)) == ("inactive", "enabled")
    installed.systemctl("stop", "echod.service", *ports)
    assert "It was stopped" in installed.run(install_command(mode)).stdout
    assert installed.show("ActiveState") == "inactive"
    assert installed.show("UnitFileState") == "enabled"


def test_ports_change_hands_only_with_a_start(bound: Host, release: Release) -> None:
    """With --no-start what runs keeps its ports, and serves; the installer names what hands them over."""
    release.bring(bound)
    before = bound.supervisor()
    printed = bound.run([*install_command(Mode.ACTIVATED), "--no-start"]).stdout
    assert printed.endswith("echod still holds the ports; to move them to echod.socket: packaging/install --socket\n")
    assert bound.supervisor() == before
    assert bound.serves_everything()
    bound.systemctl("restart")
    assert bound.serves_everything()
    bound.run(install_command(Mode.ACTIVATED))
    assert bound.show("ActiveState", "echod.socket") == "active"
    assert bound.serves_everything()


def test_killed_at_any_step_it_can_be_run_again(bound: Host, release: Release) -> None:
    """What ran runs on, and can be restarted at any time; the next run does what is left, a change of mode too.

    One step in three, since each takes an installation; `./tests/long` takes them all.
    """
    release.bring(bound)
    for step in STEPS if LONG else STEPS[::3]:
        cut = cut_before(bound, release, step, signal.SIGKILL, Mode.ACTIVATED)
        assert bound.run(cut, check=False).returncode == -signal.SIGKILL
        assert bound.serves_everything()
        bound.systemctl("restart")
        assert bound.serves_everything()
    bound.run(install_command(Mode.ACTIVATED))
    for unit in ("echod.service", "echod.socket"):
        assert (bound.show("ActiveState", unit), bound.show("UnitFileState", unit)) == ("active", "enabled")
    assert bound.serves_everything()
    assert len(bound.run(["ls", "/opt/echod"]).stdout.split()) == 2


@pytest.mark.parametrize("step", [STEPS[0], STEPS[2]])
def test_interrupted_twice_it_leaves_nothing_behind(bound: Host, release: Release, step: str) -> None:
    """As timeout(1) does it, to all its processes; here the second signal comes while it clears up."""
    release.bring(bound)
    cut = cut_before(bound, release, step, signal.SIGTERM, Mode.BOUND)
    bound.write("/root/bin/rm", '#!/bin/sh\nkill -TERM $PPID $$\nexec /bin/rm "$@"\n', mode=0o755)
    there, units = (bound.run(["ls", "-a", place]).stdout for place in ("/opt/echod", "/etc/systemd/system"))
    path = {"PATH": f"/root/bin:{ENVIRONMENT['PATH']}"}
    assert bound.run(cut, check=False, environment=path).returncode == -signal.SIGTERM
    assert bound.run(["ls", "-a", "/opt/echod"]).stdout == there
    assert bound.run(["ls", "-a", "/etc/systemd/system"]).stdout == units
    assert bound.serves_everything()
