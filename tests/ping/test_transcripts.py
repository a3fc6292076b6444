"""What echod-ping(1) shows of paths of its own is what is printed there; only times differ."""

from pathlib import Path as File

from support.loopback import needs_root
from support.man import literals, section
from support.ping.path import laid
from support.ping.pinging import impairing, shape
from support.system.network import entered

pytestmark = needs_root

BLOCKS = [block.partition("\n") for block in literals(section("echod-ping.1", "EXAMPLES"))]
SHOWN = {command.removeprefix("$ echod ping "): printed for command, _, printed in BLOCKS}
HARM = "-c 10 -i 0.2 -W 0.3 10.6.2.2"
PLAN = ["answer", "drop", "answer", "duplicate", "answer", "corrupt", "answer", "overtaken", "answer", "answer"]
MTU = "--mtu 10.6.2.2"


def test_all_that_is_shown_is_looked_at() -> None:
    """No block of the page is left out here."""
    assert SHOWN.keys() == {HARM, MTU}


def test_harm_is_told_as_shown(tmp_path: File) -> None:
    """Lost, doubled, damaged, overtaken: line by line. (When a probe is given up may fall before or after a reply.)"""
    with laid(tmp_path, routed=False) as path, entered(path.node), impairing(PLAN, "impairing_bridge.py"):
        path.wait()
        told = path.ping(*HARM.split())
    assert told.code == 0
    assert sorted(shape(told.out).splitlines()) == sorted(shape(SHOWN[HARM]).splitlines())


def test_the_path_mtu_is_told_as_shown(tmp_path: File) -> None:
    """A link of 1280 behind the router."""
    with laid(tmp_path, routed=True) as path:
        path.wait()
        path.narrow(1280)
        assert path.ping(*MTU.split()).out == SHOWN[MTU]
