"""The rules that a config declares: for a worker, which applies them, and for `echod check --source`.

Owns the way from a config to a `RuleSet`, so that both have the same. Invariant: a config has one meaning.
"""

from collections.abc import Iterable

from echod.admission.rules import RuleSet
from echod.config.schema import Config
from echod.net.listener import Listener, Protocol
from echod.net.networks import Network


def declare_rules(
    config: Config, listeners: Iterable[Listener], own: Iterable[Network], self_test_port: int | None = None
) -> RuleSet:
    """Return the rules of a config for a host that serves these listeners and has these networks as its own."""
    own_ports = {listener.port for listener in listeners if listener.protocol is Protocol.UDP}
    if self_test_port is not None:
        own_ports.add(self_test_port)
    return RuleSet(
        allow=tuple(network for entry in config.access.allow for network in entry.networks),
        deny=tuple(network for entry in config.access.deny for network in entry.networks),
        own_ports=frozenset(own_ports),
        min_source_port=config.guard.min_source_port,
        refuse_source_ports=frozenset(config.guard.refuse_source_ports),
        own_addresses=tuple(own),
    )
