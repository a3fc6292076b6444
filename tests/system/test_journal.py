"""journald, as an operator reads it, and as it fails: echod's entries are whole, and echod never waits for it."""

import re

from support.system.operating import CONFIG, Host
from support.waiting import wait_until

# Its sockets would start it again at once.
JOURNALD = (
    "systemd-journald-dev-log.socket",
    "systemd-journald-audit.socket",
    "systemd-journald.socket",
    "systemd-journald.service",
)
MANY = 300  # calls for the counters, four entries each: more than any socket of journald's holds
PRIORITIES = {"3", "4", "6"}


def own(host: Host, *matches: str) -> list[dict[str, str]]:
    """Return the entries that echod itself made, without those of systemd about it."""
    return host.journal("SYSLOG_IDENTIFIER=echod", *matches)


def log_much(host: Host, pid: int) -> None:
    """Let echod log its counters again and again, each time when it has logged the last."""
    host.run(["sh", "-c", f"for i in $(seq {MANY}); do kill -USR1 {pid}; sleep 0.005; done"])


def test_every_entry_is_whole(installed: Host) -> None:
    """Each entry has its unit, priority, identifier, event, and place in the code."""
    installed.kill("KILL", min(installed.workers()))
    installed.await_event("worker_started", 3)
    installed.kill("USR1", installed.supervisor())
    installed.await_event("counters", 4)
    installed.write(CONFIG, "workers: many\n")
    installed.systemctl("reload", check=False)
    installed.systemctl("stop")
    entries = own(installed, "_TRANSPORT=journal")
    assert {entry["ECHOD_EVENT"] for entry in entries} >= {
        "starting",
        "ready",
        "worker_started",
        "worker_exited",
        "counters",
        "reloading",
        "reload_rejected",
        "draining",
        "stopped",
    }
    for entry in entries:
        assert entry["_SYSTEMD_UNIT"] == "echod.service"
        assert entry["PRIORITY"] in PRIORITIES
        assert re.fullmatch(r"[a-z_]+", entry["ECHOD_EVENT"])
        assert entry["CODE_FILE"].endswith(".py")
        assert int(entry["CODE_LINE"]) > 0
        assert entry["CODE_FUNC"]
        assert entry["MESSAGE"].isprintable()


def test_an_entry_of_any_size_is_whole_and_the_catalogue_explains_it(installed: Host) -> None:
    """Entries come whole: journald takes one of 3 MB and one of several lines; `journalctl -x` explains an event."""
    installed.kill("KILL", min(installed.workers()))
    installed.await_event("worker_exited")
    explained = installed.run(["journalctl", "-x", "-u", "echod", "ECHOD_EVENT=worker_exited"]).stdout
    assert "Subject: A worker of echod has exited" in explained
    assert "killed by SIGKILL.\n" in explained
    script = (
        "from echod.linux.journal import Journal; journal = Journal('echod')\n"
        "print(journal.send({'MESSAGE': 'x' * 3_000_000}), journal.send({'MESSAGE': 'one\\ntwo'}))"
    )
    assert installed.run(["/opt/echod/current/bin/python", "-c", script]).stdout == "True True\n"
    wait_until(lambda: own(installed, "MESSAGE=one\ntwo"), "the second entry is in the journal")
    assert [len(entry["MESSAGE"]) for entry in own(installed, "MESSAGE=one\ntwo")] == [7]
    lengths = installed.run(["sh", "-c", "journalctl -t echod -o cat --all | wc --max-line-length"]).stdout
    assert int(lengths) == 3_000_000


def test_warnings_are_found_by_priority(bound: Host) -> None:
    """`journalctl -t echod -p warning` has what an operator should look at, such as a worker's death, and no more."""
    before = bound.journal("-t", "echod", "-p", "warning")
    assert [entry["ECHOD_EVENT"] for entry in before] == []
    pid = min(bound.workers())
    bound.kill("KILL", pid)
    bound.await_event("worker_exited")
    entry, *more = bound.journal("-t", "echod", "-p", "warning")[len(before) :]
    assert more == []
    assert (entry["ECHOD_EVENT"], entry["ECHOD_PID"], entry["PRIORITY"]) == ("worker_exited", str(pid), "4")
    assert "killed by SIGKILL" in entry["MESSAGE"]


def test_a_restarted_journald_is_found_again(bound: Host) -> None:
    """After a restart of journald the same processes log on, through the journal's own protocol."""
    pid = bound.supervisor()
    bound.systemctl("restart", "systemd-journald.service")
    bound.kill("USR1", pid)
    assert {entry["_PID"] for entry in bound.await_event("counters", 4)} == {str(pid)}
    assert bound.serves_everything()


def test_echod_serves_without_a_journald(activated: Host) -> None:
    """While journald is stopped echod serves, replaces a worker, reloads; then it logs, and counts what is missing."""
    pid, pids = activated.supervisor(), activated.workers()
    activated.systemctl("stop", *JOURNALD)
    log_much(activated, pid)
    activated.kill("KILL", min(pids))
    wait_until(lambda: len(activated.workers() - pids) == 1, "a new worker")
    activated.systemctl("reload")
    assert activated.serves_everything()
    activated.systemctl("start", *JOURNALD)
    activated.kill("USR1", pid)
    entries = activated.await_event("counters", 4)
    assert int(entries[0]["ECHOD_LOST_ENTRIES"]) >= MANY
    assert [entry for entry in entries[1:] if "ECHOD_LOST_ENTRIES" in entry] == []
    assert (activated.supervisor(), activated.show("NRestarts")) == (pid, "0")


def test_a_journald_that_hangs_blocks_nobody(activated: Host) -> None:
    """While journald is stopped in its tracks and its queue is full, echod answers and minds its workers."""
    pid, pids = activated.supervisor(), activated.workers()
    journald = int(activated.show("MainPID", "systemd-journald.service"))
    activated.kill("STOP", journald)
    log_much(activated, pid)
    assert activated.serves_everything()
    activated.kill("KILL", min(pids))
    wait_until(lambda: len(activated.workers() - pids) == 1, "a new worker")
    activated.kill("CONT", journald)

    def reported() -> bool:
        """Let it log once more: the queue may still have been full the last time."""
        activated.kill("USR1", pid)
        return any("ECHOD_LOST_ENTRIES" in entry for entry in own(activated))

    wait_until(reported, "the count of lost entries")
    assert activated.ask() == b"hello"
    assert (activated.supervisor(), activated.show("NRestarts")) == (pid, "0")


def test_it_starts_without_a_journald(bound: Host) -> None:
    """A restart while journald is stopped serves all the same, and logs as soon as journald is there."""
    bound.systemctl("stop", *JOURNALD)
    bound.systemctl("restart")
    assert bound.serves_everything()
    bound.systemctl("start", *JOURNALD)
    pid = bound.supervisor()
    bound.kill("USR1", pid)
    entries = bound.await_event("counters", 4)
    assert {entry["_PID"] for entry in entries} == {str(pid)}
    assert int(entries[0]["ECHOD_LOST_ENTRIES"]) >= 1
    bound.systemctl("restart")
    assert bound.await_event("ready")
