"""What circulates between listeners of any modes, or between one and a plain echo, dies of the loop breaker."""

from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, StartDaemon
from support.loopback import inject, needs_root, udp_client
from support.ports import free_port
from support.waiting import wait_until

MODES: dict[str, dict[str, Any]] = {
    "echo": {},
    "plus": {"mode": "udpecho_plus"},
    "stamp": {"mode": "stamp"},
    "stateful": {"mode": "stamp", "stateful": True},
    "keyed": {"mode": "stamp", "hmac_key": "KEY"},
    "reveal": {"mode": "reveal"},
}
PASSES = 200_000
"""Of a loop that does not end. Of one that does, about nine samples of 1,024 datagrams each."""
REQUEST = bytes.fromhex("00000007") + bytes(396)
"""Long enough for each mode."""


def listener(port: int, mode: str, key: Path) -> dict[str, Any]:
    """Return a listener of a mode, whose key is in this file."""
    options = {name: str(key) if value == "KEY" else value for name, value in MODES[mode].items()}
    return {"address": f"udp://127.0.0.1:{port}", **options}


def dropped(daemon: Daemon) -> int:
    """Return how many datagrams died of the loop breaker."""
    return sum(row.get("dropped_loop", 0) for row in daemon.counters().values())


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Write a key."""
    path = tmp_path / "key"
    path.write_bytes(b"a key")
    return path


@pytest.mark.sockets_only("the kernel repeats no answer of a mode")
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("echo", "keyed")])
def test_what_circulates_between_a_mode_and_an_echo_dies(echod: StartDaemon, key: Path, mode: str) -> None:
    """One datagram of somebody who echoes all that comes."""
    port = free_port()
    daemon = echod({"listeners": [listener(port, mode, key)], "workers": 1})
    with udp_client() as peer:
        peer.settimeout(0.2)
        peer.sendto(REQUEST, ("127.0.0.1", port))
        for _ in range(PASSES):
            try:
                data, source = peer.recvfrom(65_536)
            except TimeoutError:
                if dropped(daemon):
                    break
                continue
            peer.sendto(data, source)
        else:
            pytest.fail(f"it came round {PASSES:,} times")
    assert dropped(daemon) == 1


@needs_root
@pytest.mark.sockets_only("the kernel repeats no answer of a mode")
@pytest.mark.parametrize(
    ("near", "far"), [pair for pair in combinations_with_replacement(MODES, 2) if "keyed" not in pair]
)
def test_what_circulates_between_two_modes_dies(
    echod: StartDaemon, network: None, key: Path, near: str, far: str
) -> None:
    """Two daemons, whose ports are so different that neither knows the other for one."""
    first = free_port(2)
    ports = first, first + 1
    daemons = [
        echod({"listeners": [listener(port, mode, key)], "workers": 1})
        for port, mode in zip(ports, (near, far), strict=True)
    ]
    inject(("127.0.0.1", ports[0]), REQUEST, source="127.0.0.1", source_port=ports[1])
    wait_until(lambda: sum(map(dropped, daemons)) == 1, "it died", seconds=60)


@pytest.mark.sockets_only("the kernel repeats no answer of a mode")
def test_a_sender_that_numbers_its_requests_loses_none(echod: StartDaemon, key: Path) -> None:
    """Of each protocol, with the same payload in each: 20,000 requests, of which some twenty are compared."""
    ports = {mode: free_port() for mode in ("plus", "stamp", "stateful")}
    daemon = echod({"listeners": [listener(port, mode, key) for mode, port in ports.items()], "workers": 1})
    for mode, port in ports.items():
        with udp_client() as sock:
            sock.connect(("127.0.0.1", port))
            for number in range(20_000):
                sock.send(number.to_bytes(4, "big") + bytes(40))
                assert len(sock.recv(64)) == 44, (mode, number)
    assert dropped(daemon) == 0
