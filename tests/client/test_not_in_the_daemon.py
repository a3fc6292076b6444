"""The daemon has nothing of the client in memory."""

import re
from collections.abc import Callable

from running import Daemon, free_port

NEVER_LOADED = ("rich.", "matplotlib", "numpy", "prometheus_client", "echod.client")
"""An attempt to import rich is listed as "rich"; rich itself never comes without its submodules."""


def test_echod_run_loads_neither_the_client_nor_what_it_draws_with(echod: Callable[..., Daemon]) -> None:
    """A serving echod has imported no rich, no matplotlib, no prometheus_client and no module of echod.client."""
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    daemon = echod(config, variables={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = re.findall(r"^import time:.*\| +([\w.]+)$", daemon.stderr, re.MULTILINE)
    assert "echod.supervisor" in loaded
    assert [name for name in loaded if name.startswith(NEVER_LOADED)] == []
