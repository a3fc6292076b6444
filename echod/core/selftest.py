"""The mark of a self test: by what echod tells its own probes from all other traffic.

A probe comes from a port that echod chose, from an address of this host, and over UDP it says a secret. So it can be
answered whatever the rules say of the host's own addresses, and be counted apart, while ordinary traffic pays no look
for it: the port is one of echod's own to the rules, and only what they refuse for that is looked at again. Owns the
choice of the port and the form of the mark as a file. Invariant: the port is one from which the rules, but for the
mark, would let anybody ask.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from echod.core.listener import MAX_PORT, Listener

SECRET_BYTES: Final = 32

_FIRST_PORT: Final = 16_384
_LAST_PORT: Final = 32_767
"""Below those that hosts give to outgoing connections: Linux from 32,768 on (ip(7), `ip_local_port_range`), others from
49,152 (RFC 6335). So no client has one of them but on purpose, and the look over a batch need not doubt many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """The mark of one generation of workers."""

    port: int
    """Where probes come from."""
    secret: bytes
    """What a probe over UDP says."""

    def pack(self) -> bytes:
        """Write it as JSON."""
        return json.dumps({"port": self.port, "secret": self.secret.hex()}).encode()

    @staticmethod
    def unpack(text: bytes) -> "SelfTest":
        """Read what `pack` wrote. Raises ValueError where it is something else."""
        try:
            told = json.loads(text)
            return SelfTest(port=int(told["port"]), secret=bytes.fromhex(told["secret"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError("it was written by another version of echod") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the probe through one listener."""

    listener: Listener
    seconds: float | None
    """From the probe to its answer; None where there was none."""
    problem: str = ""
    """Why there was none."""

    @property
    def passed(self) -> bool:
        """Tell whether the probe came back."""
        return self.seconds is not None


def choose_port(choose: Callable[[list[int]], int], *, taken: Collection[int], lowest: int) -> int | None:
    """Return a port for self tests, or None where there is none left.

    `taken` are the ports of listeners and those that the config refuses, `lowest` is `guard.min_source_port`; `choose`
    takes one of the others by chance.
    """
    last = _LAST_PORT if lowest <= _LAST_PORT else MAX_PORT
    free = [port for port in range(max(_FIRST_PORT, lowest), last + 1) if port not in taken]
    return choose(free) if free else None
