"""echod.ping.values: what an operator writes, and the sentence where it cannot be."""

from collections.abc import Callable

import pytest

from echod.ping.values import (
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


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1", 10**9),
        ("0.2", 2 * 10**8),
        (".5", 5 * 10**8),
        ("0", 0),
        ("50us", 50000),
        ("200ms", 2 * 10**8),
        ("1.5s", 15 * 10**8),
        ("2m", 120 * 10**9),
        ("1h", 3600 * 10**9),
        ("10000000", 10**16),
        ("0.000001", 1000),
        ("3.", 3 * 10**9),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    """Seconds, or a unit behind."""
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("56", (56,)), ("64-67", (64, 65, 66, 67)), ("64,512,1472", (64, 512, 1472)), ("0,3-1", (0, 3, 2, 1))],
)
def test_sizes(text: str, sizes: tuple[int, ...]) -> None:
    """One, a range either way, or several of both."""
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize(
    ("text", "tos"), [("EF", 184), ("af41", 136), ("CS1", 32), ("LE", 4), ("0x10", 16), ("16", 16), ("0XFF", 255)]
)
def test_service_classes(text: str, tos: int) -> None:
    """A name stands for the upper six bits, a number for the byte."""
    assert parse_tos(text) == tos


def test_patterns_and_numbers() -> None:
    """Hexadecimal with or without its sign."""
    assert (parse_pattern("ff00"), parse_pattern("0xAb"), parse_number("12", 1, 12)) == (b"\xff\0", b"\xab", 12)


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (parse_duration, "soon", '"soon" is not a duration: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (parse_duration, ".", '"." is not a duration: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (parse_duration, "-1", '"-1" is negative: write seconds, such as 0.2, or 50us, 200ms, 2m'),
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
def test_what_cannot_be_is_one_sentence(parse: Callable[[str], object], text: str, sentence: str) -> None:
    """It says what was written and what to write."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        parse(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.0, 6, "0%"),
        (1.0, 6, "100%"),
        (0.5, 6, "50%"),
        (1 / 3, 6, "33.3333%"),
        (1 - 1e-9, 6, "99.9999%"),
        (0.9999, 3, "99.9%"),
        (1 / (2**32 - 1), 6, "0.000000023283%"),
        (1e-9, 3, "0.0000001%"),
    ],
)
def test_a_percentage_is_none_or_all_only_if_that_is_exact(share: float, digits: int, text: str) -> None:
    """One probe lost among all that a run can send is a loss, and one answered is no loss of all."""
    assert percentage(share, digits) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0%"),
        (0.0001, "<0.1%"),
        (0.0005, "0.1%"),
        (0.5, "50.0%"),
        (0.9994, "99.9%"),
        (0.9999, ">99.9%"),
        (1.0, "100.0%"),
    ],
)
def test_where_there_is_little_room_a_percentage_is_none_or_all_only_if_exact(share: float, text: str) -> None:
    """A column of six characters."""
    assert short_percentage(share) == text
    assert len(text) <= 6
