"""`systemctl reload echod` returns when the reload is done, fails loudly where the file is wrong, and loses nothing."""

from support.system.installation import Mode
from support.system.operating import CONFIG, Host
from support.waiting import wait_until

TWO_MISTAKES = "workers: many\ntcp:\n  max_conections: 10\n"


def test_a_good_file_serves_when_the_reload_returns(installed: Host, mode: Mode) -> None:
    """As soon as systemctl reload has returned, with 0, the new workers serve, under the old supervisor."""
    before, pids = installed.supervisor(), installed.workers()
    default = installed.read(CONFIG)
    installed.configure(default.replace("workers: auto", "workers: 3"))
    assert len(installed.workers() - pids) == 3
    assert (installed.show("ActiveState"), installed.supervisor()) == ("active", before)
    (entry,) = installed.events("reloaded")
    assert "workers" in entry["ECHOD_CHANGED"]
    assert installed.serves_everything()
    if mode is Mode.BOUND:
        installed.configure(default.replace("listeners:", "listeners:\n  - udp://0.0.0.0:7007 #", 1))
        assert installed.ask(port=7007) == b"hello"
        assert installed.serves_everything()
        installed.configure("listeners: ['udp://0.0.0.0:7007']\n")
        assert installed.ask(port=7007) == b"hello"
        assert not installed.answers()


def test_a_bad_file_changes_nothing_and_is_told_everywhere(installed: Host) -> None:
    """The old config goes on; systemctl fails, StatusText has the reason, and the journal has one entry per mistake."""
    before, pids = installed.supervisor(), installed.workers()
    installed.write(CONFIG, TWO_MISTAKES)
    lines: list[str] = []

    def shown() -> bool:
        """Reload until the line is seen: the one that follows may take its place at once."""
        assert installed.systemctl("reload", check=False) != 0
        lines.append(installed.show("StatusText"))
        return f"reload REJECTED; the previous config stays in force: {CONFIG}:1:10" in lines[-1]

    wait_until(shown, "the status line has the reason")
    entries = installed.journal("-u", "echod", "ECHOD_EVENT=reload_rejected")
    assert [entry["ECHOD_KEY"] for entry in entries] == ["workers", "tcp.max_conections"] * len(lines)
    assert [entry["PRIORITY"] for entry in entries] == ["3", "3"] * len(lines)
    assert [entry["ECHOD_FILE_LINE"] for entry in entries] == ["1", "3"] * len(lines)
    # Whoever only reads the unit's log sees what `echod reload` printed, too.
    printed = [entry["MESSAGE"] for entry in installed.journal("-u", "echod", "_COMM=echod")]
    assert any("max_conections" in line for line in printed)
    assert installed.show("ActiveState") == "active"
    assert (installed.supervisor(), installed.workers()) == (before, pids)
    assert installed.serves_everything()
    wait_until(lambda: "was rejected, see the journal" in installed.show("StatusText"), "the status line")
    installed.configure("workers: 1\n")
    assert "rejected" not in installed.show("StatusText")
    assert len(installed.workers()) == 1


def test_a_port_that_cannot_be_had_rejects_the_reload(installed: Host, mode: Mode) -> None:
    """What is no mistake in the file rejects it too: a port that another has, or that belongs into the socket unit."""
    installed.write("/etc/systemd/system/other.socket", "[Socket]\nListenDatagram=0.0.0.0:7007\nService=x.service\n")
    installed.write("/etc/systemd/system/x.service", "[Service]\nExecStart=/bin/sleep inf\n")
    installed.systemctl("start", "other.socket")
    pids = installed.workers()
    installed.write(CONFIG, "listeners: ['udp://0.0.0.0:7', 'udp://0.0.0.0:7007']\n")
    assert installed.systemctl("reload", check=False) != 0
    (entry,) = installed.events("reload_rejected")
    hint = {Mode.BOUND: "is in use by another process", Mode.ACTIVATED: "belongs into the .socket unit"}
    assert f"udp://0.0.0.0:7007 {'' if mode is Mode.BOUND else 'may not be opened'}" in entry["MESSAGE"]
    assert hint[mode] in entry["MESSAGE"]
    assert installed.workers() == pids
    assert installed.serves_everything()


def test_a_stop_while_a_reload_is_under_way_is_a_clean_stop(bound: Host) -> None:
    """Wherever in the reload it comes, the unit is inactive afterwards, not failed, and starts again."""
    for moment in range(20, 200, 20):
        script = f"systemctl reload echod & sleep {moment / 1000}; systemctl stop echod; wait"
        bound.run(["sh", "-c", script])
        assert (bound.show("ActiveState"), bound.show("Result")) == ("inactive", "success"), f"after {moment} ms"
        bound.systemctl("start")
    assert bound.serves_everything()


def test_a_hangup_in_the_first_instant_of_a_start_does_not_end_it(bound: Host) -> None:
    """Sent as soon as the process is echod's, before any of its code has run, SIGHUP and SIGUSR1 leave it starting."""
    script = (
        "systemctl start --no-block echod; "
        'until pid=$(systemctl show -P MainPID echod) && [ "$(cat /proc/$pid/comm)" = echod ]; do :; done; '
        "kill -HUP $pid; kill -USR1 $pid; echo $pid"
    )
    for _ in range(5):
        bound.systemctl("stop")
        pid = int(bound.run(["sh", "-c", script]).stdout)
        bound.systemctl("start")  # returns when the start under way is done
        assert (bound.show("NRestarts"), bound.supervisor()) == ("0", pid)
    assert bound.serves_everything()


def test_a_status_that_somebody_removed_is_no_obstacle(installed: Host) -> None:
    """Systemd names the process (MAINPID), and echod writes its status again."""
    installed.run(["rm", "/run/echod/status.json"])
    installed.systemctl("reload")
    assert len(installed.events("reloaded")) == 1
    assert installed.serves_everything()
