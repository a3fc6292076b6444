"""What accept(2) may end in, and how long to wait where this host has no means for another connection."""

import errno
from typing import Final

ACCEPT_PAUSE_SECONDS: Final = 1.0
"""With no descriptor or memory left to accept with, the backlog waits so long, or until a connection ends."""

OF_ONE_CONNECTION: Final = frozenset(
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
"""What accept(2) says of a connection that broke while it waited; the next may be whole. All else is of the process
or the host, as EMFILE is, and needs time."""
