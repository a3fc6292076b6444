"""echod.bpf.options: what programs are made for, and numbers that they mask with."""

import pytest

from echod.bpf.layout import TCX, XDP, Hook, LinkKind
from echod.bpf.options import Build, Options, Tables, power_of_two


@pytest.mark.parametrize(
    ("number", "least", "expected"), [(1, 1, 1), (2, 1, 2), (3, 1, 4), (64, 1, 64), (65, 1, 128), (1, 2, 2), (3, 2, 4)]
)
def test_a_power_of_two_is_the_next_one(number: int, least: int, expected: int) -> None:
    """Never below the number, nor below the least."""
    assert power_of_two(number, least=least) == expected


def test_a_build_is_for_a_hook() -> None:
    """Whose kind and place the steps ask for."""
    tables = Tables(**dict.fromkeys(Tables.__slots__, 0))
    options = Options(cpus=2, rows=2, seed=1, loop_breaker=True, newcomers=1, fresh_ns=1, stale_ns=2)
    for hook, abi, is_xdp in (
        (Hook(LinkKind.BARE), TCX, False),
        (Hook(LinkKind.ETHERNET, bytes(6)), XDP, True),
    ):
        build = Build(hook=hook, tables=tables, options=options)
        assert (build.kind, build.abi, build.is_xdp) == (hook.kind, abi, is_xdp)
