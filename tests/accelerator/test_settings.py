"""echod.accelerator.settings: what a config declares is declared on a host by its own addresses."""

import subprocess
import sys
from ipaddress import ip_network

from support.daemon import REPOSITORY, environment

from echod.accelerator.declaration import declare
from echod.config.parse import parse_config


def test_own_addresses_are_those_of_the_host() -> None:
    """All else stays, whatever they are."""
    settings = declare(parse_config(b"listeners: [udp://0.0.0.0:7]\nkernel: {interfaces: [lo]}")[0])
    own = (ip_network("10.0.0.1"),)
    declared = settings.on_host(own)
    assert declared.rules.own_addresses == own
    assert declared.rules.own_ports == {7}
    assert declared.listeners == settings.declared.listeners
    assert settings.on_host(()) == settings.declared


def test_the_accelerator_does_not_load_what_a_config_is_read_with() -> None:
    """Pydantic and the YAML parser would double its memory."""
    program = "import sys, echod.cli.accelerate; sys.exit(bool({'pydantic', 'yaml'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=environment(), check=True)
