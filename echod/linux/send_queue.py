"""Messages for a socket that may have no room for them at once.

Owns the messages that wait, in order. Never blocks. Invariant: at most one message of each kind waits, the last one.
"""

from collections.abc import Callable


class SendQueue:
    """The messages that one socket has yet to take."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        """Take the function that sends one message, and raises BlockingIOError if there is no room for it."""
        self.pending: dict[bytes, bytes] = {}
        """By kind, in the order in which they will be sent."""
        self._send = send

    def put(self, kind: bytes, message: bytes) -> None:
        """Send a message after those that wait; it replaces one of the same kind."""
        self.pending.pop(kind, None)
        self.pending[kind] = message
        self.flush()

    def flush(self) -> None:
        """Send what waits, while there is room. Call it once a second."""
        for kind in tuple(self.pending):
            try:
                self._send(self.pending[kind])
            except BlockingIOError:
                return
            except OSError:
                pass  # nobody reads it: the receiver has gone, or is a new one
            del self.pending[kind]
