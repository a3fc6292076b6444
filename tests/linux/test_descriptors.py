"""The soft limit of descriptors is raised as far as needed and allowed."""

import resource

import pytest
from support.loopback import as_nobody

from echod.linux.descriptors import raise_limit


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "got"),
    [(100, 200, 50, 100), (100, 200, 100, 100), (100, 200, 150, 150), (100, 200, 5000, 200), (150, 150, 151, 150)],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(soft: int, hard: int, wanted: int, got: int) -> None:
    """A limit that is enough stays; any other becomes what is wanted, at most the hard limit, and is returned."""

    def raised() -> list[int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return [raise_limit(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE)]

    assert as_nobody(raised) == [got, got, hard]
