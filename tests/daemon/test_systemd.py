"""echod and a service manager: notification, watchdog and passed sockets."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, Serve, StartDaemon, ask, connect_tcp
from support.manager import Manager
from support.ports import free_port
from support.waiting import wait_until

from echod.config.socket_unit import units_of
from echod.errors import ConfigUnreadableError
from echod.linux import systemd
from echod.net.listener import parse_listener
from echod.status.publisher import Publisher
from echod.supervisor.reporter import Reporter

Activate = Callable[..., Daemon]


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Listen for notifications; where a test asks for it, in the abstract namespace."""
    manager = Manager(getattr(request, "param", str(tmp_path / "notify")))
    yield manager
    manager.close()


@pytest.mark.parametrize("manager", [f"@echod-test-{os.getpid()}"], indirect=True)
def test_an_abstract_socket_is_notified_too(serve: Serve, manager: Manager) -> None:
    """NOTIFY_SOCKET may begin with `@` (sd_notify(3)), as it does under containers."""
    serve(["udp"], variables=manager.variables)
    manager.wait_for("READY=1")


def test_ready_comes_only_once_every_worker_serves(serve: Serve, manager: Manager) -> None:
    """When READY=1 arrives, with a STATUS, all workers are there; it is the first message."""
    daemon, port = serve(["udp"], workers=3, ready=False, variables=manager.variables)
    message = manager.wait_for("READY=1")
    assert len(daemon.workers()) == 3
    assert message["STATUS"] == "serving 1 udp listener with 3 workers"
    assert manager.messages[0] is message
    assert ask(port) == b"hi"


def test_a_start_that_fails_never_sends_ready(echod: StartDaemon, manager: Manager) -> None:
    """If a port is in use, the manager receives the reason, and never READY=1."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
        owner.bind(("127.0.0.1", port))
        daemon = echod({"listeners": [f"udp://127.0.0.1:{port}"]}, ready=False, variables=manager.variables)
        assert daemon.wait() == 69
    assert not manager.received("READY=1")
    assert len(manager.messages) == 1
    why = f"udp://127.0.0.1:{port} is in use by another process; `ss -lnpu 'sport = :{port}'` shows which"
    assert manager.messages[0] == {"STATUS": f"does not start: {why}"}


def test_a_start_with_mistakes_sends_the_first(echod: StartDaemon, manager: Manager) -> None:
    """The message has its place in the file; one line has no room for all mistakes."""
    daemon = echod("workers: many\nlog: {levle: info}\n", ready=False, variables=manager.variables)
    assert daemon.wait() == 78
    manager.received("")
    assert len(manager.messages) == 1
    assert manager.messages[0]["STATUS"].startswith("does not start: ")
    assert "echod.yaml:1:10: error: workers: " in manager.messages[0]["STATUS"]


def test_a_reload_is_announced_and_ends_with_ready_whatever_came_of_it(serve: Serve, manager: Manager) -> None:
    """RELOADING=1 comes with MONOTONIC_USEC in one message, then READY=1, also where the new config was rejected."""
    daemon, _ = serve(workers=1, variables=manager.variables)
    manager.wait_for("READY=1")
    for number, text in enumerate((None, "nonsense"), start=1):
        begin = time.monotonic_ns() // 1000
        daemon.reload(text)
        reloading = manager.wait_for("RELOADING=1", number)
        assert begin <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        ready = manager.wait_for("READY=1", number + 1)
    said = [next(iter(message)) for message in manager.messages]
    assert [each for each in said if each != "STATUS"] == ["READY", *["RELOADING", "READY"] * 2]
    assert ready["STATUS"].startswith(
        f"reload REJECTED; the previous config stays in force: {daemon.config_path}:1:1: "
    )


def test_a_reload_rejected_for_a_missing_file_has_its_reason_once(serve: Serve, manager: Manager) -> None:
    """The log and STATUS= have once that the previous config stays in force, and why."""
    daemon, _ = serve(workers=1, variables=manager.variables)
    manager.wait_for("READY=1")
    daemon.config_path.unlink()
    reason = f"cannot read {daemon.config_path}: there is no such file"
    message = f"reload REJECTED; the previous config stays in force: {reason}"
    assert daemon.reload()["message"] == message
    assert manager.wait_for("READY=1", 2)["STATUS"] == message
    wait_until(lambda: daemon.status()["reload"]["text"] == reason, "the status had the reason")


def test_a_stop_is_announced(serve: Serve, manager: Manager) -> None:
    """STOPPING=1 is sent when the drain begins; the last message is that echod has stopped."""
    daemon, _ = serve(["udp"], variables=manager.variables)
    assert not manager.received("STOPPING=1")
    assert daemon.stop() == 0
    assert "drain" in manager.wait_for("STOPPING=1")["STATUS"]
    assert manager.messages[-1] == {"STATUS": "stopped"}


def test_the_watchdog_is_notified_only_while_no_worker_is_stuck(serve: Serve, manager: Manager) -> None:
    """WATCHDOG=1 stops soon after a worker hangs, and comes again once it was replaced."""
    daemon, _ = serve(workers=2, variables={**manager.variables, "WATCHDOG_USEC": "3000000"})
    manager.wait_for("WATCHDOG=1", 2)
    os.kill(daemon.workers()[0], signal.SIGSTOP)
    before = len(manager.received("WATCHDOG=1"))
    daemon.wait_for("worker_stuck")
    while_stuck = len(manager.received("WATCHDOG=1")) - before
    assert while_stuck <= 3  # of the five or six that a healthy daemon sends in that time
    manager.wait_for("WATCHDOG=1", before + while_stuck + 2)
    assert len(daemon.workers()) == 2


def test_a_notify_socket_that_does_not_exist_is_ignored(serve: Serve, tmp_path: Path) -> None:
    """With a NOTIFY_SOCKET that is not there, echod serves, reloads and stops."""
    variables = {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "1000000"}
    daemon, port = serve(variables=variables)
    assert daemon.reload()["event"] == "reloaded"
    assert ask(port) == b"hi"
    assert daemon.stop() == 0


def test_what_found_the_queue_full_is_sent_when_there_is_room(serve: Serve, manager: Manager) -> None:
    """READY=1 of a start, or of a reload, then RELOADING=1 and STOPPING=1: none is lost, and they keep their order."""
    manager.fill()
    daemon, _ = serve(["udp"], workers=1, variables=manager.variables)
    assert manager.wait_for("READY=1")["STATUS"] == "serving 1 udp listener with 1 worker"
    manager.messages.clear()
    manager.fill()
    assert daemon.reload()["event"] == "reloaded"
    manager.wait_for("READY=1")
    names = [next(iter(message)) for message in manager.messages]
    assert names.index("RELOADING") < names.index("READY")


@pytest.fixture
def notifier(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[systemd.Notifier]:
    """Connect to the manager from this process."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.variables["NOTIFY_SOCKET"])
    notifier = systemd.Notifier(os.environ)
    yield notifier
    assert notifier._notifier is not None
    notifier._notifier.socket.close()


def test_the_last_of_each_kind_waits_and_the_watchdog_never_does(manager: Manager, notifier: systemd.Notifier) -> None:
    """A later message replaces an earlier one of its kind; WATCHDOG=1 is sent at once or not at all."""
    manager.fill()
    for number in range(20):
        notifier.send("RELOADING=1", "MONOTONIC_USEC=1")
        notifier.watchdog()
        notifier.send("READY=1", f"STATUS={number}")
    notifier.send("STATUS=20")
    notifier.send("STOPPING=1", "STATUS=21")
    manager.received("READY=1")
    manager.messages.clear()
    notifier.catch_up()
    assert manager.received("READY=1") == [{"READY": "1", "STATUS": "19"}]
    assert [next(iter(message)) for message in manager.messages] == ["RELOADING", "READY", "STATUS", "STOPPING"]
    notifier.watchdog()
    assert len(manager.received("WATCHDOG=1")) == 1


@pytest.fixture
def reporter(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reporter]:
    """Report to the manager, for a daemon that serves a listener with three workers."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.variables["NOTIFY_SOCKET"])
    reporter = Reporter("echod.yaml", units_of(""), os.environ, Publisher("echod.yaml", lambda _: None))
    reporter.serving(parse_listener("udp://127.0.0.1:7"), 3, 1, None, None)
    yield reporter
    assert reporter._notifier._notifier is not None
    reporter._notifier._notifier.socket.close()


def test_the_status_line_counts_the_workers_that_are_missing(manager: Manager, reporter: Reporter) -> None:
    """STATUS= has their number until they are replaced."""
    for seconds, pids in ((10.0, (1, None, None)), (20.0, (1, 2, 3))):
        reporter.refresh(lambda: 0, pids, seconds)
    serving = "serving 1 udp listener with 3 workers; 0 datagrams/s"
    assert manager.received(f"STATUS={serving}; 2 of 3 workers missing")
    assert manager.messages[-1] == {"STATUS": serving}


def test_the_status_line_names_a_rejected_reload_until_one_succeeds(manager: Manager, reporter: Reporter) -> None:
    """READY=1 has the reason at once; later lines refer to the journal, and after the next reload they do not."""
    reporter.ready()
    reporter.rejected(ConfigUnreadableError("no such file"))
    reporter.refresh(lambda: 0, [1], 10.0)
    reporter.reloaded([], 2)
    reporter.refresh(lambda: 0, [1], 20.0)
    serving = "serving 1 udp listener with 3 workers"
    assert manager.received(f"STATUS={serving}; 0 datagrams/s")
    assert [message["STATUS"] for message in manager.messages] == [
        serving,
        "reload REJECTED; the previous config stays in force: no such file",
        f"{serving}; 0 datagrams/s; the last reload was rejected, see the journal",
        serving,
        f"{serving}; 0 datagrams/s",
    ]


def test_variables_for_another_process_are_ignored() -> None:
    """LISTEN_FDS and WATCHDOG_USEC count only with our own process id; the LISTEN_ variables go either way."""
    ours, other = str(os.getpid()), "1"
    variables = {"LISTEN_FDS": "2", "LISTEN_PID": ours, "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert systemd.passed_sockets(variables) == {3: "a", 4: "b"}
    assert variables == {"HOME": "/"}
    assert systemd.passed_sockets({"LISTEN_FDS": "2", "LISTEN_PID": ours}) == {3: "", 4: ""}
    assert systemd.passed_sockets({"LISTEN_FDS": "2", "LISTEN_PID": other, "LISTEN_FDNAMES": "a:b"}) == {}
    assert systemd.passed_sockets({"LISTEN_FDS": "many", "LISTEN_PID": ours}) == {}
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": ours}) == 2.5
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "2500000"}) == 2.5
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": other}) is None
    assert systemd.watchdog_seconds({}) is None


@pytest.fixture
def activate(echod: StartDaemon) -> Activate:
    """Start echod behind systemd-socket-activate: it runs with the first traffic on one of these addresses."""
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate is not installed")

    def start(config: object, *addresses: str, tcp: bool = False) -> Daemon:
        options = [part for address in addresses for part in ("-l", address)]
        prefix = ["systemd-socket-activate", *([] if tcp else ["-d"]), *options]
        daemon = echod(config, ready=False, prefix=prefix)
        wait_until(lambda: daemon.stderr.count("Listening on") == len(addresses), "the sockets were listening")
        return daemon

    return start


def test_the_datagram_that_started_it_is_answered(activate: Activate) -> None:
    """Queued before echod was there, it is answered, and so is what follows; the socket takes a listener's place."""
    port = free_port(2)
    other = port + 1
    config = {"listeners": [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{other}"], "workers": 2}
    daemon = activate(config, f"127.0.0.1:{port}")
    assert ask(port, b"first") == b"first"
    assert ask(port, b"second") == b"second"
    assert ask(other) == b"hi"
    assert [entry["listener"] for entry in daemon.log("listener_adopted")] == [f"udp://127.0.0.1:{port}"]
    assert [entry["listener"] for entry in daemon.log("listener_bound")] == [f"udp://127.0.0.1:{other}"]
    assert daemon.stop() == 0


def test_a_passed_listener_that_leaves_the_config_is_served_and_not_reported_as_closed(activate: Activate) -> None:
    """The log has the listener, and the line to remove from the socket unit."""
    port = free_port(2)
    other = port + 1
    both = [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{other}"]
    daemon = activate({"listeners": both, "workers": 1}, f"127.0.0.1:{port}")
    assert ask(port) == b"hi"
    daemon.wait_for("ready")
    assert not daemon.log("listener_not_configured")
    assert daemon.reload({"listeners": both[1:], "workers": 1})["changed"] == ["nothing"]
    (entry,) = daemon.log("listener_not_configured")
    assert entry["listener"] == both[0]
    assert f"remove ListenDatagram=127.0.0.1:{port} from " in entry["message"]
    assert not daemon.log("listener_closed")
    assert ask(port) == b"hi"
    assert daemon.reload({"listeners": both[:1], "workers": 1})["changed"] == [f"-{both[1]}"]


def test_a_passed_tcp_socket_is_served(activate: Activate) -> None:
    """The connection that started echod is echoed to its clean end; a UDP listener beside it is bound as configured."""
    port = free_port()
    config = {"listeners": [f"tcp://127.0.0.1:{port}", f"udp://127.0.0.1:{port}"], "workers": 2}
    daemon = activate(config, f"127.0.0.1:{port}", tcp=True)
    for _ in range(2):
        with connect_tcp(port) as sock:
            sock.sendall(b"hi")
            sock.shutdown(socket.SHUT_WR)
            assert [sock.recv(16), sock.recv(16)] == [b"hi", b""]
    assert ask(port) == b"hi"
    assert daemon.stop() == 0
