"""What the kernel is to repeat, as a config declares it.

Owns the way from a config to a `Declaration`. Invariant: it is the config of the daemon, read alike: the same
listeners, rules and limits.
"""

from collections.abc import Sequence

from echod.bpf.maps import Declaration
from echod.bpf.options import Limits
from echod.config.schema import Config
from echod.net.listener import Protocol
from echod.net.networks import Network
from echod.worker.rules import declare_rules


def declare(config: Config, own: Sequence[Network]) -> Declaration:
    """Return what a config declares, on a host that has these networks as its own."""
    listeners = tuple(each for each in config.listeners if each.protocol is Protocol.UDP)
    limits = config.limits
    return Declaration(
        rules=declare_rules(config, listeners, own),
        listeners=listeners,
        sources=limits.sources,
        fresh_seconds=config.kernel.fresh_seconds,
        stale_seconds=config.kernel.stale_seconds,
        limits=Limits(
            per_source=limits.datagrams_per_second,
            burst=limits.burst,
            total=limits.total_datagrams_per_second,
            slip=limits.slip,
            dry_run=limits.dry_run,
        ),
        loop_breaker=config.guard.loop_breaker,
    )
