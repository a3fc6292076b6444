"""The file descriptors of this process and its children: the first three, and how many there may be.

Owns the soft limit, which it raises up to the hard limit, and the warning if that is not enough.
"""

import os
import resource
from contextlib import suppress

import structlog

_log = structlog.get_logger()


def fill_first_three() -> None:
    """Open on /dev/null those of descriptors 0 to 2 that the caller closed: no socket must get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stderr
        pass
    os.close(fd)


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
