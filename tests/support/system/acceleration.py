"""The accelerator of a host: its unit, what it counts, and a client that the kernel answers.

Owns no state: each call asks the host anew.
"""

import json
import socket
from typing import Any, Final

from support.system.operating import CONFIG, PORT, Host
from support.waiting import SECONDS, wait_until

ACCELERATOR: Final = "echod-accelerate.service"
INTERFACES: Final = "kernel:\n  interfaces: [eth0]\n"
"""What a config must have for it: the wire to the clients."""
NOTHING_CONFIGURED: Final = (
    f"does not start: {CONFIG} has no kernel.interfaces: write those where the kernel is to reply"
)
"""What it tells systemd without that."""


def switch_on(host: Host) -> None:
    """Configure it on a host with echod, enable it and start it, as echod-accelerate(8) has it."""
    host.configure(INTERFACES)
    host.run(["systemctl", "enable", "--quiet", "--now", "echod-accelerate"])


def state(host: Host) -> str:
    """Return what systemd says of the unit."""
    return host.show("ActiveState", ACCELERATOR)


def process(host: Host) -> int:
    """Return its process id, as the host numbers it; 0 if it does not run."""
    return int(host.show("MainPID", ACCELERATOR))


def events(host: Host, event: str) -> list[dict[str, Any]]:
    """Return its journal entries of one kind."""
    return host.journal(f"--unit={ACCELERATOR}", f"ECHOD_EVENT={event}")


def replied(host: Host) -> int:
    """Return how many datagrams the kernel has replied to, as its status file counts them, when there is one."""
    read = ["cat", "/run/echod-accelerate/status.json"]
    status = json.loads(wait_until(lambda: host.run(read, check=False).stdout, "there is a status"))
    return sum(each["replied"] for each in status["traffic"])


def await_kernel(host: Host) -> None:
    """Ask from outside until the kernel has replied; each reply must be right, whoever it came from."""
    before = replied(host)
    with host.client(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.connect((host.address, PORT))

        def kernel_replies() -> bool:
            client.send(b"hello")
            assert client.recv(65_536) == b"hello"
            return replied(host) > before

        wait_until(kernel_replies, "the kernel replied")
