"""Where metrics are served: an address and port, as the operator writes it.

Owns the text form `http://ADDRESS:PORT`. It never looks up a name and never opens a socket. Invariant: the text of an
endpoint, parsed, is that endpoint.
"""

import re
from dataclasses import dataclass
from typing import Final

from echod.net.listener import Listener, Protocol, parse_host, parse_port, refuse_strange, split_host

USUAL_PORT: Final = 9007
"""The echo's own 7, in the range of Prometheus exporters (9000 and up)."""

WANTED: Final = f"http://127.0.0.1:{USUAL_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An HTTP port."""

    listener: Listener
    """The same address and port as a TCP listener."""

    def __str__(self) -> str:
        """Write the endpoint as the config file has it, such as `http://[::1]:9007`."""
        return "http" + str(self.listener).removeprefix("tcp")


def parse_endpoint(text: str) -> Endpoint:
    """Read `http://ADDRESS:PORT`; an IPv6 address is in brackets (RFC 3986).

    Raises ValueError with one sentence for the operator that says what is wrong and what to write.
    """
    refuse_strange(text, wanted=WANTED)
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f'"{text}" is not a URL: write {WANTED}, or off')
    if scheme == "https":
        raise ValueError(f"https is not supported: write http://{rest} and put a proxy in front of it")
    if scheme != "http":
        raise ValueError(f'the protocol "{scheme}" is not supported: write http://{rest}')
    if found := re.search(r"[/?#@]", rest):
        raise ValueError(f'contains "{found[0]}": write http://ADDRESS:PORT and nothing else')
    if re.fullmatch(r"\*?(:[^:]*)?", rest):
        raise ValueError(f"has no address: write {WANTED}")
    host, port = split_host(rest, usual_port=USUAL_PORT)
    if not re.fullmatch(r"[0-9]+", port):
        raise ValueError(f'"{port}" is not a port: write a number from 1 to 65535')
    address, zone = parse_host(host)
    return Endpoint(listener=Listener(protocol=Protocol.TCP, address=address, port=parse_port(port), zone=zone))
