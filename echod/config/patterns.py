"""The forms of text in a config as regular expressions, for programs that cannot call the parsers.

Owns the expressions, in what ECMA-262 and Python have in common, without look-around. The parsers in `net.listener`,
`access` and `fields` decide: an expression knows no range that runs backwards, and no address of a wrong kind, such as
multicast. Invariant: what the parser takes, its expression matches.
"""

from collections.abc import Iterator
from typing import Final

from echod.config.fields import SIZES
from echod.net.listener import MAX_PORT


def number(low: int, high: int) -> str:
    """Match the decimal numbers from `low` to `high`, without leading zeros."""
    lengths = range(len(str(low)), len(str(high)) + 1)
    spans = ((max(low, 10 ** (length - 1) if length > 1 else 0), min(high, 10**length - 1)) for length in lengths)
    return f"({'|'.join(each for first, last in spans for each in _between(str(first), str(last)))})"


def _between(low: str, high: str) -> Iterator[str]:
    """Yield expressions for the texts of digits between two of the same length."""
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    begins, ends = low[1:] == "0" * rest, high[1:] == "9" * rest
    if first == last and not (begins and ends):
        yield from (f"{first}{each}" for each in _between(low[1:], high[1:]))
        return
    if not begins:
        yield from _between(low, f"{first}{'9' * rest}")
    one, other = first + (not begins), last - (not ends)
    if one <= other:
        digit = f"[{one}-{other}]" if one < other else str(one)
        yield digit + "[0-9]" * (rest > 0) + f"{{{rest}}}" * (rest > 1)
    if not ends:
        yield from _between(f"{last}{'0' * rest}", high)


def size(low: int, high: int) -> str:
    """Match the sizes from `low` to `high` bytes, such as `8 MiB`."""
    forms = (f"{number(-(-low // unit), high // unit)} *{name}" for name, unit in SIZES.items() if name)
    return f"^0*({'|'.join(forms)})$".replace("B", "B?", 1)  # bytes are the first


def _ipv4() -> str:
    octet = number(0, 255)
    return rf"{octet}(\.{octet}){{3}}"


def _ipv6() -> str:
    """Match an IPv6 address (RFC 4291 section 2.2): eight groups, or fewer around `::`; IPv4 at the end is two."""
    group = "[0-9A-Fa-f]{1,4}"
    whole = [f"({group}:){{7}}{group}", f"({group}:){{1,7}}:", f":((:{group}){{1,7}}|:)"]
    whole += [f"({group}:){{1,{7 - behind}}}(:{group}){{1,{behind}}}" for behind in range(1, 7)]
    heads = [f"({group}:){{6}}", f"({group}:){{1,5}}:", f"::({group}:){{0,5}}"]
    heads += [f"({group}:){{1,{5 - behind}}}(:{group}){{1,{behind}}}:" for behind in range(1, 5)]
    return f"({'|'.join(whole)}|({'|'.join(heads)}){_IPV4})"


_IPV4: Final = _ipv4()
_IPV6: Final = _ipv6()
_INTERFACE: Final = r"""[^\s/:%?#@"']{1,15}"""
_IN_BRACKETS: Final = _INTERFACE.replace("[^", r"[^\]")
_HOST: Final = rf"({_IPV4}(%{_INTERFACE})?|\[{_IPV6}(%{_IN_BRACKETS})?\])"
_PORT: Final = number(1, MAX_PORT)

LISTENER: Final = f"^(udp|tcp)://{_HOST}:{_PORT}(-{_PORT})?$"
"""`udp://192.0.2.1:7000-7015`"""
ENDPOINT: Final = f"^http://{_HOST}:{_PORT}$"
"""`http://[::1]:9007`"""
NETWORK: Final = f"^({_IPV4}(/{number(0, 32)})?|{_IPV6}(/{number(0, 128)})?)$"
"""`192.0.2.0/24`, or an address."""
HOST_NAME: Final = "^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$"
"""`echo.example.com`"""
INTERFACE: Final = r"^[^\s/:%]{1,15}$"
"""`eth0`"""
DIRECTORY: Final = "^(auto$|/)"
"""`/run/echod`, or auto."""
_DECIMAL: Final = r"[0-9]{1,12}(\.[0-9]{1,6})?"
SHARE: Final = r"^(0{0,10}[0-9]{1,2}(\.[0-9]{1,6})?|0{0,9}100(\.0{1,6})?) *%$"
"""`0.1%`"""
TIME: Final = f"^{_DECIMAL} *(s|ms|us)$"
"""`20 ms`"""
RATE: Final = f"^({_DECIMAL} *[kMG]?bit/s|unlimited)$"
"""`10 Mbit/s`, or unlimited."""
DSCP: Final = "^(none|reflect|[Ee][Ff]|[Vv][Aa]|[Ll][Ee]|[Cc][Ss][0-7]|[Aa][Ff][1-4][1-3])$"
"""`EF`, none or reflect."""
KEY: Final = r"^(/.*[^/]|[A-Za-z0-9_.-]+)$"
"""`/etc/echod/stamp.key`, or the name of a credential."""
