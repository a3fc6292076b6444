"""echod.probes.settings: what a session is asked to do is a value."""

import socket
from dataclasses import FrozenInstanceError

import pytest
from support.probing import SECOND, settings

from echod.probes.settings import DISCOVERY, SocketSettings


def test_settings_have_defaults_and_stay_as_they_are() -> None:
    """Without a limit a session sends as many probes as have a number, from any port, with the kernel's options."""
    made = settings()
    assert (made.interval, made.timeout, made.sizes) == (SECOND, 2 * SECOND, (56,))
    assert (made.count, made.deadline, made.source_ports, made.history) == (2**32 - 1, None, 1, 65_536)
    assert made.sockets == SocketSettings(source="", source_port=0, tos=None, ttl=None, discovery=None)
    with pytest.raises(FrozenInstanceError):
        made.interval = 1  # type: ignore[misc]


def test_the_modes_of_discovery_are_those_of_the_kernel() -> None:
    """By the names of ping's -M, and by the numbers of linux/in.h."""
    modes = {"dont": "DONT", "want": "WANT", "do": "DO", "probe": "PROBE"}
    known = {name: getattr(socket, f"IP_PMTUDISC_{mode}", None) for name, mode in modes.items()}
    assert DISCOVERY == {"dont": 0, "want": 1, "do": 2, "probe": 3}
    assert all(number in (None, DISCOVERY[name]) for name, number in known.items())
