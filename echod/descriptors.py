"""How many file descriptors this process and its children may have.

Owns the soft limit, which it raises as far as the hard one, and the words where that is not far enough.
"""

import resource
from contextlib import suppress

import structlog

_log = structlog.get_logger()


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit as far as it takes; the workers inherit it. Log where that is not far enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < target:
        with suppress(OSError):  # a sandbox may forbid it; the limit stays what it is
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
