"""The mark of a self test, by which echod distinguishes its own probes from all other traffic.

A probe comes from a port that echod chose, from an address of this host, and over UDP it carries a secret. So it can be
answered whatever the rules say about the host's own addresses, and be counted separately, at no cost for ordinary
traffic: the rules treat the port as one of echod's own, and only what they refuse for that is checked for the secret.
Owns the choice of the port and the form of the mark as a file. Invariant: without the mark, the rules would admit
datagrams from this port.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from echod.net.listener import MAX_PORT, Listener

SECRET_BYTES: Final = 32

_FIRST_PORT: Final = 16_384
_LAST_PORT: Final = 32_767
"""Below the ephemeral ports: those of Linux begin at 32,768 (ip(7), `ip_local_port_range`), others at 49,152 (RFC
6335). So no client has such a port by accident, and the quick check of a batch rarely has to fall back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """The mark of one generation of workers."""

    port: int
    """The source port of probes."""
    secret: bytes
    """The payload of a probe over UDP."""

    def pack(self) -> bytes:
        """Write it as JSON."""
        return json.dumps({"port": self.port, "secret": self.secret.hex()}).encode()

    @staticmethod
    def unpack(text: bytes) -> "SelfTest":
        """Read what `pack` wrote. Raises ValueError for anything else.

        Root probes from this port with this payload, so neither may be any: who may write to the directory wrote them.
        """
        try:
            fields = json.loads(text)
            port, secret = fields["port"], bytes.fromhex(fields["secret"])
        except (ValueError, KeyError, TypeError, RecursionError):
            port, secret = 0, b""
        if not isinstance(port, int) or not _FIRST_PORT <= port <= MAX_PORT or len(secret) != SECRET_BYTES:
            raise ValueError("it was written by another version of echod")
        return SelfTest(port=port, secret=secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of the probe through one listener."""

    listener: Listener
    seconds: float | None
    """From the probe to its answer; None if there was none."""
    problem: str = ""
    """Why there was no answer."""

    @property
    def passed(self) -> bool:
        """Tell whether the probe came back."""
        return self.seconds is not None


def choose_port(choose: Callable[[list[int]], int], *, taken: Collection[int], lowest: int) -> int | None:
    """Return a port for self tests, or None if none is left.

    `taken` are the ports of listeners and those that the config refuses, `lowest` is `guard.min_source_port`; `choose`
    picks one of the others at random.
    """
    last = _LAST_PORT if lowest <= _LAST_PORT else MAX_PORT
    free = [port for port in range(max(_FIRST_PORT, lowest), last + 1) if port not in taken]
    return choose(free) if free else None
