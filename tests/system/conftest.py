"""What the system tests ask for: a Debian, a host that runs it, and one that has echod installed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest
from support.system.host import obstacle
from support.system.image import LONG, RELEASES, Debian, make_root
from support.system.installation import Mode, Release, make_layer, make_release
from support.system.operating import Host

FIRST_SECONDS = 1000.0
"""More than it takes to make the Debian that a test boots."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time than others: the first of all may have to make its Debian.

    A test of both modes takes one mode on each Debian, and which one depends on its name; all four with ./tests/long.
    """
    ours = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in ours:
        item.add_marker(pytest.mark.timeout(FIRST_SECONDS))
    left = [item for item in ours if not (LONG or is_paired(item))]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


def is_paired(item: pytest.Item) -> bool:
    """Return whether a test runs in this mode on this Debian: each mode and each Debian has one of its two runs."""
    if not (isinstance(item, pytest.Function) and {"debian", "mode"} <= item.callspec.params.keys()):
        return True
    if any(mark.args[0] == "debian" for mark in item.iter_markers("parametrize")):
        return True  # it names its Debian itself
    mode, debian = (item.callspec.params[name] for name in ("mode", "debian"))
    numbers = crc32(item.originalname.encode()), list(Mode).index(mode), list(RELEASES).index(debian)
    return sum(numbers) % 2 == 0


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


@pytest.fixture(scope="session")
def release(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Make what an operator brings to a host of this Debian: the source tree and all wheels."""
    return make_release(debian, tmp_path_factory.mktemp(f"release-{debian.suite}"))


@pytest.fixture(scope="session")
def layers(debian: Debian, release: Release, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mode], Path]:
    """Install in a mode, once, and give the root of hosts that boot with that."""
    return cache(lambda mode: make_layer(debian, release, mode, tmp_path_factory.mktemp(f"{debian.suite}-{mode}")))


@pytest.fixture(scope="session")
def standing_hosts(layers: Callable[[Mode], Path]) -> Iterator[Callable[[Mode], Host]]:
    """Boot a host with echod in a mode, once, and keep it for all who ask."""
    with ExitStack() as stack:
        yield cache(lambda mode: stack.enter_context(Host(layers(mode))))


@pytest.fixture(params=list(Mode))
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each way in which echod can have its ports."""
    return Mode(request.param)


@pytest.fixture
def installed(layers: Callable[[Mode], Path], mode: Mode) -> Iterator[Host]:
    """Boot a host on which packaging/install has installed, enabled and started echod."""
    with Host(layers(mode)) as booted:
        yield booted


@pytest.fixture
def bound(layers: Callable[[Mode], Path]) -> Iterator[Host]:
    """Boot a host whose echod binds its own ports."""
    with Host(layers(Mode.BOUND)) as booted:
        yield booted


@pytest.fixture
def activated(layers: Callable[[Mode], Path]) -> Iterator[Host]:
    """Boot a host whose echod gets its ports from echod.socket."""
    with Host(layers(Mode.ACTIVATED)) as booted:
        yield booted


@pytest.fixture
def standing(standing_hosts: Callable[[Mode], Host], mode: Mode) -> Host:
    """Give a host with echod that other tests use too, for a test that leaves it as it was: to be quick."""
    return standing_hosts(mode)
