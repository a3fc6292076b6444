"""A listener: one protocol, address and port, as the operator writes it and as the kernel takes it."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address


class Protocol(Enum):
    """The two transports of RFC 862."""

    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One UDP or TCP echo port. Hashable: two listeners are equal where they would bind the same socket.

    `zone` is an interface name and stands only with a link-local IPv6 address.
    """

    protocol: Protocol
    address: IPv4Address | IPv6Address
    port: int
    zone: str = ""

    def __str__(self) -> str:
        """Write the listener as the config file has it, such as `udp://[fe80::1%eth0]:7`."""
        zone = f"%{self.zone}" if self.zone else ""
        host = f"[{self.address}{zone}]" if self.address.version == 6 else str(self.address)  # noqa: PLR2004
        return f"{self.protocol.value}://{host}:{self.port}"
