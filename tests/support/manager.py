"""The receiving end of sd_notify(3). Owns the socket, and the messages that came."""

import socket
from contextlib import suppress

from support.waiting import SECONDS, wait_until

Message = dict[str, str]


class Manager:
    """The receiving end of sd_notify(3): a socket of the test's own."""

    def __init__(self, address: str) -> None:
        """Bind it."""
        self.variables = {"NOTIFY_SOCKET": address}
        self.messages: list[Message] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address.replace("@", "\0", 1))
        self._sock.setblocking(False)

    def received(self, line: str) -> list[Message]:
        """Receive what has arrived; return the messages that have this line."""
        try:
            while True:
                self.messages.append(dict(each.split("=", 1) for each in self._sock.recv(4096).decode().splitlines()))
        except BlockingIOError:
            name, _, value = line.partition("=")
            return [message for message in self.messages if message.get(name) == value]

    def wait_for(self, line: str, count: int = 1, *, seconds: float = SECONDS) -> Message:
        """Wait for the count-th message that has this line."""
        found = wait_until(lambda: self.received(line)[count - 1 :], f"{line} came {count} times", seconds=seconds)
        return found[0]

    def fill(self) -> None:
        """Fill the queue with messages of another sender."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            other.connect(self._sock.getsockname())
            while True:
                other.send(b"X=1")

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
