"""What each mode does: what a worker gives a UDP service to answer with, and a TCP service to make connections with.

Owns the choice, and loads the module of a mode only for a listener that has it: what measures costs memory.
"""

from collections.abc import Callable
from functools import partial
from time import time_ns
from typing import Protocol

from echod.linux.poll import Poll
from echod.net.mode import ListenerOptions, Mode
from echod.stats.refusals import Tally
from echod.tcp.connections import Connections
from echod.udp.reply import send
from echod.udp.service import Identity, Reply
from echod.udp.sock import UdpSocket
from echod.worker.channel import Birth, ServedSocket


class Holding(Protocol):
    """What holds datagrams of a socket for later."""

    def __len__(self) -> int:
        """Return how many."""

    def drain(self) -> None:
        """Close the socket as soon as none is held."""

    def flush(self) -> None:
        """Send all at once."""


def make_reply(  # noqa: PLR0913 - each is a part that the worker owns and shares out
    birth: Birth,
    served: ServedSocket,
    sock: UdpSocket,
    row: memoryview,
    tally: Tally,
    *,
    poll: Poll,
    holding: dict[int, Holding],
) -> Reply:
    """Return what replies for one socket of a listener, which has this row of counters and this tally of refusals.

    What holds datagrams is added to `holding`, by the descriptor of the socket.
    """
    options = served.options
    if options.mode is Mode.DISCARD:
        from echod.udp.modes.discard import Discard  # noqa: PLC0415 - see above

        return Discard(row).reply
    if options.mode is Mode.REVEAL:
        from echod.udp.modes.reveal import Reveal  # noqa: PLC0415 - see above

        return Reveal(sock, row, tally).reply
    if options.impair is not None:
        from echod.udp.modes.impair import ImpairedEcho  # noqa: PLC0415 - see above

        impaired = holding[sock.fd] = ImpairedEcho(options.impair, sock, row, tally, poll=poll)
        return impaired.reply
    if options.mode is Mode.UDPECHO_PLUS:
        from echod.udp.modes.udpecho_plus import UdpEchoPlus  # noqa: PLC0415 - see above

        return UdpEchoPlus(row, began=birth.began).reply
    if options.mode is Mode.STAMP:
        from echod.udp.modes.stamp import Stamp  # noqa: PLC0415 - see above

        return Stamp(row, tally, options=options, key=served.key, port=served.listener.port).reply
    return send


def make_identity(served: ServedSocket) -> Identity | None:
    """Return what of a datagram is compared with earlier ones, to detect a loop; None for all of it."""
    if served.options.mode is Mode.REVEAL:
        from echod.wire.reveal import identity  # noqa: PLC0415 - see above

        return identity
    if served.options.mode is Mode.UDPECHO_PLUS:
        from echod.wire import udpecho_plus  # noqa: PLC0415 - see above

        return udpecho_plus.identity
    if served.options.mode is Mode.STAMP:
        from echod.wire import stamp  # noqa: PLC0415 - see above

        return lambda data: stamp.identity(data, time_ns(), served.key)
    return None


def make_connections(options: ListenerOptions, poll: Poll) -> Callable[..., Connections]:
    """Return what makes the connections of a TCP listener."""
    if options.mode is Mode.DISCARD:
        from echod.tcp.modes.discard import discarding  # noqa: PLC0415 - see above

        return discarding
    if options.impair is not None:
        from echod.tcp.modes.impair import ImpairedConnections  # noqa: PLC0415 - see above

        return partial(ImpairedConnections, options.impair, poll)
    return Connections
