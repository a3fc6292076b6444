"""The output of the examples of echod-ping(1), on a path of the test: only times differ."""

from pathlib import Path as File

from support.loopback import needs_root
from support.man import literals, section
from support.ping.path import laid
from support.ping.pinging import impairing, shape
from support.system.network import entered

pytestmark = needs_root

BLOCKS = [block.partition("\n") for block in literals(section("echod-ping.1", "EXAMPLES"))]
SHOWN = {command.removeprefix("$ echod ping "): printed for command, _, printed in BLOCKS}
IMPAIRED = "-c 10 -i 0.2 -W 0.3 10.6.2.2"
PLAN = ["answer", "drop", "answer", "duplicate", "answer", "corrupt", "answer", "overtaken", "answer", "answer"]
MTU = "--mtu 10.6.2.2"


def test_impairments_are_reported_as_shown(tmp_path: File) -> None:
    """Lost, duplicated, corrupted, overtaken: line by line. (The line of a lost probe may be before a reply or after.)

    The page shows this and the next run, and no other.
    """
    assert SHOWN.keys() == {IMPAIRED, MTU}
    with laid(tmp_path, routed=False) as path, entered(path.node), impairing(PLAN, "impairing_bridge.py"):
        path.wait()
        found = path.ping(*IMPAIRED.replace("-W 0.3", "-W 0.9").split())  # a busy machine needs more time
    assert found.code == 0
    assert sorted(shape(found.out).splitlines()) == sorted(shape(SHOWN[IMPAIRED]).splitlines())


def test_the_path_mtu_is_reported_as_shown(tmp_path: File) -> None:
    """A link of 1280 behind the router."""
    with laid(tmp_path, routed=True) as path:
        path.wait()
        path.narrow(1280)
        assert path.ping(*MTU.split()).out == SHOWN[MTU]
