"""Every datagram comes back byte for byte, to where it came from, from where it was sent to; and is counted."""

import os
from contextlib import ExitStack

import pytest
from support.daemon import Serve, StartDaemon, ask, connect_udp
from support.ports import free_port
from support.processes import cpu_ticks
from support.waiting import wait_until


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_of_every_size_come_back_identical(echod: StartDaemon, host: str) -> None:
    """From nothing to the most that IPv4 and IPv6 can carry, and no byte differs."""
    port = free_port()
    address = f"[{host}]" if ":" in host else host
    daemon = echod({"listeners": [f"udp://{address}:{port}"]})
    sizes = [0, 1, 1472, 1473, 9000, 65_507, *([65_527] if ":" in host else [])]
    for size in sizes:
        payload = os.urandom(size)
        assert ask(port, payload, host=host) == payload
    row = daemon.counters()[f"udp://{address}:{port}"]
    assert (row["received"], row["replied"]) == (len(sizes), len(sizes))
    assert row["received_bytes"] == row["replied_bytes"] == sum(sizes)


def test_a_port_range_opens_each_port(echod: StartDaemon) -> None:
    """`7000-7015` answers on 16 ports, each under its own name in log and counters."""
    first = free_port(16)
    daemon = echod({"listeners": [f"udp://127.0.0.1:{first}-{first + 15}"], "workers": 2})
    assert all(ask(port) == b"hi" for port in range(first, first + 16))
    names = [f"udp://127.0.0.1:{port}" for port in range(first, first + 16)]
    assert [entry["listener"] for entry in daemon.log("listener_bound")] == names
    assert [row["replied"] for row in daemon.counters().values()] == [1] * 16


@pytest.mark.sockets_only("the kernel replies to known peers, so that no worker has work")
def test_two_workers_share_the_peers(serve: Serve, stack: ExitStack) -> None:
    """With 64 clients no worker is left without work."""
    daemon, port = serve(workers=2)
    before = {worker: cpu_ticks(worker) for worker in daemon.workers()}
    socks = [stack.enter_context(connect_udp("127.0.0.1", port)) for _ in range(64)]

    def ask_all() -> bool:
        for sock in socks:
            sock.send(b"hi")
        assert all(sock.recv(16) == b"hi" for sock in socks)
        return all(cpu_ticks(worker) > ticks for worker, ticks in before.items())

    wait_until(ask_all, "each worker had done some of the work")
