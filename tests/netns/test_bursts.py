"""A hostile datagram harms none of its batch: at every index between good ones, and as trains between trains."""

from collections.abc import Iterator

import pytest
from support.loopback import needs_root
from support.netns.datagrams import (
    OTHER_PORT,
    PORT,
    SERVER,
    SERVER6,
    SERVER_LINK,
    Datagram,
    numbered,
    over_ipv4,
    over_ipv6,
)
from support.netns.stage import Outcome, Stage, raised

from echod.linux.mmsg_layout import SLOTS

TRAIN = 40

HOSTILE = (
    (over_ipv4(source_port=0), "source_port_zero"),
    (over_ipv4(source_port=PORT), "source_port_own"),
    (over_ipv4(source_port=19), "source_port_low"),
    (over_ipv4(source_port=11_211), "source_port_refused"),
    (over_ipv4(source="240.0.0.1"), "source_invalid"),
    (over_ipv4(source=SERVER), "source_is_self"),
    (over_ipv4(source="192.0.2.7"), "access"),
    (over_ipv4(to="10.7.1.255"), "destination_not_unicast"),
    (over_ipv6(source_port=0), "source_port_zero"),
    (over_ipv6(source=SERVER6, source_port=PORT), "source_port_own"),
    (over_ipv6(source="::"), "source_invalid"),
    (over_ipv6(source="::ffff:127.0.0.1"), "source_invalid"),
    (over_ipv6(source=SERVER6), "source_is_self"),
    (over_ipv6(source=SERVER_LINK, source_port=OTHER_PORT), "source_port_own"),
    (over_ipv6(source="2001:db8::7"), "access"),
    (over_ipv6(to="ff02::1"), "destination_not_unicast"),
)

pytestmark = [
    needs_root,
    pytest.mark.sockets_only("batches are those of the sockets, and what the kernel replies to overtakes them"),
    pytest.mark.parametrize(
        ("hostile", "reason"),
        HOSTILE,
        ids=[f"{each.source} port {each.source_port} to {each.to}" for each, _ in HOSTILE],
    ),
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give an echod that breaks no loops: here the same good datagrams come again and again."""
    with raised(tmp_path_factory.mktemp("stage"), guard={"loop_breaker": False}) as stage:
        yield stage


@pytest.fixture(autouse=True)
def lenient(stage: Stage) -> Iterator[None]:
    """Let the kernel deliver all of them."""
    with stage.wire.lenient():
        yield


def honest(hostile: Datagram, count: int) -> list[Datagram]:
    """Return so many datagrams of the same family that are to be answered."""
    return numbered(over_ipv6() if hostile.is_ipv6 else over_ipv4(), count)


def test_one_at_every_index_of_a_batch_harms_no_other(stage: Stage, hostile: Datagram, reason: str) -> None:
    """64 full batches, each with the hostile one at another place: all 63 others are answered, in order."""
    good = honest(hostile, SLOTS - 1)
    batches = [[*good[:index], hostile, *good[index:]] for index in range(SLOTS)]
    outcome = stage.meet([each for batch in batches for each in batch], burst=SLOTS)
    assert outcome == Outcome(
        received=SLOTS * SLOTS,
        refused={f"dropped_{reason}": SLOTS},
        answers=[each.answer for each in good] * SLOTS,
    )


def test_a_hostile_train_between_good_ones_is_refused_whole(stage: Stage, hostile: Datagram, reason: str) -> None:
    """Three trains in one batch: each datagram of the middle one is refused, each of the others answered."""
    good = honest(hostile, 2 * TRAIN)
    outcome = stage.meet([*good[:TRAIN], *numbered(hostile, TRAIN), *good[TRAIN:]], burst=3 * TRAIN, train=TRAIN)
    assert outcome == Outcome(
        received=3 * TRAIN,
        refused={f"dropped_{reason}": TRAIN},
        answers=[each.answer for each in good],
    )
