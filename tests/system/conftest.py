"""What the system tests ask for: a Debian, and a host that runs it."""

from collections.abc import Iterator

import pytest
from system.host import Host, obstacle
from system.image import RELEASES, Debian, make_root


@pytest.fixture(scope="session", params=list(RELEASES))
def debian(request: pytest.FixtureRequest) -> Debian:
    """Give each Debian that is supported, with its root made."""
    if reason := obstacle():
        pytest.skip(reason)
    return make_root(request.param)


@pytest.fixture
def host(debian: Debian) -> Iterator[Host]:
    """Boot a clean host, with nothing installed."""
    with Host(debian.root) as booted:
        yield booted
