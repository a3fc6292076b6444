"""A reload takes effect whole or not at all, and the traffic never notices."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, Serve, StartDaemon, ask, title
from support.loopback import namespace, needs_root
from support.ports import free_port
from support.processes import descriptors
from support.udp_load import UdpLoad
from support.waiting import wait_until

StartLoad = Callable[..., UdpLoad]
ATTEMPTS = 100


def udp(*ports: int, host: str = "127.0.0.1") -> list[str]:
    """Write UDP listeners as a config has them."""
    return [f"udp://{host}:{port}" for port in ports]


def wait_for_old_workers(daemon: Daemon, workers: int) -> None:
    """Wait until the workers of the last reload, so many, are the only ones."""
    wait_until(lambda: len(daemon.workers()) == workers, "the new workers alone were left")


def assert_lossless(load: UdpLoad, daemon: Daemon, port: int, *, reloads: int) -> None:
    """End the load once it has sent a hundred datagrams for each reload; hold each of them to one exact answer."""
    sent = 100 * reloads
    wait_until(lambda: daemon.counters()[udp(port)[0]]["received"] > sent, f"{sent} datagrams were sent")
    report = load.finish()
    assert not report.lost, report
    assert (report.repeated, report.wrong, report.refused) == (0, 0, 0), report


def test_a_hundred_reloads_under_load_lose_nothing(serve: Serve, udp_load: StartLoad) -> None:
    """Of 20,000 datagrams a second, each is answered once, through 100 generations; no descriptor is left behind."""
    daemon, port = serve(["udp"], workers=2)
    before = descriptors(daemon.pid)
    load = udp_load(port)
    for number in range(1, 101):
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reloaded", number)
    assert_lossless(load, daemon, port, reloads=100)
    wait_for_old_workers(daemon, 2)
    wait_until(lambda: descriptors(daemon.pid) == before, "the old generations' descriptors were closed")
    row = daemon.counters()[udp(port)[0]]
    assert row["received"] == row["replied"]
    assert row["kernel_drops"] == 0


def test_changing_listeners_and_workers_under_load_loses_nothing(serve: Serve, udp_load: StartLoad) -> None:
    """A listener that stays loses nothing while others come and go and the workers become more and fewer."""
    (daemon, port), other = serve(["udp"], workers=2), free_port()
    load = udp_load(port)
    for workers in (5, 1, 3, 2, 4, 1, 2):
        entry = daemon.reload({"listeners": udp(port, other), "workers": workers})
        assert f"+{udp(other)[0]}" in entry["changed"]
        assert ask(other) == b"hi"
        wait_for_old_workers(daemon, workers)
        entry = daemon.reload({"listeners": udp(port), "workers": workers})
        assert entry["changed"] == [f"-{udp(other)[0]}"]
        wait_for_old_workers(daemon, workers)
        with pytest.raises(ConnectionRefusedError):
            ask(other)
    assert_lossless(load, daemon, port, reloads=7)


def test_a_bad_file_is_rejected_with_each_mistake(serve: Serve) -> None:
    """Each mistake is logged with line and key; the very workers of before go on."""
    daemon, port = serve(["udp"], workers=2)
    workers = daemon.workers()
    daemon.reload(f"listeners:\n  - udp://127.0.0.1:{port}\n  - udp://localhost:7\nworker: 2\ntcp: {{max_conns: 3}}\n")
    daemon.wait_for("reload_rejected", 3)
    entries = daemon.log("reload_rejected")
    assert [(entry["file_line"], entry["key"]) for entry in entries] == [
        (3, "listeners[1]"),
        (4, "worker"),
        (5, "tcp.max_conns"),
    ]
    assert f"{daemon.config_path}:4:1: error: worker: unknown key" in entries[1]["message"]
    assert daemon.workers() == workers
    assert ask(port) == b"hi"
    daemon.config_path.unlink()
    assert "there is no such file" in daemon.reload()["message"]
    assert daemon.reload({"listeners": udp(port), "workers": 1})["changed"] == ["workers: 2 -> 1"]


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root, and setpriv to be less")
def test_a_reload_without_descriptors_is_rejected_wherever_they_end(echod: StartDaemon) -> None:
    """As a user without CAP_NET_ADMIN, with one descriptor less each time: until there is none, the service goes on."""
    port = free_port(3)
    others = port + 1
    config: dict[str, Any] = {"listeners": udp(port), "workers": 1, "log": {"format": "json"}}
    daemon = echod(config, prefix=["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"])
    used = max(int(entry.name) for entry in Path(f"/proc/{daemon.pid}/fd").iterdir())
    outcomes = []
    for limit in range(used + 20, used - 3, -1):
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
        outcomes.append(daemon.reload({**config, "listeners": udp(port, others, others + 1)})["event"])
        if outcomes[-1] == "reloaded":
            daemon.reload(config)
        assert ask(port) == b"hi"
    assert (outcomes[0], outcomes[-1]) == ("reloaded", "reload_rejected"), daemon.log("reload_rejected")
    assert daemon.stop() == 0


def test_a_new_log_level_and_format_take_effect(echod: StartDaemon) -> None:
    """`error` logs only a rejection; `console` writes lines for people; a further reload restores both."""
    port = free_port()
    config = {"listeners": udp(port), "workers": 1}
    daemon = echod(config)
    workers = daemon.workers()
    daemon.write({**config, "log": {"level": "error"}})
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.workers() and not set(workers) & set(daemon.workers()), "the worker was a new one")
    daemon.write("nonsense")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reload_rejected")
    daemon.write({**config, "log": {"format": "console"}})
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "reloaded: changed log.level: error -> info" in daemon.stderr, "the console had the entry")
    assert len(daemon.log("reloading")) == 1
    assert not daemon.log("reloaded")
    assert daemon.reload(config)["changed"] == ["log.format: console -> auto"]


def test_a_storm_of_sighups_is_coalesced(serve: Serve) -> None:
    """300 SIGHUPs make a handful of reloads; the last of them reads what the file said last."""
    daemon, port = serve(["udp"], workers=1)
    for number in range(300):
        if number == 200:
            daemon.write({"listeners": udp(port), "workers": 3})
        daemon.signal(signal.SIGHUP)
    wait_until(lambda: len(daemon.workers()) == 3, "the last config was in force")
    reloads = daemon.log("reloading")
    assert len(reloads) < 30
    wait_until(lambda: len(daemon.log("reloaded")) == len(daemon.log("reloading")), "every reload was done")
    assert ask(port) == b"hi"
    assert daemon.stop() == 0


def test_a_stop_during_a_reload_is_clean(serve: Serve) -> None:
    """SIGTERM right behind SIGHUP, at any moment of the reload, still exits 0 and leaves no worker."""
    for _ in range(5):
        daemon, _ = serve(["udp"], workers=4)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("worker_started", 5)
        assert daemon.stop() == 0
        assert daemon.log()[-1]["event"] == "stopped"


def test_a_new_worker_that_dies_rejects_the_reload(serve: Serve) -> None:
    """A death among the newcomers before commit kills the rest of them; the old generation serves on."""
    daemon, port = serve(["udp"], workers=2)
    workers = daemon.workers()
    for _ in range(ATTEMPTS):  # the newcomers live for milliseconds: try until one was caught
        if daemon.log("reload_rejected"):
            break
        daemon.signal(signal.SIGHUP)
        number = len(daemon.log("worker_started"))
        pid = daemon.wait_for("worker_started", number + 1)["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(daemon.log("reloading")) == sum(map(len, outcomes(daemon))), "the reload had ended")
        wait_for_old_workers(daemon, 2)
        workers = workers if daemon.log("reload_rejected") else daemon.workers()
    assert daemon.log("reload_rejected"), f"not one newcomer of {ATTEMPTS} was caught"
    assert daemon.workers() == workers
    assert "did not become ready" in daemon.log("reload_rejected")[0]["message"]
    assert ask(port) == b"hi"


def outcomes(daemon: Daemon) -> tuple[list[object], list[object]]:
    """Return the entries that end a reload."""
    return [*daemon.log("reloaded")], [*daemon.log("reload_rejected")]


def with_etc(etc: Path) -> list[str]:
    """Return the prefix that starts a command with this folder as its /etc: a copy, but for what it has already."""
    script = f'cp -an /etc/. {etc} 2>/dev/null; mount --bind {etc} /etc && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@needs_root
def test_a_file_that_is_there_since_the_start_is_taken_over_and_shown(echod: StartDaemon, tmp_path: Path) -> None:
    """What `ps` shows is what is in force: no file at first, nor after a reload that is rejected, then the file."""
    etc, file = tmp_path / "etc", tmp_path / "etc/echod.yaml"
    etc.mkdir()
    with namespace():
        daemon = echod(prefix=[*with_etc(etc), "sh", "-c", 'rm -f /etc/echod.yaml; exec "$@"', "sh"])
    assert title(daemon.pid) == "echod: supervisor (built-in defaults)"
    file.write_text("listeners: ['udp://%nowhere:7007']\n")
    assert daemon.reload()["event"] == "reload_rejected"
    file.write_text("listeners: ['udp://127.0.0.1%nowhere:7007']\n")
    assert daemon.reload()["event"] == "reload_rejected"
    assert title(daemon.pid) == "echod: supervisor (built-in defaults)"
    file.write_text("workers: 1\nlog: {format: json}\n")
    assert daemon.reload()["event"] == "reloaded"
    assert title(daemon.pid) == "echod: supervisor /etc/echod.yaml"


def test_a_file_that_was_in_force_may_not_be_gone(echod: StartDaemon, tmp_path: Path) -> None:
    """Unnamed or named, it is not replaced by the defaults, which serve others elsewhere: the reload is rejected."""
    etc, port = tmp_path / "etc", free_port()
    etc.mkdir()
    served = f"listeners: [udp://127.0.0.1:{port}]\nworkers: 1\nlog: {{format: json}}\n"
    (etc / "echod.yaml").write_text(served)
    daemon = echod(prefix=with_etc(etc), ready=False)
    wait_until(lambda: daemon.process.poll() is not None or daemon.log("ready"), "it served or could not have an /etc")
    if not daemon.log("ready"):
        pytest.skip(f"no mount namespace: {daemon.stderr}")
    (etc / "echod.yaml").unlink()
    entry = daemon.reload()
    assert (entry["event"], entry["message"]) == (
        "reload_rejected",
        "reload REJECTED; the previous config stays in force: cannot read /etc/echod.yaml: there is no such file",
    )
    assert ask(port) == b"hi"
    (etc / "echod.yaml").write_text(served)
    assert daemon.reload()["event"] == "reloaded"
