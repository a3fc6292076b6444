"""packaging/install and packaging/uninstall: one command each, to be run again and again, without a network."""

import re

import pytest
from support.man import PAGES
from support.system.acceleration import ACCELERATOR, NOTHING_CONFIGURED, switch_on
from support.system.host import AS_NOBODY
from support.system.image import LONG, RELEASES
from support.system.installation import SOURCE, WHEELS, Mode, Release, fetch, install_command, serve_index
from support.system.operating import CONFIG, OK, Host
from support.waiting import wait_until

# Each of these takes several installations. Debian 13 has the newer tools; test_install_trouble.py takes Debian 12.
pytestmark = pytest.mark.parametrize("debian", list(RELEASES) if LONG else ["trixie"], indirect=True, scope="session")

UNINSTALL = f"{SOURCE}/packaging/uninstall"
CURRENT = "/opt/echod/current"
PLACES = ["/opt", "/usr/local", "/etc", "/var/lib", "/run/systemd/system"]
# What an installation on a running host changes besides: systemd's own memory.
NOT_OURS = re.compile(
    r"/etc/(machine-id|\.pwd\.lock|\.updated|ld\.so\.cache)|/var/lib/(systemd|private|dbus).*|.*/journal/.*"
)


def files(host: Host) -> set[str]:
    """Return the names of all files in the places where an installation could leave some."""
    listing = host.run(["find", *PLACES, "-not", "-type", "d"], check=False).stdout.splitlines()
    return {name for name in listing if not NOT_OURS.fullmatch(name)}


def state(host: Host) -> tuple[str, ...]:
    """Return what a refused upgrade must not change."""
    digest = "find /opt/echod /etc/systemd/system /usr/local/bin -type f -exec md5sum {} + | sort | md5sum"
    return (
        host.run(["sh", "-c", digest]).stdout,
        host.run(["ls", "-R", "/opt/echod", "/etc/systemd/system", "/usr/local/bin"]).stdout,
        host.run(["readlink", CURRENT]).stdout,
        host.show("MainPID"),
        host.read(CONFIG),
    )


@pytest.mark.parametrize("mode", list(Mode))
def test_one_command_makes_it_serve_and_one_takes_it_away(host: Host, release: Release, mode: Mode) -> None:
    """On a clean host without a network, from wheels alone; the config outlives it, and with --purge nothing does."""
    host.run(["ip", "link", "set", "lo", "down"])
    before = files(host)
    release.bring(host)
    printed = host.run(install_command(mode))
    assert re.fullmatch(r"echod \d+\.\d+\.\d+ is installed\n", printed.stdout)
    assert printed.stderr == ""
    assert host.serves_everything()
    assert host.show("UnitFileState") == "enabled"
    wanted = "active" if mode is Mode.ACTIVATED else "inactive"
    assert host.show("ActiveState", "echod.socket") == wanted
    assert host.run(["echod", "check"]).stdout == OK
    pages = {f"/usr/local/share/man/man{path.suffix[1:]}/{path.name}" for path in PAGES.iterdir()}
    assert set(host.run(["find", "/usr/local/share/man", "-type", "f"]).stdout.split()) == pages
    (schema,) = re.findall(r"^# yaml-language-server: \$schema=(.*)$", host.read(CONFIG), re.MULTILINE)
    assert host.read(schema) == (release.source / "config/echod.schema.json").read_text()
    host.run(["systemctl", "enable", "--quiet", "echod-metrics.socket"])
    host.run([UNINSTALL])
    assert not host.answers()
    assert files(host) == before | {CONFIG}
    for unit in ("echod.service", "echod.socket", "echod-metrics.socket"):
        assert host.show("LoadState", unit) == "not-found"
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
    host.run([UNINSTALL, "--purge"])
    assert files(host) == before


def test_installing_again_is_an_upgrade_in_place(installed: Host, release: Release, mode: Mode) -> None:
    """A second run replaces the release and leaves one. The config stays, and who has the ports."""
    release.bring(installed)
    installed.write(CONFIG, "workers: 1  # mine\n")
    before, first = installed.supervisor(), installed.run(["readlink", CURRENT]).stdout
    printed = installed.run(install_command(Mode.BOUND)).stdout
    assert "in place of" in printed
    wanted = "active" if mode is Mode.ACTIVATED else "inactive"
    assert installed.show("ActiveState", "echod.socket") == wanted
    assert installed.serves_everything()
    assert installed.supervisor() != before
    assert installed.run(["readlink", CURRENT]).stdout != first
    assert len(installed.run(["ls", "/opt/echod"]).stdout.split()) == 2
    assert installed.read(CONFIG) == "workers: 1  # mine\n"


def test_from_an_index_it_installs_as_printed_and_goes_back_from_the_socket_unit(host: Host, release: Release) -> None:
    """Without --wheels pip builds the source, with what its index has; a second command gives echod the ports."""
    release.bring(host)
    serve_index(host)
    host.run(["rm", "-r", WHEELS])
    host.run(["env", f"--chdir={SOURCE}", "packaging/install", "--socket"])
    assert host.show("ActiveState", "echod.socket") == "active"
    assert host.serves_everything()
    host.write(CONFIG, "workers: 1  # mine\n")
    host.run(["env", f"--chdir={SOURCE}", "sh", "-c", "packaging/uninstall && packaging/install"])
    assert host.show("ActiveState", "echod.socket") == "inactive"
    assert len(host.events("listener_adopted")) == len(host.events("listener_bound")) == 4
    assert host.serves_everything()
    assert host.read(CONFIG) == "workers: 1  # mine\n"
    assert len(host.workers()) == 1
    host.reboot()
    assert host.serves_everything()


def test_an_upgrade_without_a_start_leaves_what_runs_its_release(bound: Host, release: Release) -> None:
    """What runs can load more of itself, as an exporter; of the other releases the newest alone stays."""
    release.bring(bound)
    running = bound.run(["readlink", CURRENT]).stdout.strip()
    for _ in range(2):
        bound.run([*install_command(Mode.BOUND), "--no-start"])
        newest = bound.run(["readlink", CURRENT]).stdout.strip()
        there = bound.run(["ls", "/opt/echod"]).stdout.split()
        assert {f"/opt/echod/{name}" for name in there} == {CURRENT, running, newest}
    bound.configure("metrics:\n  listen: http://127.0.0.1:9007\n")
    wait_until(lambda: fetch(bound, "http://127.0.0.1:9007/readyz"), "an exporter of that release")
    bound.systemctl("restart")
    bound.run(install_command(Mode.BOUND))
    assert len(bound.run(["ls", "/opt/echod"]).stdout.split()) == 2


def test_every_user_can_run_it(bound: Host, release: Release) -> None:
    """By its name, in a shell as they log in to; whatever root's umask was, and with nothing left of an older place."""
    old = "/usr/local/sbin/echod"
    bound.run(["ln", "-s", "/opt/echod/current/bin/echod", old])
    release.bring(bound)
    bound.run(["sh", "-c", f"umask 077; {' '.join(install_command(Mode.BOUND))}"])
    assert bound.run([*AS_NOBODY, "env", "-i", "sh", "-lc", "echod ping -c 1 127.0.0.1"]).stdout
    assert old not in files(bound)
    assert bound.serves_everything()


def test_a_python_that_will_not_do_is_told_with_what_to_write(host: Host, release: Release) -> None:
    """One that is too old, and one that has no venv; PYTHON names another."""
    release.bring(host)
    for script, sentence in (
        ("exit 1", "python3 is not Python 3.11 or later; name another one: PYTHON=python3.11 packaging/install"),
        (
            'case "$2" in *venv*) exit 1 ;; esac',
            "/usr/local/bin/python3 cannot make a virtual environment; on Debian: apt-get install python3-venv",
        ),
    ):
        host.write("/usr/local/bin/python3", f"#!/bin/sh\n{script}\n", mode=0o755)
        printed = host.run(install_command(Mode.BOUND), check=False)
        assert (printed.returncode, printed.stderr) == (1, f"packaging/install: {sentence}\n")
    host.run(install_command(Mode.BOUND), environment={"PYTHON": "/usr/bin/python3"})
    assert host.serves_everything()


@pytest.mark.parametrize("mode", list(Mode))
def test_a_port_that_another_has_is_told_and_nothing_stays_failed(host: Host, release: Release, mode: Mode) -> None:
    """The installer names the journal, `systemctl status` the reason; uninstalled, the host is well."""
    release.bring(host)
    # Over TCP too: systemd lets two of its units share a UDP port.
    other = "[Socket]\nListenDatagram=0.0.0.0:7\nListenStream=0.0.0.0:7\nService=x.service\n"
    host.write("/run/systemd/system/other.socket", other)
    host.write("/run/systemd/system/x.service", "[Service]\nExecStart=/bin/sleep inf\n")
    host.run(["systemctl", "start", "other.socket"])
    printed = host.run(install_command(mode), check=False)
    assert printed.returncode == 1
    assert printed.stderr.endswith(
        "packaging/install: echod is installed, but does not start: journalctl -n 30 says why\n"
    )
    if mode is Mode.ACTIVATED:
        assert "0.0.0.0:7): Address already in use" in host.run(["journalctl", "-n", "30"]).stdout
    else:
        why = "does not start: udp://0.0.0.0:7 is in use by another process"
        wait_until(lambda: why in host.show("StatusText"), "the reason, between two attempts")
    host.run([UNINSTALL])
    assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
    host.run(["systemctl", "stop", "other.socket"])
    host.run(install_command(mode))
    assert host.serves_everything()


def test_drop_ins_of_the_operator_outlive_it_unless_they_are_purged(activated: Host, release: Release) -> None:
    """They are configuration, as the config file is. An accelerator that is switched on is gone."""
    release.bring(activated)
    units = ("echod.service", "echod.socket", ACCELERATOR)
    mine = {f"/etc/systemd/system/{unit}.d/mine.conf" for unit in units}
    activated.drop_in("[Service]\nNice=1\n", "mine.conf")
    activated.drop_in("[Socket]\nMark=1\n", "mine.conf", "echod.socket")
    activated.drop_in("[Service]\nNice=1\n", "mine.conf", ACCELERATOR)
    switch_on(activated)
    activated.run([UNINSTALL])
    assert activated.show("ActiveState", ACCELERATOR) == "inactive"
    ours = re.compile("/echod(?!-test-root)")
    assert set(filter(ours.search, files(activated))) == mine | {CONFIG}
    activated.run([UNINSTALL, "--purge"])
    assert not any(map(ours.search, files(activated)))


def test_an_upgrade_that_changes_the_socket_unit_says_so(activated: Host, release: Release) -> None:
    """The ports stay as they are, since to restart them would lose datagrams; one command later they are as shipped.

    What --accelerate still needs is named, too.
    """
    path = "/etc/systemd/system/echod.socket"
    shipped = activated.read(path)
    activated.write(path, shipped.replace("ListenNetlink=route\n", ""))
    activated.daemon_reload()
    activated.run(["systemctl", "restart", "echod.socket", "echod.service"])
    release.bring(activated)
    printed = activated.run(install_command(Mode.ACTIVATED)).stdout
    assert activated.read(path) == shipped
    assert activated.events("own_addresses_unknown")
    assert activated.serves_everything()
    command = printed.splitlines()[-1].partition("without service for a moment: ")[2]
    activated.run(["sh", "-c", command])
    assert len(activated.events("own_addresses_unknown")) == 2  # of the starts before
    assert activated.serves_everything()
    printed = activated.run([*install_command(Mode.ACTIVATED), "--accelerate"])
    assert "has changed" not in printed.stdout
    assert printed.stderr.splitlines() == [
        f"echod-accelerate.service {NOTHING_CONFIGURED}",
        "echod serves without it; when that is solved: systemctl start echod-accelerate.service",
    ]
    assert activated.show("UnitFileState", ACCELERATOR) == "enabled"


def test_an_upgrade_that_cannot_be_changes_nothing(activated: Host, release: Release) -> None:
    """With a config that the new version refuses, which is shown, or without all wheels: what runs runs on."""
    release.bring(activated)
    before = state(activated)
    activated.run(["sh", "-c", f"mv {WHEELS}/pydantic-* /root"])
    assert activated.run(install_command(Mode.ACTIVATED), check=False).returncode == 1
    assert state(activated) == before
    activated.run(["sh", "-c", f"mv /root/pydantic-* {WHEELS}"])
    activated.write(CONFIG, "workers: many\n")
    before = state(activated)
    printed = activated.run(install_command(Mode.ACTIVATED), check=False)
    assert printed.returncode == 1
    assert f"{CONFIG}:1:10: error: workers" in printed.stdout
    assert "nothing was changed" in printed.stderr
    assert state(activated) == before
    assert activated.serves_everything()


def test_only_root_installs(bound: Host, release: Release) -> None:
    """The message for another user comes at once."""
    bound.copy(release.source, "/opt/source")
    for script in ("install", "uninstall"):
        printed = bound.run([*AS_NOBODY, f"/opt/source/packaging/{script}"], check=False)
        assert (printed.returncode, printed.stderr) == (1, f"packaging/{script}: must be run as root\n")
