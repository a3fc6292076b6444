"""The errors of accept(2), and how long to pause if this host lacks the resources for another connection."""

import errno
from typing import Final

ACCEPT_PAUSE_SECONDS: Final = 1.0
"""Without a descriptor or memory for accept(2), the backlog waits so long, or until a connection ends."""

CONNECTION_ERRORS: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
    }
)
"""Errors of a connection that broke while it waited; the next one may be intact. All other errors, such as EMFILE,
concern the process or the host, and need time."""
