"""Values of the command line and the output: durations, sizes, patterns, service classes, percentages.

Owns their text forms. Invariant: each parser returns a value within its bounds, or raises ValueError with one sentence
that states what to write.
"""

import re
from typing import Final

from echod.measurement.payload import MAX_SIZE
from echod.net.listener import MAX_PORT
from echod.net.mode import SERVICE_CLASSES

NANOSECONDS: Final = {"": 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "m": 60 * 10**9, "h": 3600 * 10**9}
MAX_SECONDS: Final = 10**7
MAX_PATTERN: Final = 16

_DSCP_NAMES: Final = {value: name for name, value in SERVICE_CLASSES.items() if value}


def parse_duration(text: str) -> int:
    """Read seconds, or a number followed by us, ms, s, m or h; return ns."""
    found = re.fullmatch(r"([0-9]{0,9}(?:\.[0-9]{0,9})?)(us|ms|s|m|h|)", text)
    if not found or not re.search("[0-9]", found[1]):
        raise ValueError(f"{_fault(text, 'duration')}: write seconds, such as 0.2, or 50us, 200ms, 2m")
    whole, _, fraction = found[1].partition(".")
    nanoseconds = int(f"{whole or 0}{fraction:0<9}") * NANOSECONDS[found[2]] // 10**9
    if nanoseconds > MAX_SECONDS * 10**9:
        raise ValueError(f'"{text}" is too long: write at most {MAX_SECONDS} seconds')
    return nanoseconds


def parse_number(text: str, low: int, high: int) -> int:
    """Read a whole number within bounds."""
    if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
        fault = f'"{text}" is out of bounds' if re.fullmatch("[0-9]+", text) else _fault(text, "number")
        raise ValueError(f"{fault}: write a whole number from {low} to {high}")
    return int(text)


def parse_sizes(text: str) -> tuple[int, ...]:
    """Read a size, a range such as 64-1472, or a comma-separated list of both; sizes in bytes of payload."""
    sizes: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        if not found:
            advice = "write bytes, such as 56, a range 64-1472 or a list 64,512,1472"
            raise ValueError(f"{_fault(part, 'size')}: {advice}")
        first, last = int(found[1]), int(found[2] or found[1])
        if max(first, last) > MAX_SIZE:
            raise ValueError(f"{max(first, last)} bytes are too many for a datagram: write at most {MAX_SIZE}")
        sizes += range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return tuple(sizes)


def parse_pattern(text: str) -> bytes:
    """Read up to 16 bytes as hexadecimal digits."""
    digits = text.removeprefix("0x")
    if not re.fullmatch(f"(?:[0-9a-fA-F]{{2}}){{1,{MAX_PATTERN}}}", digits):
        port = f"; to set the port write HOST:{text}" if looks_like_port(text) else ""
        advice = f"write 1 to {MAX_PATTERN} bytes as hexadecimal digits, such as ff00"
        raise ValueError(f"{_fault(text, 'pattern')}: {advice}{port}")
    return bytes.fromhex(digits)


def parse_tos(text: str) -> int:
    """Read the TOS byte: a number (0x10, 16), or a DSCP name, such as EF, for the upper six bits."""
    if text.upper() in SERVICE_CLASSES:
        return SERVICE_CLASSES[text.upper()] << 2
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,2}", text):
        return int(text, 16)
    try:
        return parse_number(text, 0, 255)
    except ValueError:
        raise ValueError(f"{_fault(text, 'TOS')}: write 0 to 255, 0x00 to 0xff, or a DSCP name such as EF") from None


def dscp_name(value: int) -> str:
    """Return the name of a DSCP, or its number."""
    return _DSCP_NAMES.get(value, str(value))


def looks_like_port(text: str) -> bool:
    """Return whether a text could be a port number."""
    return re.fullmatch("[1-9][0-9]{0,4}", text) is not None and int(text) <= MAX_PORT


def _fault(text: str, noun: str) -> str:
    """Return what is wrong with a text that does not have the form of a value."""
    return f'"{text}" is {"negative" if re.match(r"-[.0-9]", text) else f"not a {noun}"}'


def percentage(share: float, digits: int) -> str:
    """Format a share of 1 as a percentage with this many significant digits.

    The result is 0% or 100% only if that is exact, and never has an exponent: a share of 1e-9 is 0.0000001%.
    """
    text = f"{100 * share:.{digits}g}"
    if share < 1 and float(text) >= 100:  # noqa: PLR2004 - per cent
        text = f"99.{'9' * (digits - 2)}"
    if "e" in text:
        text = f"{100 * share:.12f}".rstrip("0").rstrip(".")
    return f"{text}%"


def short_percentage(share: float) -> str:
    """Format a share of 1 as a percentage with one decimal, in six characters; a small loss is not 0.0%."""
    if 0 < share < 0.0005:  # noqa: PLR2004 - it would be rounded to 0
        return "<0.1%"
    if 0.9995 <= share < 1:  # noqa: PLR2004 - it would be rounded to 1
        return ">99.9%"
    return f"{100 * share:.1f}%"
