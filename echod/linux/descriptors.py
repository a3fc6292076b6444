"""The file descriptors of this process and its children: the first three, and how many there may be.

Owns the soft limit, which it raises up to the hard limit. Never says what that is for.
"""

import os
import resource
from contextlib import suppress


def fill_first_three() -> None:
    """Open on /dev/null those of descriptors 0 to 2 that the caller closed: no socket must get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stderr
        pass
    os.close(fd)


def raise_limit(wanted: int) -> int:
    """Raise the soft limit to `wanted`, if possible, for this process and its children; return the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < target:
        with suppress(OSError):  # a sandbox may forbid it; the limit is then unchanged
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
