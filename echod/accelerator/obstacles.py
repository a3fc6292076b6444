"""Why this kernel, or this process, cannot repeat what the sockets replied.

Owns the sentences. It looks at the host only when something was refused, and for foreign sockets. Invariant: what the
kernel refuses becomes one sentence that says what to do.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from echod.errors import EchodError, KernelUnavailableError, NotPermittedError
from echod.linux import links, prctl
from echod.linux.bpf import ProgramRefusedError
from echod.net.listener import Listener

NEEDED: Final = {"CAP_BPF": prctl.CAP_BPF, "CAP_NET_ADMIN": prctl.CAP_NET_ADMIN}

_TABLES: Final = {4: "udp", 6: "udp6"}
_FORBIDDEN: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_NO_MEMORY: Final = (errno.ENOMEM, errno.E2BIG)
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_WHOLE_RANGE: Final = ["0", "0", "4294967295"]
"""The only line of the map of users that is none (user_namespaces(7))."""


def explain(error: OSError, release: str = "") -> EchodError:
    """Return the sentence for what the kernel has refused; `release` is that of the kernel, by default of this one."""
    release = release or os.uname().release
    refused = isinstance(error, ProgramRefusedError)
    if error.errno in _NO_DESCRIPTOR:
        return KernelUnavailableError("no descriptor is left for the maps and programs: raise LimitNOFILE=")
    if refused and links.has_tcx(release):
        return KernelUnavailableError(
            f"the verifier of this kernel ({release}) refuses a program of echod: please report what log.level: debug "
            "logs of it"
        )
    if refused or error.errno == errno.EINVAL:
        return KernelUnavailableError(
            f"this kernel ({release}) cannot attach programs to an interface (tcx): that needs Linux 6.6"
        )
    if error.errno in _FORBIDDEN:
        return NotPermittedError(_missing_permission())
    if error.errno in _NO_MEMORY:
        return KernelUnavailableError(
            "the kernel has no memory for the maps: lower limits.sources, or raise MemoryMax="
        )
    return KernelUnavailableError(f"the kernel refuses: {error.strerror}")


def _missing_permission() -> str:
    effective = prctl.capabilities()[0]
    missing = [name for name, mask in NEEDED.items() if not effective & mask]
    if missing:
        return (
            f"echod accelerate needs CAP_BPF and CAP_NET_ADMIN, and has no {' and no '.join(missing)}: start it by its "
            "unit or as root"
        )
    if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _WHOLE_RANGE:
        return (
            "the kernel loads no programs for a process in a user namespace: start echod accelerate outside of it, and "
            "without PrivateUsers="
        )
    return (
        "a filter of system calls forbids bpf(2): add bpf to SystemCallFilter= of the unit, or to the seccomp profile "
        "of the container"
    )


def find_foreign(listeners: Iterable[Listener]) -> str:
    """Return the sentence for a UDP socket of another process on the port of a listener; empty text if there is none.

    That is one on a single address, beside a listener on all: what it sends has a port of ours as its source, as the
    replies of the daemon have. Where /proc does not show sockets, none is found.
    """
    listeners = tuple(listeners)
    ours = {(each.address, each.port) for each in listeners}
    for listener in listeners:
        if listener.address.is_unspecified and not listener.zone:
            for address, port, user in _sockets(listener.address.version):
                if port == listener.port and (address, port) not in ours:
                    return (
                        f"a process of the user with the id {user} has a UDP socket at {address} on port {port}, which "
                        f"{listener} has too: the kernel would repeat what it sends, so end that process or change "
                        "the listener"
                    )
    return ""


def _sockets(version: int) -> Iterator[tuple[IPv4Address | IPv6Address, int, int]]:
    """Yield address, port and user of each UDP socket of this network namespace (proc_pid_net(5))."""
    try:
        lines = Path("/proc/self/net", _TABLES[version]).read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        words, _, port = fields[1].partition(":")
        packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
        yield ip_address(packed), int(port, 16), int(fields[7])
