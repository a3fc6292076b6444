"""An operator's day, with echod's own ports and with those of the socket unit: start, stop, restart, boot, kill."""

import pytest
from support.system.installation import Mode
from support.system.operating import BACK_SECONDS, CONFIG, Host
from support.waiting import wait_until

WATCHDOG_SECONDS = 2
NOT_RUNNING = 3  # as the LSB has it


def restarts(host: Host) -> int:
    """Return how often systemd has restarted echod by itself."""
    return int(host.show("NRestarts"))


def test_it_starts_stops_and_restarts(installed: Host, mode: Mode) -> None:
    """Each start serves everything at once, a stop is clean and final, and a restart makes a new process."""
    assert installed.serves_everything()
    before = installed.supervisor()
    installed.systemctl("restart")
    assert installed.serves_everything()
    assert installed.supervisor() != before
    installed.systemctl("stop")
    assert (installed.show("ActiveState"), installed.show("Result")) == ("inactive", "success")
    assert installed.workers() == set()
    for how in ([], ["--check"], ["--json"]):
        assert installed.run(["echod", "status", *how], check=False).returncode == NOT_RUNNING
    if mode is Mode.BOUND:
        assert not installed.answers()
    installed.systemctl("start")
    assert installed.serves_everything()
    assert len(installed.await_event("stopped", 2)) == 2
    assert restarts(installed) == 0


def test_it_is_back_after_a_reboot(installed: Host) -> None:
    """The installation has enabled it: whoever boots the host needs to do nothing."""
    boot = installed.read("/proc/sys/kernel/random/boot_id")
    installed.reboot()
    assert installed.read("/proc/sys/kernel/random/boot_id") != boot
    assert installed.show("ActiveState") == "active"
    assert installed.serves_everything()


def test_it_comes_up_with_the_network(bound: Host) -> None:
    """At boot, the wildcard is served before any address is there, and an address that comes is answered."""
    for address in (f"{bound.address}/24", f"{bound.address6}/64"):
        bound.run(["ip", "address", "del", address, "dev", "eth0"])
    bound.systemctl("restart")
    assert not bound.answers()
    bound.add_address(f"{bound.address}/24")
    bound.add_address(f"{bound.address6}/64")
    assert bound.serves_everything()


@pytest.mark.parametrize("killed", [1, None])
def test_killed_workers_are_replaced(installed: Host, killed: int | None) -> None:
    """After a kill -9 of one worker or of all, everything is answered, by new workers of the same supervisor."""
    before, pids = installed.supervisor(), installed.workers()
    installed.kill("KILL", *list(pids)[:killed])
    installed.await_answer()
    wait_until(lambda: len(installed.workers()) == len(pids), "new workers", seconds=BACK_SECONDS)
    assert installed.serves_everything()
    assert (installed.supervisor(), restarts(installed)) == (before, 0)


def test_a_killed_supervisor_is_restarted(installed: Host) -> None:
    """After a kill -9 of the supervisor new workers serve, and no worker of before is left."""
    pids = installed.workers()
    installed.kill("KILL", installed.supervisor())
    # A worker may answer what is already queued for it; those of the new supervisor are the proof.
    wait_until(lambda: len(installed.workers() - pids) == len(pids), "new workers", seconds=BACK_SECONDS)
    installed.await_answer()
    assert installed.serves_everything()
    assert not installed.workers() & pids
    assert restarts(installed) == 1


def test_the_watchdog_restarts_a_supervisor_that_hangs(installed: Host) -> None:
    """A stopped supervisor gets SIGABRT after WatchdogSec; the journal has its stack, and the next one serves."""
    installed.drop_in(f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\n")
    installed.systemctl("restart")
    before = installed.supervisor()
    installed.kill("STOP", before)
    wait_until(
        lambda: restarts(installed) == 1 and installed.supervisor() not in {0, before},
        "a restart",
        seconds=BACK_SECONDS,
    )
    installed.await_answer()
    assert installed.serves_everything()
    stack = "\n".join(entry["MESSAGE"] for entry in installed.journal("--unit=echod", f"_PID={before}"))
    assert "Fatal Python error: Aborted" in stack
    assert 'supervisor.py", line' in stack
    assert "in run" in stack


def test_a_worker_that_hangs_is_replaced_before_the_watchdog_strikes(bound: Host) -> None:
    """A stopped worker is found, killed and replaced by its supervisor, which systemd then has no need to restart."""
    before, pids = bound.supervisor(), bound.workers()
    bound.kill("STOP", min(pids))
    bound.await_event("worker_stuck")
    wait_until(lambda: len(bound.workers() - pids) == 1, "a new worker", seconds=BACK_SECONDS)
    assert bound.serves_everything()
    assert (bound.supervisor(), restarts(bound)) == (before, 0)


def test_a_bad_file_fails_the_start_and_says_why(installed: Host) -> None:
    """The unit is failed with exit status 78, no restart is tried; systemctl status and journal show each mistake."""
    installed.write(CONFIG, "workers: many\nlisteners: [udp://0.0.0.0:99999]\n")
    assert installed.systemctl("restart", check=False) != 0
    assert (installed.show("ActiveState"), installed.show("ExecMainStatus")) == ("failed", "78")
    assert restarts(installed) == 0
    status = installed.run(["systemctl", "status", "--no-pager", "--lines=20", "echod"], check=False).stdout
    assert f"{CONFIG}:1:" in status
    assert f"{CONFIG}:2:" in status
    entries = [entry for entry in installed.journal("-u", "echod", "-p", "err") if entry["_TRANSPORT"] == "stdout"]
    assert {(entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"]) for entry in entries} == {("echod", "3")}
    lines = [entry["MESSAGE"] for entry in entries]
    assert lines[0].startswith(f"{CONFIG}:1:10: error: workers: ")
    assert lines[1:3] == ["workers: many", "         ^"]
    assert lines[-1] == f"{CONFIG}: 2 mistakes"
    installed.write(CONFIG, "workers: 1\n")
    installed.systemctl("start")
    assert installed.serves_everything()
