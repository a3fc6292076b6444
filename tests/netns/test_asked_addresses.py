"""A host with several addresses: the reply comes from the one that was asked, over the network, in both families."""

from collections.abc import Iterator

import pytest
from support.loopback import needs_root
from support.netns.datagrams import CLIENT, CLIENT6, PORT, SERVER, SERVER6, Datagram, numbered
from support.netns.stage import Stage, answered, raised
from support.netns.wire import LINK

SECOND, SECOND6 = "10.7.1.9", "fd00:7::9"

pytestmark = needs_root


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give an echod on wildcards, on a host that gets a second address of each family after the start."""
    with raised(tmp_path_factory.mktemp("stage")) as stage:
        stage.wire.configure("address", "add", f"{SECOND}/24", "dev", LINK)
        stage.wire.configure("address", "add", f"{SECOND6}/64", "dev", LINK, "nodad")
        yield stage


@pytest.mark.parametrize("train", [1, 16])
@pytest.mark.parametrize("asked", [SERVER, SECOND, SERVER6, SECOND6])
def test_the_reply_comes_from_the_address_that_was_asked(stage: Stage, asked: str, train: int) -> None:
    """Single datagrams and trains, to the first address of the interface and to the second."""
    client = CLIENT6 if ":" in asked else CLIENT
    datagrams = numbered(Datagram(source=client, source_port=40_001, to=asked, to_port=PORT), 32)
    assert stage.meet(datagrams, burst=16, train=train) == answered(datagrams)


def test_a_batch_to_all_addresses_is_replied_to_from_each(stage: Stage) -> None:
    """What stands in one batch side by side keeps its own address."""
    for client, addresses in ((CLIENT, (SERVER, SECOND)), (CLIENT6, (SERVER6, SECOND6))):
        datagrams = [
            Datagram(source=client, source_port=40_002, to=addresses[number % 2], payload=b"%d" % number)
            for number in range(32)
        ]
        assert stage.meet(datagrams, burst=32) == answered(datagrams)
