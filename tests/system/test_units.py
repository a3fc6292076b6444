"""The shipped units are what systemd understands, and the sandbox they make is as tight as promised."""

import re

import pytest
from support.system.installation import WHEELS, Mode, Release
from support.system.operating import Host

from echod.supervisor.capacity import MAX_WORKERS, SPARE_PROCESSES

# The least that systemd-analyze can say of a service that binds port 7 for the world is not 0.
MOST_EXPOSED = {Mode.BOUND: 1.5, Mode.ACTIVATED: 0.3}
UNITS = (
    *("echod.service", "echod.socket", "echod-metrics.socket", "echod-accelerate.service"),
    *("echod@x.service", "echod@x.socket"),
)
DROP_INS = (
    ("socket-activated",),
    ("unprivileged-port",),
    ("clock-estimate",),
    ("socket-activated", "unprivileged-port"),
)


def verified(host: Host, *units: str) -> tuple[int, str]:
    """Return the status and all output of systemd-analyze verify."""
    # The host has no man(1); that the pages are there is tested in `test_install`.
    result = host.run(["systemd-analyze", "verify", "--man=no", *units], check=False)
    return result.returncode, result.stdout + result.stderr


def complaints(host: Host) -> list[str]:
    """Return what the manager has logged about echod that is more than news."""
    return [entry["MESSAGE"] for entry in host.journal("_PID=1", "--priority=warning") if "echod" in str(entry)]


def test_systemd_has_nothing_to_say_about_the_units(bound: Host, release: Release) -> None:
    """Each unit verifies in silence, alone and with each drop-in; the manager that loads them is silent too."""
    for names in ((), *DROP_INS):
        bound.run(["rm", "-rf", "/etc/systemd/system/echod.service.d"])
        for name in names:
            bound.drop_in((release.source / f"packaging/systemd/{name}.conf").read_text(), f"{name}.conf")
        for unit in UNITS:
            assert verified(bound, unit) == (0, "")
    assert complaints(bound) == []


def test_a_wrong_line_would_be_seen(bound: Host) -> None:
    """The silence above proves something: what systemd does not know is reported by verify and by the manager."""
    bound.drop_in("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in verified(bound, "echod.service")[1]
    assert any("ProtectEverything" in complaint for complaint in complaints(bound))


def test_the_exposure_is_as_low_as_promised(standing: Host, mode: Mode) -> None:
    """systemd-analyze security finds at most 1.5, and 0.3 with socket activation, while the service serves."""
    assert standing.ask() == b"hello"
    report = standing.run(["systemd-analyze", "security", "--no-pager", "echod.service"]).stdout
    (level,) = re.findall(r"Overall exposure level for echod\.service: ([\d.]+)", report)
    assert float(level) <= MOST_EXPOSED[mode], report


def test_its_processes_have_no_capability_that_they_do_not_need(standing: Host, mode: Mode) -> None:
    """Bound, CAP_NET_BIND_SERVICE is all that any process could ever have; activated, nothing. None is root's."""
    for pid in (standing.supervisor(), *standing.workers()):
        standing.assert_unprivileged(mode, pid)


def test_the_limits_hold_a_full_house(bound: Host) -> None:
    """64 workers and 1,024 connections fit the task and descriptor limits of the unit."""
    bound.configure("workers: 64\n", "restart")
    assert len(bound.workers()) == 64
    assert int(bound.show("TasksMax")) >= 2 * MAX_WORKERS + SPARE_PROCESSES  # a reload has twice the workers
    assert bound.events("descriptors_capped") == []
    assert bound.ask() == b"hello"


def test_ports_above_1023_need_no_capability_at_all(bound: Host, release: Release) -> None:
    """With unprivileged-port.conf echod serves port 7007, and no process of it could have any capability.

    In the user namespace which that makes, the kernel reports the host's own addresses, too.
    """
    bound.drop_in((release.source / "packaging/systemd/unprivileged-port.conf").read_text())
    listeners = ["udp://0.0.0.0:7007", "udp://[::]:7007", "tcp://0.0.0.0:7007"]
    bound.configure(f"listeners: {listeners}\nlog: {{level: debug}}\n", "restart")
    assert bound.ask(port=7007) == b"hello"
    assert not bound.answers()
    assert "CapBnd:\t0000000000000000\n" in bound.read(f"/proc/{bound.supervisor()}/status")
    assert bound.events("own_addresses")
    assert bound.events("own_addresses_unknown") == []


@pytest.mark.parametrize("debian", ["bookworm"], indirect=True, scope="session")
def test_an_echod_that_pip_installed_writes_units_that_serve(host: Host, release: Release) -> None:
    """As echod(8) has it, from wheels: systemd finds no fault, and the printed commands start it."""
    release.bring(host)
    host.run(["python3", "-m", "venv", "/opt/echod-daemon"])
    pip = ["/opt/echod-daemon/bin/pip", "install", "--quiet", "--no-index", f"--find-links={WHEELS}", "echod-daemon"]
    host.run(pip)
    printed = host.run(["/opt/echod-daemon/bin/echod", "units", "--socket"]).stdout
    commands = re.findall("^  (.*)$", printed, re.MULTILINE)
    assert commands[0].startswith("sed ")
    host.run(["sh", "-ec", "\n".join(commands)])
    (schema,) = re.findall(r"^# yaml-language-server: \$schema=(.*)$", host.read("/etc/echod.yaml"), re.MULTILINE)
    assert host.read(schema) == (release.source / "config/echod.schema.json").read_text()
    for unit in UNITS:
        assert verified(host, unit) == (0, "")
    assert complaints(host) == []
    assert host.serves_everything()
    host.assert_unprivileged(Mode.ACTIVATED, host.supervisor())
    host.systemctl("reload")
    again = host.run(["/opt/echod-daemon/bin/echod", "units", "--socket"]).stdout
    commands = re.findall("^  (.*)$", again, re.MULTILINE)
    assert "wrote" not in again
    host.run(["sh", "-ec", "\n".join(commands)])
    assert host.serves_everything()
