"""What the tests of `echod ping` share."""

from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.ports import free_port


@pytest.fixture
def port(echod: Callable[..., Daemon]) -> int:
    """Return a port that echod serves in UDP and TCP, on 127.0.0.1 and ::1."""
    port = free_port()
    hosts = ("127.0.0.1", "[::1]")
    echod({"listeners": [f"{scheme}://{host}:{port}" for scheme in ("udp", "tcp") for host in hosts], "workers": 1})
    return port
