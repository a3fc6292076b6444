"""`systemctl reload echod` returns when the reload is done, fails loudly where the file is wrong, and loses nothing."""

from support.system.host import Host
from support.system.installation import Mode
from support.system.operating import CONFIG, answers, events, serves_everything, show, supervisor, systemctl, workers
from support.waiting import wait_until

TWO_MISTAKES = "workers: many\ntcp:\n  max_conections: 10\n"


def test_a_good_file_serves_when_the_reload_returns(installed: Host, mode: Mode) -> None:
    """As soon as systemctl reload has returned, with 0, the new workers serve, under the old supervisor."""
    before, pids = supervisor(installed), workers(installed)
    default = installed.read(CONFIG)
    installed.write(CONFIG, default.replace("workers: auto", "workers: 3"))
    systemctl(installed, "reload")
    assert len(workers(installed) - pids) == 3
    assert (show(installed, "ActiveState"), supervisor(installed)) == ("active", before)
    (entry,) = events(installed, "reloaded")
    assert "workers" in entry["ECHOD_CHANGED"]
    assert serves_everything(installed)
    if mode is Mode.BOUND:
        installed.write(CONFIG, default.replace("listeners:", "listeners:\n  - udp://0.0.0.0:7007 #", 1))
        systemctl(installed, "reload")
        assert answers(installed, port=7007)
        assert serves_everything(installed)
        installed.write(CONFIG, "listeners: ['udp://0.0.0.0:7007']\n")
        systemctl(installed, "reload")
        assert answers(installed, port=7007)
        assert not answers(installed)


def test_a_bad_file_changes_nothing_and_is_told_everywhere(installed: Host) -> None:
    """The old config goes on; systemctl fails, StatusText says why, and the journal has one entry per mistake."""
    before, pids = supervisor(installed), workers(installed)
    installed.write(CONFIG, TWO_MISTAKES)
    assert systemctl(installed, "reload", check=False) != 0
    assert "reload REJECTED; the previous config stays in force: " in show(installed, "StatusText")
    assert f"{CONFIG}:1:10" in show(installed, "StatusText")
    entries = installed.journal("-u", "echod", "ECHOD_EVENT=reload_rejected")
    assert [entry["ECHOD_KEY"] for entry in entries] == ["workers", "tcp.max_conections"]
    assert [entry["PRIORITY"] for entry in entries] == ["3", "3"]
    assert [entry["ECHOD_FILE_LINE"] for entry in entries] == ["1", "3"]
    # Whoever only reads the unit's log sees what `echod reload` said, too.
    printed = [entry["MESSAGE"] for entry in installed.journal("-u", "echod", "_COMM=echod")]
    assert any("max_conections" in line for line in printed)
    assert show(installed, "ActiveState") == "active"
    assert (supervisor(installed), workers(installed)) == (before, pids)
    assert serves_everything(installed)
    wait_until(lambda: "was rejected, see the journal" in show(installed, "StatusText"), "the status line")
    installed.write(CONFIG, "workers: 1\n")
    systemctl(installed, "reload")
    assert "rejected" not in show(installed, "StatusText")
    assert len(workers(installed)) == 1


def test_a_port_that_cannot_be_had_rejects_the_reload(installed: Host, mode: Mode) -> None:
    """What is no mistake in the file rejects it too: a port that another has, or that belongs into the socket unit."""
    installed.write("/etc/systemd/system/other.socket", "[Socket]\nListenDatagram=0.0.0.0:7007\nService=x.service\n")
    installed.write("/etc/systemd/system/x.service", "[Service]\nExecStart=/bin/sleep inf\n")
    systemctl(installed, "start", "other.socket")
    pids = workers(installed)
    installed.write(CONFIG, "listeners: ['udp://0.0.0.0:7', 'udp://0.0.0.0:7007']\n")
    assert systemctl(installed, "reload", check=False) != 0
    (entry,) = events(installed, "reload_rejected")
    hint = {Mode.BOUND: "is in use by another process", Mode.ACTIVATED: "belongs into the .socket unit"}
    assert f"udp://0.0.0.0:7007 {'' if mode is Mode.BOUND else 'may not be opened'}" in entry["MESSAGE"]
    assert hint[mode] in entry["MESSAGE"]
    assert workers(installed) == pids
    assert serves_everything(installed)


def test_a_stop_while_a_reload_is_under_way_is_a_clean_stop(bound: Host) -> None:
    """Wherever in the reload it comes, the unit is inactive afterwards, not failed, and starts again."""
    for moment in range(20, 200, 20):
        script = f"systemctl reload echod & sleep {moment / 1000}; systemctl stop echod; wait"
        bound.run(["sh", "-c", script])
        assert (show(bound, "ActiveState"), show(bound, "Result")) == ("inactive", "success"), f"after {moment} ms"
        systemctl(bound, "start")
    assert serves_everything(bound)


def test_a_hangup_in_the_first_instant_of_a_start_does_not_end_it(bound: Host) -> None:
    """Sent as soon as the process is echod's, before any of its code has run, SIGHUP and SIGUSR1 leave it starting."""
    script = (
        "systemctl start --no-block echod; "
        'until pid=$(systemctl show -P MainPID echod) && [ "$(cat /proc/$pid/comm)" = echod ]; do :; done; '
        "kill -HUP $pid; kill -USR1 $pid; echo $pid"
    )
    for _ in range(5):
        systemctl(bound, "stop")
        pid = int(bound.run(["sh", "-c", script]).stdout)
        systemctl(bound, "start")  # returns when the start under way is done
        assert (show(bound, "NRestarts"), supervisor(bound)) == ("0", pid)
    assert serves_everything(bound)


def test_a_status_that_somebody_removed_is_no_obstacle(installed: Host) -> None:
    """Systemd says which process it is (MAINPID), and echod writes its status again."""
    installed.run(["rm", "/run/echod/status.json"])
    systemctl(installed, "reload")
    assert len(events(installed, "reloaded")) == 1
    assert serves_everything(installed)
