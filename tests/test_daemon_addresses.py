"""Addresses and interfaces that a real echod listens on: those that come later, and those of one device."""

import socket
from collections.abc import Callable

import pytest
from loopback import ip, namespace, needs_root
from running import SECONDS, Daemon, ask

EchodFactory = Callable[..., Daemon]
PORT = 7


@needs_root
@pytest.mark.parametrize("address", ["10.9.9.9", "2001:db8::9"])
def test_an_address_that_comes_later_is_answered_from_when_it_comes(echod: EchodFactory, address: str) -> None:
    """As with VRRP: an absent address keeps no listener down, the log warns of it, and once it is there it answers."""
    host = f"[{address}]" if ":" in address else address
    with namespace():
        later = [f"udp://{host}:{PORT}", f"tcp://{host}:{PORT}"]
        config = {"listeners": [f"udp://127.0.0.1:{PORT}", *later], "workers": 2, "access": {"allow": ["any"]}}
        daemon = echod({**config, "limits": {"datagrams_per_second": "unlimited"}})
        assert ask(PORT) == b"hi"
        warned = daemon.log("address_absent")
        assert [(entry["level"], entry["listener"]) for entry in warned] == [("warning", name) for name in later]
        assert warned[0]["message"] == (
            f"{later[0]} is no address of this host; `ip address` lists them: it is bound all the same, and served "
            "when this host has it"
        )
        length = ("/128", "nodad") if ":" in address else ("/32",)
        ip("address", "add", address + length[0], *length[1:], "dev", "lo")
        assert ask(PORT, host=address) == b"hi"
        with socket.create_connection((address, PORT), SECONDS) as client:
            client.sendall(b"hello")
            assert client.recv(64) == b"hello"
