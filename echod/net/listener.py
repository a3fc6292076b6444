"""A listener: one protocol, address and port, as the operator writes it and as the kernel takes it.

Owns the text form `udp://ADDRESS:PORT`, that of an endpoint for metrics, `http://ADDRESS:PORT`, their syntax, and when
two listeners conflict. It never looks up a name and never opens a socket. Invariant: the text of either, parsed, is
that listener or endpoint.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

MAX_LISTENERS = 1024  # a mistyped range must not use up all descriptors of the host
MAX_PORT = 65535

_METRICS_PORT: Final = 9007
"""The echo's own 7, in the range of Prometheus exporters (9000 and up)."""

WANTED_ENDPOINT: Final = f"http://127.0.0.1:{_METRICS_PORT}"

_BROADCAST = IPv4Address("255.255.255.255")
_MAX_CHARACTERS = 100  # the longest possible listener has 81
INTERFACE = re.compile(r"[^\s/:%]{1,15}")  # dev_valid_name() in net/core/dev.c; "%" makes a pattern of a name there


class Protocol(Enum):
    """The two transports of RFC 862."""

    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One UDP or TCP echo port. Hashable: two listeners are equal if they would bind the same socket.

    `zone` is an interface name: for a link-local IPv6 address that of its link (RFC 4007), for any other the interface,
    or VRF, that the socket is bound to: it receives and replies only there (SO_BINDTODEVICE in socket(7)).
    """

    protocol: Protocol
    address: IPv4Address | IPv6Address
    port: int
    zone: str = ""

    def __hash__(self) -> int:
        """Hash what distinguishes most listeners: they are looked up often, and hashing an address object is slow."""
        return hash((self.port, int(self.address)))

    def __str__(self) -> str:
        """Write the listener as the config file has it, such as `udp://[fe80::1%eth0]:7`."""
        zone = f"%{self.zone}" if self.zone else ""
        host = f"[{self.address}{zone}]" if isinstance(self.address, IPv6Address) else f"{self.address}{zone}"
        return f"{self.protocol.value}://{host}:{self.port}"

    @property
    def link_local(self) -> bool:
        """Whether the address means something only together with its zone."""
        return isinstance(self.address, IPv6Address) and self.address.is_link_local

    @property
    def unit_line(self) -> str:
        """Write it as a .socket unit has it (systemd.socket(5)): there an interface is a line of its own."""
        kind = "Datagram" if self.protocol is Protocol.UDP else "Stream"
        if not self.zone or self.link_local:
            return f"Listen{kind}={str(self).partition('://')[2]}"
        return f"{replace(self, zone='').unit_line} with BindToDevice={self.zone}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An HTTP port, on which metrics are served."""

    listener: Listener
    """The same address and port as a TCP listener."""

    def __str__(self) -> str:
        """Write the endpoint as the config file has it, such as `http://[::1]:9007`."""
        return "http" + str(self.listener).removeprefix("tcp")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerRange:
    """The listeners of one entry of the config: one on each port from `first.port` to `last_port`."""

    first: Listener
    last_port: int

    def __str__(self) -> str:
        """Write the entry as the config file has it, such as `udp://192.0.2.1:7000-7015`."""
        return f"{self.first}-{self.last_port}" if len(self) > 1 else str(self.first)

    def __len__(self) -> int:
        """Count the listeners, at least one."""
        return self.last_port - self.first.port + 1

    def __iter__(self) -> Iterator[Listener]:
        """Yield the listeners by ascending port."""
        return (replace(self.first, port=port) for port in range(self.first.port, self.last_port + 1))


def parse_listener(text: str) -> ListenerRange:
    """Read `udp://ADDRESS:PORT` or `tcp://ADDRESS:FIRST-LAST`; an IPv6 address is in brackets (RFC 3986).

    Raises ValueError with one sentence for the operator that says what is wrong and what to write.
    """
    _refuse_strange(text, wanted="udp://ADDRESS:PORT")
    scheme, separator, rest = text.partition("://")
    if not separator:
        bare = re.sub(r"^((udp|tcp):)?/*", "", text) or "ADDRESS:PORT"
        raise ValueError(f"has no protocol: write udp://{bare} or tcp://{bare}")
    protocol = _parse_protocol(scheme)
    if found := re.search(r"[/?#@]", rest):
        raise ValueError(f'contains "{found[0]}": write {scheme}://ADDRESS:PORT and nothing else')
    host, port = _split_host(rest, usual_port=7)
    first, last = _parse_ports(port)
    address, zone = _parse_host(host)
    return ListenerRange(
        first=Listener(protocol=protocol, address=address, port=first, zone=zone),
        last_port=last,
    )


def parse_endpoint(text: str) -> Endpoint:
    """Read `http://ADDRESS:PORT`; an IPv6 address is in brackets (RFC 3986).

    Raises ValueError with one sentence for the operator that says what is wrong and what to write.
    """
    _refuse_strange(text, wanted=WANTED_ENDPOINT)
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f'"{text}" is not a URL: write {WANTED_ENDPOINT}, or off')
    if scheme == "https":
        raise ValueError(f"https is not supported: write http://{rest} and put a proxy in front of it")
    if scheme != "http":
        raise ValueError(f'the protocol "{scheme}" is not supported: write http://{rest}')
    if found := re.search(r"[/?#@]", rest):
        raise ValueError(f'contains "{found[0]}": write http://ADDRESS:PORT and nothing else')
    if re.fullmatch(r"\*?(:[^:]*)?", rest):
        raise ValueError(f"has no address: write {WANTED_ENDPOINT}")
    host, port = _split_host(rest, usual_port=_METRICS_PORT)
    if not re.fullmatch(r"[0-9]+", port):
        raise ValueError(f'"{port}" is not a port: write a number from 1 to 65535')
    address, zone = _parse_host(host)
    return Endpoint(listener=Listener(protocol=Protocol.TCP, address=address, port=_parse_port(port), zone=zone))


def in_ranges(listeners: Iterable[Listener]) -> list[ListenerRange]:
    """Return listeners, in their order, as few entries of the config: successive ports are one."""
    ranges: list[ListenerRange] = []
    for each in listeners:
        if ranges and each == replace(ranges[-1].first, port=ranges[-1].last_port + 1):
            ranges[-1] = replace(ranges[-1], last_port=each.port)
        else:
            ranges.append(ListenerRange(first=each, last_port=each.port))
    return ranges


def find_overlaps(ranges: Mapping[int, ListenerRange]) -> dict[int, tuple[int, str]]:
    """Find the entries, by index, that open what another entry already opens.

    Returns the index of that other entry, and a clause about the first such listener.
    A second socket on the same address would take datagrams from the first, and one on a single address next to the
    wildcard of its family receives nothing that the wildcard would not. One that is bound to an interface may stand
    beside one that is not, which receives nothing from a VRF. (From another interface the kernel gives to either: it
    takes the first group of SO_REUSEPORT that fits.)
    """
    owners: dict[Listener, int] = {}
    overlaps: dict[int, tuple[int, str]] = {}
    for index, listeners in ranges.items():
        for listener in listeners:
            owner = owners.setdefault(listener, index)
            if owner != index:
                overlaps.setdefault(index, (owner, f"{listener} is already listed"))
    for listener, index in owners.items():
        for zone in {listener.zone, ""} if listener.link_local else (listener.zone,):
            wildcard = replace(listener, address=type(listener.address)(0), zone=zone)
            if wildcard != listener and wildcard in owners:
                overlaps.setdefault(index, (owners[wildcard], f"{listener} is already covered by {wildcard}"))
    return overlaps


def overlap(one: Listener, other: Listener) -> bool:
    """Tell whether the kernel would bind only one of two listeners, without SO_REUSEPORT."""
    if (one.protocol, one.port, type(one.address)) != (other.protocol, other.port, type(other.address)):
        return False
    if one.zone != other.zone and one.zone and other.zone:
        return False
    return one.address.is_unspecified or other.address.is_unspecified or one.address == other.address


def _refuse_strange(text: str, *, wanted: str) -> None:
    """Refuse characters that no address and port can contain. Raises ValueError as `parse_listener` does."""
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters: write {wanted}")
    if any(character.isspace() for character in text):
        raise ValueError("contains white space: remove it")
    if not text.isprintable():
        raise ValueError("contains an unprintable character: remove it")
    if '"' in text or "'" in text:
        raise ValueError("contains a quote: put all of it in quotes, or remove the quote")


def _parse_protocol(scheme: str) -> Protocol:
    names = [protocol.value for protocol in Protocol]
    if scheme in names:
        return Protocol(scheme)
    if close := get_close_matches(scheme.lower(), names, n=1):
        raise ValueError(f'the protocol "{scheme}" is not known: did you mean {close[0]}?')
    raise ValueError(f'the protocol "{scheme}" is not known: write udp or tcp')


def _split_host(rest: str, *, usual_port: int) -> tuple[str, str]:
    """Split host, with its brackets if it has any, from port. Raises ValueError as `parse_listener` does."""
    if rest.startswith("["):
        host, bracket, after = rest.partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("an IPv6 address needs a pair of brackets before its port: write [ADDRESS]:PORT")
        host, port = host + bracket, after[1:]
    elif rest.count(":") > 1:
        raise ValueError("an IPv6 address needs brackets, followed by one port: write [ADDRESS]:PORT")
    else:
        host, _, port = rest.partition(":")
    if host in ("", "*"):
        raise ValueError("has no address: write 0.0.0.0 for all of IPv4, [::] for all of IPv6")
    if not port:
        raise ValueError(f"has no port: write {host}:{usual_port}, or another port")
    return host, port


def _parse_host(host: str) -> tuple[IPv4Address | IPv6Address, str]:
    """Read an address (IPv6: in brackets) and its interface. Raises ValueError as `parse_listener` does."""
    six = host.startswith("[")
    digits, percent, zone = (host[1:-1] if six else host).partition("%")
    address = _parse_ipv6(digits) if six else _parse_ipv4(digits)
    write = f"[{digits}%eth0]" if six else f"{digits}%eth0"
    if address.is_multicast or address == _BROADCAST:
        shown = f"[{address}]" if six else address
        raise ValueError(f"{shown} is not the address of a single host: write an address of this host")
    if isinstance(address, IPv6Address) and address.is_link_local and not zone:
        raise ValueError(f"a link-local address needs its interface: write {write}, or another interface")
    if percent and not zone:
        raise ValueError(f"has no interface after the %: write {write}, or another interface, or remove the %")
    if zone and not INTERFACE.fullmatch(zone):
        raise ValueError(f'"{zone}" is not an interface name: write up to 15 characters, none of them "/", ":" or "%"')
    return address, zone


def _parse_ports(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text)
    if not found:
        raise ValueError(f'"{text}" is not a port: write a number from 1 to {MAX_PORT}, or a range such as 7000-7015')
    first, last = _parse_port(found[1]), _parse_port(found[2] or found[1])
    if first > last:
        raise ValueError(f"the port range runs backwards: write {last}-{first}")
    return first, last


def _parse_port(digits: str) -> int:
    """Read one port. Raises ValueError as `parse_listener` does."""
    port = int(digits)
    if not 1 <= port <= MAX_PORT:
        raise ValueError(f"the port {digits} is out of bounds: write a number from 1 to {MAX_PORT}")
    if digits.startswith("0"):
        raise ValueError(f"the port {digits} begins with a zero: write {port}")
    return port


def _parse_ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        if re.fullmatch(r"[0-9.]+", text):
            hint = "write four numbers from 0 to 255, without leading zeros"
            raise ValueError(f'"{text}" is not an IPv4 address: {hint}') from None
        hint = "host names are not looked up, write the address itself"
        raise ValueError(f'"{text}" is not an address: {hint}') from None


def _parse_ipv6(text: str) -> IPv6Address:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise ValueError(f'"{text}" is not an IPv6 address: only IPv6 addresses are written in brackets') from None
    if address.ipv4_mapped is not None:
        raise ValueError(f"[{text}] is an IPv4-mapped IPv6 address: write {address.ipv4_mapped} without brackets")
    return address
