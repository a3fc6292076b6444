"""A million sources, each heard once: memory is what the config says, the log is short, and a bystander is served."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from ipaddress import IPv4Address
from itertools import product
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

import pytest
from support.loopback import needs_root
from support.netns.datagrams import OTHER_PORT, PORT
from support.netns.flood import Flood
from support.netns.stage import MAX_GROWTH_BYTES, Stage, totals
from support.processes import resident_bytes
from support.waiting import wait_until

pytestmark = needs_root

PIECE: Final = 8 * 1024
"""Sources between two questions of the bystander."""

PEER_BYTES: Final = 256
"""What a worker may keep for each of `limits.sources`."""
RATE_BYTES: Final = 16
"""What all workers keep together for each: of the rates. Each has it mapped."""

QUEUED_BYTES: Final = 1 << 20
"""In the sockets' queues, below which more is sent: a flood that the kernel drops would prove nothing."""

PORTS: Final = (PORT, OTHER_PORT, 7009, 7010)
ANYWHERE, NOWHERE = int(IPv4Address("11.0.0.0")), int(IPv4Address("240.0.0.0"))
"""An address of the Internet, and one that nobody has; 16 million follow either."""
REFUSED: Final = {
    "source_port_zero": (ANYWHERE, 0),
    "source_port_own": (ANYWHERE, PORT),
    "source_port_low": (ANYWHERE, 19),
    "source_port_refused": (ANYWHERE, 11_211),
    "source_invalid": (NOWHERE, 40_000),
    "access": (ANYWHERE, 40_000),
}
"""First address and source port of what is refused for each reason."""

MOST_LINES: Final = 10
SUMMARY_SECONDS: Final = 10
CLOCK_SECONDS: Final = 0.1
"""By which the times in the log may be nearer to each other than the looks at what there is to log."""


@pytest.fixture
def flooded(staged: Callable[..., Stage]) -> Iterator[Callable[..., tuple[Stage, Flood]]]:
    """Start an echod of these sections, and prepare a flood of it."""
    floods: list[Flood] = []

    def start(**sections: Any) -> tuple[Stage, Flood]:  # noqa: ANN401 - as YAML is
        stage = staged(**sections)
        floods.append(Flood(stage.wire))
        return stage, floods[-1]

    yield start
    for flood in floods:
        flood.close()


def addresses(count: int, first: int = ANYWHERE) -> "array[int]":
    """Return so many different addresses, in no order, of the 16 million that follow one."""
    return array("I", (first + each for each in Random(7).sample(range(1 << 24), count)))  # noqa: S311 - no secret


def send(stage: Stage, flood: Flood, sources: "array[int]", source_port: int = 40_000, to_port: int = PORT) -> None:
    """Send a datagram from each source, no faster than echod takes them, with the bystander asking."""
    for start in range(0, len(sources), PIECE):
        flood.send(sources[start : start + PIECE], source_port, to_port)
        wait_until(lambda: queued_bytes(stage) < QUEUED_BYTES, "echod took most of it")
        stage.ask(is_ipv6=False)


def queued_bytes(stage: Stage) -> int:
    """Return what waits in the IPv4 queues of echod (proc(5))."""
    sockets = Path(f"/proc/{stage.daemon.pid}/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[4].partition(":")[2], 16) for line in sockets)


def resident(stage: Stage) -> dict[int, int]:
    """Return what each worker has mapped, by its process id."""
    return {pid: resident_bytes(pid) for pid in stage.daemon.workers()}


def grown(stage: Stage, before: dict[int, int]) -> list[int]:
    """Return what each worker has mapped since; they are the same workers."""
    now = resident(stage)
    assert now.keys() == before.keys()
    return [now[pid] - before[pid] for pid in now]


@pytest.mark.parametrize(("count", "sources"), [(1_000_000, 65_536), (100_000, 4_096)])
def test_a_million_sources_take_no_more_memory_than_configured(
    flooded: Callable[..., tuple[Stage, Flood]], count: int, sources: int
) -> None:
    """Each is answered, and each worker grows by less than `limits.sources` say."""
    limits = {"datagrams_per_second": 10_000, "burst": 10_000, "sources": sources}
    stage, flood = flooded(workers=2, access={"allow": ["any"]}, limits=limits)
    send(stage, flood, addresses(256) * 256)  # until each worker has mapped all of its batch
    wait_until(lambda: queued_bytes(stage) == 0, "echod took all of it")
    before, mapped = totals(stage.daemon), resident(stage)
    began = monotonic()
    send(stage, flood, addresses(count))
    wait_until(lambda: queued_bytes(stage) == 0, "echod took all of it")
    seconds = monotonic() - began
    counted = totals(stage.daemon)
    counted.subtract(before)
    growth = grown(stage, mapped)
    print(f"{count / seconds:,.0f}/s; bytes a source:", *(f"{each / sources:.0f}" for each in growth))  # noqa: T201
    assert counted["received"] == counted["replied"] >= count
    assert counted["kernel_drops"] == 0
    assert max(growth) < sources * (PEER_BYTES + RATE_BYTES)


@pytest.mark.sockets_only("the daemon logs what it refused, and not what the kernel dropped")
def test_a_flood_of_refused_datagrams_makes_few_log_entries(flooded: Callable[..., tuple[Stage, Flood]]) -> None:
    """Of each listener and reason one in ten seconds, of all together ten in one; yet they count each datagram."""
    listeners = [*(f"udp://0.0.0.0:{port}" for port in PORTS), f"udp://[::]:{PORT}"]
    stage, flood = flooded(workers=2, listeners=listeners)
    send(stage, flood, addresses(PIECE), 0)  # until each worker has mapped all of its batch
    due = Counter({(f"udp://0.0.0.0:{PORT}", "source_port_zero"): PIECE})
    mapped, began = resident(stage), monotonic()
    for port, (reason, (first, source_port)) in product(PORTS, REFUSED.items()):
        send(stage, flood, addresses(PIECE, first), source_port, port)
        due[f"udp://0.0.0.0:{port}", reason] += PIECE
    print(f"{due.total() / (monotonic() - began):,.0f} refused a second")  # noqa: T201
    assert max(grown(stage, mapped)) < MAX_GROWTH_BYTES
    wait_until(lambda: counted(stage, due) == due, "each refused datagram was counted")
    wait_until(lambda: reported(stage) == due, "each refused datagram was logged", seconds=30)
    assert_paced([datetime.fromisoformat(entry["timestamp"]) for entry in stage.daemon.log("refused")], MOST_LINES, 1)
    for name, reason in due:
        entries = [each for each in stage.daemon.log("refused") if (each["listener"], each["reason"]) == (name, reason)]
        assert_paced([datetime.fromisoformat(entry["timestamp"]) for entry in entries], 1, SUMMARY_SECONDS)


def counted(stage: Stage, due: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Return how many of those that are due were refused so far; the last may still wait in the queue of a worker."""
    rows = stage.daemon.counters()
    return Counter({(name, reason): rows[name][f"dropped_{reason}"] for name, reason in due})


def reported(stage: Stage) -> Counter[tuple[str, str]]:
    """Return how many refused datagrams the log counts, by listener and reason."""
    found: Counter[tuple[str, str]] = Counter()
    for entry in stage.daemon.log("refused"):
        found[entry["listener"], entry["reason"]] += entry["refused"]
    return found


def assert_paced(times: Sequence[datetime], most: int, seconds: float) -> None:
    """Hold entries to so many in any so many seconds."""
    for early, late in zip(times, times[most:], strict=False):
        assert (late - early).total_seconds() > seconds - CLOCK_SECONDS
