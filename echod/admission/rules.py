"""The rules of a config, compiled: for a worker, which applies them, and for `echod check --source`.

Owns the way from a config to `Access` and `Rules`, so that both have the same. Invariant: a config has one meaning.
"""

from collections.abc import Iterable

from echod.admission.admission import Access, Rules
from echod.config.schema import AccessConfig, Config


def compile_access(config: AccessConfig) -> Access:
    """Compile the access lists."""
    return Access(
        allow=[network for entry in config.allow for network in entry.networks],
        deny=[network for entry in config.deny for network in entry.networks],
    )


def compile_rules(config: Config, access: Access, own_ports: Iterable[int]) -> Rules:
    """Compile the rules on peers. `own_ports` are the ports of all UDP listeners, and that of self tests."""
    return Rules(
        access,
        own_ports=own_ports,
        min_source_port=config.guard.min_source_port,
        refuse_source_ports=config.guard.refuse_source_ports,
    )
