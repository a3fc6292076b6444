"""Targets: what the operator wrote, and its address.

Owns the text form and the look-up of names. Never opens a socket. Invariant: a `Target` has a numeric address, so that
no other module waits for a name server.
"""

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from echod.errors import UsageError
from echod.measurement.payload import MAX_SIZE
from echod.net.listener import MAX_PORT, Protocol
from echod.net.networks import is_address

ECHO_PORT: Final = 7
"""RFC 862."""

HEADERS: Final = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""Bytes of an IP and a UDP header."""

_MOST: Final = {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}
"""Bytes of payload in a UDP datagram: its length field counts to 65,535, and over IPv4 so does that of the packet."""

_SOCKET_KINDS: Final = {Protocol.UDP: socket.SOCK_DGRAM, Protocol.TCP: socket.SOCK_STREAM}

_REASONS: Final = {
    socket.EAI_NONAME: "no such name",
    socket.EAI_AGAIN: "the name server does not answer",
    socket.EAI_FAIL: "the name server refuses to answer",
}

Address = tuple[str, int] | tuple[str, int, int, int]
"""As sendto(2) takes it, in Python's form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """A target as the operator wrote it."""

    protocol: Protocol
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target with its address."""

    spec: TargetSpec
    family: socket.AddressFamily
    address: Address

    @property
    def protocol(self) -> Protocol:
        """Return the protocol of its probes."""
        return self.spec.protocol

    @property
    def ip(self) -> str:
        """Return the numeric address, with its zone where it has one."""
        return _zoned(self.address)

    @property
    def max_payload(self) -> int:
        """Return the greatest payload of a probe to it, in bytes."""
        return _MOST[self.family] if self.protocol is Protocol.UDP else MAX_SIZE

    @property
    def endpoint(self) -> str:
        """Return numeric address and port."""
        return endpoint(self.address)

    def __str__(self) -> str:
        """Format the target as the operator would write it."""
        host = f"[{self.spec.host}]" if ":" in self.spec.host else self.spec.host
        return f"{self.protocol.value}://{_printable(host)}:{self.spec.port}"


def endpoint(address: Address) -> str:
    """Format an address and its port, as in 192.0.2.1:7, [2001:db8::1]:7 or [fe80::1%eth0]:7."""
    return f"[{_zoned(address)}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _zoned(address: Address) -> str:
    """Format an address with its zone, by name, or by number if the interface is gone."""
    scope = address[3] if len(address) > 3 else 0  # noqa: PLR2004 - (address, port, flow, scope)
    if not scope:
        return address[0]
    zone = str(scope)
    with suppress(OSError):
        zone = socket.if_indextoname(scope)
    return f"{address[0]}%{_printable(zone)}"


def _printable(text: str) -> str:
    """Return text that can be written as UTF-8: other bytes are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def parse(text: str, default_port: int = ECHO_PORT) -> TargetSpec:
    """Read `[udp://|tcp://]HOST[:PORT]`; an IPv6 address with a port stands in brackets.

    Raises UsageError.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = Protocol.UDP.value, text
    if scheme not in [protocol.value for protocol in Protocol]:
        raise UsageError(f'"{text}": the protocol "{scheme}" is not known: write udp:// or tcp://')
    found = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]+))?|([^:\[\]/\s]+)(?::([0-9]+))?", rest)
    if found:
        host, port = found[1] or found[3], found[2] or found[4] or str(default_port)
    elif rest.count(":") > 1 and is_address(rest):
        host, port = rest, str(default_port)
    else:
        raise UsageError(f'"{text}" is not a target: write [udp://|tcp://]HOST[:PORT]')
    if re.fullmatch("[0-9]+|0[xX][0-9a-fA-F]+", host):  # to inet_aton(3) it is an address: 7007 is 0.0.27.95
        raise UsageError(f'"{text}" is a number, not a host: write HOST or HOST:PORT')
    if re.fullmatch(r"[0-9.]+", host) and re.search(r"(?:^|\.)0[0-9]", host):  # to inet_aton(3) 010 is 8
        raise UsageError(f'"{text}": a part with a leading zero is octal to some programs: write it without')
    if not 1 <= int(port[:6]) <= MAX_PORT:
        raise UsageError(f'"{text}": the port {port} is out of bounds: write 1 to {MAX_PORT}')
    return TargetSpec(protocol=Protocol(scheme), host=host, port=int(port))


def with_port(text: str, port: str) -> str:
    """Return the text of a target with a port added; empty if it has one."""
    scheme, separator, rest = text.rpartition("://")
    host = f"[{rest}]" if ":" in rest and is_address(rest) else rest
    return "" if re.search(":[0-9]+$", host) else f"{scheme}{separator}{host}:{port}"


def resolve(spec: TargetSpec, family: socket.AddressFamily | None, source: str = "") -> Target:
    """Look up the address of a target, the first of the resolver. A family of None is any.

    A link-local address without a zone is on the link of the source, if that is an interface or has a zone. Raises
    UsageError.
    """
    # As bytes the name of an interface may be any; as text it would have to be a valid name of DNS.
    host = os.fsencode(spec.host) if "%" in spec.host else spec.host
    try:
        found = socket.getaddrinfo(host, spec.port, family or socket.AF_UNSPEC, _SOCKET_KINDS[spec.protocol])
    except socket.gaierror as error:
        raise UsageError(f"{spec.host}: {_reason(error, spec, family)}") from None
    except (UnicodeError, OverflowError):
        raise UsageError(f"{spec.host}: no such name") from None
    found = [each for each in found if each[0] in (socket.AF_INET, socket.AF_INET6)]
    if not found:
        raise UsageError(f"{spec.host}: has no IPv4 or IPv6 address")
    number, _, _, _, address = found[0]
    if number == socket.AF_INET:
        return Target(spec=spec, family=socket.AF_INET, address=(str(address[0]), int(address[1])))
    numeric, port, flow, scope = str(address[0]), *(int(each) for each in address[1:4])
    if not scope and ip_address(numeric).is_link_local:
        with suppress(OSError):
            scope = socket.if_nametoindex(source.rpartition("%")[2])
    return Target(spec=spec, family=socket.AF_INET6, address=(numeric, port, flow, scope))


def _reason(error: socket.gaierror, spec: TargetSpec, family: socket.AddressFamily | None) -> str:
    """Return why a name has no address; a name with an address of the other family has a reason of its own."""
    if family and error.errno in (socket.EAI_NODATA, socket.EAI_ADDRFAMILY, socket.EAI_NONAME):
        with suppress(UsageError):
            resolve(spec, None)
            return f"has no {'IPv4' if family == socket.AF_INET else 'IPv6'} address"
    if "%" in spec.host and is_address(spec.host):
        return f"this host has no interface {spec.host.partition('%')[2]}"
    return _REASONS.get(error.errno or 0, str(error.strerror).lower())
