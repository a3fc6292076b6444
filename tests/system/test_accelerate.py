"""echod-accelerate.service: the kernel repeats replies, in a sandbox, and follows echod.service."""

import re

import pytest
from support.system.acceleration import (
    ACCELERATOR,
    INTERFACES,
    NOTHING_CONFIGURED,
    await_kernel,
    events,
    process,
    state,
    switch_on,
)
from support.system.installation import Mode, Release, fetch, install_command
from support.system.load import loaded
from support.system.operating import BACK_SECONDS, CONFIG, Host
from support.waiting import wait_until

SECONDS = 10.0
RELOADS, RESTARTS = 3, 3
MOST_EXPOSED = 1.6
NET_ADMIN, BPF = 1 << 12, 1 << 39  # linux/capability.h


@pytest.mark.parametrize("debian", ["trixie"], indirect=True, scope="session")
def test_the_kernel_replies_and_nothing_is_lost(host: Host, release: Release) -> None:
    """Under load from outside: reloads, restarts and an upgrade of echod; the accelerator killed, and stopped.

    A restart leaves it running, an upgrade restarts it.
    """
    # What the unit has holds two seconds of this load: beside tests on every CPU a restart may take longer.
    host.drop_in("[Socket]\nReceiveBuffer=64M\n", unit="echod.socket")
    release.bring(host)
    host.write(CONFIG, INTERFACES)
    host.run([*install_command(Mode.ACTIVATED), "--accelerate"])
    with loaded(host, SECONDS, kept=0.5):
        await_kernel(host)
        for number in range(RELOADS):
            host.configure(f"{INTERFACES}workers: {1 + number % 2}\n")
        first = process(host)
        for _ in range(RESTARTS):
            host.systemctl("restart")
        assert process(host) == first
        await_kernel(host)
        host.run(install_command(Mode.ACTIVATED))
        second = process(host)
        assert second not in {0, first}
        await_kernel(host)
        host.kill("KILL", second)
        wait_until(lambda: state(host) == "active" and process(host) != second, "another", seconds=BACK_SECONDS)
        await_kernel(host)
        host.systemctl("stop", ACCELERATOR)
        assert host.ask() == b"hello"
    assert state(host) == "inactive"


def test_it_follows_the_service(activated: Host) -> None:
    """It stops and starts with echod, reloads with it, and outlives its restart and its death."""
    switch_on(activated)
    first = process(activated)
    activated.systemctl("restart")
    activated.configure(f"{INTERFACES}limits: {{slip: 3}}\n")
    wait_until(lambda: events(activated, "reloaded"), "it has read its config, too")
    activated.kill("KILL", activated.supervisor())
    wait_until(
        lambda: activated.show("NRestarts") == "1" and activated.workers(), "echod is back", seconds=BACK_SECONDS
    )
    activated.await_answer()
    assert (state(activated), process(activated)) == ("active", first)
    activated.systemctl("stop")
    wait_until(lambda: state(activated) == "inactive", "it has stopped, too")
    assert activated.ask() == b"hello"  # which starts echod
    wait_until(lambda: state(activated) == "active", "it has started, too", seconds=BACK_SECONDS)
    await_kernel(activated)
    activated.reboot()
    wait_until(lambda: state(activated) == "active", "it is there after a boot", seconds=BACK_SECONDS)
    await_kernel(activated)


def test_it_stops_with_a_service_that_cannot_start(activated: Host) -> None:
    """With a mistake in the config nothing replies: neither echod nor, for the rest of a path's time, the kernel."""
    switch_on(activated)
    await_kernel(activated)
    activated.write(CONFIG, f"{INTERFACES}workers: many\n")
    assert activated.systemctl("restart", check=False) != 0
    wait_until(lambda: state(activated) == "inactive", "it has stopped, too")


@pytest.mark.parametrize("debian", ["bookworm"], indirect=True, scope="session")
def test_the_watchdog_replaces_one_that_hangs(activated: Host) -> None:
    """One that stands still is ended, another takes its place, and the kernel replies again."""
    activated.drop_in("[Service]\nWatchdogSec=2\n", unit=ACCELERATOR)
    switch_on(activated)
    hung = process(activated)
    activated.kill("STOP", hung)
    wait_until(lambda: state(activated) == "active" and process(activated) != hung, "another", seconds=BACK_SECONDS)
    await_kernel(activated)


def test_the_sandbox_leaves_it_two_capabilities(activated: Host) -> None:
    """Of the systemd that scores it the exposure is at most 1.6; verify and the manager report nothing."""
    switch_on(activated)
    status = dict(line.split(":\t", 1) for line in activated.read(f"/proc/{process(activated)}/status").splitlines())
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {NET_ADMIN | BPF}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split()
    assert activated.show("WatchdogUSec", ACCELERATOR) == "20s"
    report = activated.run(["systemd-analyze", "security", "--no-pager", ACCELERATOR]).stdout
    (level,) = re.findall(rf"Overall exposure level for {ACCELERATOR}: ([\d.]+)", report)
    assert float(level) <= MOST_EXPOSED, report


@pytest.mark.parametrize("debian", ["trixie"], indirect=True, scope="session")
def test_the_exporter_reads_its_status_from_its_own_sandbox(bound: Host) -> None:
    """That of echod.service hides the processes of other users."""
    switch_on(bound)
    bound.configure(f"{INTERFACES}metrics:\n  listen: http://127.0.0.1:9007\n")
    await_kernel(bound)
    attached = 'echod_kernel_attached{driver="tcx",interface="eth0"} 1.0'
    wait_until(lambda: attached in fetch(bound, "http://127.0.0.1:9007/metrics"), "the metrics have it")


def test_without_interfaces_it_says_what_to_write_and_rests(activated: Host) -> None:
    """The sentence is in `systemctl status`, and no restart follows; with interfaces it starts."""
    assert activated.systemctl("start", ACCELERATOR, check=False) != 0
    shown = activated.run(["systemctl", "status", "--no-pager", "echod-accelerate"], check=False).stdout
    assert f'Status: "{NOTHING_CONFIGURED}"' in shown
    assert "status=78/CONFIG" in shown
    assert (state(activated), activated.show("NRestarts", ACCELERATOR)) == ("failed", "0")
    assert activated.serves_everything()
    switch_on(activated)
    await_kernel(activated)
