"""A poll that is refused further descriptors, as on a host at its limit."""

import errno
import os

from echod.linux.poll import OnReady, Poll


class LimitedPoll(Poll):
    """A poll on a host that soon watches no more (`fs.epoll.max_user_watches`)."""

    left = 1 << 20
    """How many it still watches."""

    def register(self, fd: int, events: int, on_ready: OnReady, *, busy: bool = False) -> None:
        """Watch one more, if there is one left."""
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1
        super().register(fd, events, on_ready, busy=busy)
