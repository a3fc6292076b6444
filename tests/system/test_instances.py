"""echod@NAME: several echods on one host, each with a config, a status and a log of its own."""

from support.system.installation import SOURCE, Release
from support.system.operating import Host

RED, BLUE = "/etc/echod/red.yaml", "/etc/echod/blue.yaml"


def run(host: Host, command: str, code: int = 0) -> str:
    """Run a command line of echod; return what it prints."""
    result = host.run(["sh", "-c", f"echod {command}"], check=False)
    assert (result.returncode, result.stderr) == (code, "")
    return result.stdout


def activate(host: Host, release: Release) -> None:
    """Let systemd hold the ports of the instance blue, by the drop-in that `echod check` prints."""
    advice = run(host, f"check --config {BLUE} --socket", code=78)
    assert "blue.yaml:1:13: error: listeners[0]: echod@blue.socket does not pass udp://0.0.0.0:7002" in advice
    text, then = advice[advice.index("[Socket]\n") :].split("\n\n")
    assert then.strip() == "then run: systemctl daemon-reload && systemctl restart echod@blue.socket echod@blue.service"
    host.drop_in(text, "listeners.conf", "echod@blue.socket")
    drop_in = (release.source / "packaging/systemd/socket-activated.conf").read_text()
    host.drop_in(drop_in, "socket-activated.conf", "echod@blue.service")
    assert run(host, f"check --config {BLUE} --socket") == f"{BLUE}: ok; listeners: udp://0.0.0.0:7002\n"


def test_instances_serve_side_by_side_and_each_is_asked_by_its_config(bound: Host, release: Release) -> None:
    """One binds its port, of another systemd holds it; reload, status and log are those of the instance named."""
    bound.write(RED, "listeners: ['udp://0.0.0.0:7001']\n")
    bound.write(BLUE, "listeners: ['udp://0.0.0.0:7002']\n")
    activate(bound, release)
    for unit in ("echod@red.service", "echod@blue.service", "echod@blue.socket"):
        verified = bound.run(["systemd-analyze", "verify", "--man=no", unit])
        assert verified.stdout + verified.stderr == ""
    bound.systemctl("start", "echod@red.service", "echod@blue.socket")
    for port in (7, 7001, 7002):
        assert bound.ask(port=port) == b"hello"
    for words, listener in (("", "udp://0.0.0.0:7 "), (f"--config {RED}", "udp://0.0.0.0:7001 ")):
        assert listener in run(bound, f"status {words}")
    assert run(bound, f"status --check --config {BLUE}").startswith("udp://0.0.0.0:7002  ok")
    pid = bound.supervisor()
    bound.write(RED, "listeners: ['udp://0.0.0.0:7003']\ntcp: {max_connections: 65536}\n")
    bound.systemctl("reload", "echod@red.service")
    assert bound.ask(port=7003) == b"hello"
    (entry,) = bound.journal("--identifier=echod-red", "ECHOD_EVENT=reloaded")
    assert entry["_SYSTEMD_UNIT"].endswith("echod@red.service")
    explained = bound.run(["journalctl", "-x", "-t", "echod-red", "ECHOD_EVENT=descriptors_capped"]).stdout
    assert "Raise LimitNOFILE= in a drop-in (systemctl edit echod@red.service), or lower" in explained
    assert (bound.supervisor(), bound.events("reloaded")) == (pid, [])
    bound.write(BLUE, "listeners: ['udp://0.0.0.0:7004']\n")
    bound.systemctl("reload", "echod@blue.service", check=False)
    (entry,) = bound.journal("--identifier=echod-blue", "ECHOD_EVENT=reload_rejected")
    assert entry["MESSAGE"].endswith(
        "`listeners` has it, but systemd does not pass it: add ListenDatagram=0.0.0.0:7004 to echod@blue.socket "
        "(systemctl edit echod@blue.socket) and restart that and echod@blue.service, or remove it from the file"
    )
    bound.systemctl("stop")
    for words, code in (("status --check", 3), ("reload", 69)):  # an instance stands in for no other echod
        assert bound.run(["sh", "-c", f"echod {words}"], check=False).returncode == code
    bound.systemctl("stop", "echod@red.service")
    assert "no echod is running" in bound.run(["echod", "status", "--config", RED], check=False).stderr
    release.bring(bound)
    bound.run([f"{SOURCE}/packaging/uninstall", "--purge"])
    assert bound.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "echod*"]).stdout == ""
    assert bound.run(["find", "/etc", "-name", "echod*", "-not", "-name", "echod-test-root"]).stdout == ""
