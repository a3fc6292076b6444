"""Seconds of garbage, over UDP and TCP at once, leave a daemon as it was: no memory, no descriptor, no log line."""

import random
import socket
import time
from contextlib import suppress

from support.daemon import Serve, ask, connect_tcp
from support.loopback import inject, needs_root, reset_on_close, udp_client
from support.processes import descriptors, resident_bytes
from support.waiting import wait_until

BURST = 200
SIZES = (0, 1, 64, 1400, 9000, 60_000)

GROWTH_BYTES = 4 << 20
"""What a process may grow by: no table that a peer can fill is bigger, and a leak of a few bytes each would be."""

LOG_LINES = 10
"""Summaries, at most one in ten seconds for each listener and reason. One line each would be thousands."""


def throw_datagrams(port: int, chance: random.Random) -> int:
    """Send a burst of random bytes from many ports, some of which no answer may go to; return how many."""
    host = "127.0.0.9"
    with udp_client(host, port) as own, udp_client(host, 19) as low, udp_client() as any_port:
        for _ in range(BURST):
            chance.choice((own, low, any_port)).sendto(chance.randbytes(chance.choice(SIZES)), ("127.0.0.1", port))
    for source in range(BURST // 10):
        inject(("127.0.0.1", port), b"from nowhere", source=f"127.0.1.{source}", source_port=0)
    return BURST + BURST // 10


def throw_connections(port: int, chance: random.Random) -> int:
    """Make connections that send garbage, or nothing, and end in every way; return how many."""
    for _ in range(BURST // 10):
        way = chance.choice(("reset", "reset at once", "half-close", "leave"))
        # Where the worker lags behind there may be too many from one source: then it is echod that ends them.
        with connect_tcp(port) as sock, suppress(ConnectionError):
            if way.startswith("reset"):
                reset_on_close(sock)
            if way != "reset at once":
                sock.sendall(chance.randbytes(chance.choice(SIZES)))
            if way == "half-close":
                sock.shutdown(socket.SHUT_WR)
    return BURST // 10


def flood(port: int, seconds: float) -> tuple[int, int]:
    """Throw garbage for so long; return how many datagrams and connections that was."""
    chance = random.Random(port)  # noqa: S311 - not a secret
    datagrams = connections = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        datagrams += throw_datagrams(port, chance)
        connections += throw_connections(port, chance)
    return datagrams, connections


@needs_root
def test_a_flood_of_garbage_leaves_nothing_behind(serve: Serve) -> None:
    """The same processes serve on, as big as before, with the same descriptors; the log has summaries alone."""
    daemon, port = serve(workers=1)
    pids = [daemon.pid, *daemon.workers()]
    before = [descriptors(pid) for pid in pids]
    sent = flood(port, 1.0)  # whatever is made once, is made now
    sizes, lines = [resident_bytes(pid) for pid in pids], len(daemon.log())
    sent = tuple(a + b for a, b in zip(sent, flood(port, 4.0), strict=True))
    assert ask(port) == b"hi"
    assert [daemon.pid, *daemon.workers()] == pids
    assert len(daemon.log()) - lines <= LOG_LINES
    wait_until(lambda: [descriptors(pid) for pid in pids] == before, "each descriptor came back")
    growth = [resident_bytes(pid) - size for pid, size in zip(pids, sizes, strict=True)]
    assert max(growth) < GROWTH_BYTES, growth
    udp, tcp = (daemon.counters()[f"{protocol}://127.0.0.1:{port}"] for protocol in ("udp", "tcp"))
    assert udp["received"] + udp["kernel_drops"] == sent[0] + 1
    assert tcp["accepted"] == sum(daemon.closes().values())
