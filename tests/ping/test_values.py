"""echod.ping.values: the values of the command line, and the sentence for each mistake."""

from collections.abc import Callable

import pytest

from echod.ping.values import (
    dscp_name,
    parse_duration,
    parse_number,
    parse_pattern,
    parse_sizes,
    parse_tos,
    percentage,
    short_percentage,
)

PATTERN = "write 1 to 16 bytes as hexadecimal digits, such as ff00"
NUMBER = "write a whole number from 1 to 9"


SECONDS = {"1": 1, "0.2": 0.2, ".5": 0.5, "0": 0, "50us": 5e-5, "200ms": 0.2, "1.5s": 1.5, "2m": 120, "1h": 3600}
SECONDS |= {"10000000": 10**7, "0.000001": 1e-6, "3.": 3}
SIZES = {"56": (56,), "64-67": (64, 65, 66, 67), "64,512,1472": (64, 512, 1472), "0,3-1": (0, 3, 2, 1)}
SERVICE_CLASSES = {"EF": 184, "af41": 136, "CS1": 32, "LE": 4, "0x10": 16, "16": 16, "0XFF": 255}


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (parse_duration, {text: round(seconds * 1e9) for text, seconds in SECONDS.items()}),
        (parse_sizes, SIZES),
        (parse_tos, SERVICE_CLASSES),
        (parse_pattern, {"ff00": b"\xff\0", "0xAb": b"\xab"}),
        (lambda text: parse_number(text, 1, 12), {"1": 1, "12": 12}),
    ],
)
def test_a_text_is_its_value(parse: Callable[[str], object], values: dict[str, object]) -> None:
    """Durations in ns; sizes by range or list; the byte of a service class, a name for its upper six bits; the rest."""
    assert {text: parse(text) for text in values} == values


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (parse_duration, "soon", '"soon" is not a duration: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (parse_duration, ".", '"." is not a duration: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (parse_duration, "-.5ms", '"-.5ms" is negative: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (parse_duration, "-x", '"-x" is not a duration: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (parse_sizes, "-5", '"-5" is negative: write bytes, such as 56, a range 64-1472 or a list 64,512,1472'),
        (parse_tos, "-1", '"-1" is negative: write 0 to 255, 0x00 to 0xff, or a DSCP name such as EF'),
        (lambda text: parse_number(text, 1, 9), "-1", f'"-1" is negative: {NUMBER}'),
        (parse_duration, "10000001", '"10000001" is too long: write at most 10000000 seconds'),
        (parse_sizes, "big", '"big" is not a size: write bytes, such as 56, a range 64-1472 or a list 64,512,1472'),
        (parse_sizes, "1,", '"" is not a size: write bytes, such as 56, a range 64-1472 or a list 64,512,1472'),
        (parse_sizes, "1-65536", "65536 bytes are too many for a datagram: write at most 65535"),
        (parse_pattern, "fff", f'"fff" is not a pattern: {PATTERN}'),
        (parse_pattern, "65535", f'"65535" is not a pattern: {PATTERN}; to set the port write HOST:65535'),
        (parse_pattern, "65536", f'"65536" is not a pattern: {PATTERN}'),
        (parse_pattern, "00" * 17, f'"{"00" * 17}" is not a pattern: {PATTERN}'),
        (parse_tos, "256", '"256" is not a TOS: write 0 to 255, 0x00 to 0xff, or a DSCP name such as EF'),
        (parse_tos, "fast", '"fast" is not a TOS: write 0 to 255, 0x00 to 0xff, or a DSCP name such as EF'),
        (lambda text: parse_number(text, 1, 9), "10", f'"10" is out of bounds: {NUMBER}'),
        (lambda text: parse_number(text, 1, 9), "7" * 13, f'"{"7" * 13}" is out of bounds: {NUMBER}'),
        (lambda text: parse_number(text, 1, 9), "x", f'"x" is not a number: {NUMBER}'),
    ],
)
def test_a_mistake_is_one_sentence(parse: Callable[[str], object], text: str, sentence: str) -> None:
    """It states the given text and what to write."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        parse(text)
    assert str(caught.value) == sentence


def test_a_dscp_has_a_name_or_is_a_number() -> None:
    """By RFC 2474 and those after it; 0 is a number, as nobody asks for it by name."""
    names = {46: "EF", 10: "AF11", 38: "AF43", 8: "CS1", 56: "CS7", 44: "VA", 1: "LE", 0: "0", 3: "3", 63: "63"}
    assert {value: dscp_name(value) for value in names} == names


def test_a_percentage_is_none_or_all_only_if_that_is_exact() -> None:
    """One probe lost among all that a run can send is a loss, and one reply among them is no loss of all."""
    shares = {0.0: "0%", 1.0: "100%", 0.5: "50%", 1 / 3: "33.3333%", 1 - 1e-9: "99.9999%", 2**-32: "0.000000023283%"}
    assert {share: percentage(share, 6) for share in shares} == shares
    assert [percentage(share, 3) for share in (0.9999, 1e-9)] == ["99.9%", "0.0000001%"]
    short = {0.0: "0.0%", 0.0001: "<0.1%", 0.0005: "0.1%", 0.5: "50.0%", 0.9994: "99.9%", 0.9999: ">99.9%", 1: "100.0%"}
    assert {share: short_percentage(share) for share in short} == short
