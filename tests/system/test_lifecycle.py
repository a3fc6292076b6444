"""An operator's day, with echod's own ports and with those of the socket unit: start, stop, restart, boot, kill."""

import pytest
from support.system.host import Host
from support.system.installation import Mode
from support.system.operating import (
    BACK_SECONDS,
    CONFIG,
    add_address,
    answers,
    await_answer,
    await_event,
    drop_in,
    kill,
    serves_everything,
    show,
    supervisor,
    systemctl,
    workers,
)
from support.waiting import wait_until

WATCHDOG_SECONDS = 2
NOT_RUNNING = 3  # as the LSB has it


def restarts(host: Host) -> int:
    """Return how often systemd has restarted echod by itself."""
    return int(show(host, "NRestarts"))


def test_it_starts_stops_and_restarts(installed: Host, mode: Mode) -> None:
    """Each start serves everything at once, a stop is clean and final, and a restart makes a new process."""
    assert serves_everything(installed)
    before = supervisor(installed)
    systemctl(installed, "restart")
    assert serves_everything(installed)
    assert supervisor(installed) != before
    systemctl(installed, "stop")
    assert (show(installed, "ActiveState"), show(installed, "Result")) == ("inactive", "success")
    assert workers(installed) == set()
    for how in ([], ["--check"], ["--json"]):
        assert installed.run(["echod", "status", *how], check=False).returncode == NOT_RUNNING
    if mode is Mode.BOUND:
        assert not answers(installed)
    systemctl(installed, "start")
    assert serves_everything(installed)
    assert len(await_event(installed, "stopped", 2)) == 2
    assert restarts(installed) == 0


def test_it_is_back_after_a_reboot(installed: Host) -> None:
    """The installation has enabled it: whoever boots the host needs to do nothing."""
    boot = installed.read("/proc/sys/kernel/random/boot_id")
    installed.reboot()
    assert installed.read("/proc/sys/kernel/random/boot_id") != boot
    assert show(installed, "ActiveState") == "active"
    assert serves_everything(installed)


def test_it_comes_up_with_the_network(bound: Host) -> None:
    """At boot, the wildcard is served before any address is there, and an address that comes is answered."""
    for address in (f"{bound.address}/24", f"{bound.address6}/64"):
        bound.run(["ip", "address", "del", address, "dev", "eth0"])
    systemctl(bound, "restart")
    assert not answers(bound)
    add_address(bound, f"{bound.address}/24")
    add_address(bound, f"{bound.address6}/64")
    assert serves_everything(bound)


@pytest.mark.parametrize("killed", [1, None])
def test_killed_workers_are_replaced(installed: Host, killed: int | None) -> None:
    """After a kill -9 of one worker or of all, everything is answered, by new workers of the same supervisor."""
    before, pids = supervisor(installed), workers(installed)
    kill(installed, "KILL", *list(pids)[:killed])
    await_answer(installed)
    wait_until(lambda: len(workers(installed)) == len(pids), "new workers", seconds=BACK_SECONDS)
    assert serves_everything(installed)
    assert (supervisor(installed), restarts(installed)) == (before, 0)


def test_a_killed_supervisor_is_restarted(installed: Host) -> None:
    """After a kill -9 of the supervisor new workers serve, and no worker of before is left."""
    pids = workers(installed)
    kill(installed, "KILL", supervisor(installed))
    # A worker may answer what is already queued for it; those of the new supervisor are the proof.
    wait_until(lambda: len(workers(installed) - pids) == len(pids), "new workers", seconds=BACK_SECONDS)
    await_answer(installed)
    assert serves_everything(installed)
    assert not workers(installed) & pids
    assert restarts(installed) == 1


def test_the_watchdog_restarts_a_supervisor_that_hangs(installed: Host) -> None:
    """A stopped supervisor gets SIGABRT after WatchdogSec; the journal has its stack, and the next one serves."""
    drop_in(installed, f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\n")
    systemctl(installed, "restart")
    before = supervisor(installed)
    kill(installed, "STOP", before)
    wait_until(lambda: restarts(installed) == 1 and supervisor(installed) not in {0, before}, "a restart", seconds=10)
    await_answer(installed)
    assert serves_everything(installed)
    stack = "\n".join(entry["MESSAGE"] for entry in installed.journal("--unit=echod", f"_PID={before}"))
    assert "Fatal Python error: Aborted" in stack
    assert 'supervisor.py", line' in stack
    assert "in run" in stack


def test_a_worker_that_hangs_is_replaced_before_the_watchdog_strikes(bound: Host) -> None:
    """A stopped worker is found, killed and replaced by its supervisor, which systemd then has no need to restart."""
    before, pids = supervisor(bound), workers(bound)
    kill(bound, "STOP", min(pids))
    await_event(bound, "worker_stuck")
    wait_until(lambda: len(workers(bound) - pids) == 1, "a new worker", seconds=BACK_SECONDS)
    assert serves_everything(bound)
    assert (supervisor(bound), restarts(bound)) == (before, 0)


def test_a_bad_file_fails_the_start_and_says_why(installed: Host) -> None:
    """The unit is failed with exit status 78, no restart is tried; systemctl status and journal show each mistake."""
    installed.write(CONFIG, "workers: many\nlisteners: [udp://0.0.0.0:99999]\n")
    assert systemctl(installed, "restart", check=False) != 0
    assert (show(installed, "ActiveState"), show(installed, "ExecMainStatus")) == ("failed", "78")
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
    systemctl(installed, "start")
    assert serves_everything(installed)
