"""A service manager as a command sees it: it binds UDP sockets and passes them (sd_listen_fds(3))."""

import json
import sys
from collections.abc import Sequence
from typing import Final

_SCRIPT: Final = """import json, os, socket, sys
addresses, ipv6_only = json.loads(sys.argv[1])
for number, (host, port) in enumerate(addresses):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
    sock.bind((host, port))
    fd = sock.detach()
    os.set_inheritable(fd, True)
    assert fd == 3 + number
os.environ.update(LISTEN_FDS=str(len(addresses)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])"""


def pass_sockets(addresses: Sequence[tuple[str, int]], *, ipv6_only: bool = True) -> list[str]:
    """Return a prefix for a command, which passes it sockets bound to these addresses and ports."""
    return [sys.executable, "-c", _SCRIPT, json.dumps([addresses, ipv6_only])]
