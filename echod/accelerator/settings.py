"""The part of a config that the accelerator needs, without what a config is read with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from echod.bpf.layout import Driver
from echod.bpf.maps import Declaration
from echod.net.networks import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A config, as far as it concerns the accelerator."""

    interfaces: tuple[str, ...]
    driver: Driver
    log_level: str
    log_destination: str
    declared: Declaration
    """Without own addresses."""

    def on_host(self, own: Sequence[Network]) -> Declaration:
        """Return what is declared on a host that has these networks as its own."""
        return replace(self.declared, rules=replace(self.declared.rules, own_addresses=tuple(own)))
