"""What the server of a reveal listener saw of a probe, from each source port: whether NAT changes addresses and ports.

Owns the request, which says nothing and has room for the reply. Never prints.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from secrets import token_bytes
from typing import Final

from echod.probes.exchange import exchange
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import open_probe_socket, source_address
from echod.probes.target import Target
from echod.probes.udp import UdpTransport
from echod.wire.reveal import ENOUGH_BYTES, Seen, decode

_OF_ANOTHER_MODE: Final = "replied, but not as a reveal listener"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """A probe of one source port, and what the server saw of it; None and a reason if there is no such reply."""

    address: str
    port: int
    seen: Seen | None
    reason: str

    @property
    def translated(self) -> bool:
        """Return whether the server saw another address or port."""
        return self.seen is not None and (self.seen.peer, self.seen.peer_port) != (self.address, self.port)


def reveal(target: Target, settings: ProbeSettings) -> list[Revealed]:
    """Send a probe from each source port; return what the server saw. Raises UsageError as `open_probe_socket`."""
    with ExitStack() as stack:
        transports = [
            UdpTransport(stack.enter_context(open_probe_socket(target, settings.sockets, index)), target, index)
            for index in range(settings.source_ports)
        ]
        request = token_bytes(ENOUGH_BYTES)
        answers = exchange(transports, request, decode, timeout=settings.timeout, unread=_OF_ANOTHER_MODE)
        address = source_address(target, settings.sockets)
    return [
        Revealed(address=address, port=transport.port, seen=answer.meaning, reason=answer.reason)
        for transport, answer in zip(transports, answers, strict=True)
    ]
