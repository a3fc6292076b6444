"""The shipped units are what systemd understands, and the sandbox they make is as tight as promised."""

import re

from support.system.host import Host
from support.system.installation import SOURCE, Mode, Release
from support.system.operating import answers, drop_in, show, supervisor, workers

from echod.supervisor.capacity import MAX_WORKERS, SPARE_PROCESSES

# The least that systemd-analyze can say of a service that binds port 7 for the world is not 0.
MOST_EXPOSED = {Mode.BOUND: 1.5, Mode.ACTIVATED: 0.3}
NET_BIND_SERVICE = 1 << 10  # linux/capability.h
UNITS = ("echod.service", "echod.socket", "echod-metrics.socket")
DROP_INS = (("socket-activated",), ("unprivileged-port",), ("socket-activated", "unprivileged-port"))


def verified(host: Host, *units: str) -> tuple[int, str]:
    """Return the status and all output of systemd-analyze verify."""
    # The host has no man(1); that the pages are there is tested in `test_install`.
    result = host.run(["systemd-analyze", "verify", "--man=no", *units], check=False)
    return result.returncode, result.stdout + result.stderr


def complaints(host: Host) -> list[str]:
    """Return what the manager has said about echod that is more than news."""
    return [entry["MESSAGE"] for entry in host.journal("_PID=1", "--priority=warning") if "echod" in str(entry)]


def test_systemd_has_nothing_to_say_about_the_units(bound: Host, release: Release) -> None:
    """Each unit verifies in silence, alone and with each drop-in; the manager that loads them is silent too."""
    for names in ((), *DROP_INS):
        bound.run(["rm", "-rf", "/etc/systemd/system/echod.service.d"])
        for name in names:
            drop_in(bound, (release.source / f"packaging/systemd/{name}.conf").read_text(), f"{name}.conf")
        for unit in UNITS:
            assert verified(bound, unit) == (0, "")
    assert complaints(bound) == []


def test_a_wrong_line_would_be_seen(bound: Host) -> None:
    """The silence above proves something: what systemd does not know is told by verify and by the manager."""
    drop_in(bound, "[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in verified(bound, "echod.service")[1]
    assert any("ProtectEverything" in complaint for complaint in complaints(bound))


def test_the_exposure_is_as_low_as_promised(standing: Host, mode: Mode) -> None:
    """systemd-analyze security finds at most 1.5, and 0.3 with socket activation, while the service serves."""
    assert answers(standing)
    report = standing.run(["systemd-analyze", "security", "--no-pager", "echod.service"]).stdout
    (level,) = re.findall(r"Overall exposure level for echod\.service: ([\d.]+)", report)
    assert float(level) <= MOST_EXPOSED[mode], report


def test_its_processes_have_no_capability_that_they_do_not_need(standing: Host, mode: Mode) -> None:
    """Bound, CAP_NET_BIND_SERVICE is all that any process could ever have; activated, nothing. None is root's."""
    for pid in (supervisor(standing), *workers(standing)):
        status = dict(line.split(":\t", 1) for line in standing.read(f"/proc/{pid}/status").splitlines())
        most = NET_BIND_SERVICE if mode is Mode.BOUND else 0
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {most}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert "0" not in status["Uid"].split()


def test_its_temporary_files_are_its_own(standing: Host, mode: Mode) -> None:
    """Implied by DynamicUser=: of what others leave in /tmp and /var/tmp echod sees nothing."""
    for place in ("/tmp", "/var/tmp"):  # noqa: S108 - the host's, and it must be that one
        standing.write(f"{place}/of-another", "")
        inside = ["nsenter", f"--target={supervisor(standing)}", "--mount", "ls", "-A", place]
        assert "of-another" not in standing.run(inside).stdout


def test_the_limits_hold_a_full_house(bound: Host) -> None:
    """64 workers and 1,024 connections fit the task and descriptor limits of the unit."""
    bound.write("/etc/echod.yaml", "workers: 64\n")
    bound.run(["systemctl", "restart", "echod"])
    assert len(workers(bound)) == 64
    assert int(show(bound, "TasksMax")) >= 2 * MAX_WORKERS + SPARE_PROCESSES  # a reload has twice the workers
    assert bound.journal("--unit=echod", "ECHOD_EVENT=descriptors_capped") == []
    assert answers(bound)


def test_ports_above_1023_need_no_capability_at_all(bound: Host, release: Release) -> None:
    """With unprivileged-port.conf echod serves port 7007, and no process of it could have any capability."""
    bound.run(["systemctl", "stop", "echod"])
    unprivileged = f"{SOURCE}/packaging/systemd/unprivileged-port.conf"
    bound.copy(release.source, SOURCE)
    bound.run(["install", "-D", "-m", "0644", unprivileged, "/etc/systemd/system/echod.service.d/x.conf"])
    bound.write("/etc/echod.yaml", "listeners: ['udp://0.0.0.0:7007', 'udp://[::]:7007', 'tcp://0.0.0.0:7007']\n")
    bound.run(["systemctl", "daemon-reload"])
    bound.run(["systemctl", "start", "echod"])
    assert answers(bound, port=7007)
    assert not answers(bound)
    assert "CapBnd:\t0000000000000000\n" in bound.read(f"/proc/{supervisor(bound)}/status")
