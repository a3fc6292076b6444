"""What a responder is: a plain echo, UDPEchoPlus, or a STAMP reflector.

Owns one request that each of them answers in its own way: a STAMP packet. An echo returns it as it is. A server of
UDPEchoPlus overwrites four of its fields, at 4 to 19. A reflector returns number and time of the request elsewhere.
"""

from contextlib import ExitStack
from secrets import randbits
from time import time_ns
from typing import Final

from echod.net.mode import Mode
from echod.probes.exchange import exchange
from echod.probes.settings import ProbeSettings
from echod.probes.sockets import open_probe_socket
from echod.probes.target import Target
from echod.probes.udp import UdpTransport
from echod.wire import stamp, udpecho_plus

_REST_AT: Final = udpecho_plus.FAILURES_AT + 4


def recognize(request: bytes, reply: bytes) -> Mode | None:
    """Return which responder has made this reply of this request, a STAMP packet; None if none of them has."""
    places = stamp.UNAUTHENTICATED
    if reply == request:
        return Mode.ECHO
    if len(reply) == len(request) and (reply[:4], reply[_REST_AT:]) == (request[:4], request[_REST_AT:]):
        return Mode.UDPECHO_PLUS
    copies = reply[places.sender_sequence : places.sender_stamp + 8]
    return Mode.STAMP if copies == request[: places.stamp + 8] else None


def detect(target: Target, settings: ProbeSettings) -> Mode | None:
    """Return what the responder of a target is; None if it does not reply. Raises UsageError as `open_probe_socket`."""
    request = stamp.request(randbits(32), time_ns())
    with ExitStack() as stack:
        transport = UdpTransport(stack.enter_context(open_probe_socket(target, settings.sockets)), target, 0)
        (answer,) = exchange([transport], request, lambda reply: recognize(request, reply), timeout=settings.timeout)
    return answer.meaning
