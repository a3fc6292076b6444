"""The limit of descriptors is raised as far as it takes and may be, and the operator hears where that is too little."""

import resource
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from support.loopback import as_nobody

from echod.linux.descriptors import allow_descriptors


def limited(soft: int, hard: int, wanted: int) -> Callable[[], Any]:
    """Make a function that wants so many under such limits, and returns the limits it has then and what was logged."""

    def allow() -> Any:  # noqa: ANN401 - for JSON
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with structlog.testing.capture_logs() as entries:
            allow_descriptors(wanted)
        return resource.getrlimit(resource.RLIMIT_NOFILE), entries

    return allow


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "got"),
    [(100, 200, 50, 100), (100, 200, 100, 100), (100, 200, 150, 150), (100, 200, 200, 200)],
)
def test_the_limit_is_raised_as_far_as_it_takes(soft: int, hard: int, wanted: int, got: int) -> None:
    """It is left alone where it is enough, raised to what is wanted and never beyond, and nothing is said."""
    assert as_nobody(limited(soft, hard, wanted)) == [[got, hard], []]


def test_a_limit_that_is_too_low_is_raised_as_far_as_it_may_be_and_told() -> None:
    """Where the hard limit is below what is wanted the entry has both numbers and says what to do."""
    limits, entries = as_nobody(limited(100, 200, 5000))
    assert limits == [200, 200]
    assert [(entry["event"], entry["log_level"], entry["wanted"], entry["limit"]) for entry in entries] == [
        ("descriptors_capped", "warning", 5000, 200)
    ]
    assert "can need 5,000 file descriptors and the limit is 200: raise LimitNOFILE=" in entries[0]["message"]


def test_a_limit_that_cannot_be_raised_is_told() -> None:
    """With soft and hard limit the same and too low there is nothing to raise, and the entry comes all the same."""
    limits, entries = as_nobody(limited(150, 150, 151))
    assert (limits, [entry["event"] for entry in entries]) == ([150, 150], ["descriptors_capped"])
