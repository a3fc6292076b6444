"""How much a source is answered: its burst and its rate, and the total of all; its neighbours lose nothing."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

import pytest
from support.loopback import needs_root
from support.netns.datagrams import SERVER, Datagram, numbered, over_ipv4, over_ipv6
from support.netns.stage import Outcome, Stage, totals
from support.netns.traffic import Client, Traffic, add_source
from support.waiting import wait_until

pytestmark = needs_root

RATE: Final = 1_000
BURST: Final = 1_000
"""A second's: while nobody has a CPU for the test or the worker, nothing that is due is lost."""
NOISE: Final = 10_000
NOISE_SECONDS: Final = 3.0
NOISY: Final = "10.7.1.10"
NEIGHBOURS: Final = ("10.7.1.11", "10.7.1.12", "10.7.1.13")
MANY: Final = tuple(f"10.7.1.{host}" for host in range(20, 28))
NEIGHBOUR_RATE: Final = 100

AT_ONCE: Final = 200
"""Of those who are held strictly: at a rate so low that no other is answered in the same wake-up."""
STRICT: Final = {"datagrams_per_second": 1, "burst": AT_ONCE, "slip": 0}
REASON: Final = "dropped_rate"


def noise(stage: Stage, sources: Sequence[str], *, ports: int) -> Iterator[Client]:
    """Yield clients at these sources, with so many ports each, which make the noise together."""
    for source in sources:
        add_source(stage.wire, source)
        for _ in range(ports):
            yield Client(stage.wire, SERVER, source=source, rate=NOISE // (len(sources) * ports))


def neighbours(stage: Stage) -> Iterator[Client]:
    """Yield clients that stay below the rate."""
    for source in NEIGHBOURS:
        add_source(stage.wire, source)
        yield Client(stage.wire, SERVER, source=source, rate=NEIGHBOUR_RATE)


def count(stage: Stage, traffic: Traffic, before: Counter[str]) -> Counter[str]:
    """Wait until all that was sent is counted; return what was. The clients have heard just as many answers."""
    counted: Counter[str] = Counter()

    def is_all() -> bool:
        counted.clear()
        counted.update(totals(stage.daemon))
        counted.subtract(before)
        return counted["received"] >= traffic.sent

    wait_until(is_all, f"{traffic.sent} datagrams were received")
    assert counted["received"] == traffic.sent == counted["replied"] + counted[REASON]
    traffic.settle(lambda: traffic.answered >= counted["replied"])
    assert traffic.answered == counted["replied"]
    return counted


def assert_held(answered: int, rate: int, seconds: tuple[float, float], overdrawn: int = 0) -> None:
    """Hold a number to a rate within 5 %: of the time until all was sent at least, until all was counted at most."""
    assert 0.95 * rate * seconds[0] <= answered <= 1.05 * rate * seconds[1] + overdrawn


@pytest.mark.parametrize(("workers", "slip"), [(1, 0), (2, 0), (2, 8)])
def test_a_noisy_source_is_held_to_its_rate(staged: Callable[..., Stage], workers: int, slip: int) -> None:
    """From 32 ports, over all workers: its burst and its rate within 5 %, and on credit at most its burst again.

    What slips through is a part of the rate. Its neighbours, who stay below the rate, lose nothing.
    """
    stage = staged(workers=workers, limits={"datagrams_per_second": RATE, "burst": BURST, "slip": slip})
    quiet = list(neighbours(stage))
    with Traffic([*noise(stage, [NOISY], ports=32), *quiet]) as traffic:
        before, began = totals(stage.daemon), monotonic()
        sent_after = traffic.run(NOISE_SECONDS)
        counted = count(stage, traffic, before)
        seconds = (sent_after, monotonic() - began)
        of_the_quiet = Traffic(quiet)
        assert of_the_quiet.answered == of_the_quiet.sent
        answered = traffic.answered - of_the_quiet.answered
    assert (counted["slipped"] > 0) == (slip > 0)
    assert_held(answered - BURST, RATE, seconds, overdrawn=BURST if slip else 0)


def test_all_sources_together_are_held_to_the_total(staged: Callable[..., Stage]) -> None:
    """Eight sources over two workers, each far over its own limit: the burst once, and the total within 5 %.

    Nothing slips through the total.
    """
    limits = {"datagrams_per_second": RATE, "total_datagrams_per_second": RATE, "burst": BURST, "slip": 2}
    stage = staged(workers=2, limits=limits)
    with Traffic(list(noise(stage, MANY, ports=4))) as traffic:
        before, began = totals(stage.daemon), monotonic()
        sent_after = traffic.run(NOISE_SECONDS)
        counted = count(stage, traffic, before)
        assert_held(counted["replied"] - BURST, RATE, (sent_after, monotonic() - began))


@pytest.mark.parametrize(
    "train",
    [1, pytest.param(30, marks=pytest.mark.sockets_only("the kernel refuses a train whole"))],
)
@pytest.mark.parametrize("one", [over_ipv4(), over_ipv6(source="fd00:71::1")], ids=["IPv4", "IPv6"])
def test_a_source_has_its_burst_at_once(staged: Callable[..., Stage], one: Datagram, train: int) -> None:
    """Of what comes at once, from whichever port, the first datagrams are answered; a train is cut where it ends."""
    stage = staged(limits=STRICT)
    datagrams = [*numbered(one, 150), *numbered(replace(one, source_port=40_001), 150)]
    assert stage.meet(datagrams, burst=300, train=train) == in_part(datagrams, datagrams[:AT_ONCE])


def test_neighbours_in_the_same_batches_lose_nothing(staged: Callable[..., Stage]) -> None:
    """Between 300 datagrams of one source, of which 100 are refused, 50 others of IPv4 have theirs answered."""
    stage = staged(limits=STRICT)
    loud = numbered(over_ipv4(), 300)
    quiet = [numbered(over_ipv4(source=f"10.7.1.{host}"), 1)[0] for host in range(100, 150)]
    for each in quiet:
        stage.wire.know(each.source)
    mixed = [each for index, one in enumerate(quiet) for each in (*loud[6 * index : 6 * index + 6], one)]
    allowed = {*loud[:AT_ONCE], *quiet}
    assert stage.meet(mixed, burst=350) == in_part(mixed, [each for each in mixed if each in allowed])


def in_part(datagrams: Sequence[Datagram], within: Sequence[Datagram]) -> Outcome:
    """Return the outcome of datagrams of which these are within the limits, and no others."""
    refused = len(datagrams) - len(within)
    return Outcome(received=len(datagrams), refused={REASON: refused}, answers=[datagram.answer for datagram in within])
