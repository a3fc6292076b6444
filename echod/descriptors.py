"""The number of file descriptors that this process and its children may have.

Owns the soft limit, which it raises up to the hard limit, and the warning if that is not enough.
"""

import resource
from contextlib import suppress

import structlog

_log = structlog.get_logger()


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit to `wanted`, if possible; the workers inherit it. Log if it is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < target:
        with suppress(OSError):  # a sandbox may forbid it; the limit is then unchanged
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < wanted:
        _log.warning(
            "descriptors_capped",
            message=f"this config can need {wanted:,} file descriptors and the limit is {limit:,}: raise LimitNOFILE= "
            "or lower tcp.max_connections; until then some connections wait to be accepted",
            wanted=wanted,
            limit=limit,
        )
