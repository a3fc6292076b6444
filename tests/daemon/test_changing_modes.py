"""The modes of listeners beside each other, and a reload that changes the mode of one: no datagram notices."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from support.daemon import StartDaemon, run_echod
from support.ports import free_port
from support.socket_passing import pass_sockets
from support.udp_load import UdpLoad
from support.waiting import wait_until

StartLoad = Callable[..., UdpLoad]

CHANGES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"mode": "udpecho_plus"}, "echo -> udpecho_plus"),
    ({"mode": "stamp"}, "udpecho_plus -> stamp"),
    ({"mode": "stamp", "short_packets": "pad"}, "stamp -> stamp, short_packets: pad"),
    ({"dscp": "reflect"}, "stamp, short_packets: pad -> echo, dscp: reflect"),
    ({}, "echo, dscp: reflect -> echo"),
)
"""The options of a listener after each reload, and how the log says it."""


@pytest.mark.parametrize("passed", [False, True], ids=["bound", "passed"])
@pytest.mark.sockets_only("the kernel repeats no answer of a mode")
def test_a_reload_that_changes_the_mode_loses_nothing(echod: StartDaemon, udp_load: StartLoad, *, passed: bool) -> None:
    """Of 5,000 datagrams a second each is answered once, by the old mode or the new one; the log says what changed."""
    port = free_port()
    address = f"udp://127.0.0.1:{port}"
    prefix = pass_sockets([("127.0.0.1", port)]) if passed else ()
    daemon = echod({"listeners": [address], "workers": 2}, prefix=prefix)
    load = udp_load(port, rate=5000, measuring=True)
    for number, (options, change) in enumerate(CHANGES, 1):
        entry = daemon.reload({"listeners": [{"address": address, **options}], "workers": 2})
        assert entry["changed"] == [f"{address}: {change}"], number
        received = daemon.counters()[address]["received"]
        wait_until(lambda since=received: daemon.counters()[address]["received"] > since + 500, "answers of that mode")  # type: ignore[misc]
    report = load.finish()
    assert not report.lost, report
    assert (report.repeated, report.wrong, report.refused) == (0, 0, 0), report
    wait_until(lambda: len(daemon.workers()) == 2, "the old workers gone")
    row = daemon.counters()[address]
    assert row["received"] == row["replied"]
    assert daemon.log("listener_opened" if passed else "listener_adopted") == []
    assert daemon.stop() == 0


def test_every_mode_passes_its_self_test_beside_the_others(echod: StartDaemon, tmp_path: Path) -> None:
    """`echod status --check` asks each listener, UDP and TCP, IPv4 and IPv6; the status has the mode of each."""
    (tmp_path / "key").write_bytes(b"a key")
    modes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("udp", {}),
        ("udp", {"dscp": "reflect"}),
        ("udp", {"dscp": "EF"}),
        ("udp", {"mode": "udpecho_plus", "dscp": 10}),
        ("udp", {"mode": "stamp"}),
        ("udp", {"mode": "stamp", "stateful": True, "hmac_key": str(tmp_path / "key"), "dscp": "reflect"}),
        ("udp", {"mode": "stamp", "short_packets": "pad"}),
        ("udp", {"mode": "reveal"}),
        ("udp", {"mode": "discard"}),
        ("udp", {"impair": {"loss": "100%"}}),
        ("tcp", {"mode": "discard"}),
        ("tcp", {"dscp": "AF11"}),
        ("tcp", {"impair": {"delay": "1 s", "rate": "1 Mbit/s"}}),
    )
    listeners = [
        {"address": f"{protocol}://{host}:{free_port()}", **deepcopy(options)}  # the file may have no aliases
        for protocol, options in modes
        for host in ("127.0.0.1", "[::1]")
    ]
    daemon = echod({"listeners": listeners, "workers": 2})
    checked = run_echod("status", "--check", RUNTIME_DIRECTORY=str(daemon.status_path))
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "all 26 listeners replied"), checked
    activity = daemon.status()["activity"]
    told = {each["name"]: (each["mode"], each["impaired"]) for each in (*activity["udp"], *activity["tcp"])}
    assert told == {each["address"]: (each.get("mode", "echo"), "impair" in each) for each in listeners}
    (plus, other) = (each for each in activity["udp"] if each["mode"] == "udpecho_plus")
    assert (
        plus["udpecho_config"]
        == other["udpecho_config"]
        == {
            "packets_received": 0,
            "packets_responded": 0,
            "bytes_received": 0,
            "bytes_responded": 0,
            "first_received": "",
            "last_received": "",
        }
    )
    assert [each["udpecho_config"] for each in activity["udp"] if each["mode"] != "udpecho_plus"] == [None] * 18
