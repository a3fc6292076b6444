"""echod.ping.modes: what carries probes, with which key, of which sizes; and by which options."""

from pathlib import Path

import pytest

from echod.errors import UsageError
from echod.net.mode import Mode
from echod.ping.modes import fitting_sizes, make_frame, read_key
from echod.ping.options import parse_options
from echod.probes.frames import PlusFrame, StampFrame


def test_a_key_is_the_bytes_of_its_file(tmp_path: Path) -> None:
    """Without the newline at its end; one of 1,025 bytes, or of none, is refused."""
    file = tmp_path / "key"
    for content, key in ((b"secret\n", b"secret"), (b"\0\xff\n\n", b"\0\xff\n"), (b"x" * 1024 + b"\n", b"x" * 1024)):
        file.write_bytes(content)
        assert read_key(file) == key
    for content in (b"", b"\n", b"x" * 1025):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r": a key has 1 to 1024 bytes"):
            read_key(file)


def test_a_mode_has_its_frame() -> None:
    """A plain echo has none. The DSCP that is asked for is that of the TOS byte."""
    assert make_frame(Mode.ECHO, key=b"", ssid=0, tos=None) is None
    assert isinstance(make_frame(Mode.UDPECHO_PLUS, key=b"", ssid=0, tos=None), PlusFrame)
    made = make_frame(Mode.STAMP, key=b"k", ssid=7, tos=0xB9)
    assert isinstance(made, StampFrame)
    assert made == StampFrame(key=b"k", ssid=7, dscp=46)
    assert 1_073_741_824 <= made.offset < 2_147_483_648


def test_by_default_a_probe_has_room_for_its_header() -> None:
    """Sizes that are given stay as they are."""
    for frame, size in ((None, 56), (PlusFrame(), 56), (StampFrame(), 80), (StampFrame(key=b"k"), 168)):
        assert fitting_sizes(None, frame) == (size,)
        assert fitting_sizes((300, 200), frame) == (300, 200)


def test_the_options_choose_the_mode_and_the_port(tmp_path: Path) -> None:
    """STAMP has a port of its own, and `--mode auto` knows nothing yet."""
    (tmp_path / "key").write_bytes(b"secret")
    assert parse_options(["h"]).mode is Mode.ECHO
    plus = parse_options(["--plus", "h"])
    assert (plus.mode, plus.specs[0].port) == (Mode.UDPECHO_PLUS, 7)
    stamp = parse_options(["--stamp", "--ssid", "9", "--key", str(tmp_path / "key"), "-Q", "EF", "h", "g:7"])
    assert (stamp.mode, [spec.port for spec in stamp.specs]) == (Mode.STAMP, [862, 7])
    assert stamp.probes_of(Mode.STAMP).frame == StampFrame(key=b"secret", ssid=9, dscp=46)
    found_out = parse_options(["--mode", "auto", "h"])
    assert (found_out.mode, found_out.specs[0].port, found_out.probes_of(Mode.STAMP).sizes) == (None, 7, (80,))
    small = parse_options(["--mode", "auto", "-s", "30", "h"])
    with pytest.raises(UsageError, match="a packet of STAMP has 44 bytes"):
        small.probes_of(Mode.STAMP)
