"""An entry of an access list, as the operator writes it: a network, an address, or one of four names.

Owns the text form of an entry of `access.allow` and `access.deny`, and whether an entry includes public addresses. It
never looks up a host name and never judges a datagram. Invariant: the text of an entry, parsed, is that entry.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, ip_network
from typing import Final

from echod.net.networks import Network

_MAX_CHARACTERS: Final = 60  # the longest possible entry has 49
WANTED: Final = "write a network such as 192.0.2.0/24, or loopback, link-local, private or any"
_IPV6_OF_IPV4_BITS: Final = 96  # of ::ffff:0:0/96, RFC 4291 section 2.5.5.2


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


NAMES: Final[Mapping[str, tuple[Network, ...]]] = {
    "loopback": _networks("127.0.0.0/8", "::1/128"),
    "link-local": _networks("169.254.0.0/16", "fe80::/10"),
    "private": _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # RFC 1918, RFC 4193
    "any": _networks("0.0.0.0/0", "::/0"),
}

_SUGGESTED: Final = [name for name in NAMES if name != "any"]
"""Names that are proposed for a misspelt one. Never `any`: whoever means the whole Internet must write it."""
_CLOSE: Final = 0.75
"""The least similarity (difflib): "lopback" is corrected to loopback, and "local" is not corrected."""

_NOT_PUBLIC: Final = (
    *NAMES["loopback"],
    *NAMES["link-local"],
    *NAMES["private"],
    *_networks("100.64.0.0/10"),  # behind a carrier's NAT, RFC 6598
    *_networks("198.18.0.0/15"),  # benchmarks, RFC 2544
    *_networks("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"),  # examples, RFC 5737 and 3849
    *_networks("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8"),  # no source, so never answered
)


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One entry of an access list. Entries are equal if they mean the same and are written the same.

    `name` is what the operator wrote, in its shortest form; `networks` are the networks it covers, at least one.
    """

    name: str
    networks: tuple[Network, ...]

    def __str__(self) -> str:
        """Write the entry as the config file has it."""
        return self.name


def parse_entry(text: str) -> AccessEntry:
    """Read a network such as `192.0.2.0/24`, an address, or one of the names loopback, link-local, private and any.

    Raises ValueError with one sentence for the operator that says what is wrong and what to write.
    """
    if text in NAMES:
        return AccessEntry(text, NAMES[text])
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters: {WANTED}")
    if any(character.isspace() for character in text):
        raise ValueError("contains white space: write each entry on its own line, without white space")
    if not text.isprintable():
        raise ValueError("contains an unprintable character: remove it")
    host, slash, length = text.partition("/")
    address = _parse_address(host)
    prefix = _parse_prefix(length, address) if slash else address.max_prefixlen
    network = ip_network((address, prefix), strict=False)
    _refuse_useless(network, address)
    if network.network_address != address and not prefix:
        raise ValueError(f"{address}/0 is every address of IPv{address.version}: write {address} alone, or its network")
    if network.network_address != address:
        raise ValueError(f"{address} is one address of a network: write {network} for all of it, or {address} alone")
    return AccessEntry(str(address if prefix == address.max_prefixlen else network), (network,))


def is_public(entry: AccessEntry) -> bool:
    """Tell whether an entry includes public addresses.

    Each network is judged alone: it is public unless it lies inside a single special-purpose block (RFC 6890).
    """
    return any(not any(_is_inside(network, block) for block in _NOT_PUBLIC) for network in entry.networks)


def find_covered(entries: Iterable[AccessEntry], others: Iterable[AccessEntry]) -> list[int]:
    """Return the indices of entries that `others` cover: each of their networks lies within one network of `others`."""
    wide = {network for entry in others for network in entry.networks}
    lengths = {network.prefixlen for network in wide}

    def is_covered(network: Network) -> bool:
        fitting = (length for length in lengths if length <= network.prefixlen)
        return any(network.supernet(new_prefix=length) in wide for length in fitting)

    return [index for index, entry in enumerate(entries) if all(map(is_covered, entry.networks))]


def _is_inside(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    if found := re.fullmatch(r"\[(.+)\]", text):
        raise ValueError(f"brackets are not allowed here: write {found[1]}")
    if found := re.fullmatch(r"(.+)%.*", text):
        raise ValueError(f"an interface is not allowed here: write {found[1]}")
    try:
        return IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        pass
    if ":" in text:
        raise ValueError(f'"{text}" is not an IPv6 address: {WANTED}')
    if re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f'"{text}" is not an IPv4 address: write four numbers from 0 to 255, without leading zeros')
    if close := get_close_matches(text.lower(), _SUGGESTED, n=1, cutoff=_CLOSE):
        raise ValueError(f'"{text}" is not known: did you mean {close[0]}?')
    raise ValueError(f'"{text}" is not a network: {WANTED}')


def _parse_prefix(digits: str, address: IPv4Address | IPv6Address) -> int:
    wanted = f"write a number from 0 to {address.max_prefixlen} after the slash"
    if not re.fullmatch(r"0|[0-9]*[1-9][0-9]*", digits):
        raise ValueError(f'"{digits}" is not a prefix length: {wanted}')
    prefix = int(digits)
    if prefix > address.max_prefixlen:
        raise ValueError(f"the prefix length {digits} is out of bounds: {wanted}")
    if digits != str(prefix):
        raise ValueError(f"the prefix length {digits} begins with a zero: write {address}/{prefix}")
    return prefix


def _refuse_useless(network: Network, address: IPv4Address | IPv6Address) -> None:
    """Refuse what no datagram can have as its source; an operator who writes it means something else."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped and network.prefixlen >= _IPV6_OF_IPV4_BITS:
        plain = IPv4Network((mapped, network.prefixlen - _IPV6_OF_IPV4_BITS), strict=False)
        raise ValueError(f"is an IPv4-mapped IPv6 network: {f'write {plain}' if plain.prefixlen else WANTED}")
    if network.is_multicast:
        raise ValueError(f"{network} is multicast, which is never the source of a datagram: remove it")
    if address.is_unspecified and network.prefixlen == address.max_prefixlen:
        raise ValueError(f"{address} is never the source of a datagram: {WANTED}")
