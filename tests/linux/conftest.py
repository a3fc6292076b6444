"""What the tests of facilities of the kernel share."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from echod.linux.poll import Poll


@pytest.fixture
def poll() -> Iterator[Poll]:
    """Make an empty poll."""
    poll = Poll()
    yield poll
    poll.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close at the end what a test opens."""
    with ExitStack() as stack:
        yield stack
