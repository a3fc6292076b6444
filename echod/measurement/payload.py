"""The payload of a probe, by which its reply is recognized.

Owns the layout, and the difference between a reply and its probe. Never remembers what was sent: `in_flight` does.
Invariant: a payload is a function of run, sequence number, send time, size and pattern alone, so it can be generated
again at any time and compared to what came back, byte by byte.

A frame puts the header of a measuring protocol before it, and the frame too is a function of number, time and payload.
What follows is then true of the payload within.

The header, in network byte order, is 24 bytes: sequence number (4), run (4), CRC-32 over the whole payload with this
field zero (4), magic (2), size of the payload (2), send time in ns since 1970 (8). The rest is a pattern. A payload
with less room carries as much of the header as fits, below four bytes the low end of the sequence number:

    12 to 23 bytes    no send time: a reply to a probe that is no longer remembered cannot be recognized
     4 to 11 bytes    no checksum either
     1 to  3 bytes    numbers repeat after 256, 65,536, ... probes, and damage may turn one number into another
     0 bytes          replies are attributed to the probes in flight in their order: neither reordering nor
                      duplicates can be detected
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final, Protocol, TypeVar
from zlib import crc32

MAX_SIZE: Final = 65_535
"""Most bytes of payload that the header can express; no datagram has more."""

SEQUENCE_BYTES: Final = 4
MAX_PROBES: Final = 2**32 - 1
"""Most probes of one run: more have no number."""
MAGIC: Final = 0xEC40

_HEADER: Final = Struct(">IIIHHQ")
HEADER_BYTES: Final = _HEADER.size
_CHECKSUM_AT: Final = 8
_CHECKSUM_END: Final = 12
_SENT_AT: Final = 16

MAX_CANDIDATES: Final = 64
"""Most probes, the oldest, that a damaged reply is compared to if not even its send time identifies its probe."""

Probe = TypeVar("Probe")


class Damage(Enum):
    """How a reply differs from the payload that was sent."""

    NONE = "none"
    TRUNCATED = "truncated"
    """It ends early; its bytes are right."""
    EXTENDED = "extended"
    """It has all bytes that were sent, and more after them."""
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference between a reply and its probe.

    `offset` is the first wrong, missing or extra byte, counted from zero; `count` is the number of such bytes.
    """

    damage: Damage
    offset: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header of a whole payload: its number, and its send time in ns since 1970."""

    sequence: int
    sent: int


class Frame(Protocol):
    """The packet of a measuring protocol, which carries the payload."""

    @property
    def start(self) -> int:
        """Bytes before the payload."""

    @property
    def offset(self) -> int:
        """What it adds to the number of a probe, modulo 2**32."""

    def request(self, sequence: int, sent: int, size: int, payload: bytes) -> bytes:
        """Return the packet, of `size` bytes, that is sent at this time, in ns since 1970."""


IDENTICAL: Final = Difference(damage=Damage.NONE)


class Payloads:
    """The payloads of one run of probes."""

    def __init__(self, run: int, pattern: bytes = b"", frame: Frame | None = None) -> None:
        """Take the run, 32 bits unique to it, and the pattern that fills the space after the header.

        Without a pattern each byte is its own offset modulo 256, as in ping. A frame carries each payload.
        """
        self.run = run
        self.start = frame.start if frame else 0
        """Where the header of a payload lies, in bytes."""
        self._frame = frame
        unit = pattern or bytes(range(256))
        self._filler = (unit * (MAX_SIZE // len(unit) + 1))[:MAX_SIZE]

    def encode(self, sequence: int, sent: int, size: int) -> bytes:
        """Return the payload of a probe: number, send time in ns since 1970, size in bytes up to `MAX_SIZE`.

        With a frame it is in that, and `size` is that of both.
        """
        if self._frame is None:
            return self._encode(sequence, sent, size)
        within = self._encode(sequence, sent, max(0, size - self.start))
        return self._frame.request(sequence, sent, size, within)

    def _encode(self, sequence: int, sent: int, size: int) -> bytes:
        if size >= HEADER_BYTES:
            rest = self._filler[HEADER_BYTES:size]
            checksum = crc32(rest, crc32(_HEADER.pack(sequence, self.run, 0, MAGIC, size, sent)))
            return _HEADER.pack(sequence, self.run, checksum, MAGIC, size, sent) + rest
        if size < SEQUENCE_BYTES:
            return sequence.to_bytes(SEQUENCE_BYTES, "big")[SEQUENCE_BYTES - size :]
        cut = _HEADER.pack(sequence, self.run, 0, MAGIC, size, sent)[:size]
        if size < _CHECKSUM_END:
            return cut
        return cut[:_CHECKSUM_AT] + crc32(cut).to_bytes(4, "big") + cut[_CHECKSUM_END:]

    def read(self, data: bytes) -> Header | None:
        """Return the header of a payload if that is whole and of this run; a payload without a full header has none."""
        within = data[self.start :]
        if len(within) < HEADER_BYTES:
            return None
        sequence, run, checksum, magic, size, sent = _HEADER.unpack_from(within)
        if (run, magic, size) != (self.run, MAGIC, len(within)):
            return None
        head = _HEADER.pack(sequence, run, 0, magic, size, sent)
        whole = crc32(within[HEADER_BYTES:], crc32(head)) == checksum
        if whole and self._frame:  # no checksum is over the frame
            whole = data == self.encode(sequence, sent, len(data))
        return Header(sequence=sequence, sent=sent) if whole else None

    def number(self, data: bytes) -> int:
        """Return the number of a probe, from the first `SEQUENCE_BYTES` of what was sent."""
        offset = self._frame.offset if self._frame else 0
        return (int.from_bytes(data[:SEQUENCE_BYTES], "big") - offset) % (1 << 8 * SEQUENCE_BYTES)

    def head(self, data: bytes) -> bytes:
        """Return the part of a payload that is not the same in all: its frame and its header."""
        return data[: self.start + HEADER_BYTES]

    def may_be_ours(self, data: bytes) -> bool:
        """Return whether the run in a payload, damaged or not, may be this one: without a checksum it may."""
        within = data[self.start :]
        return len(within) < _CHECKSUM_END or within[SEQUENCE_BYTES:_CHECKSUM_AT] == self.run.to_bytes(4, "big")


def sent_time(data: bytes, start: int = 0) -> int | None:
    """Return the send time in a payload, damaged or not, in ns since 1970; None if the payload is too short.

    `start` is where its header lies.
    """
    header = data[start : start + HEADER_BYTES]
    return int.from_bytes(header[_SENT_AT:], "big") if len(header) == HEADER_BYTES else None


def compare(data: bytes, expected: bytes) -> Difference:
    """Return how a reply differs from what was sent."""
    if data == expected:
        return IDENTICAL
    wrong = _differences(data, expected)
    if count := len(wrong) - wrong.count(0):
        return Difference(damage=Damage.CORRUPT, offset=len(wrong) - len(wrong.lstrip(b"\0")), count=count)
    damage = Damage.TRUNCATED if len(data) < len(expected) else Damage.EXTENDED
    return Difference(damage=damage, offset=len(wrong), count=abs(len(data) - len(expected)))


def most_similar(
    data: bytes,
    probes: Iterable[Probe],
    header: Callable[[Probe], bytes],
    payload: Callable[[Probe], bytes],
    start: int = 0,
) -> tuple[Probe, Difference] | None:
    """Return which of these probes a damaged reply is most similar to, and how it differs from it; None if to none.

    It is judged by the headers, which begin at `start`, and the frame before them, because the rest is the same in all
    probes. The first wins if several are as similar. But more than half of all its bytes must be right. An empty reply
    is similar to any probe: nothing in it contradicts that.
    """
    matches = [(probe, head) for probe in probes if may_match(data[start:], (head := header(probe))[start:])]
    if not matches:
        return None
    found, _ = min(matches, key=lambda match: len(_differences(data, match[1]).replace(b"\0", b"")))
    difference = compare(data, payload(found))
    similar = difference.damage is not Damage.CORRUPT or 2 * difference.count < len(data)
    return (found, difference) if similar else None


def _differences(one: bytes, other: bytes) -> bytes:
    """Return a byte for each that both strings have: zero where they agree. 60,000 of them take 20 us."""
    common = min(len(one), len(other))
    wrong = int.from_bytes(one[:common], "little") ^ int.from_bytes(other[:common], "little")
    return wrong.to_bytes(common, "little")


def may_match(data: bytes, expected: bytes) -> bool:
    """Return whether a damaged reply may belong to this probe: its run matches, or both its number and its checksum.

    The pattern is the same in all probes and proves nothing. Below twelve bytes nothing excludes it.
    """
    if min(len(data), len(expected)) < _CHECKSUM_END:
        return True
    if data[SEQUENCE_BYTES:_CHECKSUM_AT] == expected[SEQUENCE_BYTES:_CHECKSUM_AT]:
        return True
    number, checksum = slice(SEQUENCE_BYTES), slice(_CHECKSUM_AT, _CHECKSUM_END)
    return data[number] == expected[number] and data[checksum] == expected[checksum]
