"""What an operator does on a host with echod, and what a client does at the other end of the wire.

Owns no state: each call asks the host anew. Operators use systemctl, journalctl and the file; clients use sockets.
"""

import socket
from contextlib import suppress
from typing import Any

from support.system.host import Host
from support.system.installation import Mode
from support.waiting import wait_until

UNIT = "echod.service"
CONFIG = "/etc/echod.yaml"
PORT = 7
TIMEOUT = 5.0
NET_BIND_SERVICE = 1 << 10  # linux/capability.h
BACK_SECONDS = 30.0  # a second when idle; less than it takes the watchdog of the unit to strike


def show(host: Host, name: str, unit: str = UNIT) -> str:
    """Return one property of a unit."""
    return host.run(["systemctl", "show", f"--property={name}", "--value", unit]).stdout.strip()


def systemctl(host: Host, verb: str, *units: str, check: bool = True) -> int:
    """Run a command of systemctl, on echod.service unless told otherwise, and return its status."""
    return host.run(["systemctl", verb, *(units or [UNIT])], check=check).returncode


def supervisor(host: Host) -> int:
    """Return the process id of the supervisor, as the host numbers it."""
    return int(show(host, "MainPID"))


def workers(host: Host) -> set[int]:
    """Return the process ids of the workers, as the host numbers them."""
    listing = host.run(["pgrep", "--full", "^echod: worker"], check=False).stdout
    return {int(pid) for pid in listing.split()}


def kill(host: Host, signal: str, *pids: int) -> None:
    """Send a signal to processes of the host."""
    host.run(["kill", f"-{signal}", *map(str, pids)])


def assert_unprivileged(host: Host, mode: Mode, pid: int) -> None:
    """Assert that a process could never have any capability but, where echod binds, CAP_NET_BIND_SERVICE."""
    status = dict(line.split(":\t", 1) for line in host.read(f"/proc/{pid}/status").splitlines())
    most = NET_BIND_SERVICE if mode is Mode.BOUND else 0
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {most}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split()


def drop_in(host: Host, text: str, name: str = "test.conf", unit: str = UNIT) -> None:
    """Put a drop-in beside a unit, for the next start."""
    host.write(f"/etc/systemd/system/{unit}.d/{name}", text)
    host.run(["systemctl", "daemon-reload"])


def add_address(host: Host, address: str) -> None:
    """Give the host an address with its prefix length, usable at once, if it has not got it yet."""
    options = ["nodad"] if ":" in address else []
    host.run(["ip", "address", "replace", address, "dev", "eth0", *options])


def events(host: Host, event: str) -> list[dict[str, Any]]:
    """Return echod's journal entries of one kind, as an operator finds them."""
    return host.journal("--unit=echod", f"ECHOD_EVENT={event}")


def await_event(host: Host, event: str, count: int = 1) -> list[dict[str, Any]]:
    """Return echod's journal entries of one kind as soon as there are so many."""
    return wait_until(
        lambda: found if len(found := events(host, event)) >= count else [], f"{count} times {event}", seconds=10
    )


def ask(
    host: Host, payload: bytes = b"hello", *, address: str = "", port: int = PORT, timeout: float = TIMEOUT
) -> bytes:
    """Return what the host answers to one datagram; the answer must come from the address asked, or TimeoutError."""
    address = address or host.address
    with host.client(), socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))  # from now on the kernel drops what comes from anywhere else
        client.send(payload)
        return client.recv(65_536)


def converse(
    host: Host, payload: bytes = b"hello", *, address: str = "", port: int = PORT, timeout: float = TIMEOUT
) -> bytes:
    """Return what the host answers to a TCP stream, to its end."""
    with host.client(), socket.create_connection((address or host.address, port), timeout=timeout) as client:
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := client.recv(65_536):
            answer += chunk
        return answer


def answers(host: Host, *, port: int = PORT) -> bool:
    """Tell whether the host answers just now; for `until`."""
    with suppress(OSError):
        return ask(host, port=port, timeout=0.2) == b"hello"
    return False


def await_answer(host: Host, seconds: float = BACK_SECONDS) -> None:
    """Return when the host answers; it must within so many seconds."""
    wait_until(lambda: answers(host), "an answer from outside", seconds=seconds)


def serves_everything(host: Host) -> bool:
    """Ask over both protocols and both families; each answer must be right."""
    addresses = (host.address, host.address6)
    return all(ask(host, address=one) == b"hello" == converse(host, address=one) for one in addresses)


def family(address: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
