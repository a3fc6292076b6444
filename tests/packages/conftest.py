"""What the tests of packages ask for: sdist and wheel, and an environment with echod, each made once."""

from pathlib import Path

import pytest
from support.distribution import Distribution, install, make_distribution


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """Build sdist and wheel as a release does."""
    return make_distribution(tmp_path_factory.mktemp("distribution"))


@pytest.fixture(scope="session")
def prefix(distribution: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own."""
    path = tmp_path_factory.mktemp("prefix") / "venv"
    install(distribution, tmp_path_factory.mktemp("wheels"), path)
    return path
