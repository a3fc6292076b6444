"""The modes of a run: what carries its probes, with which key, and of which sizes.

Owns the reading of the key. Invariant: the key is shown nowhere.
"""

from pathlib import Path
from secrets import randbelow
from typing import Final

from echod.errors import UsageError
from echod.measurement.payload import HEADER_BYTES
from echod.net.mode import Mode
from echod.probes.frames import Frame, PlusFrame, StampFrame

DEFAULT_SIZE: Final = 56
"""Bytes, as ping's."""

MAX_KEY_BYTES: Final = 1024

_FIRST_OFFSET: Final = 2**30
"""Least number that a STAMP session begins behind, and how many more there are: far from what a reflector counts, and
from the end of the numbers."""


def read_key(path: Path) -> bytes:
    """Read the key of authenticated STAMP: the bytes of the file, without a newline at its end. Raises UsageError."""
    try:
        with path.open("rb") as file:
            key = file.read(MAX_KEY_BYTES + 2).removesuffix(b"\n")
    except OSError as error:
        raise UsageError(f"ping: --key {path}: {error.strerror}") from None
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise UsageError(f"ping: --key {path}: a key has 1 to {MAX_KEY_BYTES} bytes: this file has none, or more")
    return key


def make_frame(mode: Mode, *, key: bytes, ssid: int, tos: int | None) -> Frame | None:
    """Return what carries the probes of a mode; None for those of a plain echo."""
    if mode is Mode.UDPECHO_PLUS:
        return PlusFrame()
    if mode is not Mode.STAMP:
        return None
    return StampFrame(key=key, ssid=ssid, dscp=(tos or 0) >> 2, offset=_FIRST_OFFSET + randbelow(_FIRST_OFFSET))


def fitting_sizes(sizes: tuple[int, ...] | None, frame: Frame | None) -> tuple[int, ...]:
    """Return the sizes of probes, in bytes of payload; by default one with room for the whole header of a probe.

    Raises UsageError if one is too small for the frame.
    """
    if frame is None:
        return sizes or (DEFAULT_SIZE,)
    for size in sizes or ():
        frame.check(size)
    return sizes or (max(DEFAULT_SIZE, frame.start + HEADER_BYTES),)
