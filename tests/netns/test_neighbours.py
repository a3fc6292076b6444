"""Answers to neighbours that do not exist: the kernel keeps them, and they fill the send buffer of everybody."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from support.loopback import needs_root
from support.netns.datagrams import PORT, SERVER, SERVER6, Datagram, over_ipv4, over_ipv6
from support.netns.stage import WILDCARDS, Stage
from support.netns.wire import LINK
from support.system.network import set_kernel
from support.waiting import wait_until

DEAD = 120
EACH = 200
BYTES = 1000
"""What 120 dead neighbours are sent is more than the send buffer holds: 24 MB, in 200 datagrams each."""

WORST_BYTES = 212_992
"""What the kernel keeps for one of them by itself (net.core.wmem_default, where it was not changed)."""
WISE_BYTES = 4096

pytestmark = [needs_root, pytest.mark.parametrize("is_ipv6", [False, True], ids=["IPv4", "IPv6"])]


def forged(number: int, *, is_ipv6: bool) -> Datagram:
    """Return a datagram in the name of a neighbour that nobody is."""
    over, source = (over_ipv6, f"fd00:7::dead:{number:x}") if is_ipv6 else (over_ipv4, f"10.7.1.{100 + number}")
    return over(source=source, payload=bytes(BYTES))


def flood(stage: Stage, *, is_ipv6: bool, kept_bytes: int) -> int:
    """Send forged datagrams, in rounds, with the kernel keeping so many bytes for each neighbour; return how many."""
    family = "ipv6" if is_ipv6 else "ipv4"
    set_kernel(stage.wire.server, f"{family}/neigh/{LINK}/unres_qlen_bytes", kept_bytes)
    frames = [forged(number, is_ipv6=is_ipv6).frame() for number in range(DEAD)]
    for _ in range(EACH):
        for frame in frames:
            stage.wire.inject(frame)
    return len(frames) * EACH


def row_of(stage: Stage, *, is_ipv6: bool) -> dict[str, int]:
    """Return the counters of the listener that was asked."""
    return stage.daemon.counters()[f"udp://{WILDCARDS[is_ipv6]}:{PORT}"]


def whole_row_of(stage: Stage, came: int, *, is_ipv6: bool) -> dict[str, int]:
    """Return them when so many datagrams are counted: an answer of the kernel comes before what the daemon has yet."""
    row: dict[str, int] = {}

    def is_whole() -> bool:
        row.update(row_of(stage, is_ipv6=is_ipv6))
        return row["received"] + row["kernel_drops"] == came

    wait_until(is_whole, f"{came} were counted")
    return row


def test_with_short_queues_nobody_notices(staged: Callable[..., Stage], is_ipv6: bool) -> None:  # noqa: FBT001
    """Where the kernel keeps 4 KiB for each, the bystander has every answer, at once and afterwards."""
    stage = staged()
    before = row_of(stage, is_ipv6=is_ipv6)["received"]
    sent = flood(stage, is_ipv6=is_ipv6, kept_bytes=WISE_BYTES)
    for _ in range(100):
        stage.ask(is_ipv6=is_ipv6)
    row = whole_row_of(stage, before + sent + 100, is_ipv6=is_ipv6)
    assert row["replied"] == row["received"]


def test_with_long_queues_service_comes_back_by_itself(staged: Callable[..., Stage], is_ipv6: bool) -> None:  # noqa: FBT001
    """Where it keeps all, the send buffer fills: echod counts what it cannot send, waits for nothing, and goes on."""
    stage = staged()
    before = row_of(stage, is_ipv6=is_ipv6)["received"]
    sent = flood(stage, is_ipv6=is_ipv6, kept_bytes=WORST_BYTES)
    asked = 0
    with stage.wire.client_of(SERVER6 if is_ipv6 else SERVER, PORT) as client:
        client.settimeout(0.2)

        def answered() -> bool:
            nonlocal asked
            asked += 1
            client.send(b"still there? %d" % asked)
            with suppress(TimeoutError):
                return bool(client.recv(64))
            return False

        wait_until(answered, "service came back")
    row = whole_row_of(stage, before + sent + asked, is_ipv6=is_ipv6)
    assert row["received"] == row["replied"] + row["send_failed_eagain"]
    stage.ask(is_ipv6=is_ipv6)
