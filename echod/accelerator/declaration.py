"""What the kernel is to repeat, and where, as a config declares it.

Owns the way from a config to `Settings`. Invariant: it is the config of the daemon, read alike: the same listeners,
rules and limits.
"""

from echod.accelerator.settings import Settings
from echod.bpf.layout import Driver
from echod.bpf.maps import Declaration
from echod.bpf.options import Limits
from echod.config.schema import Config
from echod.net.listener import Protocol
from echod.worker.rules import declare_rules


def declare(config: Config) -> Settings:
    """Return what a config declares, on any host."""
    # What is more than an echo, the kernel cannot repeat.
    listeners = tuple(
        each for each, options in config.listeners.items() if each.protocol is Protocol.UDP and options.plain
    )
    limits = config.limits
    declared = Declaration(
        rules=declare_rules(config, config.listeners, own=()),
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
    return Settings(
        interfaces=tuple(config.kernel.interfaces),
        driver=Driver(config.kernel.driver),
        log_level=config.log.level,
        log_destination=config.log.format,
        declared=declared,
    )
