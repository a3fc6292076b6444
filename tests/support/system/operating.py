"""What an operator does on a host with echod, and what a client does at the other end of the wire.

Owns no state: each call asks the host anew. Operators use systemctl, journalctl and the file; clients use sockets.
"""

import socket
from contextlib import suppress
from typing import Any

from support.system.host import BootedHost
from support.system.installation import Mode
from support.waiting import SECONDS, wait_until

UNIT = "echod.service"
CONFIG = "/etc/echod.yaml"
OK = f"{CONFIG}: ok; listeners: udp://0.0.0.0:7, udp://[::]:7, tcp://0.0.0.0:7, tcp://[::]:7\n"
"""What `echod check` prints of the default config."""
PORT = 7
NET_BIND_SERVICE = 1 << 10  # linux/capability.h
BACK_SECONDS = 30.0  # a second when idle; less than it takes the watchdog of the unit to strike


class Host(BootedHost):
    """A host that has echod, or is to have it."""

    # -- what an operator does

    def show(self, name: str, unit: str = UNIT) -> str:
        """Return one property of a unit."""
        return self.run(["systemctl", "show", f"--property={name}", "--value", unit]).stdout.strip()

    def systemctl(self, verb: str, *units: str, check: bool = True) -> int:
        """Run a command of systemctl, on echod.service unless told otherwise, and return its status."""
        return self.run(["systemctl", verb, *(units or [UNIT])], check=check).returncode

    def configure(self, text: str, verb: str = "reload") -> None:
        """Write the config, and let echod have it: by a reload, or a restart."""
        self.write(CONFIG, text)
        self.systemctl(verb)

    def drop_in(self, text: str, name: str = "test.conf", unit: str = UNIT) -> None:
        """Put a drop-in beside a unit, for the next start."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}", text)
        self.daemon_reload()

    def daemon_reload(self) -> None:
        """Have systemd read its units again."""
        self.run(["systemctl", "daemon-reload"])

    def add_address(self, address: str) -> None:
        """Give the host an address with its prefix length, usable at once, if it has not got it yet."""
        options = ["nodad"] if ":" in address else []
        self.run(["ip", "address", "replace", address, "dev", "eth0", *options])

    def supervisor(self) -> int:
        """Return the process id of the supervisor, as the host numbers it."""
        return int(self.show("MainPID"))

    def workers(self) -> set[int]:
        """Return the process ids of the workers, as the host numbers them."""
        listing = self.run(["pgrep", "--full", "^echod: worker"], check=False).stdout
        return {int(pid) for pid in listing.split()}

    def kill(self, signal: str, *pids: int) -> None:
        """Send a signal to processes of the host."""
        self.run(["kill", f"-{signal}", *map(str, pids)])

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return echod's journal entries of one kind, as an operator finds them."""
        return self.journal("--unit=echod", f"ECHOD_EVENT={event}")

    def await_event(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Return echod's journal entries of one kind as soon as there are so many."""
        return wait_until(lambda: found if len(found := self.events(event)) >= count else [], f"{count} times {event}")

    def assert_unprivileged(self, mode: Mode, pid: int) -> None:
        """Assert that a process could never have any capability but, where echod binds, CAP_NET_BIND_SERVICE."""
        status = dict(line.split(":\t", 1) for line in self.read(f"/proc/{pid}/status").splitlines())
        most = NET_BIND_SERVICE if mode is Mode.BOUND else 0
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {most}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert "0" not in status["Uid"].split()

    # -- what a client does

    def ask(self, payload: bytes = b"hello", *, address: str = "", port: int = PORT, timeout: float = SECONDS) -> bytes:
        """Return the answer to one datagram, which must come from the address asked, or TimeoutError."""
        address = address or self.address
        with self.client(), socket.socket(family(address), socket.SOCK_DGRAM) as client:
            client.settimeout(timeout)
            client.connect((address, port))  # from now on the kernel drops what comes from anywhere else
            client.send(payload)
            return client.recv(65_536)

    def converse(self, payload: bytes = b"hello", *, address: str = "", port: int = PORT) -> bytes:
        """Return what the host answers to a TCP stream, to its end."""
        with self.client(), socket.create_connection((address or self.address, port), timeout=SECONDS) as client:
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := client.recv(65_536):
                answer += chunk
            return answer

    def answers(self, *, port: int = PORT) -> bool:
        """Tell whether the host answers just now, for `wait_until`; that it does is proved by `ask`, which waits."""
        with suppress(OSError):
            return self.ask(port=port, timeout=0.2) == b"hello"
        return False

    def await_answer(self) -> None:
        """Return when the host answers."""
        wait_until(self.answers, "an answer from outside", seconds=BACK_SECONDS)

    def serves_everything(self) -> bool:
        """Ask over both protocols and both families; each answer must be right."""
        addresses = (self.address, self.address6)
        return all(self.ask(address=one) == b"hello" == self.converse(address=one) for one in addresses)


def family(address: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
