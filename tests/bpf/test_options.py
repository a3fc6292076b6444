"""echod.bpf.options: numbers that the programs mask with."""

import pytest

from echod.bpf.options import power_of_two


@pytest.mark.parametrize(
    ("number", "least", "expected"), [(1, 1, 1), (2, 1, 2), (3, 1, 4), (64, 1, 64), (65, 1, 128), (1, 2, 2), (3, 2, 4)]
)
def test_a_power_of_two_is_the_next_one(number: int, least: int, expected: int) -> None:
    """Never below the number, nor below the least."""
    assert power_of_two(number, least=least) == expected
