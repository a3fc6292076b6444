"""`echod ping --plus`, `--stamp` and `--reveal` against echod: each mode, by itself and while echod is restarted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.ping.pinging import ended, ping, read_lines, start
from support.ports import free_port

MODES: dict[str, tuple[dict[str, object], list[str]]] = {
    "udpecho_plus": ({"mode": "udpecho_plus"}, ["--plus"]),
    "stamp": ({"mode": "stamp", "stateful": True}, ["--stamp"]),
}


def config(port: int, options: dict[str, object], host: str = "127.0.0.1") -> dict[str, Any]:
    """Return the config of a listener with these options."""
    return {"listeners": [{"address": f"udp://{host}:{port}", **options}], "workers": 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("mode", MODES)
def test_the_probes_of_a_mode_are_replied_to(echod: Callable[..., Daemon], mode: str, host: str) -> None:
    """Every size comes back whole, each reply has a report, and nothing was lost in any direction."""
    options, words = MODES[mode]
    port, sizes = free_port(), "24,30,56-70,1472,9000" if mode == "udpecho_plus" else "44,56-70,1472,9000"
    echod(config(port, options, host))
    found = ping("--json", *words, "-c", 60, "-i", 0, "-s", sizes, f"{host}:{port}")
    *events, _ = found.objects
    assert (found.summary["received"], found.summary["corrupt"], found.summary["responder_changes"]) == (60, 0, 0)
    assert all(each["responder_ms"] >= 0 and 0 <= each["network_ms"] <= each["rtt_ms"] for each in events)
    known = {name: (found.summary["out"][name], found.summary["back"][name]) for name in ("lost", "duplicates")}
    assert known == {"lost": (0, 0), "duplicates": (0, 0)}
    assert {each.get("far_ttl") for each in events} == ({None} if mode == "udpecho_plus" else {64})


def test_stamp_packets_are_authenticated(echod: Callable[..., Daemon], tmp_path: Path) -> None:
    """With the key of the listener each is replied to, and without it none is."""
    (tmp_path / "key").write_bytes(b"secret of both\n")
    (tmp_path / "other").write_bytes(b"another\n")
    port = free_port()
    echod(config(port, {"mode": "stamp", "hmac_key": str(tmp_path / "key")}))
    words = ("--json", "-c", 20, "-i", 0, "-s", "112,144,168,1472", "--ssid", 9)
    found = ping("--stamp", "--key", tmp_path / "key", *words, f"127.0.0.1:{port}").summary
    assert (found["received"], found["corrupt"], found["far_ttls"]) == (20, 0, [{"ttl": 64, "requests": 20}])
    for key in (("--key", tmp_path / "other"), ()):
        silent = ping("--json", "--stamp", *key, "-c", 1, "-W", "300ms", f"127.0.0.1:{port}")
        assert (silent.code, silent.summary["lost"]) == (1, 1)


@pytest.mark.parametrize("mode", [*MODES, "echo"])
def test_a_mode_is_found_out(echod: Callable[..., Daemon], mode: str) -> None:
    """By the first packets."""
    port = free_port()
    echod(config(port, MODES[mode][0] if mode in MODES else {}))
    found = ping("--json", "-q", "--mode", "auto", "-c", 3, "-i", 0, f"127.0.0.1:{port}").summary
    assert (found["mode"], found["received"], "network_ms" in found) == (mode, 3, mode in MODES)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_what_echod_sees_is_revealed(echod: Callable[..., Daemon], host: str) -> None:
    """Of four source ports: the addresses and ports of this host, because no NAT is on the way."""
    port = free_port()
    echod(config(port, {"mode": "reveal"}, host))
    found = ping("--json", "--reveal", "--sources", 4, "-Q", "EF", f"{host}:{port}")
    [told] = found.objects
    assert (found.code, len(told["sources"])) == (0, 4)
    for each in told["sources"]:
        seen = each["seen"]
        assert (seen["peer"], seen["peer_port"], each["translated"]) == (host.strip("[]"), each["source_port"], False)
        assert (seen["local_port"], seen["ttl"], seen["dscp"], seen["interface"]) == (port, 64, 46, "lo")


@pytest.mark.parametrize("mode", MODES)
def test_a_restart_in_the_middle_is_another_responder(echod: Callable[..., Daemon], mode: str) -> None:
    """Its count begins at zero again, which is no loss of any direction."""
    options, words = MODES[mode]
    port = free_port()
    daemon = echod(config(port, options))
    with start("--json", *words, "-i", "10ms", "-w", 50, f"127.0.0.1:{port}") as process:
        before = read_lines(process, 20)
        daemon.end()
        echod(config(port, options))
        line = ""
        while '"new_responder"' not in line:
            [line] = read_lines(process)
            assert line, "no reply was of another responder"
        read_lines(process, 10)
        process.terminate()
        out, _ = ended(process)
    assert not [each for each in before if "new_responder" in each]
    summary = json.loads(out.splitlines()[-1])["targets"][0]
    assert (summary["responder_changes"], summary["out"]["lost"], summary["back"]["lost"]) == (1, 0, 0)
